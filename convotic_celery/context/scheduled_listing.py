"""Delayed messages as people look at them: a page of those that wait, and one with all its data.

Reading changes nothing: a listed message is still published when it is due.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict
from pydantic_core import from_json

from convotic_celery.context.models import Page
from convotic_celery.context.scripts import Script
from convotic_celery.errors import InvalidField

__all__ = [
    "LIST_SCHEDULED",
    "READ_SCHEDULED",
    "DelayedMessage",
    "listing_arguments",
    "parse_delayed",
    "parse_listing",
]

MAX_LIMIT = 1_000
#: Of each message's data in a list: a page of large messages must not fill the memory.
PREVIEW_BYTES = 2_000
_CURSOR = re.compile(r"\d{1,16}:scheduled-[0-9a-f-]{36}")

#: Gives id, due time, topic, data up to a size (0: all of it), size of the data, attributes,
#: ordering key, failures, "1" if a publisher has it. A character that the cut halves is left out.
_DESCRIBE = """
local function describe(id, due, key, most)
  local topic, data, attributes, ordering_key, failures, claim =
    unpack(redis.call('HMGET', key, 'topic', 'data', 'attributes', 'ordering_key', 'failures',
      'claim'))
  if not topic then return nil end
  local size = #data
  if most > 0 and size > most then
    data = string.gsub(string.sub(data, 1, most), '[\\192-\\255][\\128-\\191]*$', '')
  end
  return {id, due, topic, data, tostring(size), attributes, ordering_key, failures or '0',
    claim and '1' or ''}
end
"""

#: KEYS schedule; ARGV prefix of messages, limit, bytes of data, score and id of the last one seen
#: or "". Gives how many wait in all, and the messages, the next one due first.
LIST_SCHEDULED = Script(
    _DESCRIBE
    + """
local prefix, limit, most, score, last = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]),
  ARGV[4], ARGV[5]
local start = 0
if last ~= '' then
  local rank = redis.call('ZRANK', KEYS[1], last)
  if rank and tonumber(redis.call('ZSCORE', KEYS[1], last)) == tonumber(score) then
    start = rank + 1
  else
    start = redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. score)
  end
end
local found = {}
local rows = redis.call('ZRANGE', KEYS[1], start, start + limit - 1, 'WITHSCORES')
for i = 1, #rows, 2 do
  found[#found + 1] = describe(rows[i], rows[i + 1], prefix .. rows[i], most)
end
return {redis.call('ZCARD', KEYS[1]), found}
"""
)

#: KEYS schedule, message; ARGV id. Gives the message with all its data; nil if it does not wait.
READ_SCHEDULED = Script(
    _DESCRIBE
    + """
local due = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not due then return nil end
return describe(ARGV[1], due, KEYS[2], 0)
"""
)


class DelayedMessage(BaseModel):
    """A delayed message that waits, as it was when it was read."""

    model_config = ConfigDict(frozen=True)

    #: Its schedule id.
    id: str
    topic: str
    #: When it is published, UTC; moved on while a publisher has it, and after a failed publish.
    due_at: datetime
    #: JSON text; in a list its beginning.
    data: str
    #: Bytes of all the data.
    size: int
    attributes: Mapping[str, str]
    ordering_key: str
    #: How often it could not be published.
    failures: int
    #: A worker is publishing it now, or died while it did.
    is_taken: bool

    @property
    def is_cut(self) -> bool:
        """True if ``data`` is only the beginning."""
        return len(self.data.encode()) < self.size


def listing_arguments(limit: int, cursor: str | None) -> list[str]:
    """Return the arguments of ``LIST_SCHEDULED`` after the prefix; raises InvalidField."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        raise InvalidField(f"limit must be 1 to {MAX_LIMIT}, not {limit!r}")
    if cursor is not None and not _CURSOR.fullmatch(str(cursor)):
        raise InvalidField(f"{cursor!r} is not a cursor: pass a page's next_cursor")
    score, _, last = (cursor or "").partition(":")
    return [str(limit + 1), str(PREVIEW_BYTES), score, last]


def parse_listing(
    answer: tuple[int, Iterable[Sequence[str]]], limit: int
) -> tuple[int, Page[DelayedMessage]]:
    """Return how many messages wait, and the page, of what ``LIST_SCHEDULED`` has given."""
    total, rows = answer
    rows = list(rows)
    items = tuple(map(_parse, rows[:limit]))
    cursor = f"{int(float(rows[limit - 1][1]))}:{items[-1].id}" if len(rows) > limit else None
    return total, Page(items=items, next_cursor=cursor)


def parse_delayed(row: Sequence[str] | None) -> DelayedMessage | None:
    """Return the message that ``READ_SCHEDULED`` has given."""
    return None if row is None else _parse(row)


def _parse(row: Sequence[str]) -> DelayedMessage:
    schedule_id, due, topic, data, size, attributes, ordering_key, failures, taken = row
    return DelayedMessage(
        id=schedule_id,
        topic=topic,
        due_at=datetime.fromtimestamp(float(due) / 1000, UTC),
        data=data,
        size=int(size),
        attributes=from_json(attributes),
        ordering_key=ordering_key,
        failures=int(failures),
        is_taken=bool(taken),
    )
