"""What of Pub/Sub's options the settings pass on to the transport."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from convotic_celery.app import ConvoticApp
from convotic_celery.errors import ModuleError
from convotic_celery.runtime.publish import SessionPublisher
from convotic_pubsub.options import TransportOptions, parse_options
from convotic_pubsub.outgoing import OutgoingMessage
from tests.unit.runtime.support import define, make_settings

if TYPE_CHECKING:
    from pathlib import Path

#: What a setting has no business with: the project is the URL's, credentials are an object.
NOT_SETTINGS = {"project", "credentials"}


def options_of(*definitions: Any, **settings: Any) -> TransportOptions:
    """Return the transport's options of an app with these settings."""
    app = ConvoticApp(make_settings(**settings), definitions, set_as_current=False)
    return parse_options(*app._broker_parameters(), environ={})


def test_every_option_of_the_transport_is_a_setting(tmp_path: Path) -> None:
    """An option that is new in the transport is not forgotten here."""
    key = tmp_path / "key.json"
    key.write_text("{}")
    given: dict[str, Any] = {
        "provision": "verify",
        "publish_timeout": 7,
        "prefix": "stage-",
        "pubsub_endpoint": "europe-west1-pubsub.googleapis.com:443",
        "credentials_file": key,
        "impersonate_service_account": "worker@shop.iam.gserviceaccount.com",
        "labels": {"team": "shop"},
        "message_storage_regions": ["europe-west1"],
        "pull_mode": "unary",
        "task_visibility_timeout": 30,
        "task_max_lease": 3600,
        "task_max_outstanding": 9,
        "task_max_deliveries": 20,
        "pubsub_emulator_host": "127.0.0.1:1",
    }
    plain, options = TransportOptions(project="unit"), options_of(define(), **given)

    names = {field.name for field in fields(TransportOptions)} - NOT_SETTINGS
    assert [name for name in names if getattr(plain, name) == getattr(options, name)] == []
    assert options.credentials_file == str(key)


def test_a_prefix_is_put_before_all_names_but_those_of_an_option() -> None:
    """Celery's queues keep their names; what the deployment names itself stays as it is."""
    options = options_of(
        define(subscription="existing", dead_letter_topic="projects/other/topics/dead"),
        define(module="crm"),
        prefix="stage-",
    )

    own, named = options.queues["orders.new.crm"], options.queues["orders.new.shop"]
    assert own.topic == named.topic == "stage-orders.new"
    assert own.subscription == "stage-orders.new.crm"
    assert own.dead_letter_topic == "stage-orders.new.crm.dead-letter"
    assert named.subscription == "existing"
    assert named.dead_letter_topic == "projects/other/topics/dead"
    assert options.prefix == "stage-"


def test_the_prefix_parts_the_keys_in_the_store_too() -> None:
    """Two apps that share a store don't move each other's delayed messages."""
    assert make_settings(prefix="stage-").store_prefix == "convotic:stage-:"
    assert make_settings().store_prefix == "convotic:"


def test_a_prefix_that_makes_a_name_too_long_is_refused() -> None:
    """When the app is made, not when a worker connects."""
    with pytest.raises(ModuleError, match=r"dead-letter topic .* is not a valid name"):
        options_of(define(module="m" * 90, topic="t" * 96), prefix="p" * 60)


def test_the_retention_of_dead_letters_is_a_setting() -> None:
    """In seconds; 31 days if nothing is said."""
    spec = options_of(define(), dead_letter_retention=3600).queues["orders.new.shop"]
    default = options_of(define()).queues["orders.new.shop"]

    assert spec.dead_letter_retention_seconds == 3600
    assert default.dead_letter_retention_seconds == 31 * 24 * 3600


def test_a_topic_of_another_project_is_named_by_its_path() -> None:
    """The handler's one name is made of the topic's own; the path reaches the transport."""
    definition = define(topic="projects/other-team/topics/orders.new")

    spec = options_of(definition, prefix="stage-").queues["orders.new.shop"]

    assert spec.topic == "projects/other-team/topics/orders.new"


class _Session:
    """Stands in for a session: notes the topics."""

    closed = False

    def __init__(self) -> None:
        self.topics: list[str] = []

    def publish(self, message: OutgoingMessage, **_: Any) -> Any:
        self.topics.append(message.topic)
        return Future[str]()


def test_a_publisher_puts_the_prefix_before_topics_but_not_before_paths() -> None:
    """As the handlers' subscriptions have it."""
    publisher, session = SessionPublisher(lambda: ("", {}), [], prefix="stage-"), _Session()
    publisher._session = session  # type: ignore[assignment]

    publisher.publish(OutgoingMessage("orders.new"))
    publisher.publish(OutgoingMessage("projects/other/topics/orders.new"))

    assert session.topics == ["stage-orders.new", "projects/other/topics/orders.new"]
