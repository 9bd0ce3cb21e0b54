"""Whom the dashboard answers, without looking at what is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.responses import PlainTextResponse

from convotic_celery.dashboard.guard import Guard

BASE = "http://localhost:8100"
JSON = {"content-type": "application/json"}


def client_of(*, names: tuple[str, ...] = (), read_only: bool = False) -> httpx.AsyncClient:
    guarded = Guard(PlainTextResponse("behind"), names=names, read_only=read_only)
    return httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url=BASE)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of() as started:
        yield started


async def test_the_page_itself_is_answered(client: httpx.AsyncClient) -> None:
    """And nothing may be loaded from elsewhere, nor the page be shown in another one."""
    read = await client.get("/")
    changed = await client.post("/", headers={"origin": BASE, **JSON}, content=b"{}")

    assert (read.text, changed.text) == ("behind", "behind")
    policy = read.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"host": "evil.example"}, 403),
        ("POST", JSON, 403),
        ("POST", {"origin": "http://evil.example", **JSON}, 403),
        ("POST", {"origin": BASE, "content-type": "text/plain"}, 415),
        ("POST", {"origin": BASE}, 415),
        ("DELETE", {"origin": "null", **JSON}, 403),
    ],
)
async def test_others_are_refused(
    client: httpx.AsyncClient, method: str, headers: dict[str, str], status: int
) -> None:
    """Other names, other origins, and what a form could send."""
    answer = await client.request(method, "/", headers=headers)

    assert answer.status_code == status
    assert answer.json()["error"]
    assert "content-security-policy" in answer.headers


async def test_a_deployments_name_is_one_of_its_own() -> None:
    """Named in dashboard_hosts, in any case."""
    async with client_of(names=("Ops.example.com",)) as client:
        answer = await client.get("/", headers={"host": "ops.example.com"})

    assert answer.text == "behind"


async def test_read_only_changes_nothing() -> None:
    """The page is shown, and the refusal names the setting."""
    async with client_of(read_only=True) as client:
        shown = await client.get("/")
        refused = await client.post("/", headers={"origin": BASE, **JSON}, content=b"{}")

    assert shown.status_code == 200
    assert refused.status_code == 403
    assert "CONVOTIC_DASHBOARD_READ_ONLY" in refused.json()["error"]
