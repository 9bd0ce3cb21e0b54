"""A team's own services take the place of ours, and stand beside them."""

from __future__ import annotations

import pickle
import sys
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest

from convotic_celery.app import create_app
from convotic_celery.context import AsyncContactService, Delivery, Services, Store
from convotic_celery.errors import ConfigurationError, ServiceNotProvided
from convotic_celery.plugins import plug_in_services
from convotic_celery.settings import Settings

DELIVERY = Delivery(handler="t.m", topic="t", message_id="1", module="m")


class Billing:
    """A service that the framework knows nothing of."""


class CrmContacts:
    """Stands for contacts kept elsewhere."""


class NoPublisher:
    def publish(self, *_: Any, **__: Any) -> Future[str]:
        raise AssertionError


@pytest.fixture
def services() -> Services:
    return Services(Store("redis://127.0.0.1:1"), NoPublisher())


def plug_in(services: Services) -> None:
    services.async_contacts = cast("AsyncContactService", CrmContacts())
    services.provide(Billing, Billing())


def test_replaced_service_is_the_contexts(services: Services) -> None:
    """The others stay."""
    plug_in_services(services, None, plug_in)

    ctx = services.async_context(DELIVERY)

    assert isinstance(ctx.contacts, CrmContacts)
    assert ctx.messages is services.async_messages


def test_own_service_is_found_by_its_type(services: Services) -> None:
    """In both kinds of context; a missing one says what to do."""
    with pytest.raises(ServiceNotProvided, match=r"CONVOTIC_SERVICES.*provide\(Billing"):
        services.sync_context(DELIVERY).service(Billing)

    plug_in_services(services, plug_in)

    assert isinstance(services.async_context(DELIVERY).service(Billing), Billing)
    assert isinstance(services.sync_context(DELIVERY).service(Billing), Billing)


def test_setting_names_the_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app calls it, then the one given to create_app; a pickled app keeps both."""
    module = ModuleType("acme_services")
    module.plug_in = plug_in  # type: ignore[attr-defined]  # a module made up here
    monkeypatch.setitem(sys.modules, "acme_services", module)
    monkeypatch.setenv("CONVOTIC_SERVICES", "acme_services:plug_in")
    settings = Settings(modules=[], data_dir=tmp_path)

    app = create_app(settings, services=plug_in, set_as_current=False)
    again = pickle.loads(pickle.dumps(app))

    for one in (app, again):
        assert isinstance(one.services.find(Billing), Billing)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no_such_package.file:plug_in", "no Python module 'no_such_package'"),
        ("convotic_celery.plugins:nothing", "has no function 'nothing'"),
    ],
)
def test_wrong_name_is_told(services: Services, text: str, said: str) -> None:
    """With the setting to mend."""
    with pytest.raises(ConfigurationError, match=f"CONVOTIC_SERVICES={text}: .*{said}"):
        plug_in_services(services, text)


def test_name_without_function_is_refused() -> None:
    """When the settings are read."""
    with pytest.raises(ConfigurationError, match="CONVOTIC_SERVICES: it must name a function"):
        Settings(services="acme")


def test_returned_services_are_refused(services: Services) -> None:
    """Who returns others would wonder why nothing changed."""
    with pytest.raises(ConfigurationError, match="return nothing"):
        plug_in_services(services, lambda _: cast("None", Billing()))
