"""How much of the machine this process may use: cores, and memory.

A container's limits are those of its control groups, version 1 or 2. What can't be read limits
nothing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_MEMINFO = Path("/proc/meminfo")

_RECLAIMABLE: Final = {"inactive_file", "active_file", "total_inactive_file", "total_active_file"}
"""Lines of memory.stat: what files take in memory, which the kernel gives up for others."""


def cpu_limit() -> float:
    """Return the smallest CPU limit of this process's groups, in cores; inf: none."""
    version_2 = (_ratio(_words(group / "cpu.max")) for group in _groups(""))
    version_1 = (
        _ratio(_words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us"))
        for group in _groups("cpu")
    )
    return min((*version_2, *version_1), default=math.inf)


def memory_limit() -> float:
    """Return the bytes of memory that this process may use at most; inf: not known."""
    return min((_total_memory(), *(limit for _, limit in _limited_groups())))


def memory_left() -> float:
    """Return the bytes of memory that are left for this process; inf: not known."""
    return min((_available_memory(), *(limit - _used(group) for group, limit in _limited_groups())))


def _limited_groups() -> Iterator[tuple[Path, float]]:
    """Yield the groups that limit memory, each with its limit in bytes."""
    for controller, name in (("", "memory.max"), ("memory", "memory.limit_in_bytes")):
        for group in _groups(controller):
            words = _words(group / name)
            if len(words) == 1 and words[0].isdecimal():
                yield group, int(words[0])


def _used(group: Path) -> int:
    """Return the bytes that a group takes and can't give up."""
    used = 0
    for name in ("memory.current", "memory.usage_in_bytes"):
        words = _words(group / name)
        if len(words) == 1 and words[0].isdecimal():
            used = int(words[0])
    pairs = dict(zip(*[iter(_words(group / "memory.stat"))] * 2, strict=False))
    # Version 1 has sums over the groups below beside the group's own numbers.
    names = {name for name in _RECLAIMABLE & pairs.keys() if f"total_{name}" not in pairs}
    return max(0, used - sum(int(pairs[name]) for name in names if pairs[name].isdecimal()))


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's group and of those above it.

    Args:
        controller: of version 1; empty: the group of version 2.
    """
    try:
        membership = _MEMBERSHIP.read_text("ascii")
    except (OSError, UnicodeError):
        return
    for line in membership.splitlines():
        number, _, rest = line.partition(":")
        controllers, found, path = rest.partition(":")
        if (
            not found
            or controller not in controllers.split(",")
            or (number == "0") == bool(controller)
        ):
            continue
        root = _CGROUPS / controllers
        group = root / path.lstrip("/")
        # In a container the path is often that of the machine, and the root the container's own.
        for folder in (group, *group.parents):
            if not folder.is_relative_to(root):
                break
            yield folder


def _ratio(words: list[str]) -> float:
    """Return quota / period; inf: there is no quota, or it can't be read."""
    try:
        quota, period = words
        return int(quota) / int(period) if quota not in {"max", "-1"} else math.inf
    except (ValueError, ZeroDivisionError):
        return math.inf


def _total_memory() -> float:
    # Not of /proc/meminfo, which sandboxes hide (systemd's ProcSubset=).
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return math.inf


def _available_memory() -> float:
    words = _words(_MEMINFO)
    try:
        return int(words[words.index("MemAvailable:") + 1]) * 1024
    except (ValueError, IndexError):
        return math.inf


def _words(path: Path) -> list[str]:
    try:
        return path.read_text("ascii").split()
    except (OSError, UnicodeError):
        return []
