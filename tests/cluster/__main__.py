"""``python -m tests.cluster``: have a real API server judge the chart and the kustomize base.

Builds kube-apiserver 1.34, etcd, helm and kustomize from Go modules (some ten minutes of processor
time, once), starts the first two on loopback, and holds the server to accept

- what helm makes of each variant's values (tests/cluster/variants), applied on the server's side
  with strict validation, without a warning
- the pods of its Deployments and CronJobs, in a namespace that enforces the restricted level
- helm's own install, upgrade and uninstall of each variant
- the kustomize base, with monitoring and the example overlay

and to refuse a table of mistakes, so that to be accepted says something. No controllers run: no
pod is started. Exits with 1 if anything is otherwise, or if the committed manifests are not those
that helm makes; --write renders them anew.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from cluster import api_server  # noqa: E402
from cluster.render import ALL, BASE, CHART, KUSTOMIZE, MONITORING, ROOT, VARIANTS  # noqa: E402

KUBERNETES = "v1.34.4"
HELM = "helm.sh/helm/v4/cmd/helm@v4.3.2"
KUSTOMIZE_TOOL = "sigs.k8s.io/kustomize/kustomize/v5@v5.8.2"
OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
"""Its module has the definitions of ServiceMonitor and PrometheusRule."""
_VERSION = "k8s.io/component-base/version"
LEVEL = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}

Object = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tools", type=Path, default=ROOT / "build/cluster", metavar="FOLDER")
    parser.add_argument(
        "--write", action="store_true", help="render the committed manifests, and end"
    )
    given = parser.parse_args()
    tools: Path = given.tools.resolve()
    tools.mkdir(parents=True, exist_ok=True)
    build(tools)
    problems = list(stale(tools, write=given.write))
    if not given.write:
        gate = "--feature-gates=ImageVolume=true"  # on by itself from 1.35
        with (
            tempfile.TemporaryDirectory() as name,
            api_server.running(tools, Path(name), gate) as server,
        ):
            print(f"kube-apiserver {api_server.version(server)}")
            problems += judge(server, tools)
    for problem in problems:
        print(f"FAILED: {problem}")
    print(f"{len(problems)} failures")
    sys.exit(1 if problems else 0)


def build(tools: Path) -> None:
    """Put the programs into *tools* that are not there yet."""
    version = {"gitVersion": KUBERNETES, "gitMajor": "1", "gitMinor": KUBERNETES.split(".")[1]}
    stamp = " ".join(f"-X {_VERSION}.{name}={value}" for name, value in version.items())
    of_module = ("build", "-trimpath", f"-o={tools}/")
    commands = {
        # Without the stamp it takes itself for 0.0.0, and refuses to start.
        "kube-apiserver": (
            *of_module,
            f"-ldflags=-s -w {stamp}",
            "k8s.io/kubernetes/cmd/kube-apiserver",
        ),
        "etcd": (
            *of_module[:-1],
            f"-o={tools}/etcd",
            "-ldflags=-s -w",
            "go.etcd.io/etcd/server/v3",
        ),
        "helm": ("install", "-trimpath", "-ldflags=-s -w", HELM),
        "kustomize": ("install", "-trimpath", "-ldflags=-s -w", KUSTOMIZE_TOOL),
    }
    for name, command in commands.items():
        if not (tools / name).exists():
            print(f"building {name}", flush=True)
            go(*command, GOBIN=str(tools), GOFLAGS="-p=1")


def go(*command: str, **environment: str) -> str:
    done = subprocess.run(
        ["go", *command], cwd=HERE / "apiserver", env=os.environ | environment, check=False,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"go {' '.join(command)}: exit code {done.returncode}")
    return done.stdout


def stale(tools: Path, *, write: bool) -> Iterator[str]:
    """Yield the committed manifests that are not what helm makes; or make them so."""
    for rendering in ALL:
        made = rendering.render(tools / "helm")
        if write:
            rendering.file.parent.mkdir(parents=True, exist_ok=True)
            rendering.file.write_text(made, encoding="utf-8")
        elif rendering.file.read_text(encoding="utf-8") != made:
            yield f"{rendering.file.relative_to(ROOT)} is not what helm makes: --write"


def judge(server: api_server.ApiServer, tools: Path) -> Iterator[str]:
    """Yield what the server refuses and should accept, or the other way round."""
    for thing in definitions():
        yield from refused(server, thing, "set up")
    texts = {
        one.name: one.file.read_text(encoding="utf-8") for one in (BASE, MONITORING, *VARIANTS)
    }
    for overlay in ("base", "example"):
        built = run(tools / "kustomize", "build", KUSTOMIZE / overlay)
        texts[f"kustomize-{overlay}"] = built
    for name, text in texts.items():
        yield from accepted(server, manifests(text), name)
    yield from installed(server, tools)
    yield from mistakes(server)


def definitions() -> Iterator[Object]:
    folder = Path(json.loads(go("mod", "download", "-json", OPERATOR))["Dir"])
    for name in ("servicemonitors", "prometheusrules"):
        file = folder / f"example/prometheus-operator-crd/monitoring.coreos.com_{name}.yaml"
        yield yaml.safe_load(file.read_text(encoding="utf-8"))


def namespace(name: str) -> Iterator[Object]:
    """Yield a namespace, and what controllers would put into it."""
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": LEVEL}}
    yield {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": name},
    }


def accepted(server: api_server.ApiServer, objects: list[Object], name: str) -> Iterator[str]:
    """Yield what the server says against these objects and their pods, in a namespace of *name*."""
    for one in objects:
        one["metadata"]["namespace"] = name
    pods = [pod for one in objects for pod in pods_of(one)]
    for one in (*namespace(name), *objects, *pods):
        yield from refused(server, one, name)
    print(f"{name}: {len(objects)} objects and {len(pods)} pods", flush=True)


def refused(server: api_server.ApiServer, thing: Object, name: str) -> Iterator[str]:
    verdict = server.apply(thing)
    for text in (verdict.problem, *verdict.warnings):
        if text:
            yield f"{name}: {thing['kind']} {thing['metadata']['name']}: {text}"


def pods_of(thing: Object) -> Iterator[Object]:
    """Yield the pod that a controller would make of an object."""
    template = {
        "Deployment": lambda: thing["spec"]["template"],
        "CronJob": lambda: thing["spec"]["jobTemplate"]["spec"]["template"],
    }.get(thing["kind"], dict)()
    if template:
        metadata = thing["metadata"]
        own = {"name": f"{metadata['name']}-0", "namespace": metadata["namespace"]}
        pod = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(template)}
        pod["metadata"] |= own
        pod["metadata"]["labels"]["pod-template-hash"] = "1"
        yield pod


def installed(server: api_server.ApiServer, tools: Path) -> Iterator[str]:
    """Yield what helm says against installing the variants for real."""
    for name, values in (("default", None), *((one.name, one.values) for one in VARIANTS)):
        space = f"helm-{name}"
        for thing in namespace(space):
            yield from refused(server, thing, "set up")
        place_of = (f"--namespace={space}", f"--kubeconfig={server.kubeconfig}")
        given = [f"--values={values}"] if values else []
        for command in (
            ("install", "it", CHART, *given),
            ("upgrade", "it", CHART, *given, "--set=workers=3"),
            ("rollback", "it"),
            ("uninstall", "it"),
        ):
            done = subprocess.run(
                list(map(str, (tools / "helm", *command, *place_of))),
                check=False, capture_output=True, text=True,
            )  # fmt: skip
            # What is kept on purpose is told by "uninstall" alone.
            said = "" if command[0] == "uninstall" else done.stderr
            if done.returncode or "arning" in said:
                yield f"helm {command[0]} {name}: {done.stderr}"
        print(f"helm install, upgrade, rollback, uninstall: {name}", flush=True)


def mistakes(server: api_server.ApiServer) -> Iterator[str]:
    """Yield the mistakes that the server accepts."""
    objects = manifests(BASE.file.read_text(encoding="utf-8"))
    for one in objects:
        one["metadata"]["namespace"] = BASE.name
    for name, (kind, spoil) in MISTAKES.items():
        spoilt = copy.deepcopy(next(one for one in objects if one["kind"] == kind))
        spoil(spoilt)
        spoilt["metadata"]["name"] += "-spoilt"
        verdict = server.apply(spoilt, dry_run=True)
        if not verdict.problem and not verdict.warnings:
            yield f"a mistake is accepted: {name}"
    print(f"{len(MISTAKES)} mistakes", flush=True)


def _container(deployment: Object) -> Any:
    return deployment["spec"]["template"]["spec"]["containers"][0]


def _set(value: Any, *path: str | int) -> Callable[[Object], None]:
    def spoil(thing: Object) -> None:
        inner: Any = thing
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value

    return spoil


_POD = ("spec", "template", "spec")
_FIRST = (*_POD, "containers", 0)
MISTAKES: dict[str, tuple[str, Callable[[Object], None]]] = {
    "an unknown field": ("Deployment", _set(1, "spec", "replica")),
    "a selector that misses the pods": (
        "Deployment",
        _set("other", "spec", "selector", "matchLabels", "app.kubernetes.io/name"),
    ),
    "a mount without its volume": ("Deployment", _set([], *_POD, "volumes")),
    "two probes in one": (
        "Deployment",
        _set({"port": 50051}, *_FIRST, "livenessProbe", "grpc"),
    ),
    "a port's name that is too long": (
        "Deployment",
        _set("geolookup-metrics", *_FIRST, "ports", 0, "name"),
    ),
    "a request above its limit": (
        "Deployment",
        _set("1Mi", *_FIRST, "resources", "limits", "memory"),
    ),
    "no surge and nothing unavailable": (
        "Deployment",
        _set(0, "spec", "strategy", "rollingUpdate", "maxSurge"),
    ),
    "a root user": ("Deployment", _set(0, *_POD, "securityContext", "runAsUser")),
    "a privileged container": (
        "Deployment",
        _set(True, *_FIRST, "securityContext", "privileged"),
    ),
    "a sleep longer than the grace period": (
        "Deployment",
        _set({"preStop": {"sleep": {"seconds": 3600}}}, *_FIRST, "lifecycle"),
    ),
    "two ways to say how many may be missing": (
        "PodDisruptionBudget",
        _set(1, "spec", "minAvailable"),
    ),
    "a service port twice": ("Service", _set("grpc", "spec", "ports", 1, "name")),
    "a port of a network policy that is none": (
        "NetworkPolicy",
        _set(70000, "spec", "ingress", 0, "ports", 0, "port"),
    ),
}


def manifests(text: str) -> list[Object]:
    return [one for one in yaml.safe_load_all(text) if one]


def run(*command: str | Path) -> str:
    return subprocess.run(
        list(map(str, command)), check=True, capture_output=True, text=True
    ).stdout


if __name__ == "__main__":
    main()
