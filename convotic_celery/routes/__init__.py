"""The routes of all modules as a FastAPI application: ``convotic_celery.routes:create_asgi_app``.

Run it with ``convotic routes``, or with any ASGI server::

    uvicorn --factory convotic_celery.routes:create_asgi_app

application.py puts it together, api_route.py is one route of it, body.py what comes in, caller.py
the handler's call, answers.py and problems.py what goes out. FastAPI validates parameters, solves
dependencies and writes the OpenAPI document; ours are the handler's signature, its context, the
forms of an answer and problem details.

Nothing but the command line imports this package, and a worker never does: importing it imports no
web framework, only using ``create_asgi_app`` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convotic_celery.routes.application import create_asgi_app

__all__ = ["create_asgi_app"]


def __getattr__(name: str) -> Any:
    if name != "create_asgi_app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from convotic_celery.routes.application import create_asgi_app  # noqa: PLC0415 - FastAPI

    return create_asgi_app
