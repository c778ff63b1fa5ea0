"""Kalshi's request signatures as the venue checks them, and a throw-away key to sign with.

Written apart from the client on purpose: the two witness one another. Facts: docs.kalshi.com/getting_started/api_keys
(RSA-PSS, SHA-256, MGF1-SHA-256, salt as long as the digest; message = timestamp + METHOD + path without query).
"""

import base64
import binascii
import re
import uuid
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

__all__ = ["TIMESTAMP_TOLERANCE_MS", "ThrowAwayKey"]

TIMESTAMP_TOLERANCE_MS = 30_000
"""How far a signature's timestamp may lie from the wall clock (the venue's own tolerance is not documented)."""

_SALT_BYTES = 32
_MILLISECONDS = re.compile(r"[0-9]{13}")


class ThrowAwayKey:
    """An RSA key that lives as long as the exchange."""

    def __init__(self) -> None:
        self._private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._public = self._private.public_key()
        self.key_id = str(uuid.uuid4())

    @property
    def pem(self) -> str:
        """The private key as the venue hands it out: PKCS#1 PEM."""
        return self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        ).decode()

    def accepts(self, headers: Mapping[str, str], method: str, path: str, now_ms: int) -> bool:
        """Whether the three ``KALSHI-ACCESS-*`` headers sign this request; ``path`` is without its query."""
        timestamp = headers.get("KALSHI-ACCESS-TIMESTAMP", "")
        if headers.get("KALSHI-ACCESS-KEY") != self.key_id or not _MILLISECONDS.fullmatch(timestamp):
            return False
        if abs(int(timestamp) - now_ms) > TIMESTAMP_TOLERANCE_MS:
            return False
        try:
            signature = base64.b64decode(headers.get("KALSHI-ACCESS-SIGNATURE", ""), validate=True)
            self._public.verify(
                signature,
                f"{timestamp}{method}{path}".encode(),
                padding.PSS(padding.MGF1(hashes.SHA256()), _SALT_BYTES),
                hashes.SHA256(),
            )
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True
