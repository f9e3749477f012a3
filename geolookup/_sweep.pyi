"""Types of the compiled sweeps. Held to the module by mypy's stubtest.

Only the compiler and the readers use it. Addresses are int, from 0 to
2^bits - 1. A code is a number: two letters as a big-endian number ("CN" is
0x434E), 0 for silence; layers that are no sources number what they like. Columns
are bytes, little-endian on every machine.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import final

from typing_extensions import Buffer

@final
class Ranges:
    """Ranges of one family, inclusive, each with a code and the place it was read from.

    They may overlap and come in any order, as the source has them. Not safe for
    several threads at once while it grows.

    Args:
        bits: 32 (IPv4) or 128 (IPv6).
    """

    def __init__(self, bits: int) -> None: ...
    @property
    def bits(self) -> int:
        """32 or 128."""

    def append(self, first: int, last: int, code: int, file: int = 0, line: int = 0) -> None:
        """Add a range. ValueError: not a range of this family, or a number is too large.

        Args:
            first: the first address.
            last: the last address, not below the first.
            code: at most 65,535.
            file: which of the source's files, from 0; below 2^16.
            line: its line there, from 1; 0 if it has none.
        """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> tuple[int, int, int]:
        """Return (first, last, code). IndexError: negative, or none has this number."""

    def __iter__(self) -> Iterator[tuple[int, int, int]]: ...
    def place(self, index: int) -> tuple[int, int]:
        """Return (file, line) of a range."""

    def codes(self) -> set[int]:
        """Return the codes that occur, without 0."""

    def flattened(self, last_begins: bool = False) -> tuple[Ranges, list[tuple[int, int]]]:
        """Return disjoint ranges in ascending order, and the clashes.

        Of several ranges that hold an address the smallest decides; or, with *last_begins*,
        the one that begins last, and of these the smallest. Where these
        are several that say different things, none of them does: the
        code is 0 there. Each such overlap is a clash, given by the numbers of
        two ranges of this object. Ranges that touch stay apart, and each keeps
        the place of the range that decides it. The result is this very object if
        it is disjoint and ascending already.
        """

    def partial_overlaps(self) -> list[tuple[int, int]]:
        """Return ranges that overlap another one and neither hold it nor lie in it.

        Each is the second number of a pair, at most once; the first is one of those others.
        """

    def intervals(self) -> tuple[bytes, ...]:
        """Return flattened ranges as intervals over the whole line, without gaps.

        Ranges that touch and say the same are one interval, and each gap is one with code 0.
        The boundaries of the ranges inside an interval are kept beside it.

        Returns:
            IPv4: (first uint32, code uint16, merged uint32, start uint32, boundaries). IPv6:
            (upper half of first uint64, lower half uint64, and the others). The numbers of
            those intervals that have boundaries stand in "merged", and in "start" where
            these begin; docs/dataset-format.md has their form.

        Raises:
            ValueError: the ranges overlap or do not ascend.
        """

@final
class Dialect:
    """How the lines of a source are to be read, if not as ``first,last,code``.

    Args:
        form: "ranges": a first and a last address; "networks": a prefix, or an
            address that stands for itself; "delegations": the records of the
            Regional Internet Registries, whose columns are fixed.
        separator: between fields, one character.
        quotes: whether fields may stand between double quotes.
        comments: whether empty lines and those that begin with ``#`` say nothing.
        spaces: whether spaces and tabs around fields are no part of them.
        integers: whether first and last are decimal numbers; a range that ends
            below 2^32 is IPv4.
        least: fewest fields of a line, at most 32.
        most: most fields of a line; 0: what follows those that are read is not looked at.
        read: fields that are read if a line has them; 0: the fewest.
        first: column of the first address, or of the prefix, from 0.
        last: column of the last address.
        code: column of the code; None: lines have none, and an empty text stands for it.
        place: column of the subdivision, among those that are read, and not the first one;
            None: none is read.
    """

    def __init__(
        self,
        form: str,
        *,
        separator: str = ",",
        quotes: bool = False,
        comments: bool = False,
        spaces: bool = False,
        integers: bool = False,
        least: int,
        most: int = 0,
        read: int = 0,
        first: int = 0,
        last: int = 0,
        code: int | None = None,
        place: int | None = None,
    ) -> None: ...

@final
class RangeLines:
    """Reads lines ``first,last,code`` from blocks of bytes that end anywhere.

    Lines end with LF or CRLF; addresses are strict text without zones. What can
    not be read is added to `faults`, and the line leaves no range. A range of
    IPv4-mapped addresses is added as the IPv4 range inside.

    Args:
        ipv4: where IPv4 ranges are added.
        ipv6: where IPv6 ranges are added.
        read_code: number of a code's text; its ValueErrors are faults.
        dialect: how lines are read; None: as ``first,last,code``.
        skip: number of lines at the beginning, such as a header, that are not read.
        file: number of the file.
        allowed_faults: after more than so many, nothing is read any more.
        read_place: number of the texts of a code and a subdivision, for dialects with such
            a column where a line has one; its ValueErrors are faults.
    """

    def __init__(
        self,
        ipv4: Ranges,
        ipv6: Ranges,
        read_code: Callable[[str], int],
        *,
        dialect: Dialect | None = None,
        skip: int = 0,
        file: int = 0,
        allowed_faults: int = 0,
        read_place: Callable[[str, str], int] | None = None,
    ) -> None: ...
    @property
    def faults(self) -> list[tuple[int, int, str]]:
        """(line, column, what) of each fault, from 1; the column counts bytes."""

    def feed(self, block: bytes) -> bool:
        """Read the lines that end in this block. False: too many faults, or no lines at all."""

    def finish(self) -> bool:
        """Read the last line, which may lack its line end. Returns what `feed` does."""

def walk_tree(
    ipv4: Ranges,
    ipv6: Ranges,
    children: Buffer,
    *,
    nodes: int,
    ipv4_node: int,
    bits: int,
    least: int,
    most: int,
    code_of: Callable[[int], int],
    on_fault: Callable[[int, int], None],
    file: int = 0,
    on_network: Callable[[int], None] | None = None,
) -> int:
    """Add the networks of a binary search tree, in ascending order.

    Args:
        ipv4: where those of IPv4 are added; in a tree of 128 bits, those of ``::/96``.
        ipv6: where the others are added.
        children: uint32, two for each node: another node; *nodes*: nothing; or *nodes* and
            more: what is more is a record.
        nodes: number of nodes.
        ipv4_node: the node of ``::/96``; other ways that lead to it are not followed. -1: none.
        bits: 32 or 128.
        least: the least record.
        most: one more than the greatest.
        code_of: code of a record, asked once for each; -1: it can't be read.
        on_fault: takes a record that can't be read, and its network's number, from 1.
        file: number of the file.
        on_network: called now and then with the number of networks so far.

    Returns:
        The number of networks with a record.

    Raises:
        ValueError: the tree is deeper than *bits*, or has a record that is none.
    """

def merge_ipv4(layers: Sequence[Ranges], claim_of: Callable[[bytes], int]) -> tuple[bytes, bytes]:
    """Lay flattened ranges over each other, as intervals over the whole line without gaps.

    Args:
        layers: each disjoint and ascending.
        claim_of: claim number of the layers' codes (uint16 each in the machine's
            byte order, 0 where a layer has no range). Asked once for each
            combination that occurs, in the order of the address line.

    Returns:
        (first uint32, claim uint16) of the intervals; neighbours with the same
        claim are one.

    Raises:
        ValueError: a layer is of the other family, or not flattened.
    """

def merge_ipv6(
    layers: Sequence[Ranges], claim_of: Callable[[bytes], int]
) -> tuple[bytes, bytes, bytes]:
    """Do for IPv6 what `merge_ipv4` does.

    Returns:
        (upper half of first uint64, lower half uint64, claim uint16).
    """

def renumber(claims: bytes, numbers: bytes) -> bytes:
    """Return the new number of each claim. ValueError: a claim is beyond the new numbers.

    Args:
        claims: uint16, little-endian.
        numbers: the new number (uint16, little-endian) by old number.
    """
