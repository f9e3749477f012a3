"""How many processor cores this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def available_cores() -> int:
    """Return the cores that this process may run on, and no more than it may keep busy.

    A container's CPU limit is a share of time (cgroup v2's ``cpu.max``) and leaves
    the number of cores as it is: workers beyond it would only wait for each other.
    """
    return max(1, math.ceil(min(len(os.sched_getaffinity(0)), _cpu_limit())))


def _cpu_limit() -> float:
    """Return the smallest CPU limit of this process's groups, in cores; inf: none."""
    limit = math.inf
    try:
        membership = _MEMBERSHIP.read_text("ascii")
    except (OSError, UnicodeError):
        return limit
    for line in membership.splitlines():
        number, _, rest = line.partition(":")
        _, found, path = rest.partition(":")
        if number != "0" or not found:  # those of version 1
            continue
        group = _CGROUPS / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(_CGROUPS):
                break
            limit = min(limit, _limit_of(folder))
    return limit


def _limit_of(group: Path) -> float:
    try:
        quota, period = (group / "cpu.max").read_text("ascii").split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
