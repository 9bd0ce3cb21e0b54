"""The demo's view of the store: how far the orders are, and the figures, read back."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from convotic_celery import embedded
from convotic_celery.cli.demo.figures import StoreFigures
from convotic_celery.context import Store, SyncContacts
from convotic_celery.context.database import SyncDatabase
from convotic_celery.context.keys import Keys
from convotic_celery.context.scripts import Script
from convotic_order_processor.handler import AMOUNT, ORDERS, UNITS

if TYPE_CHECKING:
    from convotic_celery.settings import Settings

__all__ = ["DemoStore"]

#: One total of all contacts, in millionths. Reading 2,357 contacts through their service takes
#: 0.2 s; this, asked ten times a second for the progress bar, takes 2 ms.
_SUM_TOTAL = Script("""
local sum = 0
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  sum = sum + (redis.call('HGET', ARGV[1] .. id, ARGV[2]) or 0)
end
return string.format('%.0f', sum / 1000000)
""")


class DemoStore:
    """Reads what the sample module has written. Close it."""

    def __init__(self, settings: Settings) -> None:
        """Connect to the settings' store on first use."""
        url = settings.redis_url
        self._keys = Keys(settings.store_key_prefix)
        self._store = Store(
            embedded.store_url(settings) if url is None else url.get_secret_value(),
            timeout_seconds=settings.store_timeout,
        )
        self._database = SyncDatabase(self._store)
        self._contacts = SyncContacts(self._database, self._keys)

    def count_processed(self) -> int:
        """Return how many orders the contacts' totals count."""
        return int(
            self._database.run(
                _SUM_TOTAL, [self._keys.contacts], self._keys.contact(""), f"total:{ORDERS}"
            )
        )

    def read_figures(self) -> StoreFigures:
        """Add up all contacts, read through the service that a handler uses.

        A contact that is not tagged ``has-order`` was not processed to the end and does not count.
        """
        contacts = orders = units = 0
        total = Decimal()
        cursor = None
        while True:
            page = self._contacts.list(limit=1000, cursor=cursor)
            for contact in page.items:
                contacts += "has-order" in contact.tags
                orders += int(contact.totals.get(ORDERS, 0))
                units += int(contact.totals.get(UNITS, 0))
                total += contact.totals.get(AMOUNT, Decimal())
            cursor = page.next_cursor
            if cursor is None:
                return StoreFigures(orders, contacts, units, total)

    def delete_everything(self) -> None:
        """Delete all keys of the settings' prefix; for a store that is not the demo's own.

        Does nothing if the store no longer answers: that was reported already.
        """
        client = self._store.sync_client()
        with suppress(RedisError):
            for key in client.scan_iter(match=f"{self._keys.prefix}*", count=1000):
                client.unlink(key)

    def close(self) -> None:
        """Close the connection."""
        self._store.close()
