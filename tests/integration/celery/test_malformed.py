"""Envelopes that no Celery sends: each is dead-lettered or runs, and takes nothing from others."""

from __future__ import annotations

import base64
import bz2
import json
import zlib
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from convotic_pubsub.outgoing import OutgoingMessage
from tests.support.pubsub import pull, unique
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from tests.integration.celery.conftest import Plain


_HEADERS = (
    *("lang", "task", "id", "root_id", "parent_id", "group", "group_index", "retries", "eta"),
    *("expires", "timelimit", "argsrepr", "kwargsrepr", "origin", "ignore_result", "shadow"),
    *("stamped_headers", "stamps", "replaced_task_nesting", "meth", "delivery_info"),
)
_PROPERTIES = (
    *("correlation_id", "reply_to", "priority", "delivery_mode", "delivery_info"),
    "body_encoding",
)
_EMBEDDED = ["callbacks", "errbacks", "chain", "chord"]
_VALUES: tuple[Any, ...] = (
    5, -1, 10**40, 1.5, True, "x", "", [], [1], ["a", 2], {}, {"a": 1}, {"task": "plain.add"}, [[]],
    "9999-12-31T23:59:59Z",
)  # fmt: skip


def envelope(
    headers: dict[str, Any] | None = None,
    properties: dict[str, Any] | None = None,
    embedded: dict[str, Any] | None = None,
    **changes: Any,
) -> bytes:
    """Return what would be ``plain.add(1, 2)``, but for the changes."""
    identity = unique("malformed")
    message = {
        "body": json.dumps([[1, 2], {}, embedded or {}]),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"lang": "py", "task": "plain.add", "id": identity, **(headers or {})},
        "properties": {"correlation_id": identity, "delivery_info": {}, **(properties or {})},
    }
    return json.dumps({**message, **changes}).encode()


def malformed() -> list[bytes]:
    """Return one envelope for each field and each value that does not belong there."""
    made = [envelope({name: value}) for name, value in product(_HEADERS, _VALUES)]
    made += [envelope(None, {name: value}) for name, value in product(_PROPERTIES, _VALUES)]
    made += [envelope(None, None, {name: value}) for name, value in product(_EMBEDDED, _VALUES)]
    bodies = ["", "x", "5", "[]", "[[],{}]", "[5,{},{}]", "[[],5,{}]", "[[],{},5]", '{"a":1}', None]
    made += [envelope(body=body) for body in (*bodies, 5, {"a": 1})]
    for name, value in product(("content-type", "content-encoding"), ("x", "binary", 5)):
        changes: dict[str, Any] = {name: value}
        made.append(envelope(**changes))
    return made


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_malformed_envelope_takes_no_slot(plain: Plain, pool: str) -> None:
    """After hundreds of them good tasks run, in each slot of the pool."""
    with plain.worker(f"malformed-{pool}", "-P", pool):
        session = plain.session
        futures = [
            session.publish(OutgoingMessage(f"{plain.prefix}celery", m)) for m in malformed()
        ]
        for future in futures:
            future.result(PATIENCE)
        good = [plain.send("add", 1, number) for number in range(10)]

        assert [result.get(timeout=60) for result in good] == list(range(1, 11))
        wait_until(lambda: not list(pull(session, f"{plain.prefix}celery")))


def test_a_compressed_body_is_not_expanded_beyond_bounds(plain: Plain) -> None:
    """A bomb is dead-lettered without being decompressed; an ordinary compressed task runs."""
    with plain.worker("bombs", "-P", "threads"):
        session = plain.session
        for name, compress in (("gzip", zlib.compress), ("bz2", bz2.compress)):
            body = base64.b64encode(compress(bytes(150_000_000))).decode()
            headers = {"compression": f"application/x-{name}"}
            bomb = envelope(headers, {"body_encoding": "base64"}, body=body)
            session.publish(OutgoingMessage(f"{plain.prefix}celery", bomb)).result(PATIENCE)
        good = plain.send("add", 1, 2, compression="gzip")

        assert good.get(timeout=60) == 3
        subscription = f"{plain.prefix}celery.dead-letter"
        seen: dict[str, str] = {}

        def both_are_there() -> bool:
            for each in pull(session, subscription):
                text = each.message.attributes["convotic-dead-letter-error-message"]
                seen[each.message.message_id] = text
            return len(seen) >= 2  # a slow machine may have both twice

        wait_until(both_are_there)
        errors = list(seen.values())

    assert all("expands to more than 100,000,000 bytes" in each for each in errors)
