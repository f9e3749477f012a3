"""The ways to look up countries that are timed side by side: geolookup's and its peers'.

Rules, so that the comparison is fair to the others:

- Each gets the addresses in the form it likes best, made beforehand: packed bytes where it
  takes them, otherwise the texts.
- Each gives one code an address in the form it makes cheapest: bytes of letters, an array, or a
  list of str. For text, geolookup gives a list of str as the others do.
- Each uses its fastest documented call, such as `get_many_path`.
"""
# ruff: noqa: D102 - what the methods return is said once, in the base class

from __future__ import annotations

import ctypes
import importlib.metadata
import ipaddress
import socket
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, ClassVar

import geolookup
from bench.addresses import Addresses
from bench.intervals import prefixes, read_intervals
from bench.kernels import UnavailableError, load
from bench.mmdb import PATH, mmdb_of
from bench.own_formats import NOWHERE, geoip2fast_of, ip2location_of
from geolookup.answer.dataset import Dataset

Call = Callable[[], Any]


class Contender:
    """One way to look up countries. Constructing it raises UnavailableError or ImportError.

    `packed`, `text` and `single` return what is to be timed, or None if the contender
    has no such call; `codes` turns the result of such a call into a list of str.
    """

    name: ClassVar[str]
    package: ClassVar[str | None] = None
    """Its distribution, for the version; None if it isn't a Python package."""
    answers: ClassVar[bool] = True
    """Whether what it returns can be held against the right answer."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def packed(self, addresses: Addresses) -> Call | None:
        return self.text(addresses)

    def text(self, addresses: Addresses) -> Call | None:  # noqa: ARG002 - for subclasses
        return None

    def single(self, addresses: Addresses) -> Call | None:  # noqa: ARG002 - for subclasses
        return None

    def codes(self, result: Any) -> list[str]:
        return [code or "ZZ" for code in result]

    @classmethod
    def version(cls) -> str:
        return importlib.metadata.version(cls.package) if cls.package else ""


class GeoLookup(Contender):
    """The code under test, through its public API."""

    name = "geolookup"
    package = None

    def packed(self, addresses: Addresses) -> Call:
        classify, packed = self.dataset.classify, addresses.packed
        if addresses.version == 4:
            return lambda: classify(ipv4=packed).countries.tobytes()  # noqa: PLW0108 - classify is timed
        return lambda: classify(ipv6=packed).countries.tobytes()  # noqa: PLW0108 - classify is timed

    def text(self, addresses: Addresses) -> Call:
        classify, texts = self.dataset.classify, addresses.texts
        return lambda: classify(texts).countries.tolist()  # noqa: PLW0108 - classify is timed

    def single(self, addresses: Addresses) -> Call:
        return _each(self.dataset.country, addresses.texts)

    def codes(self, result: Any) -> list[str]:
        return _letters(result) if isinstance(result, bytes) else list(result)

    @classmethod
    def version(cls) -> str:
        return geolookup.__version__


class MaxMindDB(Contender):
    """MaxMind's own reader with its C extension."""

    name = "maxminddb"
    package = "maxminddb"

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        maxminddb = import_module("maxminddb")
        mode = import_module("maxminddb.const").MODE_MMAP_EXT
        try:
            self.reader = maxminddb.open_database(str(mmdb_of(dataset)), mode)
        except ValueError as error:
            raise UnavailableError("installed without its C extension") from error

    def text(self, addresses: Addresses) -> Call:
        get, texts = self.reader.get, addresses.texts
        outer, inner = PATH

        def call() -> list[str]:
            return [row[outer][inner] if (row := get(text)) else "ZZ" for text in texts]

        return call

    def single(self, addresses: Addresses) -> Call:
        return self.text(addresses)


class MaxMindDBRust(Contender):
    """The same format read by Rust."""

    name = "maxminddb-rust"
    package = "maxminddb-rust"

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        maxminddb_rust = import_module("maxminddb_rust")

        self.reader = maxminddb_rust.open_database(str(mmdb_of(dataset)))

    def text(self, addresses: Addresses) -> Call:
        get_many_path, texts = self.reader.get_many_path, addresses.texts
        return lambda: get_many_path(texts, PATH)

    def single(self, addresses: Addresses) -> Call:
        get_path, texts = self.reader.get_path, addresses.texts
        return lambda: [get_path(text, PATH) for text in texts]


class LibMaxMindDB(Contender):
    """MaxMind's library called from C: no Python in the loop."""

    name = "libmaxminddb (C)"

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        self.kernel = load("libmaxminddb_loop", "maxminddb")
        self.kernel.open_mmdb.restype = ctypes.c_void_p
        self.kernel.libmaxminddb_loop.restype = ctypes.c_size_t
        self.mmdb = ctypes.c_void_p(self.kernel.open_mmdb(bytes(mmdb_of(dataset))))
        if not self.mmdb:
            raise UnavailableError("can't open the MMDB file")

    def packed(self, addresses: Addresses) -> Call:
        out = ctypes.create_string_buffer(2 * len(addresses))
        loop = self.kernel.libmaxminddb_loop
        arguments = (
            self.mmdb,
            ctypes.c_int(addresses.version),
            ctypes.c_char_p(addresses.packed),
            ctypes.c_size_t(len(addresses)),
            out,
        )

        def call() -> ctypes.Array[ctypes.c_char]:
            if loop(*arguments) != len(addresses):
                raise RuntimeError("libmaxminddb failed")
            return out

        return call

    def codes(self, result: Any) -> list[str]:
        return _letters(result.raw)


class NumPy(Contender):
    """`searchsorted` over the same sorted intervals."""

    name = "numpy searchsorted"
    package = "numpy"

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        np = import_module("numpy")

        self.np = np
        ipv4, ipv6 = read_intervals(dataset, 4), read_intervals(dataset, 6)
        self.first = {
            4: np.array(ipv4.first, np.uint32),
            # numpy has no 128-bit numbers; byte strings of 16 sort as such numbers do.
            6: np.array([value.to_bytes(16) for value in ipv6.first], "S16"),
        }
        self.countries = {4: np.array(ipv4.countries), 6: np.array(ipv6.countries)}

    def packed(self, addresses: Addresses) -> Call:
        packed, version = addresses.packed, addresses.version
        return lambda: self._find(packed, version)

    def text(self, addresses: Addresses) -> Call:
        texts, version = addresses.texts, addresses.version
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        pton = socket.inet_pton

        def call() -> list[str]:
            packed = b"".join([pton(family, text) for text in texts])
            return list(self._find(packed, version).tolist())

        return call

    def _find(self, packed: bytes, version: int) -> Any:
        np, first = self.np, self.first[version]
        values = np.frombuffer(packed, ">u4" if version == 4 else "S16")
        at = np.searchsorted(first, values.astype(first.dtype), side="right") - 1
        return self.countries[version][at]


class MemoryLoop(Contender):
    """Not a peer but the limit: see kernels/memory_loop.c."""

    name = "bare memory loop (C)"
    answers = False

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        self.loop = load("memory_loop").memory_loop
        # Filled, so that the pages are there and not all the same page of zeros.
        self.table = (ctypes.c_uint16 * 2**24).from_buffer(bytearray(b"\1\2" * 2**24))

    def packed(self, addresses: Addresses) -> Call | None:
        if addresses.version != 4:
            return None
        loop, out = self.loop, (ctypes.c_uint16 * len(addresses))()
        packed, size = ctypes.c_char_p(addresses.packed), ctypes.c_size_t(len(addresses))
        table = self.table
        return lambda: loop(packed, size, table, out)


class PyTricia(Contender):
    """A Patricia trie of prefixes, in C."""

    name = "pytricia"
    package = "pytricia"

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        pytricia = import_module("pytricia")

        self.tries = {
            4: pytricia.PyTricia(32, socket.AF_INET),
            6: pytricia.PyTricia(128, socket.AF_INET6),
        }
        for version, trie in self.tries.items():
            for prefix, country in _texts(dataset, version):
                trie[prefix] = country
            trie.freeze()

    def text(self, addresses: Addresses) -> Call:
        get, texts = self.tries[addresses.version].get, addresses.texts
        return lambda: [get(text) for text in texts]

    def single(self, addresses: Addresses) -> Call:
        return self.text(addresses)


class PyRadix(Contender):
    """A radix tree of prefixes, in C."""

    name = "py-radix"
    package = "py-radix"

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        radix = import_module("radix")

        self.tree = radix.Radix()
        for version in (4, 6):
            for prefix, country in _texts(dataset, version):
                self.tree.add(prefix).data["country"] = country

    def text(self, addresses: Addresses) -> Call:
        best, texts = self.tree.search_best, addresses.texts
        return lambda: [node.data["country"] if (node := best(text)) else "ZZ" for text in texts]

    def single(self, addresses: Addresses) -> Call:
        return self.text(addresses)


class Polars(Contender):
    """`join_asof` of a frame of addresses with the frame of intervals."""

    name = "polars join_asof"
    package = "polars"

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        polars = import_module("polars")

        self.polars = polars
        ipv4 = read_intervals(dataset, 4)
        self.frame = polars.DataFrame(
            {"first": ipv4.first, "country": ipv4.countries},
            schema={"first": polars.UInt32, "country": polars.String},
        ).set_sorted("first")

    def packed(self, addresses: Addresses) -> Call | None:
        if addresses.version != 4:
            return None  # join_asof takes no 128-bit keys
        frame = self.polars.DataFrame(
            {"at": range(len(addresses)), "first": addresses.values},
            schema={"at": self.polars.UInt32, "first": self.polars.UInt32},
        )
        return lambda: frame.sort("first").join_asof(self.frame, on="first").sort("at")["country"]


class Pandas(Contender):
    """`merge_asof` of a frame of addresses with the frame of intervals."""

    name = "pandas merge_asof"
    package = "pandas"

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        pandas = import_module("pandas")

        self.pandas = pandas
        ipv4 = read_intervals(dataset, 4)
        self.frame = pandas.DataFrame({"first": ipv4.first, "country": ipv4.countries})
        self.frame["country"] = self.frame["country"].astype("category")

    def packed(self, addresses: Addresses) -> Call | None:
        if addresses.version != 4:
            return None  # merge_asof takes no 128-bit keys
        merge = self.pandas.merge_asof
        frame = self.pandas.DataFrame({"first": addresses.values})

        def call() -> Any:
            joined = merge(frame.sort_values("first").reset_index(), self.frame, on="first")
            return joined.sort_values("index")["country"]

        return call


class IP2Location(Contender):
    """IP2Location's reader of its own files, in Python."""

    name = "IP2Location"
    package = "IP2Location"

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        module = import_module("IP2Location")
        self.reader = module.IP2Location(str(ip2location_of(dataset)), "SHARED_MEMORY")

    def text(self, addresses: Addresses) -> Call:
        return _each(self.reader.get_country_short, addresses.texts)

    def single(self, addresses: Addresses) -> Call:
        return self.text(addresses)

    def codes(self, result: Any) -> list[str]:
        return ["ZZ" if code == NOWHERE else code for code in result]


class GeoIP2Fast(Contender):
    """Bisection in lists of networks, in Python."""

    name = "geoip2fast"
    package = "geoip2fast"

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        module = import_module("geoip2fast")
        self.reader = module.GeoIP2Fast(geoip2fast_data_file=str(geoip2fast_of(dataset)))

    def text(self, addresses: Addresses) -> Call:
        lookup, texts = self.reader.lookup, addresses.texts
        return lambda: [lookup(text).country_code for text in texts]

    def single(self, addresses: Addresses) -> Call:
        return self.text(addresses)

    def codes(self, result: Any) -> list[str]:
        return ["ZZ" if code == "--" else code for code in result]


CONTENDERS: tuple[type[Contender], ...] = (
    GeoLookup,
    MaxMindDB,
    MaxMindDBRust,
    NumPy,
    LibMaxMindDB,
    MemoryLoop,
    PyTricia,
    PyRadix,
    Polars,
    Pandas,
    IP2Location,
    GeoIP2Fast,
)


def _each(call: Callable[[str], Any], texts: list[str]) -> Call:
    return lambda: [call(text) for text in texts]


def _letters(packed: bytes) -> list[str]:
    text = packed.decode("ascii")
    return [text[at : at + 2] for at in range(0, len(text), 2)]


def _texts(dataset: Dataset, version: int) -> Iterator[tuple[str, str]]:
    """Yield the prefixes that have a country in text, with it."""
    kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    for first, length, country in prefixes(dataset, version):
        yield f"{kind(first)}/{length}", country
