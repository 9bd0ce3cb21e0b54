"""The storage's atomic operations as Lua scripts, written to be repeated; see ``scripts.py``.

An item is a hash, found by its own key; ``keys`` is the sorted set by which a prefix is listed, and
``expiries`` says which of them are due. Redis ends items by itself; both sets lose up to a hundred
due names with each write, so they do not grow.
"""

from __future__ import annotations

from convotic_celery.context.scripts import Script

__all__ = ["DELETE_ITEM", "LIST_ITEMS", "READ_ITEM", "WRITE_ITEM"]

#: Beginning of a script with KEYS keys, expiries; ARGV prefix of items. The store's clock decides.
_FORGET_DUE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 100)) do
  redis.call('DEL', ARGV[1] .. key)
  redis.call('ZREM', KEYS[1], key)
  redis.call('ZREM', KEYS[2], key)
end
"""

#: KEYS item; gives kind and value, both nil if there is none.
READ_ITEM = Script("return redis.call('HMGET', KEYS[1], 'kind', 'value')")

#: KEYS keys, expiries; ARGV prefix of items, key, "any" or "absent" or "equal", the call's token,
#: kind, value, milliseconds to live or "", now, expected kind, expected value. Gives 1 if it wrote.
WRITE_ITEM = Script(
    _FORGET_DUE
    + """
local key, mode, token, ttl = ARGV[2], ARGV[3], ARGV[4], ARGV[7]
local item = ARGV[1] .. key
local old = redis.call('HMGET', item, 'kind', 'value', 'token')
if old[3] == token then return 1 end
if mode == 'absent' and old[2] then return 0 end
if mode == 'equal' and (old[1] ~= ARGV[9] or old[2] ~= ARGV[10]) then return 0 end
redis.call('DEL', item)
redis.call('HSET', item, 'kind', ARGV[5], 'value', ARGV[6], 'token', token, 'updated_at', ARGV[8])
redis.call('ZADD', KEYS[1], 0, key)
if ttl == '' then
  redis.call('ZREM', KEYS[2], key)
else
  local due = string.format('%.0f', now + tonumber(ttl))
  redis.call('HSET', item, 'expires_at', due)
  redis.call('PEXPIREAT', item, due)
  redis.call('ZADD', KEYS[2], due, key)
end
return 1
"""
)

#: KEYS keys, expiries; ARGV prefix of items, key, expected kind or "", expected value. Gives 1 if
#: it was there (and as expected).
DELETE_ITEM = Script(
    _FORGET_DUE
    + """
local item = ARGV[1] .. ARGV[2]
local old = redis.call('HMGET', item, 'kind', 'value')
if not old[2] then return 0 end
if ARGV[3] ~= '' and (old[1] ~= ARGV[3] or old[2] ~= ARGV[4]) then return 0 end
redis.call('DEL', item)
redis.call('ZREM', KEYS[1], ARGV[2])
redis.call('ZREM', KEYS[2], ARGV[2])
return 1
"""
)

#: KEYS keys, expiries; ARGV prefix of items, prefix of keys, key to begin after or "", limit, most
#: bytes of values. Gives the key to go on after ("" at the end), and {key, kind, value, expires_at
#: or "", updated_at} of each item. Looks at ten times the limit at most, so that it never takes
#: long.
LIST_ITEMS = Script(
    _FORGET_DUE
    + r"""
local limit, space = tonumber(ARGV[4]), tonumber(ARGV[5])
local start = '[' .. ARGV[2]
if ARGV[3] ~= '' then start = '(' .. ARGV[3] end
local keys = redis.call('ZRANGE', KEYS[1], start, '(' .. ARGV[2] .. '\255', 'BYLEX', 'LIMIT', 0,
                        10 * limit + 1)
local found, last = {}, ''
for i, key in ipairs(keys) do
  if i > 10 * limit then return {last, found} end
  local item = redis.call('HMGET', ARGV[1] .. key, 'kind', 'value', 'expires_at', 'updated_at')
  if item[2] then
    space = space - #item[2]
    if #found == limit or (#found > 0 and space < 0) then return {last, found} end
    found[#found + 1] = {key, item[1], item[2], item[3] or '', item[4]}
  end
  last = key
end
return {'', found}
"""
)
