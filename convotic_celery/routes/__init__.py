"""The routes of all modules as an ASGI application: ``convotic_celery.routes:create_asgi_app``.

Run it with ``convotic routes``, or with any ASGI server::

    uvicorn --factory convotic_celery.routes:create_asgi_app

Importing this package imports no web framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convotic_celery.routes.application import create_asgi_app

__all__ = ["create_asgi_app"]


def __getattr__(name: str) -> Any:
    if name != "create_asgi_app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from convotic_celery.routes.application import create_asgi_app  # noqa: PLC0415 - starlette

    return create_asgi_app
