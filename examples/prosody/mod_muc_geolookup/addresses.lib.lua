-- The address of a session, from the text that Prosody has of it.

local pton = require "util.net".pton;

--- Returns an address in the form that geolookup takes, or nil.
-- A proxy's header may carry a port or brackets. Whatever is no address stays here: "unknown", a
-- name, an address with a zone.
local function bare(text)
	if type(text) ~= "string" then return nil; end
	local address = text:match("^%[([%x:.]+)%]$") or text:match("^%[([%x:.]+)%]:%d+$");
	if address and not address:find(":", 1, true) then return nil; end
	address = address or text:match("^([%d.]+):%d+$") or text;
	return pton(address) and address or nil;
end

return { bare = bare };
