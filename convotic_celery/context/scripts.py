"""The store's operations that must be atomic, as Lua scripts. Each is one round trip.

Redis runs a script alone, so no other client sees half of it. All are written to be repeated: the
client repeats a call whose answer was lost, and a script that finds its own id or token answers as
it did the first time. Amounts pass as text, since Lua's numbers are floats. Keys are also derived
inside scripts, so the store is one Redis or Valkey, no cluster.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

__all__ = [
    "CLOSE_CONVERSATION",
    "COUNT_IDS",
    "CREATE_CONTACT",
    "CREATE_CONVERSATION",
    "DELETE_CONTACT",
    "FIND_CONTACT_BY_EMAIL",
    "FIND_CONTACT_BY_EXTERNAL_ID",
    "FIND_OPEN_CONVERSATION",
    "FIND_OR_CREATE_CONTACT",
    "INCREMENT_TOTALS",
    "LIST_PAGE",
    "READ_HASH",
    "SEND_MESSAGE",
    "SET_TAG",
    "UPDATE_CONTACT",
    "Script",
]


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script; the server knows it by ``sha`` once it has seen ``text``."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


#: KEYS hash; gives its names and values, empty if there is none.
READ_HASH = Script("return redis.call('HGETALL', KEYS[1])")

#: KEYS sorted set of ids.
COUNT_IDS = Script("return redis.call('ZCARD', KEYS[1])")

#: KEYS contact, by-external-id, contacts, [by-email]; ARGV id, external id or "", then the hash.
#: Gives the id of the contact that has the external id: another's if it was taken.
CREATE_CONTACT = Script("""
local id, external_id = ARGV[1], ARGV[2]
if redis.call('EXISTS', KEYS[1]) == 1 then return id end
if external_id ~= '' then
  local owner = redis.call('HGET', KEYS[2], external_id)
  if owner then return owner end
  redis.call('HSET', KEYS[2], external_id, id)
end
redis.call('ZADD', KEYS[3], 0, id)
if KEYS[4] then redis.call('ZADD', KEYS[4], 0, id) end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
return id
""")

#: KEYS by-external-id, contacts, [by-email]; ARGV external id, prefix of contacts, id, now, then
#: the rest of the hash. Gives the hash of the contact that has the external id, empty if this call
#: created it. An argument costs the server more than a line of Lua, so none is passed twice.
FIND_OR_CREATE_CONTACT = Script("""
local owner = redis.call('HGET', KEYS[1], ARGV[1])
if owner then return redis.call('HGETALL', ARGV[2] .. owner) end
local external_id, id, now = ARGV[1], ARGV[3], ARGV[4]
redis.call('HSET', KEYS[1], external_id, id)
redis.call('ZADD', KEYS[2], 0, id)
if KEYS[3] then redis.call('ZADD', KEYS[3], 0, id) end
redis.call('HSET', ARGV[2] .. id, 'id', id, 'external_id', external_id, 'created_at', now,
  'updated_at', now, unpack(ARGV, 5))
return {}
""")

#: KEYS by-external-id; ARGV external id, prefix of contacts.
FIND_CONTACT_BY_EXTERNAL_ID = Script("""
local id = redis.call('HGET', KEYS[1], ARGV[1])
if not id then return {} end
return redis.call('HGETALL', ARGV[2] .. id)
""")

#: KEYS by-email; ARGV prefix of contacts. The oldest contact with the address.
FIND_CONTACT_BY_EMAIL = Script("""
local ids = redis.call('ZRANGE', KEYS[1], 0, 0)
if #ids == 0 then return {} end
return redis.call('HGETALL', ARGV[1] .. ids[1])
""")

#: KEYS contact, by-external-id; ARGV id, prefix of by-email, how many pairs, pairs to set, then
#: names to remove. Gives {"missing"}, {"taken", owner} or {"done", hash}.
UPDATE_CONTACT = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return {'missing'} end
local id, by_email, last = ARGV[1], ARGV[2], 3 + 2 * tonumber(ARGV[3])
local set, removed = {}, {}
for i = 4, last, 2 do set[ARGV[i]] = ARGV[i + 1] end
for i = last + 1, #ARGV do removed[ARGV[i]] = true end
local old_external_id = redis.call('HGET', KEYS[1], 'external_id')
local old_email = redis.call('HGET', KEYS[1], '_email')
if set.external_id and set.external_id ~= old_external_id then
  local owner = redis.call('HGET', KEYS[2], set.external_id)
  if owner and owner ~= id then return {'taken', owner} end
  redis.call('HSET', KEYS[2], set.external_id, id)
end
if old_external_id and (removed.external_id or
    (set.external_id and set.external_id ~= old_external_id)) then
  redis.call('HDEL', KEYS[2], old_external_id)
end
if old_email and (removed._email or (set._email and set._email ~= old_email)) then
  redis.call('ZREM', by_email .. old_email, id)
end
if set._email then redis.call('ZADD', by_email .. set._email, 0, id) end
redis.call('HSET', KEYS[1], unpack(ARGV, 4, last))
if last < #ARGV then redis.call('HDEL', KEYS[1], unpack(ARGV, last + 1)) end
return {'done', redis.call('HGETALL', KEYS[1])}
""")

#: KEYS contact; ARGV tag's field, "add" or "remove", now. Gives 1 changed, 0 not, -1 no contact.
SET_TAG = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
local changed
if ARGV[2] == 'add' then
  changed = redis.call('HSETNX', KEYS[1], ARGV[1], '')
else
  changed = redis.call('HDEL', KEYS[1], ARGV[1])
end
if changed == 1 then redis.call('HSET', KEYS[1], 'updated_at', ARGV[3]) end
return changed
""")

#: KEYS contact; ARGV idempotency key or "", the call's token, now, then all fields, then all
#: amounts. Without an idempotency key the token is remembered for ten minutes. Gives 1 added, 0 was
#: added before, -1 no contact; an overflow takes back what was added and is an error.
#:
#: Lua's numbers are doubles, exact below 2^53: sums that may be larger are left to HINCRBY, one by
#: one, and so are those of so many fields that unpack() does not take them.
INCREMENT_TOTALS = Script("""
local contact, key, token, count = KEYS[1], ARGV[1], ARGV[2], (#ARGV - 3) / 2
local are_few = count <= 1000
local kept = redis.call('HMGET', contact, 'id', unpack(ARGV, 4, are_few and 3 + count or 3))
if not kept[1] then return -1 end
local applied = contact .. ':applied'
if key == '' then
  applied = applied .. ':' .. token
  if not redis.call('SET', applied, token, 'NX', 'EX', 600) then return 1 end
elseif redis.call('HSETNX', applied, key, token) == 0 then
  if redis.call('HGET', applied, key) == token then return 1 end
  return 0
end
local are_exact, changes, limit = are_few, {'updated_at', ARGV[3]}, 2^52
for i = 1, are_few and count or 0 do
  local sum, amount = tonumber(kept[i + 1] or 0), tonumber(ARGV[3 + count + i])
  if sum >= limit or sum <= -limit or amount >= limit or amount <= -limit then
    are_exact = false
    break
  end
  changes[2 * i + 1], changes[2 * i + 2] = ARGV[3 + i], sum + amount
end
if are_exact then
  redis.call('HSET', contact, unpack(changes))
  return 1
end
for i = 4, 3 + count do
  local sum = redis.pcall('HINCRBY', contact, ARGV[i], ARGV[count + i])
  if type(sum) == 'table' and sum.err then
    for j = 4, i - 1 do
      local amount = ARGV[count + j]
      local opposite = '-' .. amount
      if string.sub(amount, 1, 1) == '-' then opposite = string.sub(amount, 2) end
      redis.call('HINCRBY', contact, ARGV[j], opposite)
    end
    if key == '' then redis.call('DEL', applied) else redis.call('HDEL', applied, key) end
    return sum
  end
end
redis.call('HSET', contact, 'updated_at', ARGV[3])
return 1
""")

#: KEYS contact, by-external-id, contacts; ARGV id, prefix. Takes conversations and messages along.
DELETE_CONTACT = Script("""
local key, id, prefix = KEYS[1], ARGV[1], ARGV[2]
if redis.call('EXISTS', key) == 0 then return 0 end
local indexed = redis.call('HMGET', key, 'external_id', '_email')
if indexed[1] then redis.call('HDEL', KEYS[2], indexed[1]) end
if indexed[2] then redis.call('ZREM', prefix .. 'contacts:by-email:' .. indexed[2], id) end
for _, conversation in ipairs(redis.call('ZRANGE', key .. ':conversations', 0, -1)) do
  local owned = prefix .. 'conversation:' .. conversation
  for _, message in ipairs(redis.call('ZRANGE', owned .. ':messages', 0, -1)) do
    redis.call('DEL', prefix .. 'message:' .. message)
  end
  redis.call('DEL', owned, owned .. ':messages', owned .. ':sent')
end
redis.call('DEL', key, key .. ':applied', key .. ':conversations', key .. ':conversations:open')
redis.call('ZREM', KEYS[3], id)
return 1
""")

#: KEYS contact, its conversations, conversation; ARGV id, then the hash. Gives 0 if no contact.
CREATE_CONVERSATION = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if redis.call('EXISTS', KEYS[3]) == 1 then return 1 end
redis.call('ZADD', KEYS[2], 0, ARGV[1])
redis.call('ZADD', KEYS[2] .. ':open', 0, ARGV[1])
redis.call('HSET', KEYS[3], unpack(ARGV, 2))
return 1
""")

#: KEYS the contact's open conversations; ARGV prefix of conversations. The newest that is open.
FIND_OPEN_CONVERSATION = Script("""
local ids = redis.call('ZRANGE', KEYS[1], 0, 0, 'REV')
if #ids == 0 then return {} end
return redis.call('HGETALL', ARGV[1] .. ids[1])
""")

#: KEYS conversation; ARGV id, prefix of contacts. Gives the hash, empty if there is none.
CLOSE_CONVERSATION = Script("""
local contact = redis.call('HGET', KEYS[1], 'contact_id')
if not contact then return {} end
redis.call('ZREM', ARGV[2] .. contact .. ':conversations:open', ARGV[1])
redis.call('HSET', KEYS[1], 'status', 'closed')
return redis.call('HGETALL', KEYS[1])
""")

#: KEYS conversation, its messages, sent, schedule; ARGV id, idempotency key or "", prefix of
#: messages, prefix of scheduled messages, the announcement's schedule id, topic, data and
#: attributes (or "" each), then the hash. Gives the first message's hash for a known key, empty if
#: this call added one, nil if no conversation. The announcement is due at once (since ever).
SEND_MESSAGE = Script("""
local id, key, messages, announcement = ARGV[1], ARGV[2], ARGV[3], ARGV[5]
if redis.call('EXISTS', KEYS[1]) == 0 then return nil end
if key ~= '' and redis.call('HSETNX', KEYS[3], key, id) == 0 then
  return redis.call('HGETALL', messages .. redis.call('HGET', KEYS[3], key))
end
if announcement ~= '' and redis.call('EXISTS', messages .. id) == 0 then
  redis.call('HSET', ARGV[4] .. announcement, 'topic', ARGV[6], 'data', ARGV[7],
    'attributes', ARGV[8], 'ordering_key', '', 'optional', '1')
  redis.call('ZADD', KEYS[4], 0, announcement)
end
redis.call('ZADD', KEYS[2], 0, id)
redis.call('HSET', messages .. id, unpack(ARGV, 9))
return {}
""")

#: KEYS sorted set of ids; ARGV where to begin, limit, prefix of the items, "" or "REV".
LIST_PAGE = Script("""
local ids
if ARGV[4] == 'REV' then
  ids = redis.call('ZRANGE', KEYS[1], ARGV[1], '-', 'BYLEX', 'REV', 'LIMIT', 0, ARGV[2])
else
  ids = redis.call('ZRANGE', KEYS[1], ARGV[1], '+', 'BYLEX', 'LIMIT', 0, ARGV[2])
end
local found = {}
for _, id in ipairs(ids) do found[#found + 1] = redis.call('HGETALL', ARGV[3] .. id) end
return found
""")
