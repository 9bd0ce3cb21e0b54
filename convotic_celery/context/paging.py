"""Pages of long lists: what is asked of the store, and the cursor of the next page. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol, TypeVar

from convotic_celery.context.models import Page
from convotic_celery.errors import InvalidField

__all__ = ["Paging"]

_MAX_LIMIT = 1_000
#: Begins with an id that :func:`records.new_id` made.
_CURSOR = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-")


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


ItemT = TypeVar("ItemT", bound=_HasId)


@dataclass(frozen=True, slots=True)
class Paging:
    """One request for a page. A cursor is the id of the last item seen; ids sort by age.

    Items added or deleted meanwhile neither repeat nor hide others.
    """

    limit: int
    cursor: str | None
    newest_first: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.limit, int) or not 1 <= self.limit <= _MAX_LIMIT:
            raise InvalidField(f"limit must be 1 to {_MAX_LIMIT}, not {self.limit!r}")
        if self.cursor is not None and not _CURSOR.match(str(self.cursor)):
            raise InvalidField(f"{self.cursor!r} is not a cursor: pass a page's next_cursor")

    def arguments(self, item_prefix: str) -> tuple[str, str, str, str]:
        """Return the arguments of ``LIST_PAGE``; one extra item shows whether there are more."""
        start = "+" if self.newest_first else "-"
        if self.cursor is not None:
            start = f"({self.cursor}"
        return start, str(self.limit + 1), item_prefix, "REV" if self.newest_first else ""

    def page(self, found: list[ItemT]) -> Page[ItemT]:
        """Return the page of what was found."""
        items = tuple(found[: self.limit])
        return Page(items=items, next_cursor=items[-1].id if len(found) > self.limit else None)
