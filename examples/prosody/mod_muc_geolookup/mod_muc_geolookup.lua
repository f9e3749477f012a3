-- Holds the rooms of a multi-user chat component to measures: who is in a place may not take part,
-- and no one else notices. See README.md beside this folder.
--
-- What is where: measures.lib.lua reads measures, service.lib.lua calls geolookup, and the rest
-- reads and writes what travels. This file has the events.
--
-- A person is a session here: one connection with one address. A handler of Prosody may wait for
-- an answer while other connections go on, and what it read before is then old. So the wait comes
-- before the chat reads anything of the room (`on_presence`); the decision comes in events where
-- nothing waits (`on_join`); and a review looks again at who it is about to remove.

local array = require "util.array";
local async = require "util.async";
local base64 = require "util.encodings".base64;
local jid = require "util.jid";
local st = require "util.stanza";

local addresses = module:require "addresses";
local measures_file = module:require "measures";
local records = module:require "records";
local roaring = module:require "roaring";
local service = module:require "service";
local rooms = module:depends "muc";

local url = module:get_option_string("geolookup_url", "http://127.0.0.1:8080"):gsub("/$", "");
local limit = module:get_option_number("geolookup_timeout", 2);
local interval = module:get_option_number("geolookup_interval", 10);
local measures_path = module:get_option_path("geolookup_measures", "measures.json", "config");
local records_path = module:get_option_path("geolookup_records", "geolookup-records.jsonl", "data");
local exempt = module:get_option_set("geolookup_exempt", {});

local UNDETERMINED = "VERDICT_UNDETERMINED";
local VERDICTS = { VERDICT_INSIDE = true; VERDICT_OUTSIDE = true; [UNDETERMINED] = true };

local call = service.connect(url, limit);
local measures = {};
local dataset; -- id of the one that answered last
local known = setmetatable({}, { __mode = "k" }); -- what is known of each session
local recorded = setmetatable({}, { __mode = "k" }); -- cases that have a record, by room
local occupied = {}; -- rooms that somebody is in, by their addresses
local problems = {}; -- what is wrong with calls, by what they were for
local review_soon;

local function in_force()
	local now, acting = os.time(), {};
	for _, measure in ipairs(measures) do
		if measure.is_in_force(now) then table.insert(acting, measure); end
	end
	return acting;
end

local function is_exempt(real_jid)
	local _, host = jid.split(real_jid);
	return exempt:contains(jid.bare(real_jid)) or exempt:contains(host);
end

--- Returns what is known of a session at its present address: nothing more once that changes.
local function knowledge(session)
	local found = known[session];
	if not found or found.ip ~= session.ip then
		found = { ip = session.ip; address = addresses.bare(session.ip); answers = {}; pending = {} };
		known[session] = found;
	end
	return found;
end

--- Returns what is known of somebody.
-- People of other servers and components have no address here: theirs is that of their server.
local function knowledge_of(real_jid)
	local session = prosody.full_sessions[real_jid];
	return session and knowledge(session) or { answers = {}; pending = {} };
end

--- Returns a verdict; nil: geolookup has to be asked.
local function verdict(person, measure)
	if not person.address then return UNDETERMINED; end
	local answer = person.answers[measure.question];
	return answer and answer.dataset == dataset and answer.verdict or nil;
end

--- Logs that calls fail or succeed again, once each.
local function report(what, problem)
	if problems[what] == problem then return; end
	problems[what] = problem;
	if problem then
		module:log("warn", "%s: geolookup: %s", what, problem);
	else
		module:log("info", "%s: geolookup answers again", what);
	end
end

--- Asks for a verdict, once at a time. Returns a promise of whether it is known then.
local function look_up(person, measure)
	local pending = person.pending[measure.question];
	if pending then return pending; end
	local message = { text = person.address; regionSet = measure.region_set; policy = measure.policy };
	pending = call("Lookup", message):next(function (answer)
		if not VERDICTS[answer.verdict] or type(answer.dataset) ~= "string" then
			error("an answer without a verdict", 0);
		end
		report(measure.reference);
		person.answers[measure.question] = { verdict = answer.verdict; dataset = answer.dataset };
		dataset = answer.dataset;
		return true;
	end):catch(function (problem)
		report(measure.reference, problem);
		return false;
	end):next(function (is_known)
		person.pending[measure.question] = nil;
		return is_known;
	end);
	person.pending[measure.question] = pending;
	return pending;
end

--- Asks for all verdicts on a session that are not known; a list of promises.
local function look_up_unknown(session)
	local pending, person, now = {}, knowledge(session), os.time();
	for _, measure in ipairs(measures) do
		if not measure.is_over(now) and verdict(person, measure) == nil then
			table.insert(pending, look_up(person, measure));
		end
	end
	return pending;
end

-- Logins: the verdict is there when somebody joins.
local function on_login(event)
	if not is_exempt(event.session.full_jid) then look_up_unknown(event.session); end
end

-- A resumed stream keeps its rooms and may come from another address.
local function on_resumption()
	review_soon();
end

local function watch_host(host)
	if prosody.hosts[host].type ~= "local" then return; end
	local context = module:context(host);
	context:hook("resource-bind", on_login);
	context:hook("smacks-hibernation-end", on_resumption);
end

-- Presence to an occupant's name, before the chat reads it: wait for verdicts that are not there.
local function on_presence(event)
	local stanza = event.stanza;
	local from = stanza.attr.from;
	local session = prosody.full_sessions[from];
	if stanza.attr.type or not session or is_exempt(from) or not async.ready() then return; end
	local room = rooms.get_room_from_jid(jid.bare(stanza.attr.to));
	if room and room:get_occupant_jid(from) then return; end
	for _ = 1, 2 do -- again if a dataset came into service meanwhile
		local is_known = true;
		local pending = look_up_unknown(session);
		if #pending > 0 then module:log("debug", "a join waits for %d verdicts", #pending); end
		for _, promise in ipairs(pending) do
			is_known = async.wait_for(promise) and is_known;
		end
		if #pending == 0 or not is_known then break; end
	end
	if prosody.full_sessions[from] ~= session then
		module:log("debug", "a connection ended while its join waited");
		return true; -- or it would stay in the room for ever
	end
end

-- The join itself, and before it the making of a room: at the join the room is there already, and
-- a refused first comer would leave it without an owner.
local function on_join(event)
	local stanza = event.stanza;
	local from = stanza.attr.from;
	if is_exempt(from) then return; end
	local person = knowledge_of(from);
	for _, measure in ipairs(in_force()) do
		local found = verdict(person, measure);
		local reply;
		if found == nil and not measure.admits_unchecked then
			reply = st.error_reply(stanza, "wait", "remote-server-timeout", "Try again later");
		elseif found ~= nil and measure.refuses(found) then
			reply = st.error_reply(stanza, "cancel", "not-allowed", measure.reference);
		end
		if reply then
			event.origin.send(reply);
			return true;
		end
	end
end

local MUC_USER = "http://jabber.org/protocol/muc#user";

--- Removes one session from a room. Its client learns the measure's reference, and no other client does:
-- the others see somebody leave. Affiliations stay as they are, and the room stays.
local function remove(room, real_jid, measure)
	local leaving = room:get_occupant_by_real_jid(real_jid);
	local role = leaving.role;
	leaving.sessions = { [real_jid] = leaving:get_presence(real_jid) };
	leaving.jid, leaving.role = real_jid, nil;

	local own = st.stanza("x", { xmlns = MUC_USER })
		:tag("status", { code = "307" }):up():tag("status", { code = "110" }):up();
	room:publicise_occupant_status(leaving, own, nil, nil, measure.reference, nil, true, leaving);

	local remaining = room:get_occupant_by_real_jid(real_jid);
	remaining:remove_session(real_jid);
	room:save_occupant(remaining);
	local plain = st.stanza("x", { xmlns = MUC_USER });
	if room:get_occupant_by_nick(leaving.nick) then -- in the room with another client
		room:publicise_occupant_status(remaining, plain);
		return;
	end
	local shown = room:get_presence_broadcast();
	for _, other in room:each_occupant() do
		if shown.none or shown[role] then
			room:publicise_occupant_status(leaving, plain, nil, nil, nil, nil, true, other);
		end
	end
	module:fire_event("muc-occupant-left", { room = room; nick = leaving.nick; occupant = leaving });
end

--- Returns the people of a room whom measures can reach, and whether one has to be looked at.
local function roster(room, measure)
	local people, is_due = {}, false;
	for _, occupant in room:each_occupant() do
		for real_jid in occupant:each_session() do
			if not is_exempt(real_jid) then
				local person = knowledge_of(real_jid);
				local found = verdict(person, measure);
				is_due = is_due or found == nil or measure.reaches(found);
				table.insert(people, { jid = real_jid; person = person });
			end
		end
	end
	return people, is_due;
end

--- Says whether somebody of a roster is still the one who was asked about.
local function is_present(room, one)
	local session = prosody.full_sessions[one.jid];
	return session and knowledge(session) == one.person
		and rooms.get_room_from_jid(room.jid) == room and room:get_occupant_jid(one.jid);
end

local function read_positions(answer, field, size)
	local bytes = type(answer[field]) == "string" and base64.decode(answer[field]);
	if not bytes then error("an answer without " .. field, 0); end
	local positions, problem = roaring.positions(bytes, size);
	if not positions then error(field .. ": " .. problem, 0); end
	return positions;
end

--- Enters the verdicts of an answer.
local function enter(answer, people, measure)
	local count = 0;
	for _, name in ipairs { "inside", "outside", "undetermined" } do
		local meant = "VERDICT_" .. name:upper();
		for _, position in ipairs(read_positions(answer, name, #people)) do
			local person = people[position + 1].person;
			person.answers[measure.question] = { verdict = meant; dataset = answer.dataset };
			count = count + 1;
		end
	end
	if count ~= #people or type(answer.dataset) ~= "string" or type(answer.record) ~= "table" then
		error("an answer that does not cover the roster", 0);
	end
	dataset = answer.dataset;
end

local function keep_record(room, measure, answer, has_acted)
	local case = measure.reference .. "\n" .. measure.question .. "\n" .. answer.dataset;
	recorded[room] = recorded[room] or {};
	-- Once for each dataset, and when it acted: a review that changes nothing decides nothing.
	if recorded[room][case] and not has_acted then return; end
	recorded[room][case] = true;
	local written, problem = records.append(records_path, answer.record, measure.reference);
	if not written then module:log("error", "decision record: %s", problem); end
end

--- Holds one room to one measure, all its people in one call.
-- @return nothing; or what went wrong.
local function classify(room, measure, is_first)
	local people, is_due = roster(room, measure);
	if #people == 0 or not (is_due or is_first) then return; end
	local texts = array();
	for _, one in ipairs(people) do texts:push(one.person.address or ""); end
	local answer, problem = async.wait_for(call("ClassifyRoster", {
		text = { addresses = texts }; regionSet = measure.region_set; policy = measure.policy;
		record = true; reasons = true; -- the record counts why there is no verdict
	}));
	if not answer then return problem; end
	local ok, wrong = pcall(enter, answer, people, measure);
	if not ok then return wrong; end

	local left = 0;
	for _, one in ipairs(people) do
		local found = verdict(one.person, measure);
		if found and measure.reaches(found) and is_present(room, one) then
			remove(room, one.jid, measure);
			left = left + 1;
		end
	end
	keep_record(room, measure, answer, left > 0);
	if left > 0 then
		module:log("info", "measure %s: %d of %d left a room", measure.reference, left, #people);
	end
end

--- Returns the addresses of the rooms that somebody is in. The chat's own lists are no use: one
-- leaves out rooms that are on disk for a while, people and all, and the other reads each room.
local function occupied_rooms()
	local found = {};
	for room_jid in pairs(occupied) do
		local room = rooms.get_room_from_jid(room_jid);
		if room and room:has_occupant() then
			table.insert(found, room_jid);
		else
			occupied[room_jid] = nil;
		end
	end
	return found;
end

--- Holds all rooms to one measure; an error ends this measure's turn and no other's.
local function impose(measure)
	local is_first = measure.reviewed ~= dataset; -- it begins, or the dataset is another
	for _, room_jid in ipairs(occupied_rooms()) do
		local room = rooms.get_room_from_jid(room_jid);
		local problem = room and classify(room, measure, is_first);
		report(measure.reference, problem);
		if problem then return; end
	end
	measure.reviewed = dataset;
end

--- Holds all rooms to the measures in force.
local function review()
	local acting = in_force();
	if #acting == 0 then return; end
	local info, problem = async.wait_for(call("GetDataset", {}));
	if info and type(info.id) ~= "string" then problem = "an answer without an id"; end
	report("dataset", problem);
	if problem then return; end
	dataset = info.id;
	for _, measure in ipairs(acting) do impose(measure); end
end

local is_queued = false;
local reviewer = async.runner(function ()
	is_queued = false;
	review();
end, { error = function (_, problem) module:log("error", "review: %s", problem); end });

function review_soon()
	if not is_queued then
		is_queued = true;
		reviewer:run(true);
	end
end

--- Reads the measures; keeps the former ones if the file is not valid.
local function load()
	local read, problem = measures_file.read(measures_path);
	if not read then return problem; end
	measures = read;
	module:log("info", "%d measures are in force", #in_force());
	review_soon();
end

local problem = load();
if problem then error(problem, 0); end
module:hook_global("config-reloaded", function ()
	local still = load();
	if still then module:log("error", "%s; the former measures stay in force", still); end
end);
module:add_timer(interval, function ()
	review_soon();
	return interval;
end);
for room in rooms.all_rooms() do -- the module is loaded anew
	if room:has_occupant() then occupied[room.jid] = true; end
end
module:hook("muc-occupant-session-new", function (event) occupied[event.room.jid] = true; end);
for host in pairs(prosody.hosts) do watch_host(host); end
module:hook_global("host-activated", watch_host);
module:hook("presence/full", on_presence, 10);
module:hook("muc-room-pre-create", on_join, 10);
module:hook("muc-occupant-pre-join", on_join, 10);
