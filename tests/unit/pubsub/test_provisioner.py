"""What a queue needs is asked for at the same time, and nothing of it goes on after the answer."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from convotic_pubsub.client.provisioning import Provisioner
from convotic_pubsub.errors import AccessDenied
from convotic_pubsub.options import TransportOptions
from tests.support.pubsub import make_spec
from tests.support.waiting import wait_until_async
from tests.unit.pubsub.test_access_denied import denied


async def test_a_refused_queue_is_told_once_nothing_of_it_is_under_way() -> None:
    """The next look, or the session's end, would come beside a request that is still out."""
    spec, asked, go_on = make_spec(), list[str](), asyncio.Event()

    async def get_subscription(path: str) -> Any:
        asked.append(path)
        if path.endswith(spec.dead_letter_topic):
            await go_on.wait()
        raise denied("no")

    broker: Any = SimpleNamespace(
        rpc=SimpleNamespace(get_subscription=get_subscription), is_emulated=True
    )
    told = asyncio.ensure_future(Provisioner(broker, TransportOptions(project="p")).ensure(spec))
    await wait_until_async(lambda: len(asked) == 2)
    for _ in range(10):
        await asyncio.sleep(0)

    assert not told.done()
    go_on.set()
    with pytest.raises(AccessDenied):
        await told
