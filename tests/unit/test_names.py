"""Names of a handler's resources, and the rules they obey."""

from __future__ import annotations

import pytest

from convotic_celery import names
from convotic_celery.errors import ModuleError


def test_one_name_for_queue_task_and_subscription() -> None:
    """T.M, and T.M.NAME for a named handler."""
    assert names.queue_of("custom.orders.new", "crm") == "custom.orders.new.crm"
    assert names.queue_of("custom.orders.new", "crm", "audit") == "custom.orders.new.crm.audit"
    assert names.dead_letter_topic_of("custom.a.crm") == "custom.a.crm.dead-letter"


@pytest.mark.parametrize("name", ["order-processor", "A", "a1_b"])
def test_module_names_that_are_allowed(name: str) -> None:
    """A letter, then letters, digits, underscore and hyphen."""
    assert names.check_module_name(name) == name


@pytest.mark.parametrize("name", ["", "1a", "a.b", "a b", "dead-letter", "ä", "a\n"])
def test_module_names_that_are_refused(name: str) -> None:
    """The error says the rule."""
    with pytest.raises(ModuleError, match="no dots"):
        names.check_module_name(name)


@pytest.mark.parametrize("name", ["abc", "a" * 255, "custom.orders.new", "a-_.~+%"])
def test_resource_names_that_pubsub_takes(name: str) -> None:
    """3 to 255 characters of the allowed ones."""
    assert names.resource_name_problem(name) is None


@pytest.mark.parametrize("name", ["", "ab", "a" * 256, "1abc", "google.orders", "a/b/c", "a b c"])
def test_resource_names_that_pubsub_refuses(name: str) -> None:
    """The error says the rule."""
    with pytest.raises(ModuleError, match="3 to 255 characters"):
        names.check_resource_name("topic", name)


def test_filter_lets_through_what_is_for_all_or_for_this_handler() -> None:
    """A message addressed to another handler is filtered out by the service."""
    assert names.build_filter("custom.a.crm") == (
        'NOT attributes:"convotic-target" OR attributes."convotic-target" = "custom.a.crm"'
    )


def test_users_filter_is_joined() -> None:
    """Both must hold."""
    assert names.build_filter("custom.a.crm", 'attributes.source = "api"') == (
        '(attributes.source = "api") AND '
        '(NOT attributes:"convotic-target" OR attributes."convotic-target" = "custom.a.crm")'
    )


def test_filter_fills_256_bytes_and_no_more() -> None:
    """The limit holds for the whole, counted in bytes."""
    room = 256 - len(names.build_filter("custom.a.crm", "x")) + 1

    assert len(names.build_filter("custom.a.crm", "x" * room).encode()) == 256
    with pytest.raises(ModuleError, match=r"has 257 bytes, Pub/Sub allows 256"):
        names.build_filter("custom.a.crm", "x" * (room + 1))
    with pytest.raises(ModuleError, match=r"Pub/Sub allows 256"):
        names.build_filter("custom.a.crm", "x" * (room - 1) + "ä")


def test_resources_of_another_project_are_named_by_full_paths() -> None:
    """The path must be of its kind, and the name at its end must obey the rule."""
    path = "projects/other-team/topics/custom.orders.new"

    assert names.check_resource_name("topic", path) == path
    assert names.queue_of(path, "crm") == "custom.orders.new.crm"
    assert names.topic_problem(path) is None
    with pytest.raises(ModuleError, match="not a valid name"):
        names.check_resource_name("subscription", path)
    with pytest.raises(ModuleError, match="not a valid name"):
        names.check_resource_name("topic", "projects/other-team/topics/goog")
