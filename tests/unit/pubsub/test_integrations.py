"""What Celery and Flower get of us is undone as well as done."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from convotic_pubsub.kombu import integrations

#: The parts of Celery and Flower that are replaced, by module and class.
PLACES = {
    ("celery.worker.consumer.connection", "Connection"): ("start",),
    ("celery.worker.consumer.mingle", "Mingle"): ("send_hello",),
    ("celery.worker.consumer.gossip", "Gossip"): (),
    ("celery.worker.consumer.consumer", "Consumer"): ("add_task_queue", "cancel_task_queue"),
    ("celery.events.receiver", "EventReceiver"): (
        *("event_from_message", "_receive", "get_consumers"),
    ),
    ("flower.views", "Broker"): (),
    ("flower.events", "EventsState"): ("event",),
    ("flower.utils.blocking", "BlockingOperationRunner"): ("run",),
}


@pytest.fixture
def loaded() -> None:
    """All of them are in this process, unchanged."""
    for module, _ in PLACES:
        importlib.import_module(module)
    integrations.uninstall()


def read_places() -> dict[str, Any]:
    """Return what stands where we put something."""
    found: dict[str, Any] = {}
    for (module, name), members in PLACES.items():
        target = getattr(importlib.import_module(module), name)
        found[name] = (target, set(getattr(target, "compatible_transports", ())))
        found |= {f"{name}.{member}": getattr(target, member) for member in members}
    return found


@pytest.mark.usefixtures("loaded")
def test_uninstall_leaves_celery_and_flower_as_they_were() -> None:
    """Installing twice changes what it is to change, once; undoing brings each original back."""
    before = read_places()

    integrations.install()
    installed = read_places()
    integrations.install()
    again = read_places()
    integrations.uninstall()
    integrations.uninstall()

    assert again == installed
    assert {name for name in before if before[name] != installed[name]} >= {
        "Mingle.send_hello",
        "Gossip",
        "Broker",
        "EventReceiver._receive",
        "EventsState.event",
        "BlockingOperationRunner.run",
    }
    assert read_places() == before


def test_each_place_is_covered() -> None:
    """A patch without a row here was never seen undone."""
    assert set(integrations._PATCHES) == set(PLACES)
