import asyncio
import json
import time
from datetime import datetime
from typing import Any

import httpx
import pytest
import websockets

from arb_pipeline.exchange import Exchange
from arb_pipeline.exchange.faults import FAULTS, FaultError, Faults
from arb_pipeline.exchange.markets import PolymarketMarket
from arb_pipeline.exchange.source import Closed, LevelChange, Reopened, TradePrint
from arb_pipeline_tests.exchange.client import (
    KalshiFold,
    Message,
    PolymarketFold,
    Socket,
    kalshi_socket,
    polymarket_socket,
)
from arb_pipeline_tests.exchange.conftest import Scripted

A, B = "KXFEDDECISION-26DEC-C25", "KXFEDDECISION-26DEC-H0"
REST = "/trade-api/v2"
M = 1_000_000


async def inject(http: httpx.AsyncClient, **fault: Any) -> None:
    answer = await http.post("/_exchange/fault", json=fault)
    assert answer.status_code == 200, answer.text


def subscribe(*tickers: str, channels: tuple[str, ...] = ("orderbook_delta",), number: int = 1) -> Message:
    params = {"channels": list(channels), "market_tickers": list(tickers)}
    return {"id": number, "cmd": "subscribe", "params": params}


def get_snapshot(ticker: str, sid: int = 1) -> Message:
    params = {"sids": [sid], "action": "get_snapshot", "market_tickers": [ticker]}
    return {"id": 9, "cmd": "update_subscription", "params": params}


async def kalshi(exchange: Exchange, *tickers: str) -> Socket:
    socket = await kalshi_socket(exchange)
    await socket.send(subscribe(*(tickers or (A,))))
    await socket.messages(1 + len(tickers or (A,)))
    return socket


async def polymarket(exchange: Exchange, *tokens: str, flag: bool = False) -> Socket:
    socket = await polymarket_socket(exchange)
    await socket.send({"assets_ids": list(tokens), "type": "market", "custom_feature_enabled": flag})
    await socket.message()
    return socket


def two_markets(exchange: Exchange) -> tuple[PolymarketMarket, PolymarketMarket]:
    first, second, *_ = exchange.polymarket.markets.values()
    return first, second


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
    "request_",
    [
        None,
        {},
        {"kind": "magic"},
        {"kind": "drop_seq", "venue": "nyse"},
        {"kind": "drop_seq", "count": 0},
        {"kind": "drop_seq", "market": "KXNOTHING"},
        {"kind": "drop_seq", "market": "token"},
        {"kind": "drop_seq", "seconds": 1},
        {"kind": "silent_market"},
        {"kind": "silence", "seconds": 0},
        {"kind": "silence", "seconds": "long"},
        {"kind": "sid_error", "code": 11},
        {"kind": "close_market", "market": A, "result": "maybe"},
        {"kind": "disconnect_storm", "refuse": "yes"},
    ],
)
def test_unusable_requests_are_refused_with_a_remedy(request_: Any) -> None:
    with pytest.raises(FaultError, match="give"):
        Faults({A}, {"token"}).add(request_)


async def test_the_control_route_refuses_too(http: httpx.AsyncClient) -> None:
    answer = await http.post("/_exchange/fault", json={"kind": "magic"})
    assert answer.status_code == 400
    assert "magic" in answer.json()["error"]


async def test_a_duplicate_is_the_same_frame_with_the_same_seq(still: Exchange, http: httpx.AsyncClient) -> None:
    market, _ = two_markets(still)
    other = await polymarket(still, market.tokens[0])
    socket = await kalshi(still)
    await inject(http, kind="duplicate_frame", venue="kalshi")
    await inject(http, kind="duplicate_frame", venue="polymarket")
    still.kalshi.change_level(change(A, 1))
    still.kalshi.change_level(change(A, 2))
    still.polymarket.change_level(change(market.condition_id, 1))
    first, again, second = [await socket.text() for _ in range(3)]
    assert first == again
    assert [json.loads(frame)["seq"] for frame in (first, second)] == [2, 3]
    assert await other.text() == await other.text()


async def test_malformed_frames_can_lose_the_true_ones(
    scripted: Scripted, still: Exchange, http: httpx.AsyncClient
) -> None:
    scripted.script += [(20 + number, change(A, number)) for number in range(1, 5)]
    await inject(http, kind="malformed_frame", venue="kalshi", count=3, lose=True)
    socket = await kalshi(still)
    for _ in range(3):
        with pytest.raises(json.JSONDecodeError):
            json.loads(await socket.text())
    assert (await socket.message())["seq"] == 5


async def test_silence_withholds_all_but_pong_and_ping_from_open_sockets(
    still: Exchange, http: httpx.AsyncClient
) -> None:
    market, _ = two_markets(still)
    deaf, other = await kalshi(still), await polymarket(still, market.tokens[0])
    await inject(http, kind="silence")
    still.kalshi.change_level(change(A, 1))
    still.polymarket.change_level(change(market.condition_id, 1))
    await deaf.send(get_snapshot(A))
    await other.ws.send("PING")
    assert await other.text() == "PONG"
    await (await deaf.ws.ping())
    fresh = await kalshi(still)
    still.kalshi.change_level(change(A, 2))
    assert (await fresh.message())["type"] == "orderbook_delta"
    assert (await http.get("/_exchange/fault")).json()["faults"][0]["struck"] == 4
    assert (await http.post("/_exchange/fault/clear")).json() == {"cleared": 1}
    still.kalshi.change_level(change(A, 3))
    still.polymarket.change_level(change(market.condition_id, 3))
    assert (await deaf.message())["seq"] == 5
    assert (await other.message())["price_changes"][0]["size"] == "3"


async def test_silence_of_one_connection_ends_by_itself(still: Exchange, http: httpx.AsyncClient) -> None:
    deaf, other = await kalshi(still), await kalshi(still)
    await inject(http, kind="silence", connection="kalshi-1", seconds=0.2)
    still.kalshi.change_level(change(A, 1))
    assert (await other.message())["seq"] == 2
    await wait_for_end(http)
    still.kalshi.change_level(change(A, 2))
    assert [(await socket.message())["seq"] for socket in (deaf, other)] == [3, 3]


async def wait_for_end(http: httpx.AsyncClient) -> None:
    for _ in range(500):
        if not any(fault["left"] for fault in (await http.get("/_exchange/fault")).json()["faults"]):
            return
        await asyncio.sleep(0.01)
    pytest.fail("a fault goes on")


async def test_a_silent_kalshi_market_uses_no_seq_while_its_book_moves_on(
    still: Exchange, http: httpx.AsyncClient
) -> None:
    socket = await kalshi(still, A, B)
    await socket.send(subscribe(A, B, channels=("trade",), number=2))
    await socket.message()
    await inject(http, kind="silent_market", market=A)
    still.kalshi.change_level(change(A, 77))
    still.kalshi.trade(TradePrint(A, 5_000, M, "yes"))
    still.kalshi.tickers()
    still.kalshi.change_level(change(B, 1))
    delta = await socket.message()
    assert (delta["seq"], delta["msg"]["market_ticker"]) == (3, B)
    await socket.send(get_snapshot(A))
    snapshot = await socket.message()
    assert (snapshot["seq"], ["0.0100", "77.00"] in snapshot["msg"]["yes_dollars_fp"]) == (4, True)
    ladders = (await http.get(f"{REST}/markets/{A}/orderbook")).json()["orderbook_fp"]
    assert ladders["yes_dollars"] == snapshot["msg"]["yes_dollars_fp"]
    await http.post("/_exchange/fault/clear")
    still.kalshi.change_level(change(A, 78))
    still.kalshi.trade(TradePrint(A, 5_000, M, "yes"))
    back, trade = await socket.messages(2)
    assert (back["seq"], back["msg"]["delta_fp"]) == (5, "1.00")
    assert (trade["type"], trade["seq"]) == ("trade", 1)


async def test_a_silent_polymarket_market_misses_changes_which_its_hash_tells(
    still: Exchange, http: httpx.AsyncClient
) -> None:
    quiet, loud = two_markets(still)
    tokens = [quiet.tokens[0], loud.tokens[0]]
    facts = {book["asset_id"]: book for book in (await _books(http, tokens))}
    fold = PolymarketFold(facts)
    socket = await polymarket_socket(still)
    await socket.send({"assets_ids": tokens, "type": "market"})
    fold.take(await socket.message())
    await inject(http, kind="silent_market", market=quiet.condition_id, seconds=0.2)
    still.polymarket.change_level(change(quiet.condition_id, 5))
    still.polymarket.trade(TradePrint(quiet.condition_id, 5_000, M, "yes"))
    still.polymarket.change_level(change(loud.condition_id, 5))
    fold.take(await socket.message())
    assert (fold.bad_hashes, fold.kinds["price_change"], fold.kinds["last_trade_price"]) == (0, 1, 0)
    await wait_for_end(http)
    still.polymarket.change_level(LevelChange(quiet.condition_id, "bid", 200, M))
    fold.take(await socket.message())
    assert fold.bad_hashes == 1


async def _books(http: httpx.AsyncClient, tokens: list[str]) -> list[Message]:
    books: list[Message] = (await http.post("/clob/books", json=[{"token_id": token} for token in tokens])).json()
    return books


async def test_a_missing_kalshi_snapshot_uses_no_seq_and_can_be_fetched(
    still: Exchange, http: httpx.AsyncClient
) -> None:
    await inject(http, kind="missing_snapshot", market=A)
    socket = await kalshi_socket(still)
    await socket.send(subscribe(A, B))
    _, only = await socket.messages(2)
    assert (only["seq"], only["msg"]["market_ticker"]) == (1, B)
    still.kalshi.change_level(change(A, 1))
    assert (await socket.message())["msg"]["market_ticker"] == A
    await socket.send(get_snapshot(A))
    fetched = await socket.message()
    assert (fetched["type"], fetched["seq"], fetched["msg"]["market_ticker"]) == ("orderbook_snapshot", 3, A)


async def test_a_missing_polymarket_snapshot_leaves_one_token_out_once(
    still: Exchange, http: httpx.AsyncClient
) -> None:
    market, other = two_markets(still)
    yes, no = market.tokens
    await inject(http, kind="missing_snapshot", market=no)
    for wanted in ([yes, other.tokens[0]], [yes, no, other.tokens[0]]):
        socket = await polymarket_socket(still)
        await socket.send({"assets_ids": [yes, no, other.tokens[0]], "type": "market"})
        assert [book["asset_id"] for book in await socket.message()] == wanted
    await inject(http, kind="missing_snapshot", market=market.condition_id, count=2)
    socket = await polymarket_socket(still)
    await socket.send({"assets_ids": [yes, no, other.tokens[0]], "type": "market"})
    assert [book["asset_id"] for book in await socket.message()] == [other.tokens[0]]


async def test_a_storm_cuts_again_and_again(still: Exchange, http: httpx.AsyncClient) -> None:
    sockets = [await kalshi(still)]
    calm = await polymarket_socket(still)
    await inject(http, kind="disconnect_storm", venue="kalshi", count=3, seconds=1.5)
    struck = 0
    while struck < 3:  # a slow client misses a wave while it dials
        with pytest.raises(websockets.ConnectionClosedError):
            await sockets[-1].text()
        sockets.append(await kalshi(still))
        struck = (await http.get("/_exchange/fault")).json()["faults"][0]["struck"]
    assert len(sockets) >= 3
    await wait_for_end(http)
    still.kalshi.change_level(change(A, 1))
    assert (await sockets[-1].message())["seq"] == 2
    await calm.ws.send("PING")
    assert await calm.text() == "PONG"


async def test_a_storm_can_refuse_upgrades_until_it_is_cleared(still: Exchange, http: httpx.AsyncClient) -> None:
    cut = await polymarket_socket(still)
    await inject(http, kind="disconnect_storm", count=2, seconds=60, refuse=True)
    with pytest.raises(websockets.ConnectionClosedError):
        await cut.text()
    for connect in (kalshi_socket, polymarket_socket):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(still)
        assert refused.value.response.status_code == 429
    await http.post("/_exchange/fault/clear")
    await kalshi(still)
    await polymarket_socket(still)


@pytest.mark.parametrize("code", [10, 25])
async def test_a_terminal_error_ends_one_sid_until_it_is_resubscribed(
    still: Exchange, http: httpx.AsyncClient, code: int
) -> None:
    socket, other = await kalshi(still, A, B), await kalshi(still, A)
    await socket.send(subscribe(A, channels=("trade",), number=2))
    await socket.message()
    await inject(http, kind="sid_error", code=code, market=B)
    error = await socket.message()
    assert (error["type"], error["sid"], error["seq"], error["msg"]["code"]) == ("error", 1, 3, code)
    still.kalshi.change_level(change(A, 1))
    still.kalshi.trade(TradePrint(A, 5_000, M, "yes"))
    assert (await socket.message())["type"] == "trade"
    assert (await other.message())["seq"] == 2
    await socket.send(get_snapshot(A))
    assert (await socket.message())["msg"]["code"] == 7
    await socket.send(subscribe(A, number=3))
    ack, snapshot = await socket.messages(2)
    assert (ack["msg"]["sid"], snapshot["sid"], snapshot["seq"]) == (3, 3, 1)
    still.kalshi.change_level(change(A, 2))
    assert (await socket.message())["seq"] == 2


async def test_terminal_errors_strike_so_many_sids(still: Exchange, http: httpx.AsyncClient) -> None:
    sockets = [await kalshi(still) for _ in range(3)]
    answer = await http.post("/_exchange/fault", json={"kind": "sid_error", "count": 2})
    assert answer.json()["struck"] == 2
    for socket in sockets[:2]:
        assert (await socket.message())["msg"]["code"] == 25
    named = await http.post("/_exchange/fault", json={"kind": "sid_error", "connection": "kalshi-3"})
    assert named.json()["struck"] == 1
    assert (await sockets[2].message())["msg"]["code"] == 25


async def test_a_burst_hurries_what_waits_and_ends(
    scripted: Scripted, still: Exchange, http: httpx.AsyncClient
) -> None:
    scripted.script += [(1, change(A, 1)), (30_000, change(A, 2)), (90_000, change(A, 3))]
    socket = await kalshi(still)
    await socket.message()
    begun = time.monotonic()
    await inject(http, kind="burst", seconds=0.2, factor=200)
    await socket.message()
    assert time.monotonic() - begun < 2
    await wait_for_end(http)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(still.player.finished.wait(), 0.3)
    await inject(http, kind="burst", factor=1_000)
    await socket.message()
    assert time.monotonic() - begun < 5


async def test_clearing_ends_a_burst(scripted: Scripted, still: Exchange, http: httpx.AsyncClient) -> None:
    scripted.script += [(1, change(A, 1)), (30_000, change(A, 2))]
    await (await kalshi(still)).message()
    await inject(http, kind="burst", factor=100, seconds=60)
    assert (await http.post("/_exchange/fault/clear")).json() == {"cleared": 1}
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(still.player.finished.wait(), 0.5)


async def test_a_closed_kalshi_market_is_emptied_twice_and_comes_back(still: Exchange, http: httpx.AsyncClient) -> None:
    before = (await http.get(f"{REST}/markets/{A}")).json()["market"]
    life = await kalshi_socket(still)
    await life.send({"id": 1, "cmd": "subscribe", "params": {"channels": ["market_lifecycle_v2"]}})
    await life.message()
    socket = await kalshi(still, A, B)
    await inject(http, kind="close_market", market=A, apart=0.05)
    first, second = await socket.messages(2)
    assert [message["seq"] for message in (first, second)] == [3, 4]
    assert set(first["msg"]) == {"market_ticker", "market_id", "clock"}
    assert first["msg"] == second["msg"]
    moved = (await life.message())["msg"]
    closed = (await http.get(f"{REST}/markets/{A}")).json()["market"]
    assert (closed["status"], closed["result"], closed["yes_ask_dollars"]) == ("closed", "", "1.0000")
    assert moved["event_type"] == "close_date_updated"
    assert moved["close_ts"] == int(datetime.fromisoformat(closed["close_time"]).timestamp())
    listed = (await http.get(f"{REST}/markets", params={"status": "closed"})).json()["markets"]
    assert [market["ticker"] for market in listed] == [A]
    again = await http.post("/_exchange/fault", json={"kind": "close_market", "market": A})
    assert (again.status_code, "closed already" in again.json()["error"]) == (400, True)

    still.kalshi.change_level(change(A, 77))
    still.kalshi.trade(TradePrint(A, 5_000, M, "yes"))
    still.kalshi.change_level(change(B, 1))
    assert (await socket.message())["msg"]["market_ticker"] == B
    await inject(http, kind="reopen_market", market=A)
    fold = KalshiFold()
    snapshot = await socket.message()
    fold.take(snapshot)
    book = (await http.get("/_exchange/book", params={"market": A})).json()
    assert fold.books[A] == (dict(book["bids"]), dict(book["asks"]))
    assert fold.books[A][0][100] == 77 * M
    assert (await life.message())["msg"]["event_type"] == "close_date_updated"
    reopened = (await http.get(f"{REST}/markets/{A}")).json()["market"]
    assert reopened == before
    refused = await http.post("/_exchange/fault", json={"kind": "reopen_market", "market": A})
    assert (refused.status_code, "is open" in refused.json()["error"]) == (400, True)


async def test_a_result_settles_a_kalshi_market_for_good(still: Exchange, http: httpx.AsyncClient) -> None:
    life = await kalshi_socket(still)
    await life.send({"id": 1, "cmd": "subscribe", "params": {"channels": ["market_lifecycle_v2"]}})
    await life.message()
    await inject(http, kind="close_market", market=A, result="yes")
    _, determined, settled = await life.messages(3)
    assert [message["seq"] for message in (determined, settled)] == [2, 3]
    assert (determined["msg"]["event_type"], determined["msg"]["settlement_value"]) == ("determined", "1.0000")
    assert settled["msg"]["event_type"] == "settled"
    market = (await http.get(f"{REST}/markets/{A}")).json()["market"]
    assert (market["status"], market["result"]) == ("finalized", "yes")
    refused = await http.post("/_exchange/fault", json={"kind": "reopen_market", "market": A})
    assert (refused.status_code, "settled" in refused.json()["error"]) == (400, True)


async def test_a_closed_polymarket_market_is_emptied_resolved_and_gone(
    still: Exchange, http: httpx.AsyncClient
) -> None:
    market, _ = two_markets(still)
    yes, no = market.tokens
    plain, flagged = await polymarket(still, yes), await polymarket(still, yes, no, flag=True)
    fold = PolymarketFold({book["asset_id"]: book for book in await _books(http, [yes, no])})
    fold.last_price[market.condition_id] = fold.facts[yes]["last_trade_price"]
    await inject(http, kind="close_market", market=market.condition_id, result="no")
    books = [await plain.message(), *await flagged.messages(2)]
    for book in books:
        fold.take(book)
        assert (book["event_type"], book["bids"], book["asks"]) == ("book", [], [])
    assert fold.bad_hashes == 0
    first, second = await flagged.messages(2)
    assert first == second
    assert (first["event_type"], first["winning_asset_id"]) == ("market_resolved", no)
    assert (await http.get("/clob/book", params={"token_id": yes})).status_code == 404
    gamma = (await http.get(f"/gamma/markets/{market.record['id']}")).json()
    assert (gamma["closed"], gamma["acceptingOrders"], gamma["outcomePrices"]) == (True, False, '["0", "1"]')
    wanted = {"condition_ids": market.condition_id}
    assert (await http.get("/gamma/markets", params=wanted)).json() == []
    assert len((await http.get("/gamma/markets", params={**wanted, "closed": "true"})).json()) == 1
    still.polymarket.change_level(change(market.condition_id, 1))
    await plain.ws.send("PING")
    assert await plain.text() == "PONG"


async def test_markets_close_and_reopen_by_the_timeline_and_leave_the_source_alone(
    scripted: Scripted, still: Exchange, http: httpx.AsyncClient
) -> None:
    market, _ = two_markets(still)
    name = market.condition_id
    scripted.script += [(10, Closed(name)), (11, Closed(A)), (12, change(name, 9)), (13, change(A, 9))]
    scripted.script += [(14, Reopened(name)), (15, Reopened(A)), (16, change(name, 8)), (17, change(A, 8))]
    yes = market.tokens[0]
    facts = {yes: (await http.get("/clob/book", params={"token_id": yes})).json()}
    listener = await polymarket_socket(still)
    fold = PolymarketFold(facts)
    socket = await kalshi_socket(still)
    await socket.send(subscribe(A))
    await listener.send({"assets_ids": [yes], "type": "market"})
    for frame in await listener.messages(4):
        fold.take(frame)
    assert (fold.kinds, fold.bad_hashes, fold.bad_tops) == ({"book": 3, "price_change": 1}, 0, 0)
    assert fold.books[yes][0]["0.01"] == "8"
    plain = KalshiFold()
    for message in await socket.messages(6):
        plain.take(message)
    assert plain.kinds == {"subscribed": 1, "orderbook_snapshot": 4, "orderbook_delta": 1}
    assert (plain.gaps, plain.books[A][0][100]) == (0, 8 * M)
    records = [market for event in scripted.kalshi_events() for market in event["markets"] if market["ticker"] == A]
    assert records[0]["status"] == "active"
