"""The files that ``convotic new`` writes. ``$name`` and the like are filled in by ``string``."""

from __future__ import annotations

__all__ = ["GITIGNORE", "LAUNCH", "MODULE", "PYTEST", "TEST"]

MODULE = '''\
"""What happens to each message of $topic."""

from convotic_celery import ConvoticContext, ConvoticModule, WorkerMessage
from pydantic import BaseModel


class Item(BaseModel):
    """The data of a message; data that does not fit is dead-lettered."""

    id: int
    name: str


module = ConvoticModule(name="$name", version="0.1.0")


@module.worker("$topic", max_retries=3, ack_deadline=30, concurrency=10)
async def process_item(message: WorkerMessage[Item], ctx: ConvoticContext) -> None:
    """Store the item. Safe to repeat: Pub/Sub may deliver a message twice."""
    item = message.data
    ctx.logger.info("Processing item", item_id=item.id)
    await ctx.storage.set(f"item:{item.id}", item)
'''

TEST = '''\
"""Tests of $name: its handlers run in the test's process, with a real store."""

from convotic_celery.testing import convotic_app
from $stem import module


async def test_an_item_is_stored() -> None:
    async with convotic_app(module) as app:
        await app.publish("$topic", data={"id": 1, "name": "first"})
        await app.drain()

        assert await app.ctx.storage.get("item:1") == {"id": 1, "name": "first"}


async def test_data_that_does_not_fit_is_dead_lettered() -> None:
    async with convotic_app(module) as app:
        await app.publish("$topic", data={"wrong": True})
        await app.drain()

        assert [dead.reason for dead in app.dead_letters] == ["invalid"]
'''

PYTEST = """\
[pytest]
testpaths = tests
pythonpath = $modules
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""

GITIGNORE = """\
# The embedded servers' data.
.convotic/
.venv/
__pycache__/
.pytest_cache/
"""

LAUNCH = """\
{
  "version": "0.2.0",
  "configurations": [
    {
      "name": "Attach to convotic dev --debug",
      "type": "debugpy",
      "request": "attach",
      "connect": {"host": "127.0.0.1", "port": 5678},
      "justMyCode": true
    },
    {
      "name": "Tests",
      "type": "debugpy",
      "request": "launch",
      "module": "pytest",
      "justMyCode": true
    }
  ]
}
"""
