import base64
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from arb_pipeline.settings import Settings
from arb_pipeline.venues.base import VenueError
from arb_pipeline.venues.http import RestClient
from arb_pipeline.venues.kalshi.auth import (
    KEY_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    KalshiAuth,
    KalshiCredentials,
    verify,
)

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ED25519 = ed25519.Ed25519PrivateKey.generate()
KEYS = [pytest.param(RSA, id="rsa"), pytest.param(ED25519, id="ed25519")]
PATH = "/trade-api/ws/v2"
AT = 1_790_000_000_123


def pem(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> str:
    form = PrivateFormat.TraditionalOpenSSL if isinstance(key, rsa.RSAPrivateKey) else PrivateFormat.PKCS8
    return key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()


def signed(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey = RSA) -> dict[str, str]:
    return KalshiCredentials("key-id", key).sign("GET", PATH, AT)


@pytest.mark.parametrize("key", KEYS)
def test_a_signature_is_accepted(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> None:
    headers = signed(key)
    assert headers[KEY_HEADER] == "key-id"
    assert headers[TIMESTAMP_HEADER] == str(AT)
    assert verify(key.public_key(), headers, "GET", PATH)
    assert verify(key.public_key(), {name.lower(): value for name, value in headers.items()}, "get", PATH)


def test_the_message_is_time_method_path() -> None:
    headers = KalshiCredentials("k", ED25519).sign("get", "/trade-api/v2/portfolio/orders?limit=5", AT)
    message = b"1790000000123GET/trade-api/v2/portfolio/orders"
    ED25519.public_key().verify(base64.b64decode(headers[SIGNATURE_HEADER]), message)


@pytest.mark.parametrize("key", KEYS)
def test_a_change_of_method_path_time_or_key_is_rejected(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> None:
    public, headers = key.public_key(), signed(key)
    assert not verify(public, headers, "POST", PATH)
    assert not verify(public, headers, "GET", "/ws/v2")
    assert not verify(public, headers, "GET", PATH + "?a=1")
    assert not verify(public, {**headers, TIMESTAMP_HEADER: str(AT + 1)}, "GET", PATH)
    assert not verify(ed25519.Ed25519PrivateKey.generate().public_key(), headers, "GET", PATH)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_signature_differing_in_one_byte_is_rejected(data: st.DataObject) -> None:
    key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey = RSA if data.draw(st.booleans()) else ED25519
    headers = signed(key)
    signature = bytearray(base64.b64decode(headers[SIGNATURE_HEADER]))
    place = data.draw(st.integers(0, len(signature) - 1))
    signature[place] ^= data.draw(st.integers(1, 255))
    forged = {**headers, SIGNATURE_HEADER: base64.b64encode(bytes(signature)).decode()}
    assert not verify(key.public_key(), forged, "GET", PATH)


@pytest.mark.parametrize("salt", [0, 20, padding.PSS.MAX_LENGTH], ids=["none", "20", "maximal"])
def test_a_salt_of_another_length_is_rejected(salt: int) -> None:
    message = f"{AT}GET{PATH}".encode()
    signature = RSA.sign(message, padding.PSS(padding.MGF1(hashes.SHA256()), salt), hashes.SHA256())
    headers = {**signed(), SIGNATURE_HEADER: base64.b64encode(signature).decode()}
    assert not verify(RSA.public_key(), headers, "GET", PATH)


@pytest.mark.parametrize("name", [KEY_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER])
@pytest.mark.parametrize("value", [None, "", "é", "*"])
def test_missing_or_mangled_headers_are_rejected_without_an_error(name: str, value: str | None) -> None:
    headers = signed()
    del headers[name]
    if value is not None:
        headers[name] = value
    expected = name == KEY_HEADER and value not in (None, "")
    assert verify(RSA.public_key(), headers, "GET", PATH) is expected


@pytest.mark.parametrize("key", KEYS)
def test_credentials_from_a_file_and_inline(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text(pem(key))
    inline = pem(key)
    for given_settings in (
        Settings(kalshi_api_key_id="id", kalshi_private_key_path=file),
        Settings(kalshi_api_key_id="id", kalshi_private_key=SecretStr(inline)),
        Settings(kalshi_api_key_id="id", kalshi_private_key=SecretStr(inline.replace("\n", "\\n"))),
    ):
        credentials = KalshiCredentials.from_settings(given_settings)
        assert credentials is not None
        assert verify(key.public_key(), credentials.sign("GET", PATH, AT), "GET", PATH)


def test_without_settings_there_are_no_credentials() -> None:
    assert KalshiCredentials.from_settings(Settings()) is None


def test_unusable_credentials_name_the_setting(tmp_path: Path) -> None:
    with pytest.raises(VenueError, match=r"KALSHI_PRIVATE_KEY_PATH=.*nowhere.*No such file"):
        KalshiCredentials.from_settings(
            Settings(kalshi_api_key_id="id", kalshi_private_key_path=tmp_path / "nowhere.pem")
        )
    with pytest.raises(VenueError, match="KALSHI_PRIVATE_KEY_PATH"):
        KalshiCredentials.from_settings(Settings(kalshi_api_key_id="id", kalshi_private_key_path=tmp_path))
    with pytest.raises(VenueError, match="KALSHI_API_KEY_ID is set without a key"):
        KalshiCredentials.from_settings(Settings(kalshi_api_key_id="id"))
    with pytest.raises(VenueError, match="KALSHI_PRIVATE_KEY is set but KALSHI_API_KEY_ID is not"):
        KalshiCredentials.from_settings(Settings(kalshi_private_key=SecretStr(pem(ED25519))))


def test_a_key_that_is_none_is_refused_without_quoting_it() -> None:
    secret = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----"
    for text in (secret, "c2VjcmV0", pem(ec.generate_private_key(ec.SECP256R1()))):
        with pytest.raises(VenueError, match=r"KALSHI_PRIVATE_KEY holds .*RSA or Ed25519") as caught:
            KalshiCredentials.from_settings(Settings(kalshi_api_key_id="id", kalshi_private_key=SecretStr(text)))
        assert "c2VjcmV0" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_no_secret_in_repr() -> None:
    credentials = KalshiCredentials("the-key-id", RSA)
    assert "the-key-id" not in repr(credentials)
    assert "RSA" not in repr(credentials)
    assert str(RSA.private_numbers().d) not in repr(credentials)


async def test_each_attempt_is_signed_afresh_without_the_query() -> None:
    times = iter(range(AT, AT + 10))
    seen: list[httpx.Headers] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers)
        assert verify(RSA.public_key(), request.headers, "GET", "/trade-api/v2/markets/A%20B/orderbook")
        return httpx.Response(503 if len(seen) < 2 else 200, json={})

    auth = KalshiAuth(KalshiCredentials("id", RSA), lambda: next(times))
    transport = httpx.MockTransport(handle)
    async with RestClient(
        "https://venue.test/trade-api/v2", auth=auth, max_wait_s=0.01, requests_per_s=1e6, transport=transport
    ) as client:
        await client.get("/markets/A B/orderbook", {"depth": 0})
    assert [headers[TIMESTAMP_HEADER] for headers in seen] == [str(AT), str(AT + 1)]
    assert seen[0][SIGNATURE_HEADER] != seen[1][SIGNATURE_HEADER]
