"""The filter language."""

from __future__ import annotations

import pytest

from convotic_emulator.engine.filter import parse_filter
from convotic_emulator.errors import InvalidArgument


@pytest.mark.parametrize(
    ("expression", "attributes", "expected"),
    [
        ("attributes:domain", {"domain": ""}, True),
        ("attributes:domain", {}, False),
        ("NOT attributes:domain", {}, True),
        ("-attributes:domain", {"domain": "x"}, False),
        ('attributes.domain = "com"', {"domain": "com"}, True),
        ('attributes.domain="com"', {"domain": "org"}, False),
        ('attributes.domain != "com"', {"domain": "org"}, True),
        ('attributes.domain != "com"', {}, True),
        ('attributes.domain = ""', {}, False),
        ('attributes."iana.org/tag" = "en"', {"iana.org/tag": "en"}, True),
        ('attributes:"a key"', {"a key": "1"}, True),
        ('hasPrefix(attributes.domain, "co")', {"domain": "com"}, True),
        ('hasPrefix(attributes.domain, "")', {}, False),
        ('NOT hasPrefix(attributes.domain, "co")', {}, True),
        ("attributes:a AND attributes:b", {"a": "1"}, False),
        ("attributes:a OR attributes:b", {"a": "1"}, True),
        ("attributes:a AND (attributes:b OR attributes:c)", {"a": "", "c": ""}, True),
        ("NOT (attributes:a OR attributes:b)", {"c": ""}, True),
        ("attributes:a AND NOT attributes:b AND attributes:c", {"a": "", "c": ""}, True),
        (r'attributes.a = "q\"\\\x41\102é"', {"a": 'q"\\ABé'}, True),
        ('attributes.a = "AND"', {"a": "AND"}, True),
        (
            'NOT attributes:"convotic-target" OR attributes."convotic-target" = "T.M"',
            {"convotic-target": "T.M"},
            True,
        ),
        ("attributes:convotic-target", {"convotic-target": "x"}, True),
    ],
)
def test_expressions(expression: str, attributes: dict[str, str], expected: bool) -> None:
    """What a filter lets through."""
    predicate = parse_filter(expression)

    assert predicate is not None
    assert predicate(attributes) is expected


@pytest.mark.parametrize(
    "expression",
    [
        "foo bar",
        "attributes",
        "attributes:",
        "attributes.a",
        "attributes.a = b",
        'attributes.a == "b"',
        'attributes.a = "b',
        "attributes:a AND",
        "attributes:a and attributes:b",
        "attributes:a AND attributes:b OR attributes:c",
        "(attributes:a",
        "attributes:a)",
        "attributes:AND",
        'hasPrefix(attributes.a "b")',
        "attributes:a.b",
        "attributes:" + "x" * 256,
        r'attributes.a = "\Uffffffff"',
        r'attributes.a = "\x1"',
        r'attributes.a = "\u12"',
    ],
)
def test_mistakes_are_refused(expression: str) -> None:
    """With the position in the text, never a wrong filter."""
    with pytest.raises(InvalidArgument, match="Invalid filter"):
        parse_filter(expression)


def test_an_empty_filter_is_none() -> None:
    """Everything passes."""
    assert parse_filter("") is None
    assert parse_filter("  ") is None
