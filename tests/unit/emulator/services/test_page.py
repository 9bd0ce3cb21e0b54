"""The emulator's page: what it tells, and whom it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from google.pubsub_v1.types import pubsub as t

from convotic_emulator.server import EmulatorServer
from convotic_emulator.services.page import Page
from convotic_emulator.services.page_html import _age
from tests.unit.emulator.client import SUBSCRIPTION, TOPIC, Client, bodies


@pytest.fixture
async def server() -> AsyncIterator[EmulatorServer]:
    async with EmulatorServer() as running:
        yield running


@pytest.fixture
async def client(server: EmulatorServer) -> AsyncIterator[Client]:
    async with Client(server) as connected:
        await connected.create()
        yield connected


@pytest.fixture
async def browser(server: EmulatorServer) -> AsyncIterator[httpx.AsyncClient]:
    page = Page(server.engine)
    await page.start()
    async with httpx.AsyncClient(base_url=page.url, trust_env=False) as started:
        yield started
    await page.stop()


def origin(browser: httpx.AsyncClient) -> dict[str, str]:
    return {"Origin": str(browser.base_url).rstrip("/")}


async def test_what_is_published_arrives(client: Client, browser: httpx.AsyncClient) -> None:
    """Data, attributes and key; then the first page again, with the id."""
    form = {"topic": TOPIC, "data": "a\r\nb", "attributes": "k=v\n\n", "ordering_key": "o"}

    answer = await browser.post("/publish", data=form, headers=origin(browser))

    assert answer.status_code == 303
    [received] = await client.pull()
    assert bodies([received]) == [b"a\nb"]
    assert dict(received.message.attributes) == {"k": "v"}
    assert received.message.ordering_key == "o"
    shown = await browser.get(answer.headers["location"])
    assert received.message.message_id in shown.text


async def test_other_sites_cannot_publish(client: Client, browser: httpx.AsyncClient) -> None:
    """Without the page's own Origin a form is refused."""
    for headers in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        form = {"topic": TOPIC, "data": "x"}
        answer = await browser.post("/publish", data=form, headers=headers)
        assert answer.status_code == 403
    assert await client.pull() == []


async def test_other_names_of_this_machine_are_refused(browser: httpx.AsyncClient) -> None:
    """A site whose name was pointed at 127.0.0.1 reads nothing."""
    answer = await browser.get("/", headers={"Host": "evil.example"})

    assert answer.status_code == 403


async def test_a_backlog_is_read_page_by_page(client: Client, browser: httpx.AsyncClient) -> None:
    """Fifty at a time; looking leases nothing; bytes that are no text are shown in hex."""
    await client.publish(*[b"message %d" % n for n in range(59)], b"\xff\x00")

    first = await browser.get("/subscription", params={"name": SUBSCRIPTION})
    assert first.text.count("<pre>message") == 50
    link = first.text.partition('<a href="/subscription')[2].partition('"')[0]
    second = await browser.get(f"/subscription{link.replace('&amp;', '&')}")

    assert second.text.count("<pre>message") == 9
    assert "ff 00" in second.text
    assert "Next messages" not in second.text
    assert len(await client.pull()) == 60


async def test_markup_in_messages_is_text(client: Client, browser: httpx.AsyncClient) -> None:
    """In data, attributes and keys; and nothing may be loaded from elsewhere."""
    evil = "<script>alert(1)</script>"
    await client.publish(evil.encode(), attributes={"a": evil}, ordering_key=evil)

    answer = await browser.get("/subscription", params={"name": SUBSCRIPTION})

    assert "<script" not in answer.text
    assert answer.text.count("&lt;script&gt;") == 3
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nothing", 404),
        ("/subscription?name=projects/p/subscriptions/missing", 404),
        (f"/subscription?name={SUBSCRIPTION}&after=x", 400),
        ("/?" + "&".join(f"a{n}=1" for n in range(30)), 400),
    ],
)
async def test_what_makes_no_sense_is_refused(
    client: Client, browser: httpx.AsyncClient, path: str, status: int
) -> None:
    """With a page that says why."""
    del client
    answer = await browser.get(path)

    assert answer.status_code == status
    assert 'role="alert"' in answer.text


async def test_limits_hold_here_too(client: Client, browser: httpx.AsyncClient) -> None:
    """What the service refuses is refused with its reason."""
    del client
    for form in ({"topic": TOPIC}, {"topic": TOPIC, "data": "x", "attributes": "nothing"}):
        answer = await browser.post("/publish", data=form, headers=origin(browser))
        assert answer.status_code == 400


async def test_dead_letters_are_counted_over_restarts(tmp_path: Path) -> None:
    """The overview has them, and what is left."""
    policy = {"dead_letter_topic": "projects/p/topics/dead", "max_delivery_attempts": 5}
    for first_run in (True, False):
        async with EmulatorServer(tmp_path / "data") as server, Client(server) as client:
            if first_run:
                dead = t.Topic.pb()(name=policy["dead_letter_topic"])
                await client.call("Publisher/CreateTopic", dead, t.Topic.pb())
                await client.create(dead_letter_policy=policy)
                await client.publish(b"x")
                for _ in range(5):
                    await client.modify(await client.pull(), 0)
                await client.publish(b"y")
            page = Page(server.engine)
            await page.start()
            async with httpx.AsyncClient(base_url=page.url, trust_env=False) as browser:
                shown = (await browser.get("/")).text
            await page.stop()
            # Available, outstanding, dead-lettered.
            assert "".join(f'<td class="n">{n}</td>' for n in (1, 0, 1)) in shown


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET //[ HTTP/1.1\r\nHost: {host}\r\n\r\n",
        b"POST /publish HTTP/1.1\r\nHost: {host}\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    ],
)
async def test_a_request_that_no_browser_sends_is_refused(
    browser: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, request_head: bytes
) -> None:
    """With status 400, and nothing in the log."""
    host, port = browser.base_url.host, browser.base_url.port
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request_head.replace(b"{host}", f"{host}:{port}".encode()))

    answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert not caplog.records
    writer.close()
    await writer.wait_closed()


async def test_a_running_dashboard_is_linked(server: EmulatorServer) -> None:
    """While there is one; its address is text like any other."""
    found: list[str | None] = ['http://127.0.0.1:8100/"><script>', None]
    page = Page(server.engine, find_dashboard=lambda: found.pop(0))
    await page.start()
    async with httpx.AsyncClient(base_url=page.url, trust_env=False) as browser:
        with_link = (await browser.get("/")).text
        without = (await browser.get("/")).text
    await page.stop()

    assert 'href="http://127.0.0.1:8100/&quot;&gt;&lt;script&gt;">Dashboard</a>' in with_link
    assert "Dashboard" not in without


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, ""),
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.97, "1.0 min"),
        (3_599, "1.0 h"),
        (9e4, "1.0 d"),
    ],
)
def test_an_age_is_never_sixty_of_a_unit(seconds: float | None, shown: str) -> None:
    """What rounds up to the next unit is shown in that."""
    assert _age(seconds) == shown
