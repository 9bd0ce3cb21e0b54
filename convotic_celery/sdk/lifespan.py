"""A module's lifespan: opens and closes what its handlers share, e.g. a connection pool."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

__all__ = ["Lifespan"]

#: An ``@asynccontextmanager`` function without parameters; ``ctx.resource(...)`` has its value.
Lifespan: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]
