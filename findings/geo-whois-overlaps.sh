#!/usr/bin/env bash
# @ip-location-db/geo-whois-asn-country and @ip-location-db/geo-whois-asn-country-mmdb
# 2.3.2026061719 (npm), maxminddb 3.2.0 (PyPI), 2026-11-29
#
# One would guess: the rows of a geolocation file, first address to last address inclusive, do not
# overlap (the package's page describes a merge that leaves none), or the more specific row holds.
# It is so: thousands of rows begin inside an earlier one and mostly name another country. A join
# on "first <= address <= last" gives two rows there. The same project's MMDB of the same version
# has one answer, in nearly all cases that of the row that begins last, even where that row is the
# larger one. So the last address of a row is often not where it ends.
#
# Seen:
#   334373 rows, 6825 begin inside an earlier one, 5332 of these with another country
#   the MMDB has the later row's country for 5323 of them
#   CSV 17.87.151.1: 17.87.144.0 to 17.87.151.255 CN
#   CSV 17.87.151.1: 17.87.151.0 to 17.87.167.255 JP
#   MMDB 17.87.151.1: JP
#
# Exits non-zero if one of these differs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet maxminddb==3.2.0
npm install --silent --prefix "$folder" \
  @ip-location-db/geo-whois-asn-country@2.3.2026061719 \
  @ip-location-db/geo-whois-asn-country-mmdb@2.3.2026061719
venv/bin/python - <<'PYTHON' | tee found
import csv
from ipaddress import IPv4Address
from pathlib import Path

import maxminddb

packages = Path("node_modules/@ip-location-db")
with (packages / "geo-whois-asn-country/geo-whois-asn-country-ipv4.csv").open() as file:
    rows = [(int(IPv4Address(a)), int(IPv4Address(b)), code) for a, b, code in csv.reader(file)]
rows.sort(key=lambda row: (row[0], -row[1]))
pairs = []  # an earlier row, and one that begins in it
around = []  # the rows that hold the current one's first address
for row in rows:
    around = [earlier for earlier in around if earlier[1] >= row[0]]
    if around:
        pairs.append((around[-1], row))
    around.append(row)
others = [(earlier, later) for earlier, later in pairs if earlier[2] != later[2]]
print(
    f"{len(rows)} rows, {len(pairs)} begin inside an earlier one,",
    f"{len(others)} of these with another country",
)

file = packages / "geo-whois-asn-country-mmdb/geo-whois-asn-country.mmdb"
with maxminddb.open_database(file) as reader:
    later_wins = sum(
        reader.get(IPv4Address(first))["country_code"] == code for _, (first, _, code) in others
    )
    print(f"the MMDB has the later row's country for {later_wins} of them")
    for first, last, code in rows:
        if first <= int(IPv4Address("17.87.151.1")) <= last:
            print(f"CSV 17.87.151.1: {IPv4Address(first)} to {IPv4Address(last)} {code}")
    print("MMDB 17.87.151.1:", reader.get("17.87.151.1")["country_code"])
PYTHON
cat > expected <<'EXPECTED'
334373 rows, 6825 begin inside an earlier one, 5332 of these with another country
the MMDB has the later row's country for 5323 of them
CSV 17.87.151.1: 17.87.144.0 to 17.87.151.255 CN
CSV 17.87.151.1: 17.87.151.0 to 17.87.167.255 JP
MMDB 17.87.151.1: JP
EXPECTED
diff expected found || { echo "changed" >&2; exit 1; }
