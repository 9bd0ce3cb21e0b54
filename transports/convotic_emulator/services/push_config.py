"""Where a subscription may push to: this machine, and hosts that the server was started with."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from convotic_emulator.errors import InvalidArgument, Unimplemented
from convotic_emulator.services.oidc import check_available

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["check_push_config", "is_loopback"]


def check_push_config(config: Any, hosts: Collection[str]) -> None:
    """Refuse an endpoint that can't be delivered to, or is not on this machine or ``hosts``."""
    endpoint = config.push_endpoint
    if not endpoint:
        return
    try:
        parts = urlsplit(endpoint)
        host = parts.hostname or ""
        valid = parts.scheme in ("http", "https") and bool(host) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or any(c.isspace() or not c.isprintable() for c in endpoint):
        raise InvalidArgument(f"Invalid push endpoint given (endpoint={endpoint}).")
    if not is_loopback(host) and host.lower() not in hosts:
        raise Unimplemented(
            f"convotic_emulator pushes to this machine only (127.0.0.1, localhost), not to {host};"
            f" start it with --push-host {host} to allow that host."
        )
    if config.HasField("oidc_token"):
        check_available()
        if not config.oidc_token.service_account_email:
            raise InvalidArgument("push_config.oidc_token.service_account_email must be set.")


def is_loopback(host: str) -> bool:
    """Return whether an address (or ``localhost``) is of this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
