"""Rules for gateways, and Check: who passes, who is refused, and what each is told."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from servers import PATIENCE, needs_native, serving_here

from geolookup import Dataset, Policy, Verdict
from geolookup.service import Server, Settings
from geolookup.service.methods import Method
from geolookup.service.monitoring import counters
from geolookup.service.monitoring.counters import Counters
from geolookup.service.rpc import envoy_authz
from geolookup.service.rpc.check_address import CheckAddress
from geolookup.service.rpc.envoy_authz import (
    Mode,
    Rule,
    RuleError,
    Rules,
    canonical_host,
    canonical_path,
)
from geolookup.service.rpc.handlers import Snapshot
from geolookup.service.rpc.request import Call, Code, RequestError
from geolookup.service.rpc.transports import build

external_auth_pb2 = pytest.importorskip(
    "envoy.service.auth.v3.external_auth_pb2", reason="the extra envoy is not installed"
)

CHINA, AMERICA, PRIVATE, DISPUTED = "1.0.1.1", "8.8.8.8", "10.0.0.1", "43.102.0.1"
DENY = Rule(
    name="measure",
    region_set="CN",
    mode=Mode.DENY_INSIDE,
    reference="order 17/2026",
    blocked_by="https://authority.example/17",
)
ADMIT = Rule(name="offer", region_set="US", mode=Mode.ADMIT_INSIDE)


def request(
    address: str, host: str = "meet.example", path: str = "/join", **extensions: str
) -> bytes:
    body = external_auth_pb2.CheckRequest()
    body.attributes.source.address.socket_address.address = address
    http = body.attributes.request.http
    http.host, http.path = host, path
    # What a client may say of itself counts for nothing.
    http.headers["x-forwarded-for"] = CHINA
    http.headers["x-geo-country"] = "US"
    for key, value in extensions.items():
        body.attributes.context_extensions[f"geolookup.{key}"] = value
    return bytes(body.SerializeToString())


Ask = Callable[..., Any]
CHECK = "/envoy.service.auth.v3.Authorization/Check"


def by_handler(dataset: Dataset, body: bytes, *rules: Rule) -> Any:
    return external_auth_pb2.CheckResponse.FromString(
        envoy_authz.check(dataset, body, Rules(rules))
    )


class Asked:
    """A server, over the native transport, that is asked by the same arguments."""

    def __init__(self, server: Server, channel: grpc.Channel) -> None:
        self.server = server
        self._rules: tuple[Rule, ...] | None = None
        self._call: Any = channel.unary_unary(CHECK)

    def __call__(self, dataset: Dataset, body: bytes, *rules: Rule) -> Any:
        """Return its answer, which is the same from the second call on."""
        if rules != self._rules:
            self._rules = rules
            self.server.snapshot = Snapshot(dataset, Rules(rules))
        first, second = self.again(body), self.again(body)
        assert first == second
        return first

    def again(self, body: bytes) -> Any:
        try:
            return external_auth_pb2.CheckResponse.FromString(self._call(body, timeout=PATIENCE))
        except grpc.RpcError as error:
            raise RequestError(Code(error.code().value[0]), error.details() or "") from None


@pytest.fixture(scope="module")
def asked(dataset: Dataset) -> Iterator[Asked]:
    with (
        serving_here(dataset, transport="native", authz=True) as server,
        grpc.insecure_channel(str(server.address)) as channel,
    ):
        yield Asked(server, channel)


@pytest.fixture(params=["handler", pytest.param("native", marks=needs_native)])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Return a function that answers a CheckRequest by rules."""
    if request.param == "handler":
        return by_handler
    found: Ask = request.getfixturevalue("asked")
    return found


def headers(options: Any) -> dict[str, str]:
    assert all(
        option.append_action == option.OVERWRITE_IF_EXISTS_OR_ADD for option in options.headers
    )
    return {option.header.key: option.header.value for option in options.headers}


@pytest.mark.parametrize(
    ("rule", "address", "verdict", "reason", "passes"),
    [
        (DENY, CHINA, "INSIDE", "DECIDED", False),
        (DENY, AMERICA, "OUTSIDE", "DECIDED", True),
        (DENY, PRIVATE, "UNDETERMINED", "SPECIAL_PURPOSE", True),
        (ADMIT, AMERICA, "INSIDE", "DECIDED", True),
        (ADMIT, CHINA, "OUTSIDE", "DECIDED", False),
        (ADMIT, PRIVATE, "UNDETERMINED", "SPECIAL_PURPOSE", False),
        (
            DENY,
            "",
            "UNDETERMINED",
            "INVALID",
            True,
        ),  # a peer without an address, as on a unix socket
        (ADMIT, "", "UNDETERMINED", "INVALID", False),
    ],
)
def test_the_mode_decides_who_passes(
    ask: Ask, dataset: Dataset, rule: Rule, address: str, verdict: str, reason: str, passes: bool
) -> None:
    response = ask(dataset, request(address), rule)
    if passes:
        assert response.status.code == 0
        assert headers(response.ok_response) == {
            "x-geo-country": dataset.lookup(address).country,
            "x-geo-status": dataset.lookup(address).status.name,
            "x-geo-verdict": verdict,
            "x-geo-reason": reason,
            "x-geo-dataset": dataset.id,
        }
    else:
        assert response.status.code == 7
        assert response.denied_response.status.code == 451


def test_a_refusal_says_which_measure_and_never_the_address(ask: Ask, dataset: Dataset) -> None:
    denied = ask(dataset, request(CHINA), DENY).denied_response
    assert headers(denied)["link"] == '<https://authority.example/17>; rel="blocked-by"'
    assert "order 17/2026" in denied.body
    assert CHINA not in str(denied)


def test_undetermined_is_told_from_inside_in_both_modes(ask: Ask, dataset: Dataset) -> None:
    # The sources disagree about this address, and one side is in the region set.
    assert dataset.lookup(DISPUTED, "HK").verdict is Verdict.UNDETERMINED
    deny = Rule(name="deny", region_set="HK", mode=Mode.DENY_INSIDE)
    admit = Rule(name="admit", region_set="HK", mode=Mode.ADMIT_INSIDE)
    assert ask(dataset, request(DISPUTED), deny).HasField("ok_response")
    assert ask(dataset, request(DISPUTED), admit).HasField("denied_response")
    by_first = Rule(name="deny", region_set="HK", mode=Mode.DENY_INSIDE, policy=Policy.PRIMARY)
    first = dataset.lookup(DISPUTED).country == "HK"
    assert ask(dataset, request(DISPUTED), by_first).HasField("denied_response") is first


def test_every_rule_that_applies_must_let_pass(ask: Ask, dataset: Dataset) -> None:
    elsewhere = Rule(name="r", region_set="US", mode=Mode.DENY_INSIDE, hosts=frozenset({"x.test"}))
    assert ask(dataset, request(AMERICA), DENY, elsewhere).HasField("ok_response")
    refused = ask(dataset, request(AMERICA, host="X.test:443"), DENY, elsewhere)
    assert refused.HasField("denied_response")
    both = ask(dataset, request("2a00:1450::1"), DENY, ADMIT)
    assert both.HasField("denied_response")
    response = ask(dataset, request(AMERICA), DENY, ADMIT)
    assert headers(response.ok_response)["x-geo-verdict"] == "OUTSIDE, INSIDE"
    assert headers(response.ok_response)["x-geo-reason"] == "DECIDED, DECIDED"


def test_no_rule_for_the_request_passes_and_leaves_no_verdict_of_the_clients(
    ask: Ask,
    dataset: Dataset,
) -> None:
    rule = Rule(name="r", region_set="US", mode=Mode.DENY_INSIDE, path_prefix="/admin")
    response = ask(dataset, request(AMERICA), rule)
    assert headers(response.ok_response).keys() == {
        "x-geo-country",
        "x-geo-status",
        "x-geo-dataset",
    }
    assert not response.HasField("dynamic_metadata")
    assert list(response.ok_response.headers_to_remove) == [
        "x-geo-networks",
        "x-geo-verdict",
        "x-geo-reason",
    ]


def test_a_route_brings_its_own_rule_or_names_one(ask: Ask, dataset: Dataset) -> None:
    body = request(CHINA, region_set="CN", mode="deny_inside", reference="of the route")
    assert "of the route" in ask(dataset, body).denied_response.body
    assert ask(dataset, request(CHINA, rule="measure"), DENY, ADMIT).HasField("denied_response")
    assert ask(dataset, request(CHINA, rule="offer"), DENY, ADMIT).HasField("denied_response")
    assert ask(dataset, request(AMERICA, rule="offer"), DENY, ADMIT).HasField("ok_response")


@pytest.mark.parametrize(
    "extensions",
    [
        pytest.param({}, id="nothing says what to ask"),
        pytest.param({"region_set": "CN"}, id="no mode"),
        pytest.param({"mode": "deny_inside"}, id="no region set"),
        pytest.param({"region_set": "CN", "mode": "deny"}, id="unknown mode"),
        pytest.param({"region_set": "cn", "mode": "deny_inside"}, id="unknown region set"),
        pytest.param({"region_set": "CN", "mode": "deny_inside", "policy": "any"}, id="policy"),
        pytest.param({"region_set": "CN", "mode": "deny_inside", "polcy": "x"}, id="unknown key"),
        pytest.param({"region_set": "CN", "mode": "deny_inside", "hosts": "meet"}, id="hosts"),
        pytest.param(
            {"region_set": "CN", "mode": "deny_inside", "path_prefix": "/join"}, id="path prefix"
        ),
        pytest.param({"region_set": "CN", "mode": "deny_inside", "name": "x"}, id="name"),
        pytest.param({"region_set": "", "mode": "deny_inside"}, id="empty region set"),
        pytest.param({"rule": "nobody"}, id="unknown rule"),
        pytest.param({"mode": "count"}, id="counts nothing"),
        pytest.param({"mode": "label", "region_set": "CN"}, id="label with a region set"),
        pytest.param({"mode": "label", "policy": "majority"}, id="label with a policy"),
        pytest.param({"mode": "label", "rule": "measure"}, id="label with a rule"),
        pytest.param({"region_set": "CN", "mode": "deny_inside", "blocked_by": "a b"}, id="link"),
        pytest.param({"region_set": "CN", "mode": "deny_inside", "reference": "a\nb"}, id="text"),
        pytest.param({"region_set": "CN", "mode": "deny_inside", "blocked_by": "a\x7f"}, id="DEL"),
    ],
)
def test_a_route_that_makes_no_sense_is_an_error_and_no_answer(
    dataset: Dataset, extensions: dict[str, str]
) -> None:
    with pytest.raises(RequestError) as caught:
        envoy_authz.check(dataset, request(CHINA, **extensions), Rules())
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert CHINA not in caught.value.text


def test_what_is_no_check_request_is_refused(dataset: Dataset) -> None:
    with pytest.raises(RequestError) as caught:
        envoy_authz.check(dataset, b"\xff\xff", Rules([DENY]))
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_rules_are_read_from_a_file(tmp_path: Path, dataset: Dataset) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(
        '[[rule]]\nname = "a"\nregion_set = "EEA-NO"\nmode = "admit_inside"\n'
        'policy = "primary"\nhosts = ["Meet.Example"]\npath_prefix = "/x"\n'
        'reference = "r"\nblocked_by = "https://b.example"\n'
        '[[rule]]\nname = "b"\nregion_set = "CN"\nmode = "deny_inside"\n'
    )
    rules = Rules.load(path)
    rules.check(dataset)
    assert rules.of("meet.example:8443", "/x/1", {}) == [
        Rule(
            name="a",
            region_set="EEA-NO",
            mode=Mode.ADMIT_INSIDE,
            policy=Policy.PRIMARY,
            hosts=frozenset({"meet.example"}),
            path_prefix="/x",
            reference="r",
            blocked_by="https://b.example",
        ),
        Rule(name="b", region_set="CN", mode=Mode.DENY_INSIDE),
    ]
    assert [rule.name for rule in rules.of("[2001:db8::1]:80", "/", {})] == ["b"]


GOOD = '[[rule]]\nname = "a"\nregion_set = "CN"\nmode = "deny_inside"\n'


HOSTS = {
    "meet.example": "meet.example",
    "MEET.Example": "meet.example",
    "meet.example:443": "meet.example",
    "meet.example:": "meet.example",
    "meet.example.": "meet.example",
    "Meet.Example.:8443": "meet.example",
    "192.0.2.1:80": "192.0.2.1",
    "[2001:DB8:0::1]:443": "[2001:db8::1]",
    "[2001:db8::1]": "[2001:db8::1]",
    "meet.example:https": "meet.example:https",
    "2001:db8::1": "2001:db8::1",  # no port can be told from the address
    "": "",
}


@pytest.mark.parametrize(("host", "canonical"), HOSTS.items(), ids=repr)
def test_host_is_compared_in_one_form(host: str, canonical: str) -> None:
    assert canonical_host(host) == canonical
    assert canonical_host(canonical) == canonical


PATHS = {
    "/join": "/join",
    "/join?room=1": "/join",
    "/join#x": "/join",
    "/%6Aoin": "/join",
    "/jo%69n/%c3%a9": "/join/%C3%A9",
    "//join": "/join",
    "///a//../join": "/join",
    "/./join": "/join",
    "/a/../join": "/join",
    "/a/%2e%2E/join": "/join",
    "/../../join": "/join",
    "/a%2F..%2fjoin": "/join",
    "/a\\..\\join": "/join",
    "/a%5c..%5Cjoin": "/join",
    "/join/": "/join/",
    "/join/.": "/join/",
    "/join/..": "/",
    "/join/x/..": "/join/",
    "/join%": "/join%",
    "/join%zz": "/join%zz",
    "/%256Aoin": "/%256Aoin",  # decoded once, as the server behind does
    "/JOIN": "/JOIN",  # letters of another case are another path
    "": "/",
    "*": "/*",
}


@pytest.mark.parametrize(("path", "canonical"), PATHS.items(), ids=repr)
def test_path_is_compared_in_one_form(path: str, canonical: str) -> None:
    assert canonical_path(path) == canonical
    assert canonical_path(canonical) == canonical


@given(st.text("/.%2fFeE5cC6Aj?#\\a", max_size=12))
def test_canonical_path_stays_as_it_is(path: str) -> None:
    once = canonical_path(path)
    assert once.startswith("/")
    assert {"", ".", ".."}.isdisjoint(once.removesuffix("/").split("/")[1:])
    if "%25" not in once:
        assert canonical_path(once) == once


@pytest.mark.parametrize("host", ["X.test", "x.test.", "x.test:443", "X.TEST.:", "x.test:"])
def test_rule_reaches_its_host_however_it_is_written(ask: Ask, dataset: Dataset, host: str) -> None:
    rule = Rule(name="r", region_set="US", mode=Mode.DENY_INSIDE, hosts=frozenset({"x.test"}))
    assert ask(dataset, request(AMERICA, host=host), rule).HasField("denied_response")
    assert ask(dataset, request(AMERICA, host=f"not{host}"), rule).HasField("ok_response")


@pytest.mark.parametrize("path", [path for path, form in PATHS.items() if form == "/join"])
def test_rule_reaches_its_path_however_it_is_written(ask: Ask, dataset: Dataset, path: str) -> None:
    rule = Rule(name="r", region_set="US", mode=Mode.DENY_INSIDE, path_prefix="/join")
    assert ask(dataset, request(AMERICA, path=path), rule).HasField("denied_response")
    assert ask(dataset, request(AMERICA, path=f"/x{path}"), rule).HasField("ok_response") is (
        canonical_path(f"/x{path}").startswith("/x")
    )


NEVER = {
    "a host with a port": 'hosts = ["x.test:443"]',
    "a host with an empty port": 'hosts = ["x.test:"]',
    "a host with a scheme": 'hosts = ["https://x.test"]',
    "a host with a path": 'hosts = ["x.test/join"]',
    "a host with a user": 'hosts = ["me@x.test"]',
    "a wildcard": 'hosts = ["*.x.test"]',
    "a dot at the end": 'hosts = ["x.test."]',
    "an empty host": 'hosts = [""]',
    "a space": 'hosts = ["x test"]',
    "letters beyond ASCII": 'hosts = ["b\u00fccher.test"]',
    "IPv6 without brackets": 'hosts = ["2001:db8::1"]',
    "IPv6 in another form": 'hosts = ["[2001:db8:0::1]"]',
    "the second host": 'hosts = ["a.test", "x.test:443"]',
    "a prefix without a slash": 'path_prefix = "join"',
    "a prefix with a query": 'path_prefix = "/join?room"',
    "a prefix with two slashes": 'path_prefix = "//join"',
    "a prefix with dots": 'path_prefix = "/a/../join"',
    "a needless encoding": 'path_prefix = "/%6Aoin"',
    "an encoding in lower case": 'path_prefix = "/%c3%a9"',
    "a prefix beyond ASCII": 'path_prefix = "/caf\u00e9"',
}


@pytest.mark.parametrize("lines", NEVER.values(), ids=NEVER)
def test_rule_that_can_never_match_is_refused_with_its_key(tmp_path: Path, lines: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(GOOD + lines)
    with pytest.raises(RuleError) as caught:
        Rules.load(path)
    key = lines.split(maxsplit=1)[0]
    assert str(caught.value).startswith(f"{path}: rule 1: {key}: ")
    assert "can never match" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "rule: there is none"),
        ("rule = 1", "rule: expected a list"),
        ("[[rule]]\n", "rule 1: name: missing"),
        ('[[rule]]\nname = "a"\n', "rule 1: region_set: missing"),
        ('[[rule]]\nname = "a"\nregion_set = "CN"\n', "rule 1: mode: missing"),
        (GOOD.replace("deny_inside", "deny"), "rule 1: mode: expected one of: deny_inside, admit"),
        (GOOD.replace("deny_inside", "label"), "rule 1: mode: expected one of: deny_inside, admit"),
        (GOOD + "policy = 1", "rule 1: policy: expected a text"),
        (GOOD + 'policy = "most"', "rule 1: policy: expected one of: unanimous"),
        (GOOD + 'hosts = "x.test"', "rule 1: hosts: expected a list"),
        (GOOD + 'host = ["x"]', "rule 1: host: unknown key; expected hosts"),
        (GOOD + "hosts = [1]", "rule 1: hosts: expected a list of texts"),
        (GOOD + 'reference = "a\\nb"', "rule 1: reference: expected printable ASCII"),
        (GOOD + 'blocked_by = "<x>"', "rule 1: blocked_by: expected a URL"),
        (GOOD + GOOD, "rule 2: name: an earlier rule has it"),
        ("[[rule]", ":1:"),
    ],
)
def test_bad_rules_are_told_by_file_and_key(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(RuleError) as caught:
        Rules.load(path)
    assert str(caught.value).startswith(f"{path}:")
    assert told in str(caught.value)
    for once in (str(path), "rule 1: ", "rule 2: "):
        assert str(caught.value).count(once) <= 1


def test_a_rule_about_an_unknown_region_set_is_found_before_the_first_request(
    dataset: Dataset,
) -> None:
    rules = Rules([Rule(name="a", region_set="NOWHERE", mode=Mode.DENY_INSIDE)])
    with pytest.raises(RuleError, match=r"^rule 1: region_set: unknown region set"):
        rules.check(dataset)


# A rule before it acts, and no rule at all.

COUNT = Rule(name="trial", region_set="CN", mode=Mode.COUNT, reference="order 17/2026")


def metadata(response: Any) -> dict[str, str]:
    """Return Envoy's dynamic metadata, which must have what the headers have."""
    found = {name: value.string_value for name, value in response.dynamic_metadata.fields.items()}
    labels = headers(response.ok_response)
    assert {f"x-geo-{name}": value for name, value in found.items()} == labels
    return found


@pytest.mark.parametrize(
    ("address", "verdict", "reason"),
    [
        (CHINA, "INSIDE", "DECIDED"),
        (AMERICA, "OUTSIDE", "DECIDED"),
        (PRIVATE, "UNDETERMINED", "SPECIAL_PURPOSE"),
        ("", "UNDETERMINED", "INVALID"),
    ],
)
def test_measure_that_counts_labels_all_and_refuses_none(
    ask: Ask, dataset: Dataset, address: str, verdict: str, reason: str
) -> None:
    answer = dataset.lookup(address)
    by_file = ask(dataset, request(address), COUNT)
    by_route = ask(dataset, request(address, region_set="CN", mode="count"))
    for response in (by_file, by_route):
        assert metadata(response) == {
            "country": answer.country,
            "status": answer.status.name,
            "verdict": verdict,
            "reason": reason,
            "dataset": dataset.id,
        }


def test_measure_that_counts_beside_others_leaves_the_decision_to_them(
    ask: Ask, dataset: Dataset
) -> None:
    assert metadata(ask(dataset, request(AMERICA), ADMIT, COUNT))["verdict"] == "INSIDE, OUTSIDE"
    refused = ask(dataset, request(CHINA), COUNT, DENY)
    assert refused.denied_response.status.code == 451
    assert not refused.HasField("dynamic_metadata")
    assert not ask(dataset, request(AMERICA), DENY).HasField("dynamic_metadata")


@pytest.mark.parametrize("address", [CHINA, AMERICA, PRIVATE, DISPUTED, "", "2a00:1450:4001::1"])
def test_route_that_labels_has_no_verdict_and_what_is_known(
    ask: Ask, dataset: Dataset, address: str
) -> None:
    answer = dataset.lookup(address)
    # It wins over the rules of the file, as each rule of a route.
    for rules in ((), (DENY,)):
        response = ask(dataset, request(address, mode="label"), *rules)
        found = metadata(response)
        found.pop("networks", None)
        assert found == {
            "country": answer.country,
            "status": answer.status.name,
            "dataset": dataset.id,
        }
        assert {"x-geo-verdict", "x-geo-reason"} <= set(response.ok_response.headers_to_remove)


@pytest.fixture(scope="module", params=["native", "threads"])
def labels_all(request: pytest.FixtureRequest, dataset: Dataset) -> Iterator[Asked]:
    """A server without rules that labels, over a transport."""
    if request.param == "native" and build.missing(tls=True) is not None:
        pytest.skip("geolookup was built without the native transport")
    with (
        serving_here(dataset, transport=request.param, authz=True, authz_no_rule="label") as server,
        grpc.insecure_channel(str(server.address)) as channel,
    ):
        yield Asked(server, channel)


def test_setting_labels_where_there_is_no_rule_and_routes_keep_theirs(
    labels_all: Asked, dataset: Dataset
) -> None:
    before = counters.total([labels_all.server.counters]).checks
    response = labels_all(dataset, request(CHINA))
    after = counters.total([labels_all.server.counters]).checks
    assert grown(before, after, after)[dataset.lookup(CHINA).status.number] == 2  # it asks twice
    assert metadata(response)["status"] == "ASSIGNED"
    assert "verdict" not in metadata(response)
    body = request(CHINA, region_set="CN", mode="deny_inside")
    assert labels_all(dataset, body).HasField("denied_response")
    with pytest.raises(RequestError):
        labels_all(dataset, request(CHINA, mode="deny_inside"))


def test_checks_are_counted_by_what_they_do(dataset: Dataset) -> None:
    call = Recorded()
    for extensions in ({"mode": "label"}, {"mode": "count", "region_set": "CN"}):
        envoy_authz.check(dataset, request(CHINA, **extensions), Rules(), call)
    assigned = dataset.lookup(CHINA).status.number
    assert call.checks == [assigned, assigned]
    assert [(status, region_set) for status, region_set, *_ in call.lookups] == [(assigned, "CN")]


# Whose address: one header, or the chain of trusted proxies, where the operator says so.

HEADER = "x-client-address"
BALANCER = "10.0.0.9"
BY_HEADER: dict[str, Any] = {"authz_address_header": HEADER}
BY_CHAIN: dict[str, Any] = {"authz_trusted": ("10.0.0.0/24", "2001:db8::/64")}
BY_FORWARDED: dict[str, Any] = {**BY_CHAIN, "authz_chain": "forwarded"}
WHOSE = {"header": BY_HEADER, "chain": BY_CHAIN, "forwarded": BY_FORWARDED}


def request_with(
    peer: str, headers: Mapping[str, str], raw: Sequence[tuple[str, bytes]] = (), **extensions: str
) -> bytes:
    """Return a CheckRequest with these headers alone; *raw* ones as ``encode_raw_headers``."""
    body = external_auth_pb2.CheckRequest.FromString(request(peer, **extensions))
    http = body.attributes.request.http
    http.ClearField("headers")
    for name, value in headers.items():
        http.headers[name] = value
    for name, content in raw:
        http.header_map.headers.add(key=name, raw_value=content)
    return bytes(body.SerializeToString())


@pytest.fixture(scope="module", params=["native", "threads"])
def asked_for(request: pytest.FixtureRequest, dataset: Dataset) -> Iterator[dict[str, Asked]]:
    """Servers over a transport, by what they take for the address; see `WHOSE`."""
    if request.param == "native" and build.missing(tls=True) is not None:
        pytest.skip("geolookup was built without the native transport")
    with contextlib.ExitStack() as stack:
        servers: dict[str, Asked] = {}
        for name, settings in WHOSE.items():
            server = stack.enter_context(
                serving_here(dataset, transport=request.param, authz=True, **settings)
            )
            channel = stack.enter_context(grpc.insecure_channel(str(server.address)))
            servers[name] = Asked(server, channel)
        yield servers


def status_of(dataset: Dataset, response: Any) -> tuple[str, str]:
    """Return the country and the reason that a request that passes was given."""
    found = headers(response.ok_response)
    assert found["x-geo-dataset"] == dataset.id
    return found["x-geo-country"], found["x-geo-reason"]


INVALID = ("ZZ", "INVALID")
ONE_HEADER = {
    "an address": ({HEADER: AMERICA}, ("US", "DECIDED")),
    "in another letter case": ({"X-Client-Address": AMERICA}, ("US", "DECIDED")),
    "IPv6": ({HEADER: "2a00:1450:4001::1"}, ("DE", "DECIDED")),
    "mapped": ({HEADER: f"::ffff:{AMERICA}"}, ("US", "DECIDED")),
    "private": ({HEADER: "192.168.0.1"}, ("ZZ", "SPECIAL_PURPOSE")),
    "missing": ({}, INVALID),
    "another header": ({f"{HEADER}x": AMERICA, "x-forwarded-for": AMERICA}, INVALID),
    "twice, in two letter cases": ({HEADER: AMERICA, HEADER.upper(): AMERICA}, INVALID),
    "twice, joined": ({HEADER: f"{AMERICA},{AMERICA}"}, INVALID),
    "empty": ({HEADER: ""}, INVALID),
    "a port": ({HEADER: f"{AMERICA}:80"}, INVALID),
    "brackets": ({HEADER: "[2a00:1450:4001::1]"}, INVALID),
    "a space": ({HEADER: f" {AMERICA}"}, INVALID),
    "a leading zero": ({HEADER: "8.8.8.08"}, INVALID),
    "a prefix": ({HEADER: f"{AMERICA}/32"}, INVALID),
    "a word": ({HEADER: "unknown"}, INVALID),
    "beyond ASCII": ({HEADER: "8.8.8.\u0668"}, INVALID),
}


@pytest.mark.parametrize(("sent", "expected"), ONE_HEADER.values(), ids=ONE_HEADER)
def test_address_in_the_named_header_is_exactly_one_or_invalid(
    dataset: Dataset,
    asked_for: dict[str, Asked],
    sent: dict[str, str],
    expected: tuple[str, str],
) -> None:
    """Never the peer's, which is inside the measure and would be refused."""
    response = asked_for["header"](dataset, request_with(CHINA, sent), DENY)
    assert status_of(dataset, response) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ([(HEADER, AMERICA.encode())], ("US", "DECIDED")),
        ([(HEADER, AMERICA.encode()), (HEADER, AMERICA.encode())], INVALID),
        ([(HEADER, b"8.8.8.\xff")], INVALID),
    ],
    ids=["once", "twice", "no text"],
)
def test_header_that_envoy_lists_with_raw_bytes_is_read_alike(
    dataset: Dataset,
    asked_for: dict[str, Asked],
    raw: list[tuple[str, bytes]],
    expected: tuple[str, str],
) -> None:
    response = asked_for["header"](dataset, request_with(CHINA, {}, raw), DENY)
    assert status_of(dataset, response) == expected


def test_named_header_with_an_address_inside_is_refused(
    dataset: Dataset, asked_for: dict[str, Asked]
) -> None:
    body = request_with(AMERICA, {HEADER: CHINA})
    denied = asked_for["header"](dataset, body, DENY).denied_response
    assert denied.status.code == 451
    assert CHINA not in str(denied)


CHAINS = {
    "a peer that is no proxy": (AMERICA, {"x-forwarded-for": CHINA}, ("US", "DECIDED")),
    "one hop": (BALANCER, {"x-forwarded-for": AMERICA}, ("US", "DECIDED")),
    "one hop, with a port": (BALANCER, {"x-forwarded-for": f"{AMERICA}:80"}, ("US", "DECIDED")),
    "two hops": (BALANCER, {"x-forwarded-for": f"{AMERICA}, 10.0.0.8"}, ("US", "DECIDED")),
    "IPv6": ("2001:db8::9", {"x-forwarded-for": "2a00:1450:4001::1"}, ("DE", "DECIDED")),
    "a forged left end": (
        BALANCER,
        {"x-forwarded-for": f"{CHINA}, {AMERICA}"},
        ("US", "DECIDED"),
    ),
    "no header": (BALANCER, {}, INVALID),
    "junk": (BALANCER, {"x-forwarded-for": f"{AMERICA}, unknown"}, INVALID),
    "the other header": (BALANCER, {"forwarded": f"for={AMERICA}"}, INVALID),
    "a peer without an address": ("", {"x-forwarded-for": AMERICA}, INVALID),
}


@pytest.mark.parametrize(("peer", "sent", "expected"), CHAINS.values(), ids=CHAINS)
def test_chain_is_read_through_trusted_proxies_alone(
    dataset: Dataset,
    asked_for: dict[str, Asked],
    peer: str,
    sent: dict[str, str],
    expected: tuple[str, str],
) -> None:
    response = asked_for["chain"](dataset, request_with(peer, sent), DENY)
    assert status_of(dataset, response) == expected


def test_chain_of_rfc_7239_is_read_where_it_is_named(
    dataset: Dataset, asked_for: dict[str, Asked]
) -> None:
    sent = {"forwarded": f'for="{AMERICA}:80"', "x-forwarded-for": CHINA}
    response = asked_for["forwarded"](dataset, request_with(BALANCER, sent), DENY)
    assert status_of(dataset, response) == ("US", "DECIDED")
    sent = {"x-forwarded-for": AMERICA}
    response = asked_for["forwarded"](dataset, request_with(BALANCER, sent), DENY)
    assert status_of(dataset, response) == INVALID


SOME_HEADERS = st.dictionaries(
    st.sampled_from([HEADER, HEADER.upper(), "X-Client-address", "x-client", "x-forwarded-for"]),
    st.sampled_from(["1.0.1.1", "8.8.8.8", "10.0.0.8", "", "x", "::1", "8.8.8.8, 10.0.0.8", "é"]),
)


@settings(max_examples=60, phases=[Phase.explicit, Phase.generate])
@given(
    whose=st.sampled_from(sorted(WHOSE)),
    peer=st.sampled_from([CHINA, AMERICA, BALANCER, "2001:db8::1", ""]),
    sent=SOME_HEADERS,
    raw=st.lists(st.tuples(st.sampled_from([HEADER, "x-forwarded-for"]), st.just(b"8.8.8.8"))),
)
def test_both_transports_find_the_address_that_the_handler_finds(
    dataset: Dataset,
    asked_for: dict[str, Asked],
    whose: str,
    peer: str,
    sent: dict[str, str],
    raw: list[tuple[str, bytes]],
) -> None:
    body = request_with(peer, sent, raw)
    expected = envoy_authz.check(
        dataset, body, Rules([DENY]), whose=CheckAddress.of(Settings(authz=True, **WHOSE[whose]))
    )
    found = asked_for[whose](dataset, body, DENY)
    assert found == external_auth_pb2.CheckResponse.FromString(expected)


@settings(max_examples=150)
@given(data=st.data())
def test_damaged_request_with_the_named_header_gets_what_python_says(
    dataset: Dataset, asked_for: dict[str, Asked], data: st.DataObject
) -> None:
    """Cut off anywhere, or with a byte changed; the peer is inside, the header's address is not."""
    body = bytearray(request_with(CHINA, {HEADER: AMERICA, "x": "y"}))
    at = data.draw(st.integers(0, len(body) - 1))
    if data.draw(st.booleans()):
        del body[at:]
    else:
        body[at] = data.draw(st.integers(0, 255))
    try:
        expected = envoy_authz.check(
            dataset, bytes(body), Rules([DENY]), whose=CheckAddress(HEADER)
        )
    except RequestError:
        with pytest.raises(RequestError):
            asked_for["header"](dataset, bytes(body), DENY)
    else:
        found = asked_for["header"](dataset, bytes(body), DENY)
        assert found == external_auth_pb2.CheckResponse.FromString(expected)


@needs_native
def test_named_header_is_read_without_python(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        serving_here(dataset, transport="native", authz=True, **BY_HEADER) as server,
        grpc.insecure_channel(str(server.address)) as channel,
    ):
        asked = Asked(server, channel)
        server.snapshot = Snapshot(dataset, Rules([DENY]))
        monkeypatch.delattr(envoy_authz, "check")
        assert status_of(dataset, asked.again(request_with(CHINA, {HEADER: AMERICA}))) == (
            "US",
            "DECIDED",
        )
        assert status_of(dataset, asked.again(request_with(CHINA, {}))) == INVALID
        # A peer on a unix socket.
        body = external_auth_pb2.CheckRequest.FromString(request_with("", {HEADER: CHINA}))
        body.attributes.source.address.pipe.path = "/run/x"
        assert asked.again(body.SerializeToString()).HasField("denied_response")


# The native transport, which answers by itself what is plain.


@needs_native
@pytest.mark.parametrize(
    "body",
    [
        request(CHINA),
        request(AMERICA, host="X.test.:443", path="/join?room=1"),
        request("2a00:1450:4001::1", host="x.test", path="/join/a.b/~c"),
        request("", path="/"),
        request(CHINA, rule="offer"),
        request(CHINA, region_set="EU", mode="admit_inside", policy="majority"),
        request(CHINA, region_set="CN", mode="count"),
        request(CHINA, mode="label"),
    ],
    # Fields of a map are serialised in an order that differs from process to process.
    ids=[
        "plain",
        "host and query",
        "ipv6 and path",
        "no address",
        "rule of the route",
        "region set of the route",
        "count of the route",
        "label of the route",
    ],
)
def test_plain_requests_are_answered_without_python(
    dataset: Dataset, asked: Asked, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = frozenset({"x.test", "y.test"})
    there = Rule(name="there", region_set="US", mode=Mode.DENY_INSIDE, hosts=hosts)
    joins = Rule(name="joins", region_set="CN", mode=Mode.DENY_INSIDE, path_prefix="/join")
    rules = (there, joins, ADMIT)
    answer = asked(dataset, body, *rules)
    assert answer == by_handler(dataset, body, *rules)
    monkeypatch.delattr(envoy_authz, "check")
    assert asked.again(body) == answer
    asked.server.snapshot = Snapshot(dataset, Rules(rules))
    assert asked.again(body) == answer


@needs_native
def test_a_route_that_names_a_rule_follows_a_new_file(dataset: Dataset, asked: Asked) -> None:
    body = request(CHINA, rule="measure")
    assert asked(dataset, body, DENY, ADMIT).HasField("denied_response")
    other = Rule(name="measure", region_set="CN", mode=Mode.ADMIT_INSIDE)
    assert asked(dataset, body, other).HasField("ok_response")
    with pytest.raises(RequestError):
        asked(dataset, body, ADMIT)


@needs_native
def test_routes_beyond_those_kept_at_hand_are_answered_all_the_same(
    dataset: Dataset, asked: Asked
) -> None:
    bodies = [
        request(CHINA, region_set="CN", mode="deny_inside", reference=f"order {number}")
        for number in range(150)
    ]
    for body in (*bodies, *bodies, *reversed(bodies)):
        assert asked.again(body) == by_handler(dataset, body)


class Recorded(Call):
    """Keeps what a handler records of lookups."""

    def __init__(self) -> None:
        self.lookups: list[tuple[int, str, int, int]] = []
        self.checks: list[int] = []

    def record_lookup(self, status: int, region_set: str, outcome: int, networks: int) -> None:
        self.lookups.append((status, region_set, outcome, networks))

    def record_check(self, status: int) -> None:
        self.checks.append(status)


def grown(before: Any, after: Any, like: Any) -> Any:
    """Return by how much counters have grown, for the names that *like* has."""
    if isinstance(like, dict):
        none = {name: [0] * len(row) for name, row in like.items()}
        return {name: grown({**none, **before}[name], after[name], like[name]) for name in like}
    return [new - old for new, old in zip(after, before, strict=True)]


ADDRESSES = [CHINA, AMERICA, PRIVATE, DISPUTED, "", "::ffff:1.0.1.1", "fe80::1%eth0", " 1.0.1.1"]
SOME_RULES = st.lists(
    st.builds(
        Rule,
        name=st.just("r"),
        region_set=st.sampled_from(["CN", "US", "EU", "HK+MO"]),
        mode=st.sampled_from([mode for mode in Mode if mode is not Mode.LABEL]),
        policy=st.sampled_from(Policy),
        hosts=st.frozensets(st.sampled_from(["x.test", "y.test", "[2001:db8::1]"]), max_size=2),
        path_prefix=st.sampled_from(["", "/", "/join", "/join/a", "/join%20"]),
    ),
    min_size=1,
    max_size=4,
)


SOME_HOSTS = [*HOSTS, "x.test", "X.TEST.:1", "y.test", "[2001:DB8::1]:1", "x.test..", "."]
SOME_PATHS = [*PATHS, "/join/a/b", "/join//a", "/join/./a", "/join/.a", "/joi"]
SOME_REQUESTS = st.lists(
    st.builds(
        request,
        st.sampled_from(ADDRESSES),
        st.sampled_from(SOME_HOSTS),
        st.sampled_from(SOME_PATHS)
        | st.text("/.%2joina\u00e9?#\\ ", max_size=8).map("/join".__add__),
    ),
    min_size=10,
    max_size=30,
)


@needs_native
@settings(max_examples=10, phases=[Phase.explicit, Phase.generate])
@given(rules=SOME_RULES, requests=SOME_REQUESTS)
def test_loop_and_handler_answer_and_count_alike(
    dataset: Dataset, asked: Asked, rules: list[Rule], requests: list[bytes]
) -> None:
    call = Recorded()
    before = counters.total([asked.server.counters])
    for body in requests:
        said = envoy_authz.check(dataset, body, Rules(rules), call)
        assert asked(dataset, body, *rules) == external_auth_pb2.CheckResponse.FromString(said)
    after = counters.total([asked.server.counters])
    alone = Counters()
    for status, region_set, outcome, networks in call.lookups * 2:
        alone.address(status, alone.region_set(region_set), outcome, networks)
    for status in call.checks * 2:
        alone.check(status)
    assert len(call.checks) == len(requests)
    recorded = counters.total([alone])
    for name in ("addresses", "checks", "verdicts", "reasons", "networks"):
        expected = getattr(recorded, name)
        assert grown(getattr(before, name), getattr(after, name), expected) == expected
    row = Method.AUTHORIZATION_CHECK
    assert after.calls[row][0] - before.calls[row][0] == 2 * len(requests)


def full_request() -> bytes:
    """Return a request with something in each kind of field, as Envoy may send it."""
    body = external_auth_pb2.CheckRequest.FromString(request(CHINA, "x.test", "/join"))
    attributes = body.attributes
    attributes.source.principal = "spiffe://é"
    attributes.source.labels["zone"] = "a"
    attributes.destination.address.pipe.path = "/run/x"
    attributes.destination.address.pipe.mode = 7
    attributes.request.time.seconds = 5
    http = attributes.request.http
    http.id, http.method, http.scheme, http.protocol = "1", "GET", "https", "HTTP/2"
    http.raw_body, http.size = b"\xff\xfe", -1
    http.header_map.headers.add(key="a", value="b", raw_value=b"\xff")
    attributes.metadata_context.filter_metadata["x"].update({"a": [{"b": 1}, "c", None, True]})
    attributes.metadata_context.typed_filter_metadata["y"].type_url = "z"
    attributes.tls_session.sni = "x.test"
    return bytes(body.SerializeToString())


@needs_native
@settings(max_examples=300)
@given(data=st.data())
def test_damaged_requests_get_what_python_says(
    dataset: Dataset, asked: Asked, data: st.DataObject
) -> None:
    """Cut off anywhere, or with a byte changed: an answer if and only if the handler has one."""
    body = bytearray(
        data.draw(st.sampled_from([request(CHINA, "x.test", "/join"), full_request()]))
    )
    at = data.draw(st.integers(0, len(body) - 1))
    if data.draw(st.booleans()):
        del body[at:]
    else:
        body[at] = data.draw(st.integers(0, 255))
    check_alike(dataset, asked, bytes(body))


@needs_native
@pytest.mark.parametrize(
    "more",
    [
        b"\x92\x80\x80\x80\x80\x00\x00",  # a tag of six bytes
        b"\x92\x01\x81\x80\x80\x80\x80\x00x",  # a size of six bytes
        b"\x93\x01\x94\x01",  # a group
        b"\x0a\x02\x12\x05",  # attributes, whose destination is cut
        b"\x0a\x04\x62\x02\x0a\x00",  # a server's name that is empty
        b"\x0a\x05\x62\x03\x0a\x01\xff",  # and one that is no text
        b"\x0a\x06" + b"\x0b" * 3 + b"\x0c" * 3,
    ],
)
def test_odd_fields_get_what_python_says(dataset: Dataset, asked: Asked, more: bytes) -> None:
    check_alike(dataset, asked, request(CHINA, "x.test", "/join") + more)


@needs_native
def test_metadata_of_any_depth_gets_what_python_says(dataset: Dataset, asked: Asked) -> None:
    for depth in (3, 20, 200):
        value = b"\x1a\x01a"  # a text
        for _ in range(depth):
            value = (
                b"\x32"
                + varint(len(value) + 1 + len(varint(len(value))))
                + (b"\x0a" + varint(len(value)) + value)
            )
        entry = b"\x0a\x01k\x12" + varint(len(value)) + value
        struct = b"\x0a" + varint(len(entry)) + entry
        entry = b"\x0a\x01m\x12" + varint(len(struct)) + struct
        metadata = b"\x0a" + varint(len(entry)) + entry
        attributes = b"\x5a" + varint(len(metadata)) + metadata
        whole = b"\x0a" + varint(len(attributes)) + attributes
        check_alike(dataset, asked, request(CHINA, "x.test", "/join") + whole)


def varint(number: int) -> bytes:
    low = b""
    while number > 0x7F:
        low += bytes([number & 0x7F | 0x80])
        number >>= 7
    return low + bytes([number])


def check_alike(dataset: Dataset, asked: Asked, body: bytes) -> None:
    try:
        expected = by_handler(dataset, body, DENY)
    except RequestError:
        with pytest.raises(RequestError):
            asked(dataset, body, DENY)
    else:
        assert asked(dataset, body, DENY) == expected
