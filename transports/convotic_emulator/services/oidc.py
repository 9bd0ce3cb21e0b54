"""OIDC tokens of push requests, signed with a key of this server's own.

Receivers that check the service's tokens check these in the same way, with our JWKS instead of
Google's: https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions. The key lives as
long as the process.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import Any

from convotic_emulator.errors import Unimplemented

__all__ = ["ISSUER", "TokenSigner", "check_available"]

#: As in the service's tokens: receivers compare it.
ISSUER = "https://accounts.google.com"
LIFETIME_SECONDS = 3600
#: A token is used again until it has less left than this.
_MARGIN_SECONDS = 300


class TokenSigner:
    """Makes tokens, and the key set that they are checked with. The key is made when needed."""

    def __init__(self) -> None:
        self._key: Any = None
        self._tokens: dict[tuple[str, str], tuple[int, str]] = {}

    def token(self, email: str, audience: str) -> str:
        """Return a token of a service account for an audience, valid for 5 to 60 minutes."""
        now = int(time.time())
        expires, token = self._tokens.get((email, audience), (0, ""))
        if expires - now < _MARGIN_SECONDS:
            expires = now + LIFETIME_SECONDS
            token = self._sign(
                {
                    "aud": audience,
                    "azp": _subject(email),
                    "email": email,
                    "email_verified": True,
                    "exp": expires,
                    "iat": now,
                    "iss": ISSUER,
                    "sub": _subject(email),
                }
            )
            self._tokens[email, audience] = (expires, token)
        return token

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public key as a JSON Web Key Set (RFC 7517)."""
        return {"keys": [{**self._public(), "alg": "RS256", "use": "sig", "kid": self._kid()}]}

    def _sign(self, claims: dict[str, object]) -> str:
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15  # noqa: PLC0415
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415  # an extra

        header = {"alg": "RS256", "kid": self._kid(), "typ": "JWT"}
        parts = [_encoded(json.dumps(part).encode()) for part in (header, claims)]
        signed = self._private().sign(".".join(parts).encode(), PKCS1v15(), SHA256())
        return ".".join([*parts, _encoded(signed)])

    def _kid(self) -> str:
        thumbprint = json.dumps(self._public(), sort_keys=True, separators=(",", ":"))
        return _encoded(hashlib.sha256(thumbprint.encode()).digest())

    def _public(self) -> dict[str, str]:
        numbers = self._private().public_key().public_numbers()
        parts = {"e": numbers.e, "n": numbers.n}
        sizes = {name: (value.bit_length() + 7) // 8 for name, value in parts.items()}
        texts = {name: _encoded(value.to_bytes(sizes[name])) for name, value in parts.items()}
        return {"kty": "RSA", **texts}

    def _private(self) -> Any:
        if self._key is None:
            check_available()
            from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415  # an extra

            self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return self._key


def check_available() -> None:
    """Raise Unimplemented where tokens can't be signed."""
    try:
        import cryptography  # noqa: F401, PLC0415  # an extra
    except ImportError:
        raise Unimplemented(
            "Push with an OIDC token needs cryptography: pip install cryptography."
        ) from None


def _subject(email: str) -> str:
    """Return 21 digits, as a service account's unique id has, the same for each email."""
    return str(int(hashlib.sha256(email.encode()).hexdigest(), 16))[:21]


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
