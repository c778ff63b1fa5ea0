import json
from typing import Any

import httpx

from arb_pipeline.exchange import Exchange, GeneratedSource, start
from arb_pipeline.exchange.source import BookRefresh, LevelChange, Listed, TradePrint
from arb_pipeline_tests.exchange.client import PolymarketFold, polymarket_socket
from arb_pipeline_tests.exchange.conftest import TODAY, Scripted

M = 1_000_000


def a_market(exchange: Exchange) -> tuple[str, tuple[str, str]]:
    market = next(iter(exchange.polymarket.markets.values()))
    return market.condition_id, market.tokens


async def facts(http: httpx.AsyncClient, tokens: list[str]) -> dict[str, Any]:
    books = (await http.post("/clob/books", json=[{"token_id": token} for token in tokens])).json()
    return {book["asset_id"]: book for book in books}


async def test_a_subscription_is_answered_with_one_array_of_known_books(still: Exchange) -> None:
    _, (yes, no) = a_market(still)
    socket = await polymarket_socket(still)
    await socket.send({"assets_ids": [yes, "123", no], "type": "market"})
    books = await socket.message()
    assert [book["asset_id"] for book in books] == [yes, no]
    assert list(books[0]) == [
        "market",
        "asset_id",
        "timestamp",
        "hash",
        "bids",
        "asks",
        "tick_size",
        "event_type",
        "last_trade_price",
    ]
    assert float(books[0]["bids"][-1]["price"]) == max(float(level["price"]) for level in books[0]["bids"])
    assert float(books[0]["asks"][-1]["price"]) == min(float(level["price"]) for level in books[0]["asks"])
    mirrored = [(round(1 - float(level["price"]), 4), level["size"]) for level in books[0]["asks"]]
    assert [(float(level["price"]), level["size"]) for level in books[1]["bids"]] == mirrored
    await socket.send({"operation": "subscribe", "assets_ids": ["456"]})
    assert await socket.message() == []


async def test_ping_is_answered_in_text_and_nonsense_is_passed_over(still: Exchange) -> None:
    _, (yes, _) = a_market(still)
    socket = await polymarket_socket(still)
    for nonsense in ("{broken", "[]", '{"assets_ids": 5}', '{"type": "market"}'):
        await socket.ws.send(nonsense)
    await socket.ws.send("PING")
    assert await socket.text() == "PONG"
    await socket.send({"assets_ids": [yes], "type": "market", "initial_dump": False})
    await socket.ws.send("PING")
    assert await socket.text() == "PONG"


async def test_a_change_is_mirrored_hashed_and_topped_even_for_one_token(
    scripted: Scripted, still: Exchange, http: httpx.AsyncClient
) -> None:
    market_id, (yes, no) = a_market(still)
    scripted.script += [
        (30, LevelChange(market_id, "bid", 100, 2_500_000)),
        (31, LevelChange(market_id, "bid", 100, 0)),
    ]
    socket = await polymarket_socket(still)
    fold = PolymarketFold(await facts(http, [yes, no]))
    await socket.send({"assets_ids": [yes], "type": "market"})
    books, change, removal = await socket.messages(3)
    for frame in (books, change, removal):
        fold.take(frame)
    first, second = change["price_changes"]
    assert (first["asset_id"], first["price"], first["size"], first["side"]) == (yes, "0.01", "2.5", "BUY")
    assert (second["asset_id"], second["price"], second["size"], second["side"]) == (no, "0.99", "2.5", "SELL")
    assert float(first["best_bid"]) + float(second["best_ask"]) == 1
    assert removal["price_changes"][0]["size"] == "0"
    assert (fold.bad_hashes, fold.bad_tops) == (0, 0)
    rest = (await http.get("/clob/book", params={"token_id": no})).json()
    assert rest["hash"] == removal["price_changes"][1]["hash"]
    assert rest["timestamp"] == removal["timestamp"]


async def test_a_trade_is_change_then_book_then_print(
    scripted: Scripted, still: Exchange, http: httpx.AsyncClient
) -> None:
    market_id, (yes, no) = a_market(still)
    price, size = max(scripted.books()[market_id].bids)
    scripted.script += [
        (30, LevelChange(market_id, "bid", price, size - M)),
        (30, BookRefresh(market_id)),
        (60, TradePrint(market_id, price, M, "no", outcome=1)),
    ]
    socket = await polymarket_socket(still)
    await socket.send({"assets_ids": [yes, no], "type": "market"})
    _, change, book_yes, book_no, trade = await socket.messages(5)
    for entry, book in zip(change["price_changes"], (book_yes, book_no), strict=True):
        assert (book["hash"], book["timestamp"]) == (entry["hash"], change["timestamp"])
        assert "tick_size" not in book
        assert "last_trade_price" not in book
    assert (trade["asset_id"], trade["side"], trade["size"]) == (no, "BUY", "1")
    assert float(trade["price"]) == 1 - price / 10_000
    rest = (await http.get("/clob/book", params={"token_id": yes})).json()
    assert rest["last_trade_price"] == f"{1 - price / 10_000:.3f}"


async def test_unsubscribing_is_silent_and_final(scripted: Scripted, still: Exchange) -> None:
    market_id, (yes, no) = a_market(still)
    other = list(still.polymarket.markets.values())[5]
    scripted.script += [
        (100, LevelChange(market_id, "bid", 100, M)),
        (110, LevelChange(other.condition_id, "bid", 100, M)),
    ]
    socket = await polymarket_socket(still)
    await socket.send({"assets_ids": [yes, no, other.tokens[0]], "type": "market"})
    await socket.send({"operation": "unsubscribe", "assets_ids": [yes, no]})
    books, change = await socket.messages(2)
    assert len(books) == 3
    assert change["market"] == other.condition_id


async def test_extra_events_come_with_the_flag_alone(scripted: Scripted, still: Exchange) -> None:
    new = next(market for market in scripted.hidden if market.startswith("0x"))
    market_id, (yes, _) = a_market(still)
    best = max(scripted.books()[market_id].bids)[0]
    scripted.script += [
        (50 + number, LevelChange(market_id, "bid", best, M if number % 2 else 0)) for number in range(6)
    ]
    scripted.script += [(70, Listed(new)), (80, LevelChange(market_id, "bid", 100, 7 * M))]
    plain, flagged = await polymarket_socket(still), await polymarket_socket(still)
    await plain.send({"assets_ids": [yes], "type": "market"})
    await flagged.send({"assets_ids": [yes], "type": "market", "custom_feature_enabled": True})

    def is_last(message: Any) -> bool:
        return isinstance(message, dict) and any(entry["size"] == "7" for entry in message.get("price_changes", []))

    kinds = [
        {message["event_type"] for message in await socket.until(is_last) if isinstance(message, dict)}
        for socket in (plain, flagged)
    ]
    assert kinds[0] == {"price_change"}
    assert {"new_market", "best_bid_ask"} <= kinds[1]
    told = [json.loads(frame) for frame in flagged.frames if '"new_market"' in frame]
    assert len(told) > 1
    assert told[0]["market"] == new
    assert told[0]["fee_schedule"]["rate"] == "0.04"


async def test_every_hash_of_a_busy_market_is_true() -> None:
    source = GeneratedSource(7, duration_s=30, today=TODAY)
    async with (
        await start(source, speed=float("inf")) as exchange,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{exchange.port}") as http,
    ):
        tokens = list(exchange.polymarket.tokens)
        hidden = [
            token for token, (market, _) in exchange.polymarket.tokens.items() if market.condition_id in source.hidden
        ]
        known = await facts(http, tokens)
        assert set(known) == set(tokens) - set(hidden)
        fold = PolymarketFold(known)
        socket = await polymarket_socket(exchange)
        await socket.send({"assets_ids": list(known), "type": "market", "custom_feature_enabled": True})
        await exchange.player.finished.wait()
        await socket.ws.send("PING")
        while (text := await socket.text()) != "PONG":
            fold.take(json.loads(text))
        assert fold.kinds["price_change"] > 500
        assert fold.kinds["last_trade_price"] > 10
        assert (fold.bad_hashes, fold.bad_tops) == (0, 0)
        after = await facts(http, list(known))
        for token, (bids, asks) in fold.books.items():
            assert {level["price"]: level["size"] for level in after[token]["bids"]} == bids
            assert {level["price"]: level["size"] for level in after[token]["asks"]} == asks
