"""A module's lifespan: opens what its handlers share, e.g. a connection pool, and closes it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

__all__ = ["Lifespan"]

#: An ``@asynccontextmanager`` function without parameters; what it yields is ``ctx.resource(...)``.
Lifespan: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]
