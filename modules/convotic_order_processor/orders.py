"""The orders that ship with the module: 6,919 real ones, for the demo and for tests."""

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

__all__ = ["load_orders"]


def load_orders() -> Iterator[dict[str, Any]]:
    """Yield each order as it is in ``data/cdnow_orders.jsonl``, in the file's order."""
    source = files("convotic_order_processor") / "data" / "cdnow_orders.jsonl"
    with source.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
