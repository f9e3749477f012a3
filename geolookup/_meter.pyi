"""Types of the compiled meter. Held to the module by mypy's stubtest.

`geolookup.service.monitoring.counters` names what is a number here. All numbers are uint64
and wrap. Every method may be called from any thread, and by processes that
share the memory. ValueError: a number that is out of range.
"""

from typing import Final, TypedDict, type_check_only

from typing_extensions import Buffer, disjoint_base

SIZE: Final[int]
METHODS: Final[int]
CODES: Final[int]
REGION_SETS: Final[int]
EXPRESSIONS: Final[int]
NAME_BYTES: Final[int]
DURATION_BOUNDS: Final[tuple[int, ...]]
SIZE_BOUNDS: Final[tuple[int, ...]]

@disjoint_base
class Meter:
    """Numbers in memory of SIZE bytes, zero at first, that other processes may share.

    Args:
        memory: writable and C-contiguous, at an address that is a multiple of 8;
            it can't be resized or closed while the meter lives. None: memory of
            its own.

    Raises:
        ValueError: the memory is too small, is not aligned, or holds something else.
        BufferError, TypeError: it can't be written to, or is no buffer.
    """

    def __new__(cls, memory: Buffer | None = None) -> Meter: ...
    def handle(self) -> object:
        """Return what other extension modules count with, as a capsule.

        Good for as long as the meter is.
        """

    def begin(self, method: int, /) -> None:
        """Count a call as in flight."""

    def end(self, method: int, code: int, nanoseconds: int, /) -> None:
        """Count a call that was begun, with its code and the time it took."""

    def shed(self, method: int, /) -> None:
        """Count a call that was refused because of the load. It is not begun, and not ended."""

    def address(
        self, status: int, region_set: int = 0, outcome: int = 0, networks: int = 0, /
    ) -> None:
        """Count one address.

        Args:
            status: why it got its answer.
            region_set: the number of what was asked for, as of `number`.
            outcome: the answer to that, in the form of outcome.h; 0: nothing was asked.
            networks: a bit for each kind of its network, as `claims.network_bits`.
        """

    def check(self, status: int, /) -> None:
        """Count one check of Envoy's, however many rules it is held against.

        Args:
            status: of its address.
        """

    def roster(
        self,
        statuses: tuple[int, ...],
        region_set: int = 0,
        verdicts: tuple[int, int, int] | None = None,
        reasons: tuple[int, ...] | None = None,
        networks: tuple[int, ...] | None = None,
        /,
    ) -> None:
        """Count a roster. ValueError, and nothing is counted: an argument is none of these.

        Args:
            statuses: 8 numbers, of addresses by status; the first is 0, as every address
                has a status.
            region_set: the number of what was asked for, as of `number`.
            verdicts: how many addresses are inside, outside and undetermined; None:
                nothing was asked.
            reasons: how many of the undetermined have each reason, by its number; None: not
                known.
            networks: how many addresses have each kind of network, 8 numbers; None: not known.
        """

    def number(self, name: bytes, limit: int, /) -> int:
        """Return the number of a region set's name, 1 to NAME_BYTES bytes of UTF-8.

        A name that has none gets the first that is free, if it is below *limit*;
        else the number is REGION_SETS, under which all others are counted.
        """

    def handshake(self) -> None:
        """Count a TLS handshake that a client began."""

    def certificate(self, taken: bool, not_after: int, /) -> None:
        """Count a reading of the TLS certificate.

        Args:
            taken: whether it was good; else the one before stays in use.
            not_after: when the one in use ends, as Unix time; 0: there is none.
        """

    def handshake_failure(self, reason: int, /) -> None:
        """Count a TLS handshake that failed, by the index of its reason."""

    def connection(self, begins: bool, /) -> None:
        """Count a connection that was accepted; or, if it does not begin, that has ended."""

    def connection_closed(self, uncalled: bool, /) -> None:
        """Count a connection that was closed for want of room.

        Args:
            uncalled: whether it had made no call; else it was closed at once.
        """

    def transfer_timeout(self) -> None:
        """Count a call that `transfer_timeout` has ended."""

    def log_dropped(self) -> None:
        """Count a line of the log that was dropped."""

    def take_memory(self, size: int, budget: int, /) -> bool:
        """Take bytes for a request and its answer; False: others have too many of the budget.

        One is always admitted where there is no other, however large.
        """

    def give_back_memory(self, size: int, /) -> None:
        """Give back what `take_memory` took."""

    def memory_freed(self, least: int, /) -> bool:
        """Return whether nothing is taken now, and *least* bytes were since it was last true."""

    def absorb(self, other: Meter, /) -> None:
        """Add another meter's counters to this one's; not what is true only now."""

    def abandon(self) -> None:
        """Forget the calls in flight, of a worker that is no more."""

    def read(self) -> Reading:
        """Return all numbers. Each is whole; those of one call may not all be there yet."""

@type_check_only
class Reading(TypedDict):
    """All numbers of a meter. Tuples are indexed by method, code, status or bucket.

    A region set has the addresses by verdict, and the undetermined ones by reason; and in
    `networks_of_region_sets` the addresses by kind of network. `networks` counts those that
    were seen from no region set.
    """

    in_flight: tuple[int, ...]
    certificate_end: int
    certificate_stale: int
    calls: tuple[tuple[int, ...], ...]
    durations: tuple[tuple[int, ...], ...]
    nanoseconds: tuple[int, ...]
    shed: tuple[int, ...]
    addresses: tuple[int, ...]
    checks: tuple[int, ...]
    sizes: tuple[int, ...]
    sizes_sum: int
    other_region_sets: tuple[tuple[int, int, int], tuple[int, ...]]
    handshakes: int
    handshake_failures: tuple[int, ...]
    transfer_timeouts: int
    certificate_reads: tuple[int, int]
    log_dropped: int
    memory: int
    connections: int
    connections_made: int
    connections_closed: tuple[int, int]
    region_sets: dict[str, tuple[tuple[int, int, int], tuple[int, ...]]]
    networks: tuple[int, ...]
    other_networks: tuple[int, ...]
    networks_of_region_sets: dict[str, tuple[int, ...]]

@disjoint_base
class Slots:
    """So many at once. Any thread may take and give back.

    Args:
        number: how many.
    """

    def __new__(cls, number: int, *_args: object) -> Slots: ...
    def handle(self) -> object:
        """Return what other extension modules take from, as a capsule.

        Good for as long as the slots are.
        """

    @property
    def free(self) -> int:
        """How many can be taken."""

    def take(self) -> bool:
        """Take one, if there is one."""

    def give_back(self) -> None:
        """Give one back."""

    def shed(self, now: int, /) -> int:
        """Note that a call found none; return the milliseconds after which it may come again.

        They follow the load: what was shed for each call that ended in the last 100 ms. They
        vary at random by half, and are 50 to 3,000.

        Args:
            now: `time.monotonic_ns`.
        """
