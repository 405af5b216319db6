-- What Envoy's own filters cannot see. It only ever says that something is in order: without its word the rules deny.
local NAMESPACE = "@NAMESPACE@"
local SCHEME = "@SCHEME@"
-- Headers of the protocol, and headers that rules look at: of both a second line could say something else.
local PROTOCOL = { @PROTOCOL@ }
local MATCHED = { @MATCHED@ }
-- Objects of a message whose keys are the protocol's.
local HELD = { params = true, _meta = true, ref = true, notifications = true }
-- The protocol's keys, by their lower-case spelling.
local KEYS = {}
for key in ([[
  jsonrpc id method params result error _meta name arguments uri taskId ref notifications argument context cursor level
  requestId reason progressToken progress total message protocolVersion capabilities clientInfo inputResponses
  requestState task io.modelcontextprotocol/protocolVersion io.modelcontextprotocol/clientCapabilities
  io.modelcontextprotocol/clientInfo io.modelcontextprotocol/logLevel io.modelcontextprotocol/related-task
  io.modelcontextprotocol/subscriptionId type title resourceSubscriptions taskIds toolsListChanged promptsListChanged
  resourcesListChanged
]]):gmatch("%S+") do
  KEYS[key:lower()] = key
end

-- Where the string that begins at `from` ends.
local function close(text, from)
  local at = from + 1
  while true do
    at = text:find('["\\]', at)
    if at == nil then return nil end
    if text:byte(at) == 34 then return at end
    at = at + 2
  end
end

-- Whether a key is what every parser takes it for. One with an escape is nobody's need.
local function is_plain(key, object)
  if object.keys[key] or key:find("\\", 1, true) then return false end
  object.keys[key] = true
  if not object.own then return true end
  local known = KEYS[key:lower()]
  if key:find("[^ -~]") or (known ~= nil and known ~= key) then return false end
  -- The copy of Envoy 1.39 has what follows the last dot: `x.name` would be the name. Only `_meta` has dots of its own, and the
  -- version of the stateless revision there is not ours to compare.
  if object.meta then return key ~= "io.modelcontextprotocol/protocolVersion" end
  return not key:find(".", 1, true)
end

-- Whether all parsers read a message alike, and whether Envoy's copy of it is the whole: that has no arrays and no keys with
-- dots, numbers are doubles in it, and an authorizer reads no deeper than 32. That it is JSON the MCP filter has seen.
local function judge(text)
  local objects, depth, at, whole = {}, 0, 1, true
  while true do
    local from = text:find('["{}%[%]]', at)
    local between = text:sub(at, (from or #text + 1) - 1)
    if between:find("%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d") or between:find("%d[eE]") then whole = false end
    if from == nil then return false end
    local byte = text:byte(from)
    at = from + 1
    if byte == 34 then
      local to = close(text, from)
      if to == nil then return false end
      at = to + 1
      local object = objects[depth]
      if object ~= nil and object.keys ~= nil and text:find("^%s*:", at) then
        local key = text:sub(from + 1, to - 1)
        if not is_plain(key, object) then return false end
        if key:find(".", 1, true) then whole = false end
        object.key = key
      end
    elseif byte == 123 or byte == 91 then
      local above = objects[depth]
      depth = depth + 1
      if depth > 64 then return false end
      if byte == 91 or depth > 32 then whole = false end
      objects[depth] = {
        keys = byte == 123 and {} or nil,
        own = above == nil or (above.own and HELD[above.key] == true),
        meta = above ~= nil and above.own and above.key == "_meta",
      }
    else
      objects[depth] = nil
      depth = depth - 1
      -- One message, and nothing after it.
      if depth == 0 then return text:find("^%s*$", at) ~= nil, whole end
      if depth < 0 then return false end
    end
  end
end

local function without_port(origin, port)
  return origin:sub(-#port) == port and origin:sub(1, -#port - 1) or origin
end

local function are_single(headers, names)
  for _, name in ipairs(names) do
    if headers:getNumValues(name) > 1 then return false end
  end
  return true
end

-- Whether there is a client certificate that has not ended: a connection may outlive it.
local function is_current(handle)
  local tls = handle:streamInfo():downstreamSslConnection()
  if tls == nil or not tls:peerCertificatePresented() then return false end
  return tls:expirationPeerCertificate() * 1000 > handle:timestamp()
end

function envoy_on_request(handle)
  local headers, metadata = handle:headers(), handle:streamInfo():dynamicMetadata()
  if is_current(handle) then metadata:set(NAMESPACE, "current", true) end
  if are_single(headers, PROTOCOL) then metadata:set(NAMESPACE, "single", true) end
  if are_single(headers, MATCHED) then metadata:set(NAMESPACE, "matched_single", true) end
  local origin, host = headers:get("origin"), headers:get(":authority")
  if origin ~= nil and host ~= nil then
    local port = SCHEME == "https" and ":443" or ":80"
    local own = without_port((SCHEME .. "://" .. host):lower(), port)
    if without_port(origin:lower(), port) == own then metadata:set(NAMESPACE, "same_origin", true) end
  end
  local message = metadata:get("@MCP@")
  if message == nil then return end
  for key, value in pairs(message) do metadata:set("@COMPATIBLE@", key, value) end
  local body = handle:body()
  -- The MCP filter does not count the white space after a message.
  if body == nil or body:length() > @MAX@ then return end
  local strict, whole = judge(body:getBytes(0, body:length()))
  -- What was taken before the body had come is no longer to be used.
  metadata = handle:streamInfo():dynamicMetadata()
  if strict then metadata:set(NAMESPACE, "strict", true) end
  if strict and whole then metadata:set(NAMESPACE, "whole", true) end
end
