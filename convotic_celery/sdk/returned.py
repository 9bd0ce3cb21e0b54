"""What a handler returns is not used, but it may show a mistake that would lose the message."""

from __future__ import annotations

import inspect

__all__ = ["check_returned"]


def check_returned(returned: object) -> None:
    """Raise TypeError if what a handler has returned shows that its work was not done.

    Else the message would be acknowledged: a coroutine that nobody awaits (a plain function, or a
    decorator's, that returns one), and an outcome that was returned instead of raised.
    """
    if returned is None:
        return
    if inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        raise TypeError(
            f"the handler returned a {type(returned).__name__} that nobody awaits: write it as "
            "async def, and await that in it. A decorator around it has to be async def, too."
        )
    if isinstance(returned, BaseException):
        raise TypeError(f"the handler returned {returned!r} instead of raising it.")
