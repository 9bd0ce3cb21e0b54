"""The façade: every public name is there, and importing it costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import convotic_celery


@pytest.mark.parametrize("name", convotic_celery.__all__)
def test_public_name_is_there(name: str) -> None:
    """Each name of ``__all__`` can be used and is listed."""
    assert getattr(convotic_celery, name) is not None
    assert name in dir(convotic_celery)


def test_unknown_name_is_an_attribute_error() -> None:
    """As in any module."""
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        convotic_celery.nothing  # noqa: B018 - reading it is the test


def test_import_loads_nothing_else() -> None:
    """No client library, no framework, no settings: they come with the names that need them."""
    code = (
        "import sys, convotic_celery; "
        "print([n for n in ('celery', 'kombu', 'google', 'grpc', 'redis', 'pydantic', 'structlog')"
        " if n in sys.modules])"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == "[]"
