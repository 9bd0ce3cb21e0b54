"""Definitions of schemas, which anybody may send."""

from __future__ import annotations

import pytest

from convotic_emulator.errors import InvalidArgument
from convotic_emulator.services.avro import parse_definition


@pytest.mark.parametrize("text", ["", "[", "[" * 100_000, '{"type": "record"}', '"none"'])
def test_an_invalid_definition_is_refused(text: str) -> None:
    """Also one nested deeper than Python follows."""
    with pytest.raises(InvalidArgument, match="Invalid schema definition"):
        parse_definition(text)
