"""Places below the country over a real socket, by both transports and all that clients do."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterator
from concurrent import futures
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from servers import TRANSPORT, Service, needs_native, serving

from geolookup import Answer, Dataset
from geolookup import open as open_dataset
from geolookup.answer.dataset import write
from geolookup.answer.decision_record import to_json
from geolookup.build.compiler import compile as compile_sources
from geolookup.build.readers import SourceRanges, code_number
from geolookup.build.sources import Source
from geolookup.cli import main
from geolookup.client import Client, Coalescing
from geolookup.export import export

CRIMEA, KYIV, ONE_SAYS_SO, RUSSIA, NOWHERE = (f"1.0.{last}.1" for last in range(5))
ROSTER = [CRIMEA, KYIV, ONE_SAYS_SO, RUSSIA, NOWHERE, "no"]
REGIONS = ["UA-43", "UA-30", "UA-43", "", "", ""]
SAID = (("UA-43", "UA-43"), ("UA-30", "UA-30"), ("UA-43", "UA"), ("RU", "RU"))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    sources = []
    for number in range(2):
        ranges = SourceRanges()
        for last, said in enumerate(SAID):
            first = int.from_bytes(bytes([1, 0, last, 0]))
            ranges.ipv4.append(first, first + 255, code_number(said[number]))
        # The second one names subdivisions, too, but not everywhere.
        source = Source(
            name=f"source {number}", licence="none", date=date(2026, 1, 1), depth="subdivision",
            coverage="partial" if number else "full",
        )  # fmt: skip
        sources.append((source, ranges))
    compiled = compile_sources(sources)
    file = tmp_path_factory.mktemp("places") / "places.geolookup"
    write(compiled, file, optional=compiled.optional)
    return str(file)


@pytest.fixture(scope="module")
def dataset(path: str) -> Iterator[Dataset]:
    with open_dataset(path) as opened:
        yield opened


@pytest.fixture(scope="module", params=[pytest.param("native", marks=needs_native), "threads"])
def service(path: str, request: pytest.FixtureRequest) -> Iterator[Service]:
    with serving("--dataset", path, **{TRANSPORT: request.param}) as running:
        yield running


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[Client]:
    with Client(service.target) as opened:
        yield opened


def test_lookup_over_the_network_has_the_region(client: Client, dataset: Dataset) -> None:
    for address in ROSTER:
        for region_set in (None, "UA/43", "UA-UA/43", "UA"):
            asked = client.lookup(address, region_set)
            assert asked == dataset.lookup(address, region_set)
    assert [client.lookup(address).region for address in ROSTER] == REGIONS


def test_roster_over_the_network_has_regions(client: Client, dataset: Dataset) -> None:
    for region_set in (None, "UA/43", "UA-UA/43"):
        result = client.classify(ROSTER, region_set=region_set)
        assert result == dataset.classify(ROSTER, region_set=region_set)
        assert result.regions == REGIONS
        assert result.region_counts() == {"UA-30": 1, "UA-43": 2}
        assert list(result.regions[1:3]) == REGIONS[1:3]
        assert pickle.loads(pickle.dumps(result)) == result  # noqa: S301 - its own
    packed = bytes([1, 0, 0, 1]) * 70_000
    assert set(client.classify(ipv4=packed, region_set="UA/43").regions) == {"UA-43"}
    streamed = client.classify_many([ROSTER, []], region_set="UA/43")
    assert [list(one.regions) for one in streamed] == [REGIONS, []]


def test_coalesced_lookups_have_regions(service: Service, dataset: Dataset) -> None:
    def ask(address: str) -> Answer:
        return together.lookup(address, "UA/43")

    asked = ROSTER * 20
    with (
        Client(service.target, coalesce=Coalescing(calls=1)) as together,
        futures.ThreadPoolExecutor(8) as threads,
    ):
        answers = list(threads.map(ask, asked))
    assert answers == [dataset.lookup(address, "UA/43") for address in asked]


def test_explanation_over_the_network_names_the_places(client: Client, dataset: Dataset) -> None:
    why = client.explain(ONE_SAYS_SO)
    assert why == dataset.explain(ONE_SAYS_SO)
    assert (why.region, why.subdivision_sources) == ("UA-43", 2)
    assert [(view.country, view.region) for view in why.sources] == [("UA", "UA-43"), ("UA", "")]


def test_record_says_how_many_sources_had_to_tell(
    client: Client, path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = client.classify(ROSTER, region_set="UA/43", record=True)
    assert result.record is not None
    assert (result.record.inside, result.record.subdivision_sources) == (1, 2)
    assert result.record.codes == ("UA-43",)
    plain = client.classify(ROSTER, region_set="UA", record=True).record
    assert plain is not None
    assert plain.subdivision_sources is None
    kept, roster = tmp_path / "record.json", tmp_path / "roster.txt"
    kept.write_text(to_json(result.record))
    roster.write_text("\n".join(ROSTER))
    for options, code in ((), 0), (("--subdivision-sources", "1"), 2):
        with pytest.raises(SystemExit) as ended:
            main(["audit", str(kept), "--roster", str(roster), "--dataset", path, *options])
        assert ended.value.code == code, capsys.readouterr()


def test_service_may_trust_one_source(path: str) -> None:
    with (
        serving("--dataset", path, "--subdivision-sources", "1") as running,
        Client(running.target) as asking,
    ):
        assert str(asking.lookup(ONE_SAYS_SO, "UA/43").verdict) == "INSIDE"
        assert asking.info()["subdivision_sources"] == 1


def test_dataset_says_which_sources_have_subdivisions(client: Client, dataset: Dataset) -> None:
    assert [source.depth for source in dataset.sources] == ["subdivision", "subdivision"]
    assert client.sources == dataset.sources


def test_older_clients_get_rosters_without_regions(service: Service) -> None:
    import grpc  # noqa: PLC0415
    from servers import stub_of  # noqa: PLC0415

    from geolookup.v1 import geolookup_pb2 as v1  # noqa: PLC0415

    with grpc.insecure_channel(service.target) as channel:
        request: Any = v1.ClassifyRosterRequest(ipv4=bytes([1, 0, 0, 1]))
        response = stub_of(channel).ClassifyRoster(request)
    assert response.regions == b""
    assert response.countries == b"UA"
    assert response.statuses == b"\1"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    captured = capsys.readouterr()
    assert not ended.value.code, captured.err
    return captured.out


def test_command_shows_places(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    roster = tmp_path / "roster.txt"
    roster.write_text("\n".join(ROSTER[:-1]))
    own = ("--dataset", path)
    answered = json.loads(run(capsys, "lookup", CRIMEA, "-r", "ua/43", "--json", *own))
    assert (answered["region"], answered["verdict"]) == ("UA-43", "INSIDE")
    assert "UA-43" in run(capsys, "lookup", CRIMEA, *own)
    counted = json.loads(run(capsys, "classify", str(roster), "--json", *own))
    assert counted["regions"] == {"UA-30": 1, "UA-43": 2}
    assert "UA-43   Ukraine" in run(capsys, "classify", str(roster), *own)
    annotated = run(capsys, "annotate", str(roster), "--regions", *own)
    assert [line.split("\t")[-1] for line in annotated.splitlines()] == REGIONS[:-1]
    explained = run(capsys, "explain", ONE_SAYS_SO, "-r", "UA/43", *own)
    assert "need 2 independent sources" in explained
    assert "do 2 independent sources tell, or an authoritative one?" in explained
    assert "2 must tell" in run(capsys, "info", *own)
    assert run(capsys, "region-sets", "UA/43+EFTA", "--members").split() == [
        *("CH", "IS", "LI", "NO", "UA-43"),
    ]
    assert "1 subdivision\n  UA-43  Ukraine" in run(capsys, "region-sets", "UA/43")


def exported(dataset: Dataset, form: str, *codes: str) -> list[str]:
    file = io.BytesIO()
    export(dataset, file, form, codes=codes or None, regions=True)
    return file.getvalue().decode().splitlines()


def test_exports_have_subdivisions_that_two_sources_name(dataset: Dataset) -> None:
    assert exported(dataset, "csv", "UA", "RU")[1:] == [
        "1.0.0.0,1.0.0.255,UA-43,ASSIGNED,",
        "1.0.1.0,1.0.1.255,UA-30,ASSIGNED,",
        "1.0.2.0,1.0.2.255,UA,ASSIGNED,",  # one source alone knows the part
        "1.0.3.0,1.0.3.255,RU,ASSIGNED,",
    ]
    assert exported(dataset, "csv", "UA-43")[1:] == ["1.0.0.0,1.0.0.255,UA-43,ASSIGNED,"]
    assert exported(dataset, "geofeed", "UA")[2:] == [
        "1.0.0.0/24,UA,UA-43,,",
        "1.0.1.0/24,UA,UA-30,,",
        "1.0.2.0/24,UA,,,",
    ]
    sets = "\n".join(exported(dataset, "nftables", "UA", "UA-43"))
    assert "add element inet geolookup UA_43_ipv4 {\n\t1.0.0.0-1.0.0.255\n}" in sets
    assert sets.count("1.0.1.0-1.0.1.255") == 1
    assert sets.count("1.0.0.0-1.0.0.255") == 2  # in the set of the country, too


def test_exported_mmdb_has_subdivisions(dataset: Dataset, tmp_path: Path) -> None:
    maxminddb = pytest.importorskip("maxminddb", reason="needs the extra mmdb")
    pytest.importorskip("mmdb_writer", reason="needs the extra mmdb")
    path = tmp_path / "places.mmdb"
    with path.open("w+b") as file:
        export(dataset, file, "mmdb", regions=True)
    with maxminddb.open_database(str(path)) as reader:
        record = reader.get(CRIMEA)
        assert (record["country"], record["subdivisions"]) == (
            {"iso_code": "UA", "names": {"en": "Ukraine"}},
            [{"iso_code": "43"}],
        )
        assert "subdivisions" not in reader.get(ONE_SAYS_SO)


def test_export_of_parts_of_countries_needs_regions(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", path, "--format", "csv", "-r", "UA/43", "-o", "-"])
    assert ended.value.code == 2
    assert "add --regions" in capsys.readouterr().err
    parts = ("export", path, "--format", "csv", "-r", "UA/43", "--regions", "-o", "-")
    assert run(capsys, *parts).splitlines()[1:] == ["1.0.0.0,1.0.0.255,UA-43,ASSIGNED,"]


@pytest.mark.parametrize("kind", [pytest.param("native", marks=needs_native), "threads"])
def test_service_with_a_stale_dataset_decides_nothing_below_the_country(
    path: str, kind: str
) -> None:
    aged: dict[str, Any] = {"max_age": 30, "stale": "undetermined"}
    options = ("--dataset", path, "--max-age", "30", "--stale", "undetermined")
    with (
        serving(*options, **{TRANSPORT: kind}) as running,
        Client(running.target) as asking,
        open_dataset(path, **aged) as opened,
    ):
        for region_set in ("UA/43", "UA-UA/43"):
            result = asking.classify(ROSTER, region_set=region_set)
            assert result == opened.classify(ROSTER, region_set=region_set)
            assert list(result.reasons) == [*["STALE"] * 5, "INVALID"]
            assert result.regions == REGIONS
            people = {"one": [CRIMEA, KYIV], "other": ["no"]}
            grouped = asking.classify(people, region_set=region_set)
            assert grouped == opened.classify(people, region_set=region_set)
            assert list(grouped.reasons) == ["STALE", "INVALID"]
            for address in ROSTER:
                answer = asking.lookup(address, region_set)
                assert answer == opened.lookup(address, region_set)
                assert str(answer.verdict) == "UNDETERMINED"
