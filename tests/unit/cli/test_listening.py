"""What prevents a command from listening is one line, with what to do."""

from __future__ import annotations

import socket

import click
import pytest

from convotic_celery.cli import main
from convotic_celery.cli.listening import listen, url_for, url_of

#: Of nobody: RFC 5737.
ELSEWHERE = "203.0.113.9"


@pytest.mark.parametrize("command", ["routes", "dashboard", "scaling"])
def test_an_address_of_another_machine_is_one_line(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is started: routes ended with five lines of its server and exit code 3."""
    assert main([command, "--host", ELSEWHERE, "--port", "8321"]) == 1

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"Error: Can't listen on {ELSEWHERE}:8321: the address is not of")
    assert said.err.count("\n") == 1


def test_a_taken_port_is_refused_or_the_next_one_used() -> None:
    """As asked for."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(click.ClickException, match=f"127.0.0.1:{port}: the port is taken"):
            listen("127.0.0.1", port)
        with listen("127.0.0.1", port, tries=20) as other:
            assert port < other.getsockname()[1] < port + 20


@pytest.mark.parametrize(
    ("host", "url"), [("localhost", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]")]
)
def test_the_address_that_is_shown_is_one_for_a_browser(host: str, url: str) -> None:
    """Also where the command listens on all addresses."""
    with listen(host, 0) as listener:
        assert url_of(listener).startswith(f"http://{url}:")


def test_an_address_of_ipv6_is_in_brackets() -> None:
    """As a browser takes it."""
    assert url_for("::1", 8090) == "http://[::1]:8090"


def test_a_name_that_does_not_exist_is_said() -> None:
    """With the resolver's reason."""
    with pytest.raises(click.ClickException, match=r"nix\.invalid:80: .*(not known|resolution)"):
        listen("nix.invalid", 80)
