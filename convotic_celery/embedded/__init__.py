"""The servers that run when no others are named: the emulator and a Valkey, one a data folder.

Both are processes of their own: the first client starts them, other clients of the folder find
them, and they end 60 s after the last client. This package says where they are; the emulator itself
is :mod:`convotic_emulator`, and how a server is started and found is :mod:`convotic_local`.

``store`` finds, starts and stops the Valkey of a folder, whose files ``paths`` names. Beside it
runs its ``supervisor``, which handles it as a process by ``valkey`` and asks it things by ``wire``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convotic_celery.errors import ConfigurationError

if TYPE_CHECKING:
    from convotic_celery.settings import Settings

__all__ = ["EmbeddedServers", "broker_address", "describe_servers", "store_url"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EmbeddedServers:
    """What of a process's servers is embedded, and where; "" for what is not."""

    broker: str = ""
    store: str = ""
    data_folder: str = ""
    #: Addresses of pages for a browser.
    pages: tuple[str, ...] = ()


def describe_servers(settings: Settings) -> EmbeddedServers:
    """Return what is embedded, after starting it; raises as :func:`broker_address` does."""
    broker, store, pages = "", "", ()
    if settings.broker_is_embedded:
        broker_address(settings)
        from convotic_emulator import daemon  # noqa: PLC0415 - it is installed, then

        record = daemon.status(settings.data_folder) or {}
        broker, pages = "embedded emulator", tuple(filter(None, [record.get("page")]))
    if settings.store_is_embedded:
        store_url(settings)
        store = "embedded Valkey"
    folder = str(settings.data_folder) if broker or store else ""
    return EmbeddedServers(broker, store, folder, pages)


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
    folder = settings.data_folder
    if daemon.status(folder) is None:
        # In another folder than meant it has no worker. Where nothing logs, a warning is seen.
        level = logging.INFO if logger.hasHandlers() else logging.WARNING
        logger.log(level, "Starting the embedded servers; their data is in %s", folder)
    try:
        return daemon.ensure_running(
            folder, idle_seconds=_idle_seconds(settings), fsync=settings.emulator_fsync
        )
    except OSError as error:
        raise ConfigurationError(
            f"The data folder {folder} can't be used: {error.strerror or error}. "
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
    from convotic_celery.embedded import store  # noqa: PLC0415 - as above: needed only to start it

    settings.refuse_embedded_where_wrong()
    socket = store.ensure_running(settings.data_folder, idle_seconds=_idle_seconds(settings))
    return f"unix://{socket}"


def _idle_seconds(settings: Settings) -> float:
    """At least a second: a client that has the address needs time to connect."""
    return max(1.0, settings.emulator_idle_timeout)
