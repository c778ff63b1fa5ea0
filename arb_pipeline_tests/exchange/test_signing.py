import json
import time

import pytest
import websockets

from arb_pipeline.exchange import Exchange
from arb_pipeline_tests.exchange.client import kalshi_headers

PATH = "/trade-api/ws/v2"


async def _status(exchange: Exchange, headers: dict[str, str], query: str = "") -> int:
    """The HTTP status of an upgrade request; a refusal must be worded as the venue words it."""
    url = exchange.announcement()["kalshi"]["ws_url"] + query
    try:
        async with websockets.connect(url, additional_headers=headers):
            return 101
    except websockets.InvalidStatus as error:
        response = error.response
    body = json.loads(response.body or b"null")
    assert body == {"error": {"code": "token_authentication_failure", "message": "token authentication failure"}}
    return response.status_code


async def test_a_true_signature_opens_the_socket_and_the_query_is_not_signed(still: Exchange) -> None:
    assert await _status(still, kalshi_headers(still, "GET", PATH)) == 101
    assert await _status(still, kalshi_headers(still, "GET", PATH), "?x=1") == 101


@pytest.mark.parametrize(
    ("method", "path", "salt", "skew_ms"),
    [
        ("GET", PATH + "/", 32, 0),
        ("POST", PATH, 32, 0),
        ("GET", PATH, 222, 0),
        ("GET", PATH, 31, 0),
        ("GET", PATH, 32, -60_000),
        ("GET", PATH, 32, 60_000),
    ],
)
async def test_anything_else_is_refused(still: Exchange, method: str, path: str, salt: int, skew_ms: int) -> None:
    assert await _status(still, kalshi_headers(still, method, path, salt=salt, skew_ms=skew_ms)) == 401


@pytest.mark.parametrize("name", ["KALSHI-ACCESS-KEY", "KALSHI-ACCESS-TIMESTAMP", "KALSHI-ACCESS-SIGNATURE"])
async def test_a_header_that_is_absent_or_off_by_one_character_is_refused(still: Exchange, name: str) -> None:
    headers = kalshi_headers(still, "GET", PATH)
    off = {**headers, name: headers[name][:-1] + ("1" if headers[name][-1] != "1" else "2")}
    if name.endswith("SIGNATURE"):
        off[name] = ("B" if headers[name][0] != "B" else "C") + headers[name][1:]
    assert await _status(still, off) == 401
    del headers[name]
    assert await _status(still, headers) == 401


async def test_a_signature_is_tied_to_its_timestamp(still: Exchange) -> None:
    headers = kalshi_headers(still, "GET", PATH)
    headers["KALSHI-ACCESS-TIMESTAMP"] = str(time.time_ns() // 1_000_000 + 1)
    assert await _status(still, headers) == 401
