#!/usr/bin/env bash
# PostgreSQL 15.18 (Debian 12: postgresql-15), 2026-11-30. Needs /usr/lib/postgresql/15 and no server: it
# runs one of its own in a temporary folder, as the user nobody where root calls it.
#
# One would guess: an index changes how long a query takes, and not what it finds.
# It is so: with an SP-GiST index (inet_ops) of 208 prefixes that cut the whole space, of both
# families, "prefix >>= address" leaves out IPv6 prefixes. With a GiST index and without one all are
# found. Fewer prefixes, or those of IPv6 alone, show nothing.
#
# Seen:
#   none 1
#   gist 1
#   spgist 0
#
# Exits non-zero if one of these differs.
set -euo pipefail
folder=$(mktemp -d)
programs=/usr/lib/postgresql/15/bin
as_user() { "$@"; }
if [ "$(id -u)" = 0 ]; then
  chown nobody "$folder"
  as_user() { setpriv --reuid nobody --clear-groups "$@"; }
fi
finish() {
  as_user "$programs/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null || true
  rm -rf "$folder"
}
trap finish EXIT
cd "$folder"
as_user "$programs/initdb" -D "$folder/data" -A trust -U postgres --no-sync >/dev/null
as_user "$programs/pg_ctl" -D "$folder/data" -w -l "$folder/log" \
  -o "-c listen_addresses='' -k $folder" start >/dev/null
python3 - <<'PYTHON' >prefixes
import ipaddress

for whole, *holes in (("0.0.0.0/0", "10.1.0.0/16"), ("::/0", "::1/128", "2001:300::/65")):
    pieces = [ipaddress.ip_network(whole)]
    for hole in map(ipaddress.ip_network, holes):
        at = next(piece for piece in pieces if hole.subnet_of(piece))
        pieces.remove(at)
        pieces += [*at.address_exclude(hole), hole]
    print(*sorted(pieces), sep="\n")
PYTHON
chmod 755 . && chmod 644 prefixes
for index in none gist spgist; do
  create=""
  [ "$index" = none ] || create="CREATE INDEX ON p USING $index (prefix inet_ops); SET enable_seqscan = off;"
  psql -h "$folder" -U postgres -XqAt <<SQL
DROP TABLE IF EXISTS p;
CREATE TABLE p (prefix cidr);
\\copy p FROM 'prefixes'
$create
SELECT '$index', count(*) FROM p WHERE prefix >>= '::1';
SQL
done 2>/dev/null | tr '|' ' ' | tee found
cat >expected <<'EXPECTED'
none 1
gist 1
spgist 0
EXPECTED
diff expected found || { echo "changed" >&2; exit 1; }
