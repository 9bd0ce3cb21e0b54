"""A handler's return value is ignored, but may reveal a mistake that would lose the message."""

from __future__ import annotations

import inspect

__all__ = ["check_returned"]


def check_returned(returned: object) -> None:
    """Raise TypeError if a handler's return value shows that its work was not done.

    Otherwise the message would be acknowledged. Such values are a coroutine that was never awaited
    (from a plain function, or a decorator), and an outcome that was returned instead of raised.
    """
    if returned is None:
        return
    if inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        raise TypeError(
            f"the handler returned a {type(returned).__name__} that was never awaited: make the "
            "handler an async def and await it there. A decorator must be async def, too."
        )
    if isinstance(returned, BaseException):
        raise TypeError(f"the handler returned {returned!r} instead of raising it.")
