"""Which requests a page for this machine's browser answers."""

from __future__ import annotations

import pytest

from convotic_local.browser import find_refusal

LOCAL = "127.0.0.1:8100"


@pytest.mark.parametrize(
    "host", [LOCAL, "localhost:8100", "localhost", "[::1]:8100", "LOCALHOST:1"]
)
def test_this_machine_reads(host: str) -> None:
    """By all its names, and by any port: a tunnel has another one."""
    assert find_refusal("GET", host, None) is None


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8100", "", "[", "a@b:x"])
def test_other_names_are_refused(host: str) -> None:
    """A site whose name points here reads nothing."""
    assert find_refusal("GET", host, None)


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "",
        "http://evil.example",
        "http://127.0.0.1:9999",
        f"ftp://{LOCAL}",
        f"http://evil.example@{LOCAL}",
        "http://[",
    ],
)
def test_what_changes_something_comes_from_the_page_itself(origin: str | None) -> None:
    """Another port of this machine is another page, too."""
    assert find_refusal("POST", LOCAL, origin)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_page_itself_may_change_something(scheme: str) -> None:
    """Also behind a gateway that speaks TLS."""
    assert find_refusal("POST", LOCAL, f"{scheme}://{LOCAL}") is None


def test_a_deployment_has_a_name() -> None:
    """And by that name only what comes from it changes something."""
    names = {"ops.example.com"}

    assert find_refusal("GET", "ops.example.com", None, names=names) is None
    assert find_refusal("POST", "ops.example.com", "https://ops.example.com", names=names) is None
    assert find_refusal("POST", "ops.example.com", "https://example.com", names=names)
