"""The storage: JSON and bytes by key, one namespace per module. Every call is atomic."""

# Generated from _async/storage.py by scripts/unasync.py; edit that.

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from convotic_celery.context import records, storage, storage_scripts

if TYPE_CHECKING:
    from datetime import timedelta

    from pydantic import JsonValue

    from convotic_celery.context.database import SyncDatabase
    from convotic_celery.context.keys import Keys
    from convotic_celery.context.models import Page
    from convotic_celery.context.storage import StorageItem

__all__ = ["SyncStorage"]

ValueT = TypeVar("ValueT")


class SyncStorage:
    """One module's data in the store, which other modules don't see.

    Keys are strings of 1 to 500 bytes; values are bytes, or anything with a JSON form except None.
    All methods raise StoreUnavailable while the store does not answer, and InvalidField for values
    that can't be stored. Each is one round trip.
    """

    def __init__(
        self,
        database: SyncDatabase,
        keys: Keys,
        module: str,
        *,
        max_value_bytes: int = storage.DEFAULT_MAX_VALUE_BYTES,
    ) -> None:
        self._database = database
        self._items = keys.storage_item(module, "")
        self._indexes = [keys.storage_keys(module), keys.storage_expiries(module)]
        self._max_value_bytes = max_value_bytes

    @overload
    def get(self, key: str) -> JsonValue: ...
    @overload
    def get(self, key: str, wanted: type[ValueT]) -> ValueT | None: ...
    def get(self, key: str, wanted: Any = None) -> Any:
        """Return the JSON under the key, None if there is none.

        With a type that pydantic can validate, ``get("order:1", Order)``, it returns an instance;
        raises InvalidField if the JSON does not fit, or if the key holds bytes.
        """
        kind, text = self._read(key)
        if wanted is None:
            return storage.decode_json_item(key, kind, text)
        return storage.decode_model_item(key, kind, text, wanted)

    def get_bytes(self, key: str) -> bytes | None:
        """Return the bytes under the key, None if there are none; raises InvalidField for JSON."""
        kind, text = self._read(key)
        return storage.decode_bytes_item(key, kind, text)

    def _read(self, key: str) -> tuple[str | None, str | None]:
        item = self._items + storage.check_key(key)
        kind, text = self._database.run(storage_scripts.READ_ITEM, [item])
        return kind, text

    def set(self, key: str, value: object, *, ttl: float | timedelta | None = None) -> None:
        """Store the value under the key, replacing any other.

        Args:
            key: Its name.
            value: Bytes, or anything with a JSON form: also models, dates, Decimals (as strings).
            ttl: Time to live, seconds or a timedelta; None: until it is deleted.

        Raises StorageValueTooLarge for more than CONVOTIC_STORAGE_MAX_VALUE_BYTES.
        """
        self._write(key, value, ttl, "any", None)

    def set_if_absent(
        self, key: str, value: object, *, ttl: float | timedelta | None = None
    ) -> bool:
        """Store the value if the key is free; True if it was.

        Of concurrent calls, one succeeds. Otherwise like ``set``.
        """
        return self._write(key, value, ttl, "absent", None)

    def compare_and_set(
        self, key: str, expected: object, value: object, *, ttl: float | timedelta | None = None
    ) -> bool:
        """Replace the value if it is still ``expected``; True if it was.

        None as ``expected`` means that the key is free. Read, change, write, and on False begin
        again: so no concurrent change is lost. Otherwise like ``set``.
        """
        mode = "absent" if expected is None else "equal"
        return self._write(key, value, ttl, mode, expected)

    def _write(
        self, key: str, value: object, ttl: float | timedelta | None, mode: str, expected: object
    ) -> bool:
        storage.check_key(key)
        stored = storage.encode_value(key, value, max_bytes=self._max_value_bytes)
        arguments = [self._items, key, mode, records.new_token(), stored.kind, stored.text]
        arguments += [storage.ttl_milliseconds(ttl), records.utc_now()]
        if mode == "equal":
            old = storage.encode_value(key, expected)
            arguments += [old.kind, old.text]
        written = self._database.run(storage_scripts.WRITE_ITEM, self._indexes, *arguments)
        return bool(written)

    def delete(self, key: str, *, expected: object = None) -> bool:
        """Delete the value, or only if it is ``expected``; True if it was deleted.

        False may also mean that the store's answer was lost and the call was repeated.
        """
        arguments = [self._items, storage.check_key(key)]
        if expected is not None:
            old = storage.encode_value(key, expected)
            arguments += [old.kind, old.text]
        else:
            arguments += ["", ""]
        deleted = self._database.run(storage_scripts.DELETE_ITEM, self._indexes, *arguments)
        return bool(deleted)

    def list(
        self, prefix: str = "", *, limit: int = 100, cursor: str | None = None
    ) -> Page[StorageItem]:
        """Return up to ``limit`` (1 to 1,000) items whose keys begin with ``prefix``, by key.

        A page may be shorter, even empty, and still have a ``next_cursor``: it ends at 8 MB of
        values. Items added or deleted meanwhile neither repeat nor hide others.
        """
        last, found = self._database.run(
            storage_scripts.LIST_ITEMS,
            self._indexes,
            self._items,
            *storage.list_arguments(prefix, limit, cursor),
        )
        return storage.parse_page(last, found)
