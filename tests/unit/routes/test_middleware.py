"""Middleware around routes: in order, with the answer, and with what went wrong."""

# ruff: noqa: ARG001, ARG002 - hooks and handlers take what they are given, used or not

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import Depends

from convotic_celery.errors import ModuleError
from convotic_celery.sdk import ConvoticModule, Problem, RouteMiddleware, RouteRequest
from convotic_celery.sdk.http import RouteResponse
from tests.unit.routes.conftest import MakeClient


class Noting(RouteMiddleware):
    """Notes what it sees, with plain hooks."""

    def __init__(self, name: str, lines: list[str]) -> None:
        self._name = name
        self._lines = lines

    def before(self, request: RouteRequest[Any], ctx: Any) -> None:
        self._lines.append(f"{self._name} before {request.path}")

    def after(self, request: RouteRequest[Any], ctx: Any, response: RouteResponse[Any]) -> None:
        self._lines.append(f"{self._name} after {response.status} {response.body}")

    def on_error(self, request: RouteRequest[Any], ctx: Any, error: Exception) -> None:
        self._lines.append(f"{self._name} {type(error).__name__}")


class Guard(RouteMiddleware):
    """Requires a header."""

    async def before(self, request: RouteRequest[Any], ctx: Any) -> None:
        if "authorization" not in request.headers:
            raise Problem(401, "Who are you?")


class Translating(RouteMiddleware):
    """Makes another error of one."""

    async def on_error(self, request: RouteRequest[Any], ctx: Any, error: Exception) -> None:
        if isinstance(error, LookupError):
            raise Problem(404, "There is no such order.") from error


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
async def test_hooks_surround_the_handler(
    module: ConvoticModule, make_client: MakeClient, is_async: bool
) -> None:
    """In order before, in the opposite one after; they see the answer with its status."""
    lines: list[str] = []

    async def answer(request: RouteRequest, ctx: Any) -> dict[str, Any]:
        return {"status": 202, "body": "async"}

    def answer_plainly(request: RouteRequest, ctx: Any) -> str:
        return "plain"

    module.use(Noting("outer", lines))
    module.use(Noting("inner", lines))
    module.route("GET", "/a", status=202)(answer if is_async else answer_plainly)

    async with make_client() as client:
        response = await client.get("/a")

    assert response.status_code == 202
    assert lines == [
        "outer before /a",
        "inner before /a",
        f"inner after 202 {response.json()}",
        f"outer after 202 {response.json()}",
    ]


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
async def test_hooks_are_told_of_errors(
    module: ConvoticModule, make_client: MakeClient, is_async: bool
) -> None:
    """The last one first; the answer is what it would have been."""
    lines: list[str] = []

    async def fail(request: RouteRequest, ctx: Any) -> None:
        raise Problem(409)

    def fail_plainly(request: RouteRequest, ctx: Any) -> None:
        raise Problem(409)

    module.use(Noting("outer", lines))
    module.use(Noting("inner", lines))
    module.route("GET", "/a")(fail if is_async else fail_plainly)

    async with make_client() as client:
        assert (await client.get("/a")).status_code == 409

    assert lines[2:] == ["inner Problem", "outer Problem"]


async def test_a_hook_may_answer_instead(module: ConvoticModule, make_client: MakeClient) -> None:
    """The handler is not called; another's error is replaced."""
    called = []

    @module.route("GET", "/a")
    async def find(request: RouteRequest, ctx: Any) -> None:
        called.append(request.path)
        raise KeyError("17")

    module.use(Guard())
    module.use(Translating())
    async with make_client() as client:
        refused = await client.get("/a")
        answered = await client.get("/a", headers={"authorization": "me"})

    assert (refused.status_code, answered.status_code) == (401, 404)
    assert refused.json()["detail"] == "Who are you?"
    assert called == ["/a"]


async def leave() -> None:
    """Be a dependency that ends its program."""
    raise SystemExit(3)


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt])
async def test_a_route_ends_no_server(
    module: ConvoticModule,
    make_client: MakeClient,
    raised: type[BaseException],
    is_async: bool,
) -> None:
    """A library's sys.exit() is an error of this call, of which the hooks are told."""
    lines: list[str] = []

    async def leave(request: RouteRequest, ctx: Any) -> None:
        raise raised(3)

    def leave_plainly(request: RouteRequest, ctx: Any) -> None:
        raise raised(3)

    module.use(Noting("hook", lines))
    module.route("GET", "/a")(leave if is_async else leave_plainly)

    async with make_client() as client:
        assert (await client.get("/a")).status_code == 500

    assert lines[1:] == ["hook HandlerExited"]


async def test_a_dependency_ends_no_server(module: ConvoticModule, make_client: MakeClient) -> None:
    """It is called before the hooks."""

    @module.route("GET", "/a")
    async def find(
        request: RouteRequest, ctx: Any, gone: Annotated[None, Depends(leave)]
    ) -> None: ...

    async with make_client() as client:
        assert (await client.get("/a")).status_code == 500


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
async def test_a_hook_that_raises_replaces_the_error_for_those_around_it(
    module: ConvoticModule, make_client: MakeClient, is_async: bool
) -> None:
    """They are told all the same."""
    lines: list[str] = []

    class Refusing(RouteMiddleware):
        def on_error(self, request: RouteRequest[Any], ctx: Any, error: Exception) -> None:
            raise Problem(404) from error

    async def fail(request: RouteRequest, ctx: Any) -> None:
        raise KeyError("17")

    def fail_plainly(request: RouteRequest, ctx: Any) -> None:
        raise KeyError("17")

    for each in (Noting("outer", lines), Refusing(), Noting("inner", lines)):
        module.use(each)
    module.route("GET", "/a")(fail if is_async else fail_plainly)

    async with make_client() as client:
        assert (await client.get("/a")).status_code == 404

    assert lines[2:] == ["inner KeyError", "outer Problem"]


def test_async_hooks_are_refused_around_a_plain_route(module: ConvoticModule) -> None:
    """They would not be awaited."""
    module.use(Guard())

    @module.route("GET", "/a")
    def find(request: RouteRequest, ctx: Any) -> None: ...

    with pytest.raises(ModuleError, match=r"Guard\.before is async"):
        module.collect()
