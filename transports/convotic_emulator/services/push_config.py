"""Where a subscription may push to: endpoints on this machine."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from convotic_emulator.errors import InvalidArgument, Unimplemented

__all__ = ["check_push_config", "is_loopback"]


def check_push_config(config: Any) -> None:
    """Refuse an endpoint that can't be delivered to."""
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
    if parts.scheme != "http" or not is_loopback(host):
        raise Unimplemented(
            "convotic_emulator pushes to http:// endpoints on this machine only"
            f" (127.0.0.1, localhost), not to {endpoint}."
        )
    if config.HasField("oidc_token"):
        raise Unimplemented("Push with an OIDC token is not supported by convotic_emulator.")


def is_loopback(host: str) -> bool:
    """Say whether an address (or ``localhost``) is of this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
