-- What a script of `metactl lua` finds beyond Lua's own library (docs/contract/admin-api.md section 4.1), and what it does not find.
-- Runs once in each interpreter, before the first script. A call that waits yields a request to `runtime.py`, which resumes
-- the task with the answer; so scripts see no object of Python.

local write, wall_ms, is_interrupted, null_path = ...
local HOOK_INSTRUCTIONS = 1000000

local yield, running = coroutine.yield, coroutine.running
local sethook, setmetatable_of_userdata = debug.sethook, debug.setmetatable
local pack, unpack = table.pack, table.unpack
local tasks = setmetatable({}, {__mode = "k"})

-- ------------------------------------------------------------------ what scripts do not get

python, debug = nil, nil
package.loaded.python, package.loaded.debug = nil, nil
package.loadlib, package.cpath, package.searchers[4], package.searchers[3] = nil, "", nil, nil
string.dump = nil

-- Source code only: compiled code is not checked by Lua, and could reach the memory of the process.
local load_any = load
function load(chunk, name, _, ...)
    return load_any(chunk, name, "t", ...)
end
local loadfile_any = loadfile
function loadfile(path, _, ...)
    return loadfile_any(path, "t", ...)
end
function dofile(path)
    return assert(loadfile_any(path, "t"))()
end

-- ------------------------------------------------------------------ output, in one order

local function put(...)
    local parts = pack(...)
    for i = 1, parts.n do
        local part = parts[i]
        if type(part) ~= "string" and type(part) ~= "number" then
            error("bad argument #" .. i .. " to 'write' (string expected, got " .. type(part) .. ")", 3)
        end
        parts[i] = tostring(part)
    end
    if not write(table.concat(parts)) then
        error("standard output cannot be written", 0)
    end
end

function print(...)
    local parts = pack(...)
    for i = 1, parts.n do
        parts[i] = tostring(parts[i])
    end
    put(table.concat(parts, "\t") .. "\n")
end

local output = setmetatable({}, {__name = "FILE*", __tostring = function() return "file (stdout)" end})
local function same() return output end
function output:write(...)
    put(...)
    return output
end
output.flush, output.setvbuf, output.close = same, same, same
io.stdout = output
function io.write(...)
    return output:write(...)
end

-- ------------------------------------------------------------------ tasks

-- From the first error on, each instruction makes another: so a script that catches errors in a loop ends as well.
local hook
function hook()
    if is_interrupted() then
        for task in pairs(tasks) do
            sethook(task, hook, "", 1)
        end
        error("interrupted", 0)
    end
end

local create = coroutine.create
function coroutine.create(body)
    local made = create(body)
    sethook(made, hook, "", HOOK_INSTRUCTIONS)
    return made
end
function coroutine.wrap(body)
    local made = coroutine.create(body)
    return function(...)
        local results = pack(coroutine.resume(made, ...))
        if not results[1] then
            error(results[2], 0)
        end
        return unpack(results, 2, results.n)
    end
end

local function request(...)
    if not tasks[running()] then
        error("it waits, and so cannot be called in a coroutine of the script's own; metactl.spawn makes one", 3)
    end
    return yield(...)
end

local NULL = assert(io.open(null_path))
NULL:close()
setmetatable_of_userdata(NULL, {__tostring = function() return "NULL" end, __name = "NULL"})

metactl = {NULL = NULL}
local Task = {}
Task.__index = Task

function metactl.spawn(body)
    if type(body) ~= "function" then
        error("spawn: a function is expected, got " .. type(body), 2)
    end
    local task = setmetatable({results = pack()}, Task)
    request("spawn", task, body)
    return task
end

-- The results of the task's function; nil and a sentence if it failed.
function Task:join()
    local problem = request("join", self)
    if problem then
        return nil, problem
    end
    return unpack(self.results, 1, self.results.n)
end

function metactl.sleep(seconds)
    if type(seconds) ~= "number" or seconds ~= seconds or seconds < 0 or seconds > 1e9 then
        error("sleep: duration must be finite, non-negative, and representable", 2)
    end
    request("sleep", seconds)
end

function metactl.now_ms()
    return wall_ms()
end

function os.exit(code)
    local number = code == nil and 0 or code == true and 0 or code == false and 1 or math.tointeger(code) or 1
    request("exit", number & 255)
end

-- ------------------------------------------------------------------ clients

local clients = 0

local function client_class(kind, methods)
    local class = {}
    class.__index = class
    for name, check in pairs(methods) do
        class[name] = function(self, ...)
            check(name, ...)
            return request("call", kind, self.number, self.address, name, ...)
        end
    end
    return function(address)
        if type(address) ~= "string" then
            error("an address is a string, got " .. type(address), 2)
        end
        clients = clients + 1
        return setmetatable({number = clients, address = address}, class)
    end
end

local function expect(...)
    local types = {...}
    return function(name, ...)
        for i, wanted in ipairs(types) do
            local given = type((select(i, ...)))
            local optional = wanted:sub(-1) == "?"
            if given ~= wanted:gsub("%?", "") and not (optional and given == "nil") then
                error(name .. ": argument " .. i .. " must be a " .. wanted:gsub("%?", "") .. ", got " .. given, 3)
            end
        end
    end
end

metactl.new_grpc_client = client_class("grpc", {
    get = expect("string"),
    upsert = expect("string", "string"),
    transaction = expect(),
})
metactl.new_admin_client = client_class("admin", {
    metrics = expect(),
    status = expect(),
    transfer_leader = expect("number?"),
    trigger_snapshot = expect(),
    list_features = expect(),
    set_feature = expect("string", "boolean"),
})

-- ------------------------------------------------------------------ parts of transactions

local function condition(op)
    return function(key, value)
        return {key = key, op = op, value = value}
    end
end
metactl.eq_seq, metactl.ge_seq, metactl.eq_value = condition("eq_seq"), condition("ge_seq"), condition("eq_value")

function metactl.put_op(key, value, ttl)
    return {op = "put", key = key, value = value, ttl = ttl}
end
function metactl.get_op(key)
    return {op = "get", key = key}
end
function metactl.delete_op(key)
    return {op = "delete", key = key}
end
function metactl.new_txn(conditions, then_operations, else_operations)
    return {conditions = conditions, ["then"] = then_operations, ["else"] = else_operations}
end

-- ------------------------------------------------------------------ text

local ESCAPES = {['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t"}

local function quoted(text)
    return '"' .. text:gsub('[%c"\\\127-\255]', function(character)
        return ESCAPES[character] or string.format("\\x%02x", character:byte())
    end) .. '"'
end

-- The text of a table that is an array of bytes, as values are; nil of another table.
local function bytes_of(value)
    local count = 0
    for key, byte in pairs(value) do
        if math.type(key) ~= "integer" or math.type(byte) ~= "integer" or byte < 0 or byte > 255 then
            return nil
        end
        count = count + 1
    end
    if count == 0 or count ~= #value then
        return nil
    end
    local parts = {}
    for first = 1, count, 4096 do
        parts[#parts + 1] = string.char(unpack(value, first, math.min(first + 4095, count)))
    end
    return table.concat(parts)
end

local RANK = {number = 1, string = 2}
local function before(a, b)
    local rank_a, rank_b = RANK[type(a)] or 3, RANK[type(b)] or 3
    if rank_a ~= rank_b then
        return rank_a < rank_b
    end
    if rank_a == 3 then
        return tostring(a) < tostring(b)
    end
    return a < b
end

local function text_of(value, around)
    local kind = type(value)
    if value == NULL then
        return "NULL"
    elseif kind == "string" then
        return quoted(value)
    elseif kind == "nil" or kind == "boolean" or kind == "number" then
        return tostring(value)
    elseif kind ~= "table" then
        return "<" .. kind .. ">"
    elseif around[value] then
        return "<cycle>"
    end
    local bytes = bytes_of(value)
    if bytes then
        return quoted(bytes)
    end
    around[value] = true
    local keys, parts = {}, {}
    for key in pairs(value) do
        keys[#keys + 1] = key
    end
    table.sort(keys, before)
    for _, key in ipairs(keys) do
        if value[key] ~= NULL then
            local name = type(key) == "string" and quoted(key) or "[" .. tostring(key) .. "]"
            parts[#parts + 1] = name .. "=" .. text_of(value[key], around)
        end
    end
    around[value] = nil
    return "{" .. table.concat(parts, ",") .. "}"
end

function metactl.to_string(value)
    return text_of(value, {})
end

-- ------------------------------------------------------------------ load with a skew

local Zipf = {}
Zipf.__index = Zipf

function Zipf:new(num_keys, alpha)
    return setmetatable({num_keys = num_keys or 1000, alpha = alpha or 1.0}, self)
end

-- The inverse distribution function of a power law on [1, num_keys]; `x` is uniform in [0, 1).
function Zipf:generate_key_index(x)
    local exponent = 1.0 - self.alpha
    if exponent == 0 then
        return math.floor(self.num_keys ^ x + 0.5)
    end
    return math.floor((1.0 + x * (self.num_keys ^ exponent - 1.0)) ^ (1.0 / exponent) + 0.5)
end

metactl.ZipfGenerator = Zipf

-- ------------------------------------------------------------------ what runtime.py uses

local function problem_text(problem)
    if type(problem) == "string" then
        return problem
    end
    local meta = getmetatable(problem)
    if type(meta) == "table" and meta.__tostring then
        return tostring(problem)
    end
    return text_of(problem, {})
end

-- The body of each task: runs a function, and says how it ended.
local function start(body, task)
    sethook(hook, "", HOOK_INSTRUCTIONS)
    tasks[running()] = true
    local results = pack(pcall(body))
    if not results[1] then
        return "done", false, problem_text(results[2])
    end
    if task then
        task.results = pack(unpack(results, 2, results.n))
    end
    return "done", true
end

local function load_source(text, name)
    return load_any(text, name, "t")
end

local function byte_array(text)
    local bytes = {}
    for first = 1, #text, 4096 do
        table.move({text:byte(first, first + 4095)}, 1, 4096, first, bytes)
    end
    return bytes
end

return {start = start, load = load_source, byte_array = byte_array, null = NULL}
