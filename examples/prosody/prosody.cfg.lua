-- A server for anonymous guests, as Jitsi Meet has it, whose rooms are held to measures.
-- `prosodyctl check config` knows what is missing on your machine, such as certificates.

plugin_paths = { "/opt/geolookup/examples/prosody" } -- the folder that mod_muc_geolookup is in

modules_enabled = {
	"bosh"; -- or "websocket": clients in browsers
	"disco";
	"saslauth";
	"smacks"; -- streams that are resumed, perhaps from another address
	"tls";
}

-- Whose X-Forwarded-For counts. Without it everybody has the proxy's address.
trusted_proxies = { "127.0.0.1"; "::1" }

VirtualHost "meet.example.org"
	authentication = "anonymous"

Component "conference.meet.example.org" "muc"
	modules_enabled = { "muc_geolookup" } -- so on each component that people meet on
	restrict_room_creation = false
	muc_room_locking = false -- a room is open from its first moment, as in Jitsi Meet
	muc_room_default_public_jids = false

	geolookup_url = "http://127.0.0.1:8080" -- geolookup's HTTP listener
	geolookup_timeout = 2 -- seconds that somebody who joins waits at most
	geolookup_interval = 10 -- seconds between two looks at the dataset and the measures' times
	geolookup_measures = "measures.json" -- beside this file; read again on `prosodyctl reload`
	geolookup_records = "geolookup-records.jsonl" -- in Prosody's folder of data
	geolookup_exempt = { "focus@auth.meet.example.org"; "recorder.meet.example.org" }
