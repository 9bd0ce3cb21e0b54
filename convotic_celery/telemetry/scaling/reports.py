"""What workers say of their handlers, in the store: :class:`Reports`.

So an autoscaler needn't find or reach any worker: a worker pool on Cloud Run has no port at all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from convotic_celery.context.database import SyncDatabase
from convotic_celery.context.scripts import Script
from convotic_celery.telemetry.scaling.demand import HandlerReport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convotic_celery.context.store import Store

__all__ = ["Known", "Reports"]

_KEPT_SECONDS = 30 * 24 * 3600
#: A worker that has not reported for this long no longer runs.
_FRESH_SECONDS = 10.0

#: KEYS workers, run times; ARGV worker, its report, seconds to live, then handlers and their run
#: times. The time is the store's, so clocks may differ.
_WRITE = Script("""
redis.call('HSET', KEYS[1], ARGV[1], redis.call('TIME')[1] .. ' ' .. ARGV[2])
if #ARGV > 3 then redis.call('HSET', KEYS[2], unpack(ARGV, 4)) end
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[3])
return 1
""")

#: KEYS workers; ARGV worker.
_REMOVE = Script("return redis.call('HDEL', KEYS[1], ARGV[1])")

#: KEYS workers, run times; ARGV for how many seconds a report counts. Gives reports, then handlers
#: and run times. What is old is deleted.
_READ = Script("""
local now, found, old = tonumber(redis.call('TIME')[1]), {}, {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local at, report = string.match(all[i + 1], '^(%d+) (.*)$')
  if now - tonumber(at) <= tonumber(ARGV[1]) then found[#found + 1] = report
  else old[#old + 1] = all[i] end
end
for _, worker in ipairs(old) do redis.call('HDEL', KEYS[1], worker) end
return {found, redis.call('HGETALL', KEYS[2])}
""")


@dataclass(frozen=True, slots=True)
class Known:
    """What the store knows of workers and handlers."""

    #: Of each worker that runs: by queue.
    workers: tuple[Mapping[str, HandlerReport], ...] = ()
    #: How long a run took lately, by queue; also where no worker runs now.
    run_seconds: Mapping[str, float] = field(default_factory=dict)

    def of(self, queue: str) -> list[HandlerReport]:
        """Return what workers say of a queue."""
        return [worker[queue] for worker in self.workers if queue in worker]


class Reports:
    """Writes and reads reports. Thread-safe; methods block and raise StoreUnavailable.

    Args:
        store: The store.
        key_prefix: Of all keys of the app.
    """

    def __init__(self, store: Store, *, key_prefix: str) -> None:
        self._database = SyncDatabase(store)
        self._keys = [f"{key_prefix}scaling:workers", f"{key_prefix}scaling:run-seconds"]

    def write(self, worker: str, handlers: Mapping[str, HandlerReport]) -> None:
        """Replace a worker's report; it counts for ten seconds."""
        report = json.dumps({queue: tuple(each) for queue, each in handlers.items()})
        seconds = [
            text
            for queue, each in handlers.items()
            if each.run_seconds is not None
            for text in (queue, f"{each.run_seconds:.6f}")
        ]
        self._database.run(_WRITE, self._keys, worker, report, str(_KEPT_SECONDS), *seconds)

    def remove(self, worker: str) -> None:
        """Forget a worker that ends. Idempotent."""
        self._database.run(_REMOVE, self._keys[:1], worker)

    def read(self) -> Known:
        """Return what is known now."""
        reports, seconds = self._database.run(_READ, self._keys, str(_FRESH_SECONDS))
        workers = tuple(
            {queue: HandlerReport(*each) for queue, each in json.loads(report).items()}
            for report in reports
        )
        return Known(workers, dict(zip(seconds[::2], map(float, seconds[1::2]), strict=True)))
