"""The order processor: the module that ``convotic demo`` runs, and an example to start from."""

from convotic_order_processor.handler import module

__all__ = ["module"]
