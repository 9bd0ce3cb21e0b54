"""Describes wrong options in one line: which ones, and the rule of each. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

__all__ = ["UNKNOWN", "describe_options"]

#: The kind of error for a name that is no option: its text says all.
UNKNOWN: Final = "unknown_option"

#: What pydantic's kinds of error mean to an author; it fills in the bounds. Others are its words.
_RULES = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "extra_forbidden": "is unknown here",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "string_type": "must be text",
}

#: The value of ``backoff`` is something else.
_NO_BACKOFF = frozenset(
    {"model_attributes_type", "model_type", "union_tag_invalid", "union_tag_not_found"}
)


def describe_options(error: ValidationError) -> str:
    """Return one line that names each invalid option and its rule."""
    problems = error.errors(include_url=False, include_input=False)
    # A factory that was not called: a consequence of another option's error, reported itself.
    texts = [_describe(each) for each in problems if each["type"] != "default_factory_not_called"]
    return "; ".join(texts)


def _describe(problem: ErrorDetails) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    location = [str(part) for part in problem["loc"]]
    if location[:1] == ["backoff"]:
        if kind in _NO_BACKOFF:
            return (
                "backoff: it must be ConstantBackoff(delay=...) or ExponentialBackoff(initial=...)"
            )
        del location[1:2]  # which of the two it is: its text says so
    where = ".".join(location)
    rule = _fill(_RULES[kind], context) if kind in _RULES else ""
    if rule:
        return f"{where} {rule}"
    text = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {text}" if where and kind != UNKNOWN else text


def _fill(rule: str, context: dict[str, Any]) -> str:
    try:
        return rule.format(**context)
    except (KeyError, ValueError):  # a bound that is no number, such as a duration
        return ""
