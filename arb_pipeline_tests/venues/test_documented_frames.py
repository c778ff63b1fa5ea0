"""Every documented message of both venues, of every era, is taken by a session without a complaint."""

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
import yaml

from arb_pipeline.model import (
    Anomaly,
    AnomalyKind,
    BookDelta,
    BookSnapshot,
    MarketChange,
    Output,
    Quote,
    Reconnect,
    Ticker,
    Trade,
)
from arb_pipeline.venues.kalshi import KalshiSession, wire
from arb_pipeline.venues.polymarket import PolymarketSession
from arb_pipeline_tests.conftest import shared_folder
from arb_pipeline_tests.venues.kalshi import frames as kalshi
from arb_pipeline_tests.venues.polymarket.truth import NO, YES, Truth

NOW = 1_800_000_000_000_000_000
CONTROL = {"subscribed", "unsubscribed", "ok", "error"}
MARKET_DATA: dict[str, type[Output]] = {
    "orderbook_snapshot": BookSnapshot,
    "orderbook_delta": BookDelta,
    "ticker": Ticker,
    "trade": Trade,
}


def kinds(outputs: Sequence[Output]) -> list[AnomalyKind]:
    return [output.kind for output in outputs if isinstance(output, Anomaly)]


def only(kind: type[Output], outputs: Sequence[Output]) -> Any:
    (found,) = [output for output in outputs if isinstance(output, kind)]
    return found


# --- Kalshi ------------------------------------------------------------------------------------------------------


class Words(yaml.SafeLoader):
    """YAML whose bare ``yes`` and ``no`` stay words."""


Words.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Words.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))


@pytest.fixture(scope="module")
def examples() -> list[tuple[str, dict[str, Any]]]:
    """(name, message) of every example of a server's message in Kalshi's published AsyncAPI."""
    text = (shared_folder("ARB_SPECS") / "kalshi" / "asyncapi.yaml").read_text()
    messages = yaml.load(text, Words)["components"]["messages"]
    return [
        (f"{name}: {example['name']}", example["payload"])
        for name, message in messages.items()
        for example in message.get("examples") or ()
        if isinstance(example["payload"], dict) and "cmd" not in example["payload"]
    ]


def test_every_example_of_the_asyncapi_is_taken(examples: list[tuple[str, dict[str, Any]]]) -> None:
    assert len(examples) >= 45
    for name, message in examples:
        outputs = taken(message)
        expected = [AnomalyKind.VENUE_ERROR] if message["type"] == "error" else []
        assert kinds(outputs) == expected, name
        assert not [output for output in outputs if isinstance(output, Reconnect)], name
        if message["type"] in MARKET_DATA:
            assert only(MARKET_DATA[message["type"]], outputs).market_id == message["msg"]["market_ticker"], name
        elif message["type"] in wire.EVENT_TYPES:
            change = only(MarketChange, outputs)
            told = message["msg"]
            assert change.kind == told.get("event_type", message["type"]), name
            assert (change.market_id or change.event_id) == told.get("market_ticker", told.get("event_ticker")), name
            assert change.details == told, name
        elif message["type"] in wire.PASSIVE_TYPES:
            assert outputs == [], name


def test_every_type_of_the_asyncapi_is_known(examples: list[tuple[str, dict[str, Any]]]) -> None:
    known = CONTROL | set(MARKET_DATA) | wire.EVENT_TYPES | wire.PASSIVE_TYPES
    assert {message["type"] for _, message in examples} <= known


def taken(message: dict[str, Any]) -> list[Output]:
    """What a session says to a message as the next of its subscription, with a book for a delta to change."""
    session = KalshiSession("c-0")
    session.connected(NOW)
    sid, seq = message.get("sid"), message.get("seq")
    if sid is not None and seq is not None:
        told = message.get("msg") or {}
        ladder = (
            {f"{told['side']}_dollars_fp": [[told["price_dollars"], "99.00"]]}
            if message["type"] == "orderbook_delta"
            else {}
        )
        held = (
            {"market_ticker": told.get("market_ticker", "X"), **ladder} if message["type"] == "orderbook_delta" else {}
        )
        channel = message["type"].replace("_snapshot", "_delta")
        session.receive(json.dumps({"type": "subscribed", "id": 9, "msg": {"channel": channel, "sid": sid}}), NOW)
        before = {"type": "cfbenchmarks_value", "sid": sid}
        if message["type"] == "orderbook_delta":
            before |= {"type": "orderbook_snapshot"}
        elif message["type"] == "orderbook_snapshot":
            before |= {"type": "ok"}
        for number in range(1, seq):
            said = session.receive(json.dumps(before | {"seq": number, "msg": held}), NOW)
            assert not kinds(said)
    return session.receive(json.dumps(message), NOW)


LIFECYCLE: list[dict[str, Any]] = [
    {"market_ticker": "KXA-26NOV-T1", "event_type": "activated", "open_ts": 1794303000},
    {"market_ticker": "KXA-26NOV-T1", "event_type": "deactivated", "is_deactivated": True},
    {"market_ticker": "KXA-26NOV-T1", "event_type": "close_date_updated", "close_ts": 1794310000},
    {
        "market_ticker": "KXA-26NOV-T1",
        "event_type": "determined",
        "determination_ts": 1794311000,
        "result": "yes",
        "settlement_value": "1.0000",
    },
    {"market_ticker": "KXA-26NOV-T1", "event_type": "settled", "settled_ts": 1794312800},
    # A string in the examples of January 2026, a number today.
    {"market_ticker": "KXA-26NOV-T2", "event_type": "metadata_updated", "floor_strike": "3", "cap_strike": 3.25},
]


@pytest.mark.parametrize("msg", LIFECYCLE, ids=lambda msg: msg["event_type"])
def test_every_life_cycle_event_is_a_change(msg: dict[str, Any]) -> None:
    change = only(MarketChange, taken({"type": "market_lifecycle_v2", "sid": 4, "seq": 1, "msg": msg}))
    assert (change.market_id, change.kind, change.details) == (msg["market_ticker"], msg["event_type"], msg)


ERAS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "up to 2025-09": (
        {"yes": [[37, 112]], "no": [[60, 35]]},
        {"price": 60, "delta": -2, "side": "no"},
        {"yes_price": 40, "no_price": 60, "count": 2, "taker_side": "yes", "ts": 1757900000},
        {"price": 38, "yes_bid": 37, "yes_ask": 40, "volume": 8126, "open_interest": 4312, "ts": 1757900000},
    ),
    "up to 2026-01-21": (
        {"yes": [[37, 112]], "no": [[60, 35]], "yes_dollars": [["0.370", 112]], "no_dollars": [["0.600", 35]]},
        {"price": 60, "price_dollars": "0.600", "delta": -2, "side": "no"},
        {"yes_price": 40, "yes_price_dollars": "0.400", "count": 2, "taker_side": "yes", "ts": 1767900000},
        {"price": 0, "price_dollars": "", "yes_bid_dollars": "0.370", "yes_ask_dollars": "0.400", "ts": 1767900000},
    ),
    "up to 2026-03-11": (
        {
            "yes": [[37, 112]],
            "no": [[60, 35]],
            "yes_dollars": [["0.370", 112]],
            "no_dollars": [["0.600", 35]],
            "yes_dollars_fp": [["0.3700", "112.00"]],
            "no_dollars_fp": [["0.6000", "35.00"]],
        },
        {"price": 60, "price_dollars": "0.6000", "delta": -2, "delta_fp": "-2.00", "side": "no"},
        {"yes_price": 40, "yes_price_dollars": "0.4000", "count": 2, "count_fp": "2.00", "taker_side": "yes", "ts": 1},
        {"yes_bid": 37, "yes_ask": 40, "yes_bid_dollars": "0.3700", "yes_ask_dollars": "0.4000", "ts": 1770000000},
    ),
    "since 2026-03-12": (
        {"yes_dollars_fp": [["0.3700", "112.00"]], "no_dollars_fp": [["0.6000", "35.00"]]},
        {"price_dollars": "0.6000", "delta_fp": "-2.00", "side": "no", "ts": "2026-05-13T20:20:36.539356Z"},
        {"yes_price_dollars": "0.4000", "no_price_dollars": "0.6000", "count_fp": "2.00", "taker_side": "yes"},
        {"yes_bid_dollars": "0.3700", "yes_ask_dollars": "0.4000", "ts": 1778703636, "ts_ms": 1778703636539},
    ),
    "since 2026-10": (
        {"clock": 88120, "yes_dollars_fp": [["0.3700", "112.00"]], "no_dollars_fp": [["0.6000", "35.00"]]},
        {"clock": 88125, "price_dollars": "0.6000", "delta_fp": "-2.00", "side": "no", "ts_ms": 1794302401117},
        {
            "yes_price_dollars": "0.4000",
            "count_fp": "2.00",
            "taker_outcome_side": "yes",
            "taker_book_side": "bid",
            "is_block_trade": False,
            "ts_ms": 1794302401117,
        },
        {"yes_bid_dollars": "0.3700", "yes_ask_dollars": "0.4000", "ts_ms": 1, "time": "2026-11-10T09:20:01.48Z"},
    ),
}


@pytest.mark.parametrize("era", ERAS)
def test_every_era_of_kalshi_says_the_same(era: str) -> None:
    session = KalshiSession("c-0")
    session.connected(NOW)
    snapshot, delta, trade, ticker = ({"market_ticker": kalshi.A} | msg for msg in ERAS[era])
    said = session.receive(kalshi.frame("orderbook_snapshot", 1, 1, msg=snapshot), NOW)
    said += session.receive(kalshi.frame("orderbook_delta", 1, 2, msg=delta), NOW)
    said += session.receive(kalshi.frame("trade", 2, 1, msg=trade), NOW)
    said += session.receive(kalshi.frame("ticker", 3, msg=ticker), NOW)
    assert kinds(said) == []
    book = session.book(kalshi.A)
    assert book is not None
    assert (book.bids, book.asks) == ({3700: 112_000_000}, {4000: 33_000_000})
    assert session.in_sync(kalshi.A)
    told = only(Trade, said)
    assert (told.price, told.size, told.taker_side) == (400_000_000, 2_000_000, "yes")
    assert (only(Ticker, said).bid, only(Ticker, said).ask) == (3700, 4000)


# --- Polymarket --------------------------------------------------------------------------------------------------


class Line:
    """A subscribed session and the venue's side of it."""

    def __init__(self) -> None:
        self.truth = Truth()
        self.session = PolymarketSession("c-0", "wss://localhost/ws/market")
        self.session.connected(self.truth.now)
        self.session.subscribe([self.truth.facts], self.truth.now)

    def take(self, message: object) -> list[Output]:
        return self.session.receive(json.dumps(message), self.truth.now)

    def is_right(self) -> bool:
        book, truth = self.session.book(self.truth.market), self.truth
        return (
            book is not None
            and (book.bids, book.asks) == (truth.bids, truth.asks)
            and self.session.in_sync(truth.market)
        )


@pytest.fixture
def line() -> Line:
    line = Line()
    assert kinds(line.take([line.truth.book(), line.truth.book(NO)])) == []
    assert line.is_right()
    return line


@pytest.mark.parametrize("form", ["list", "bare", "without a type", "buys and sells", "v2", "empty list first"])
def test_every_form_of_a_book(form: str) -> None:
    line = Line()
    message = line.truth.book()
    if form == "without a type":
        del message["event_type"]
    elif form == "buys and sells":
        message["buys"], message["sells"] = message.pop("bids"), message.pop("asks")
    elif form == "v2":
        message["version"] = "v2"
    elif form == "empty list first":
        assert line.take([]) == []
    outputs = line.take(message if form == "bare" else [message])
    assert kinds(outputs) == []
    assert only(BookSnapshot, outputs).reason == "initial"
    assert only(Quote, outputs).bid == 4200
    assert line.is_right()


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("form", ["today", "old list", "old flat"])
def test_every_form_of_a_price_change(line: Line, form: str, wrapped: bool) -> None:
    message = line.truth.change("BUY", "0.43", "60")
    if form != "today":
        entry = message["price_changes"][0]
        level = {name: entry[name] for name in ("price", "size", "side")}
        message = {
            "asset_id": YES,
            "market": line.truth.market,
            "hash": entry["hash"],
            "timestamp": message["timestamp"],
            "event_type": "price_change",
            **({"changes": [level]} if form == "old list" else level),
        }
    outputs = line.take([message] if wrapped else message)
    assert kinds(outputs) == []
    change = only(BookDelta, outputs)
    assert (change.side, change.price, change.size) == ("bid", 4300, 60_000_000)
    assert line.is_right()


@pytest.mark.parametrize("empty", ["0", "", None])
def test_every_form_of_an_empty_side(line: Line, empty: str | None) -> None:
    line.take(line.truth.change("BUY", "0.42", "0"))
    message = line.truth.change("BUY", "0.41", "0")
    for entry, name in zip(message["price_changes"], ("best_bid", "best_ask"), strict=True):
        entry[name] = "1" if empty == "0" and name == "best_ask" else empty
        if empty is None:
            del entry[name]
    assert kinds(line.take(message)) == []
    assert line.is_right()


def test_a_trade_with_its_book(line: Line) -> None:
    line.take(line.truth.change("BUY", "0.42", "15.5"))
    assert kinds(line.take(line.truth.book(full=False))) in ([], [AnomalyKind.DUPLICATE])
    outputs = line.take(line.truth.trade("0.42", "20"))
    assert kinds(outputs) == []
    trade = only(Trade, outputs)
    assert (trade.price, trade.size, trade.taker_side) == (420_000_000, 20_000_000, "no")
    assert line.is_right()


def test_messages_beside_the_book(line: Line) -> None:
    about = {"market": line.truth.market, "asset_id": YES, "timestamp": str(line.truth.ms)}
    outputs = line.take(
        about | {"event_type": "best_bid_ask", "best_bid": "0.42", "best_ask": "0.44", "spread": "0.02"}
    )
    assert kinds(outputs) == []
    assert (only(Ticker, outputs).bid, only(Ticker, outputs).ask) == (4200, 4400)
    new = {
        "id": "1990999",
        "question": "Bitcoin Up or Down",
        "market": "0xab",
        "assets_ids": ["11", "22"],
        "outcomes": ["Up", "Down"],
        "event_message": {"id": "363111", "slug": "btc"},
        "timestamp": "1791299000000",
        "event_type": "new_market",
        "tags": [],
        "fee_schedule": {"exponent": "1", "rate": "0.07", "taker_only": True, "rebate_rate": "0.2"},
    }
    outputs = line.take(new)
    assert kinds(outputs) == []
    change = only(MarketChange, outputs)
    assert (change.market_id, change.event_id, change.kind) == ("0xab", "363111", "new_market")
    resolved = about | {"event_type": "market_resolved", "winning_asset_id": YES, "event_message": {"id": "3"}}
    outputs = line.take(resolved)
    assert kinds(outputs) == []
    assert only(MarketChange, outputs).kind == "market_resolved"
    outputs = line.take(about | {"event_type": "tick_size_change", "old_tick_size": "0.01", "new_tick_size": "0.001"})
    assert kinds(outputs) == []
    assert only(MarketChange, outputs).kind == "tick_size_change"
    # A grid that changed is a new epoch: the book waits for its snapshot.
    assert not line.session.in_sync(line.truth.market)


@pytest.mark.parametrize("frame", ["PONG", b"PONG", "PONG\n"])
def test_the_answer_to_a_ping_says_nothing(line: Line, frame: str | bytes) -> None:
    assert line.session.receive(frame, line.truth.now) == []
    assert line.is_right()
