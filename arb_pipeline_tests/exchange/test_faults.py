import json
import time
from typing import Any

import httpx
import pytest
import websockets

from arb_pipeline.exchange import Exchange
from arb_pipeline.exchange.faults import FAULTS, FaultError, Faults
from arb_pipeline.exchange.source import LevelChange
from arb_pipeline_tests.exchange.client import PolymarketFold, Socket, kalshi_socket, polymarket_socket
from arb_pipeline_tests.exchange.conftest import Scripted

A = "KXFEDDECISION-26DEC-C25"
M = 1_000_000


async def inject(http: httpx.AsyncClient, **fault: Any) -> None:
    answer = await http.post("/_exchange/fault", json=fault)
    assert answer.status_code == 200, answer.text


async def kalshi(exchange: Exchange) -> Socket:
    socket = await kalshi_socket(exchange)
    await socket.send({"id": 1, "cmd": "subscribe", "params": {"channels": ["orderbook_delta"], "market_tickers": [A]}})
    await socket.messages(2)
    return socket


def change(market_id: str, size: int) -> LevelChange:
    return LevelChange(market_id, "bid", 100, size * M)


async def test_drop_seq_loses_a_delta_and_uses_its_number(
    scripted: Scripted, still: Exchange, http: httpx.AsyncClient
) -> None:
    scripted.script += [(20, change(A, 1)), (30, change(A, 2))]
    await inject(http, kind="drop_seq", market=A)
    message = await (await kalshi(still)).message()
    assert message["seq"] == 3
    listed = (await http.get("/_exchange/fault")).json()
    assert listed["faults"] == [{"kind": "drop_seq", "venue": "", "market": A, "left": 0, "struck": 1}]
    assert set(listed["kinds"]) == set(FAULTS)


async def test_malformed_and_unknown_frames_come_before_the_true_one(
    scripted: Scripted, still: Exchange, http: httpx.AsyncClient
) -> None:
    scripted.script += [(20, change(A, 1)), (30, change(A, 2))]
    await inject(http, kind="malformed_frame", venue="kalshi")
    await inject(http, kind="unknown_type", venue="kalshi")
    socket = await kalshi(still)
    half = await socket.text()
    with pytest.raises(json.JSONDecodeError):
        json.loads(half)
    first, odd, second = await socket.messages(3)
    assert [first["seq"], second["seq"]] == [2, 3]
    assert odd["type"] == "market_mood"


async def test_missing_field_and_null_list(scripted: Scripted, still: Exchange, http: httpx.AsyncClient) -> None:
    market_id, market = next(iter(still.polymarket.markets.items()))
    scripted.script += [(20, change(A, 1)), (60, change(market_id, 1)), (70, change(market_id, 2))]
    await inject(http, kind="missing_field", venue="kalshi")
    await inject(http, kind="null_list", venue="polymarket", market=market_id)
    polymarket = await polymarket_socket(still)
    socket = await kalshi(still)
    await polymarket.send({"assets_ids": [market.tokens[0]], "type": "market"})
    bare = await socket.message()
    assert "price_dollars" not in bare["msg"]
    assert bare["seq"] == 2
    _, null, full = await polymarket.messages(3)
    assert null["price_changes"] is None
    assert len(full["price_changes"]) == 2


async def test_wrong_hash_strikes_once(scripted: Scripted, still: Exchange, http: httpx.AsyncClient) -> None:
    market_id, market = next(iter(still.polymarket.markets.items()))
    scripted.script += [(20, change(market_id, 1)), (30, change(market_id, 2))]
    await inject(http, kind="wrong_hash", count=1)
    book = (await http.get("/clob/book", params={"token_id": market.tokens[0]})).json()
    fold = PolymarketFold({market.tokens[0]: book})
    socket = await polymarket_socket(still)
    await socket.send({"assets_ids": [market.tokens[0]], "type": "market"})
    for frame in await socket.messages(3):
        fold.take(frame)
    assert fold.kinds["price_change"] == 2
    assert fold.bad_hashes == 1


async def test_disconnect_cuts_the_venue_named(still: Exchange, http: httpx.AsyncClient) -> None:
    cut, kept = await kalshi(still), await polymarket_socket(still)
    await inject(http, kind="disconnect", venue="kalshi")
    with pytest.raises(websockets.ConnectionClosedError):
        await cut.text()
    await kept.ws.send("PING")
    assert await kept.text() == "PONG"
    again = await kalshi(still)
    assert json.loads(again.frames[0])["msg"]["sid"] == 1


async def test_http_status_strikes_so_many_requests_of_a_venue(http: httpx.AsyncClient) -> None:
    await inject(http, kind="http_status", venue="kalshi", count=2)
    await inject(http, kind="http_status", venue="polymarket", status=502, html=True)
    answers = [await http.get("/trade-api/v2/exchange/status") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].json() == {"error": "too many requests"}
    page = await http.get("/gamma/events")
    assert (page.status_code, page.headers["content-type"].partition(";")[0]) == (502, "text/html")
    assert (await http.get("/gamma/events")).status_code == 200


async def test_slow_rest_and_null_lists(http: httpx.AsyncClient) -> None:
    await inject(http, kind="slow_rest", venue="polymarket", seconds=0.2)
    begun = time.monotonic()
    assert (await http.get("/clob/ok")).status_code == 200
    assert time.monotonic() - begun >= 0.2
    await inject(http, kind="rest_null_lists", venue="kalshi")
    body = (await http.get("/trade-api/v2/markets", params={"limit": 1})).json()
    assert body["markets"][0]["price_ranges"] is None
    assert (await http.get("/trade-api/v2/markets", params={"limit": 1})).json()["markets"][0]["price_ranges"]


@pytest.mark.parametrize(
    "request_", [None, {}, {"kind": "magic"}, {"kind": "drop_seq", "venue": "nyse"}, {"kind": "drop_seq", "count": 0}]
)
def test_unusable_requests_are_refused_with_a_remedy(request_: Any) -> None:
    with pytest.raises(FaultError, match="give"):
        Faults().add(request_)


async def test_the_control_route_refuses_too(http: httpx.AsyncClient) -> None:
    answer = await http.post("/_exchange/fault", json={"kind": "magic"})
    assert answer.status_code == 400
    assert "magic" in answer.json()["error"]
