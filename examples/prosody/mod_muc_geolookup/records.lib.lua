-- Decision records: counts of what was decided, as `geolookup audit` reads them.

local hashes = require "util.hashes";
local json = require "util.json";

local ALWAYS = { -- protobuf's JSON leaves out what is zero; a record has every key
	size = 0; inside = 0; outside = 0; undetermined = 0; addresses = 0;
	region_set_version = ""; statuses = {}; reasons = {};
};

--- Returns a record with the reference of its demand, as a line of JSON.
-- The text is that of RFC 8785, whose SHA-256 is the record's digest.
-- @param message the DecisionRecord that geolookup answered, in protobuf's JSON.
local function line(message, reference)
	local record = { reference = reference };
	for key, value in pairs(ALWAYS) do record[key] = value; end
	for key, value in pairs(message) do
		if key ~= "digest" then
			record[key:gsub("%u", function (letter) return "_" .. letter:lower(); end)] = value;
		end
	end
	record.digest = hashes.sha256(json.encode_ordered(record), true);
	return json.encode_ordered(record) .. "\n";
end

--- Adds a record to a file.
-- @return true; or nil and what is wrong.
local function append(path, message, reference)
	local file, problem = io.open(path, "ab");
	if not file then return nil, problem; end
	file:setvbuf("full");
	local written, wrong = file:write(line(message, reference));
	local closed, late = file:close();
	return written and closed, wrong or late;
end

return { append = append };
