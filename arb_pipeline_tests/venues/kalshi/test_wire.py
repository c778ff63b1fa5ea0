import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.model import BookDelta, BookSnapshot, Ticker, Trade
from arb_pipeline.venues.kalshi import KalshiSession, wire
from arb_pipeline_tests.venues.kalshi.frames import START, A, frame

C = 1_000_000

SNAPSHOTS: dict[str, dict[str, Any]] = {
    "up to 2025-09": {"yes": [[37, 112]], "no": [[60, 35]]},
    "up to 2026-01": {
        "yes": [[37, 112]],
        "no": [[60, 35]],
        "yes_dollars": [["0.370", 112]],
        "no_dollars": [["0.600", 35]],
    },
    "up to 2026-03": {
        "yes": [[37, 112]],
        "no": [[60, 35]],
        "yes_dollars": [["0.370", 112]],
        "no_dollars": [["0.600", 35]],
        "yes_dollars_fp": [["0.3700", "112.00"]],
        "no_dollars_fp": [["0.6000", "35.00"]],
        "market_id": "5f0a",
    },
    "since 2026-03": {"yes_dollars_fp": [["0.3700", "112.00"]], "no_dollars_fp": [["0.6000", "35.00"]]},
    "since 2026-10": {
        "yes_dollars_fp": [["0.3700", "112.00"]],
        "no_dollars_fp": [["0.6000", "35.00"]],
        "clock": 88_120,
    },
}
DELTAS: dict[str, dict[str, Any]] = {
    "up to 2025-09": {"price": 60, "delta": -2, "side": "no"},
    "up to 2026-01": {"price": 60, "delta": -2, "side": "no", "price_dollars": "0.600"},
    "up to 2026-03": {"price": 60, "delta": -2, "side": "no", "price_dollars": "0.6000", "delta_fp": "-2.00"},
    "since 2026-03": {"side": "no", "price_dollars": "0.6000", "delta_fp": "-2.00"},
    "since 2026-10": {"side": "no", "price_dollars": "0.6000", "delta_fp": "-2.00", "clock": 88_125},
}
TRADES: dict[str, dict[str, Any]] = {
    "up to 2025-09": {"yes_price": 40, "no_price": 60, "count": 2, "taker_side": "yes"},
    "up to 2026-01": {"yes_price": 40, "yes_price_dollars": "0.400", "count": 2, "taker_side": "yes"},
    "since 2026-03": {"yes_price_dollars": "0.4000", "count_fp": "2.00", "taker_side": "yes"},
    "since 2026-05": {"no_price_dollars": "0.6000", "count_fp": "2.00", "taker_outcome_side": "yes"},
}
TICKERS: dict[str, dict[str, Any]] = {
    "up to 2025-09": {"price": 38, "yes_bid": 37, "yes_ask": 40, "volume": 8, "open_interest": 4},
    "up to 2026-01": {
        "price": 38,
        "yes_bid": 37,
        "yes_ask": 40,
        "price_dollars": "0.380",
        "yes_bid_dollars": "0.370",
        "yes_ask_dollars": "0.400",
        "volume": 8,
        "open_interest": 4,
    },
    "since 2026-03": {
        "price_dollars": "0.3800",
        "yes_bid_dollars": "0.3700",
        "yes_ask_dollars": "0.4000",
        "volume_fp": "8.00",
        "open_interest_fp": "4.00",
    },
}


@pytest.mark.parametrize("era", SNAPSHOTS)
def test_snapshots_and_deltas_of_every_era(era: str) -> None:
    session = KalshiSession("c")
    extra = {"sending_ts_ms": 1} if era == "since 2026-10" else {}
    outputs = session.receive(
        frame("orderbook_snapshot", 1, 1, msg={"market_ticker": A} | SNAPSHOTS[era], **extra), START
    )
    book = outputs[0]
    assert isinstance(book, BookSnapshot)
    assert (book.bids, book.asks) == (((3700, 112 * C),), ((4000, 35 * C),))
    (change, _) = session.receive(frame("orderbook_delta", 1, 2, msg={"market_ticker": A} | DELTAS[era]), START)
    assert isinstance(change, BookDelta)
    assert (change.side, change.price, change.size) == ("ask", 4000, 33 * C)


@pytest.mark.parametrize("era", TRADES)
def test_trades_of_every_era(era: str) -> None:
    (trade,) = KalshiSession("c").receive(frame("trade", 2, 1, msg={"market_ticker": A} | TRADES[era]), START)
    assert isinstance(trade, Trade)
    assert (trade.price, trade.size, trade.taker_side) == (400_000_000, 2 * C, "yes")


@pytest.mark.parametrize("era", TICKERS)
def test_tickers_of_every_era(era: str) -> None:
    (ticker,) = KalshiSession("c").receive(frame("ticker", 2, msg={"market_ticker": A} | TICKERS[era]), START)
    assert isinstance(ticker, Ticker)
    assert (ticker.bid, ticker.ask, ticker.last_price) == (3700, 4000, 3800)
    assert (ticker.volume, ticker.open_interest) == (8 * C, 4 * C)


def test_keys_may_come_in_any_order() -> None:
    text = json.dumps({"msg": {"market_ticker": A, "yes_dollars_fp": [["0.37", "1"]]}, "seq": 1, "sid": 1}) + " "
    text = text.rstrip()[:-1] + ', "type" : "orderbook_snapshot"}'
    book = KalshiSession("c").receive(text, START)[0]
    assert isinstance(book, BookSnapshot)
    assert book.bids == ((3700, C),)


def test_microseconds_count_where_both_times_agree() -> None:
    ns = ns_from_datetime(datetime(2026, 5, 13, 20, 20, 36, 621_238, tzinfo=UTC))
    ms = ns // 1_000_000
    assert wire.venue_ns(ms, "2026-05-13T20:20:36.621238Z") == ns
    assert wire.venue_ns(ms + 1, "2026-05-13T20:20:36.621238Z") == (ms + 1) * 1_000_000
    assert wire.venue_ns(ms, "2026-05-13T20:21:36.621238Z") == ms * 1_000_000
    assert wire.venue_ns(ms, "garbage") == ms * 1_000_000
    assert wire.venue_ns(ms, None) == ms * 1_000_000
    assert wire.venue_ns(ms, ms // 1000) == ms * 1_000_000
    assert wire.venue_ns(None, "2026-05-13T20:20:36.621238Z") == ns
    assert wire.venue_ns(None, ms // 1000) == ms // 1000 * 1_000_000_000
    assert wire.venue_ns(None, None) is None
    assert wire.venue_ns(10**30, None) is None
    assert wire.venue_ns(None, -1) is None


@given(st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)), st.integers(0, 6))  # noqa: DTZ001 - made aware below
def test_times_of_any_precision(at: datetime, digits: int) -> None:
    aware = at.replace(tzinfo=UTC, microsecond=at.microsecond // 10 ** (6 - digits) * 10 ** (6 - digits))
    fraction = f".{aware.microsecond:06d}"[: digits + 1] if digits else ""
    assert wire.ns_from_text(f"{aware:%Y-%m-%dT%H:%M:%S}{fraction}Z") == ns_from_datetime(aware)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Z",
        "2026-05-13",
        "2026-05-13T20:20:36",
        "2026-05-13T20:20:36.Z",
        "2026-05-13T20:20:36.12xZ",
        "2026-05-13T20:20:36,123Z",
        "2026-05-13T20:20:36.1234567890Z",
        "2026-05-13T20:20:36+00:00",
        "2026-13-13T20:20:36Z",
        "0001-01-01T00:00:00Z",
        "9999-01-01T00:00:00Z",
    ],
)
def test_what_is_no_time_is_none(text: str) -> None:
    assert wire.ns_from_text(text) is None


def test_the_memo_of_the_second_does_not_leak() -> None:
    base = datetime(2026, 5, 13, 20, 20, 36, tzinfo=UTC)
    for shift in (0, 1, 0, 3600):
        at = base + timedelta(seconds=shift)
        assert wire.ns_from_text(f"{at:%Y-%m-%dT%H:%M:%S}Z") == ns_from_datetime(at)


def test_structs_write_what_the_venue_writes() -> None:
    ack = wire.Subscribed(msg=wire.SubscribedMsg("trade", 2), id=1)
    assert msgspec.json.encode(ack) == b'{"type":"subscribed","msg":{"channel":"trade","sid":2},"id":1}'
    empty = wire.OrderbookSnapshot(sid=1, seq=9, msg=wire.SnapshotMsg(A, "5f0a"))
    assert json.loads(msgspec.json.encode(empty)) == {
        "type": "orderbook_snapshot",
        "sid": 1,
        "seq": 9,
        "msg": {"market_ticker": A, "market_id": "5f0a"},
    }
    command = wire.ClientCommand("unsubscribe", 6, wire.CommandParams(sids=[1, 2]))
    text = b'{"cmd":"unsubscribe","id":6,"params":{"sids":[1,2]}}'
    assert msgspec.json.encode(command) == text
    assert msgspec.json.decode(text, type=wire.ClientCommand) == command
