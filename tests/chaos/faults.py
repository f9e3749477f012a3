"""The table of faults: of the network, of the service's own processes, of reloads and of load."""

from __future__ import annotations

from typing import Final

from chaos import clocks, memory, network, overload, processes, reloading
from chaos.outcome import Fault

FAULTS: Final[tuple[Fault, ...]] = (
    *processes.FAULTS,
    *reloading.FAULTS,
    *clocks.FAULTS,
    *overload.FAULTS,
    *memory.FAULTS,
    *network.FAULTS,
)
"""In the order in which they are run."""


def named(name: str) -> Fault:
    """Return the fault of this name.

    Raises:
        KeyError: there is none.
    """
    return {fault.name: fault for fault in FAULTS}[name]
