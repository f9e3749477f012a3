"""Unix sockets by path: which path is free, and who may connect."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator

from geolookup.service.settings import ListenError


def check_path_is_free(path: str, setting: str = "listen") -> None:
    """Refuse a path that is in use: gRPC would take it over in silence.

    Args:
        path: to listen at.
        setting: that of the path, which error texts name.

    Raises:
        ListenError: a server answers there, the path is a file of another kind, or its
            folder does not exist.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        folder = os.path.dirname(path) or "."
        if not os.path.isdir(folder):
            raise _unusable(setting, "No such file or directory") from None
        return
    except OSError as error:
        raise _unusable(setting, error.strerror) from None
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"{setting}: there is a file at this path, and it is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # a server whose queue is full would block the probe
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return  # left behind by a server that has ended
        except PermissionError as error:
            raise _unusable(setting, error.strerror) from None
        except OSError:
            pass  # a server has it: too busy to accept, or of another type (EPROTOTYPE)
    raise ListenError(f"{setting}: another server listens at this path")


def _unusable(setting: str, reason: str | None) -> ListenError:
    return ListenError(f"{setting}: can't make a socket at this path: {reason}")


@contextlib.contextmanager
def owner_only() -> Iterator[None]:
    """Give sockets that are made in this block mode 0600.

    The mode keeps other users out, so it must be right from the socket's first moment.
    It comes from the process's mask: no other thread may make files meanwhile.
    """
    mask = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(mask)
