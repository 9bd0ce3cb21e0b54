"""``worker_prefetch_multiplier``: what a worker can't run yet is left for the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.pubsub import pull_all
from tests.support.waiting import never, wait_until

if TYPE_CHECKING:
    from tests.integration.celery.conftest import Plain


def test_a_worker_takes_its_prefetch_count(plain: Plain) -> None:
    """Two places and a multiplier of 2: four of twenty hanging tasks, the others stay."""
    with plain.worker("few", "-P", "threads", "--prefetch-multiplier", "2") as worker:
        for _ in range(20):
            plain.send("hang")
        inspect = plain.app.control.inspect(timeout=2)

        def held() -> int:
            replies = [inspect.active() or {}, inspect.reserved() or {}]
            return sum(len(tasks) for reply in replies for tasks in reply.values())

        wait_until(lambda: held() == 4)
        never(lambda: held() > 4, for_=0.5)
        left = pull_all(plain.session, f"{plain.prefix}celery", 16)
        worker.kill()

    assert len(left) == 16
