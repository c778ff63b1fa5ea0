"""Kalshi's request signatures: RSA-PSS or Ed25519 over timestamp, method and path (docs.kalshi.com, API keys).

The message is ``timestamp + METHOD + path``: milliseconds, upper case, and the path from the root (with
``/trade-api/v2``) without the query. RSA signs with PSS, SHA-256, MGF1-SHA-256 and a salt of exactly 32 bytes.
"""

import base64
import binascii
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

import httpx
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from arb_pipeline.clock import wall_ms
from arb_pipeline.settings import Settings
from arb_pipeline.venues.base import VenueError

__all__ = ["KEY_HEADER", "SIGNATURE_HEADER", "TIMESTAMP_HEADER", "KalshiAuth", "KalshiCredentials", "verify"]

KEY_HEADER: Final = "KALSHI-ACCESS-KEY"
TIMESTAMP_HEADER: Final = "KALSHI-ACCESS-TIMESTAMP"
SIGNATURE_HEADER: Final = "KALSHI-ACCESS-SIGNATURE"

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicKey = rsa.RSAPublicKey | ed25519.Ed25519PublicKey

_SALT_BYTES: Final = 32


def _padding() -> padding.PSS:
    return padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=_SALT_BYTES)


@dataclass(frozen=True, slots=True)
class KalshiCredentials:
    """An API key: its id and its private key, neither of which a ``repr`` shows in full."""

    key_id: str = field(repr=False)
    private_key: PrivateKey = field(repr=False)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """The key that the settings name, None where none is set.

        Raises:
            VenueError: if only one half is set, or the key cannot be read; the message names the setting.
        """
        setting, pem = _pem(settings)
        if pem is None:
            if settings.kalshi_api_key_id:
                raise VenueError(
                    "KALSHI_API_KEY_ID is set without a key: set KALSHI_PRIVATE_KEY_PATH or KALSHI_PRIVATE_KEY too"
                )
            return None
        if not settings.kalshi_api_key_id:
            raise VenueError(f"{setting} is set but KALSHI_API_KEY_ID is not: set it to the key's id (a UUID)")
        return cls(settings.kalshi_api_key_id.strip(), _parse(pem, setting))

    def sign(self, method: str, path: str, wall_ms: int) -> dict[str, str]:
        """Headers that sign one request at one wall time; a query in ``path`` is left out, as Kalshi wants it."""
        message = _message(str(wall_ms), method, path.partition("?")[0])
        if isinstance(self.private_key, rsa.RSAPrivateKey):
            signature = self.private_key.sign(message, _padding(), hashes.SHA256())
        else:
            signature = self.private_key.sign(message)
        return {
            KEY_HEADER: self.key_id,
            TIMESTAMP_HEADER: str(wall_ms),
            SIGNATURE_HEADER: base64.b64encode(signature).decode(),
        }


class KalshiAuth(httpx.Auth):
    """Signs every attempt of a request afresh: a retry never repeats an old signature."""

    def __init__(self, credentials: KalshiCredentials, now_ms: Callable[[], int] = wall_ms) -> None:
        self._credentials = credentials
        self._now_ms = now_ms

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the three headers."""
        path = request.url.raw_path.partition(b"?")[0].decode("ascii")
        request.headers.update(self._credentials.sign(request.method, path, self._now_ms()))
        yield request


def verify(public_key: PublicKey, headers: Mapping[str, str], method: str, path: str) -> bool:
    """Whether the headers sign this method and path: what the venue checks, as strictly as it does.

    ``path`` must be given without the query. A PSS salt of any length but 32 is refused.
    """
    given = {name.lower(): value for name, value in headers.items()}
    timestamp = given.get(TIMESTAMP_HEADER.lower(), "")
    encoded = given.get(SIGNATURE_HEADER.lower(), "")
    if not given.get(KEY_HEADER.lower()) or not (timestamp.isascii() and timestamp.isdigit()) or "?" in path:
        return False
    message = _message(timestamp, method, path)
    try:
        signature = base64.b64decode(encoded, validate=True)
        if isinstance(public_key, rsa.RSAPublicKey):
            public_key.verify(signature, message, _padding(), hashes.SHA256())
        else:
            public_key.verify(signature, message)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def _message(timestamp: str, method: str, path: str) -> bytes:
    return f"{timestamp}{method.upper()}{path}".encode()


def _pem(settings: Settings) -> tuple[str, bytes | None]:
    """(name of the setting, PEM) of whichever form of the key is set."""
    if settings.kalshi_private_key is not None and settings.kalshi_private_key.get_secret_value().strip():
        # One-line .env files carry the PEM's line breaks as the two characters \n.
        text = settings.kalshi_private_key.get_secret_value().replace("\\r", "").replace("\\n", "\n")
        return "KALSHI_PRIVATE_KEY", text.strip().encode()
    path = settings.kalshi_private_key_path
    if path is None:
        return "", None
    try:
        return "KALSHI_PRIVATE_KEY_PATH", path.expanduser().read_bytes()
    except OSError as error:
        raise VenueError(
            f"KALSHI_PRIVATE_KEY_PATH={str(path)!r} cannot be read ({error.strerror}): give the API key's PEM file"
        ) from error


def _parse(pem: bytes, setting: str) -> PrivateKey:
    remedy = "give the PEM that Kalshi showed once when the API key was made (RSA or Ed25519, unencrypted)"
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # The parser's words stay out: they may quote what it read.
        raise VenueError(f"{setting} holds no usable private key ({type(error).__name__}): {remedy}") from None
    if not isinstance(key, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        raise VenueError(f"{setting} holds a key of kind {type(key).__name__}: {remedy}")
    return key
