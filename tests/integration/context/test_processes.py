"""Several processes on one Valkey: races, spawn and fork."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from decimal import Decimal
from functools import partial

import pytest

from convotic_celery.context import Services, Store, SyncConvoticContext
from convotic_celery.errors import ContactExists
from tests.integration.context.conftest import DELIVERY, NoPublisher


def make_context(url: str, key_prefix: str) -> SyncConvoticContext:
    return Services(Store(url), NoPublisher(), key_prefix=key_prefix).sync_context(DELIVERY)


def create_contacts(url: str, key_prefix: str, count: int) -> list[str]:
    """Create the same external ids as the other process, and add one to each contact."""
    ctx = make_context(url, key_prefix)
    created = []
    for number in range(count):
        try:
            contact_id = ctx.contacts.create(external_id=f"c-{number}").id
            created.append(contact_id)
        except ContactExists as exists:
            contact_id = exists.contact_id
        ctx.contacts.increment(contact_id, {"amount": Decimal("0.01")})
        ctx.contacts.increment(contact_id, {"once": 1}, idempotency_key="the same in both")
    return created


def test_two_processes_that_race_make_one_contact_each(store_url: str, key_prefix: str) -> None:
    """Each external id is created by exactly one process; sums and keys are right across both."""
    count = 100
    spawn = multiprocessing.get_context("spawn")

    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        work = [pool.submit(create_contacts, store_url, key_prefix, count) for _ in range(2)]
        created = [contact_id for future in work for contact_id in future.result()]

    ctx = make_context(store_url, key_prefix)
    contacts = ctx.contacts.list(limit=1000).items
    assert len(created) == len(set(created)) == len(contacts) == count
    assert {contact.totals["amount"] for contact in contacts} == {Decimal("0.02")}
    assert {contact.totals["once"] for contact in contacts} == {Decimal(1)}


def in_forked_child(work: Callable[[], bool]) -> bool:
    pid = os.fork()
    if pid == 0:
        os._exit(0 if work() else 1)
    return os.waitpid(pid, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_child_does_not_use_its_parents_connections(store: Store) -> None:
    """Parent and child go on with connections of their own."""
    parent_id = store.sync_client().client_id()
    parents_client = store.sync_client()

    def ask_in_child() -> bool:
        client = store.sync_client()
        return client is not parents_client and client.client_id() != parent_id

    assert in_forked_child(ask_in_child)
    assert store.sync_client().client_id() == parent_id


def test_store_pickles_without_connections(store_url: str) -> None:
    """A store made in one process works in another."""
    store = Store(store_url)
    store.sync_client().ping()
    spawn = multiprocessing.get_context("spawn")

    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        answer = pool.submit(partial(ping, store)).result()

    store.close()
    assert answer


def ping(store: Store) -> bool:
    return bool(store.sync_client().ping())
