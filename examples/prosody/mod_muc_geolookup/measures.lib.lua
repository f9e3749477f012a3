-- Measures, read from the file that examples/enforcement/measures.py reads, too.

local datetime = require "util.datetime";
local json = require "util.json";

--- Returns a time of the form 2026-11-24T09:30:00Z in seconds, or nil.
local function seconds(text)
	local time = datetime.parse(text);
	return time and datetime.datetime(time) == text and time or nil;
end

local function one_of(...)
	local values = {};
	for _, value in ipairs { ... } do values[value] = true; end
	return function (text) return values[text]; end;
end

local VALID = { -- what each key's text must be
	reference = function (text) return #text > 0 and utf8.len(text) and utf8.len(text) <= 256 and not text:find("%c"); end;
	region_set = function (text) return text:find("^[A-Z0-9_/+-]+$"); end;
	mode = one_of("deny_inside", "admit_inside");
	start = seconds;
	expiry = seconds;
	policy = one_of("UNANIMOUS", "MAJORITY", "PRIMARY");
	when_unavailable = one_of("admit", "refuse");
};
local NEEDED = { "reference", "region_set", "mode", "start", "expiry" };

local function measure(values)
	if type(values) ~= "table" then error("expected an object", 0); end
	for key in pairs(values) do
		if not VALID[key] then error(("%s: not known"):format(key), 0); end
	end
	for _, key in ipairs(NEEDED) do
		if values[key] == nil then error(key .. ": missing", 0); end
	end
	for key, value in pairs(values) do
		if type(value) ~= "string" or not VALID[key](value) then error(key .. ": not valid", 0); end
	end
	local start, expiry = seconds(values.start), seconds(values.expiry);
	if start >= expiry then error("expiry: not after start", 0); end
	local denies = values.mode == "deny_inside";
	local policy = values.policy or "UNANIMOUS";
	return {
		reference = values.reference;
		region_set = values.region_set;
		policy = "POLICY_" .. policy;
		-- Measures with the same question share its answers.
		question = policy .. " " .. values.region_set;
		start = start;
		expiry = expiry;
		-- Where one place is barred, the many go on while geolookup is down. Where only some places
		-- are allowed, no one new comes in meanwhile.
		admits_unchecked = (values.when_unavailable or denies and "admit" or "refuse") == "admit";
		--- Says whether somebody present has to leave.
		reaches = function (verdict)
			return verdict == (denies and "VERDICT_INSIDE" or "VERDICT_OUTSIDE");
		end;
		--- Says whether somebody who joins is refused.
		refuses = function (verdict)
			return (verdict == "VERDICT_INSIDE") == denies;
		end;
		is_in_force = function (now) return start <= now and now < expiry; end;
		is_over = function (now) return now >= expiry; end;
	};
end

--- Reads a file of measures.
-- @return a list; or nil and what is wrong, and where.
local function read(path)
	local file, problem = io.open(path, "rb");
	if not file then return nil, problem; end
	local content = file:read("*a");
	file:close();
	local values = content and json.decode(content);
	local listed = type(values) == "table" and values.measures;
	-- What is read from an array has a metatable, and an object has none.
	if type(listed) ~= "table" or not getmetatable(listed) or next(values, next(values)) then
		return nil, path .. ": expected {\"measures\": [...]}";
	end
	local measures = {};
	for position, each in ipairs(listed) do
		local ok, result = pcall(measure, each);
		if not ok then return nil, ("%s: measure %d: %s"):format(path, position, result); end
		measures[position] = result;
	end
	return measures;
end

return { read = read };
