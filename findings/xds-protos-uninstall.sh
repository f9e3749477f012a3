#!/usr/bin/env bash
# xds-protos 1.85.0, googleapis-common-protos 1.76.0, opentelemetry-proto 1.45.2 (PyPI), 2026-11-29
#
# One would guess: an installed package brings its own modules or depends on those of others, and
# pip objects to two packages that own one file.
# It is so: xds-protos (Envoy's messages for Python) carries its own copies of modules of
# googleapis-common-protos (google/rpc, google/api, ...) and of opentelemetry-proto. pip puts them
# over what is there and says nothing. Uninstalling xds-protos takes them away: gRPC's rich
# errors (google.rpc.status_pb2) and OpenTelemetry's exporters can't be imported any more, while
# both packages are listed as installed and "pip check" finds nothing wrong.
#
# Seen:
#   googleapis-common-protos: 59 of 68 modules are in xds-protos, too
#   opentelemetry-proto: 22 of 29 modules are in xds-protos, too
#   No broken requirements found.
#   after xds-protos was uninstalled:
#   No broken requirements found.
#   ModuleNotFoundError: No module named 'google.rpc.status_pb2'
#   ModuleNotFoundError: No module named 'opentelemetry.proto.trace.v1.trace_pb2'
#
# Exits non-zero if one of these differs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet googleapis-common-protos==1.76.0 opentelemetry-proto==1.45.2
venv/bin/pip install --quiet xds-protos==1.85.0
{
  venv/bin/python - <<'PYTHON'
from importlib.metadata import files


def modules(package):
    return {str(path) for path in files(package) if path.suffix == ".py"}


for package in ("googleapis-common-protos", "opentelemetry-proto"):
    own = modules(package)
    shared = own & modules("xds-protos")
    print(f"{package}: {len(shared)} of {len(own)} modules are in xds-protos, too")
PYTHON
  venv/bin/pip check
  venv/bin/pip uninstall --quiet --yes xds-protos
  echo "after xds-protos was uninstalled:"
  venv/bin/pip check
  for module in google.rpc.status_pb2 opentelemetry.proto.trace.v1.trace_pb2; do
    { venv/bin/python -c "import $module" 2>&1 || true; } | tail -n 1
  done
} | tee found
cat > expected <<'EXPECTED'
googleapis-common-protos: 59 of 68 modules are in xds-protos, too
opentelemetry-proto: 22 of 29 modules are in xds-protos, too
No broken requirements found.
after xds-protos was uninstalled:
No broken requirements found.
ModuleNotFoundError: No module named 'google.rpc.status_pb2'
ModuleNotFoundError: No module named 'opentelemetry.proto.trace.v1.trace_pb2'
EXPECTED
diff expected found || { echo "changed" >&2; exit 1; }
