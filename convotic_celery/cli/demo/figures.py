"""The figures of a demo, and what they must be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

__all__ = ["Expected", "Figures", "StoreFigures"]


@dataclass(frozen=True, slots=True)
class StoreFigures:
    """What the sample module has written to the store."""

    processed: int
    contacts: int
    units: int
    total: Decimal


@dataclass(frozen=True, slots=True)
class Figures:
    """What a demo did. Nothing here is computed from the orders that were published."""

    #: Publishes that the server confirmed.
    published: int
    #: Orders counted in the contacts' totals.
    processed: int
    contacts: int
    units: int
    total: Decimal
    #: Messages found in the dead-letter subscription.
    dead_lettered: int
    #: From the first publish until the last order was seen in the store.
    seconds: float

    @property
    def messages_per_second(self) -> float:
        """Processed orders a second, publishing included."""
        return self.processed / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``convotic demo --json`` prints."""
        values = asdict(self)
        values["total"] = float(self.total)
        values["seconds"] = round(self.seconds, 2)
        values["messages_per_second"] = round(self.messages_per_second, 1)
        return values


@dataclass(frozen=True, slots=True)
class Expected:
    """What a demo must read back if nothing is lost and nothing counted twice."""

    processed: int
    contacts: int
    units: int
    total: Decimal

    @classmethod
    def of(cls, orders: Iterable[Mapping[str, Any]]) -> Expected:
        """Add up the orders themselves."""
        listed = list(orders)
        return cls(
            processed=len(listed),
            contacts=len({order["customer_id"] for order in listed}),
            units=sum(order["quantity"] for order in listed),
            total=sum((Decimal(str(order["total"])) for order in listed), Decimal()),
        )

    def find_mismatches(self, figures: Figures) -> list[str]:
        """Return one line for each figure that is wrong; none if all is well."""
        wanted = asdict(self) | {"published": self.processed, "dead_lettered": 0}
        found = asdict(figures)
        return [
            f"{name} is {found[name]}, must be {value}"
            for name, value in wanted.items()
            if found[name] != value
        ]
