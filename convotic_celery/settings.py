"""All configuration, from the environment: :class:`Settings`. Nothing else reads ``os.environ``.

Every variable begins with ``CONVOTIC_``; an unknown one is an error, so typos are never ignored.
Names beginning with ``CONVOTIC_TEST_`` are left to test suites. A few variables of others are read
here too: ``PUBSUB_EMULATOR_HOST``, and those that identify the platform.
"""

import difflib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import (
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    field_serializer,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from convotic_celery.errors import ConfigurationError
from convotic_celery.project import find_project

__all__ = ["Settings"]

_PREFIX = "CONVOTIC_"
_TEST_PREFIX = "CONVOTIC_TEST_"
_DAY = 24 * 3600.0
#: https://cloud.google.com/pubsub/docs/labels (here without its international letters)
_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}=[a-z0-9_-]{0,63}")


class Settings(BaseSettings):
    """A process's settings; built once, by the command line or by the caller of ``create_app``.

    Keyword arguments take precedence over the environment. Frozen. Raises ConfigurationError, which
    names each invalid variable but not its value, since that may be a secret.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_by_alias=True,
        validate_by_name=True,
        validate_default=False,
    )

    broker_url: str | None = Field(
        default=None,
        description="pubsub://PROJECT. None: the embedded emulator, or the one that "
        "PUBSUB_EMULATOR_HOST names.",
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="redis://, rediss:// or unix:// address of the store and result backend "
        "(Redis or Valkey). None: the embedded Valkey.",
    )
    env: str = Field(
        default="development",
        description="Name of the environment; 'production' refuses the embedded servers.",
    )
    allow_embedded: bool = Field(
        default=False,
        description="Allow the embedded servers where they are otherwise refused, e.g. for tests "
        "on a Kubernetes runner.",
    )
    data_dir: Path = Field(
        default_factory=lambda: find_project() / ".convotic",
        description="Folder of the embedded servers' data and sockets; processes that use the same "
        "folder share the servers. Default: .convotic in the project, which is found from its "
        "sub-folders too.",
    )
    emulator_idle_timeout: float = Field(
        default=60.0,
        ge=0,
        description="Seconds until an embedded server ends after its last client has gone.",
    )
    emulator_fsync: bool = Field(
        default=False,
        description="Make the embedded emulator survive power loss, not only killed processes.",
    )

    modules: Annotated[list[str] | None, NoDecode] = Field(
        default=None,
        description="Modules to load, 'package' or 'package:attribute'; a JSON list or separated "
        "by commas. None: those in modules_dir and the entry points 'convotic.modules'.",
    )
    modules_dir: Path = Field(
        default_factory=lambda: find_project() / "modules",
        description="Folder whose packages and files are loaded as modules, if it exists. Default: "
        "modules in the project.",
    )
    services: str | None = Field(
        default=None,
        description="Function that plugs in services of your own, 'package.file:function'; called "
        "once per process with the Services.",
    )
    middleware: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="Middleware around all handlers and routes, outside the modules' own, the "
        "first outermost: 'package.file:name'; a JSON list or separated by commas.",
    )
    handler_options: Annotated[dict[str, dict[str, Any]], NoDecode] = Field(
        default_factory=dict,
        description="Worker options by topic or queue, which override those in the code; JSON, "
        'e.g. {"custom.orders.new": {"ack_deadline": 10}}.',
    )
    deadline_grace: float = Field(
        default=10.0,
        ge=0,
        le=600,
        description="Seconds a lease is kept beyond the ack deadline, unless the handler sets it.",
    )
    max_worker_losses: int = Field(
        default=5,
        ge=1,
        le=100,
        description="How many worker processes may die running one message, unless the handler "
        "sets it.",
    )

    provision: Literal["create", "verify", "off"] = Field(
        default="create",
        description="Topics and subscriptions: create missing ones, stop if one is missing, or "
        "check nothing.",
    )
    prefix: str = Field(
        default="",
        pattern=r"^([A-Za-z][A-Za-z0-9._~+-]{0,59})?$",
        description="Prefix of the names of all topics and subscriptions, and of the store's keys: "
        "keeps two apps on one project apart.",
    )
    pubsub_endpoint: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9.-]+:[0-9]+$",
        description="HOST:PORT of the service, e.g. europe-west1-pubsub.googleapis.com:443, which "
        "keeps messages and ordering in that region. None: the global one.",
    )
    credentials_file: FilePath | None = Field(
        default=None,
        description="Key file of a service account. None: application default credentials.",
    )
    impersonate_service_account: str | None = Field(
        default=None,
        pattern=r"^[^@\s]+@[^@\s]+$",
        description="Email address of a service account to act as.",
    )
    labels: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description="Labels of created topics and subscriptions; JSON or NAME=VALUE,NAME=VALUE.",
    )
    message_storage_regions: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="Regions that may store the messages of created topics, e.g. "
        "europe-west1; a JSON list or separated by commas. Empty: the organisation's policy.",
    )
    pull_mode: Literal["auto", "stream", "unary"] = Field(
        default="auto",
        description="How messages are pulled; auto: by streaming, or by unary calls from an "
        "emulator that ignores the limits of streams.",
    )
    task_visibility_timeout: float = Field(
        default=60.0,
        ge=10,
        le=600,
        description="Length of an ordinary Celery task's lease in seconds; renewed while the task "
        "is held.",
    )
    task_max_lease: float = Field(
        default=7 * _DAY,
        gt=0,
        description="Seconds for which an ordinary Celery task is held at most (ETA, long run).",
    )
    task_max_outstanding: int = Field(
        default=200,
        ge=1,
        description="How many ordinary Celery tasks of one queue a process holds at most.",
    )
    task_max_deliveries: int = Field(
        default=100,
        description=(
            "Deliveries of an ordinary Celery task, however they ended, after which it goes to the "
            "dead-letter topic: 5 to 100; 0 is no limit."
        ),
    )
    remote_control: bool = Field(
        default=True,
        description="Obey `celery control` and answer `celery inspect`.",
    )
    create_missing_topics: bool = Field(
        default=False,
        description="Create a missing topic on publish, together with the known handlers' "
        "subscriptions.",
    )
    dead_letter_retention: float = Field(
        default=31 * _DAY,
        ge=600,
        le=31 * _DAY,
        description="Seconds that dead letters are kept; 10 minutes to 31 days.",
    )
    dead_letter_payload: Literal["full", "preview", "none"] = Field(
        default="full",
        description="How much of a dead letter's data its entry in the store keeps: all (up to "
        "64 KiB), the first 1,024 bytes, or nothing. Filters by payload and quick replays need "
        "all of it.",
    )
    last_outcomes: int = Field(
        default=200,
        ge=0,
        le=10_000,
        description="How many of the last outcomes of each handler the store keeps, for a week; "
        "0: none.",
    )
    show_payloads: bool = Field(
        default=True,
        description="Show data and attributes of dead letters in Flower and on the dashboard.",
    )
    dead_letter_hook: str | None = Field(
        default=None,
        pattern=r"^[^:\s]+:[^:\s]+$",
        description="Function that is called with a DeadLetterEvent on the first dead letter of a "
        "group, and when a replay fails again: 'package.file:function'.",
    )
    publish_timeout: float = Field(
        default=60.0, gt=0, description="Seconds to wait for a publish to be confirmed."
    )
    sent_messages_topic: str = Field(
        default="messages.sent",
        pattern=r"^[A-Za-z][A-Za-z0-9._~+%-]{2,254}$",
        description="Topic on which ctx.messages.send announces sent messages, if it exists; "
        "'off' announces none.",
    )
    result_expires: float = Field(
        default=_DAY, gt=0, description="Seconds that results of Celery tasks are kept."
    )

    store_key_prefix: str = Field(
        default="convotic:", description="Prefix of every key in the store."
    )
    store_timeout: float = Field(
        default=5.0, gt=0, description="Seconds to wait for one response of the store."
    )

    storage_max_value_bytes: int = Field(
        default=1_000_000,
        ge=1,
        le=100_000_000,
        description="Largest value that ctx.storage accepts, in bytes.",
    )
    routes_max_body_bytes: int = Field(
        default=10_000_000,
        ge=1,
        description="Largest request body of a route, in bytes; Pub/Sub's limit is 10,000,000.",
    )

    dashboard_read_only: bool = Field(
        default=False,
        description="Let the dashboard show everything and change nothing.",
    )
    dashboard_payloads: bool = Field(
        default=True,
        description="Show data, attributes and results of messages in the dashboard.",
    )
    dashboard_hosts: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="Names by which the dashboard may be asked for, beside this machine's own "
        "(localhost); a JSON list or separated by commas. Put authentication in front of it.",
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        default="INFO",
        description="Lowest level that is logged; a worker's --loglevel takes precedence.",
    )
    log_format: Literal["auto", "text", "json", "celery"] = Field(
        default="auto",
        description="text: lines for people; json: as Cloud Logging reads it; auto: text on a "
        "terminal, else JSON. celery: a worker's lines are Celery's.",
    )
    log_runs: Literal["all", "failures"] = Field(
        default="all",
        description="Log a line for each run, or only for those that are retried, dead-lettered or "
        "skipped.",
    )

    shutdown_grace: float | None = Field(
        default=None,
        ge=5,
        le=86_400,
        description="Seconds from SIGTERM until the platform kills a worker (Cloud Run: 10). What "
        "still runs two seconds before is handed back to Pub/Sub. None: a worker waits for all.",
    )
    tracing: bool = Field(
        default=False,
        description="Trace publishes, runs, routes and tasks by OpenTelemetry; where spans go, its "
        "own variables say (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME).",
    )
    gossip: bool = Field(
        default=False,
        description="Run Celery's gossip in workers: each then gets the events of all others, "
        "which grows with the square of their number.",
    )
    health_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port on which workers answer /livez, /readyz and /metrics; 0 takes a free "
        "one. None: off.",
    )
    health_host: str = Field(
        default="0.0.0.0",  # noqa: S104 - probes come from outside the container
        description="Address on which health_port is opened.",
    )
    health_socket: Path | None = Field(
        default=None,
        description="Unix socket on which a worker answers instead of health_port; `convotic "
        "worker` sets it, and answers for all its workers on the port.",
    )

    pubsub_emulator_host: str | None = Field(
        default=None,
        validation_alias="PUBSUB_EMULATOR_HOST",
        pattern=r"^[^/\s]+:[0-9]+$",
        description="HOST:PORT of a running Pub/Sub emulator, as all of Google's clients read it.",
    )
    django_settings_module: str | None = Field(
        default=None,
        validation_alias="DJANGO_SETTINGS_MODULE",
        description="As Django reads it; if set, Django is set up before modules are imported.",
    )
    no_color: str | None = Field(
        default=None,
        validation_alias="NO_COLOR",
        description="If set, nothing is coloured, see https://no-color.org.",
    )
    force_color: str | None = Field(
        default=None,
        validation_alias="FORCE_COLOR",
        description="If set, text is coloured also where it does not go to a terminal.",
    )
    kubernetes_service_host: str | None = Field(
        default=None, validation_alias="KUBERNETES_SERVICE_HOST", description="Set by Kubernetes."
    )
    k_service: str | None = Field(
        default=None, validation_alias="K_SERVICE", description="Set by Cloud Run services."
    )
    cloud_run_job: str | None = Field(
        default=None, validation_alias="CLOUD_RUN_JOB", description="Set by Cloud Run jobs."
    )

    if not TYPE_CHECKING:  # for type checkers, pydantic writes the signature with all fields

        def __init__(self, **values: Any) -> None:
            _refuse_unknown_variables(os.environ, type(self).model_fields)
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise ConfigurationError(_describe(error)) from None

    @field_validator(
        "modules", "middleware", "message_storage_regions", "dashboard_hosts", mode="before"
    )
    @classmethod
    def _split_names(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return json.loads(value)
        return [name.strip() for name in value.split(",") if name.strip()]

    @field_validator("handler_options", mode="before")
    @classmethod
    def _parse_handler_options(cls, value: object) -> object:
        return json.loads(value) if isinstance(value, str) else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _accept_lower_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("services")
    @classmethod
    def _check_services(cls, value: str | None) -> str | None:
        if value is not None and not all(value.partition(":")):
            raise ValueError("it must name a function, as package.file:function")
        return value

    @field_validator("middleware")
    @classmethod
    def _check_middleware(cls, value: list[str]) -> list[str]:
        if not all(all(name.partition(":")) for name in value):
            raise ValueError("it must name classes or objects, as package.file:name")
        return value

    @field_validator("broker_url")
    @classmethod
    def _check_broker_url(cls, value: str | None) -> str | None:
        if value is not None and "://" not in value:
            raise ValueError("a broker URL needs a scheme, e.g. pubsub://my-project")
        return value

    @field_serializer("broker_url", when_used="json")
    def _hide_password(self, value: str | None) -> str | None:
        """Write what is shown without what stands before the ``@``, which may be a password."""
        return None if value is None else re.sub(r"//.*@", "//***@", value)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return self.model_dump(mode="json").items()

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        schemes = ("redis://", "rediss://", "unix://")
        if value is not None and not value.get_secret_value().startswith(schemes):
            raise ValueError("the store's URL must begin with redis://, rediss:// or unix://")
        if value is not None:
            _check_store_address(value.get_secret_value())
        return value

    @field_validator("labels", mode="before")
    @classmethod
    def _parse_labels(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("{"):
            return json.loads(value)
        pairs = [pair.partition("=") for pair in value.split(",")]
        return {name.strip(): text.strip() for name, _, text in pairs}

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, value: dict[str, str]) -> dict[str, str]:
        wrong = [f"{k}={v}" for k, v in value.items() if not _LABEL.fullmatch(f"{k}={v}")]
        if wrong:
            raise ValueError(
                f"{', '.join(wrong)}: a label's name begins with a lower-case letter; the rest, "
                "and its value, are lower-case letters, digits, _ and -; at most 63 characters each"
            )
        return value

    @property
    def store_prefix(self) -> str:
        """Prefix of this app's keys in the store: ``store_key_prefix`` and ``prefix``."""
        return f"{self.store_key_prefix}{self.prefix}:" if self.prefix else self.store_key_prefix

    @property
    def data_folder(self) -> Path:
        """``data_dir`` as an absolute path: the servers have another working folder."""
        return self.data_dir.expanduser().resolve()

    @property
    def broker_is_embedded(self) -> bool:
        """True if the broker is the embedded emulator of ``data_dir``."""
        return self.broker_url is None and self.pubsub_emulator_host is None

    @property
    def store_is_embedded(self) -> bool:
        """True if the store is the embedded Valkey of ``data_dir``."""
        return self.redis_url is None

    def refuse_embedded_where_wrong(self) -> None:
        """Raise ConfigurationError where an embedded server would lose data with its machine.

        That is on Kubernetes, on Cloud Run and in production, unless ``allow_embedded`` is set. The
        text names the missing variables.
        """
        place = self._find_place_without_a_disk()
        missing = self._list_embedded()
        if self.allow_embedded or place is None or not missing:
            return
        raise ConfigurationError(
            f"The embedded servers keep their data on this machine's disk and are refused here: "
            f"{place}. Set {' and '.join(missing)}. (CONVOTIC_ALLOW_EMBEDDED=true overrides this.)"
        )

    def _find_place_without_a_disk(self) -> str | None:
        if self.env.lower() in {"production", "prod"}:
            return f"CONVOTIC_ENV is {self.env}"
        if self.kubernetes_service_host:
            return "this is Kubernetes (KUBERNETES_SERVICE_HOST is set)"
        if self.k_service:
            return "this is a Cloud Run service (K_SERVICE is set)"
        if self.cloud_run_job:
            return "this is a Cloud Run job (CLOUD_RUN_JOB is set)"
        return None

    def _list_embedded(self) -> list[str]:
        missing = []
        if self.broker_is_embedded:
            missing.append("CONVOTIC_BROKER_URL (pubsub://YOUR-PROJECT)")
        if self.store_is_embedded:
            missing.append("CONVOTIC_REDIS_URL (redis://HOST:6379/0)")
        return missing


def _variable_of(field: str) -> str:
    info = Settings.model_fields.get(field)
    alias = info.validation_alias if info else field
    return alias if isinstance(alias, str) else f"{_PREFIX}{field.upper()}"


def _describe(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        field, *rest = map(str, problem["loc"])
        where = _variable_of(field) + "".join(f"[{part}]" for part in rest)
        if problem["type"] == "extra_forbidden":
            lines.append(_describe_unknown(f"{_PREFIX}{field.upper()}", Settings.model_fields))
        elif problem["type"] == "string_pattern_mismatch":  # a pattern alone explains nothing
            infos = {_variable_of(name): info for name, info in Settings.model_fields.items()}
            lines.append(f"{where}: {problem['msg']}. It is: {infos[where].description}")
        else:
            lines.append(f"{where}: {problem['msg'].removeprefix('Value error, ')}")
    return "; ".join(lines)


def _check_store_address(url: str) -> None:
    """Raise ValueError, without the URL, for what redis-py would refuse with it in a traceback."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("the store's URL has a port that is no number, or a broken host") from None
    checks = parse_qs(parts.query).get("ssl_cert_reqs", ["required"])
    if checks[-1] not in {"none", "optional", "required"}:
        raise ValueError("ssl_cert_reqs in the store's URL is one of: required, optional, none")


def _refuse_unknown_variables(environment: Any, fields: Any) -> None:
    """pydantic-settings reads the names it knows and does not notice a misspelt one."""
    known = {_variable_of(field) for field in fields}
    for name in sorted(environment):
        upper = name.upper()
        if upper.startswith(_PREFIX) and upper not in known and not upper.startswith(_TEST_PREFIX):
            raise ConfigurationError(_describe_unknown(name, fields))


def _describe_unknown(name: str, fields: Any) -> str:
    known = [field.upper() for field in fields]
    near = difflib.get_close_matches(name.upper().removeprefix(_PREFIX), known, n=1)
    hint = f"Did you mean {_PREFIX}{near[0]}?" if near else "`convotic settings` lists them all."
    return f"{name} is not a setting of convotic_celery. {hint}"
