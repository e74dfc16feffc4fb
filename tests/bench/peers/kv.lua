-- Writes to KV version 2 as fast as it can: the ceiling for anybody.
local thread_number, written = 0, 0
function setup(thread)
  thread:set("id", thread_number)
  thread_number = thread_number + 1
end
function request()
  written = written + 1
  local path = "/v1/secret/data/ceiling/" .. id .. "-" .. (written % 1000)
  local body = '{"data":{"access_token":"' .. string.rep("0123456789abcdef", 4) .. '","token_type":"Bearer"}}'
  return wrk.format("POST", path, { ["X-Vault-Token"] = os.getenv("BAO_TOKEN") }, body)
end
