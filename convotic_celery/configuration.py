"""What an app is made of, from its settings: Celery's configuration, and where its servers are.

Nothing here starts a server; what may have to is given as a function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from kombu import Queue
from kombu.transport import get_transport_cls

from convotic_celery.errors import ConfigurationError
from convotic_celery.runtime.delivery.payload import SERIALIZER
from convotic_celery.runtime.schedule.beat import beat_entries
from convotic_celery.runtime.worker.binding import kombu_queue
from convotic_pubsub.errors import OptionError
from convotic_pubsub.options import parse_options

if TYPE_CHECKING:
    from convotic_celery.sdk.handler import HandlerDefinition
    from convotic_celery.sdk.schedule import ScheduleDefinition
    from convotic_celery.settings import Settings
    from convotic_pubsub.queue import QueueSpec

__all__ = [
    "LOCAL_BROKER_URL",
    "celery_configuration",
    "check_broker",
    "describe_place",
    "result_backend_url",
    "store_url",
]

#: The project of the embedded emulator, and of any other that ``PUBSUB_EMULATOR_HOST`` names.
LOCAL_BROKER_URL = "pubsub://convotic-local"


def celery_configuration(
    settings: Settings,
    definitions: Iterable[HandlerDefinition],
    schedules: Iterable[ScheduleDefinition],
    specs: Mapping[str, QueueSpec],
    on_dead_letter: Callable[..., object],
) -> dict[str, Any]:
    """Return Celery's settings.

    ``specs`` are the handlers' queues, by name; ``on_dead_letter`` is the option of that name.
    """
    return {
        "accept_content": ["json", SERIALIZER],
        # Often, so that a beat that has stopped is noticed in seconds.
        "beat_max_loop_interval": 5,
        "beat_schedule": beat_entries(schedules),
        "beat_scheduler": "convotic_celery.runtime.schedule.beat:TickingScheduler",
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {
            **_transport_options(settings, specs),
            "on_dead_letter": on_dead_letter,
        },
        "broker_url": settings.broker_url or LOCAL_BROKER_URL,
        "result_accept_content": ["json"],
        "result_expires": settings.result_expires,
        "task_create_missing_queues": False,
        "task_default_queue": "celery",
        "task_queues": [*map(kombu_queue, definitions), Queue("celery")],
        "task_serializer": "json",
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_remote_control": settings.remote_control,
        "worker_consumer": "convotic_celery.runtime.worker.consumer:HandlerConsumer",
        "worker_pool": "convotic_celery.runtime.pool.pool:TaskPool",
        "worker_pool_start_method": "spawn",
        "worker_prefetch_multiplier": 1,
        # By default Celery kills a child that has not started within 4 s, and then its
        # successor: a spawned one imports everything, which takes longer on a busy machine.
        "worker_proc_alive_timeout": 60.0,
        "worker_send_task_events": True,
    }


def _transport_options(settings: Settings, specs: Mapping[str, QueueSpec]) -> dict[str, Any]:
    """Return the options of the app's connections."""
    options: dict[str, Any] = {
        "provision": settings.provision,
        "publish_timeout_seconds": settings.publish_timeout,
        "prefix": settings.prefix,
        "impersonate_service_account": settings.impersonate_service_account,
        "labels": settings.labels,
        "message_storage_regions": settings.message_storage_regions,
        "pull_mode": settings.pull_mode,
        "visibility_timeout_seconds": settings.task_visibility_timeout,
        "max_lease_seconds": settings.task_max_lease,
        "default_max_outstanding": settings.task_max_outstanding,
        "max_delivery_attempts": settings.task_max_deliveries,
        "queues": dict(specs),
    }
    if settings.pubsub_endpoint:
        options["endpoint"] = settings.pubsub_endpoint
    if settings.credentials_file:
        options["credentials_file"] = str(settings.credentials_file.expanduser().resolve())
    if settings.pubsub_emulator_host:
        options["emulator_host"] = settings.pubsub_emulator_host
    elif settings.broker_is_embedded:
        options["emulator_host"] = partial(_embedded_broker, settings)
    return options


def check_broker(url: str, transport_options: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for a broker URL that nothing can connect to, now or later.

    Celery would try it again a hundred times.
    """
    scheme = url.partition("://")[0]
    try:
        if scheme == "pubsub":  # ours is there: no need to load it, and gRPC's streams with it
            parse_options(url, transport_options)
        else:
            get_transport_cls(scheme)  # raises for what is misspelt
            raise ConfigurationError(
                f"CONVOTIC_BROKER_URL: handlers run on pubsub://PROJECT, not on {scheme}://."
            )
    except (KeyError, ImportError, OptionError) as error:
        raise ConfigurationError(f"CONVOTIC_BROKER_URL: {error.args[0]}") from None


def describe_place(settings: Settings, definitions: Iterable[HandlerDefinition]) -> str:
    """Return where this process has looked for handlers, and where its messages are."""
    named = sorted({definition.module for definition in definitions})
    where = settings.modules_dir if settings.modules is None else ", ".join(settings.modules)
    parts = [f"Modules here: {', '.join(named) or 'none'}, from {where or 'no name'}"]
    if settings.broker_is_embedded:
        parts.append(f"data folder: {settings.data_folder}")
    return "; ".join(parts)


def _embedded_broker(settings: Settings) -> str:
    """Return the embedded emulator's address, after starting it if it does not run."""
    from convotic_celery.embedded import broker_address  # noqa: PLC0415 - not needed with a broker of one's own

    return broker_address(settings)


def store_url(settings: Settings) -> str | Callable[[], str]:
    """Return the store's address, or what starts the embedded one and returns that."""
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    return partial(_embedded_store, settings)


def _embedded_store(settings: Settings) -> str:
    """Return the embedded Valkey's URL, after starting it if it does not run."""
    from convotic_celery import embedded  # noqa: PLC0415 - as above

    return embedded.store_url(settings)


def result_backend_url(store_url: str) -> str:
    """Return the store's address as Celery's Redis backend writes it."""
    scheme, _, rest = store_url.partition("://")
    if scheme == "unix":
        return f"redis+socket://{rest}"
    if scheme == "rediss" and "ssl_cert_reqs=" not in rest:  # Celery has no default
        return f"{store_url}{'&' if '?' in rest else '?'}ssl_cert_reqs=required"
    return store_url
