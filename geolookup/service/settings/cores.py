"""How many processor cores this process may use."""

from __future__ import annotations

import math
import os

from geolookup import machine


def available_cores() -> int:
    """Return the cores that this process may run on, and no more than it may keep busy.

    A container's CPU limit is a share of time and leaves the number of cores as it is:
    workers beyond it would only wait for each other.
    """
    return max(1, math.ceil(min(len(os.sched_getaffinity(0)), machine.cpu_limit())))
