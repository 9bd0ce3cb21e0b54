"""The servers that run when no others are named: the emulator and a Valkey, one a data folder.

Both are processes of their own: the first client starts them, other clients of the folder find
them, and they end 60 s after the last client. This package says where they are; the emulator itself
is :mod:`convotic_emulator`, and how a server is started and found is :mod:`convotic_local`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convotic_celery.errors import ConfigurationError

if TYPE_CHECKING:
    from convotic_celery.settings import Settings

__all__ = ["broker_address", "store_url"]


def broker_address(settings: Settings) -> str:
    """Return ``"127.0.0.1:PORT"`` of the data folder's emulator, after starting one if none runs.

    Blocks until it answers. Safe from many processes and threads at once.

    Raises:
        ConfigurationError: An embedded server would be a mistake here (production), or can't run.
    """
    settings.refuse_embedded_where_wrong()
    try:
        from convotic_emulator import daemon  # noqa: PLC0415 - not needed to find the store
    except ImportError as error:
        raise ConfigurationError(
            "The embedded emulator needs the package convotic-emulator, and it is not installed. "
            "Install it (pip install convotic-emulator), or set PUBSUB_EMULATOR_HOST to a running "
            "emulator, or CONVOTIC_BROKER_URL to your project."
        ) from error
    # Resolved: the server, which has another working folder, must mean the same one.
    folder = settings.data_dir.expanduser().resolve()
    try:
        return daemon.ensure_running(
            folder, idle_seconds=_idle_seconds(settings), fsync=settings.emulator_fsync
        )
    except OSError as error:
        raise ConfigurationError(
            f"The data folder {folder} can't be used: {error}. "
            "Set CONVOTIC_DATA_DIR to a folder that this user can write."
        ) from error
    except daemon.StartError as error:
        raise ConfigurationError(str(error)) from error


def store_url(settings: Settings) -> str:
    """Return the ``unix://`` URL of the data folder's Valkey, after starting one if none runs.

    It is meant for redis-py (``redis.Redis.from_url``). Blocks until the store answers. Safe from
    many processes and threads at once.

    Raises:
        ConfigurationError: An embedded server would be a mistake here (production), or can't run.
        StoreUnavailable: Valkey does not start.
    """
    from convotic_celery.embedded import store  # noqa: PLC0415 - as above: only who starts it pays

    settings.refuse_embedded_where_wrong()
    socket = store.ensure_running(settings.data_dir, idle_seconds=_idle_seconds(settings))
    return f"unix://{socket}"


def _idle_seconds(settings: Settings) -> float:
    """At least a second: a client that has the address needs time to connect."""
    return max(1.0, settings.emulator_idle_timeout)
