"""A worker that ends: what it holds and has not run is another worker's at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.pubsub import pull
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from tests.integration.celery.conftest import Plain


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_what_waits_for_its_eta_goes_back_at_once(plain: Plain, pool: str) -> None:
    """Celery holds what is due soon; its lease would keep that from others for a minute."""
    with plain.worker("leaving", "-P", pool) as worker:
        inspect = plain.app.control.inspect(timeout=PATIENCE, limit=1)
        sent: list[Any] = []

        def is_held() -> bool:
            if not sent or sent[-1].ready():  # a busy machine may have run the one before
                sent.append(plain.send("add", 1, 2, countdown=9))
            return sent[-1].id in str(inspect.scheduled())

        wait_until(is_held)
        worker.terminate()
        assert worker.wait(PATIENCE) == 0

    back = wait_until(lambda: list(pull(plain.session, f"{plain.prefix}celery")))

    assert [sent[-1].id in str(each.message.data) for each in back] == [True]
    plain.session.resources.purge(plain.session.spec("celery"))
