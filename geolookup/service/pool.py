"""A pool of threads that are all there from the start."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor


class Pool(ThreadPoolExecutor):
    """As its base, which starts a thread when there is work for it.

    gRPC's server gives work to a pool in the thread that serves all calls. Where a thread can't
    be started, for lack of memory or because the system allows no more of them, that one ends,
    and the server answers nobody ever after, also when there is enough again.

    Args:
        threads: how many.
        name: what their names begin with.

    Raises:
        RuntimeError: they can't be started.
    """

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, name)
        all_there = threading.Barrier(threads + 1)
        try:
            for _ in range(threads):
                # Not what a subclass makes of it: this is nobody's call.
                super().submit(all_there.wait)
            all_there.wait()
        except BaseException:
            all_there.abort()
            raise
