#!/usr/bin/env bash
# Prosody 0.12.3 (Debian 12: prosody 0.12.3-1+deb12u1, unpacked and not installed), 2026-11-30
#
# One would guess: an option that is set twice is a warning, wherever the file lies; the later value
# counts.
# It is so: in a file whose name is longer than 60 characters it is an error about format(), which
# names neither option nor line, and Prosody does not start. Lua shortens the name in what
# Prosody reads the line number from.
#
# Seen:
#   a short name: loaded
#   a long name: bad argument #2 to 'format' (number expected, got nil)
#
# Exits non-zero if one of these differs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get -qq download prosody=0.12.3-1+deb12u1 lua5.4 liblua5.4-0 lua-bitop lua-expat \
  lua-filesystem lua-sec lua-socket libicu72 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" root; done
libraries=$(echo "$folder"/root/usr/lib/*-linux-gnu)
export LD_LIBRARY_PATH=$libraries
export LUA_PATH="$folder/root/usr/lib/prosody/?.lua;$folder/root/usr/share/lua/5.4/?.lua"
export LUA_CPATH="$folder/root/usr/lib/prosody/?.so;$libraries/lua/5.4/?.so"
long=a-folder-whose-name-is-not-unusual-for-a-build-or-for-a-test/another
mkdir -p "$long"
printf 'admins = {}\nadmins = {}\n' | tee prosody.cfg.lua > "$long/prosody.cfg.lua"
for file in prosody.cfg.lua "$long/prosody.cfg.lua"; do
  root/usr/bin/lua5.4 - "$file" <<'LUA'
package.loaded["util.startup"] = {};
prosody = { paths = { config = "." } };
local loaded, _, problem = require "core.configmanager".load(arg[1]);
print((#arg[1] > 60 and "a long name: " or "a short name: ")
	.. (loaded and "loaded" or problem:match("bad argument.*")));
LUA
done | tee found
cat > expected <<'EXPECTED'
a short name: loaded
a long name: bad argument #2 to 'format' (number expected, got nil)
EXPECTED
diff expected found || { echo "changed" >&2; exit 1; }
