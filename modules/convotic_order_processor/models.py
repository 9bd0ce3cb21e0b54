"""What an order looks like on the topic ``custom.orders.new``."""

from datetime import date
from decimal import Decimal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Order", "OrderQueued"]


class Order(BaseModel):
    """One order of one customer; only the two ids are required.

    ::

        {"id": "cdnow-00001", "customer_id": "cdnow-0001", "ordered_on": "1997-01-01",
         "quantity": 2, "total": 29.33}

    Unknown fields are ignored, so a shop may send more than we read.
    """

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True)

    #: Numbers are read as text: ``{"id": 1}`` is the order "1".
    id: str = Field(min_length=1, max_length=400)
    customer_id: str = Field(min_length=1, max_length=500)
    ordered_on: date | None = None
    #: Units bought.
    quantity: int = Field(default=1, ge=0)
    #: What the order costs, to the cent.
    total: Decimal = Field(default=Decimal(0), max_digits=14, decimal_places=2)
    customer_name: str | None = Field(default=None, max_length=1_000)
    customer_email: str | None = Field(default=None, max_length=500)


class OrderQueued(BaseModel):
    """The response to a published order, which is processed later."""

    message: str = "Order queued for processing"
    #: Pub/Sub's message id, which the worker logs.
    message_id: str
