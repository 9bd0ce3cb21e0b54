"""An example payload fits the model that it is made of."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic_core import to_json

from convotic_celery.documents.examples import build_example
from convotic_celery.documents.schemas import build_schema


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class Line(BaseModel):
    sku: Annotated[str, Field(min_length=6, max_length=8)]
    quantity: Annotated[int, Field(ge=3)]
    price: Annotated[Decimal, Field(gt=0)]


class Order(BaseModel):
    id: UUID
    at: datetime
    day: date
    lasts: timedelta
    lines: Annotated[list[Line], Field(min_length=2)]
    size: Size
    kind: Literal["web", "shop"]
    note: str | None
    pair: tuple[int, str]
    extra: dict[str, int]
    share: Annotated[float, Field(gt=0, lt=1, default=0.5)]


class Tree(BaseModel):
    name: str
    left: Tree | None = None
    children: list[Tree]


class Given(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"b": 1, "a": 2}]})

    a: int
    b: int


@pytest.mark.parametrize(
    "kind", [Order, Tree, Given, int, bool, list[Order], Order | None, dict[str, Any]]
)
def test_an_example_fits(kind: Any) -> None:
    """Formats, limits, enumerations, models in models, and models that contain themselves."""
    example = build_example(build_schema(kind))

    TypeAdapter(kind).validate_json(to_json(example))


def test_the_authors_own_example_comes_first() -> None:
    """In the author's order."""
    assert list(build_example(build_schema(Given))) == ["b", "a"]


def test_any_json_begins_with_an_object() -> None:
    """A handler without a model takes whatever comes."""
    assert build_example(build_schema(None)) == {}
