"""A real API server with its etcd, for as long as it is needed, and what it says of objects."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Object = Mapping[str, Any]
_TOKEN = "of-this-test-alone"  # noqa: S105 - on loopback, for seconds
_START_SECONDS = 180


@dataclass(frozen=True)
class Verdict:
    """What the server said of an object.

    Attributes:
        problem: why it refused it; empty: it took it.
        warnings: what it warned of.
    """

    problem: str
    warnings: tuple[str, ...]


class ApiServer:
    """A client of the server.

    Args:
        url: of the server.
        kubeconfig: file by which others reach it.
    """

    def __init__(self, url: str, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._url = url
        # It makes its certificate itself, in a folder that is new.
        self._tls = ssl._create_unverified_context()  # noqa: S323
        self._plurals: dict[str, dict[str, tuple[str, bool]]] = {}

    def get(self, path: str) -> Any:
        """Return what is at *path*: JSON, or a text."""
        with self._open("GET", path) as answer:
            content = answer.read()
            kind = answer.headers.get_content_type()
        return json.loads(content) if kind == "application/json" else content.decode()

    def apply(self, manifest: Object, *, dry_run: bool = False) -> Verdict:
        """Apply an object on the server's side, with strict validation of its fields."""
        metadata = manifest["metadata"]
        path = self._path(manifest["apiVersion"], manifest["kind"], metadata.get("namespace"))
        query = "fieldManager=tests&fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
        path = f"{path}/{metadata['name']}?{query}"
        try:
            # JSON is YAML.
            with self._open("PATCH", path, manifest, "application/apply-patch+yaml") as answer:
                return Verdict("", tuple(answer.headers.get_all("Warning") or ()))
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            with contextlib.suppress(ValueError):
                text = json.loads(text)["message"]
            return Verdict(text, tuple(error.headers.get_all("Warning") or ()))

    def _path(self, version: str, kind: str, namespace: str | None) -> str:
        prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if kind not in self._plurals.get(prefix, {}):  # a definition may have come since
            self._plurals[prefix] = {
                one["kind"]: (one["name"], one["namespaced"])
                for one in self.get(prefix)["resources"]
                if "/" not in one["name"]
            }
        plural, namespaced = self._plurals[prefix][kind]
        return f"{prefix}/namespaces/{namespace}/{plural}" if namespaced else f"{prefix}/{plural}"

    def _open(self, method: str, path: str, body: Object | None = None, kind: str = "") -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {_TOKEN}"}
        headers |= {"Content-Type": kind} if kind else {}
        request = urllib.request.Request(self._url + path, data, headers, method=method)  # noqa: S310
        return urllib.request.urlopen(request, context=self._tls, timeout=30)  # noqa: S310


@contextlib.contextmanager
def running(tools: Path, folder: Path, *options: str) -> Iterator[ApiServer]:
    """Run etcd and kube-apiserver of *tools* on loopback, with their files in *folder*."""
    store, peer, port = _free_ports(3)
    stored_at = f"http://127.0.0.1:{store}"
    with _process(
        folder / "etcd.log",
        tools / "etcd",
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={stored_at}",
        f"--advertise-client-urls={stored_at}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-cluster=default=http://127.0.0.1:{peer}",
        "--unsafe-no-fsync",
    ):
        tokens, key = folder / "tokens.csv", folder / "key.pem"
        tokens.write_text(f"{_TOKEN},admin,admin,system:masters\n", encoding="utf-8")
        make_key = ("openssl", "genrsa", "-out", str(key), "2048")
        subprocess.run(make_key, check=True, capture_output=True)
        with _process(
            folder / "apiserver.log",
            tools / "kube-apiserver",
            f"--etcd-servers={stored_at}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--cert-dir={folder / 'certificates'}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://localhost",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-cluster-ip-range=10.96.0.0/24",
            *options,
        ) as process:
            url = f"https://127.0.0.1:{port}"
            server = ApiServer(url, _kubeconfig(folder / "kubeconfig", url))
            _await_ready(server, process, folder / "apiserver.log")
            yield server


def _await_ready(server: ApiServer, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while True:
        with contextlib.suppress(OSError):
            server.get("/readyz")
            return
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"no API server: {log.read_text(encoding='utf-8')[-2000:]}")
        time.sleep(0.5)  # it tells nobody that it is ready


def _kubeconfig(file: Path, url: str) -> Path:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "it", "cluster": {"server": url, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "it", "user": {"token": _TOKEN}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "current-context": "it",
    }
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


@contextlib.contextmanager
def _process(log: Path, *command: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=out)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_ports(count: int) -> list[int]:
    """Return ports that were free just now: neither program takes port 0."""
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [one.getsockname()[1] for one in sockets]


def version(server: ApiServer) -> str:
    """Return the server's version, such as ``v1.34.4``."""
    found = re.match(r"v\d+\.\d+\.\d+", server.get("/version")["gitVersion"])
    assert found
    return found[0]
