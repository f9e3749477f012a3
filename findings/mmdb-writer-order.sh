#!/usr/bin/env bash
# mmdb-writer 0.2.7, maxminddb 3.2.0 (PyPI), 2026-11-29
#
# One would guess: the file answers by the longest prefix that was inserted, whatever the order,
# as a routing table does; MMDB is a tree of prefixes.
# It is so: an insertion replaces all that was inserted below it. A /24 that comes before its /8 is
# gone from the file without an error. Only prefixes in order of their lengths give the guess.
#
# Seen:
#   /24, then /8: 192.0.2.1 US
#   /8, then /24: 192.0.2.1 CA
#
# Exits non-zero if one of these differs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet mmdb-writer==0.2.7 maxminddb==3.2.0
venv/bin/python - <<'PYTHON' | tee found
import maxminddb
from mmdb_writer import MMDBWriter
from netaddr import IPSet

LONG, SHORT = ("192.0.2.0/24", "CA"), ("192.0.0.0/8", "US")
for name, insertions in (("/24, then /8", (LONG, SHORT)), ("/8, then /24", (SHORT, LONG))):
    writer = MMDBWriter(ip_version=4)
    for prefix, country in insertions:
        writer.insert_network(IPSet([prefix]), {"country_code": country})
    writer.to_db_file("country.mmdb")
    with maxminddb.open_database("country.mmdb") as reader:
        print(f"{name}: 192.0.2.1", reader.get("192.0.2.1")["country_code"])
PYTHON
cat > expected <<'EXPECTED'
/24, then /8: 192.0.2.1 US
/8, then /24: 192.0.2.1 CA
EXPECTED
diff expected found || { echo "changed" >&2; exit 1; }
