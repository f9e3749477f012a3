#!/usr/bin/env bash
# maxminddb-golang 1.13.1 and 2.9.0 (Go modules), maxminddb 3.2.0 (PyPI),
# @ip-location-db/geo-whois-asn-country-mmdb 2.3.2026061719 (npm), 2026-11-29
#
# One would guess: a reader of MMDB files answers ::ffff:8.8.8.8 as it answers 8.8.8.8, or none
# does; at least a new major version of one reader answers as the old one did.
# It is so: the file format has no rule for IPv4-mapped addresses. A file may hold an alias for
# them; this published one holds none. Version 1 of the Go reader looks up the IPv4 address
# inside, so it finds a country all the same. Version 2 and the reader for Python look up the IPv6
# address and find nothing, without an error. A dual-stack socket names its IPv4 peers in just
# this form: a program that moves from version 1 to 2 loses the country of all of them.
#
# Seen:
#   Go v1 8.8.8.8: "US"
#   Go v2 8.8.8.8: "US"
#   Go v1 ::ffff:8.8.8.8: "US"
#   Go v2 ::ffff:8.8.8.8: ""
#   Python 8.8.8.8: "US"
#   Python ::ffff:8.8.8.8: ""
#
# Exits non-zero if one of these differs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export GOPATH="$folder/go" GOCACHE="$folder/cache" GOFLAGS=-modcacherw
python3 -m venv venv
venv/bin/pip install --quiet maxminddb==3.2.0
npm install --silent --prefix "$folder" @ip-location-db/geo-whois-asn-country-mmdb@2.3.2026061719
file=node_modules/@ip-location-db/geo-whois-asn-country-mmdb/geo-whois-asn-country.mmdb
cat > main.go <<'GO'
package main

import (
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"

	v1 "github.com/oschwald/maxminddb-golang"
	v2 "github.com/oschwald/maxminddb-golang/v2"
)

type record struct {
	Country string `maxminddb:"country_code"`
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	old, err := v1.Open(os.Args[1])
	check(err)
	current, err := v2.Open(os.Args[1])
	check(err)
	for _, address := range os.Args[2:] {
		var first, second record
		check(old.Lookup(net.ParseIP(address), &first))
		check(current.Lookup(netip.MustParseAddr(address)).Decode(&second))
		fmt.Printf("Go v1 %s: %q\n", address, first.Country)
		fmt.Printf("Go v2 %s: %q\n", address, second.Country)
	}
}
GO
go mod init example > go.log 2>&1
go get github.com/oschwald/maxminddb-golang@v1.13.1 \
  github.com/oschwald/maxminddb-golang/v2@v2.9.0 >> go.log 2>&1 || { cat go.log; exit 1; }
go run . "$file" 8.8.8.8 ::ffff:8.8.8.8 | tee found
venv/bin/python - "$file" 8.8.8.8 ::ffff:8.8.8.8 <<'PYTHON' | tee -a found
import sys

import maxminddb

with maxminddb.open_database(sys.argv[1]) as reader:
    for address in sys.argv[2:]:
        country = (reader.get(address) or {}).get("country_code", "")
        print(f'Python {address}: "{country}"')
PYTHON
cat > expected <<'EXPECTED'
Go v1 8.8.8.8: "US"
Go v2 8.8.8.8: "US"
Go v1 ::ffff:8.8.8.8: "US"
Go v2 ::ffff:8.8.8.8: ""
Python 8.8.8.8: "US"
Python ::ffff:8.8.8.8: ""
EXPECTED
diff expected found || { echo "changed" >&2; exit 1; }
