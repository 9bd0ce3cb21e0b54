"""The option ``backoff``: how long a failed message waits for its next run. Pure values."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from convotic_celery.sdk.option_errors import describe_options

__all__ = ["Backoff", "ConstantBackoff", "ExponentialBackoff"]


def _to_seconds(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else value


#: A lease can't end sooner than in 1 s; one day is the longest ack deadline.
_Delay = Annotated[float, BeforeValidator(_to_seconds), Field(ge=1, le=86_400)]
_Jitter = Annotated[float, Field(ge=0, le=1)]


class _Backoff(BaseModel):
    """Raises ValueError, in one line, for values that can't be used."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    if not TYPE_CHECKING:  # for type checkers, pydantic writes the signatures with all fields

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                problems = f"{type(self).__name__}: {describe_options(error)}"
                raise ValueError(problems) from None


class ConstantBackoff(_Backoff):
    """Wait the same time before each retry.

    ``jitter`` (0 to 1) is the random part of the delay: with ``delay=10`` and ``jitter=0.5`` a
    retry runs after 5 to 10 seconds.
    """

    kind: Literal["constant"] = "constant"
    delay: _Delay
    jitter: _Jitter = 0.0

    def delay_seconds(self, attempt: int, random: float) -> float:
        """Return the delay in seconds after run ``attempt`` failed; ``random`` is 0 to 1."""
        del attempt
        return _spread(self.delay, self.jitter, random)


class ExponentialBackoff(_Backoff):
    """Wait ``initial``, then ``factor`` times as long before each further retry, up to ``maximum``.

    ``jitter`` (0 to 1) is the random part of the delay; the default of 0.5 keeps messages that
    failed together from being retried together.
    """

    kind: Literal["exponential"] = "exponential"
    initial: _Delay = 1.0
    factor: Annotated[float, Field(ge=1, le=100)] = 2.0
    maximum: _Delay = 600.0
    jitter: _Jitter = 0.5

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.maximum < self.initial:
            raise ValueError(f"maximum ({self.maximum:g}) is less than initial ({self.initial:g})")
        return self

    def delay_seconds(self, attempt: int, random: float) -> float:
        """Return the delay in seconds after run ``attempt`` failed; ``random`` is 0 to 1."""
        try:
            delay = min(self.maximum, self.initial * self.factor ** (attempt - 1))
        except OverflowError:
            delay = self.maximum
        return _spread(delay, self.jitter, random)


def _spread(delay: float, jitter: float, random: float) -> float:
    return max(1.0, delay * (1 - jitter * random))


#: From JSON: ``{"kind": "exponential", "initial": 2}``.
Backoff: TypeAlias = Annotated[ConstantBackoff | ExponentialBackoff, Field(discriminator="kind")]
