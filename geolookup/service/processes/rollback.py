"""What a rollback holds back, in memory and in a folder that outlives the service.

A service that was rolled back goes on with what it returned to while its files still have what it
returned from, whatever makes it read them again: a signal, a change of another file, a restart.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from geolookup.answer.signature import SUFFIX
from geolookup.atomic import replacing
from geolookup.errors import GeoLookupError
from geolookup.service.settings import Settings

if TYPE_CHECKING:
    from typing_extensions import Buffer

PARTS: Final = ("dataset", "region_sets", "authz_rules", "overrides")
"""The files that are loaded, by the names of their settings, in the order of an identity."""
_STATE: Final = "rollback.json"
_LARGEST_STATE: Final = 65_536

Identity = tuple[str, str, str, str]
"""The digests of `PARTS`; empty: there is no such file."""
NOTHING: Final = ("", "", "", "")


@dataclass(frozen=True, slots=True)
class Hold:
    """The parts that a rollback withdrew.

    Attributes:
        withdrawn: the digest of each part that is held back; empty: it is not.
        kept: that of the part which is used in its place.
    """

    withdrawn: Identity = NOTHING
    kept: Identity = NOTHING

    def __bool__(self) -> bool:
        return self.withdrawn != NOTHING

    def after_rollback(self, left: Identity, returned_to: Identity) -> Hold:
        """Return what is held back after a rollback from one identity to another."""
        withdrawn, kept = [], []
        for old, new, held in zip(left, returned_to, self.withdrawn, strict=True):
            # A part that was held back and is returned to is not withdrawn any more.
            now = held if old == new else "" if new == held else old
            withdrawn.append(now)
            kept.append(new if now else "")
        return Hold(_identity(withdrawn), _identity(kept))

    def after_load(self, found: Sequence[str]) -> Hold:
        """Return what is still held back when the files have these digests.

        A part that is neither the withdrawn nor the kept one is another: it ends the hold.
        """
        withdrawn, kept = [], []
        for held, used, digest in zip(self.withdrawn, self.kept, found, strict=True):
            stays = bool(held) and digest in {held, used}
            withdrawn.append(held if stays else "")
            kept.append(used if stays else "")
        return Hold(_identity(withdrawn), _identity(kept))

    def held_back(self) -> dict[str, str]:
        """Return the digests of what is held back, by the parts' names."""
        return {name: one for name, one in zip(PARTS, self.withdrawn, strict=True) if one}

    def __str__(self) -> str:
        parts = " and ".join(f"{name} {digest}" for name, digest in self.held_back().items())
        return f"rolled back from {parts}, until another comes or it is lifted"


class RollbackFolder:
    """A folder with the files that a rollback returned to. For one thread.

    Args:
        settings: name it: `rollback_folder`, or else it lies beside the first file in use.

    Attributes:
        path: of the folder; None: there is no file beside which it could lie.
    """

    def __init__(self, settings: Settings) -> None:
        self.path = settings.rollback_folder
        beside = (getattr(settings, name) for name in PARTS)
        if self.path is None and (first := next(filter(None, beside), None)) is not None:
            self.path = first.with_name(first.name + ".rollback")

    def read(self) -> Hold:
        """Return what is held back; an empty `Hold` where the folder has nothing.

        Raises:
            GeoLookupError: the folder can't be read, or is damaged. The text names it.
        """
        if self.path is None:
            return Hold()
        state = self.path / _STATE
        try:
            with state.open("rb") as file:
                content = json.loads(file.read(_LARGEST_STATE))
            hold = Hold(_identity(content["withdrawn"]), _identity(content["kept"]))
        except FileNotFoundError:
            return Hold()
        except OSError as error:
            raise GeoLookupError(f"{state}: can't be read: {error.strerror}") from None
        except (ValueError, TypeError, KeyError):
            raise GeoLookupError(f"{state}: damaged; remove it to end the rollback") from None
        return hold

    def file(self, part: int, hold: Hold) -> Path:
        """Return the path of a part that is kept."""
        assert self.path is not None  # noqa: S101 - the hold was read from it
        return self.path / f"{hold.kept[part]}.{PARTS[part]}"

    def write(self, hold: Hold, contents: Sequence[Buffer], signature: bytes) -> None:
        """Keep a hold with its parts; an empty one removes what was kept.

        Args:
            hold: what is held back.
            contents: of all parts.
            signature: the signatures of the dataset; empty: none is needed.

        Raises:
            OSError: the folder can't be written to.
        """
        if self.path is None:
            return
        needed = set()
        if hold:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for part, content in enumerate(contents):
                if not hold.kept[part]:
                    continue
                path = self.file(part, hold)
                needed.add(path.name)
                with replacing(path) as file:
                    file.write(content)
                if part == 0 and signature:
                    needed.add(path.name + SUFFIX)
                    with replacing(path.with_name(path.name + SUFFIX)) as file:
                        file.write(signature)
            # Last, as it names the others.
            with replacing(self.path / _STATE) as file:
                state = {"withdrawn": hold.withdrawn, "kept": hold.kept}
                file.write(json.dumps(state, indent=1).encode() + b"\n")
            needed.add(_STATE)
        self._remove_others(needed)

    def _remove_others(self, needed: set[str]) -> None:
        assert self.path is not None  # noqa: S101 - the caller has checked
        # The state first: without it the others mean nothing.
        suffixes = (*(f".{name}" for name in PARTS), SUFFIX)
        with contextlib.suppress(FileNotFoundError):
            names = sorted(os.listdir(self.path), key=lambda name: name != _STATE)
            for name in names:
                if name not in needed and (name == _STATE or name.endswith(suffixes)):
                    (self.path / name).unlink()
            if not needed:
                with contextlib.suppress(OSError):  # something else lies there, too
                    self.path.rmdir()


def _identity(digests: object) -> Identity:
    """Return the digests of `PARTS`.

    Raises:
        TypeError: these are none.
        ValueError: these are no digests, or not as many.
    """
    if not isinstance(digests, list):
        raise TypeError("digests")
    # A service of before knew no overrides.
    first, second, third, fourth = digests if len(digests) != 3 else [*digests, ""]
    for digest in digests:
        if digest and (len(digest) != 64 or set(digest) - set("0123456789abcdef")):
            raise ValueError("a digest")
    return first, second, third, fourth
