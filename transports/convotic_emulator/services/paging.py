"""Pages of a listing. The token is where the next page begins, so changes in between do no harm."""

from __future__ import annotations

from base64 import b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, TypeVar

from convotic_emulator.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from convotic_emulator.engine.rules import Proto

__all__ = ["page_of"]

#: The service's own default is not documented; clients follow the token anyway.
DEFAULT_PAGE = 100
MAX_PAGE = 1000

Item = TypeVar("Item")


def page_of(
    items: Sequence[Item], name_of: Callable[[Item], str], request: Proto
) -> tuple[list[Item], str]:
    """Return the page that a List request asks for, and the token of the next ("" for none)."""
    if request.page_size < 0:
        raise InvalidArgument(f"Invalid page_size (value={request.page_size}): it must be >= 0.")
    size = min(request.page_size or DEFAULT_PAGE, MAX_PAGE)
    try:
        first = b64decode(request.page_token, altchars=b"-_", validate=True).decode()
    except ValueError:
        raise InvalidArgument(f"Invalid page_token ({request.page_token!r}).") from None
    rest = [item for item in items if name_of(item) >= first]
    token = urlsafe_b64encode(name_of(rest[size]).encode()).decode() if len(rest) > size else ""
    return rest[:size], token
