"""How one handler's messages are run: :class:`WorkerOptions`. Pure, validated values."""

import difflib
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Annotated, Any, Literal, Self, TypedDict, Unpack

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_snake
from pydantic_core import InitErrorDetails, PydanticCustomError

from convotic_celery.sdk.backoff import Backoff
from convotic_celery.sdk.batch import BatchOptions
from convotic_celery.sdk.dead_lettered import DeadLettered
from convotic_celery.sdk.error_types import ErrorTypes
from convotic_celery.sdk.event import CloudEvents
from convotic_celery.sdk.message import WorkerMessage
from convotic_celery.sdk.option_errors import UNKNOWN
from convotic_celery.sdk.rate import check_rate
from convotic_celery.sdk.selector import check_parameters, check_selector, describe_callable

__all__ = ["WorkerOptions", "WorkerOptionsDict"]

_DAY = 24 * 3600.0


def _to_seconds(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else value


def _check_hook(hook: Callable[..., object]) -> Callable[..., object]:
    check_parameters(hook, "dead", "ctx")
    return hook


_Seconds = Annotated[float, BeforeValidator(_to_seconds), Field(allow_inf_nan=False)]
_Key = Annotated[
    str | Callable[..., object],
    AfterValidator(check_selector),
    PlainSerializer(describe_callable, return_type=str),
]
_Hook = Annotated[
    Callable[..., object],
    AfterValidator(_check_hook),
    PlainSerializer(describe_callable, return_type=str),
]
_Rate = Annotated[str | float, AfterValidator(check_rate)]


def _default_waiting_retries(validated: dict[str, Any]) -> int:
    # Absent if it was invalid, which is reported separately.
    concurrency: int = validated.get("concurrency", 1)
    batch: BatchOptions | None = validated.get("batch")
    return max(100, 10 * concurrency * (batch.max_size if batch else 1))


class WorkerOptionsDict(TypedDict, total=False):
    """:class:`WorkerOptions` as keyword arguments of :meth:`ConvoticModule.worker`."""

    max_retries: int
    ack_deadline: float | timedelta
    concurrency: int
    batch: BatchOptions | None
    buffer: int | None
    backoff: Backoff | None
    subscription: str | None
    dead_letter_topic: str | None
    filter: str
    on_invalid: Literal["dead_letter", "retry"]
    cloud_events: CloudEvents
    accept_gzip: bool
    deadline_grace: float | timedelta
    max_worker_losses: int
    retention: float | timedelta
    enable_message_ordering: bool
    enable_exactly_once_delivery: bool
    max_waiting_retries: int
    deduplicate: str | Callable[[WorkerMessage[Any]], object] | None
    deduplicate_window: float | timedelta
    concurrency_key: str | Callable[[WorkerMessage[Any]], object] | None
    concurrency_key_limit: int
    on_store_loss: Literal["wait", "run"]
    retry_on: type[Exception] | Iterable[type[Exception] | str] | None
    no_retry_on: type[Exception] | Iterable[type[Exception] | str]
    max_lease_duration: float | timedelta | None
    max_message_age: float | timedelta | None
    rate_limit: str | float | None
    on_dead_letter: Callable[[DeadLettered, Any], object] | None


class WorkerOptions(BaseModel):
    """How a handler's messages are run, retried and dead-lettered.

    Times are seconds (float) or a ``timedelta``. camelCase names are accepted on input:
    ``WorkerOptions.model_validate({"maxRetries": 3, "ackDeadline": 60})``. Frozen;
    unknown names are refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def __init__(self, **options: Unpack[WorkerOptionsDict]) -> None:
        # Written out, so that type checkers accept a timedelta.
        super().__init__(**options)

    max_retries: int = Field(
        default=5,
        ge=0,
        le=99,
        description="Retries after the first run: 5 means at most 6 runs. After the last one the "
        "message goes to the dead-letter topic.",
    )
    ack_deadline: _Seconds = Field(
        default=30.0,
        ge=1,
        le=86_400,
        description="Seconds a run may take, from its start; then it is stopped and its message "
        "delivered again. Without backoff, also the delay until a failed message is delivered "
        "again, from the start of its run.",
    )
    concurrency: int = Field(
        default=1,
        ge=1,
        le=10_000,
        description="How many messages of this handler one worker process runs at once; of a "
        "handler with batch, how many batches.",
    )
    batch: BatchOptions | None = Field(
        default=None,
        description="The handler takes a list of messages: BatchOptions(max_size=100, "
        "max_wait=0.2). Each is settled by itself; needs the default pool or -P threads.",
    )
    buffer: int | None = Field(
        default=None,
        ge=0,
        le=10_000,
        description="Messages kept ready beyond concurrency. None: as many as the handler works "
        "through while the server sends more, at least one, at most a second's work.",
    )
    backoff: Backoff | None = Field(
        default=None,
        description="Delay before a retry, instead of the rest of the ack deadline.",
    )
    subscription: str | None = Field(
        default=None,
        description="Name of an existing subscription to use; None: the handler's queue name.",
    )
    dead_letter_topic: str | None = Field(
        default=None,
        description="Name of an existing dead-letter topic; None: the queue's and '.dead-letter'.",
    )
    filter: str = Field(
        default="",
        description="Pub/Sub filter expression on attributes; can't be changed once created.",
    )
    on_invalid: Literal["dead_letter", "retry"] = Field(
        default="dead_letter",
        description="What to do with data that is not JSON or fails the payload model.",
    )
    cloud_events: CloudEvents = Field(
        default="off",
        description="Read CloudEvents, binary and structured: 'accept' also reads them, 'require' "
        "rejects other messages. message.event has the event's attributes.",
    )
    accept_gzip: bool = Field(
        default=False,
        description="Decompress data if the attribute content-encoding is gzip, up to 100 MB.",
    )
    deadline_grace: _Seconds = Field(
        default=10.0,
        ge=0,
        le=600,
        description="Seconds the lease is kept beyond ack_deadline, to settle a stopped run "
        "cleanly. Default: CONVOTIC_DEADLINE_GRACE.",
    )
    max_worker_losses: int = Field(
        default=5,
        ge=1,
        le=100,
        description="How many worker processes may die running a message before it goes to the "
        "dead-letter topic. Default: CONVOTIC_MAX_WORKER_LOSSES.",
    )
    retention: _Seconds = Field(
        default=7 * _DAY,
        ge=600,
        le=31 * _DAY,
        description="Seconds Pub/Sub keeps unacknowledged messages; 10 minutes to 31 days.",
    )
    enable_message_ordering: bool = Field(
        default=False,
        description="Deliver messages of one ordering key in order, one at a time; can't be "
        "changed once the subscription exists.",
    )
    enable_exactly_once_delivery: bool = Field(
        default=False,
        description="Ask Pub/Sub for exactly-once delivery (fewer redeliveries, confirmed acks).",
    )
    max_waiting_retries: int = Field(
        default_factory=_default_waiting_retries,
        ge=1,
        le=1_000_000,
        description="Failed messages waiting for their redelivery before the handler stops "
        "pulling. Default: the larger of 100 and 10 times concurrency.",
    )
    deduplicate: _Key | None = Field(
        default=None,
        description="Key by which a message that has succeeded already is skipped: 'message.id', "
        "'data.<field>', 'attributes.<name>' or a function of the message. Needs the store.",
    )
    deduplicate_window: _Seconds = Field(
        default=_DAY,
        ge=1,
        le=31 * _DAY,
        description="Seconds for which a success is remembered.",
    )
    concurrency_key: _Key | None = Field(
        default=None,
        description="Key: at most concurrency_key_limit messages of one key run at once, in all "
        "workers together. Needs the store.",
    )
    concurrency_key_limit: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="How many messages of one concurrency key run at once.",
    )
    on_store_loss: Literal["wait", "run"] = Field(
        default="wait",
        description="While the store is unavailable, messages with a key wait, or run without "
        "protection.",
    )
    retry_on: ErrorTypes | None = Field(
        default=None,
        description="Errors of the handler to retry; with any other, the message goes to the "
        "dead-letter topic at once. None: all.",
    )
    no_retry_on: ErrorTypes = Field(
        default=(),
        description="Errors not to retry: the message goes to the dead-letter topic at once. Takes "
        "precedence over retry_on.",
    )
    max_lease_duration: _Seconds | None = Field(
        default=None,
        ge=1,
        le=_DAY,
        description="Seconds a run may take if that is more than ack_deadline; its lease is "
        "renewed until then. Also the limit of ctx.extend_ack_deadline().",
    )
    max_message_age: _Seconds | None = Field(
        default=None,
        ge=1,
        description="Messages published longer ago, in seconds, are acknowledged without a run.",
    )
    rate_limit: _Rate | None = Field(
        default=None,
        description="How many runs one worker process starts: '10/s', '100/m', '500/h'.",
    )
    on_dead_letter: _Hook | None = Field(
        default=None,
        description="Called with (DeadLettered, ctx) before a message goes to the dead-letter "
        "topic.",
    )

    @model_validator(mode="after")
    def _check_durations(self) -> Self:
        if self.max_lease_duration is not None and self.max_lease_duration < self.ack_deadline:
            raise ValueError(
                f"max_lease_duration ({self.max_lease_duration:g} s) is less than ack_deadline "
                f"({self.ack_deadline:g} s)"
            )
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _check_names(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Accept camelCase; report unknown names together with the other options' errors."""
        if not isinstance(values, dict):
            return validate(values)
        accepted: dict[str, Any] = {}
        wrong: list[str] = []
        known = list(cls.model_fields)
        for name, value in values.items():
            option = name if name in known else to_snake(str(name))
            if option not in known:
                wrong.append(_describe_unknown(str(name), known))
            elif option in accepted:
                wrong.append(f"option {option!r} is given twice, as {option} and in camelCase")
            else:
                accepted[option] = value
        if not wrong:
            return validate(accepted)
        problems = [InitErrorDetails(type=_unknown(text), input=None) for text in wrong]
        try:
            validate(accepted)
        except ValidationError as error:
            problems += [
                InitErrorDetails(
                    type=each["type"], loc=each["loc"], input=None, ctx=each.get("ctx", {})
                )
                for each in error.errors(include_url=False)
            ]
        raise ValidationError.from_exception_data(cls.__name__, problems, hide_input=True)

    @property
    def max_runs(self) -> int:
        """Maximum number of runs: the first and ``max_retries`` more."""
        return self.max_retries + 1

    @property
    def max_delivery_attempts(self) -> int:
        """For the subscription's own dead-letter policy, 10 to 100: a net above our own counting.

        A message whose key is busy is delivered more often without a run.
        """
        return 100 if self.needs_store else min(100, max(10, 3 * self.max_runs))

    @property
    def slots(self) -> int:
        """How many messages one worker process may have running: all of its batches'."""
        return self.concurrency * (self.batch.max_size if self.batch else 1)

    @property
    def needs_store(self) -> bool:
        """Whether a run has to ask the store first."""
        return self.deduplicate is not None or self.concurrency_key is not None

    @property
    def run_limit(self) -> float:
        """Seconds after which a run is stopped, unless the handler extends its deadline."""
        return self.max_lease_duration or self.ack_deadline

    def replace(self, **changes: Any) -> Self:
        """Return these options with ``changes`` (validated); defaults stay defaults."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return self.model_validate(given | _snake_keys(changes))


def _snake_keys(values: dict[str, Any]) -> dict[str, Any]:
    known = WorkerOptions.model_fields
    return {name if name in known else to_snake(name): value for name, value in values.items()}


def _unknown(text: str) -> PydanticCustomError:
    return PydanticCustomError(UNKNOWN, "{text}", {"text": text})


def _describe_unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(to_snake(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the options are {', '.join(sorted(known))}."
    return f"unknown option {name!r}; {hint}"
