import json
from typing import Any

import httpx
import pytest

from arb_pipeline.exchange import Exchange
from arb_pipeline.exchange.book_hash import book_hash


async def keyset(http: httpx.AsyncClient, kind: str, **params: Any) -> list[Any]:
    found: list[Any] = []
    while True:
        body = (await http.get(f"/gamma/{kind}/keyset", params=params)).json()
        found += body[kind]
        if "next_cursor" not in body:
            return found
        params["after_cursor"] = body["next_cursor"]


def test_the_published_hash_vector() -> None:
    levels = [[{"price": price, "size": "100"} for price in pair] for pair in (("0.3", "0.4"), ("0.6", "0.7"))]
    told = book_hash(
        market="0xaabbcc",
        asset_id="100",
        timestamp="123456789",
        bids=levels[0],
        asks=levels[1],
        min_order_size="100",
        tick_size="0.01",
        neg_risk=False,
        last_trade_price="0.5",
    )
    assert told == "0458ea5755c9f73d64a14636fa5c36ed460ec394"


async def test_keyset_pages_are_complete_stable_and_end_without_a_cursor(http: httpx.AsyncClient) -> None:
    whole = await keyset(http, "events", limit=500)
    slugs = [event["slug"] for event in whole]
    assert len(slugs) >= 60
    for limit in (9, 20):
        assert [event["slug"] for event in await keyset(http, "events", limit=limit)] == slugs
    assert len((await http.get("/gamma/events/keyset")).json()["events"]) == 20
    markets = await keyset(http, "markets", limit=1000)
    assert len(markets) == len({market["conditionId"] for market in markets}) >= 150
    first = (await http.get("/gamma/markets/keyset", params={"limit": 1000})).json()
    assert len(first["markets"]) == 100
    assert {market["conditionId"] for market in markets} == {
        market["conditionId"] for event in whole for market in event["markets"]
    }


async def test_arrays_are_bare_clamped_and_shallow(http: httpx.AsyncClient) -> None:
    markets = await http.get("/gamma/markets", params={"limit": 1000})
    assert len(markets.json()) == 100
    assert markets.headers["deprecation"] == "true"
    assert "sunset" in markets.headers
    second = (await http.get("/gamma/markets", params={"limit": 10, "offset": 5})).json()
    assert second == markets.json()[5:15]
    assert (await http.get("/gamma/events", params={"offset": 2000})).json() == []
    deep = await http.get("/gamma/events", params={"offset": 2001})
    assert deep.status_code == 422
    assert deep.json() == {
        "type": "validation error",
        "error": "offset too large, use /events/keyset for deeper pagination",
    }


@pytest.mark.parametrize(
    "path",
    [
        "/events/keyset?offset=0",
        "/markets/keyset?offset=10",
        "/markets?order=volume_num",
        "/markets?limit=many",
        "/events?closed=maybe",
        "/markets/keyset?after_cursor=nonsense",
        "/markets?volume_num_min=lots",
    ],
)
async def test_refusals(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get("/gamma" + path)
    assert answer.status_code == 422
    assert answer.json()["type"] == "validation error"


async def test_lists_are_strings_and_prices_follow_the_book(http: httpx.AsyncClient) -> None:
    market = (await http.get("/gamma/markets", params={"limit": 1})).json()[0]
    tokens = json.loads(market["clobTokenIds"])
    assert len(json.loads(market["outcomes"])) == len(tokens) == 2
    assert isinstance(market["volume"], str)
    book = (await http.get("/clob/book", params={"token_id": tokens[0]})).json()
    assert market["bestBid"] == float(book["bids"][-1]["price"])
    assert market["bestAsk"] == float(book["asks"][-1]["price"])
    middle = float(json.loads(market["outcomePrices"])[0])
    assert middle == pytest.approx((market["bestBid"] + market["bestAsk"]) / 2)
    assert "markets" not in market["events"][0]


async def test_filters_order_and_single_records(http: httpx.AsyncClient) -> None:
    markets = (await http.get("/gamma/markets", params={"limit": 3, "order": "volumeNum", "ascending": "false"})).json()
    volumes = [market["volumeNum"] for market in markets]
    assert volumes == sorted(volumes, reverse=True)
    one, two, _ = markets
    wanted = [("condition_ids", market["conditionId"]) for market in (one, two)]
    both = await http.get("/gamma/markets", params=wanted)
    assert {market["id"] for market in both.json()} == {one["id"], two["id"]}
    token = json.loads(one["clobTokenIds"])[1]
    assert (await http.get("/gamma/markets", params={"clob_token_ids": token})).json()[0]["id"] == one["id"]
    assert (await http.get(f"/gamma/markets/slug/{one['slug']}")).json()["id"] == one["id"]
    assert (await http.get(f"/gamma/markets/{one['id']}")).json()["slug"] == one["slug"]
    event = (await http.get("/gamma/events", params={"limit": 1})).json()[0]
    assert (await http.get(f"/gamma/events/slug/{event['slug']}")).json()["id"] == event["id"]
    assert (await http.get(f"/gamma/events/{event['id']}")).json()["slug"] == event["slug"]
    assert (await http.get("/gamma/markets", params={"closed": "true"})).json() == []
    gone = await http.get("/gamma/events/slug/nothing")
    assert (gone.status_code, gone.json()["type"]) == (404, "not found error")


async def test_books_drop_unknown_tokens_and_refuse_too_many(http: httpx.AsyncClient, still: Exchange) -> None:
    tokens = list(still.polymarket.tokens)[:3]
    books = (await http.post("/clob/books", json=[{"token_id": token} for token in [*tokens, "12345"]])).json()
    assert [book["asset_id"] for book in books] == tokens
    for book in books:
        fields = {key: book[key] for key in book if key != "hash"}
        assert book["hash"] == book_hash(**fields)
        assert len(book["last_trade_price"].partition(".")[2]) >= 3
    many = await http.post("/clob/books", json=[{"token_id": str(number)} for number in range(501)])
    assert (many.status_code, many.json()) == (400, {"error": "Payload exceeds the limit"})
    assert (await http.post("/clob/books", content=b"[1]")).status_code == 400


@pytest.mark.parametrize("path", ["/books", "/prices", "/midpoints", "/spreads"])
async def test_plural_gets_are_invalid(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get("/clob" + path)
    assert (answer.status_code, answer.json()) == (400, {"error": "Invalid payload"})


async def test_small_answers(http: httpx.AsyncClient, still: Exchange) -> None:
    token, (market, index) = next(iter(still.polymarket.tokens.items()))
    params = {"token_id": token}
    book = (await http.get("/clob/book", params=params)).json()
    bid, ask = float(book["bids"][-1]["price"]), float(book["asks"][-1]["price"])
    assert float((await http.get("/clob/price", params={**params, "side": "BUY"})).json()["price"]) == bid
    assert float((await http.get("/clob/price", params={**params, "side": "SELL"})).json()["price"]) == ask
    assert (await http.get("/clob/price", params=params)).status_code == 400
    assert float((await http.get("/clob/midpoint", params=params)).json()["mid"]) == pytest.approx((bid + ask) / 2)
    assert float((await http.get("/clob/spread", params=params)).json()["spread"]) == pytest.approx(ask - bid)
    assert (await http.get("/clob/last-trade-price", params=params)).json() == {"price": "0.5", "side": ""}
    tick = (await http.get(f"/clob/tick-size/{token}")).json()
    assert tick == {"minimum_tick_size": float(book["tick_size"])}
    assert (await http.get("/clob/neg-risk", params=params)).json() == {"neg_risk": book["neg_risk"]}
    assert (await http.get("/clob/fee-rate", params=params)).json() == {"base_fee": 1000}
    info = (await http.get(f"/clob/clob-markets/{market.condition_id}")).json()
    assert info["t"][index]["t"] == token
    assert info["fd"] == {"r": 0.05, "e": 1, "to": True}
    assert (await http.get(f"/clob/markets-by-token/{token}")).json()["condition_id"] == market.condition_id
    assert (await http.get("/clob/ok")).json() == "OK"
    assert isinstance((await http.get("/clob/time")).json(), int)
    assert (await http.get("/gamma/status")).text == "OK"


async def test_clob_errors(http: httpx.AsyncClient) -> None:
    bad = await http.get("/clob/book", params={"token_id": "abc"})
    assert (bad.status_code, bad.json()) == (400, {"error": "Invalid token id"})
    gone = await http.get("/clob/book", params={"token_id": "123"})
    assert (gone.status_code, gone.json()) == (404, {"error": "No orderbook exists for the requested token id"})
    assert (await http.get("/clob/clob-markets/0x12")).status_code == 404
