import asyncio
import gzip
import hashlib
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from arb_pipeline.exchange import RecordingSource, start
from arb_pipeline.exchange.source import KalshiFrame, PolymarketFrame
from arb_pipeline.recordings import Recording
from arb_pipeline_tests.exchange.client import KalshiFold, PolymarketFold, kalshi_socket, polymarket_socket, scaled

START = 1_786_399_275_000_000_000
TICKER = "KXTEST-26AUG10-T1"


def write(folder: Path, venue: str, frames: list[tuple[int, str, Any]]) -> None:
    (folder / venue).mkdir(parents=True)
    with gzip.open(folder / venue / "frames.jsonl.gz", "wt") as file:
        for ms, conn, message in frames:
            line = {"recv_ns": START + ms * 1_000_000, "conn": conn, "frame": json.dumps(message)}
            file.write(json.dumps(line) + "\n")


def snapshot(yes: list[list[str]], no: list[list[str]] | None = None, seq: int = 1) -> dict[str, Any]:
    msg = {"market_ticker": TICKER, "market_id": "u", "yes_dollars_fp": yes, **({"no_dollars_fp": no} if no else {})}
    return {"type": "orderbook_snapshot", "sid": 4, "seq": seq, "msg": msg}


def delta(price: str, change: str, side: str = "yes", seq: int = 2) -> dict[str, Any]:
    msg = {"market_ticker": TICKER, "market_id": "u", "price_dollars": price, "delta_fp": change, "side": side}
    return {"type": "orderbook_delta", "sid": 4, "seq": seq, "msg": {**msg, "ts_ms": 1786399275488}}


@pytest.fixture
def small(tmp_path: Path) -> RecordingSource:
    """A recording whose second connection takes over from the first, with copies and replies in between."""
    folder = tmp_path / "small"
    write(
        folder,
        "kalshi",
        [
            (0, "a", {"type": "subscribed", "id": 1, "msg": {"channel": "orderbook_delta", "sid": 4}}),
            (0, "a", snapshot([["0.4000", "10.00"]], [["0.5000", "5.00"]])),
            (10, "a", delta("0.4000", "2.50")),
            (20, "b", snapshot([["0.4000", "12.50"], ["0.3900", "1.00"]])),
            (25, "a", delta("0.4000", "99.00", seq=3)),
            (30, "b", delta("0.3900", "-1.00")),
            (40, "b", {"type": "trade", "sid": 5, "seq": 1, "msg": _trade()}),
            (41, "a", {"type": "trade", "sid": 5, "seq": 1, "msg": _trade()}),
        ],
    )
    return RecordingSource(Recording.open(folder))


def _trade() -> dict[str, Any]:
    return {
        "trade_id": "t1",
        "market_ticker": TICKER,
        "yes_price_dollars": "0.4000",
        "no_price_dollars": "0.6000",
        "count_fp": "1.00",
        "taker_side": "no",
        "ts": 1786399275,
        "ts_ms": 1786399275488,
    }


def test_the_first_snapshot_is_the_start_and_the_newest_connection_is_followed(small: RecordingSource) -> None:
    assert small.books()[TICKER].bids == ((4_000, 10_000_000),)
    assert small.books()[TICKER].asks == ((5_000, 5_000_000),)
    played = [(at // 1_000_000, action) for at, action in small.timeline()]
    assert [(at, action.type) for at, action in played if isinstance(action, KalshiFrame)] == [
        (10, "orderbook_delta"),
        (20, "orderbook_snapshot"),
        (30, "orderbook_delta"),
        (40, "trade"),
    ]
    assert small.clock_offset_ns(START + 5_000_000_000) == -5_000_000_000


async def test_messages_are_sent_untouched_in_envelopes_of_the_connection(small: RecordingSource) -> None:
    async with await start(small, speed=float("inf")) as exchange:
        socket = await kalshi_socket(exchange)
        channels = ["orderbook_delta", "trade"]
        await socket.send({"id": 1, "cmd": "subscribe", "params": {"channels": channels, "market_tickers": [TICKER]}})
        got = await socket.until(lambda message: message["type"] == "trade")
        assert [(m["type"], m.get("sid"), m.get("seq")) for m in got if m["type"] != "subscribed"] == [
            ("orderbook_snapshot", 1, 1),
            ("orderbook_delta", 1, 2),
            ("orderbook_snapshot", 1, 3),
            ("orderbook_delta", 1, 4),
            ("trade", 2, 1),
        ]
        assert got[-1]["msg"] == _trade()
        assert socket.frames[-1].endswith('"msg":' + json.dumps(_trade()) + "}")
        assert exchange.kalshi.markets[TICKER].book.bids == {4_000: 12_500_000}
        assert exchange.environment()["ARB_CLOCK_OFFSET"].startswith("-")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{exchange.port}/trade-api/v2") as http:
            events = (await http.get("/events", params={"status": "open", "with_nested_markets": "true"})).json()
            assert [market["ticker"] for event in events["events"] for market in event["markets"]] == [TICKER]
            trades = (await http.get("/markets/trades", params={"ticker": TICKER})).json()["trades"]
            assert [trade["trade_id"] for trade in trades] == ["t1"]


async def test_no_prices_can_be_asked_for_on_the_other_scale(small: RecordingSource) -> None:
    async with await start(small, speed=float("inf")) as exchange:
        socket = await kalshi_socket(exchange)
        params = {"channels": ["orderbook_delta"], "market_tickers": [TICKER], "use_yes_price": True}
        await socket.send({"id": 1, "cmd": "subscribe", "params": params})
        _, first = await socket.messages(2)
        assert first["msg"]["no_dollars_fp"] == [["0.5000", "5.00"]]
        fold = KalshiFold(yes_scale=True)
        fold.take(first)
        for message in await socket.messages(3):
            fold.take(message)
        assert fold.books[TICKER] == ({4_000: 12_500_000}, {})


CONDITION = "0x" + "ab" * 32
YES, NO = "111", "222"


def gamma_event() -> dict[str, Any]:
    market = {
        "id": "1",
        "conditionId": CONDITION,
        "slug": "s",
        "question": "Q?",
        "outcomes": '["Yes", "No"]',
        "clobTokenIds": json.dumps([YES, NO]),
        "orderPriceMinTickSize": 0.01,
        "orderMinSize": 5,
        "negRisk": False,
        "closed": False,
    }
    return {"id": "9", "slug": "s", "title": "Q", "closed": False, "markets": [market]}


def poly_book(token: str, bids: dict[str, str], asks: dict[str, str], **more: str) -> dict[str, Any]:
    sides = {
        name: [{"price": price, "size": size} for price, size in levels.items()]
        for name, levels in (("bids", bids), ("asks", asks))
    }
    return {"market": CONDITION, "asset_id": token, "timestamp": "1786399275000", "hash": "x", **sides, **more}


async def test_polymarket_frames_are_verbatim_and_the_other_token_is_the_mirror(tmp_path: Path) -> None:
    folder = tmp_path / "poly"
    entry = {
        "asset_id": YES,
        "price": "0.42",
        "size": "7",
        "side": "BUY",
        "hash": "h",
        "best_bid": "0.42",
        "best_ask": "0.44",
    }
    other = {
        "asset_id": NO,
        "price": "0.58",
        "size": "7",
        "side": "SELL",
        "hash": "h",
        "best_bid": "0.56",
        "best_ask": "0.58",
    }
    changed = {
        "market": CONDITION,
        "price_changes": [entry, other],
        "timestamp": "1786399276000",
        "event_type": "price_change",
    }
    first = poly_book(YES, {"0.41": "5"}, {"0.44": "8"}, tick_size="0.01", event_type="book", last_trade_price="0.430")
    write(folder, "polymarket", [(0, "p", [first]), (50, "p", changed)])
    (folder / "polymarket" / "events.json").write_text(json.dumps([gamma_event()]))
    source = RecordingSource(Recording.open(folder))
    assert [type(action) for _, action in source.timeline()] == [PolymarketFrame]
    async with (
        await start(source) as exchange,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{exchange.port}") as http,
    ):
        rest = (await http.post("/clob/books", json=[{"token_id": YES}, {"token_id": NO}])).json()
        assert rest[1]["bids"] == [{"price": "0.56", "size": "8"}]
        assert rest[0]["timestamp"] == "1786399275000"
        socket = await polymarket_socket(exchange)
        await socket.send({"assets_ids": [NO], "type": "market"})
        books, change = await socket.messages(2)
        assert books[0]["asks"] == [{"price": "0.59", "size": "5"}]
        assert change == changed
        book = (await http.get("/clob/book", params={"token_id": NO})).json()
        assert book["asks"][-1] == {"price": "0.58", "size": "7"}
        assert book["timestamp"] == "1786399276000"


async def test_markets_of_a_settled_catalogue_are_open_while_they_were(tmp_path: Path) -> None:
    folder = tmp_path / "settled"
    write(folder, "kalshi", [(0, "a", snapshot([["0.4000", "10.00"]]))])
    market = {
        "ticker": TICKER,
        "event_ticker": "E",
        "status": "finalized",
        "result": "yes",
        "expiration_value": "1",
        "settlement_ts": "2026-08-10T23:00:00Z",
        "close_time": "2026-08-10T22:15:00Z",
        "created_time": "2026-08-09T00:00:00Z",
    }
    event = {"event_ticker": "E", "series_ticker": "S", "title": "E", "markets": [market]}
    (folder / "kalshi" / "events.json").write_text(json.dumps([event]))
    (shown,) = RecordingSource(Recording.open(folder)).kalshi_events()
    assert (shown["markets"][0]["status"], shown["markets"][0]["result"]) == ("active", "")
    assert "settlement_ts" not in shown["markets"][0]


async def test_crossvenue_books_equal_the_files_and_all_frames_are_played(recordings: Path) -> None:
    recording = Recording.open(recordings / "crossvenue-202607")
    source = RecordingSource(recording)
    truth = source.truth()
    assert (len(truth["pairs"]), len(truth["near_misses"])) == (14, 3)
    frames = list(recording.frames("polymarket"))
    async with (
        await start(source, speed=float("inf")) as exchange,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{exchange.port}") as http,
    ):
        assert exchange.name == "local exchange: recording crossvenue-202607"
        offset = float(exchange.environment()["ARB_CLOCK_OFFSET"])
        assert abs(time.time() + offset - frames[0].recv_ns / 1e9) < 60
        params = {"with_nested_markets": "true"}
        events = (await http.get("/trade-api/v2/events", params=params)).json()["events"]
        assert events == recording.events("kalshi")
        tickers = [market["ticker"] for event in events for market in event["markets"]]
        assert len(tickers) == 17
        for ticker, ladders in recording.books("kalshi").items():
            book = (await http.get(f"/trade-api/v2/markets/{ticker}/orderbook")).json()["orderbook_fp"]
            assert {side: levels for side, levels in book.items() if levels} == {
                side: levels for side, levels in ladders.items() if levels
            }
        gamma = (await http.get("/gamma/events/keyset", params={"limit": 500})).json()["events"]
        assert gamma == recording.events("polymarket")
        streamed = json.loads(frames[0].frame)[0]["market"]
        files = [book for book in recording.books("polymarket") if book["market"] != streamed]
        assert len(files) == 16
        answer = await http.post("/clob/books", json=[{"token_id": book["asset_id"]} for book in files])
        assert answer.json() == files

        socket = await polymarket_socket(exchange)
        yes = json.loads(frames[0].frame)[0]["asset_id"]
        facts = (await http.get("/clob/book", params={"token_id": yes})).json()
        fold = PolymarketFold({yes: facts})
        await socket.send({"assets_ids": [yes], "type": "market"})
        got = await socket.messages(len(frames))
        assert got[0] == json.loads(frames[0].frame)
        assert socket.frames[1:] == [frame.frame for frame in frames[1:]]
        for frame in got:
            fold.take(frame)
        assert (fold.bad_hashes, fold.bad_tops) == (0, 0)


@pytest.mark.parametrize("name", ["kalshi-gold15m", "kalshi-btc15m"])
async def test_a_kalshi_recording_plays_to_the_expected_end(recordings: Path, name: str) -> None:
    folder = recordings / name
    expected = json.loads((folder / "expected.json").read_text())["markets"]
    source = await asyncio.to_thread(RecordingSource, Recording.open(folder))
    async with await start(source, speed=float("inf")) as exchange:
        socket = await kalshi_socket(exchange)
        params = {"channels": ["orderbook_delta", "trade", "ticker"], "market_tickers": list(expected)}
        await socket.send({"id": 1, "cmd": "subscribe", "params": params})
        fold = KalshiFold()
        quotes = {ticker: hashlib.sha256() for ticker in expected}
        tops: dict[str, Any] = {}
        counts: Counter[str] = Counter()
        total = sum(market["frames"] for market in expected.values()) + 3
        while sum(fold.kinds.values()) < total:
            message = json.loads(await asyncio.wait_for(socket.ws.recv(), 20))
            fold.take(message)
            if not message["type"].startswith("orderbook_"):
                continue
            ticker = message["msg"]["market_ticker"]
            top = _top(fold.books[ticker])
            if tops.get(ticker) != top:
                tops[ticker] = top
                counts[ticker] += 1
                quotes[ticker].update((top + "\n").encode())
        assert fold.gaps == 0
        for ticker, market in expected.items():
            assert counts[ticker] == market["top_changes"]
            assert quotes[ticker].hexdigest() == market["quotes_sha256"]
            assert _digest(fold.books[ticker]) == market["sha256"]


def _top(book: tuple[dict[int, int], dict[int, int]]) -> str:
    bids, asks = book
    bid, ask = max(bids, default=None), min(asks, default=None)
    left = "- -" if bid is None else f"{bid} {bids[bid] // 10_000}"
    right = "- -" if ask is None else f"{ask} {asks[ask] // 10_000}"
    return f"{left} {right}"


def _digest(book: tuple[dict[int, int], dict[int, int]]) -> str:
    bids, asks = book
    lines = [f"bid {price} {bids[price] // 10_000}" for price in sorted(bids, reverse=True)]
    lines += [f"ask {price} {asks[price] // 10_000}" for price in sorted(asks)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_scaled_is_exact() -> None:
    assert scaled("-0.0100", 4) == -100
