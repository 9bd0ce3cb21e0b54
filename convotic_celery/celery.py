"""The app that ``celery -A convotic_celery`` finds, configured by the environment."""

from __future__ import annotations

import click

from convotic_celery.app import create_app
from convotic_celery.errors import ConvoticError

__all__ = ["app"]

try:
    app = create_app()
except ConvoticError as error:
    if click.get_current_context(silent=True) is None:
        raise
    # Celery's command line would print the traceback of its own import machinery; what is wrong is
    # a module or a setting, and the error says which.
    raise SystemExit(f"convotic: {error}") from None
