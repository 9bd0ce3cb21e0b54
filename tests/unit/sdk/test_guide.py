"""docs/modules.md shows code that works, and lists what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from convotic_celery.context import (
    AsyncContacts,
    AsyncConversations,
    AsyncMessages,
    AsyncPubsub,
    AsyncStorage,
    Contact,
)
from convotic_celery.sdk import ConvoticModule, WorkerMessage, WorkerOptions

GUIDE = (Path(__file__).resolve().parents[3] / "docs" / "modules.md").read_text()


def test_code_blocks_run() -> None:
    """Read from top to bottom, as one file, they register what they say."""
    scope: dict[str, Any] = {"__name__": "guide"}
    for block in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL):
        exec(compile(block, "docs/modules.md", "exec"), scope)

    module, archive = scope["module"], scope["archive"]
    assert isinstance(module, ConvoticModule)
    assert [handler.queue for handler in module.collect_handlers()] == [
        "custom.orders.new.orders",
        "custom.orders.cancelled.orders",
        "custom.orders.events.orders",
        "custom.payments.new.orders",
        "custom.orders.new.orders.store",
        "custom.carts.changed.orders",
        "custom.invoices.wanted.orders",
        "custom.orders.paid.orders",
    ]
    assert [handler.queue for handler in archive.collect_handlers()] == [
        "custom.orders.new.archive"
    ]


def test_every_option_is_in_the_guide() -> None:
    """A new option is documented for authors."""
    options = GUIDE.partition("## Options")[2].partition("## The message")[0]

    assert [name for name in WorkerOptions.model_fields if f"`{name}`" not in options] == []


def test_every_attribute_and_service_is_in_the_guide() -> None:
    """So is a new method of a service."""
    names = {
        name
        for service in (AsyncContacts, AsyncConversations, AsyncMessages, AsyncPubsub, AsyncStorage)
        for name in vars(service)
        if not name.startswith("_")
    }
    names |= set(WorkerMessage.__dataclass_fields__) | set(Contact.model_fields)

    assert [name for name in sorted(names) if f"`{name}`" not in GUIDE] == []
