"""The app that ``celery -A convotic_celery`` finds, configured by the environment."""

from __future__ import annotations

import sys
from types import TracebackType

import click

from convotic_celery.app import create_app
from convotic_celery.errors import ConvoticError
from convotic_pubsub.errors import PubsubTransportError

__all__ = ["app"]


def _say_what_is_expected(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Print one line for an error that is meant for a person, and a traceback for a bug."""
    if isinstance(error, ConvoticError | PubsubTransportError):
        sys.stderr.write(f"convotic: {error}\n")
    else:
        sys.__excepthook__(kind, error, traceback)


if click.get_current_context(silent=True) is None:
    app = create_app()
else:  # Celery's command line, which would print the traceback of its own machinery
    sys.excepthook = _say_what_is_expected
    try:
        app = create_app()
        app.settings.refuse_embedded_where_wrong()
    except ConvoticError as error:
        raise SystemExit(f"convotic: {error}") from None
