"""One Valkey for all context tests; each test has keys of its own in it."""

from __future__ import annotations

import concurrent.futures
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from convotic_celery.context import (
    ConvoticContext,
    Delivery,
    Services,
    Store,
    SyncConvoticContext,
)
from convotic_pubsub.outgoing import OutgoingMessage
from tests.support.valkey import run_valkey

DELIVERY = Delivery(handler="custom.orders.new.crm", topic="custom.orders.new", message_id="17")


class NoPublisher:
    """A publisher for tests that publish nothing."""

    def publish(self, message: OutgoingMessage, **_: object) -> concurrent.futures.Future[str]:
        raise AssertionError(f"published {message}")


@pytest.fixture(scope="session")
def store_url() -> Iterator[str]:
    with run_valkey() as server:
        yield server.url


@pytest.fixture
def key_prefix() -> str:
    return f"test-{uuid.uuid4().hex[:8]}:"


@pytest_asyncio.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    store = Store(store_url)
    yield store
    await store.aclose()
    store.close()


@pytest.fixture
def services(store: Store, key_prefix: str) -> Services:
    return Services(store, NoPublisher(), key_prefix=key_prefix)


@pytest.fixture
def ctx(services: Services) -> ConvoticContext:
    return services.async_context(DELIVERY)


@pytest.fixture
def sync_ctx(services: Services) -> SyncConvoticContext:
    return services.sync_context(DELIVERY)
