import json
import random
import time
from collections import Counter, defaultdict
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given, settings
from hypothesis import strategies as st

from arb_pipeline.model import (
    Anomaly,
    AnomalyKind,
    BookDelta,
    BookSnapshot,
    FetchBooks,
    GapClosed,
    GapOpened,
    MarketChange,
    OrderBook,
    Output,
    Quote,
    Reconnect,
    Ticker,
    Trade,
)
from arb_pipeline.recordings import Recording
from arb_pipeline.units import ONE
from arb_pipeline.venues.base import Session
from arb_pipeline.venues.kalshi import Kalshi, KalshiSession
from arb_pipeline.venues.kalshi import wire as wire_types
from arb_pipeline.venues.kalshi.auth import KalshiCredentials, verify
from arb_pipeline_tests.venues.kalshi.frames import (
    SECOND,
    START,
    TS_MS,
    A,
    B,
    anomalies,
    delta,
    facts,
    frame,
    sent,
    snapshot,
)

T = TypeVar("T")
C = 1_000_000
YES = [("0.3600", "12.50"), ("0.3700", "112.00")]
NO = [("0.5500", "8.00"), ("0.6000", "35.50")]


def only(kind: type[T], outputs: list[Output]) -> T:
    (found,) = [output for output in outputs if isinstance(output, kind)]
    return found


def every(kind: type[T], outputs: list[Output]) -> list[T]:
    return [output for output in outputs if isinstance(output, kind)]


class Wire:
    """A session fed at a steady pace, keeping all it said."""

    def __init__(self, session: KalshiSession | None = None) -> None:
        self.session = session or KalshiSession("c1")
        self.now = START
        self.said: list[Output] = self.session.connected(self.now)

    def feed(self, *texts: str | bytes) -> list[Output]:
        outputs: list[Output] = []
        for text in texts:
            self.now += SECOND // 100
            outputs += self.session.receive(text, self.now)
        self.said += outputs
        return outputs

    def wait(self, seconds: float) -> list[Output]:
        self.now += round(seconds * SECOND)
        outputs = self.session.tick(self.now)
        self.said += outputs
        return outputs

    def subscribe(self, *tickers: str) -> list[Output]:
        outputs = self.session.subscribe(facts(*tickers), self.now)
        self.said += outputs
        return outputs

    @property
    def book(self) -> OrderBook:
        book = self.session.book(A)
        assert book is not None
        return book


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def live(wire: Wire) -> Wire:
    """Two markets subscribed, acknowledged on sids 1 to 3 and in sync."""
    return lively(wire)


@pytest.fixture
def strict() -> Wire:
    """The same, of a session that takes no market that nobody subscribed."""
    return lively(Wire(KalshiSession("c1", accept_unknown=False)))


def lively(wire: Wire) -> Wire:
    wire.subscribe(A, B)
    for sid, channel in enumerate(("orderbook_delta", "trade", "ticker"), 1):
        wire.feed(frame("subscribed", id=1, msg={"channel": channel, "sid": sid}))
    wire.feed(snapshot(1, A, YES, NO), snapshot(2, B, YES, NO))
    assert wire.session.in_sync(A)
    assert wire.session.in_sync(B)
    wire.said.clear()
    return wire


# --- books ---------------------------------------------------------------------------------------------------


def test_asks_are_one_minus_no_bids(wire: Wire) -> None:
    outputs = wire.feed(snapshot(1, A, YES, NO))
    book = only(BookSnapshot, outputs)
    assert book.bids == ((3700, 112 * C), (3600, 12_500_000))
    assert book.asks == ((4000, 35_500_000), (4500, 8 * C))
    assert (book.reason, book.in_sync, book.epoch, book.seq, book.source) == ("initial", True, 1, 1, "ws")
    quote = only(Quote, outputs)
    assert (quote.bid, quote.bid_size, quote.ask, quote.ask_size) == (3700, 112 * C, 4000, 35_500_000)
    assert quote.in_sync


@given(
    st.dictionaries(st.integers(1, 4999), st.integers(1, 10**6), max_size=12),
    st.dictionaries(st.integers(1, 4999), st.integers(1, 10**6), max_size=12),
    st.randoms(use_true_random=False),
)
def test_the_best_level_is_found_wherever_it_stands(
    yes: dict[int, int], no: dict[int, int], shuffler: random.Random
) -> None:
    def ladder(levels: dict[int, int]) -> list[tuple[str, str]]:
        rows = [(f"{price / ONE:.4f}", f"{size / 100:.2f}") for price, size in levels.items()]
        shuffler.shuffle(rows)
        return rows

    wire = Wire()
    outputs = wire.feed(snapshot(1, A, ladder(yes), ladder(no)))
    quote = only(Quote, outputs)
    assert quote.bid == max(yes, default=None)
    assert quote.ask == (ONE - max(no) if no else None)
    assert quote.bid_size == (yes[max(yes)] * 10_000 if yes else None)
    assert quote.ask_size == (no[max(no)] * 10_000 if no else None)
    assert wire.session.in_sync(A)


def test_deltas_are_signed_changes(live: Wire) -> None:
    outputs = live.feed(delta(3, "yes", "0.3700", "-12.00"))
    change = only(BookDelta, outputs)
    assert (change.side, change.price, change.size, change.seq, change.epoch) == ("bid", 3700, 100 * C, 3, 1)
    assert only(Quote, outputs).bid_size == 100 * C
    outputs = live.feed(delta(4, "no", "0.6000", "-35.50"))
    assert (only(BookDelta, outputs).side, only(BookDelta, outputs).price, only(BookDelta, outputs).size) == (
        "ask",
        4000,
        0,
    )
    assert (only(Quote, outputs).ask, only(Quote, outputs).ask_size) == (4500, 8 * C)
    outputs = live.feed(delta(5, "no", "0.6100", "0.01"))
    assert (only(Quote, outputs).ask, only(Quote, outputs).ask_size) == (3900, 10_000)
    assert not anomalies(live.said)


def test_a_quote_comes_only_when_one_of_the_four_changed(live: Wire) -> None:
    assert not every(Quote, live.feed(delta(3, "yes", "0.3600", "5.00")))
    assert not every(Quote, live.feed(delta(4, "no", "0.1000", "5.00")))
    assert not every(Quote, live.feed(delta(5, "yes", "0.3700", "0.00")))
    assert not every(Quote, live.feed(snapshot(6, A, [*YES, ("0.0100", "5.00")], NO)))
    assert every(Quote, live.feed(delta(7, "yes", "0.3700", "1.00")))


def test_a_first_snapshot_counts_as_a_change_even_when_empty(wire: Wire) -> None:
    quote = only(Quote, wire.feed(snapshot(1)))
    assert (quote.bid, quote.bid_size, quote.ask, quote.ask_size, quote.in_sync) == (None, None, None, None, True)


def test_the_double_empty_snapshot_at_close_is_normal(live: Wire) -> None:
    first, second = live.feed(snapshot(3, A)), live.feed(snapshot(4, A))
    assert only(BookSnapshot, first).reason == "venue"
    assert only(Quote, first).bid is None
    assert not every(Quote, second)
    assert only(BookSnapshot, second).epoch == 3
    assert not anomalies(live.said)
    assert live.session.in_sync(A)


def test_null_ladders_are_empty_and_noted(wire: Wire) -> None:
    text = frame("orderbook_snapshot", 1, 1, msg={"market_ticker": A, "yes_dollars_fp": YES, "no_dollars_fp": None})
    outputs = wire.feed(text)
    assert only(BookSnapshot, outputs).asks == ()
    note = only(Anomaly, outputs)
    assert (note.kind, note.market_id, note.example) == (AnomalyKind.NULL_LIST, A, text)
    assert "no_dollars_fp" in note.detail
    assert wire.session.in_sync(A)


def test_use_yes_price_of_a_recording() -> None:
    wire = Wire(KalshiSession("c1", use_yes_price=True))
    wire.feed(snapshot(1, A, YES, [("0.4000", "35.50"), ("0.4500", "8.00")]), delta(2, "no", "0.3900", "1.00"))
    assert wire.book.ask_levels() == [(3900, C), (4000, 35_500_000), (4500, 8 * C)]


@pytest.mark.parametrize("meant", [True, False])
def test_the_wrong_price_convention_is_noticed(meant: bool) -> None:
    no = [("0.6000", "1.00"), ("0.6500", "1.00"), ("0.9900", "1.00")]
    yes = [("0.0100", "5.00"), ("0.5500", "5.00")]
    on_scale = no if meant else [(f"{1 - float(price):.4f}", size) for price, size in no]
    right = Wire(KalshiSession("c1", use_yes_price=meant))
    right.feed(snapshot(1, A, yes, on_scale))
    assert not anomalies(right.said)
    wrong = Wire(KalshiSession("c1", use_yes_price=not meant))
    wrong.feed(snapshot(1, A, yes, on_scale))
    assert AnomalyKind.PRICE_CONVENTION in anomalies(wrong.said)
    assert not wrong.session.in_sync(A)


def test_a_crossed_book_is_untrusted_while_it_lasts_and_no_gap(live: Wire) -> None:
    outputs = live.feed(delta(3, "yes", "0.4100", "2.00"))
    assert anomalies(outputs) == [AnomalyKind.CROSSED_BOOK]
    assert not only(Quote, outputs).in_sync
    assert [command["params"]["action"] for command in sent(outputs)] == ["get_snapshot"]
    assert not live.session.in_sync(A)
    assert live.session.in_sync(B)
    outputs = live.feed(delta(4, "yes", "0.4100", "1.00"))
    assert not anomalies(outputs)
    assert not sent(outputs)
    assert only(BookDelta, outputs).size == 3 * C
    outputs = live.feed(delta(5, "yes", "0.4100", "-3.00"))
    assert only(Quote, outputs).in_sync
    assert live.session.in_sync(A)
    assert not every(GapOpened, live.said)
    # The next onset counts again, but asks for a snapshot at most every two seconds.
    outputs = live.feed(delta(6, "yes", "0.4000", "1.00"))
    assert anomalies(outputs) == [AnomalyKind.CROSSED_BOOK]
    assert not sent(outputs)
    assert sent(live.wait(2))[0]["params"]["action"] == "get_snapshot"


def test_a_negative_level_is_untrusted_until_the_snapshot(live: Wire) -> None:
    outputs = live.feed(delta(3, "yes", "0.3000", "-2.00"))
    assert anomalies(outputs) == [AnomalyKind.NEGATIVE_LEVEL]
    assert not live.session.in_sync(A)
    (ask,) = sent(outputs)
    outputs = live.feed(snapshot(4, A, YES, NO, id=ask["id"]))
    assert only(BookSnapshot, outputs).reason == "resync"
    assert live.session.in_sync(A)
    assert not live.wait(20)


# --- sequence ------------------------------------------------------------------------------------------------


def test_a_gap_makes_every_book_of_its_sid_suspect_until_its_snapshot(live: Wire) -> None:
    live.feed(frame("subscribed", id=9, msg={"channel": "orderbook_delta", "sid": 7}), snapshot(1, "C", YES, NO, sid=7))
    last = live.now - SECOND // 100
    live.feed(delta(3, "yes", "0.3700", "1.00"))
    last = live.now
    outputs = live.feed(delta(5, "yes", "0.3700", "1.00"))
    assert anomalies(outputs) == [AnomalyKind.SEQ_GAP]
    assert every(GapOpened, outputs) == [GapOpened(A, "seq_gap", last), GapOpened(B, "seq_gap", last)]
    (command,) = sent(outputs)
    assert command["cmd"] == "update_subscription"
    assert command["params"] == {"sids": [1], "action": "get_snapshot", "market_tickers": [A, B]}
    # The delta itself goes on being applied and told, untrusted.
    assert only(BookDelta, outputs).size == 114 * C
    assert not only(Quote, outputs).in_sync
    assert not live.session.in_sync(A)
    assert not live.session.in_sync(B)
    assert live.session.in_sync("C")

    outputs = live.feed(snapshot(6, B, YES, NO, id=command["id"]))
    assert only(GapClosed, outputs) == GapClosed(B, live.now, "snapshot")
    assert only(BookSnapshot, outputs).reason == "resync"
    assert live.session.in_sync(B)
    assert not live.session.in_sync(A)
    outputs = live.feed(snapshot(7, A, [("0.1000", "1.00")], NO))
    assert only(BookSnapshot, outputs).reason == "resync"
    assert only(Quote, outputs).in_sync
    assert live.session.in_sync(A)
    assert live.book.bid_levels() == [(1000, C)]
    assert not live.wait(20)


def test_control_frames_count(live: Wire) -> None:
    live.feed(
        frame("ok", 1, 3, id=5, msg={"market_tickers": [A, B]}),
        frame("error", 1, 4, id=6, msg={"code": 14, "msg": "Market Ticker required"}),
        frame("orderbook_imaginary", 1, 5, msg={}),
        delta(6, "yes", "0.3700", "1.00"),
    )
    assert anomalies(live.said) == [AnomalyKind.VENUE_ERROR, AnomalyKind.UNKNOWN_TYPE]
    assert live.session.in_sync(A)


def test_tickers_have_no_seq_and_need_none(live: Wire) -> None:
    ticker = frame("ticker", 3, msg={"market_ticker": A, "yes_bid_dollars": "0.3700", "ts_ms": TS_MS})
    live.feed(ticker, ticker, frame("ticker", 99, msg={"market_ticker": A}))
    assert not anomalies(live.said)


def test_a_repeated_frame_is_not_applied(live: Wire) -> None:
    text = delta(3, "yes", "0.3700", "1.00")
    live.feed(text)
    outputs = live.feed(text)
    assert anomalies(outputs) == [AnomalyKind.DUPLICATE]
    assert len(outputs) == 1
    assert anomalies(live.feed(snapshot(1, A))) == [AnomalyKind.DUPLICATE]
    assert live.book.bids[3700] == 113 * C
    assert live.session.in_sync(A)


def test_a_market_on_two_sids_is_not_counted_twice(live: Wire) -> None:
    outputs = live.feed(delta(1, "yes", "0.3700", "1.00", sid=8))
    assert anomalies(outputs) == [AnomalyKind.DUPLICATE]
    assert live.book.bids[3700] == 112 * C
    live.feed(snapshot(2, A, YES, NO, sid=8), delta(3, "yes", "0.3700", "1.00", sid=8))
    assert live.book.bids[3700] == 113 * C
    assert live.session.in_sync(A)


def test_a_count_that_fell_back_for_good_asks_for_a_new_connection(live: Wire) -> None:
    live.feed(delta(10**12, "yes", "0.3700", "1.00"))
    outputs = live.feed(*(delta(seq, "yes", "0.3700", "1.00") for seq in range(4, 64)))
    assert len(every(Reconnect, outputs)) == 1
    assert not live.session.in_sync(A)


def test_sids_never_acknowledged_are_taken_as_they_come(wire: Wire) -> None:
    wire.feed(snapshot(1, A, YES, NO, sid=4), delta(2, "yes", "0.3700", "1.00", sid=4))
    assert wire.session.in_sync(A)
    outputs = wire.feed(delta(4, "yes", "0.3700", "1.00", sid=4))
    assert anomalies(outputs) == [AnomalyKind.SEQ_GAP]
    assert only(GapOpened, outputs).market_id == A


def test_a_lost_first_frame_is_a_gap(live: Wire) -> None:
    live.feed(frame("subscribed", id=9, msg={"channel": "orderbook_delta", "sid": 7}))
    outputs = live.feed(snapshot(2, "C", YES, NO, sid=7))
    assert anomalies(outputs) == [AnomalyKind.SEQ_GAP]


def test_lost_trades_are_a_closed_interval_and_leave_the_books_alone(live: Wire) -> None:
    trade: dict[str, Any] = {"market_ticker": A, "yes_price_dollars": "0.4", "count_fp": "1.00", "ts_ms": TS_MS}
    live.feed(frame("trade", 2, 1, msg=trade | {"trade_id": "t1"}))
    since = live.now
    outputs = live.feed(frame("trade", 2, 3, msg=trade | {"trade_id": "t3"}))
    assert anomalies(outputs) == [AnomalyKind.SEQ_GAP]
    assert every(GapOpened, outputs) == [GapOpened(t, "trade_seq_gap", since) for t in (A, B)]
    assert every(GapClosed, outputs) == [GapClosed(t, live.now, "not_recovered") for t in (A, B)]
    assert only(Trade, outputs).trade_id == "t3"
    assert live.session.in_sync(A)


def test_a_delta_before_any_snapshot_is_not_applied(wire: Wire) -> None:
    wire.subscribe(A)
    wire.feed(frame("subscribed", id=1, msg={"channel": "orderbook_delta", "sid": 1}))
    outputs = wire.feed(delta(1, "yes", "0.3700", "1.00"))
    assert anomalies(outputs) == [AnomalyKind.NO_SNAPSHOT]
    assert not every(BookDelta, outputs)
    assert sent(outputs)[0]["params"]["action"] == "get_snapshot"
    assert wire.session.book(A) is None
    assert not wire.session.in_sync(A)
    outputs = wire.feed(snapshot(2, A, YES, NO))
    assert only(GapClosed, outputs).market_id == A
    assert wire.session.in_sync(A)


# --- other messages ------------------------------------------------------------------------------------------


def test_trades(live: Wire) -> None:
    msg = {
        "trade_id": "c3",
        "market_ticker": A,
        "yes_price_dollars": "0.4000",
        "no_price_dollars": "0.6000",
        "count_fp": "2.50",
        "taker_side": "yes",
        "taker_outcome_side": "no",
        "ts": 1_794_302_401,
        "ts_ms": TS_MS,
    }
    trade = only(Trade, live.feed(frame("trade", 2, 1, msg=msg)))
    assert trade == Trade(A, "c3", 400_000_000, 2_500_000, "no", live.now, TS_MS * 1_000_000, 1)
    del msg["taker_outcome_side"]
    assert only(Trade, live.feed(frame("trade", 2, 2, msg=msg))).taker_side == "yes"
    del msg["taker_side"], msg["ts_ms"], msg["trade_id"]
    last = only(Trade, live.feed(frame("trade", 2, 3, msg=msg)))
    assert (last.taker_side, last.venue_ns) == (None, 1_794_302_401 * SECOND)
    assert last.trade_id


def test_tickers(live: Wire) -> None:
    msg = {
        "market_ticker": A,
        "price_dollars": "0.3800",
        "yes_bid_dollars": "0.3700",
        "yes_ask_dollars": "1.0000",
        "yes_bid_size_fp": "112.00",
        "yes_ask_size_fp": "0.00",
        "volume_fp": "8126.25",
        "open_interest_fp": "4312.75",
        "ts_ms": TS_MS,
        "time": "2026-11-10T09:20:01.117042Z",
    }
    ticker = only(Ticker, live.feed(frame("ticker", 3, msg=msg)))
    assert (ticker.bid, ticker.bid_size, ticker.ask, ticker.ask_size) == (3700, 112 * C, None, None)
    assert (ticker.last_price, ticker.volume, ticker.open_interest) == (3800, 8_126_250_000, 4_312_750_000)
    assert ticker.venue_ns is not None
    assert ticker.venue_ns // 1_000_000 == TS_MS
    empty = only(Ticker, live.feed(frame("ticker", 3, msg={"market_ticker": A, "price_dollars": ""})))
    assert (empty.bid, empty.last_price, empty.volume, empty.venue_ns) == (None, None, None, None)


def test_lifecycle_messages(live: Wire) -> None:
    changes = every(
        MarketChange,
        live.feed(
            frame("market_lifecycle_v2", 4, 1, msg={"market_ticker": A, "event_type": "determined", "result": "yes"}),
            frame("multivariate_market_lifecycle", 5, 1, msg={"market_ticker": B, "event_type": "created"}),
            frame("event_lifecycle", 4, 2, msg={"event_ticker": "KXA-26NOV", "title": "x"}),
            frame("event_fee_update", 4, 3, msg={"event_ticker": "KXA-26NOV", "fee_multiplier_override": 0.5}),
        ),
    )
    assert [(change.market_id, change.event_id, change.kind) for change in changes] == [
        (A, "", "determined"),
        (B, "", "created"),
        ("", "KXA-26NOV", "event_lifecycle"),
        ("", "KXA-26NOV", "event_fee_update"),
    ]
    assert changes[0].details == {"market_ticker": A, "event_type": "determined", "result": "yes"}
    assert [change.change for change in changes] == ["determined", "created", "event", "fees"]
    assert not anomalies(live.said)


def test_a_created_market_can_be_subscribed_from_its_message(live: Wire) -> None:
    msg = {
        "market_ticker": "C",
        "event_type": "created",
        "open_ts": 1794303000,
        "close_ts": 1794389400,
        "additional_metadata": {"event_ticker": "KXA-26NOV", "title": "…"},
    }
    change = only(MarketChange, live.feed(frame("market_lifecycle_v2", 4, 1, msg=msg)))
    assert (change.change, change.event_id) == ("created", "KXA-26NOV")
    assert (change.open_ns, change.close_ns) == (1794303000 * SECOND, 1794389400 * SECOND)
    assert change.facts is not None
    commands = sent(live.session.subscribe([change.facts], live.now))
    assert commands[0]["params"]["market_tickers"] == ["C"]
    settled = {"market_ticker": "C", "event_type": "settled", "settled_ts": 1794312800}
    change = only(MarketChange, live.feed(frame("market_lifecycle_v2", 4, 2, msg=settled)))
    assert (change.change, change.effective_ns) == ("settled", 1794312800 * SECOND)
    event = {"event_ticker": "KXA-26NOV", "series_ticker": "KXA"}
    assert only(MarketChange, live.feed(frame("event_lifecycle", 4, 3, msg=event))).series_id == "KXA"


# The discriminators of Kalshi AsyncAPI 2.0.0.
DOCUMENTED = """
subscribed unsubscribed ok error orderbook_snapshot orderbook_delta ticker trade fill market_lifecycle_v2
multivariate_market_lifecycle event_lifecycle event_fee_update market_position order_group_updates user_order
rfq_created rfq_deleted quote_created quote_accepted quote_executed rfq_batch_created rfq_batch_deleted
batch_quote_created rfq_batch_best_quotes batch_quote_accepted rfq_batch_executed batch_quote_executed
cfbenchmarks_value cfbenchmarks_value_indexlist cfbenchmarks_value_5hz cfbenchmarks_value_5hz_indexlist
pyth_value pyth_value_underlying_list
"""


@pytest.mark.parametrize("kind", sorted(wire_types.PASSIVE_TYPES))
def test_messages_that_say_nothing_about_books_are_counted_and_left_alone(live: Wire, kind: str) -> None:
    assert live.feed(frame(kind, 9, 1, msg={"market_ticker": A})) == []
    assert anomalies(live.feed(frame(kind, 9, 3, msg={"market_ticker": A}))) == [AnomalyKind.SEQ_GAP]


def test_every_documented_type_is_known(wire: Wire) -> None:
    for kind in DOCUMENTED.split():
        assert AnomalyKind.UNKNOWN_TYPE not in anomalies(wire.feed(frame(kind)))
    assert AnomalyKind.UNKNOWN_TYPE in anomalies(wire.feed(frame("orderbook")))


# --- bad frames ----------------------------------------------------------------------------------------------

BAD = [
    pytest.param("not json", AnomalyKind.MALFORMED_JSON, id="text"),
    pytest.param(b'{"type":"trade\xff"}', AnomalyKind.MALFORMED_JSON, id="utf-8"),
    pytest.param("\ud800", AnomalyKind.MALFORMED_JSON, id="surrogate"),
    pytest.param("", AnomalyKind.MALFORMED_JSON, id="empty"),
    pytest.param(delta(3, "yes", "0.37", "1.00")[:-9], AnomalyKind.MALFORMED_JSON, id="truncated"),
    pytest.param('{"msg":' + "[" * 200_000 + "]" * 200_000 + "}", AnomalyKind.MALFORMED_JSON, id="deep"),
    pytest.param("[1,2]", AnomalyKind.WRONG_TYPE, id="list"),
    pytest.param('{"sid":1}', AnomalyKind.MISSING_FIELD, id="no type"),
    pytest.param('{"type":7}', AnomalyKind.WRONG_TYPE, id="type is a number"),
    pytest.param(frame("mystery", 1, 3), AnomalyKind.UNKNOWN_TYPE, id="unknown"),
    pytest.param(frame("orderbook_delta", 1, 3), AnomalyKind.MISSING_FIELD, id="no msg"),
    pytest.param(
        frame("orderbook_delta", 1, 3, msg={"market_ticker": A, "side": "yes", "delta_fp": "1"}),
        AnomalyKind.MISSING_FIELD,
        id="no price",
    ),
    pytest.param(
        frame("orderbook_delta", 1, 3, msg={"market_ticker": A, "side": "yes", "price_dollars": "0.5"}),
        AnomalyKind.MISSING_FIELD,
        id="no change",
    ),
    pytest.param(delta(3, "maybe", "0.37", "1.00"), AnomalyKind.WRONG_TYPE, id="side"),
    pytest.param(delta(3, "yes", "0.37", "1.00", market_ticker=None), AnomalyKind.WRONG_TYPE, id="ticker null"),
    pytest.param(delta(3, "yes", "0.37001", "1.00"), AnomalyKind.BAD_NUMBER, id="off the grid"),
    pytest.param(delta(3, "yes", "1.37", "1.00"), AnomalyKind.BAD_NUMBER, id="price above one"),
    pytest.param(delta(3, "yes", "0.37", "1e5"), AnomalyKind.BAD_NUMBER, id="exponent"),
    pytest.param(delta(3, "yes", "0.37", "9" * 5000), AnomalyKind.BAD_NUMBER, id="endless number"),
    pytest.param(delta(3, "yes", "0.37", "999999999990"), AnomalyKind.BAD_NUMBER, id="level beyond any size"),
    pytest.param(delta(10**30, "yes", "0.37", "1.00"), AnomalyKind.WRONG_TYPE, id="seq beyond 64 bits"),
    pytest.param(snapshot(3, A, [("0.37", "x")]), AnomalyKind.BAD_NUMBER, id="level"),
    pytest.param(
        frame("orderbook_snapshot", 1, 3, msg={"market_ticker": A, "yes_dollars_fp": [["0.37"]]}),
        AnomalyKind.WRONG_TYPE,
        id="level of one",
    ),
    pytest.param(
        frame("orderbook_snapshot", 1, 3, msg={"market_ticker": A, "yes_dollars_fp": [None]}),
        AnomalyKind.NULL_LIST,
        id="null level",
    ),
    pytest.param(
        frame("trade", 2, 1, msg={"market_ticker": A, "count_fp": "1"}), AnomalyKind.MISSING_FIELD, id="trade"
    ),
    pytest.param(
        frame("ticker", 3, msg={"market_ticker": A, "yes_bid_dollars": "?"}), AnomalyKind.BAD_NUMBER, id="ticker"
    ),
    pytest.param(frame("subscribed", id=1, msg={"channel": "trade"}), AnomalyKind.MISSING_FIELD, id="ack"),
    pytest.param(frame("market_lifecycle_v2", 4, 1, msg=[]), AnomalyKind.WRONG_TYPE, id="lifecycle"),
]


@pytest.mark.parametrize(("text", "kind"), BAD)
def test_a_bad_frame_is_counted_with_an_example_and_stops_nothing(
    live: Wire, text: str | bytes, kind: AnomalyKind
) -> None:
    outputs = live.feed(text)
    found = every(Anomaly, outputs)[0]
    assert found.kind is kind
    assert found.detail
    assert len(found.example) <= 500
    assert len(found.detail) <= 500
    if text:
        assert found.example[:10] == (text if isinstance(text, str) else text.decode("utf-8", "replace"))[:10]
    assert live.feed(snapshot(99, A, YES, NO))
    assert live.session.in_sync(A)


@pytest.mark.parametrize(
    ("bad", "books"),
    [
        (delta(3, "yes", "0.37001", "1.00"), [A]),
        (delta(3, "yes", "0.37", "999999999990"), [A]),
        (delta(3, "yes", "0.37", "1.00", market_ticker=None), [A, B]),
        (snapshot(3, A, [("0.3", "1"), ("x", "1")]), [A]),
    ],
)
def test_an_unusable_book_frame_puts_its_book_in_doubt(live: Wire, bad: str, books: list[str]) -> None:
    outputs = live.feed(bad)
    assert [gap.market_id for gap in every(GapOpened, outputs)] == books
    assert {gap.cause for gap in every(GapOpened, outputs)} == {"bad_frame"}
    assert sent(outputs)[0]["params"] == {"sids": [1], "action": "get_snapshot", "market_tickers": books}
    assert not live.session.in_sync(A)
    assert live.session.in_sync(B) is (B not in books)
    # Its number was counted: the next frame is no gap.
    assert AnomalyKind.SEQ_GAP not in anomalies(live.feed(snapshot(4, A, YES, NO)))
    assert live.session.in_sync(A)


def test_deltas_after_an_unusable_snapshot_wait_for_the_next_one(live: Wire) -> None:
    live.feed(snapshot(3, A, [("x", "1")]))
    assert anomalies(live.feed(delta(4, "yes", "0.3700", "1.00"))) == [AnomalyKind.NO_SNAPSHOT]
    live.feed(snapshot(5, A, YES, NO))
    assert live.session.in_sync(A)


SEEDS = [
    snapshot(1, A, YES, NO),
    snapshot(2, B, YES, NO, id=3),
    delta(3, "yes", "0.3700", "-12.00", ts="2026-11-10T09:20:01.117Z"),
    delta(4, "no", "0.6000", "-2.50"),
    frame("trade", 2, 1, msg={"trade_id": "c", "market_ticker": A, "yes_price_dollars": "0.4", "count_fp": "2.50"}),
    frame("ticker", 3, msg={"market_ticker": A, "yes_bid_dollars": "0.37", "volume_fp": "1.00", "ts": 1}),
    frame("subscribed", id=1, msg={"channel": "orderbook_delta", "sid": 1}),
    frame("ok", 1, 5, id=3, msg={"market_tickers": [A]}),
    frame("ok", id=7, msg=[{"channel": "orderbook_delta", "sid": 1}]),
    frame("error", 1, 6, id=2, msg={"code": 25, "msg": "Subscription buffer overflow"}),
    frame("error", id=1, msg={"code": 26, "msg": "limit"}),
    frame("error", msg={"code": 10, "msg": "x"}),
    frame("unsubscribed", 1, 7, id=2),
    frame("market_lifecycle_v2", 4, 1, msg={"market_ticker": A, "event_type": "created", "open_ts": 1}),
    frame("rfq_created", 9, 1, msg={}),
    frame("orderbook_snapshot", 1, 8, msg={"market_ticker": A, "yes": [[37, 112]], "no": None}),
]
JUNK: list[Any] = [None, True, -1, 0, 2**63, 10**40, 1.5, "", "x", "\u0000", [], [[]], {}, {"a": []}]


@st.composite
def mangled(draw: st.DrawFn) -> str | bytes:
    text = draw(st.sampled_from(SEEDS))
    how = draw(st.sampled_from(["bytes", "cut", "value", "field", "value"]))
    if how == "cut":
        return text[: draw(st.integers(0, len(text)))]
    if how == "bytes":
        data = bytearray(text.encode())
        for place, byte in draw(
            st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), min_size=1, max_size=4)
        ):
            data[place] = byte
        return bytes(data)
    record = json.loads(text)
    target = record
    while True:
        inner = [value for value in target.values() if isinstance(value, dict) and value]
        if not inner or draw(st.booleans()):
            break
        target = inner[0]
    name = draw(st.sampled_from(sorted(target)))
    if how == "field":
        del target[name]
    else:
        target[name] = draw(st.sampled_from(JUNK))
    return json.dumps(record, separators=(",", ":"))


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(mangled(), st.sampled_from(SEEDS)), min_size=5, max_size=25))
def test_no_frame_ever_raises(texts: list[str | bytes]) -> None:
    wire = Wire()
    wire.subscribe(A, B)
    for text in texts:
        for output in wire.feed(text):
            if isinstance(output, Anomaly):
                assert len(output.example) <= 500
            for name in ("venue_ns", "seq", "size", "price"):
                value = getattr(output, name, None)
                assert value is None or -(2**63) <= value < 2**63
        wire.wait(3)
    # Whatever came before, a snapshot with the next numbers makes the book exact again.
    wire.feed(snapshot(2**61, A, YES, NO, sid=77))
    assert wire.session.in_sync(A)
    assert wire.book.top() == (3700, 112 * C, 4000, 35_500_000)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.binary(max_size=80), st.text(max_size=80)))
def test_no_junk_ever_raises(junk: str | bytes) -> None:
    assert anomalies(Wire().feed(junk))


# --- subscribing ---------------------------------------------------------------------------------------------


def test_subscriptions_go_in_chunks_and_say_use_yes_price() -> None:
    wire = Wire(KalshiSession("c1", markets_per_subscription=2))
    commands = sent(wire.subscribe("A", "B", "C"))
    assert [command["id"] for command in commands] == [1, 2]
    assert commands[0]["cmd"] == "subscribe"
    assert commands[0]["params"] == {
        "channels": ["orderbook_delta", "trade", "ticker"],
        "market_tickers": ["A", "B"],
        "use_yes_price": False,
    }
    assert commands[1]["params"]["market_tickers"] == ["C"]
    assert wire.subscribe("A") == []


def test_lifecycle_is_subscribed_first_when_wanted() -> None:
    wire = Wire(KalshiSession("c1", lifecycle=True))
    assert [command["params"] for command in sent(wire.said)] == [{"channels": ["market_lifecycle_v2"]}]


def test_a_missing_snapshot_is_asked_for_and_then_fetched(wire: Wire) -> None:
    wire.subscribe(A, B)
    subscribed_at = wire.now
    wire.feed(frame("subscribed", id=1, msg={"channel": "orderbook_delta", "sid": 1}), snapshot(1, B, YES, NO))
    assert wire.wait(9) == []
    outputs = wire.wait(2)
    assert only(GapOpened, outputs) == GapOpened(A, "snapshot_missing", subscribed_at)
    assert sent(outputs)[0]["params"] == {"sids": [1], "action": "get_snapshot", "market_tickers": [A]}
    wire.feed(delta(2, "yes", "0.3700", "1.00", B))
    outputs = wire.wait(21)
    assert only(FetchBooks, outputs).market_ids == (A,)
    wire.feed(snapshot(3, A, YES, NO))
    assert only(GapClosed, wire.said).market_id == A
    assert wire.wait(20) == []


def test_without_an_acknowledgement_the_subscription_is_repeated(wire: Wire) -> None:
    wire.subscribe(A)
    wire.feed(frame("rfq_deleted", 9, 1, msg={}))
    assert sent(wire.wait(11))[0]["cmd"] == "subscribe"


def test_a_socket_that_answers_nothing_is_given_up_once(wire: Wire) -> None:
    wire.subscribe(A)
    wire.session.tick(wire.now + 11 * SECOND)
    assert wire.wait(61) == [Reconnect("no answer to a subscription")]
    assert wire.wait(61) == []


def test_quiet_markets_are_asked_for_a_sign_of_life_and_no_reason_to_reconnect(live: Wire) -> None:
    assert live.wait(26) == []
    (ask,) = sent(live.wait(3))  # the socket is silent for as good as 30 s: one market's book will do
    assert ask["params"] == {"sids": [1], "action": "get_snapshot", "market_tickers": [A]}
    assert live.feed(snapshot(3, A, YES, NO, id=ask["id"])) == []
    assert live.wait(6) == []
    (ask,) = sent(live.wait(25))  # B is silent for as good as 60 s
    assert ask["params"]["market_tickers"] == [B]
    assert live.feed(snapshot(4, B, YES, NO, id=ask["id"])) == []
    for _ in range(60):
        for command in sent(live.wait(10)):
            for ticker in command["params"]["market_tickers"]:
                live.feed(snapshot(live.session._sids[1].next_seq, ticker, YES, NO, id=command["id"]))
    assert not every(Reconnect, live.said)
    assert not every(GapOpened, live.said)
    assert not every(BookSnapshot, live.said)
    assert not every(Anomaly, live.said)


def test_a_frozen_socket_is_left_by_the_age_of_its_data(live: Wire) -> None:
    last = live.now
    live.feed(frame("ticker", 3, msg={"market_ticker": A, "price_dollars": "0.3700"}))
    seconds = 0
    while not every(Reconnect, live.said):
        live.wait(1)
        seconds += 1
        assert seconds <= 35
    assert every(GapOpened, live.said) == [GapOpened(A, "silence", last), GapOpened(B, "silence", last)]
    assert not live.session.in_sync(A)
    assert live.wait(60) == []


def test_a_silent_market_is_found_within_its_age_while_others_go_on(live: Wire) -> None:
    last = live.now
    seq = 2
    for _ in range(60):
        live.wait(1)
        seq += 1
        live.feed(delta(seq, "yes", "0.3700", "1.00"))
        if asked := sent(live.said):
            break
    (ask,) = asked
    assert ask["params"]["market_tickers"] == [B]
    assert live.now - last <= 60 * SECOND
    live.said.clear()
    outputs = live.feed(snapshot(seq + 1, B, [("0.1000", "1.00")], NO, id=ask["id"]))
    assert every(GapOpened, outputs) == [GapOpened(B, "silent_market", last)]
    assert every(GapClosed, outputs) == [GapClosed(B, live.now, "snapshot")]
    assert only(Quote, outputs).bid == 1000
    assert live.session.in_sync(B)
    assert live.session.in_sync(A)


def test_the_age_of_data_is_a_setting() -> None:
    session = KalshiSession("c1", data_age_s=10)
    session.connected(START)
    session.receive(snapshot(1, A, YES, NO), START)
    assert sent(session.tick(START + 6 * SECOND)) == []
    assert sent(session.tick(START + 9 * SECOND))


@pytest.mark.parametrize("step", [-7200, -30, 30, 7200])
def test_a_step_of_the_clock_costs_at_most_one_question(live: Wire, step: int) -> None:
    live.wait(5)
    live.now += step * SECOND
    for _ in range(90):
        for command in sent(live.wait(1)):
            for ticker in command["params"]["market_tickers"]:
                live.feed(snapshot(live.session._sids[1].next_seq, ticker, YES, NO, id=command["id"]))
    assert not every(Reconnect, live.said)
    assert not every(GapOpened, live.said)
    assert live.session.in_sync(A)
    # Waiting goes by the new time: what is lost now is asked for again soon, and gaps do not end before they begin.
    live.said.clear()
    live.feed(delta(live.session._sids[1].next_seq + 1, "yes", "0.3700", "1.00"))
    live.now -= 3600 * SECOND
    assert sent(live.wait(1) + live.wait(11))
    live.feed(snapshot(live.session._sids[1].next_seq, A, YES, NO))
    opened = {gap.market_id: gap.from_ns for gap in every(GapOpened, live.said)}
    (closed,) = every(GapClosed, live.said)
    assert closed.to_ns >= opened[A]


@pytest.mark.parametrize("code", [10, 25])
def test_a_terminal_error_subscribes_that_sid_again(live: Wire, code: int) -> None:
    since = live.now
    outputs = live.feed(frame("error", 1, 3, msg={"code": code, "msg": "gone"}))
    assert anomalies(outputs) == [AnomalyKind.VENUE_ERROR]
    assert every(GapOpened, outputs) == [GapOpened(t, f"error_{code}", since + SECOND // 100) for t in (A, B)]
    (command,) = sent(outputs)
    assert command["params"] == {"channels": ["orderbook_delta"], "market_tickers": [A, B], "use_yes_price": False}
    live.feed(
        frame("subscribed", id=command["id"], msg={"channel": "orderbook_delta", "sid": 4}),
        snapshot(1, A, YES, NO, sid=4),
        snapshot(2, B, YES, NO, sid=4),
        delta(3, "yes", "0.3700", "1.00", sid=4),
    )
    assert live.session.in_sync(A)
    assert live.session.in_sync(B)
    assert len(every(GapClosed, live.said)) == 2


def test_a_terminal_error_of_no_sid_reconnects(live: Wire) -> None:
    assert len(every(Reconnect, live.feed(frame("error", msg={"code": 10, "msg": "Channel error"})))) == 1


def test_too_many_markets_for_one_subscription_are_halved(wire: Wire) -> None:
    wire.subscribe("A", "B", "C")
    outputs = wire.feed(frame("error", id=1, msg={"code": 26, "msg": "Subscription market limit exceeded"}))
    assert [command["params"]["market_tickers"] for command in sent(outputs)] == [["A", "B"], ["C"]]


def test_an_unknown_sid_is_subscribed_again(live: Wire) -> None:
    (ask,) = sent(live.feed(delta(4, "yes", "0.3700", "1.00")))
    outputs = live.feed(frame("error", id=ask["id"], msg={"code": 7, "msg": "Unknown subscription ID"}))
    assert sent(outputs)[0]["params"]["market_tickers"] == [A, B]


def test_unsubscribing_takes_a_market_off_every_sid(strict: Wire) -> None:
    strict.feed(delta(4, "yes", "0.3700", "1.00"))
    outputs = strict.session.unsubscribe([A], strict.now)
    assert only(GapClosed, outputs).recovery == "unsubscribed"
    assert [command["params"] for command in sent(outputs)] == [
        {"sids": [sid], "action": "delete_markets", "market_tickers": [A]} for sid in (1, 2, 3)
    ]
    assert strict.session.book(A) is None
    assert strict.session.unsubscribe([A], strict.now) == []
    # Frames under way are dropped, their numbers count.
    assert strict.feed(delta(5, "yes", "0.3700", "1.00"), snapshot(6, A, YES, NO)) == []
    outputs = strict.session.unsubscribe([B], strict.now)
    assert [(command["cmd"], command["params"]) for command in sent(outputs)] == [
        ("unsubscribe", {"sids": [sid]}) for sid in (1, 2, 3)
    ]
    assert strict.feed(frame("unsubscribed", 1, 7, id=9), frame("unsubscribed", 2, 1, id=10)) == []
    assert strict.feed(frame("unsubscribed", 2, 2, id=10)) == []


def test_markets_join_a_running_subscription_as_long_as_there_is_room() -> None:
    wire = Wire(KalshiSession("c1", markets_per_subscription=3, accept_unknown=False))
    (first,) = sent(wire.subscribe(A, B))
    for sid, channel in enumerate(("orderbook_delta", "trade", "ticker"), 1):
        wire.feed(frame("subscribed", id=first["id"], msg={"channel": channel, "sid": sid}))
    wire.feed(snapshot(1, A, YES, NO), snapshot(2, B, YES, NO))
    commands = sent(wire.subscribe("C", "D", "C", A))
    assert [command["params"] for command in commands[:3]] == [
        {"sids": [sid], "action": "add_markets", "market_tickers": ["C"]} for sid in (1, 2, 3)
    ]
    assert commands[3]["cmd"] == "subscribe"
    assert commands[3]["params"]["market_tickers"] == ["D"]
    wire.feed(frame("ok", 1, 3, id=commands[0]["id"], msg={"market_tickers": [A, B, "C"]}))
    assert wire.feed(snapshot(4, "C", YES, NO))
    assert wire.session.in_sync("C")
    assert wire.subscribe("C", "D") == []
    # Without a snapshot it is asked for on the subscription that it joined.
    wire.session.unsubscribe(["C"], wire.now)
    wire.subscribe("E")
    assert {"sids": [1], "action": "get_snapshot", "market_tickers": ["E"]} in [
        command["params"] for command in sent(wire.wait(11))
    ]


def test_a_subscription_that_takes_no_more_markets_is_left_at_that(live: Wire) -> None:
    book, trade, _ = sent(live.subscribe("C"))
    outputs = live.feed(frame("error", id=book["id"], msg={"code": 26, "msg": "Subscription market limit exceeded"}))
    (again,) = sent(outputs)
    assert again["params"]["channels"] == ["orderbook_delta"]
    assert again["params"]["market_tickers"] == ["C"]
    outputs = live.feed(frame("error", id=trade["id"], msg={"code": 18, "msg": "Command timeout"}))
    assert sent(outputs)[0]["params"] == {"channels": ["trade"], "market_tickers": ["C"]}
    # No more are added to the full one.
    assert sent(live.subscribe("D"))[0]["cmd"] == "subscribe"


def test_memory_stays_that_of_the_markets_held() -> None:
    wire = Wire(KalshiSession("c1", markets_per_subscription=50, accept_unknown=False))
    session = wire.session
    (first,) = sent(wire.subscribe(A))
    for sid, channel in enumerate(("orderbook_delta", "trade", "ticker"), 1):
        wire.feed(frame("subscribed", id=first["id"], msg={"channel": channel, "sid": sid}))
    seqs = {1: 1, 2: 1, 3: 1}

    def numbered(sid: int) -> int:
        seqs[sid] += 1
        return seqs[sid]

    wire.feed(snapshot(1, A, YES, NO), frame("ok", 2, 1))
    seqs[3] = 0
    sizes = _sizes_of(session)
    for number in range(5000):
        ticker = f"KXCHURN-{number}"
        for command in sent(wire.subscribe(ticker)):
            sid = command["params"]["sids"][0]
            wire.feed(frame("ok", sid, numbered(sid), id=command["id"], msg={"market_tickers": [A, ticker]}))
        wire.feed(snapshot(numbered(1), ticker, YES, NO))
        if number % 7 == 0:  # one that ends in doubt
            seqs[1] += 1
        wire.feed(delta(numbered(1), "yes", "0.3700", "1.00", ticker))
        wire.feed(snapshot(numbered(1), A, YES, NO))
        commands = sent(session.unsubscribe([ticker], wire.now))
        assert wire.feed(delta(numbered(1), "yes", "0.3700", "1.00", ticker)) == []
        for command in commands:
            sid = command["params"]["sids"][0]
            wire.feed(frame("ok", sid, numbered(sid), id=command["id"], msg={"market_tickers": [A]}))
        wire.said.clear()
    assert session.in_sync(A)
    for name, size in _sizes_of(session).items():
        assert size <= sizes[name] + (256 if name == "_commands" else 0), name


def _sizes_of(session: KalshiSession) -> dict[str, int]:
    found = {name: len(value) for name, value in vars(session).items() if isinstance(value, dict | set | list)}
    for sid, subscription in session._sids.items():
        found[f"markets of {sid}"] = len(subscription.markets)
        found[f"left {sid}"] = len(subscription.left)
    return found


def test_a_market_dropped_before_its_acknowledgement_is_taken_off_then(wire: Wire) -> None:
    wire.subscribe(A, B)
    assert sent(wire.session.unsubscribe([A], wire.now)) == []
    outputs = wire.feed(frame("subscribed", id=1, msg={"channel": "orderbook_delta", "sid": 1}))
    assert sent(outputs)[0]["params"] == {"sids": [1], "action": "delete_markets", "market_tickers": [A]}


# --- the connection's life -----------------------------------------------------------------------------------


def test_a_disconnection_is_a_gap_until_the_next_connections_snapshot(live: Wire) -> None:
    last = live.now
    outputs = live.session.disconnected(live.now + 5 * SECOND, "disconnect")
    assert outputs == [GapOpened(A, "disconnect", last), GapOpened(B, "disconnect", last)]
    assert not live.session.in_sync(A)
    live.now += 10 * SECOND
    live.session.connected(live.now)
    assert live.session.book(A) is None
    assert sent(live.subscribe(A, B))[0]["params"]["market_tickers"] == [A, B]
    outputs = live.feed(snapshot(1, A, YES, NO))
    book = only(BookSnapshot, outputs)
    assert (book.reason, book.epoch) == ("initial", 2)
    assert only(GapClosed, outputs) == GapClosed(A, live.now, "snapshot")
    # As the first of its connection it counts as a change, although nothing did change.
    assert only(Quote, outputs).in_sync


def test_snapshots_for_the_start_of_an_hour(live: Wire) -> None:
    live.feed(delta(4, "yes", "0.3700", "1.00"), snapshot(5, B, YES, NO))
    first, second = live.session.snapshots(live.now)
    assert (first.market_id, first.reason, first.in_sync, first.recv_ns) == (A, "hour", False, live.now)
    assert first.bids[0] == (3700, 113 * C)
    assert (second.market_id, second.in_sync, second.asks[0]) == (B, True, (4000, 35_500_000))


def test_the_handshake_is_signed() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    session = KalshiSession("c1", "wss://venue.test/trade-api/ws/v2", KalshiCredentials("id", key))
    request = session.connect_request(1_790_000_000_123)
    assert request.url == "wss://venue.test/trade-api/ws/v2"
    assert verify(key.public_key(), request.headers, "GET", "/trade-api/ws/v2")
    assert "SIGNATURE" not in repr(request)
    assert KalshiSession("c1", "wss://venue.test/").connect_request(0).headers == {}


REST = {"orderbook_fp": {"yes_dollars": YES, "no_dollars": NO}}


def test_polled_books_are_trusted_snapshots() -> None:
    session = KalshiSession("poll")
    outputs = session.rest_book(A, json.dumps(REST).encode(), START)
    book = only(BookSnapshot, outputs)
    assert (book.source, book.reason, book.in_sync, book.bids[0], book.asks[0]) == (
        "rest",
        "initial",
        True,
        (3700, 112 * C),
        (4000, 35_500_000),
    )
    quote = only(Quote, outputs)
    assert (quote.source, quote.in_sync, quote.bid, quote.ask) == ("rest", True, 3700, 4000)
    outputs = session.rest_book(A, json.dumps({"ticker": A, **REST}).encode(), START + 1)
    assert only(BookSnapshot, outputs).epoch == 2
    assert not every(Quote, outputs)
    outputs = session.rest_book(A, b'{"orderbook_fp":{"yes_dollars":null}}', START + 2)
    assert anomalies(outputs) == [AnomalyKind.NULL_LIST]
    assert only(Quote, outputs).bid is None
    legacy = b'{"orderbook":{"yes":[[35,40]],"no":null,"yes_dollars":[["0.3500",40]],"no_dollars":null}}'
    outputs = session.rest_book(B, legacy, START)
    assert only(BookSnapshot, outputs).bids == ((3500, 40 * C),)
    assert not anomalies(outputs)


def test_a_rest_book_is_never_spliced_onto_a_stream(live: Wire) -> None:
    body = json.dumps({"orderbook_fp": {"yes_dollars": [["0.1000", "1.00"]]}}).encode()
    assert live.session.rest_book(A, body, live.now) == []
    assert live.book.best_bid == 3700
    live.feed(delta(4, "yes", "0.3700", "1.00"))
    outputs = live.session.rest_book(A, body, live.now)
    assert not only(BookSnapshot, outputs).in_sync
    assert not only(Quote, outputs).in_sync
    assert not live.session.in_sync(A)
    assert not every(GapClosed, live.said + outputs)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{}", b"[]", b'{"orderbook_fp":{"yes_dollars":[["x","1"]]}}', b"\xff"]
)
def test_a_bad_rest_book_is_an_anomaly(body: bytes) -> None:
    (found,) = KalshiSession("poll").rest_book(A, body, START)
    assert isinstance(found, Anomaly)
    assert found.market_id == A


def test_it_is_a_session() -> None:
    session: Session = KalshiSession("c1")
    assert session.venue == Kalshi().name


# --- real recordings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kalshi-btc15m", "kalshi-gold15m"])
def test_a_real_recording_ends_as_an_independent_fold_says(recordings: Path, name: str) -> None:
    recording = Recording.open(recordings / name)
    expected = json.loads((recording.path / "expected.json").read_text())
    sessions: dict[str, KalshiSession] = {}
    digests: defaultdict[str, Any] = defaultdict(sha256)
    changes: Counter[str] = Counter()
    trades: Counter[str] = Counter()
    contracts: Counter[str] = Counter()
    kinds: Counter[AnomalyKind] = Counter()
    for text in recording.frames("kalshi"):
        session = sessions.get(text.conn)
        if session is None:
            session = sessions[text.conn] = KalshiSession(
                text.conn, use_yes_price=bool(recording.meta["use_yes_price"])
            )
            session.connected(text.recv_ns)
        for output in session.receive(text.frame, text.recv_ns):
            if isinstance(output, Quote):
                bid = "- -" if output.bid_size is None else f"{output.bid} {output.bid_size // 10_000}"
                ask = "- -" if output.ask_size is None else f"{output.ask} {output.ask_size // 10_000}"
                digests[output.market_id].update(f"{bid} {ask}\n".encode())
                changes[output.market_id] += 1
            elif isinstance(output, Trade):
                trades[output.market_id] += 1
                contracts[output.market_id] += output.size // 10_000
            elif isinstance(output, Anomaly):
                kinds[output.kind] += 1
    assert kinds[AnomalyKind.SEQ_GAP] == expected["seq_gaps"] == 0
    assert not kinds - Counter({AnomalyKind.CROSSED_BOOK: 2})
    for ticker, fold in expected["markets"].items():
        (book,) = [found for session in sessions.values() if (found := session.book(ticker)) is not None]
        lines = [f"bid {price} {size // 10_000}" for price, size in book.bid_levels()]
        lines += [f"ask {price} {size // 10_000}" for price, size in book.ask_levels()]
        assert len(lines) == fold["levels"]
        assert sha256("\n".join(lines).encode()).hexdigest() == fold["sha256"]
        assert (book.best_bid, book.best_ask) == (fold["best_bid"], fold["best_ask"])
        assert changes[ticker] == fold["top_changes"]
        assert digests[ticker].hexdigest() == fold["quotes_sha256"]
        assert (trades[ticker], contracts[ticker]) == (fold["trades"], fold["trade_contracts_e2"])


def test_a_lost_frame_of_a_real_recording_is_recovered_by_the_snapshot(recordings: Path) -> None:
    frames = list(Recording.open(recordings / "kalshi-gold15m").frames("kalshi"))[:3000]
    whole, lossy = KalshiSession("whole"), KalshiSession("lossy")
    lost = next(i for i, item in enumerate(frames) if i > 1000 and '"orderbook_delta"' in item.frame)
    gaps: list[Output] = []
    for i, item in enumerate(frames):
        whole.receive(item.frame, item.recv_ns)
        if i != lost:
            gaps += [o for o in lossy.receive(item.frame, item.recv_ns) if isinstance(o, GapOpened | GapClosed)]
    assert [type(gap) for gap in gaps] == [GapOpened]
    truth = whole.snapshots(0)[0]
    ladders = {
        "yes_dollars_fp": [(f"{p / ONE:.4f}", f"{s / C:.2f}") for p, s in truth.bids],
        "no_dollars_fp": [(f"{(ONE - p) / ONE:.4f}", f"{s / C:.2f}") for p, s in truth.asks],
    }
    last = json.loads(next(item.frame for item in reversed(frames) if '"orderbook_delta"' in item.frame))
    reply = frame("orderbook_snapshot", 1, last["seq"] + 1, id=1, msg={"market_ticker": truth.market_id} | ladders)
    assert only(GapClosed, lossy.receive(reply, frames[-1].recv_ns + 1)).market_id == truth.market_id
    healed = lossy.book(truth.market_id)
    assert healed is not None
    assert tuple(healed.bid_levels()) == truth.bids
    assert tuple(healed.ask_levels()) == truth.asks
    assert lossy.in_sync(truth.market_id)


def test_a_delta_frame_is_cheap() -> None:
    wire = Wire()
    wire.feed(snapshot(1, A, YES, NO))
    texts = [delta(seq, "yes", "0.3600", "1.00") for seq in range(2, 20_002)]
    receive = wire.session.receive
    started = time.process_time()
    for text in texts:
        receive(text, START)
    # About 3 us on an ordinary core; the bound only catches something quadratic or a decode gone wrong.
    assert (time.process_time() - started) / len(texts) < 40e-6
