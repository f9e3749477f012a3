#!/usr/bin/env bash
# Debian 12: geoip-database 20230203+really20191224-0+deb12u1, geoip-bin and libgeoip1 1.6.12-10,
# 2026-11-29
#
# One would guess: the build date that geoiplookup -v shows is the date of the data.
# It is so: it is the date when Debian made the package. The data are those of 24 December 2019
# (Debian went back to the last edition under the older licence), and the file calls itself a build
# of 4 July 2026. A check of the data's age that reads this date is wrong by six and a half years.
#
# Seen:
#   version: 20230203+really20191224-0+deb12u1
#   changelog: Revert to the last version before the license change.
#   GeoIP.dat: GeoIP Country Edition: GEO-106FREE 20260704 Build
#
# Exits non-zero if one of these differs, or where the package is not to be had.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
version=20230203+really20191224-0+deb12u1
apt-get download -qq -o APT::Sandbox::User=root \
  "geoip-database=$version" geoip-bin=1.6.12-10 libgeoip1=1.6.12-10
for package in *.deb; do
  dpkg --extract "$package" root
done
{
  echo "version: $(dpkg-deb --field geoip-database_*.deb Version)"
  zcat root/usr/share/doc/geoip-database/changelog.Debian.gz |
    sed -n 's/^  \* Revert to the last/changelog: Revert to the last/p'
  LD_LIBRARY_PATH=$(dirname root/usr/lib/*/libGeoIP.so.1) root/usr/bin/geoiplookup \
    -f root/usr/share/GeoIP/GeoIP.dat -v 192.0.2.1 | sed -n 's/.*Build$/GeoIP.dat: &/p'
} | tee found
cat > expected <<'EXPECTED'
version: 20230203+really20191224-0+deb12u1
changelog: Revert to the last version before the license change.
GeoIP.dat: GeoIP Country Edition: GEO-106FREE 20260704 Build
EXPECTED
diff expected found || { echo "changed" >&2; exit 1; }
