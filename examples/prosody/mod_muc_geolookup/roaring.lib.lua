-- Reads Roaring bitmaps in the portable serialisation, 32 bits:
-- https://github.com/RoaringBitmap/RoaringFormatSpec

local NO_RUNS, WITH_RUNS = 12346, 12347;
local OFFSETS_FROM = 4; -- containers; with runs, fewer than that have no table of offsets
local LARGEST_ARRAY = 4096;

local byte, floor = string.byte, math.floor;

--- Returns the positions in a bitmap, ascending.
-- @param bytes the serialised bitmap, no byte more.
-- @param size positions are below it.
-- @return a list of numbers; or nil and what is wrong.
local function positions(bytes, size)
	local at = 1;
	local function u16()
		local low, high = byte(bytes, at, at + 1);
		if not high then error("ends too early", 0); end
		at = at + 2;
		return low + high * 256;
	end
	local function skip(count)
		at = at + count;
		if at > #bytes + 1 then error("ends too early", 0); end
	end

	local found = {};
	local function add(position)
		if position >= size or position <= (found[#found] or -1) then
			error("a position that can't be", 0);
		end
		found[#found + 1] = position;
	end

	local function read()
		local cookie, high = u16(), u16();
		local count, is_run = 0, {};
		if cookie == WITH_RUNS then
			count = high + 1;
			local flags = at;
			skip(floor((count + 7) / 8));
			for index = 0, count - 1 do
				local flag = byte(bytes, flags + floor(index / 8));
				is_run[index + 1] = floor(flag / 2 ^ (index % 8)) % 2 == 1;
			end
		elseif cookie == NO_RUNS and high == 0 then
			count = u16();
			if u16() ~= 0 then error("more containers than there can be", 0); end
		else
			error("no Roaring bitmap", 0);
		end
		local containers = {};
		for index = 1, count do
			containers[index] = { key = u16(), cardinality = u16() + 1 };
		end
		if cookie == NO_RUNS or count >= OFFSETS_FROM then
			skip(4 * count);
		end
		for index, container in ipairs(containers) do
			local base = container.key * 65536;
			if is_run[index] then
				for _ = 1, u16() do
					local first = u16();
					for position = base + first, base + first + u16() do add(position); end
				end
			elseif container.cardinality <= LARGEST_ARRAY then
				for _ = 1, container.cardinality do add(base + u16()); end
			else
				local first = at;
				skip(8192);
				for index_of_byte = 0, 8191 do
					local bits = byte(bytes, first + index_of_byte);
					for bit = 0, 7 do
						if bits % 2 == 1 then add(base + index_of_byte * 8 + bit); end
						bits = floor(bits / 2);
					end
				end
			end
		end
		if at ~= #bytes + 1 then error("bytes after its end", 0); end
	end

	local ok, problem = pcall(read);
	if not ok then return nil, problem; end
	return found;
end

return { positions = positions };
