#!/usr/bin/env bash
# Prosody 0.12.3 (Debian 12: prosody 0.12.3-1+deb12u1, unpacked and not installed), 2026-11-30
#
# One would guess: a module that refuses somebody in muc-occupant-pre-join leaves nothing behind; one
# that waits there (util.async) delays this join and changes nothing else; live_rooms() has every
# room that somebody is in.
# It is so: at muc-occupant-pre-join a new room is there already, and who comes next does not own it.
# What the chat read before a wait is used after it, so two people end under one nickname. A room
# that muc_room_cache_size (100 by default) puts on disk is not in live_rooms(), people and all.
#
# Seen:
#   refused in muc-occupant-pre-join, the next comer: affiliation none
#   waiting in muc-occupant-pre-join, two joins as one nickname: 2 in the room
#   three rooms with somebody in them, muc_room_cache_size = 1: live_rooms() has 1
#
# Exits non-zero if one of these differs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get -qq download prosody=0.12.3-1+deb12u1 lua5.4 liblua5.4-0 lua-bitop lua-expat \
  lua-filesystem lua-sec lua-socket libicu72 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" root; done
mkdir data certs modules
libraries=$(echo "$folder"/root/usr/lib/*-linux-gnu)
export LD_LIBRARY_PATH=$libraries
export LUA_PATH="$folder/root/usr/lib/prosody/?.lua;$folder/root/usr/share/lua/5.4/?.lua"
export LUA_CPATH="$folder/root/usr/lib/prosody/?.so;$libraries/lua/5.4/?.so"
sed "s#'/usr/lib/prosody#'$folder/root/usr/lib/prosody#" root/usr/bin/prosody > prosody
cat > modules/mod_hooks.lua <<'LUA'
local async, st = require "util.async", require "util.stanza";
local rooms = module:depends "muc";
module:hook("muc-occupant-pre-join", function (event)
	local nick = event.stanza.attr.to:match("/(.*)");
	if nick == "refused" then
		event.origin.send(st.error_reply(event.stanza, "cancel", "not-allowed"));
		return true;
	elseif nick == "same" then
		async.sleep(0.5);
	elseif nick == "counting" then
		local count = 0;
		for _ in rooms.live_rooms() do count = count + 1; end
		event.origin.send(st.message({ from = event.stanza.attr.to }, "live " .. count));
	end
end, 10);
LUA
cat > prosody.cfg.lua <<LUA
daemonize = false
run_as_root = true
pidfile = "$folder/prosody.pid"
data_path = "$folder/data"
log = { { levels = { min = "info" }; to = "console" } }
plugin_paths = { "$folder/modules"; "$folder/root/usr/lib/prosody/modules" }
modules_enabled = { "disco"; "saslauth" }
modules_disabled = { "s2s"; "s2s_auth_certs"; "tls" }
c2s_ports = { 0 }
c2s_interfaces = { "127.0.0.1" }
c2s_require_encryption = false
VirtualHost "example.org"
	authentication = "anonymous"
Component "rooms.example.org" "muc"
	modules_enabled = { "hooks" }
	muc_room_locking = false
Component "small.example.org" "muc"
	modules_enabled = { "hooks" }
	muc_room_locking = false
	muc_room_cache_size = 1
LUA
python3 - <<'PYTHON' | tee found
import os
import re
import socket
import subprocess
from pathlib import Path

CLIENT, SASL = "jabber:client", "urn:ietf:params:xml:ns:xmpp-sasl"
OPEN = (
    f"<stream:stream xmlns='{CLIENT}' xmlns:stream='http://etherx.jabber.org/streams'"
    " to='example.org' version='1.0'>"
)
BIND = "<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"
command = ["root/usr/bin/lua5.4", "prosody", "--config", "prosody.cfg.lua", "-F"]
prosody = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def listening_port():
    """Return the port of the socket on which it listens, once it does."""
    for line in prosody.stdout:
        if "Activated service 'c2s'" in line:
            break
    links = [os.readlink(path) for path in Path(f"/proc/{prosody.pid}/fd").iterdir()]
    for line in Path(f"/proc/{prosody.pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in links:
            return int(fields[1].partition(":")[2], 16)


class Client:
    def __init__(self, port):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._received = ""
        self.ask(OPEN, "</stream:features>")
        self.ask(f"<auth xmlns='{SASL}' mechanism='ANONYMOUS'/>", "<success")
        self.ask(OPEN, "</stream:features>")
        self.ask(BIND, "</iq>")

    def ask(self, text, end):
        """Send something, and return what comes back up to what *end* matches."""
        self._socket.sendall(text.encode())
        while not (found := re.search(end, self._received)):
            self._received += self._socket.recv(65536).decode()
        answer, self._received = self._received[: found.end()], self._received[found.end() :]
        return answer

    def send_join(self, room, nick):
        x = "<x xmlns='http://jabber.org/protocol/muc'/>"
        self._socket.sendall(f"<presence to='{room}/{nick}'>{x}</presence>".encode())

    def outcome(self):
        """Return the presence that says what came of a join, and what came before it."""
        return self.ask("", r"<status code='110'/>.*?</presence>|<presence[^>]*type='error'.*?</presence>")


try:
    port = listening_port()
    first, second = Client(port), Client(port)

    first.send_join("one@rooms.example.org", "refused")
    assert "not-allowed" in first.outcome()
    second.send_join("one@rooms.example.org", "next")
    (affiliation,) = re.findall(r"affiliation='(\w+)'", second.outcome())
    print("refused in muc-occupant-pre-join, the next comer: affiliation", affiliation)

    first.send_join("two@rooms.example.org", "owner")
    first.outcome()
    third = Client(port)
    second.send_join("two@rooms.example.org", "same")
    third.send_join("two@rooms.example.org", "same")
    joined = ["type='error'" not in client.outcome() for client in (second, third)]
    print("waiting in muc-occupant-pre-join, two joins as one nickname:", sum(joined), "in the room")

    for room in ("a", "b", "c"):
        first.send_join(f"{room}@small.example.org", "somebody")
        first.outcome()
    third.send_join("c@small.example.org", "counting")
    count = re.search(r"live (\d+)", third.ask("", r"live \d+"))[1]
    print("three rooms with somebody in them, muc_room_cache_size = 1: live_rooms() has", count)
finally:
    prosody.terminate()
    prosody.wait()
PYTHON
cat > expected <<'EXPECTED'
refused in muc-occupant-pre-join, the next comer: affiliation none
waiting in muc-occupant-pre-join, two joins as one nickname: 2 in the room
three rooms with somebody in them, muc_room_cache_size = 1: live_rooms() has 1
EXPECTED
diff expected found || { echo "changed" >&2; exit 1; }
