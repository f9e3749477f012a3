"""Settings: one table that flags, variables, TOML and the documentation all follow."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geolookup.answer.claims import Network
from geolookup.cli.serve import run_service
from geolookup.service.methods import Method
from geolookup.service.settings import (
    ListenAddress,
    RosterLimits,
    Settings,
    SettingsError,
    cores,
    model,
    show,
    source,
)
from geolookup.service.settings.kinds import (
    AllowLists,
    Choice,
    Covering,
    Listeners,
    Seconds,
    Switch,
    WholeNumber,
)
from geolookup.service.settings.model import table

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = ROOT / "docs" / "configuration.md"
NAMES = [row.name for row in table()]


def read(
    flags: Mapping[str, str] | None = None, environment: Mapping[str, str] | None = None
) -> source.Configuration:
    return source.read(flags or {}, environment or {})


def read_file(path: Path, text: str, **flags: str) -> source.Configuration:
    path.write_text(text)
    return read({"config": str(path), **flags})


TLS = {"tls_certificate": "c", "tls_key": "k"}
MUTUAL = {**TLS, "tls_client_ca": "a"}


# one table


def documented() -> str:
    """Return the table of docs/configuration.md."""
    lines = []
    group = ""
    for row in table():
        if row.group != group:
            group = row.group
            lines += [
                "",
                f"### {group}",
                "| setting | value | default | |",
                "| --- | --- | --- | --- |",
            ]
        default = row.default_text or f"`{row.kind.plain(row.default)}`"
        if isinstance(row.kind, Switch):
            default = default.lower()
        default = "" if row.default == {} else default
        value = re.sub(r"\b(a whole number|seconds) from", "from", row.kind.expected)
        unit = {WholeNumber: "number", Seconds: "seconds"}.get(type(row.kind), "")
        text = row.help.replace("*", r"\*")
        lines.append(f"| `{row.name}` | {' '.join([unit, value]).strip()} | {default} | {text} |")
    return "\n".join(lines).strip()


def test_the_documentation_has_the_table() -> None:
    text = DOCUMENT.read_text("utf-8")
    found = text.split("<!-- settings -->\n")[1].split("\n<!-- end of settings -->")[0]
    assert found == documented()


def test_every_field_is_a_row_and_every_row_a_field() -> None:
    fields = {field.name for field in dataclasses.fields(Settings)} - {"limits"}
    limits = {f"max_{field.name}" for field in dataclasses.fields(RosterLimits)}
    assert sorted(NAMES) == sorted(fields | limits)
    assert all(row.value(Settings()) == row.default for row in table())


def test_every_row_has_its_flag_and_no_flag_is_without_a_row() -> None:
    parameters = run_service.get_params(click.Context(run_service))
    flags = {parameter.name: parameter.opts[0] for parameter in parameters}
    own = {"config", "print_config", "as_json", "_click_default_help"}
    assert {row.name: row.flag for row in table()} == {
        name: flag for name, flag in flags.items() if name not in own
    }


def test_no_variable_looks_like_what_orchestrators_say_of_a_service() -> None:
    assert not [
        row.name
        for row in table()
        for value in ("1", "tcp://10.0.0.1:50051")
        if source._SERVICE_LINK.fullmatch(f"{row.variable}={value}")
    ]


def test_allow_names_every_rpc() -> None:
    (allow,) = [row.kind for row in table() if row.name == "allow"]
    assert isinstance(allow, AllowLists)
    assert allow.rpcs == (*(method.label for method in Method), "*", "admin")


def test_defaults_are_sound_and_safe() -> None:
    settings = read().settings
    assert settings == dataclasses.replace(
        Settings(),
        workers=cores.available_cores(),
        memory_budget=model._default_memory_budget(),
        lame_duck=0.0 if os.getpid() != 1 else 5.0,
    )
    listeners = (settings.listen, settings.admin, settings.metrics)
    assert all(ListenAddress.parse(text).is_local for text in listeners if text)
    assert settings.insecure == ()
    for dangerous in ("compression", "channelz", "core_dumps"):
        assert getattr(settings, dangerous) is False


@pytest.mark.parametrize(
    ("limit", "cores", "budget"),
    [
        (math.inf, 2, 1 << 30),
        (512 << 20, 2, 128 << 20),
        (4 << 30, 1, 512 << 20),
        (1 << 20, 1, 16 << 20),
    ],
)
def test_memory_budget_follows_the_limit_of_the_container(
    monkeypatch: pytest.MonkeyPatch, limit: float, cores: int, budget: int
) -> None:
    monkeypatch.setattr(model, "memory_limit", lambda: limit)
    monkeypatch.setattr(model, "available_cores", lambda: cores)
    assert model._default_memory_budget() == budget
    assert Settings(memory_budget=budget, workers=4).worker_memory == budget // 4


def test_container_has_a_lame_duck(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read().settings.lame_duck == 0.0
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert read().settings.lame_duck == 5.0


def test_the_command_loads_no_grpc_before_it_serves() -> None:
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys\n"
            "from geolookup.cli import main\n"
            "try: main(['serve', '--print-config'])\n"
            "finally: print(*sys.modules, file=sys.stderr)",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "geolookup.service.settings.model" in ended.stderr.split()
    assert "grpc" not in ended.stderr.split()


# where values come from


def test_flags_win_over_variables_over_the_file_over_defaults(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    path.write_text("\nthreads = 3\nmax_calls = 4\n\nmax_streams = 5\n")
    configuration = read(
        {"threads": "1"},
        {"GEOLOOKUP_THREADS": "2", "GEOLOOKUP_MAX_CALLS": "2", "GEOLOOKUP_CONFIG": str(path)},
    )
    settings = configuration.settings
    assert (settings.threads, settings.max_calls, settings.max_streams) == (1, 2, 5)
    assert settings.max_metadata == Settings().max_metadata
    places = [configuration.origins[name] for name in ("threads", "max_calls", "max_streams")]
    assert places == ["--threads", "GEOLOOKUP_MAX_CALLS", f"{path}:5"]
    assert configuration.origins["max_metadata"] == "default"


def test_the_flag_for_the_file_wins_over_the_variable(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    path.write_text("threads = 3\n")
    configuration = read({"config": str(path)}, {"GEOLOOKUP_CONFIG": "/nonexistent"})
    assert configuration.settings.threads == 3


def test_paths_in_a_file_are_relative_to_it_and_others_to_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    settings = read_file(
        tmp_path / "g.toml",
        'dataset = "a/b"\ncanaries = "/c"\nadmin = "unix:run/admin"\n',
        region_sets="../sets.toml",
        listen="unix:main",
    ).settings
    assert settings.dataset == tmp_path / "a" / "b"
    assert settings.canaries == Path("/c")
    assert settings.admin == f"unix:{tmp_path}/run/admin"
    assert settings.region_sets == tmp_path / "sets.toml"
    assert settings.listen == f"unix:{here}/main"


def test_links_are_kept_because_a_new_certificate_is_a_new_target(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    settings = read({"dataset": str(tmp_path / "link" / "x")}).settings
    assert settings.dataset == tmp_path / "link" / "x"


def test_none_takes_back_what_a_file_says(tmp_path: Path) -> None:
    text = 'dataset = "x"\nadmin = "127.0.0.1:1"\n'
    settings = read_file(tmp_path / "g.toml", text, dataset="none", admin="none").settings
    assert (settings.dataset, settings.admin) == (None, None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, True) for text in ("true", "True", "TRUE", "1")),
        *((text, False) for text in ("false", "False", "FALSE", "0")),
    ],
)
def test_switch_can_be_set_by_a_variable(text: str, value: bool) -> None:
    assert read({}, {"GEOLOOKUP_TRACING": text}).settings.tracing is value


def test_allow_is_a_table_or_pairs(tmp_path: Path) -> None:
    authority = tmp_path / "ca"
    files = {name: str(authority) for name in ("tls_certificate", "tls_key", "tls_client_ca")}
    pairs = read({**files, "allow": "Lookup=a Lookup=spiffe://b/c?d=e admin=f"}).settings.allow
    assert pairs == {"Lookup": {"a", "spiffe://b/c?d=e"}, "admin": {"f"}}
    text = '[allow]\nLookup = ["a", "spiffe://b/c?d=e"]\nadmin = ["f"]\n'
    assert read_file(tmp_path / "g.toml", text, **files).settings.allow == pairs


def test_variables_of_others_are_left_alone() -> None:
    links = {
        "GEOLOOKUP_SERVICE_HOST": "10.0.0.1",
        "GEOLOOKUP_SERVICE_PORT": "50051",
        "GEOLOOKUP_SERVICE_PORT_GRPC": "50051",
        "GEOLOOKUP_PORT": "tcp://10.0.0.1:50051",
        "GEOLOOKUP_PORT_50051_TCP": "tcp://10.0.0.1:50051",
        "GEOLOOKUP_PORT_50051_TCP_ADDR": "10.0.0.1",
        "GEOLOOKUP_ADMIN_SERVICE_HOST": "10.0.0.1",
        "GEOLOOKUP_ADMIN_PORT": "tcp://10.0.0.1:50052",
    }
    configuration = read({}, {**links, "GEOLOOKUP_WERROR": "1", "OTHER": "x"})
    assert configuration.settings == read().settings
    assert configuration.unknown_variables == ()


@pytest.mark.parametrize(
    "name", ["GEOLOOKUP_XYZZY", "GEOLOOKUP_", "GEOLOOKUP_IMAGE_TAG", "GEOLOOKUP_HOME"]
)
def test_variable_like_no_setting_is_named_and_ignored(name: str) -> None:
    configuration = read({}, {name: "1"})
    assert configuration.settings == read().settings
    assert configuration.unknown_variables == (name,)


def test_connections_with_client_certificates_have_an_age_by_default(tmp_path: Path) -> None:
    authority = dict(zip(MUTUAL, map(str, (tmp_path / "c",) * 3), strict=True))
    configuration = read(authority)
    assert configuration.settings.max_connection_age == 3_600
    assert configuration.origins["max_connection_age"].startswith("default: ")
    assert read(TLS).settings.max_connection_age == 0
    assert read({**authority, "max_connection_age": "0"}).settings.max_connection_age == 0


@pytest.mark.parametrize("text", ["true", "True", "1", "false", "0"])
def test_insecure_as_a_switch_says_what_to_write(text: str) -> None:
    with pytest.raises(
        SettingsError, match="in place of true write listen,http,metrics, of false none"
    ):
        read({}, {"GEOLOOKUP_INSECURE": text})


# what is refused, and how it is said


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((name, text) for name in ("workers", "max_roster", "max_calls") for text in ("0", "-1")),
        *(("threads", text) for text in ("", "1.5", "x", " 1", "٣", "1e3", "9" * 30)),
        ("max_roster", "44_737_878"),
        ("max_metadata", "1023"),
        ("max_metadata", "1048577"),
        *(("grace", text) for text in ("-1", "nan", "inf", "1e3", "x", "", "86401")),
        ("watch", "0.01"),
        ("handshake_timeout", "0"),
        ("transport", "asyncio"),
        ("log_level", "INFO"),
        *(("insecure", text) for text in ("yes", "", "listen,admin", "listen,,metrics", "LISTEN")),
        ("tracing", "yes"),
        ("dataset", ""),
        ("dataset", "a\0b"),
        ("dataset", "\udce9"),
        ("listen", "none"),
        ("listen", "somewhere"),
        ("listen", "[1.2.3.4]:1"),
        ("listen", "unix:" + "x" * 108),
        ("metrics", "unix:/x"),
        ("metrics", ":9464"),
        ("allow", "Lookup"),
        ("allow", "Lookup="),
        ("allow", "LookUp=a"),
        *(("covering", text) for text in ("", "VPN,", "VPN TOR", "PIGEON", "VPN,none")),
        *(
            ("authz_address_header", text)
            for text in ("", ":path", "x y", "x:", "\u00e9", "x" * 257)
        ),
        *(("authz_trusted", text) for text in ("", "10.0.0.1/8", "10.0.0.0/8,", "10.0.0.0/8 ::1")),
        *(("authz_trusted", text) for text in ("0.0.0.0/0", "10.0.0.0/8,::/0", "example.com")),
        ("authz_chain", "x-real-ip"),
        ("authz_no_rule", "pass"),
    ],
)
def test_bad_value_names_setting_and_origin_and_is_not_repeated(name: str, text: str) -> None:
    row = next(row for row in table() if row.name == name)
    for flags, environment, place in (
        ({name: text}, {}, row.flag),
        ({}, {row.variable: text}, row.variable),
    ):
        with pytest.raises(SettingsError) as refused:
            read(flags, environment)
        said = str(refused.value)
        assert said.startswith(f"{name}: ")
        assert said.endswith(f"({place})")
        assert len(text) < 5 or name == "allow" or text not in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n\nthreads = 0\n", "threads: expected a whole number from 1 to 1,024 (FILE:3)"),
        ("threads = true", "threads: expected a whole number from 1 to 1,024 (FILE:1)"),
        ("threads = 1.0", "threads: expected a whole number from 1 to 1,024 (FILE:1)"),
        ('grace = "1"', "grace: expected seconds from 0 to 86,400 (FILE:1)"),
        ("grace = nan", "grace: expected seconds from 0 to 86,400 (FILE:1)"),
        ("tracing = 1", "tracing: expected true or false (FILE:1)"),
        ("insecure = 1", "insecure: expected none, or of listen, http, metrics (FILE:1)"),
        (
            "insecure = true",
            "insecure: expected none, or of listen, http, metrics: it names listeners and is no"
            " switch any more; in place of true write listen,http,metrics, of false none (FILE:1)",
        ),
        (
            'insecure = ["admin"]',
            "insecure: not admin: who reaches it could stop the service; it needs tls_certificate,"
            " tls_client_ca and allow.admin (FILE:1)",
        ),
        ("dataset = 1", "dataset: expected a file's path, or none (FILE:1)"),
        ("listen = 1", "listen: expected HOST:PORT, [IPV6]:PORT or unix:PATH (FILE:1)"),
        ("transport = []", "transport: expected native or threads (FILE:1)"),
        ("covering = 1", "covering: expected as-compiled, none, or of TOR, VPN, PROXY"),
        ("covering = [1]", "covering: expected as-compiled, none, or of TOR, VPN, PROXY"),
        ('covering = ["none"]', "covering: expected as-compiled, none, or of TOR, VPN, PROXY"),
        ("allow = 1", "allow: expected for each rpc a list of at least one identity (FILE:1)"),
        ("\n[allow]\nLookup = []", "allow: expected for each rpc a list of at least one ident"),
        ('[allow]\nLookup = "a"', "allow: expected for each rpc a list of at least one identity"),
        ("thread = 1", "config: no setting has the name thread; is it threads? (FILE:1)"),
        ("[limits]\nroster = 1", "config: no setting has the name limits (FILE:1)"),
        ("[serve]\nthreads = 1", "config: no setting has the name serve (FILE:1)"),
        ("'grace ' = 1", "config: no setting has the name grace ; is it grace? (FILE:1)"),
        ("config = 'x'", "config: no setting has the name config"),
        ("threads = ", "config: FILE: Invalid value (at end of document)"),
        (
            "threads = 1\nthreads = 2",
            "config: FILE: Cannot overwrite a value (at end of document)",
        ),
        (f"threads = {'9' * 5_000}", "config: FILE: can't be read as TOML"),
        (f"x = {'[' * 5_000}", "config: FILE: can't be read as TOML"),
        ("#" * 1_048_577, "config: FILE: larger than 1,048,576 bytes"),
        ("# \udce9", "config: FILE: not UTF-8 text"),
    ],
)
def test_a_bad_file_names_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "g.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingsError) as refused:
        read({"config": str(path)})
    assert str(refused.value).startswith(
        said.replace("FILE", str(path)).removesuffix(" (--config)")
    )


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/nonexistent/g.toml", "config: /nonexistent/g.toml: No such file"),
        ("/", "config: /: Is a directory"),
        ("", "config: expected a file's path (--config)"),
        ("a\0b", "config: expected a file's path (--config)"),
    ],
)
def test_a_file_that_can_t_be_read_says_why(path: str, said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read({"config": path})
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    ("variable", "near"),
    [
        ("GEOLOOKUP_WORKER", "GEOLOOKUP_WORKERS"),
        ("GEOLOOKUP_MAXROSTER", "GEOLOOKUP_MAX_ROSTER"),
        ("GEOLOOKUP_TLS_CERT", "GEOLOOKUP_TLS_CERTIFICATE"),
        ("GEOLOOKUP_TLS_CLIENT_CA_FILE", "GEOLOOKUP_TLS_CLIENT_CA"),
        ("GEOLOOKUP_LISTEN_ADDRESS", "GEOLOOKUP_LISTEN"),
        # Not Kubernetes': there the value is a URL.
        ("GEOLOOKUP_METRICS_PORT", "GEOLOOKUP_METRICS"),
        ("GEOLOOKUP_DATABASE", "GEOLOOKUP_DATASET"),
    ],
)
def test_variable_near_a_setting_is_refused(variable: str, near: str) -> None:
    said = rf"^environment: no setting has the variable {variable}; is it .*\b{near}\b.*\?$"
    with pytest.raises(SettingsError, match=said):
        read({}, {variable: "1"})


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"tls_key": "k"}, "tls_key: needs tls_certificate"),
        ({"tls_certificate": "k"}, "tls_certificate: needs tls_key"),
        ({"tls_client_ca": "a"}, "tls_client_ca: needs tls_certificate"),
        ({"allow": "Lookup=a"}, "allow: needs tls_client_ca"),
        ({**TLS, "allow": "Lookup=a"}, "allow: needs tls_client_ca"),
        ({**MUTUAL, "allow": "admin=a", "admin": "none"}, "allow: names admin, but there is no"),
        ({"listen": "0.0.0.0:1"}, "listen: other machines can reach it and it has no TLS"),
        ({"listen": "[::]:1"}, "listen: other machines can reach it and it has no TLS"),
        ({"listen": "host.example:1"}, "listen: other machines can reach it and it has no TLS"),
        ({"admin": "10.0.0.1:1"}, "admin: other machines can reach it and it has no TLS"),
        ({"metrics": "0.0.0.0:1"}, "metrics: other machines can reach it and it has no TLS"),
        ({**TLS, "metrics": "0.0.0.0:1"}, "metrics: other machines can reach it and it has no TLS"),
        ({**TLS, "admin": "0.0.0.0:1"}, "admin: other machines can reach it; say in allow"),
        ({"admin": "0.0.0.0:1", "insecure": "listen,metrics"}, "admin: other machines can reach"),
        ({"listen": "0.0.0.0:1", "insecure": "metrics"}, "listen: other machines can reach it"),
        ({"metrics": "0.0.0.0:1", "insecure": "listen"}, "metrics: other machines can reach it"),
        ({**MUTUAL, "admin": "0.0.0.0:1"}, "admin: other machines can reach it; say in allow"),
        ({"listen": "127.0.0.1:50052"}, "admin: the same address as listen (default)"),
        ({"listen": "127.0.0.1:1", "admin": "localhost:1"}, "admin: the same address as listen"),
        ({"listen": "[::1]:1", "metrics": "[0::1]:1"}, "metrics: the same address as listen"),
        ({"listen": "0.0.0.0:9464", "insecure": "listen"}, "metrics: the same address as listen"),
        ({"listen": "unix:/a", "admin": "unix:/a"}, "admin: the same address as listen"),
        ({"authz_address_header": "x-client"}, "authz_address_header: needs authz or authz_rules"),
        ({"authz_trusted": "10.0.0.0/8"}, "authz_trusted: needs authz or authz_rules"),
        (
            {"authz": "true", "authz_address_header": "x", "authz_trusted": "10.0.0.0/8"},
            "authz_trusted: not beside authz_address_header",
        ),
        ({"authz": "true", "authz_chain": "forwarded"}, "authz_chain: needs authz_trusted"),
        ({"authz_no_rule": "label"}, "authz_no_rule: needs authz"),
        ({"authz_rules": "r", "authz_no_rule": "label"}, "authz_no_rule: not beside authz_rules"),
        (
            {"authz": "true", "authz_chain": "forwarded", "authz_address_header": "x"},
            "authz_chain: needs authz_trusted",
        ),
        ({"http": "0.0.0.0:1"}, "http: other machines can reach it and it has no TLS"),
        ({"http": "0.0.0.0:1", "insecure": "listen"}, "http: other machines can reach it"),
        ({"listen": "127.0.0.1:1", "http": "127.0.0.1:1"}, "http: the same address as listen"),
    ],
)
def test_settings_that_don_t_fit_together_are_refused(flags: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(flags)
    assert str(refused.value).startswith(said)
    setting = said.partition(":")[0]
    place = f"--{setting.replace('_', '-')}" if setting in flags else "default"
    assert str(refused.value).endswith(f"({place})")


@pytest.mark.parametrize(
    "flags",
    [
        {"listen": "127.1.2.3:1"},
        {"listen": "localhost:1"},
        {"listen": "[::1]:1"},
        {"listen": "unix:/a", "admin": "unix:/b", "metrics": "none"},
        {"listen": "0.0.0.0:1", "insecure": "listen"},
        {"listen": "0.0.0.0:1", "metrics": "0.0.0.0:3", "insecure": "listen,metrics"},
        {"http": "0.0.0.0:1", "insecure": "http"},
        {**TLS, "http": "0.0.0.0:1"},
        {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "metrics": "127.0.0.1:0"},
        {**TLS, "listen": "0.0.0.0:1"},
        {**MUTUAL, "listen": "0.0.0.0:1", "admin": "0.0.0.0:2", "allow": "admin=a"},
        {"authz": "true", "authz_address_header": "X-Client-Address", "authz_no_rule": "label"},
        {"authz_rules": "r", "authz_trusted": "10.0.0.0/8,::1", "authz_chain": "forwarded"},
    ],
)
def test_settings_that_fit_together_are_taken(flags: dict[str, str]) -> None:
    settings = read(flags).settings
    assert settings.listen == flags.get("listen", settings.listen)


@pytest.mark.parametrize("text", ["x-forwarded-for", "X-Forwarded-For", "forwarded"])
def test_chain_as_address_header_is_refused_and_says_what_reads_chains(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^authz_address_header: not .*, which is a"):
        read({"authz": "true", "authz_address_header": text})


def test_address_header_and_proxies_have_forms_in_flags_and_files(tmp_path: Path) -> None:
    by_flags = read({"authz": "true", "authz_address_header": "X-Client"}).settings
    assert by_flags.authz_address_header == "x-client"
    by_file = read_file(
        tmp_path / "g.toml", 'authz = true\nauthz_trusted = ["10.0.0.0/8", "::1"]\n'
    ).settings
    assert by_file.authz_trusted == ("10.0.0.0/8", "::1")
    assert read({"authz": "true", "authz_trusted": "10.0.0.0/8,::1"}).settings == by_file


@pytest.mark.parametrize("name", NAMES)
def test_values_of_the_wrong_type_are_refused(name: str) -> None:
    wrong: dict[str, Any] = {name: object()}
    if name == "max_roster":
        wrong = {"limits": RosterLimits(roster=object())}
    with pytest.raises(SettingsError, match=f"^{name}: expected "):
        Settings(**wrong)


# written down


def values(row: model.Setting) -> st.SearchStrategy[str]:
    """Draw texts of a row's values."""
    kind = row.kind
    if isinstance(kind, WholeNumber):
        return st.integers(kind.least, kind.most).map(str)
    if isinstance(kind, Seconds):
        return st.integers(int(kind.least * 1_000), int(kind.most * 1_000)).map(
            lambda thousandths: f"{thousandths / 1_000:.3f}"
        )
    if isinstance(kind, Switch):
        return st.sampled_from(["true", "false"])
    if isinstance(kind, Choice):
        return st.sampled_from(kind.words)
    if isinstance(kind, Listeners):
        return st.sampled_from(["none", "listen", "http", "metrics", "listen,http,metrics"])
    if isinstance(kind, Covering):
        kinds = st.lists(st.sampled_from([*Network.__members__]), min_size=1).map(",".join)
        return st.one_of(kinds, st.sampled_from(["none", "as-compiled"]))
    if row.name == "authz_address_header":
        return st.from_regex("[a-z][a-z0-9-]{0,9}", fullmatch=True).filter(
            lambda text: text not in {"none", "forwarded"}
        )
    if row.name == "authz_trusted":
        return st.sampled_from(["10.0.0.0/8", "::1,192.0.2.0/24", "2001:db8::/32"])
    if row.name in {"listen", "admin", "http", "metrics"}:
        port = NAMES.index(row.name) + 1
        return st.sampled_from([f"127.0.0.1:{port}", f"[::1]:{port}", f"localhost:{port}"])
    if row.name == "allow":
        name = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1)
        pair = st.tuples(
            st.sampled_from((*(method.label for method in Method), "*", "admin")), name
        ).map("=".join)
        return st.lists(pair, min_size=1, max_size=5).map(" ".join)
    return st.text(
        st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20
    ).filter(lambda text: text != "none")


@given(data=st.data())
def test_printed_settings_read_the_same(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    chosen = data.draw(st.sets(st.sampled_from(NAMES)))
    tls = {"tls_certificate", "tls_key", "tls_client_ca", "allow"}
    chosen |= tls if chosen & tls else set()
    if chosen & {"authz_chain", "authz_trusted"}:
        chosen = chosen - {"authz_address_header"} | {"authz_trusted"}
    if "authz_rules" in chosen or chosen & {"authz_address_header", "authz_trusted"}:
        chosen = chosen - {"authz_no_rule"} | {"authz_rules"}
    chosen -= {"authz_no_rule"}  # needs authz, which may be drawn as false
    flags = {row.name: data.draw(values(row)) for row in table() if row.name in chosen}
    configuration = read(flags)
    path = tmp_path_factory.mktemp("written") / "g.toml"
    text = show.as_toml(configuration)
    assert tomllib.loads(text).keys() == set(NAMES)
    again = read_file(path, text)
    assert again.settings == configuration.settings
    assert all(place.startswith(f"{path}:") for place in again.origins.values())


def test_print_config_has_the_origin_of_each_value(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    path.write_text("threads = 5\n")
    command = [sys.executable, "-m", "geolookup", "serve", "--print-config"]
    environment = {**os.environ, "GEOLOOKUP_CONFIG": str(path), "GEOLOOKUP_GRACE": "2.5"}

    def printed(*options: str) -> str:
        return subprocess.run(
            [*command, *options],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            cwd=ROOT,
            env=environment,
        ).stdout

    text = printed("--max-roster", "7", "--no-tracing", "--insecure", "metrics")
    assert f"threads = 5  # {path}:1\n" in text
    assert "grace = 2.5  # GEOLOOKUP_GRACE\n" in text
    assert "max_roster = 7  # --max-roster\n" in text
    assert "tracing = false  # --tracing\n" in text
    assert 'insecure = ["metrics"]  # --insecure\n' in text
    assert 'listen = "127.0.0.1:50051"  # default\n' in text
    content = json.loads(printed("--json", "--allow", "Lookup=a", *mutual(tmp_path)))
    assert content["threads"] == {"value": 5, "from": f"{path}:1"}
    assert content["allow"] == {"value": {"Lookup": ["a"]}, "from": "--allow"}
    assert list(content) == NAMES


def mutual(folder: Path) -> list[str]:
    flags = ("--tls-certificate", "--tls-key", "--tls-client-ca")
    return [word for flag in flags for word in (flag, str(folder / "x"))]
