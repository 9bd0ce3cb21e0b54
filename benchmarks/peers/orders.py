"""The sample's order handler as an ordinary Celery task with redis-py, as one would write it.

``python -m benchmarks.peers.orders N FILE`` publishes the first N orders of FILE, one JSON a line.
"""

from __future__ import annotations

import json
import os
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import redis

from benchmarks.peers.celery_app import app, note

#: Any: its types allow for bytes and coroutines.
store: Any = redis.Redis.from_url(os.environ["BENCH_STORE"], decode_responses=True)

#: KEYS by-external-id; ARGV id, external id, then the hash. Gives the id that has it.
_CREATE = store.register_script("""
local owner = redis.call('HGET', KEYS[1], ARGV[2])
if owner then return owner end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[1])
redis.call('HSET', 'contact:' .. ARGV[1], unpack(ARGV, 3))
return ARGV[1]
""")
#: KEYS contact, applied; ARGV key, then names and amounts.
_INCREMENT = store.register_script("""
if redis.call('SADD', KEYS[2], ARGV[1]) == 0 then return 0 end
for i = 2, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
""")


@app.task(name="process_order")
def process_order(order: dict[str, Any]) -> None:
    """Find or create the contact, tag it, count the order once, look for a conversation."""
    external_id = str(order["customer_id"])
    contact_id = store.hget("contacts", external_id)
    if contact_id is None:
        created = {"external_id": external_id, "created_at": time.time()}
        fields = [text for pair in created.items() for text in pair]
        contact_id = _CREATE(keys=["contacts"], args=[os.urandom(8).hex(), external_id, *fields])
    contact = store.hgetall(f"contact:{contact_id}")
    if "tag:has-order" not in contact:
        store.hset(f"contact:{contact_id}", "tag:has-order", "")
    cents = int(Decimal(str(order["total"])) * 100)
    amounts = ["orders", 1, "units", order["quantity"], "cents", cents]
    _INCREMENT(
        keys=[f"contact:{contact_id}", f"applied:{contact_id}"],
        args=[f"order:{order['id']}", *amounts],
    )
    conversation = store.lindex(f"conversations:{contact_id}", 0)
    if conversation:
        store.rpush(f"messages:{conversation}", f"Thank you for your order #{order['id']}!")
    note(0)


def main() -> None:
    lines = Path(sys.argv[2]).read_text().splitlines()[: int(sys.argv[1])]
    store.flushall()
    with app.producer_pool.acquire(block=True) as producer:
        for line in lines:
            process_order.apply_async((json.loads(line),), producer=producer)
    print(len(lines))


if __name__ == "__main__":
    main()
