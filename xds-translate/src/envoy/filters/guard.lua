-- What Envoy's own filters cannot see. It only ever says that something is in order: without its word the rules deny.
local NAMESPACE = "@NAMESPACE@"
local SCHEME = "@SCHEME@"
-- Headers of the protocol, and headers that rules look at: of both a second line could say something else.
local PROTOCOL = { @PROTOCOL@ }
local MATCHED = { @MATCHED@ }
-- Objects of a message whose keys are the protocol's.
local HELD = { params = true, _meta = true, ref = true, notifications = true }
-- What rules compare in them.
local COMPARED = { method = true, name = true, uri = true, taskId = true }
-- Methods of requests that are judged by having no body.
local BODILESS = { GET = true, HEAD = true, DELETE = true, OPTIONS = true }
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

-- Where what an escape says goes on; nil: it says nothing that every parser reads.
local function after_escape(text, at)
  if text:find('^["\\/bfnrt]', at + 1) then return at + 2 end
  local code = tonumber(text:match("^u(%x%x%x%x)", at + 1) or "", 16)
  if code == nil then return nil end
  if code < 0xD800 or code > 0xDFFF then return at + 6 end
  if code < 0xDC00 and text:find("^\\u[dD][c-fC-F]%x%x", at + 6) then return at + 12 end
  return nil
end

-- Where the string that begins at `from` ends. That it is UTF-8 the MCP filter has seen.
local function close(text, from)
  local at = from + 1
  while true do
    at = text:find('["\\%c]', at)
    if at == nil then return nil end
    local byte = text:byte(at)
    if byte == 34 then return at end
    if byte == 92 then
      at = after_escape(text, at)
      if at == nil then return nil end
    elseif byte == 127 then
      at = at + 1
    else
      return nil
    end
  end
end

-- Where what follows a number begins, if it is one of those that a double holds.
local function after_number(text, from)
  local at = text:match("^%-?0()", from) or text:match("^%-?[1-9]%d*()", from)
  if at == nil then return nil end
  at = text:match("^%.%d+()", at) or at
  at = text:match("^[eE][+-]?%d+()", at) or at
  local value = tonumber(text:sub(from, at - 1))
  if value == nil or value == math.huge or value == -math.huge then return nil end
  return at
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

-- Whether a value can begin with that byte, where it is the protocol's.
local function is_fitting(object, byte)
  local key = object.key
  if object.top then
    if key == "id" then return byte == 34 or byte == 45 or (byte >= 48 and byte <= 57) end
    -- Answers of clients are refused; what is both is nothing.
    if key == "result" or key == "error" then return false end
    if key == "params" then return byte == 123 end
  elseif object.own and (key == "_meta" or key == "arguments") then
    return byte == 123
  end
  return true
end

-- Control characters beyond ASCII, which RBAC does not see in what rules compare.
local function is_printable(object, value)
  if not object.own or not COMPARED[object.key] then return true end
  return not (value:find("\194[\128-\159]") or value:find("\\u00[89]%x"))
end

-- Whether all parsers read a message alike, and whether Envoy's copy of it is the whole: that has no arrays and no keys with
-- dots, numbers are doubles in it, and an authorizer reads no deeper than 32. The MCP filter's own parser takes more for
-- JSON than others do: single quotes, keys without quotes, commas before an end.
local function judge(text)
  local objects, depth, whole = {}, 0, true
  local at = text:match("^[ \t\r\n]*(){")
  local expected = "value"
  while at ~= nil do
    local byte, object = text:byte(at), objects[depth]
    if expected == "key" or (expected == "key or end" and byte ~= 125) then
      local to = byte == 34 and close(text, at)
      if not to then return false end
      local key = text:sub(at + 1, to - 1)
      if not is_plain(key, object) then return false end
      if key:find(".", 1, true) then whole = false end
      object.key = key
      at = text:match("^[ \t\r\n]*:()", to + 1)
      if at == nil then return false end
      expected = "value"
    elseif expected == "value" or (expected == "value or end" and byte ~= 93) then
      if object ~= nil and not is_fitting(object, byte) then return false end
      if byte == 123 or byte == 91 then
        depth = depth + 1
        if depth > 64 then return false end
        if byte == 91 or depth > 32 then whole = false end
        objects[depth] = {
          keys = byte == 123 and {} or nil,
          top = object == nil,
          own = object == nil or (object.own and HELD[object.key] == true),
          meta = object ~= nil and object.own and object.key == "_meta",
        }
        at = at + 1
        expected = byte == 123 and "key or end" or "value or end"
      elseif byte == 34 then
        local to = close(text, at)
        if to == nil or not is_printable(object, text:sub(at + 1, to - 1)) then return false end
        at = to + 1
        expected = "more or end"
      else
        local to = text:match("^true()", at) or text:match("^false()", at) or text:match("^null()", at)
        if to == nil then
          to = after_number(text, at)
          if to == nil then return false end
          local number = text:sub(at, to - 1)
          if number:find("%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d") or number:find("[eE]") then whole = false end
        end
        at = to
        expected = "more or end"
      end
    elseif byte == 44 and expected == "more or end" then
      at = at + 1
      expected = object.keys and "key" or "value"
    elseif byte == (object.keys and 125 or 93) then
      objects[depth] = nil
      depth = depth - 1
      at = at + 1
      -- One message, and nothing after it.
      if depth == 0 then return text:find("^[ \t\r\n]*$", at) ~= nil, whole end
      expected = "more or end"
    else
      return false
    end
    at = text:find("[^ \t\r\n]", at)
  end
  return false
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

-- Whether all headers, path and host among them, are ASCII. Authorizers that speak gRPC get texts: of other bytes Envoy shows them
-- something else.
local function are_ascii(headers)
  for _, value in pairs(headers) do
    if value:find("[\128-\255]") then return false end
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
  if are_ascii(headers) then metadata:set(NAMESPACE, "ascii", true) end
  if are_single(headers, MATCHED) then metadata:set(NAMESPACE, "matched_single", true) end
  local origin, host = headers:get("origin"), headers:get(":authority")
  if origin ~= nil and host ~= nil then
    local port = SCHEME == "https" and ":443" or ":80"
    local own = without_port((SCHEME .. "://" .. host):lower(), port)
    if without_port(origin:lower(), port) == own then metadata:set(NAMESPACE, "same_origin", true) end
  end
  local message = metadata:get("@MCP@")
  if message == nil then
    if BODILESS[headers:get(":method")] then
      -- Neither chunks nor HTTP/2 say beforehand that there is one.
      local body = handle:body()
      if body == nil or body:length() == 0 then
        handle:streamInfo():dynamicMetadata():set(NAMESPACE, "bodiless", true)
      end
    end
    return
  end
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
