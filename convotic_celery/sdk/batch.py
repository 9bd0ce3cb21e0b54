"""Handlers that take many messages at once: :class:`BatchOptions`, :class:`BatchFailed`.

::

    @module.worker("custom.orders.new", batch=BatchOptions(max_size=100, max_wait=0.2))
    async def store_orders(messages: list[WorkerMessage[Order]], ctx: ConvoticContext) -> None:
        await database.insert_many([message.data for message in messages])
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from convotic_celery.sdk.message import WorkerMessage

__all__ = ["BatchFailed", "BatchOptions"]


class BatchOptions(BaseModel):
    """How many messages a handler takes at once. Frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    max_size: int = Field(
        default=100, ge=1, le=1000, description="Messages that one call gets, at most."
    )
    max_wait: float = Field(
        default=0.2,
        ge=0,
        le=10,
        allow_inf_nan=False,
        description="Seconds that the first message of a batch waits for others, at most.",
    )


class BatchFailed(Exception):
    """Raised by a batch handler: these messages have failed, all others have succeeded.

    Args:
        failures: The error of each, by message or by message id. An error is what the handler would
            have raised for that message alone: ``Retry``, ``DeadLetter`` and ``Drop`` too.

    Raises:
        ValueError: ``failures`` is empty.
        TypeError: It does not map messages, or their ids, to exceptions.

    """

    def __init__(
        self,
        failures: Mapping[str, Exception] | Iterable[tuple[WorkerMessage[Any] | str, Exception]],
    ) -> None:
        pairs = failures.items() if isinstance(failures, Mapping) else failures
        #: The error of each failed message, by its id.
        self.failures: dict[str, Exception] = {}
        for key, error in pairs:
            message_id = key.id if isinstance(key, WorkerMessage) else key
            if not isinstance(message_id, str) or not isinstance(error, Exception):
                raise TypeError(
                    "BatchFailed takes failed messages, or their ids, each with its exception, "
                    f"not {type(key).__name__} with {type(error).__name__}."
                )
            self.failures[message_id] = error
        if not self.failures:
            raise ValueError("BatchFailed without a failure: return instead of raising it.")
        super().__init__(self.failures)

    def __str__(self) -> str:
        first = next(iter(self.failures.values()))
        return f"{len(self.failures)} messages of the batch failed; the first with {first!r}"
