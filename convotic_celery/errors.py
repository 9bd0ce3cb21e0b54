"""The framework's errors. What a handler raises to choose its outcome is in ``sdk/outcomes.py``.

::

    ConvoticError
    ├── ConfigurationError               a setting is missing, unknown or wrong
    ├── ModuleError                      a module can't be used; names file and cause
    │   ├── ModuleNotFound
    │   ├── DuplicateHandler             two handlers have the same queue or subscription
    │   ├── DuplicateRoute               two routes have the same method and path
    │   ├── HandlerNotLoaded             published to, but its module is not loaded
    │   └── HandlerSignatureError        a handler can't be called as (message, ctx)
    ├── InvalidMessage                   the data is not JSON or fails the payload model
    ├── AckDeadlineExceeded              a run was stopped at its ack deadline
    ├── DeadlineNotExtendable            the ack deadline can't be extended here
    ├── DeadLetterError                  an action on dead letters that can't be done
    │   ├── DeadLetterNotFound
    │   ├── JobTaken                     another process works on it
    │   └── WrongDeadLetterState
    ├── PublishNotConfirmed              sent, but not confirmed in time
    ├── PublishManyFailed                some of many messages are not published; says which
    ├── PublishRefused                   refused before anything was sent
    │   ├── NotSerializable
    │   ├── MessageTooLarge
    │   ├── EmptyMessage
    │   ├── InvalidTopic
    │   ├── InvalidAttribute
    │   ├── InvalidOrderingKey
    │   ├── InvalidDelay
    │   └── TopicHasNoSubscription
    │       └── WorkflowNotRegistered
    └── ContextError                     a context service refuses
        ├── ContactExists
        ├── ContactNotFound
        ├── ConversationNotFound
        ├── InvalidField                 a value a service can't keep
        ├── ServiceNotProvided           no custom service of this type
        │   └── ResourceNotProvided      the module's lifespan does not yield this
        ├── StorageValueTooLarge         a value exceeds the storage's limit
        ├── StoreUnavailable             the store does not answer; try again
        │   └── StoreRefused             it answers, but not to this client: a wrong password
        └── WorkflowRunNotFound

Each error's constructor takes exactly its ``args``, all plain values, and composes the text in
``__str__``. So every one survives pickle (prefork) and Celery's JSON result backend, which both
call ``cls(*args)`` on the other side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

__all__ = [
    "AckDeadlineExceeded",
    "ConfigurationError",
    "ContactExists",
    "ContactNotFound",
    "ContextError",
    "ConversationNotFound",
    "ConvoticError",
    "DeadLetterError",
    "DeadLetterNotFound",
    "DeadlineNotExtendable",
    "DuplicateHandler",
    "DuplicateRoute",
    "EmptyMessage",
    "HandlerNotLoaded",
    "HandlerSignatureError",
    "InvalidAttribute",
    "InvalidDelay",
    "InvalidField",
    "InvalidMessage",
    "InvalidOrderingKey",
    "InvalidTopic",
    "JobTaken",
    "MessageTooLarge",
    "ModuleError",
    "ModuleNotFound",
    "NotSerializable",
    "PublishManyFailed",
    "PublishNotConfirmed",
    "PublishRefused",
    "ResourceNotProvided",
    "ServiceNotProvided",
    "StorageValueTooLarge",
    "StoreRefused",
    "StoreUnavailable",
    "TopicHasNoSubscription",
    "WorkflowNotRegistered",
    "WorkflowRunNotFound",
    "WrongDeadLetterState",
]


class ConvoticError(Exception):
    """Base of all errors raised by ``convotic_celery``."""


class ConfigurationError(ConvoticError):
    """A setting is missing, unknown or wrong; the text names the variable and the rule."""


class ModuleError(ConvoticError):
    """A module can't be used; the text names its file and the cause."""


class ModuleNotFound(ModuleError):
    """A module named in the settings can't be imported."""


class DuplicateHandler(ModuleError):
    """Two handlers have the same queue or subscription; the text names both."""


class DuplicateRoute(ModuleError):
    """Two routes have the same method and path; the text names both."""


class HandlerSignatureError(ModuleError):
    """A handler can't be called as ``handler(message, ctx)``, or its annotations contradict it."""


class HandlerNotLoaded(ModuleError):
    """A message was published to a handler whose module is not loaded."""

    def __init__(self, queue: str, known: Iterable[str]) -> None:
        super().__init__(queue, [*known])
        self.queue = queue
        self.known: Sequence[str] = self.args[1]

    def __str__(self) -> str:
        near = get_close_matches(self.queue, self.known, n=1)
        guess = f" Did you mean {near[0]}?" if near else ""
        return (
            f"{self.queue} is not among the handlers loaded here "
            f"({', '.join(self.known) or 'none'}).{guess} Put its module into "
            "CONVOTIC_MODULES_DIR, or name it in CONVOTIC_MODULES."
        )


class DeadLetterError(ConvoticError):
    """An action on dead letters can't be done."""


class DeadLetterNotFound(DeadLetterError):
    """No dead letter has this id."""

    def __init__(self, entry: str) -> None:
        super().__init__(entry)
        self.entry = entry

    def __str__(self) -> str:
        return (
            f"there is no dead letter {self.entry!r}: neither as its id nor as a message's. "
            "`convotic dlq list` shows those that are known, `convotic dlq sync` looks for more."
        )


class WrongDeadLetterState(DeadLetterError):
    """Dead letters in this state can't be acted on."""

    def __init__(self, action: str, state: str) -> None:
        super().__init__(action, state)
        self.action = action
        self.state = state

    def __str__(self) -> str:
        return f"{self.action}: what is {self.state} has no message any more."


class JobTaken(DeadLetterError):
    """Another process works on the job."""

    def __init__(self, job: str) -> None:
        super().__init__(job)
        self.job = job

    def __str__(self) -> str:
        return f"job {self.job} is being done by another process; `convotic dlq jobs` shows how far"


class InvalidMessage(ConvoticError):
    """A message's data is not JSON or fails the payload model; its handler was not called.

    The text says where and why, never the data itself.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class AckDeadlineExceeded(ConvoticError):
    """A handler ran past its ack deadline and was stopped."""

    def __init__(self, handler: str, ack_deadline_seconds: float) -> None:
        super().__init__(handler, ack_deadline_seconds)
        self.handler = handler
        self.ack_deadline_seconds = ack_deadline_seconds

    def __str__(self) -> str:
        return (
            f"{self.handler} was stopped after its ack deadline of {self.ack_deadline_seconds:g} "
            "seconds. Raise ack_deadline, or do less work per message."
        )


class DeadlineNotExtendable(ConvoticError):
    """The ack deadline can't be extended from here; the text says why and what to do."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason or (
            "A prefork child is stopped by its parent, so ctx.extend_ack_deadline() can't give it "
            "more time. Give the handler max_lease_duration=…, or run it in another pool."
        )


class PublishNotConfirmed(ConvoticError):
    """The publish was not confirmed in time: the message may or may not be stored."""

    def __init__(self, topic: str, timeout_seconds: float) -> None:
        super().__init__(topic, timeout_seconds)
        self.topic = topic
        self.timeout_seconds = timeout_seconds

    def __str__(self) -> str:
        return (
            f"The publish to {self.topic!r} was not confirmed within {self.timeout_seconds:g} "
            "seconds: the message may or may not be stored. Publishing again may repeat it."
        )


class PublishManyFailed(ConvoticError):
    """Some of several messages are not known to be published.

    ``message_ids`` has one entry for each message, in order: its id, or None. ``failures`` has the
    error by position; a position with neither was not sent.
    """

    def __init__(
        self, topic: str, message_ids: Sequence[str | None], failures: Mapping[int, str]
    ) -> None:
        message_ids = list(message_ids)
        # JSON, which Celery's result backend writes, turns the keys into text.
        failures = {int(position): text for position, text in failures.items()}
        super().__init__(topic, message_ids, failures)
        self.topic = topic
        self.message_ids = message_ids
        self.failures = failures

    @property
    def unpublished(self) -> list[int]:
        """Positions of the messages to publish again: failed, unconfirmed and not sent."""
        return [n for n, message_id in enumerate(self.message_ids) if message_id is None]

    def __str__(self) -> str:
        shown = [f"message {n}: {text}" for n, text in list(self.failures.items())[:3]]
        more = len(self.failures) - len(shown)
        unsent = len(self.unpublished) - len(self.failures)
        return (
            f"Of {len(self.message_ids)} messages to {self.topic!r}, {len(self.failures)} failed"
            f"{f' and {unsent} were not sent' if unsent else ''}: {'; '.join(shown)}"
            f"{f' (and {more} more)' if more else ''}. "
            "Publish error.unpublished again; unconfirmed messages may be delivered twice."
        )


class PublishRefused(ConvoticError, ValueError):
    """A message was refused before anything was sent; the text names the rule."""


class NotSerializable(PublishRefused):
    """The data has no JSON form."""


class MessageTooLarge(PublishRefused):
    """The message exceeds Pub/Sub's 10,000,000 bytes."""


class EmptyMessage(PublishRefused):
    """Pub/Sub refuses a message without data and without attributes."""


class InvalidTopic(PublishRefused):
    """The topic's name breaks Pub/Sub's rules."""


class InvalidAttribute(PublishRefused):
    """An attribute breaks a limit of Pub/Sub, or its name is reserved."""


class InvalidOrderingKey(PublishRefused):
    """The ordering key exceeds 1,024 bytes or is not a string."""


class InvalidDelay(PublishRefused):
    """The delay is neither a number of seconds nor a timedelta, or not within 0 to 365 days."""


class TopicHasNoSubscription(PublishRefused):
    """The topic does not exist and would have no subscription: the message would be lost."""

    def __init__(self, topic: str, near: str = "", place: str = "") -> None:
        super().__init__(topic)
        self.topic = topic
        #: Where this process has looked for modules, and keeps its data.
        self.place = place
        #: The known topic that is spelled most like it, if any is.
        self.near = near

    def __str__(self) -> str:
        guess = f" Did you mean {self.near!r}?" if self.near else ""
        return (
            f"Topic {self.topic!r} does not exist, and no known handler subscribes to it: a "
            f"message published now would be lost.{guess} Register a handler for it, or create the "
            f"topic and a subscription.{f' ({self.place})' if self.place else ''}"
        )


class WorkflowNotRegistered(TopicHasNoSubscription):
    """No loaded module registers the workflow, and its topic does not exist."""

    def __init__(self, name: str) -> None:
        super().__init__(f"workflow.{name}")
        self.args = (name,)
        self.name = name

    def __str__(self) -> str:
        return (
            f"No module loaded here registers the workflow {self.name!r}: register it with "
            f"module.workflow({self.name!r}, steps=[...]), and start the run again."
        )


class ContextError(ConvoticError):
    """A context service refused a call; nothing was changed."""


class ContactExists(ContextError):
    """Another contact has this external id; :attr:`contact_id` is its id."""

    def __init__(self, external_id: str, contact_id: str) -> None:
        super().__init__(external_id, contact_id)
        self.external_id = external_id
        self.contact_id = contact_id

    def __str__(self) -> str:
        return (
            f"External id {self.external_id!r} belongs to contact {self.contact_id}. "
            "Use contacts.get(error.contact_id)."
        )


class ContactNotFound(ContextError):
    """No contact has this id."""

    def __init__(self, contact_id: str) -> None:
        super().__init__(contact_id)
        self.contact_id = contact_id

    def __str__(self) -> str:
        return f"There is no contact with id {self.contact_id!r}."


class ConversationNotFound(ContextError):
    """No conversation has this id."""

    def __init__(self, conversation_id: str) -> None:
        super().__init__(conversation_id)
        self.conversation_id = conversation_id

    def __str__(self) -> str:
        return f"There is no conversation with id {self.conversation_id!r}."


class InvalidField(ContextError):
    """A value can't be stored: unknown field, wrong type or over a limit; the text names it."""


class ServiceNotProvided(ContextError):
    """No service of this type was provided."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind

    def __str__(self) -> str:
        return (
            f"No service of type {self.kind} was provided. Name a function in CONVOTIC_SERVICES "
            f"that calls services.provide({self.kind.rpartition('.')[2]}, ...)."
        )


class ResourceNotProvided(ServiceNotProvided):
    """The module has no lifespan, or one that yields something else."""

    def __init__(self, kind: str, found: str) -> None:
        super().__init__(kind)
        self.args = (kind, found)
        self.found = found

    def __str__(self) -> str:
        name = self.kind.rpartition(".")[2]
        return (
            f"ctx.resource({name}) returns what the module's lifespan yields, which is "
            f"{self.found}: give the module a lifespan that yields a {name}, "
            "ConvoticModule(..., lifespan=...)."
        )


class StorageValueTooLarge(ContextError):
    """A value is larger than the storage allows; nothing was stored."""

    def __init__(self, key: str, size_bytes: int, max_bytes: int) -> None:
        super().__init__(key, size_bytes, max_bytes)
        self.key = key
        self.size_bytes = size_bytes
        self.max_bytes = max_bytes

    def __str__(self) -> str:
        return (
            f"The value of {self.key!r} has {self.size_bytes:,} bytes, the storage allows "
            f"{self.max_bytes:,}: keep it elsewhere and store its location, or raise "
            "CONVOTIC_STORAGE_MAX_VALUE_BYTES."
        )


class StoreUnavailable(ContextError):
    """The store did not answer, retries included; whether a write took place is unknown."""


class StoreRefused(StoreUnavailable):
    """The store does not take this client's password, or does not allow what it asks."""


class WorkflowRunNotFound(ContextError):
    """There is no such workflow run, or it ended more than 30 days ago."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return f"There is no workflow run {self.run_id!r}, or it ended more than 30 days ago."
