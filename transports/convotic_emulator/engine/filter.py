r"""Pub/Sub's filter language: parsed once, when a subscription is created.

Grammar (https://cloud.google.com/pubsub/docs/subscription-message-filter)::

    filter     = term { "AND" term } | term { "OR" term }    (mixing needs parentheses)
    term       = [ "NOT" | "-" ] ( "(" filter ")" | comparison )
    comparison = "attributes" ":" key
               | "attributes" "." key ( "=" | "!=" ) string
               | "hasPrefix" "(" "attributes" "." key "," string ")"
    key        = bare word of [A-Za-z0-9_-] | string
    string     = "..." with the escapes \\ \" \' \n \r \t ... \xHH \ooo \uHHHH \UHHHHHHHH

A message without the key satisfies ``!=``: it is the negation of ``=``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from convotic_emulator.errors import InvalidArgument

__all__ = ["MAX_FILTER_BYTES", "Predicate", "parse_filter"]

#: https://cloud.google.com/pubsub/docs/subscription-message-filter#filtering_syntax
MAX_FILTER_BYTES = 256

#: Decides by a message's attributes whether the subscription gets it.
Predicate: TypeAlias = Callable[[Mapping[str, str]], bool]

_TOKEN = re.compile(
    r'\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<word>[A-Za-z0-9_][A-Za-z0-9_-]*)'
    r"|(?P<sign>!=|[=:.,()-]))",
    re.DOTALL,
)
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3})|(.))", re.DOTALL
)
_SIMPLE_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_OPERATORS = frozenset({"AND", "OR", "NOT"})


def parse_filter(text: str) -> Predicate | None:
    """Return the predicate of a filter expression; None for an empty one.

    Raises:
        InvalidArgument: with the position and what was expected there.
    """
    if not text.strip():
        return None
    size = len(text.encode())
    if size > MAX_FILTER_BYTES:
        raise InvalidArgument(
            f"Invalid filter: {size} bytes; a filter has at most {MAX_FILTER_BYTES}."
        )
    parser = _Parser(text)
    predicate = parser.expression()
    parser.expect_end()
    return predicate


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokenize(text)
        self._index = 0

    def expression(self) -> Predicate:
        terms = [self._term()]
        operator = self._peek()
        if operator not in ("AND", "OR"):
            return terms[0]
        while self._accept(operator):
            terms.append(self._term())
        if self._peek() in ("AND", "OR"):
            raise self._error("AND and OR can't be mixed without parentheses")
        return _all_of(terms) if operator == "AND" else _any_of(terms)

    def expect_end(self) -> None:
        if self._index < len(self._tokens):
            raise self._error("expected AND, OR or the end")

    def _term(self) -> Predicate:
        if self._accept("NOT") or self._accept("-"):
            return _negate(self._term())
        if self._accept("("):
            inner = self.expression()
            self._expect(")")
            return inner
        return self._comparison()

    def _comparison(self) -> Predicate:
        if self._accept("hasPrefix"):
            self._expect("(")
            self._expect("attributes")
            self._expect(".")
            key = self._key()
            self._expect(",")
            prefix = self._string()
            self._expect(")")
            return lambda attributes: (
                attributes.get(key, "").startswith(prefix) and (key in attributes)
            )
        self._expect("attributes")
        if self._accept(":"):
            key = self._key()
            return lambda attributes: key in attributes
        self._expect(".")
        key = self._key()
        if self._accept("!="):
            unwanted = self._string()
            # get() has a default of "" on protobuf maps: presence is checked apart.
            return lambda attributes: key not in attributes or attributes[key] != unwanted
        self._expect("=")
        wanted = self._string()
        return lambda attributes: key in attributes and attributes[key] == wanted

    def _key(self) -> str:
        kind, value, _ = self._current("an attribute key")
        if kind == "sign" or (kind == "word" and value in _OPERATORS):
            raise self._error("expected an attribute key")
        self._index += 1
        return value

    def _string(self) -> str:
        kind, value, _ = self._current("a string in double quotes")
        if kind != "string":
            raise self._error("expected a string in double quotes")
        self._index += 1
        return value

    def _current(self, wanted: str) -> tuple[str, str, int]:
        if self._index >= len(self._tokens):
            raise self._error(f"expected {wanted}")
        return self._tokens[self._index]

    def _peek(self) -> str:
        if self._index >= len(self._tokens):
            return ""
        kind, value, _ = self._tokens[self._index]
        return "" if kind == "string" else value

    def _accept(self, value: str) -> bool:
        if self._peek() == value and value:
            self._index += 1
            return True
        return False

    def _expect(self, value: str) -> None:
        if not self._accept(value):
            raise self._error(f"expected {value!r}")

    def _error(self, what: str) -> InvalidArgument:
        at_end = self._index >= len(self._tokens)
        position = len(self._text) if at_end else self._tokens[self._index][2]
        return InvalidArgument(f"Invalid filter at position {position}: {what}: {self._text!r}")


def _tokenize(text: str) -> list[tuple[str, str, int]]:
    tokens: list[tuple[str, str, int]] = []
    position = 0
    end = len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            raise InvalidArgument(
                f"Invalid filter at position {position}: unexpected character: {text!r}"
            )
        kind = match.lastgroup or ""
        value = match[kind]
        if kind == "string":
            value = _unescape(value[1:-1])
        tokens.append((kind, value, match.start(kind)))
        position = match.end()
    return tokens


def _unescape(text: str) -> str:
    return _ESCAPE.sub(_replace_escape, text)


def _replace_escape(match: re.Match[str]) -> str:
    hexadecimal = match[1] or match[2] or match[3]
    if hexadecimal:
        code = int(hexadecimal, 16)
    elif match[4]:
        code = int(match[4], 8)
    elif match[5] in "xuU":
        raise InvalidArgument(f"Invalid filter: {match[0]} must have 2, 4 or 8 hexadecimal digits.")
    else:
        return _SIMPLE_ESCAPES.get(match[5], match[5])
    try:
        return chr(code)
    except (ValueError, OverflowError):
        raise InvalidArgument(f"Invalid filter: {match[0]} is no character.") from None


def _all_of(terms: list[Predicate]) -> Predicate:
    return lambda attributes: all(term(attributes) for term in terms)


def _any_of(terms: list[Predicate]) -> Predicate:
    return lambda attributes: any(term(attributes) for term in terms)


def _negate(term: Predicate) -> Predicate:
    return lambda attributes: not term(attributes)
