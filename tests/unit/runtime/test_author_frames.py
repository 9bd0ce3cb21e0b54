"""Where the author's code begins in an error's stack."""

from __future__ import annotations

import asyncio

from convotic_celery.errors import ConvoticError
from convotic_celery.runtime.delivery.error_text import error_stack


def fail(depth: int) -> None:
    """Raise below so many calls of itself."""
    if depth:
        fail(depth - 1)
    raise ValueError("no")


async def fail_later() -> None:
    """Raise in a coroutine."""
    fail(0)


def raised(depth: int = 0, *, run: bool = False) -> Exception:
    """Return an error as it is caught."""
    try:
        if run:
            asyncio.run(fail_later())
        fail(depth)
    except ValueError as error:
        return error
    raise AssertionError


def test_a_stack_has_functions_and_no_lines() -> None:
    """Outermost first; a recursion stands once."""
    module = __name__

    assert error_stack(raised()).split("\n") == [f"{module}:raised", f"{module}:fail"]
    assert error_stack(raised(50)) == error_stack(raised(3))


def test_a_stack_begins_at_the_authors_frame() -> None:
    """What a loop has between is the author's to see, what leads to it is not."""
    error = raised(run=True)
    assert error.__traceback__ is not None
    error = error.with_traceback(error.__traceback__.tb_next)  # as a worker's loop catches it

    assert error_stack(error).split("\n") == [f"{__name__}:fail_later", f"{__name__}:fail"]


def test_an_error_of_ours_has_no_stack() -> None:
    """Neither has one that was never raised."""
    assert error_stack(ConvoticError("no")) == ""
