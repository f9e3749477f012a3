"""The committed manifests, held to the chart, Kubernetes' schemas and the service itself."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from servers import PATIENCE, serving

from cluster.render import ALL, BASE, CHART, MONITORING, ROOT, VARIANTS, Rendering
from geolookup.answer.overrides import Overrides
from geolookup.service.settings import model, source

yaml = pytest.importorskip("yaml", reason="kubernetes-validate, of the test extra, brings it")
jsonschema = pytest.importorskip("jsonschema", reason="kubernetes-validate brings it")
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="it is in the test extra")

KUBERNETES = "1.34"
OPERATOR = "monitoring.coreos.com/v1"
"""The Prometheus operator's objects, which Kubernetes' schemas do not know."""
FOLDERS = {"embedded": None, "image": "image", "copy": "emptyDir", "claim": "persistentVolumeClaim"}

Object = dict[str, Any]


def objects(rendering: Rendering) -> list[Object]:
    return [one for one in yaml.safe_load_all(rendering.file.read_text(encoding="utf-8")) if one]


def the(kind: str, rendering: Rendering, name: str = "") -> Object:
    found = [one for one in objects(rendering) if one["kind"] == kind]
    (one,) = (one for one in found if one["metadata"]["name"].endswith(name))
    return one


def values(rendering: Rendering) -> Any:
    """Return the chart's values with those of the variant over them."""
    own = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    given = yaml.safe_load(rendering.values.read_text(encoding="utf-8")) if rendering.values else {}
    return merged(own, given)


def merged(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    both = {**below, **above}
    return {key: merged(below[key], both[key]) if key in below else both[key] for key in both}


def settings_file(rendering: Rendering) -> str:
    name = the("Deployment", rendering)["metadata"]["name"]
    text = the("ConfigMap", rendering, name)["data"]["geolookup.toml"]
    assert isinstance(text, str)
    return text


def pod(rendering: Rendering) -> Object:
    spec: Object = the("Deployment", rendering)["spec"]["template"]["spec"]
    return spec


SERVING = (BASE, *VARIANTS)
each_rendering = pytest.mark.parametrize("rendering", ALL, ids=lambda one: one.name)
each_variant = pytest.mark.parametrize("rendering", SERVING, ids=lambda one: one.name)


@each_rendering
def test_committed_manifests_are_made_of_the_chart_as_it_is(rendering: Rendering) -> None:
    first = rendering.file.read_text(encoding="utf-8").splitlines(keepends=True)[0]
    assert first == rendering.head(), "python -m tests.cluster --write"


@pytest.mark.skipif(not shutil.which("helm"), reason="helm is not on the path")
@each_rendering
def test_committed_manifests_are_what_helm_makes(rendering: Rendering) -> None:
    assert rendering.file.read_text(encoding="utf-8") == rendering.render("helm")


@each_rendering
def test_manifests_fit_the_schemas_of_kubernetes(rendering: Rendering) -> None:
    found = objects(rendering)
    assert found
    for one in found:
        if one["apiVersion"] != OPERATOR:
            kubernetes_validate.validate(one, KUBERNETES, strict=True)


def test_schemas_refuse_an_unknown_field() -> None:
    deployment = the("Deployment", BASE)
    deployment["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES, strict=True)


@each_variant
def test_values_fit_the_chart_s_schema(rendering: Rendering) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(values(rendering), schema)


@pytest.mark.parametrize(
    "wrong",
    [
        {"dataset": {"kind": "download"}},
        {"dataset": {"files": "x"}},
        {"image": {"digest": "latest"}},
        {"settings": {"workers": 3}},  # the chart's own value says it, and sizes the pod by it
        {"settings": {"allow": {"Lookup": "meet.example"}}},
        {"replica": 2},
    ],
    ids=str,
)
def test_chart_s_schema_refuses_a_slip(wrong: Object) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(merged(values(BASE), wrong), schema)


def test_settings_that_the_chart_keeps_to_itself_are_settings() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    kept = schema["properties"]["settings"]["propertyNames"]["not"]["enum"]
    assert set(kept) <= {setting.name for setting in model.table()}
    for rendering in SERVING:
        free = set(values(rendering)["settings"])
        assert set(tomllib.loads(settings_file(rendering))) - free <= set(kept)


@each_variant
def test_service_takes_the_settings_of_the_chart(rendering: Rendering, tmp_path: Path) -> None:
    file = tmp_path / "geolookup.toml"
    file.write_text(settings_file(rendering), encoding="utf-8")
    settings = source.read({"config": str(file)}, {}).settings
    ports = {
        port["name"]: port["containerPort"] for port in pod(rendering)["containers"][0]["ports"]
    }
    assert settings.listen == f"0.0.0.0:{ports['grpc']}"
    assert settings.metrics == f"0.0.0.0:{ports['metrics']}"
    assert settings.workers == values(rendering)["workers"]
    assert settings.memory_budget == values(rendering)["memoryBudgetMiB"] * 2**20
    assert settings.lame_duck == values(rendering)["stop"]["lameDuck"]
    assert settings.grace == values(rendering)["stop"]["grace"]
    assert settings.http == (f"0.0.0.0:{ports['http']}" if "http" in ports else None)
    assert (settings.tls_certificate is None) == ("listen" in settings.insecure)
    named = (
        settings.dataset,
        settings.region_sets,
        settings.overrides,
        settings.rollback_folder / "any" if settings.rollback_folder else None,
        settings.tls_certificate,
        settings.tls_client_ca,
    )
    mounted = {mount["mountPath"] for mount in pod(rendering)["containers"][0]["volumeMounts"]}
    assert {str(path.parent) for path in named if path} <= mounted


def test_overrides_of_the_values_are_those_that_the_service_reads() -> None:
    rendering = next(one for one in ALL if one.values and one.values.stem == "everything")
    content = the("Secret", rendering, "-overrides")["stringData"]["overrides.toml"]
    (entry,) = Overrides.parse(content.encode(), "overrides.toml").entries
    assert (entry.code, entry.comment) == ("DE", "our office")


@pytest.fixture(scope="module")
def metrics() -> Iterator[str]:
    """Where a service's metrics listener is."""
    with serving("--metrics", "127.0.0.1:0") as service:
        yield service.announced["metrics"][0].removeprefix("http://").removesuffix("/metrics")


@each_variant
def test_probes_ask_for_pages_that_the_metrics_listener_has(
    rendering: Rendering, metrics: str
) -> None:
    container = pod(rendering)["containers"][0]
    probes = [container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")]
    assert {probe["port"] for probe in probes} == {"metrics"}
    assert {status(metrics, probe["path"]) for probe in probes} == {200}
    assert status(metrics, "/nothing") == 404


def status(address: str, path: str) -> int:
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), PATIENCE) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
        return int(connection.recv(64).split()[1])


@each_variant
def test_memory_holds_three_datasets_and_all_requests(rendering: Rendering) -> None:
    given = values(rendering)
    resources = pod(rendering)["containers"][0]["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    if given["resources"]:
        assert resources == given["resources"]
        return
    memory = int(resources["limits"]["memory"].removesuffix("Mi"))
    processes = given["workers"] + 1  # with the standby
    # docs/reliability.md: 65 MB for the supervisor and 30 for each other process, and some more.
    needed = 3 * given["dataset"]["sizeMiB"] + 96 + 40 * processes + given["memoryBudgetMiB"]
    assert memory == needed


def test_dataset_s_default_size_is_that_of_the_embedded_one() -> None:
    embedded = ROOT / "geolookup/data/embedded.geolookup"
    assert embedded.stat().st_size <= values(BASE)["dataset"]["sizeMiB"] * 2**20


@each_variant
def test_stop_ends_within_the_grace_period(rendering: Rendering) -> None:
    stop = values(rendering)["stop"]
    grace = pod(rendering)["terminationGracePeriodSeconds"]
    # What hangs is killed 4 seconds after the grace (docs/reliability.md), and Kubernetes gives 30.
    assert stop["lameDuck"] + stop["grace"] + 4 < grace <= 30


@each_variant
def test_dataset_comes_from_where_the_values_say(rendering: Rendering) -> None:
    kind = values(rendering)["dataset"]["kind"]
    found = [one for one in pod(rendering)["volumes"] if one["name"] == "dataset"]
    assert [set(volume) - {"name"} for volume in found] == (
        [{FOLDERS[kind]}] if FOLDERS[kind] else []
    )
    commands = [
        container.get("command", [])[:1] for container in pod(rendering).get("initContainers", ())
    ]
    assert commands == ([["cp"]] if kind == "copy" else []), "a pod downloads"


@each_variant
def test_mounts_are_folders_that_the_kubelet_renews(rendering: Rendering) -> None:
    for mount in pod(rendering)["containers"][0]["volumeMounts"]:
        assert "subPath" not in mount


def test_rules_of_the_chart_are_those_of_the_project() -> None:
    own = (CHART / "files/geolookup.rules.yml").read_bytes()
    assert own == (ROOT / "deploy/prometheus/geolookup.rules.yml").read_bytes()
    assert the("PrometheusRule", MONITORING)["spec"] == yaml.safe_load(own)


def test_monitor_finds_the_service_s_metrics_port() -> None:
    service, monitor = the("Service", BASE), the("ServiceMonitor", MONITORING)
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= service["metadata"]["labels"].items()
    ports = {port["name"] for port in service["spec"]["ports"]}
    assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports
    # The alerts expect this job.
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "geolookup"


def mount(folder: Path, generation: int, certificate: trustme.LeafCert) -> None:
    """Write a Secret as the kubelet does: a new folder, and one rename of the link to it."""
    made = folder / f"..{generation}"
    made.mkdir(parents=True)
    (made / "tls.crt").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    (made / "tls.key").write_bytes(certificate.private_key_pem.bytes())
    (folder / "..data_tmp").symlink_to(made.name)
    (folder / "..data_tmp").replace(folder / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    if generation:
        shutil.rmtree(folder / f"..{generation - 1}")


def test_renewed_secret_is_taken_without_a_restart(tmp_path: Path) -> None:
    authority, folder = trustme.CA(), tmp_path / "tls"
    first, second = (authority.issue_cert("localhost") for _ in range(2))
    mount(folder, 0, first)
    files = ("--tls-certificate", str(folder / "tls.crt"), "--tls-key", str(folder / "tls.key"))
    with serving(*files, "--watch", "0.1") as service:
        host, port = service.target.rsplit(":", 1)
        presented = lambda: ssl.get_server_certificate((host, int(port)), timeout=PATIENCE)  # noqa: E731
        assert presented().split() == first.cert_chain_pems[0].bytes().decode().split()
        mount(folder, 1, second)
        new = second.cert_chain_pems[0].bytes().decode().split()
        end = time.monotonic() + PATIENCE
        while presented().split() != new:
            assert time.monotonic() < end, service.log()
            time.sleep(0.1)  # the service does not tell its clients
