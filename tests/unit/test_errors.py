"""Every error survives the ways it can leave its process."""

from __future__ import annotations

import pickle

import pytest
from celery.backends.base import Backend
from celery.utils.serialization import get_pickleable_exception

from convotic_celery import errors
from convotic_celery.sdk import outcomes

ARGUMENTS: dict[str, tuple[object, ...]] = {
    "WrongDeadLetterState": ("replay", "purged"),
    "AckDeadlineExceeded": ("custom.orders.new.crm", 30.0),
    "ContactExists": ("c-1", "0199"),
    "HandlerNotLoaded": ("custom.orders.new.crm", ["custom.orders.new.shop"]),
    "PublishManyFailed": ("custom.orders.new", ["17", None], {1: "lost"}),
    "PublishNotConfirmed": ("custom.orders.new", 60.0),
    "ResourceNotProvided": ("shop.Pool", "nothing"),
    "Retry": (5.0, "busy"),
    "StorageValueTooLarge": ("k", 2, 1),
}
EXAMPLES: list[Exception] = [
    getattr(module, name)(*ARGUMENTS.get(name, ("some text",)))
    for module in (errors, outcomes)
    for name in module.__all__
]


def describe(error: BaseException) -> tuple[type, str, dict[str, object]]:
    return type(error), str(error), vars(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_error_survives_pickle(error: Exception) -> None:
    """Type, text and attributes cross the border of a prefork process."""
    assert describe(pickle.loads(pickle.dumps(error))) == describe(error)
    assert describe(get_pickleable_exception(error)) == describe(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_error_survives_celerys_json_results(error: Exception) -> None:
    """A result backend that keeps JSON gives the same error back."""
    from celery import Celery  # noqa: PLC0415 - only this test needs an app

    backend = Backend(app=Celery(set_as_current=False), serializer="json")

    stored = backend.decode(backend.encode(backend.prepare_exception(error)))
    read = backend.exception_to_python(stored)

    assert describe(read) == describe(error)


def test_outcomes_are_no_framework_errors() -> None:
    """A handler's ``except ConvoticError`` does not swallow its own decisions."""
    assert not issubclass(outcomes.Outcome, errors.ConvoticError)


def test_existing_contact_is_named() -> None:
    """The text says which contact it is and what to do."""
    error = errors.ContactExists("c-1", "0199")

    assert (error.external_id, error.contact_id) == ("c-1", "0199")
    assert str(error) == (
        "External id 'c-1' belongs to contact 0199. Use contacts.get(error.contact_id)."
    )
