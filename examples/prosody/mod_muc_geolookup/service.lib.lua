-- Calls geolookup by HTTP and JSON: the unary form of the Connect protocol.

local http = require "net.http";
local json = require "util.json";
local promise = require "util.promise";
local timer = require "util.timer";

--- Returns a function that makes calls.
-- @param url of the service, without a slash at its end.
-- @param limit seconds that a call may take.
-- @return `call(method, message)`, which returns a promise: the answer as a table, or what is
--  wrong as a text without any value of the request.
local function connect(url, limit)
	return function (method, message)
		return promise.new(function (resolve, reject)
			local request, time_limit;
			-- A promise is settled once: what comes after that, such as the end of a request that
			-- took too long, changes nothing.
			local function on_answer(body, status)
				timer.stop(time_limit);
				local answer = json.decode(body or "");
				if status == 200 and type(answer) == "table" then
					resolve(answer);
				elseif status == 200 then
					reject("an answer that is no JSON object");
				elseif status == 0 then -- then the body is net.http's reason
					reject("no answer");
				else
					local code = type(answer) == "table" and answer.code;
					reject(type(code) == "string" and code:match("^[a-z_]+$") or ("HTTP status %d"):format(status));
				end
			end
			-- net.http waits without end. A module's own timer would end with the module, and joins
			-- that wait would wait for ever.
			time_limit = timer.add_task(limit, function ()
				reject("no answer in time");
				if request then http.destroy_request(request); end
			end);
			request = http.request(url .. "/geolookup.v1.GeoLookupService/" .. method, {
				method = "POST";
				headers = { ["Content-Type"] = "application/json" };
				body = json.encode(message);
			}, on_answer);
		end);
	end
end

return { connect = connect };
