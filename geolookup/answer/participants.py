"""Participants: the people of a roster, with one address or several each.

Their addresses follow each other in the roster, so that numbers alone say whose they are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain, repeat, zip_longest
from operator import index
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

from geolookup import _core
from geolookup.answer.addresses import core_form, core_roster, why_no_roster
from geolookup.errors import RosterError

if TYPE_CHECKING:
    from geolookup.answer.addresses import Address

_T = TypeVar("_T")

ById: TypeAlias = "Mapping[Any, Iterable[Address]]"
"""The addresses of each participant, by id."""


@dataclass(frozen=True, slots=True)
class Participants:
    """Whose the addresses of a roster are.

    Attributes:
        sizes: addresses of each, at least one: uint32 in native byte order.
        addresses: their sum.
        ids: their ids, for a roster that is a mapping; else None.
    """

    sizes: bytes
    addresses: int
    ids: tuple[Any, ...] | None = None

    @classmethod
    def in_groups(cls, groups: object) -> Self:
        """Return the participants with so many addresses each.

        Args:
            groups: whole numbers, one for each participant.

        Raises:
            TypeError: they are not.
            RosterError: one of them is 0, or over 32 bits.
        """
        sizes = _sizes(groups)
        addresses, zero = _core.group_total(sizes)
        if zero >= 0:
            raise RosterError(f"groups: position {zero}: 0, but a participant has an address")
        return cls(sizes, addresses)

    def __len__(self) -> int:
        return len(self.sizes) // 4

    def check(self, addresses: int) -> None:
        """Check that they have as many addresses as the roster.

        Raises:
            RosterError: more or fewer.
        """
        if self.addresses != addresses:
            # The sum may be an address, if addresses were given as numbers in its place.
            raise RosterError(f"groups: their sum is not {addresses}, the roster's addresses")


@dataclass(frozen=True, slots=True)
class People:
    """The participants of a roster that is a mapping, with their addresses.

    Attributes:
        ids: their ids.
        lists: the addresses of each. They may be something else than lists: the core finds out.
    """

    ids: tuple[Any, ...]
    lists: list[Any]

    @classmethod
    def of(cls, mapping: Mapping[Any, object]) -> Self:
        """Return the participants of a mapping of ids to lists of addresses."""
        ids, lists = _core.keys_and_values(_dict(mapping))
        return cls(tuple(ids), lists)

    def participants(self, sizes: bytes) -> Participants:
        """Return whose the addresses are; see `participants_of`."""
        return participants_of(self.ids, sizes)

    def forms(self) -> tuple[list[str | bytes], Participants]:
        """Return all addresses as the core reads them, and whose they are; see `core_roster`.

        The lists may be any iterables of addresses in an order.

        Raises:
            TypeError: one is not, or an item is no address by its type. The text has its
                position.
            RosterError: a list is empty.
        """
        lists = [_listed(position, value) for position, value in enumerate(self.lists)]
        sizes = list(map(len, lists))
        participants = self.participants(_core.group_sizes(sizes))
        place = partial(_address_place, sizes)
        return core_roster(list(chain.from_iterable(lists)), place), participants


def participants_of(ids: tuple[Any, ...], sizes: bytes) -> Participants:
    """Return whose the addresses are, one list's after the other's.

    Args:
        ids: of the participants.
        sizes: uint32, how many addresses the list of each has.

    Raises:
        RosterError: a list is empty.
    """
    addresses, empty = _core.group_total(sizes)
    if empty >= 0:
        raise RosterError(
            f"{_place(empty)} has no address; leave out those whose addresses are not known"
        )
    return Participants(sizes, addresses, ids)


def claims_of_people(
    table: _core.Table, mapping: Mapping[Any, object]
) -> tuple[bytes, Participants]:
    """Return the claims of all addresses in a mapping of ids to lists, and whose they are.

    Raises:
        TypeError, RosterError: as `People.forms`.
    """
    people: dict[Any, Any] = _dict(mapping)
    try:
        ids, claims, sizes = table.classify_people(people)
    except TypeError:
        forms, participants = People.of(people).forms()  # other forms, or no lists
        return table.classify_text(forms), participants
    return claims, participants_of(ids, sizes)


def whose(roster: object, groups: object, region_set: object) -> Participants | None:
    """Return the participants whose addresses come in groups; None: there are no groups.

    Args:
        roster: as `classify` takes it; a mapping needs no groups.
        groups: see `Participants.in_groups`; None: none.
        region_set: None: none was given.

    Raises:
        TypeError: groups and a mapping, or as `Participants.in_groups`.
        ValueError: participants, and no region set.
        RosterError: as `Participants.in_groups`.
    """
    is_mapping = isinstance(roster, Mapping)
    if groups is None and not is_mapping:
        return None
    if region_set is None:
        field = "roster: a mapping of participants" if is_mapping else "groups:"
        raise ValueError(f"{field} needs a region set; name one with region_set=")
    if groups is None:
        return None
    if is_mapping:
        raise TypeError("groups: a mapping says whose its addresses are; leave out groups")
    return Participants.in_groups(groups)


def paired(rosters: Iterable[_T], groups: Iterable[object] | None) -> Iterator[tuple[_T, Any]]:
    """Return an iterator over each roster with its groups, or None where there are no groups.

    Raises:
        TypeError: no iterables.
        RosterError: from the iterator, where one of the two has no more.
    """
    if groups is None:
        return zip(rosters, repeat(None), strict=False)
    return _paired(iter(rosters), iter(groups))


def _paired(rosters: Iterator[_T], groups: Iterator[Any]) -> Iterator[tuple[_T, Any]]:
    end: Any = object()
    for number, pair in enumerate(zip_longest(rosters, groups, fillvalue=end)):
        if any(one is end for one in pair):
            raise unpaired(number)
        yield pair


def unpaired(number: int) -> RosterError:
    """Return the error for rosters and groups of which one ends after so many."""
    return RosterError(f"groups: expected as many as rosters; one of them ends after {number}")


def _address_place(sizes: Sequence[int], position: int) -> str:
    ends = list(accumulate(sizes))
    participant = bisect_right(ends, position)
    first = ends[participant - 1] if participant else 0
    return f"{_place(participant)}, address {position - first}"


def _dict(mapping: Mapping[Any, object]) -> dict[Any, object]:
    return mapping if type(mapping) is dict else dict(mapping)


def _place(position: int) -> str:
    return f"roster: participant {position}"


def _listed(position: int, value: object) -> Sequence[Any]:
    if isinstance(value, (list, tuple)):
        return value
    if core_form(value) is not None:
        raise TypeError(
            f"{_place(position)}: expected a list of addresses, not {type(value).__name__}; for one"
            " address each pass {id: [address] for id, address in mapping.items()}"
        )
    refusal = why_no_roster(value)
    if refusal is not None:
        raise TypeError(f"{_place(position)}: {refusal}")
    assert isinstance(value, Iterable)  # noqa: S101 - what is none was refused
    return list(value)


def _sizes(groups: object) -> bytes:
    name = type(groups).__name__
    if isinstance(groups, (str, bytes, bytearray, Mapping, Set)):
        raise TypeError(f"groups: expected a sequence of whole numbers, not {name}")
    view = _buffer(groups)
    if view is not None and view.format in ("I", "L") and view.itemsize == 4:
        return view.tobytes()
    items = groups if view is None else view.tolist()
    if not isinstance(items, Iterable):
        raise TypeError(f"groups: expected a sequence of whole numbers, not {name}")
    items = items if isinstance(items, (list, tuple)) else list(items)
    try:
        return _core.group_sizes(items)
    except TypeError:
        pass  # other numbers than int, such as numpy's, or none at all
    except OverflowError as error:
        raise RosterError(str(error)) from None
    try:
        return _core.group_sizes([_whole(position, item) for position, item in enumerate(items)])
    except OverflowError as error:
        raise RosterError(str(error)) from None


def _buffer(groups: object) -> memoryview | None:
    """Return a buffer of numbers in one dimension, such as an array; None: it is none."""
    try:
        view = memoryview(groups)  # type: ignore[arg-type]
    except (TypeError, BufferError, ValueError):
        return None
    return view if view.ndim == 1 and view.c_contiguous and view.format in _NUMBERS else None


_NUMBERS = frozenset("bBhHiIlLqQ")


def _whole(position: int, item: Any) -> int:
    if not isinstance(item, bool):
        try:
            return index(item)
        except TypeError:
            pass
    name = type(item).__name__
    raise TypeError(f"groups: position {position}: expected a whole number, not {name}")
