"""The pytest plugin, found by its entry point: fixtures for tests of modules.

Imports nothing of the framework before a fixture is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from convotic_celery.testing.app import AppUnderTest

__all__ = ["convotic_app", "convotic_store_url"]


@pytest.fixture(scope="session")
def convotic_store_url() -> str:
    """Return the address of a real, empty Valkey that lives as long as the session."""
    from convotic_celery.testing.store import shared_store_url  # noqa: PLC0415 - as said above

    return shared_store_url()


@pytest.fixture
def convotic_app() -> Callable[..., AbstractAsyncContextManager[AppUnderTest]]:
    """Return :func:`convotic_celery.testing.convotic_app`, to be used without an import.

    ::

        async def test_an_order(convotic_app):
            async with convotic_app(module) as app:
                await app.publish("custom.orders.new", data={"id": 1})
                await app.drain()

                assert app.dead_letters == []
    """
    from convotic_celery.testing import app  # noqa: PLC0415 - as said above

    found: Any = app.convotic_app
    return found  # type: ignore[no-any-return]  # a generic decorator hides its type
