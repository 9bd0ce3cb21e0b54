"""Delayed messages as they are kept in the store, and the scripts that change them atomically.

One sorted set says what is due when, one hash is the message::

    convotic:schedule            scheduled-0199...  1767225600000   milliseconds, the store's clock
    convotic:scheduled:scheduled-0199...
                                 topic, data, attributes, ordering_key
                                 claim       the delayed publisher that is publishing it
                                 unsure      1, if an earlier one may have published it
                                 failures    how often it could not be published
                                 optional    1, if it is dropped where there is no topic

A publisher that takes a message moves it in the set by a lock's length. So the messages of a killed
one become due by themselves, and the set alone says when to look next.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from pydantic_core import from_json, to_json

from convotic_celery.context.scripts import Script
from convotic_celery.errors import InvalidDelay, PublishRefused
from convotic_pubsub.outgoing import OutgoingMessage

__all__ = [
    "CANCEL",
    "CANCELLED_SECONDS",
    "IDLE_SECONDS",
    "ID_PREFIX",
    "LOCK_SECONDS",
    "MAX_TAKEN_BYTES",
    "NEXT_DUE",
    "POSTPONE",
    "RENEW",
    "SCHEDULE",
    "SETTLE",
    "TAKE_DUE",
    "Announcements",
    "Delay",
    "DueMessages",
    "ScheduledMessage",
    "check_amount",
    "check_schedule_id",
    "delay_milliseconds",
    "encode_scheduled",
    "parse_due",
    "parse_next_due",
]

#: Seconds, or a timedelta.
Delay: TypeAlias = float | timedelta

MAX_DELAY = timedelta(days=365)
#: Messages of one call and their bytes: a script has the store to itself while it runs.
MAX_MESSAGES = 10_000
MAX_BYTES = 50_000_000
#: What one take hands out at most, so that many large messages don't fill a worker's memory.
MAX_TAKEN_BYTES = 20_000_000
#: How long a killed publisher's messages stay where they are.
LOCK_SECONDS = 10.0
#: How often a delayed publisher looks when nothing is due sooner: others add messages meanwhile.
IDLE_SECONDS = 1.0
#: How long a cancelled id is remembered, for a call that is repeated after a lost answer.
CANCELLED_SECONDS = 600

#: What a schedule id begins with, so that it is not mistaken for a message id.
ID_PREFIX = "scheduled-"

#: Beginning of a script whose first argument is the time in milliseconds, or "" for the store's:
#: hosts with wrong clocks agree on when a message is due.
_NOW = """
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local function at(milliseconds) return string.format('%.0f', now + tonumber(milliseconds)) end
"""

#: KEYS schedule; ARGV now, delay in ms, prefix of messages, then id, topic, data, attributes and
#: ordering key of each. All or none.
SCHEDULE = Script(
    _NOW
    + """
for i = 4, #ARGV, 5 do
  local key = ARGV[3] .. ARGV[i]
  if redis.call('EXISTS', key) == 0 then
    redis.call('HSET', key, 'topic', ARGV[i + 1], 'data', ARGV[i + 2],
      'attributes', ARGV[i + 3], 'ordering_key', ARGV[i + 4])
    redis.call('ZADD', KEYS[1], at(ARGV[2]), ARGV[i])
  end
end
return 1
"""
)

#: KEYS schedule, message; ARGV id, the call's token, seconds to remember it. Gives 1 if the message
#: was still waiting. In any case it is not tried again.
CANCEL = Script("""
local topic, claim, unsure, cancelled =
  unpack(redis.call('HMGET', KEYS[2], 'topic', 'claim', 'unsure', 'cancelled'))
if cancelled == ARGV[2] then return 1 end
if not topic then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
if claim or unsure then return 0 end
redis.call('HSET', KEYS[2], 'cancelled', ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[3])
return 1
""")

#: KEYS schedule, watch; ARGV now, prefix of messages, the publisher's token, limit, most bytes,
#: lock in ms, idle time in ms. Gives the milliseconds until the next one is due (-1: none within
#: the idle time, or another publisher is awake for it) and {id, topic, data, attributes, ordering
#: key, failures, optional} of each message taken.
TAKE_DUE = Script(
    _NOW
    + """
local prefix, token, idle = ARGV[2], ARGV[3], tonumber(ARGV[7])
local taken, bytes = {}, 0
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], '-inf', at(0), 'BYSCORE', 'LIMIT', 0, ARGV[4])) do
  local key = prefix .. id
  local found = redis.call('HMGET', key, 'topic', 'data', 'attributes', 'ordering_key', 'failures',
    'optional')
  if not found[1] then
    redis.call('ZREM', KEYS[1], id)
  else
    bytes = bytes + #found[2]
    if #taken > 0 and bytes > tonumber(ARGV[5]) then break end
    if redis.call('HSET', key, 'claim', token) == 0 then redis.call('HSET', key, 'unsure', '1') end
    redis.call('ZADD', KEYS[1], at(ARGV[6]), id)
    taken[#taken + 1] = {id, found[1], found[2], found[3], found[4], found[5] or '0',
      found[6] or ''}
  end
end
local following = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local wait = -1
if following[2] then wait = math.max(0, following[2] - now) end
if wait > idle then wait = -1 end
if wait > 0 then
  local watcher = redis.call('GET', KEYS[2])
  if watcher and watcher ~= token then
    wait = -1
  else
    redis.call('SET', KEYS[2], token, 'PX', string.format('%.0f', wait + idle))
  end
end
return {wait, taken}
"""
)

#: KEYS schedule; ARGV now, prefix of messages, the publisher's token, lock in ms, then ids. What
#: another has taken meanwhile, or was cancelled, is left alone.
RENEW = Script(
    _NOW
    + """
for i = 5, #ARGV do
  if redis.call('HGET', ARGV[2] .. ARGV[i], 'claim') == ARGV[3] then
    redis.call('ZADD', KEYS[1], at(ARGV[4]), ARGV[i])
  end
end
return 1
"""
)

#: KEYS schedule; ARGV prefix of messages, then ids. Also if another has taken them meanwhile: they
#: are published.
SETTLE = Script("""
for i = 2, #ARGV do
  redis.call('ZREM', KEYS[1], ARGV[i])
  redis.call('DEL', ARGV[1] .. ARGV[i])
end
return 1
""")

#: KEYS schedule, message; ARGV now, id, the publisher's token, failures so far, delay in ms, "1" if
#: it is certain that the message was not published.
POSTPONE = Script(
    _NOW
    + """
if redis.call('HGET', KEYS[2], 'claim') ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[2], 'failures', ARGV[4])
if ARGV[6] == '1' then redis.call('HDEL', KEYS[2], 'claim') end
redis.call('ZADD', KEYS[1], at(ARGV[5]), ARGV[2])
return 1
"""
)

#: KEYS schedule; gives when the next message is due in milliseconds, nil if none waits.
NEXT_DUE = Script("return redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]")


@dataclass(frozen=True, slots=True)
class Announcements:
    """Where a service announces what it has done, through the schedule."""

    topic: str
    #: Set after one was kept.
    changed: threading.Event
    #: Returns the trace context of what runs here.
    trace: Callable[[], Mapping[str, str]] = dict

    def encode(self, record_id: str, data: Mapping[str, str]) -> tuple[str, str, str, str]:
        """Return schedule id, topic, data and attributes of the announcement of a new record."""
        attributes = to_json(dict(self.trace())).decode()
        return f"{ID_PREFIX}{record_id}", self.topic, to_json(data).decode(), attributes


@dataclass(frozen=True, slots=True)
class ScheduledMessage:
    """A delayed message that is due."""

    id: str
    message: OutgoingMessage
    #: How often it could not be published.
    failures: int
    #: It may be dropped where its topic does not exist.
    is_optional: bool


@dataclass(frozen=True, slots=True)
class DueMessages:
    """The messages that a publisher has taken, and when it should look next."""

    messages: Sequence[ScheduledMessage]
    #: Seconds until the next one is due, if that is within :data:`IDLE_SECONDS`; else None.
    next_due_seconds: float | None


def delay_milliseconds(delay: Delay) -> int:
    """Return the delay in milliseconds; raises InvalidDelay."""
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidDelay(
            f"delay is {type(delay).__name__}; it must be a number of seconds or a timedelta."
        )
    if not (math.isfinite(seconds) and 0 <= seconds <= MAX_DELAY.total_seconds()):
        raise InvalidDelay(f"delay is {seconds:g} seconds; 0 to {MAX_DELAY.days} days are allowed.")
    return math.ceil(seconds * 1000)


def encode_scheduled(schedule_id: str, message: OutgoingMessage) -> list[str]:
    """Return id and message as ``SCHEDULE`` takes them."""
    attributes = to_json(dict(message.attributes)).decode()
    return [schedule_id, message.topic, message.data.decode(), attributes, message.ordering_key]


def check_amount(messages: Sequence[OutgoingMessage]) -> None:
    """Raise PublishRefused if these are too many or too large for one call."""
    size = sum(len(message.data) for message in messages)
    if len(messages) > MAX_MESSAGES or size > MAX_BYTES:
        raise PublishRefused(
            f"{len(messages):,} delayed messages of {size:,} bytes: one call stores all or none, "
            f"so it accepts at most {MAX_MESSAGES:,} and {MAX_BYTES:,} bytes. Nothing was stored."
        )


def check_schedule_id(schedule_id: str) -> str:
    """Return the id; raises ValueError for anything that ``publish(delay=...)`` can't return."""
    if not isinstance(schedule_id, str) or not schedule_id.startswith(ID_PREFIX):
        raise ValueError(
            f"{schedule_id!r} is not a schedule id: pass what publish(..., delay=...) returned. "
            "A published message can't be cancelled."
        )
    return schedule_id


def parse_due(answer: tuple[int, Iterable[Sequence[str]]]) -> DueMessages:
    """Return what ``TAKE_DUE`` has given."""
    wait, taken = answer
    messages = [
        ScheduledMessage(
            id=schedule_id,
            message=OutgoingMessage(topic, data.encode(), _parse_attributes(attributes), key),
            failures=int(failures),
            is_optional=bool(optional),
        )
        for schedule_id, topic, data, attributes, key, failures, optional in taken
    ]
    return DueMessages(messages, None if wait < 0 else wait / 1000)


def parse_next_due(milliseconds: str | None) -> datetime | None:
    """Return the time that ``NEXT_DUE`` has given; what is due at once is due since 1970."""
    return None if milliseconds is None else datetime.fromtimestamp(float(milliseconds) / 1000, UTC)


def _parse_attributes(raw: str) -> Mapping[str, str]:
    attributes: dict[str, str] = from_json(raw)
    return attributes
