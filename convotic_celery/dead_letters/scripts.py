"""The index's operations, as Lua scripts: each is atomic, and may be repeated.

All keys are below one prefix P (``convotic:dead-letters:``), which is ``ARGV[1]``::

    P entry:ID             hash: the fields of ``entry.FIELDS``, and
                             g   group           at  dead-lettered at    st  state
                             c   replay count of the newest dead letter
                             sent  replay count of the last replay: what is below it is done with
                             ed  what the next replay has as data        hi  history, a line each
    P state:STATE          sorted set of ids by the time they were dead-lettered
    P group:GROUP          hash: what its entries have in common, and when the first and last came
    P group:GROUP:STATE    sorted set of ids, as above
    P groups               sorted set of groups by the time of the last one
    P job:JOB, :todo       see ``jobs``
    P log                  stream of actions

Times are microseconds since 1970. Everything expires with the messages; members of sorted sets are
trimmed by their score.
"""

from __future__ import annotations

from convotic_celery.context.scripts import Script
from convotic_celery.dead_letters.entry import FIELDS

__all__ = [
    "COUNT",
    "DECIDE",
    "EDIT",
    "EXISTING",
    "GROUPS",
    "LOG",
    "MISSING",
    "MOVE",
    "READ",
    "READ_LOG",
    "RECORD",
    "SELECT",
    "WIDTH",
]

#: Arguments of one entry in RECORD.
WIDTH = 4 + len(FIELDS)

#: The states, and moving an entry from one to another.
_MOVE = """
local P = ARGV[1]
local function place(id, g, at, from, to)
  if from then
    redis.call('ZREM', P .. 'state:' .. from, id)
    redis.call('ZREM', P .. 'group:' .. g .. ':' .. from, id)
  end
  if to then
    redis.call('ZADD', P .. 'state:' .. to, at, id)
    redis.call('ZADD', P .. 'group:' .. g .. ':' .. to, at, id)
  end
end
local function noted(hi, at, action, by, detail)
  hi = (hi or '') .. at .. '\\t' .. action .. '\\t' .. by .. '\\t' .. detail .. '\\n'
  while #hi > 2000 do hi = string.sub(hi, string.find(hi, '\\n', 1, true) + 1) end
  return hi
end
"""

#: ARGV P, now, seconds to live, then of each entry id, group, at, replay count and FIELDS. Gives
#: of each "new", "again" (a replay failed), "same" or "stale" (already replayed or purged), and "1"
#: if it is the first of its group.
RECORD = Script(
    _MOVE
    + f"""
local now, ttl, names = ARGV[2], tonumber(ARGV[3]), {{{", ".join(repr(n) for n in FIELDS)}}}
local oldest = string.format('%.0f', now - ttl * 1000000)
local answer, touched = {{}}, {{}}
for i = 4, #ARGV, {WIDTH} do
  local id, g, at, count = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
  local key = P .. 'entry:' .. id
  local found = redis.call('HMGET', key, 'c', 'sent', 'st', 'g')
  local st, what, first = found[3], 'new', ''
  if st then
    local sent = tonumber(found[2] or 0)
    if count < sent then what = 'stale'
    elseif count > tonumber(found[1]) then what = 'again'
    else what = 'same' end
  end
  if what == 'same' and st == 'missing' then
    place(id, found[4], at, st, 'open')
    redis.call('HSET', key, 'st', 'open')
  end
  if what == 'new' or what == 'again' then
    local group = P .. 'group:' .. g
    if redis.call('EXISTS', group) == 0 then first = '1' end
    if st then place(id, found[4], at, st, nil) end
    local fields = {{'g', g, 'at', at, 'c', tostring(count), 'st', 'open'}}
    for n, name in ipairs(names) do
      fields[#fields + 1] = name
      fields[#fields + 1] = ARGV[i + 3 + n]
    end
    redis.call('HSET', key, unpack(fields))
    redis.call('HDEL', key, 'ed')
    local lives = math.max(1, math.ceil((at - oldest) / 1000000))
    redis.call('EXPIRE', key, lives)
    place(id, g, at, nil, 'open')
    redis.call('HSETNX', group, 'first', at)
    redis.call('HSET', group, 'h', ARGV[i + 4], 'r', ARGV[i + 9], 'e', ARGV[i + 10],
      'x', ARGV[i + 11], 's', ARGV[i + 12])
    if what == 'again' then redis.call('HINCRBY', group, 'again', 1) end
    redis.call('ZADD', P .. 'groups', 'GT', at, g)
    touched[group], touched[group .. ':open'] = true, true
  end
  answer[#answer + 1] = what
  answer[#answer + 1] = first
end
touched[P .. 'groups'], touched[P .. 'state:open'] = true, true
for each in pairs(touched) do redis.call('EXPIRE', each, ttl) end
redis.call('ZREMRANGEBYSCORE', P .. 'state:open', '-inf', '(' .. oldest)
return answer
"""
)

#: ARGV P, mark of a pass or "", todo of a job or "", then id and replay count of each message.
#: Gives of each "unknown", "stale", "todo" or "known"; what the pass has seen is marked.
DECIDE = Script("""
local P, mark, todo, answer = ARGV[1], ARGV[2], ARGV[3], {}
for i = 4, #ARGV, 2 do
  local key, count = P .. 'entry:' .. ARGV[i], tonumber(ARGV[i + 1])
  local found = redis.call('HMGET', key, 'c', 'sent', 'st')
  local what = 'known'
  if not found[3] then what = 'unknown'
  elseif count < tonumber(found[2] or 0) then what = 'stale'
  elseif count > tonumber(found[1]) or found[3] == 'missing' then what = 'unknown'
  elseif todo ~= '' and redis.call('ZSCORE', todo, ARGV[i]) then what = 'todo' end
  if mark ~= '' and what == 'known' then redis.call('HSET', key, 'seen', mark) end
  answer[#answer + 1] = what
end
return answer
""")

#: ARGV P, then ids. Gives those that there are.
EXISTING = Script("""
local P, answer = ARGV[1], {}
for i = 2, #ARGV do
  if redis.call('EXISTS', P .. 'entry:' .. ARGV[i]) == 1 then answer[#answer + 1] = ARGV[i] end
end
return answer
""")

#: ARGV P, then ids. Gives the hash of each, empty if it is gone.
READ = Script("""
local P, answer = ARGV[1], {}
for i = 2, #ARGV do answer[#answer + 1] = redis.call('HGETALL', P .. 'entry:' .. ARGV[i]) end
return answer
""")

#: ARGV P, oldest time, newest time, then sorted sets. Gives how many they have then.
COUNT = Script("""
local count = 0
for i = 4, #ARGV do
  count = count + redis.call('ZCOUNT', ARGV[1] .. ARGV[i], ARGV[2], ARGV[3])
end
return count
""")

#: ARGV P, sorted set, newest time, the id behind which to begin at that time or "", oldest time,
#: how many to look at, how many to take, a filter in JSON or "", oldest time that lives. Gives
#: "1" if there is more, time and id of the last one looked at, then the ids taken and their groups.
SELECT = Script("""
local P, key = ARGV[1], ARGV[1] .. ARGV[2]
local top, after, bottom = ARGV[3], ARGV[4], ARGV[5]
local budget, limit = tonumber(ARGV[6]), tonumber(ARGV[7])
local filter = ARGV[8] ~= '' and cjson.decode(ARGV[8]) or nil
redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. ARGV[9])
local function text(value)
  if value == cjson.null then return 'null' end
  if type(value) == 'number' then return string.format('%.17g', value) end
  return tostring(value)
end
local function at_path(value, path)
  for _, part in ipairs(path) do
    if type(value) ~= 'table' then return nil end
    local index = tonumber(part)
    local child = value[part]
    if child == nil and index then child = value[index + 1] end
    if child == nil then return nil end
    value = child
  end
  if type(value) == 'table' then return nil end
  return value
end
local function same(value, wanted)
  if value == nil then return false end
  if type(value) == 'number' then return tonumber(wanted) == value end
  return text(value) == wanted
end
-- What JSON writes as it is must stand in the text: that is seen before it is decoded.
local function plain(wanted) return string.find(wanted, '^[%w _.,:;@+-]+$') and wanted or nil end
local needed = {}
for _, pair in ipairs(filter and filter.payload or {}) do
  if plain(pair[2]) then needed[#needed + 1] = pair[2] end
end
-- Of an attribute that is nothing special in JSON: how it is written, so that none is decoded.
local pairs_as_text = {}
for name, wanted in pairs(filter and filter.attributes or {}) do
  if plain(name) and plain(wanted) then
    pairs_as_text[name] = '"' .. name .. '": "' .. wanted .. '"'
  end
end
local function group_of(entry, id)
  local g = redis.call('HGET', entry, 'g')
  if not g then redis.call('ZREM', key, id) end
  return g
end
local function takes(id)
  local entry = P .. 'entry:' .. id
  if not filter then return group_of(entry, id) end
  if filter.groups and not filter.groups[group_of(entry, id) or ''] then return nil end
  if filter.text then
    local found = redis.call('HMGET', entry, 'x', 's')
    if not found[1] or not (string.find(found[1], filter.text, 1, true)
        or string.find(found[2], filter.text, 1, true)) then return nil end
  end
  if filter.attributes then
    local raw = redis.call('HGET', entry, 'u')
    if not raw then return nil end
    local have = nil
    for name, wanted in pairs(filter.attributes) do
      if pairs_as_text[name] then
        if not string.find(raw, pairs_as_text[name], 1, true) then return nil end
      else
        have = have or cjson.decode(raw)
        if have[name] ~= wanted then return nil end
      end
    end
  end
  if filter.payload then
    local raw = redis.call('HGET', entry, 'b')
    if not raw then return nil end
    for _, wanted in ipairs(needed) do
      if not string.find(raw, wanted, 1, true) then return nil end
    end
    if redis.call('HGET', entry, 'k') ~= 'full' then return nil end
    local ok, data = pcall(cjson.decode, raw)
    if not ok then return nil end
    for _, pair in ipairs(filter.payload) do
      if not same(at_path(data, pair[1]), pair[2]) then return nil end
    end
  end
  return group_of(entry, id)
end
local answer, skipped = {'', '', ''}, 0
local ids = redis.call('ZRANGE', key, top, bottom, 'BYSCORE', 'REV', 'LIMIT', 0, budget,
  'WITHSCORES')
if after ~= '' then
  -- What shares the cursor's time and stands before it has been looked at.
  while ids[1] and tonumber(ids[#ids]) == tonumber(top) and ids[#ids - 1] >= after
      and #ids >= 2 * budget do
    skipped = skipped + budget
    ids = redis.call('ZRANGE', key, top, bottom, 'BYSCORE', 'REV', 'LIMIT', skipped, budget,
      'WITHSCORES')
  end
end
local first = 1
while after ~= '' and ids[first] and tonumber(ids[first + 1]) == tonumber(top)
    and ids[first] >= after do
  first = first + 2
end
local last = nil
for i = first, #ids, 2 do
  last = i
  local g = takes(ids[i])
  if g then
    answer[#answer + 1] = ids[i]
    answer[#answer + 1] = g
    limit = limit - 1
    if limit == 0 then break end
  end
end
if last then answer[2], answer[3] = string.format('%.0f', ids[last + 1]), ids[last] end
if limit == 0 or #ids >= 2 * budget then answer[1] = '1' end
return answer
""")

#: ARGV P, oldest time that lives, how many. Gives of each group, last one first: id, time of the
#: last one, its hash, and how many are open, replayed, archived, missing and purged.
GROUPS = Script("""
local P, answer = ARGV[1], {}
local last = redis.call('ZRANGE', P .. 'groups', '+inf', '-inf', 'BYSCORE', 'REV', 'LIMIT', 0,
  ARGV[3], 'WITHSCORES')
for i = 1, #last, 2 do
  local key = P .. 'group:' .. last[i]
  local hash = redis.call('HGETALL', key)
  if #hash == 0 then
    redis.call('ZREM', P .. 'groups', last[i])
  else
    local counts = {}
    for n, state in ipairs({'open', 'replayed', 'archived', 'missing', 'purged'}) do
      redis.call('ZREMRANGEBYSCORE', key .. ':' .. state, '-inf', '(' .. ARGV[2])
      counts[n] = redis.call('ZCARD', key .. ':' .. state)
    end
    answer[#answer + 1] = {last[i], string.format('%.0f', last[i + 1]), hash, counts}
  end
end
return answer
""")

#: ARGV P, now, seconds to live, state to move to, states to move from (":open:missing:"), action,
#: by, detail, job or "", then ids. Gives how many were moved. In a job they are done with, too.
MOVE = Script(
    _MOVE
    + """
local now, ttl, to, from, action = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local by, detail, job, moved = ARGV[7], ARGV[8], ARGV[9], 0
local touched, counts = {[P .. 'state:' .. to] = true}, {}
for i = 10, #ARGV do
  local id = ARGV[i]
  local key = P .. 'entry:' .. id
  local found = redis.call('HMGET', key, 'st', 'g', 'at', 'c', 'h', 'hi')
  if found[1] and string.find(from, ':' .. found[1] .. ':', 1, true) then
    place(id, found[2], found[3], found[1], to)
    local fields = {'st', to, 'hi', noted(found[6] or '', now, action, by, detail)}
    if to == 'replayed' or to == 'purged' then
      fields[5], fields[6] = 'sent', tostring(found[4] + 1)
    end
    redis.call('HSET', key, unpack(fields))
    if to == 'purged' then redis.call('HSET', key, 'b', '', 'k', 'none') end
    if to == 'replayed' then redis.call('HDEL', key, 'ed') end
    touched[P .. 'group:' .. found[2] .. ':' .. to] = true
    counts[found[5]] = (counts[found[5]] or 0) + 1
    moved = moved + 1
  end
  if job ~= '' then redis.call('ZREM', P .. 'job:' .. job .. ':todo', id) end
end
for each in pairs(touched) do redis.call('EXPIRE', each, ttl) end
if job ~= '' then
  for handler, n in pairs(counts) do
    redis.call('HINCRBY', P .. 'job:' .. job, 'of:' .. handler, n)
  end
  redis.call('HINCRBY', P .. 'job:' .. job, 'done', moved)
end
return moved
"""
)

#: ARGV P, now, id, coding and data ("" for the original's), by. Gives 1, or 0 if it is gone.
EDIT = Script(
    _MOVE
    + """
local key = P .. 'entry:' .. ARGV[3]
if redis.call('EXISTS', key) == 0 then return 0 end
if ARGV[4] == '' then redis.call('HDEL', key, 'ed') else redis.call('HSET', key, 'ed', ARGV[4]) end
local hi = redis.call('HGET', key, 'hi') or ''
redis.call('HSET', key, 'hi', noted(hi, ARGV[2], 'edit', ARGV[5], ''))
return 1
"""
)

#: ARGV P, now, seconds to live, mark of the pass, handler, then ids.
#: Those of the handler that the pass has not seen become "missing". Gives how many.
MISSING = Script(
    _MOVE
    + """
local mark, handler, count = ARGV[4], ARGV[5], 0
for i = 6, #ARGV do
  local id = ARGV[i]
  local key = P .. 'entry:' .. id
  local found = redis.call('HMGET', key, 'st', 'g', 'at', 'seen', 'h')
  if found[1] == 'open' and found[5] == handler and found[4] ~= mark then
    place(id, found[2], found[3], 'open', 'missing')
    redis.call('HSET', key, 'st', 'missing')
    redis.call('EXPIRE', P .. 'state:missing', ARGV[3])
    redis.call('EXPIRE', P .. 'group:' .. found[2] .. ':missing', ARGV[3])
    count = count + 1
  end
end
return count
"""
)

#: ARGV P, now, seconds to live, by, action, what, how many, job.
LOG = Script("""
redis.call('XADD', ARGV[1] .. 'log', 'MAXLEN', '~', 10000, '*', 'at', ARGV[2], 'by', ARGV[4],
  'action', ARGV[5], 'what', ARGV[6], 'count', ARGV[7], 'job', ARGV[8])
redis.call('EXPIRE', ARGV[1] .. 'log', ARGV[3])
return 1
""")

#: ARGV P, how many. Gives the fields of each, newest first.
READ_LOG = Script("""
local answer = {}
for _, item in ipairs(redis.call('XREVRANGE', ARGV[1] .. 'log', '+', '-', 'COUNT', ARGV[2])) do
  answer[#answer + 1] = item[2]
end
return answer
""")
