import json
from typing import Any, TypeVar

import pytest

from arb_pipeline.model import (
    Anomaly,
    AnomalyKind,
    BookDelta,
    BookSnapshot,
    FetchBooks,
    GapClosed,
    GapOpened,
    MarketChange,
    MarketFacts,
    Output,
    Quote,
    Reconnect,
    Send,
    Ticker,
    Trade,
)
from arb_pipeline.venues.base import Session
from arb_pipeline.venues.polymarket import PolymarketSession
from arb_pipeline_tests.venues.polymarket.truth import MARKET, NO, YES, S, Truth

URL = "wss://localhost/ws/market"
T = TypeVar("T")


class Line:
    """A session fed by a market's truth."""

    def __init__(self, truth: Truth | None = None, *, book: bool = True, facts: MarketFacts | None = None) -> None:
        self.truth = truth or Truth()
        self.session = PolymarketSession("c-0", URL)
        self.session.connected(self.truth.now)
        self.session.subscribe([facts or self.truth.facts], self.truth.now)
        if book:
            self.first = self.feed([self.truth.book()])

    def feed(self, message: object) -> list[Output]:
        return self.session.receive(json.dumps(message), self.truth.now)

    def change(self, side: str, price: str, size: str) -> list[Output]:
        return self.feed(self.truth.change(side, price, size))

    def rest(self, body: bytes | None = None) -> list[Output]:
        return self.session.rest_book(MARKET, body or self.truth.rest(), self.truth.now)

    @property
    def in_sync(self) -> bool:
        return self.session.in_sync(MARKET)

    @property
    def is_true(self) -> bool:
        book = self.session.book(MARKET)
        return book is not None and (book.bids, book.asks) == (self.truth.bids, self.truth.asks)


def only(outputs: list[Output], kind: type[T]) -> list[T]:
    return [output for output in outputs if isinstance(output, kind)]


def anomalies(outputs: list[Output]) -> list[AnomalyKind]:
    return [anomaly.kind for anomaly in only(outputs, Anomaly)]


# --- subscriptions -----------------------------------------------------------------------------------------


def test_it_is_a_session() -> None:
    session: Session = PolymarketSession("c-0", URL)
    assert session.connect_request(0).url == URL
    assert not session.connect_request(0).headers


def test_the_first_message_names_the_type_and_later_ones_the_operation() -> None:
    session = PolymarketSession("c-0", URL)
    truth, other = Truth(), Truth(market="0x" + "b" * 64, yes="1" * 70, no="2" * 70)
    assert session.connected(0) == []
    (first,) = only(session.subscribe([truth.facts], 0), Send)
    assert json.loads(first.frame) == {
        "assets_ids": [YES],
        "type": "market",
        "custom_feature_enabled": True,
        "initial_dump": True,
    }
    (second,) = only(session.subscribe([truth.facts, other.facts], 0), Send)
    assert json.loads(second.frame) == {
        "operation": "subscribe",
        "assets_ids": [other.yes],
        "custom_feature_enabled": True,
    }
    (third,) = only(session.unsubscribe([other.market, "unheard of"], 0), Send)
    assert json.loads(third.frame) == {"operation": "unsubscribe", "assets_ids": [other.yes]}
    (again,) = only(session.connected(S), Send)
    assert json.loads(again.frame)["assets_ids"] == [YES]


def test_markets_named_before_the_socket_opens_are_subscribed_with_it() -> None:
    session = PolymarketSession("c-0", URL)
    assert session.subscribe([Truth().facts], 0) == []
    (first,) = only(session.connected(0), Send)
    assert json.loads(first.frame)["type"] == "market"


def test_a_market_without_tokens_is_told_and_left_out() -> None:
    session = PolymarketSession("c-0", URL)
    session.connected(0)
    outputs = session.subscribe([MarketFacts(venue="polymarket", market_id=MARKET)], 0)
    assert anomalies(outputs) == [AnomalyKind.MISSING_FIELD]
    assert not only(outputs, Send)


# --- books -------------------------------------------------------------------------------------------------


def test_a_first_snapshot_is_trusted_once_its_hash_matches() -> None:
    line = Line()
    snapshot, quote = line.first
    assert isinstance(snapshot, BookSnapshot)
    assert (snapshot.reason, snapshot.in_sync, snapshot.seq) == ("initial", True, None)
    assert snapshot.bids == ((4200, 35_500_000), (4100, 120_000_000))
    assert snapshot.asks == ((4400, 80_000_000), (4600, 10_000_000))
    assert snapshot.venue_ns == line.truth.ms * 1_000_000
    assert isinstance(quote, Quote)
    assert (quote.bid, quote.bid_size, quote.ask, quote.ask_size) == (4200, 35_500_000, 4400, 80_000_000)
    assert line.session.counters["hash_verified"] == 1


def test_best_levels_are_found_in_a_ladder_of_any_order() -> None:
    line = Line(book=False)
    message = line.truth.book()
    message["bids"].reverse()
    message["asks"].reverse()
    quote = only(line.feed(message), Quote)[0]
    assert (quote.bid, quote.ask) == (4200, 4400)
    assert line.in_sync


def test_an_empty_first_book_is_a_quote_too() -> None:
    truth = Truth()
    truth.bids, truth.asks = {}, {}
    line = Line(truth)
    (quote,) = only(line.first, Quote)
    assert (quote.bid, quote.bid_size, quote.ask, quote.ask_size) == (None, None, None, None)


def test_a_change_is_applied_once_and_its_mirror_is_a_check() -> None:
    line = Line()
    outputs = line.change("BUY", "0.43", "60")
    (delta,) = only(outputs, BookDelta)
    assert (delta.side, delta.price, delta.size) == ("bid", 4300, 60_000_000)
    (quote,) = only(outputs, Quote)
    assert (quote.bid, quote.bid_size, quote.in_sync) == (4300, 60_000_000, True)
    assert not anomalies(outputs)
    assert line.is_true
    assert not only(line.change("BUY", "0.41", "0"), Quote)
    assert line.is_true
    assert line.session.counters["hash_verified"] == 3


def test_one_quote_per_market_and_frame_after_all_changes() -> None:
    line = Line()
    frames = [line.truth.change("BUY", "0.43", "60"), line.truth.change("BUY", "0.43", "0")]
    outputs = line.feed(frames)
    assert len(only(outputs, BookDelta)) == 2
    assert not only(outputs, Quote)
    assert line.is_true


def test_several_changes_of_one_token_in_one_message() -> None:
    line = Line()
    line.truth.change("BUY", "0.43", "60")
    line.truth.asks[4700] = 1_000_000
    message = line.truth.told("BUY", "0.43", "60")
    message["price_changes"] += line.truth.told("SELL", "0.47", "1")["price_changes"]
    outputs = line.feed(message)
    assert not anomalies(outputs)
    assert line.is_true
    assert line.in_sync


def test_a_book_after_a_trade_repeats_hash_and_stamp_and_is_no_duplicate() -> None:
    line = Line()
    line.change("BUY", "0.43", "60")
    outputs = line.feed(line.truth.book(full=False))
    (snapshot,) = only(outputs, BookSnapshot)
    assert (snapshot.reason, snapshot.in_sync) == ("venue", True)
    again = line.feed(line.truth.book(full=False))
    assert anomalies(again) == [AnomalyKind.DUPLICATE]
    assert not only(again, BookSnapshot)


def test_a_change_told_twice_is_skipped() -> None:
    line = Line()
    message = line.truth.change("BUY", "0.43", "60")
    line.feed(message)
    outputs = line.feed(message)
    assert anomalies(outputs) == [AnomalyKind.DUPLICATE]
    assert not only(outputs, BookDelta)


def test_only_the_no_token_told_is_mirrored() -> None:
    line = Line(book=False)
    line.feed([line.truth.book(NO)])
    assert line.is_true
    message = line.truth.change("SELL", "0.43", "7")
    message["price_changes"] = [entry for entry in message["price_changes"] if entry["asset_id"] == NO]
    outputs = line.feed(message)
    (delta,) = only(outputs, BookDelta)
    assert (delta.side, delta.price, delta.size) == ("ask", 4300, 7_000_000)
    assert not anomalies(outputs)
    assert line.is_true
    assert line.session.counters["hash_verified"] == 2


def test_a_false_mirror_is_counted_but_a_proven_book_stays() -> None:
    line = Line()
    message = line.truth.change("BUY", "0.43", "60")
    message["price_changes"][1]["size"] = "61"
    assert anomalies(line.feed(message)) == [AnomalyKind.MIRROR_MISMATCH]
    assert line.in_sync
    assert line.is_true


@pytest.mark.parametrize(("bid", "ask"), [("0", "1"), ("", ""), (None, None), ("0", None)])
def test_every_way_of_telling_an_empty_side(bid: str | None, ask: str | None) -> None:
    line = Line()
    for side, price in (("BUY", "0.41"), ("SELL", "0.46"), ("SELL", "0.44")):
        line.change(side, price, "0")
    message = line.truth.change("BUY", "0.42", "0")
    for name, value in (("best_bid", bid), ("best_ask", ask)):
        message["price_changes"][0][name] = value
    outputs = line.feed(message)
    assert not anomalies(outputs)
    assert only(outputs, Quote)[0].bid is None


def test_wrong_best_prices_beside_a_true_hash_are_counted_only() -> None:
    line = Line()
    message = line.truth.change("BUY", "0.43", "60")
    message["price_changes"][0]["best_bid"] = "0.42"
    assert anomalies(line.feed(message)) == [AnomalyKind.TOP_MISMATCH]
    assert line.in_sync


def test_wrong_best_prices_without_a_hash_open_a_gap() -> None:
    line = Line()
    verified = line.truth.now
    message = line.truth.change("BUY", "0.43", "60")
    for entry in message["price_changes"]:
        del entry["hash"]
        entry["best_bid"] = "0.42"
    outputs = line.feed(message)
    assert AnomalyKind.TOP_MISMATCH in anomalies(outputs)
    (gap,) = only(outputs, GapOpened)
    assert gap.cause == "top_mismatch"
    assert gap.from_ns >= verified
    assert only(outputs, FetchBooks)


# --- doubt and recovery ------------------------------------------------------------------------------------


def test_a_lost_change_opens_a_gap_back_to_the_last_proof_and_rest_ends_it() -> None:
    line = Line()
    verified = line.truth.now
    line.truth.change("BUY", "0.40", "1")  # never arrives
    outputs = line.change("BUY", "0.39", "1")
    assert anomalies(outputs) == [AnomalyKind.HASH_MISMATCH]
    assert only(outputs, GapOpened) == [GapOpened(MARKET, "hash_mismatch", verified)]
    assert only(outputs, FetchBooks) == [FetchBooks((MARKET,), "hash_mismatch")]
    assert not line.in_sync
    recovered = line.rest()
    (snapshot,) = only(recovered, BookSnapshot)
    assert (snapshot.reason, snapshot.source, snapshot.in_sync) == ("resync", "rest", True)
    assert only(recovered, GapClosed) == [GapClosed(MARKET, line.truth.now, "rest_book")]
    assert line.is_true


def test_a_rest_book_with_a_false_hash_is_refused_and_asked_for_again() -> None:
    line = Line()
    line.truth.change("BUY", "0.40", "1")
    line.change("BUY", "0.39", "1")
    body = json.loads(line.truth.rest())
    body["bids"][0]["size"] = "7"
    assert anomalies(line.rest(json.dumps(body).encode())) == [AnomalyKind.HASH_MISMATCH]
    assert not line.in_sync
    assert not only(line.session.tick(line.truth.now + 9 * S), FetchBooks)
    assert only(line.session.tick(line.truth.now + 10 * S), FetchBooks)


def test_changes_younger_than_the_rest_book_are_applied_on_top_of_it() -> None:
    line = Line()
    line.truth.change("BUY", "0.40", "1")
    line.change("BUY", "0.39", "1")
    body = line.truth.rest()
    line.change("SELL", "0.45", "9")
    line.rest(body)
    assert line.is_true
    assert line.in_sync


def test_a_rest_book_older_than_the_stream_does_not_undo_it() -> None:
    line = Line()
    body = line.truth.rest()
    line.change("BUY", "0.43", "60")
    assert line.rest(body) == []
    assert line.is_true
    line.truth.change("BUY", "0.40", "1")
    line.change("BUY", "0.39", "1")
    line.rest(body)
    assert not line.in_sync


def test_frames_older_than_the_rest_book_are_skipped() -> None:
    line = Line()
    line.truth.change("BUY", "0.40", "1")
    late = line.change("BUY", "0.39", "1")
    message = line.truth.change("SELL", "0.45", "9")
    line.truth.change("SELL", "0.45", "0")
    line.rest()
    assert late
    line.feed(message)
    assert line.is_true
    assert line.session.counters["stale_entries"] == 1


def test_a_wrong_level_overwritten_later_heals_by_hash() -> None:
    line = Line()
    line.truth.change("BUY", "0.40", "1")
    line.change("BUY", "0.39", "1")
    outputs = line.change("BUY", "0.40", "3")
    (snapshot,) = only(outputs, BookSnapshot)
    assert snapshot.reason == "resync"
    assert only(outputs, GapClosed)[0].recovery == "hash_verified"
    assert line.in_sync
    assert line.is_true


def test_a_hash_with_the_price_of_a_trade_not_yet_told_is_accepted() -> None:
    line = Line()
    line.change("BUY", "0.43", "60")
    line.truth.ltp = "0.570"  # a taker bought NO at 0.57 against this bid
    outputs = line.change("BUY", "0.43", "40")
    assert not anomalies(outputs)
    line.feed(line.truth.book(full=False))
    line.feed(line.truth.trade("0.57", "20", "BUY", NO))
    assert not anomalies(line.change("BUY", "0.30", "5"))
    assert line.in_sync


def test_a_trade_of_no_that_is_never_told_is_found_many_changes_later() -> None:
    line = Line()
    line.change("BUY", "0.43", "40")
    for size in range(1, 40):
        assert not anomalies(line.change("BUY", "0.30", str(size)))
    line.truth.ltp = "0.570"
    assert not anomalies(line.change("BUY", "0.31", "5"))
    assert line.in_sync


def test_a_mismatch_right_after_a_trade_is_advisory_until_the_trade_is_told() -> None:
    line = Line()
    line.feed(line.truth.trade("0.44", "1", "BUY"))
    line.truth.ltp = "0.555"  # of a trade nobody could guess from the levels
    outputs = line.change("BUY", "0.30", "5")
    assert not anomalies(outputs)
    assert line.session.counters["hash_advisory"] == 1
    assert line.in_sync
    line.feed(line.truth.trade("0.555", "1", "BUY"))
    assert not only(line.session.tick(line.truth.now + 5 * S), GapOpened)


def test_an_advisory_mismatch_that_nothing_explains_becomes_a_gap() -> None:
    line = Line()
    line.feed(line.truth.trade("0.43", "1", "BUY"))
    verified = line.truth.ms
    line.truth.change("BUY", "0.40", "1")
    line.change("BUY", "0.39", "1")
    assert line.in_sync
    outputs = line.session.tick(line.truth.now + 2 * S)
    assert AnomalyKind.HASH_MISMATCH in anomalies(outputs)
    (gap,) = only(outputs, GapOpened)
    assert gap.from_ns <= (verified + 20) * 1_000_000
    assert not line.in_sync


def test_a_first_book_that_does_not_match_is_not_trusted() -> None:
    line = Line(book=False)
    message = line.truth.book()
    message["bids"][0]["size"] = "121"
    outputs = line.feed([message])
    (snapshot,) = only(outputs, BookSnapshot)
    assert (snapshot.reason, snapshot.in_sync) == ("initial", False)
    assert only(outputs, FetchBooks)
    assert only(line.rest(), GapClosed)
    assert line.in_sync
    assert line.is_true


def test_stale_facts_of_the_catalogue_are_corrected_by_the_hash_itself() -> None:
    truth = Truth()
    facts = MarketFacts(
        venue="polymarket",
        market_id=MARKET,
        yes_token_id=YES,
        no_token_id=NO,
        tick=10,
        min_size=15_000_000,
        neg_risk=True,
        last_trade_price="0.100",
    )
    line = Line(truth, facts=facts)
    assert line.in_sync
    line.change("BUY", "0.43", "60")
    assert line.session.counters["hash_verified"] == 2


def test_a_v2_book_is_trusted_by_its_best_prices() -> None:
    truth = Truth()
    line = Line(truth, book=False)
    line.feed([truth.book() | {"version": "v2", "hash": "0" * 40}])
    assert line.in_sync
    message = truth.change("BUY", "0.43", "60")
    for entry in message["price_changes"]:
        entry["hash"] = "0" * 40
    assert not anomalies(line.feed(message))
    assert line.in_sync
    assert line.session.counters["hash_unverifiable"] == 2
    lost = truth.change("BUY", "0.44", "1") and truth.change("BUY", "0.39", "1")
    for entry in lost["price_changes"]:
        entry["hash"] = "0" * 40
    assert AnomalyKind.TOP_MISMATCH in anomalies(line.feed(lost))
    assert not line.in_sync


def test_a_crossed_book_that_no_hash_proves_is_doubted() -> None:
    line = Line()
    message = line.truth.change("BUY", "0.50", "1")
    for entry in message["price_changes"]:
        del entry["hash"]
    assert AnomalyKind.CROSSED_BOOK in anomalies(line.feed(message))
    assert not line.in_sync


# --- the other events --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "side", "price", "yes_price", "taker"),
    [
        (YES, "BUY", "0.43", 430_000_000, "yes"),
        (YES, "SELL", "0.43", 430_000_000, "no"),
        (NO, "BUY", "0.57", 430_000_000, "no"),
        (NO, "SELL", "0.57", 430_000_000, "yes"),
        (NO, "", "0.472941433", 527_058_567, None),
    ],
)
def test_a_trade_in_yes_terms(token: str, side: str, price: str, yes_price: int, taker: str | None) -> None:
    line = Line()
    (trade,) = only(line.feed(line.truth.trade(price, "216.216215", side, token)), Trade)
    assert (trade.price, trade.size, trade.taker_side) == (yes_price, 216_216_215, taker)
    assert trade.venue_ns == line.truth.ms * 1_000_000


def test_trade_ids_are_the_same_in_every_run_and_tell_repeats_in_a_frame_apart() -> None:
    message = Truth().trade("0.43", "20")
    ids = [[trade.trade_id for trade in only(Line().feed([message, message]), Trade)] for _ in range(2)]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 2
    other = only(Line().feed(message | {"size": "21"}), Trade)[0].trade_id
    assert other not in ids[0]


def test_a_new_tick_size_is_a_new_epoch_and_needs_a_fresh_book() -> None:
    line = Line()
    epoch = only(line.first, BookSnapshot)[0].epoch
    message: dict[str, Any] = {
        "market": MARKET,
        "asset_id": YES,
        "old_tick_size": "0.01",
        "new_tick_size": "0.001",
        "timestamp": str(line.truth.ms),
        "event_type": "tick_size_change",
    }
    outputs = line.feed(message)
    assert only(outputs, GapOpened) == [GapOpened(MARKET, "tick_size_change", line.truth.now)]
    assert only(outputs, FetchBooks)[0].cause == "tick_size_change"
    assert only(outputs, MarketChange)[0].details["new_tick_size"] == "0.001"
    assert line.feed(message | {"asset_id": NO}) == []
    line.truth.tick = 10
    (snapshot,) = only(line.rest(), BookSnapshot)
    assert snapshot.epoch > epoch
    assert line.in_sync
    assert not anomalies(line.change("BUY", "0.431", "60"))


def test_best_bid_ask_is_a_ticker_and_never_touches_the_book() -> None:
    line = Line()
    message = {
        "market": MARKET,
        "asset_id": NO,
        "best_bid": "0.57",
        "best_ask": "0.59",
        "spread": "0.02",
        "timestamp": str(line.truth.ms),
        "event_type": "best_bid_ask",
    }
    (ticker,) = line.feed(message)
    assert isinstance(ticker, Ticker)
    assert (ticker.bid, ticker.ask) == (4100, 4300)
    assert line.is_true


def test_life_cycle_messages_are_said_once() -> None:
    line = Line()
    new = {
        "market": "0x" + "a" * 64,
        "event_type": "new_market",
        "event_message": {"id": "363111"},
        "slug": "btc-updown-5m-1791300000",
        "assets_ids": ["11", "22"],
    }
    (change,) = only(line.feed(new), MarketChange)
    assert (change.kind, change.market_id, change.event_id) == ("new_market", "0x" + "a" * 64, "363111")
    assert change.details["slug"] == "btc-updown-5m-1791300000"
    assert line.feed(new) == []
    (resolved,) = only(
        line.feed({"market": MARKET, "event_type": "market_resolved", "winning_asset_id": NO}), MarketChange
    )
    assert (resolved.kind, resolved.details["result"]) == ("market_resolved", "no")


def test_life_cycle_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arb_pipeline.venues.polymarket.session._TOLD_MOST", 3)
    line = Line()
    for number in range(10):
        line.feed({"market": str(number), "event_type": "new_market"})
    assert len(line.session._lifecycle) == 3


# --- old forms ---------------------------------------------------------------------------------------------

OLD_MS = 1_757_900_000_456


def test_the_forms_before_september_2025() -> None:
    truth = Truth()
    truth.ms = OLD_MS
    line = Line(truth, book=False)
    book = truth.book() | {"hash": "0" * 40}
    book["buys"], book["sells"] = book.pop("bids"), book.pop("asks")
    line.feed([book])
    base = {"asset_id": YES, "market": MARKET, "hash": "1" * 40, "timestamp": str(OLD_MS), "event_type": "price_change"}
    line.feed(base | {"changes": [{"price": "0.43", "size": "60", "side": "BUY"}]})
    line.feed(base | {"price": "0.46", "size": "0", "side": "SELL"})
    told = {"price": "0.59", "size": "1", "side": "SELL"}
    assert line.feed(base | {"asset_id": NO, "changes": [told]}) == []
    truth.change("BUY", "0.43", "60")
    truth.change("SELL", "0.46", "0")
    assert line.is_true
    assert line.in_sync


def test_an_old_change_of_the_no_token_alone_is_mirrored() -> None:
    truth = Truth()
    truth.ms = OLD_MS
    line = Line(truth, book=False)
    line.feed([truth.book(NO) | {"hash": ""}])
    line.feed(
        {
            "asset_id": NO,
            "market": MARKET,
            "timestamp": str(OLD_MS),
            "event_type": "price_change",
            "changes": [{"price": "0.57", "size": "60", "side": "SELL"}],
        }
    )
    truth.change("BUY", "0.43", "60")
    assert line.is_true


# --- markets nobody subscribed -----------------------------------------------------------------------------


def test_other_tokens_are_ignored_but_their_books_are_counted() -> None:
    line = Line()
    other = Truth(market="0x" + "b" * 64, yes="1" * 70, no="2" * 70)
    assert line.feed(other.change("BUY", "0.43", "60")) == []
    assert line.session.counters["ignored_entries"] == 2
    assert anomalies(line.feed(other.book())) == [AnomalyKind.UNKNOWN_MARKET]


def test_replay_takes_markets_without_a_catalogue() -> None:
    truth = Truth()
    session = PolymarketSession("c-0", URL, accept_unknown=True)
    session.connected(0)
    outputs = session.receive(json.dumps([truth.book()]), truth.now)
    assert anomalies(outputs) == [AnomalyKind.ASSUMED_YES_TOKEN]
    assert session.in_sync(MARKET)
    outputs = session.receive(json.dumps(truth.change("BUY", "0.43", "60")), truth.now)
    assert not anomalies(outputs)
    assert session.counters["hash_verified"] == 2


def test_a_change_before_any_book_is_counted_and_rest_makes_it_whole() -> None:
    line = Line(book=False)
    body = line.truth.rest()
    assert anomalies(line.change("BUY", "0.43", "60")) == [AnomalyKind.NO_SNAPSHOT]
    line.rest(body)
    assert line.is_true
    assert line.in_sync


# --- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        ("INVALID OPERATION", AnomalyKind.MALFORMED_JSON),
        ('{"market":', AnomalyKind.MALFORMED_JSON),
        ('{"event_type":"surprise"}', AnomalyKind.UNKNOWN_TYPE),
        ("{}", AnomalyKind.MISSING_FIELD),
        ('{"event_type":7}', AnomalyKind.WRONG_TYPE),
        ("[7]", AnomalyKind.WRONG_TYPE),
        ("[" * 100_000, AnomalyKind.MALFORMED_JSON),
        (b"\xff\xfe{", AnomalyKind.MALFORMED_JSON),
        ("\udc80", AnomalyKind.MALFORMED_JSON),
        ('{"event_type":"last_trade_price","market":"m"}', AnomalyKind.MISSING_FIELD),
        ('{"event_type":"price_change","price_changes":null,"market":"m","timestamp":"1"}', AnomalyKind.NULL_LIST),
    ],
)
def test_bad_frames_are_classified_and_kept_as_example(frame: str | bytes, kind: AnomalyKind) -> None:
    line = Line()
    (anomaly,) = only(line.session.receive(frame, line.truth.now), Anomaly)
    assert anomaly.kind is kind
    assert 0 < len(anomaly.example) <= 500
    if isinstance(frame, str):
        assert anomaly.example in frame
    assert not anomalies(line.change("BUY", "0.43", "60"))


@pytest.mark.parametrize("frame", ["PONG", b"PONG", "PONG\n", "[]"])
def test_pong_and_an_empty_array_say_nothing(frame: str | bytes) -> None:
    assert Line().session.receive(frame, 1) == []


def test_one_bad_element_of_an_array_leaves_the_others() -> None:
    line = Line(book=False)
    outputs = line.feed([{"event_type": "book"}, 7, None, line.truth.book()])
    assert len(only(outputs, Anomaly)) == 3
    assert line.in_sync


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("price", "0.4x", AnomalyKind.BAD_NUMBER),
        ("price", "1.2", AnomalyKind.BAD_NUMBER),
        ("price", "0", AnomalyKind.BAD_NUMBER),
        ("size", "-3", AnomalyKind.BAD_NUMBER),
        ("size", "9" * 5000, AnomalyKind.BAD_NUMBER),
        ("size", "1000000000000", AnomalyKind.BAD_NUMBER),
        ("size", None, AnomalyKind.WRONG_TYPE),
        ("price", 0.41, AnomalyKind.WRONG_TYPE),
    ],
)
def test_one_malformed_level_makes_the_book_untrusted(field: str, value: object, kind: AnomalyKind) -> None:
    line = Line()
    message = line.truth.book(full=False)
    message["bids"][0][field] = value
    outputs = line.feed(message)
    assert anomalies(outputs) == [kind]
    assert only(outputs, FetchBooks)
    assert not line.in_sync
    line.rest()
    assert line.in_sync


@pytest.mark.parametrize(("field", "value"), [("side", "BUX"), ("price", "?"), ("size", None), ("size", "1e3")])
def test_a_malformed_change_makes_the_book_untrusted(field: str, value: object) -> None:
    line = Line()
    message = line.truth.change("BUY", "0.43", "60")
    message["price_changes"][0][field] = value
    outputs = line.feed(message)
    assert anomalies(outputs)
    assert only(outputs, GapOpened)
    assert not line.in_sync


def test_a_malformed_mirror_does_not_discard_the_change() -> None:
    line = Line()
    message = line.truth.change("BUY", "0.43", "60")
    message["price_changes"][1]["price"] = "?"
    assert anomalies(line.feed(message)) == [AnomalyKind.BAD_NUMBER]
    assert line.in_sync
    assert line.is_true


def test_null_for_a_list_is_an_empty_one() -> None:
    line = Line(book=False)
    line.truth.asks = {}
    outputs = line.feed([line.truth.book() | {"asks": None}])
    assert anomalies(outputs) == [AnomalyKind.NULL_LIST]
    assert line.in_sync


def test_a_book_without_its_type_is_a_book() -> None:
    line = Line(book=False)
    message = line.truth.book()
    del message["event_type"]
    line.feed([message])
    assert line.in_sync


def test_a_change_of_an_unknown_type_is_not_overlooked() -> None:
    line = Line()
    outputs = line.feed(line.truth.change("BUY", "0.43", "60") | {"event_type": "price_chbnge"})
    assert anomalies(outputs) == [AnomalyKind.UNKNOWN_TYPE]
    assert not line.in_sync


def test_a_token_under_a_foreign_market_is_not_believed() -> None:
    line = Line()
    outputs = line.feed(line.truth.change("BUY", "0.43", "60") | {"market": "0x" + "c" * 64})
    assert anomalies(outputs) == [AnomalyKind.UNKNOWN_MARKET]
    assert not line.in_sync


def test_an_unreadable_frame_that_names_nobody_has_all_books_compared() -> None:
    line = Line()
    outputs = line.session.receive('{"mark', line.truth.now)
    assert only(outputs, FetchBooks) == [FetchBooks((MARKET,), "unreadable_message")]
    assert line.in_sync
    assert line.rest() == []
    line.truth.change("BUY", "0.43", "60")
    assert line.rest() == []
    outputs = line.session.tick(line.truth.now + 2 * S)
    assert only(outputs, GapOpened)[0].cause == "rest_ahead"
    assert only(outputs, GapClosed)
    assert line.is_true


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"error":"No orderbook exists for the requested token id"}', AnomalyKind.VENUE_ERROR),
        (b"<html>", AnomalyKind.MALFORMED_JSON),
        (b"{}", AnomalyKind.MISSING_FIELD),
        (Truth(yes="5" * 60).rest(), AnomalyKind.UNKNOWN_MARKET),
    ],
)
def test_a_bad_rest_answer_is_counted(body: bytes, kind: AnomalyKind) -> None:
    line = Line()
    assert anomalies(line.rest(body)) == [kind]
    assert line.in_sync


def test_a_rest_book_of_a_market_not_subscribed_is_counted() -> None:
    outputs = Line().session.rest_book("0x00", Truth().rest(), 1)
    assert anomalies(outputs) == [AnomalyKind.UNKNOWN_MARKET]


# --- time --------------------------------------------------------------------------------------------------


def test_ping_each_ten_seconds_and_only_while_connected() -> None:
    session = PolymarketSession("c-0", URL)
    assert session.tick(100 * S) == []
    session.connected(0)
    assert session.tick(9 * S) == []
    assert session.tick(10 * S) == [Send("PING")]
    assert session.tick(11 * S) == []
    session.disconnected(12 * S, "test")
    assert session.tick(60 * S) == []


def test_a_missing_first_snapshot_is_fetched_and_fetched_again() -> None:
    line = Line(book=False)
    start = line.truth.now
    assert not only(line.session.tick(start + 9 * S), FetchBooks)
    assert only(line.session.tick(start + 10 * S), FetchBooks) == [FetchBooks((MARKET,), "missing_snapshot")]
    assert not only(line.session.tick(start + 15 * S), FetchBooks)
    assert only(line.session.tick(start + 20 * S), FetchBooks)
    (snapshot,) = only(line.rest(), BookSnapshot)
    assert snapshot.reason == "initial"
    assert line.in_sync


def test_a_missing_first_snapshot_is_a_gap_since_the_subscription() -> None:
    line = Line(book=False)
    start = line.truth.now
    line.session.tick(start + 5 * S)
    assert only(line.session.tick(start + 10 * S), GapOpened) == [GapOpened(MARKET, "missing_snapshot", start)]
    assert only(line.rest(), GapClosed)[0].recovery == "rest_book"


@pytest.mark.parametrize("frame", ["PONG", None])
def test_a_frozen_stream_is_left_by_the_age_of_its_data(frame: str | None) -> None:
    line = Line()
    start = line.truth.now
    said: list[Output] = []
    for second in range(1, 36):
        if frame:
            assert line.session.receive(frame, start + second * S) == []
        assert line.feed({"market": f"0x{second}", "event_type": "new_market"})
        said += line.session.tick(start + second * S)
        if second < 34:
            assert not only(said, Reconnect)
    assert len(only(said, Reconnect)) == 1
    assert not only(line.session.tick(start + 60 * S), Reconnect)
    assert only(line.session.disconnected(start + 60 * S, "frozen"), GapOpened) == [GapOpened(MARKET, "frozen", start)]


def test_a_quiet_stream_shows_that_it_lives_by_a_book_and_stays() -> None:
    line = Line()
    start = line.truth.now
    said: list[Output] = []
    for second in range(1, 200):
        outputs = line.session.tick(start + second * S)
        operations = [json.loads(send.frame) for send in only(outputs, Send) if send.frame != "PING"]
        if operations:
            assert [operation["operation"] for operation in operations] == ["unsubscribe", "subscribe"]
            assert [operation["assets_ids"] for operation in operations] == [[YES], [YES]]
            said += line.session.receive(json.dumps([line.truth.book()]), start + second * S + 1)
        said += [output for output in outputs if not isinstance(output, Send | FetchBooks)]
    assert said == []
    assert line.in_sync


def test_a_book_that_a_quiet_stream_had_not_told_is_a_gap() -> None:
    line = Line()
    start = line.truth.now
    line.session.tick(start + 30 * S)
    line.truth.change("BUY", "0.43", "60", after_ms=20_000)
    outputs = line.session.receive(json.dumps([line.truth.book()]), start + 31 * S)
    assert only(outputs, GapOpened) == [GapOpened(MARKET, "silent_market", start)]
    assert only(outputs, GapClosed) == [GapClosed(MARKET, start + 31 * S, "snapshot")]
    assert line.is_true
    assert line.in_sync


# --- the witness -------------------------------------------------------------------------------------------

OTHER = "0x" + "b" * 64


class Pair(Line):
    """A line beside whose market another one goes on all the time."""

    def __init__(self, **options: float) -> None:
        self.truth = Truth()
        self.session = PolymarketSession("c-0", URL, **options)  # type: ignore[arg-type]
        self.other = Truth(market=OTHER, yes="1" * 70, no="2" * 70)
        self.session.connected(self.truth.now)
        self.session.subscribe([self.truth.facts, self.other.facts], self.truth.now)
        self.feed([self.truth.book(), self.other.book()])
        self.at = self.truth.now

    def wait(self, seconds: int) -> list[Output]:
        """Seconds go by in which the other market moves; what the session said of ours, and commands."""
        said: list[Output] = []
        for _ in range(seconds):
            self.at += S
            self.other.ms += 1000
            size = str(1 + self.other.ms // 1000 % 7)
            message = self.other.change("BUY", "0.41", size, after_ms=0)
            self.session.receive(json.dumps(message), self.at)
            said += self.session.tick(self.at)
        return [output for output in said if not isinstance(output, Send) or output.frame != "PING"]

    def answer(self) -> list[Output]:
        return self.session.rest_book(MARKET, self.truth.rest(), self.at)


def test_a_silent_market_is_compared_with_rest_within_its_age_and_proven_alive() -> None:
    pair = Pair(witness_s=0)
    assert pair.wait(56) == []
    assert pair.wait(4) == [FetchBooks((MARKET,), "silence")]
    asked = pair.at
    assert pair.answer() == []
    assert pair.session.counters["witness_same"] == 1
    assert pair.wait(56) == []
    # What is found next is dated back to the comparison, no further.
    pair.truth.change("BUY", "0.43", "60", after_ms=100_000)
    assert pair.wait(4) == [FetchBooks((MARKET,), "silence")]
    assert pair.answer() == []
    outputs = pair.wait(2)
    (gap,) = only(outputs, GapOpened)
    assert gap.cause == "rest_ahead"
    assert asked - 4 * S <= gap.from_ns <= asked
    assert only(outputs, GapClosed) == [GapClosed(MARKET, pair.at, "rest_book")]
    assert pair.is_true
    assert pair.in_sync
    assert not only(outputs, Reconnect)
    assert [json.loads(send.frame)["operation"] for send in only(outputs, Send)] == ["unsubscribe", "subscribe"]
    assert pair.session.receive(json.dumps([pair.truth.book()]), pair.at) == []


def test_an_unanswered_comparison_is_asked_for_again() -> None:
    pair = Pair(witness_s=0)
    assert only(pair.wait(66), FetchBooks) == [FetchBooks((MARKET,), "silence")]
    assert only(pair.wait(6), FetchBooks) == [FetchBooks((MARKET,), "silence")]
    assert pair.in_sync


def test_a_market_that_stays_silent_costs_one_reconnect() -> None:
    pair = Pair(witness_s=0)
    said: list[Output] = []
    for round_ in range(6):
        pair.truth.change("BUY", "0.43", str(60 + round_), after_ms=62_000)
        said += pair.wait(60)
        said += pair.answer()
        said += pair.wait(2)
        assert pair.is_true
    assert len(only(said, Reconnect)) == 1
    assert len(only(said, GapOpened)) == len(only(said, GapClosed)) == 6


def test_a_rest_book_a_moment_ahead_of_the_stream_is_no_gap() -> None:
    line = Line()
    message = line.truth.change("BUY", "0.43", "60")
    assert line.rest() == []
    assert [type(output) for output in line.feed(message)] == [BookDelta, Quote]
    assert line.session.tick(line.truth.now + 9 * S) == []
    assert line.in_sync


def test_a_book_of_the_stream_settles_what_rest_told_before() -> None:
    line = Line()
    line.truth.change("BUY", "0.43", "60")
    assert line.rest() == []
    assert not only(line.feed(line.truth.book(full=False)), GapOpened)
    assert line.session.tick(line.truth.now + 9 * S) == []
    assert line.in_sync


def test_a_rest_book_of_a_state_told_a_moment_ago_is_no_gap() -> None:
    line = Line()
    line.change("BUY", "0.43", "60")
    body = line.truth.rest()
    line.change("BUY", "0.43", "61")
    line.change("BUY", "0.43", "62")
    assert line.rest(body) == []
    assert line.session.tick(line.truth.now + 9 * S) == []
    assert line.session.counters["witness_told"] == 1


def test_changes_of_one_millisecond_and_a_rest_book_between_them_are_no_gap() -> None:
    line = Line()
    first = line.truth.change("BUY", "0.43", "60")
    body = line.truth.rest()
    second = line.truth.change("BUY", "0.40", "5", after_ms=0)
    line.feed(first)
    assert line.rest(body) == []
    assert not only(line.feed(second), GapOpened)
    assert not only(line.session.tick(line.truth.now + 9 * S), GapOpened)
    assert line.is_true


def test_without_hashes_a_rest_book_that_the_stream_passes_by_is_a_gap() -> None:
    line = Line(book=False)
    line.feed([line.truth.book() | {"version": "v2", "hash": "a" * 40}])
    assert line.in_sync
    line.truth.change("BUY", "0.40", "7")  # never arrives
    rest = json.loads(line.truth.rest()) | {"version": "v2", "hash": "f" * 40}
    assert line.rest(json.dumps(rest).encode()) == []
    message = line.truth.change("BUY", "0.43", "60")
    for entry in message["price_changes"]:
        entry["hash"] = "e" * 40
    outputs = line.feed(message)
    assert only(outputs, GapOpened)[0].cause == "rest_mismatch"
    assert only(outputs, FetchBooks)


def test_a_sample_of_all_books_is_compared_in_turn() -> None:
    session = PolymarketSession("c-0", URL, witness_s=20, witness_sample=2)
    truths = [Truth(market=f"0x{number:064x}", yes=f"1{number:069}", no=f"2{number:069}") for number in range(5)]
    now = truths[0].now
    session.connected(now)
    session.subscribe([truth.facts for truth in truths], now)
    session.receive(json.dumps([truth.book() for truth in truths]), now)
    asked: list[str] = []
    for second in range(1, 26):
        for fetch in only(session.tick(now + second * 3 * S), FetchBooks):
            if fetch.cause == "witness":
                asked += fetch.market_ids
    assert asked == [truths[number % 5].market for number in range(len(asked))]
    assert len(asked) == 6


def test_a_rest_book_without_its_hash_proves_nothing() -> None:
    line = Line()
    line.truth.change("BUY", "0.40", "1")
    line.change("BUY", "0.39", "1")
    body = json.loads(line.truth.rest())
    del body["hash"]
    assert anomalies(line.rest(json.dumps(body).encode())) == [AnomalyKind.MISSING_FIELD]
    assert not line.in_sync


# --- sampled hashes ----------------------------------------------------------------------------------------


def is_due(message: dict[str, Any], sample: int) -> bool:
    return int(message["price_changes"][0]["hash"][:8], 16) % sample == 0


def test_the_hash_itself_chooses_which_is_computed() -> None:
    line = Line()
    line.session = PolymarketSession("c-0", URL, hash_sample=4)
    line.session.connected(line.truth.now)
    line.session.subscribe([line.truth.facts], line.truth.now)
    line.feed([line.truth.book()])
    counters = line.session.counters
    due = 0
    for size in range(1, 60):
        message = line.truth.change("BUY", "0.40", str(size))
        due += is_due(message, 4)
        line.feed(message)
        assert (counters["hash_verified"], counters["hash_skipped"]) == (1 + due, size - due)
    assert 0 < due < 59
    # What is lost shows at the next one computed, and is dated back to the last one.
    while True:
        message = line.truth.change("BUY", "0.40", str(100 + line.truth.ms % 97))
        line.feed(message)
        if is_due(message, 4):
            proven = line.truth.now
            break
    line.truth.change("BUY", "0.30", "5")  # never arrives
    while True:
        message = line.truth.change("BUY", "0.40", str(200 + line.truth.ms % 97))
        outputs = line.feed(message)
        if is_due(message, 4):
            break
        assert only(outputs, GapOpened) == []
    assert only(outputs, GapOpened) == [GapOpened(MARKET, "hash_mismatch", proven)]
    # Untrusted, every hash is computed.
    outputs = line.change("BUY", "0.30", "6")
    assert only(outputs, GapClosed)[0].recovery == "hash_verified"
    assert line.is_true


def test_wrong_best_prices_have_the_hash_computed_at_once() -> None:
    line = Line()
    line.session = PolymarketSession("c-0", URL, hash_sample=10**9)
    line.session.connected(line.truth.now)
    line.session.subscribe([line.truth.facts], line.truth.now)
    line.feed([line.truth.book()])
    proven = line.truth.now
    line.truth.change("BUY", "0.43", "60")  # never arrives
    outputs = line.change("BUY", "0.40", "5")
    assert anomalies(outputs) == [AnomalyKind.TOP_MISMATCH, AnomalyKind.HASH_MISMATCH]
    assert only(outputs, GapOpened) == [GapOpened(MARKET, "hash_mismatch", proven)]


# --- a clock that is set -----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [-7200, -20, 20, 7200])
def test_a_step_of_the_clock_opens_no_gap_and_stops_no_waiting(step: int) -> None:
    line = Line()
    at = line.truth.now
    line.session.tick(at + S)
    at += step * S
    said: list[Output] = []
    pings = 0
    for second in range(1, 100):
        at += S
        outputs = line.session.tick(at)
        for output in outputs:
            pings += output == Send("PING")
            if isinstance(output, Send) and '"subscribe"' in output.frame:
                said += line.session.receive(json.dumps([line.truth.book()]), at)
            if isinstance(output, FetchBooks):
                said += line.session.rest_book(MARKET, line.truth.rest(), at)
        said += outputs
        if second == 30:
            line.session.receive(json.dumps(line.truth.change("BUY", "0.40", "3")), at)
    assert pings in (9, 10)
    assert not only(said, GapOpened)
    assert not only(said, Reconnect)
    assert line.in_sync
    # A doubt of now is dealt with now, and its gap does not end before it began.
    line.truth.change("BUY", "0.40", "1")
    outputs = line.session.receive(json.dumps(line.truth.change("BUY", "0.39", "1")), at)
    (opened,) = only(outputs, GapOpened)
    assert only(line.session.tick(at - 3600 * S), Reconnect) == []
    assert only(line.session.tick(at - 3589 * S), FetchBooks)
    (closed,) = only(line.session.rest_book(MARKET, line.truth.rest(), at - 3588 * S), GapClosed)
    assert closed.to_ns >= opened.from_ns


# --- churn -------------------------------------------------------------------------------------------------


def test_frames_of_a_market_just_unsubscribed_are_no_surprise() -> None:
    pair = Pair()
    late: list[object] = [
        pair.truth.change("BUY", "0.43", "60"),
        pair.truth.book(full=False),
        pair.truth.trade("0.43", "5"),
        [pair.truth.book()],
    ]
    (send,) = only(pair.session.unsubscribe([MARKET, MARKET], pair.at), Send)
    assert json.loads(send.frame)["operation"] == "unsubscribe"
    assert pair.session.unsubscribe([MARKET], pair.at) == []
    for message in late:
        assert pair.feed(message) == []
    assert pair.answer() == []
    pair.wait(61)
    assert anomalies(pair.feed(pair.truth.trade("0.43", "5"))) == [AnomalyKind.UNKNOWN_MARKET]
    # It may come back.
    (send,) = only(pair.session.subscribe([pair.truth.facts, pair.truth.facts], pair.at), Send)
    assert json.loads(send.frame)["assets_ids"] == [YES]
    assert only(pair.feed([pair.truth.book()]), BookSnapshot)[0].in_sync


def test_memory_stays_that_of_the_markets_held() -> None:
    pair = Pair()
    session = pair.session
    pair.wait(1)
    before = {name: len(value) for name, value in vars(session).items() if isinstance(value, dict | set | list)}
    for number in range(5000):
        truth = Truth(market=f"0x{number:064x}", yes=f"1{number:069}", no=f"2{number:069}")
        session.subscribe([truth.facts], pair.at)
        if number % 3:
            session.receive(json.dumps([truth.book()]), pair.at)
        if number % 50 == 0:
            session.receive(json.dumps(truth.change("BUY", "0.43", "60")), pair.at)
            pair.wait(3)
        session.unsubscribe([truth.market], pair.at)
    pair.wait(61)
    after = {name: len(value) for name, value in vars(session).items() if isinstance(value, dict | set | list)}
    assert after == before
    assert session.in_sync(OTHER)


def test_a_new_market_can_be_subscribed_from_its_message() -> None:
    line = Line()
    fresh = Truth(market=OTHER, yes="1" * 70, no="2" * 70)
    message = {
        "market": OTHER,
        "event_type": "new_market",
        "assets_ids": [fresh.yes, fresh.no],
        "clob_token_ids": [fresh.yes, fresh.no],
        "order_price_min_tick_size": "0.01",
        "event_message": {"id": "363111"},
    }
    (change,) = only(line.feed(message), MarketChange)
    assert (change.change, change.event_id) == ("created", "363111")
    assert change.facts is not None
    assert (change.facts.yes_token_id, change.facts.no_token_id, change.facts.tick) == (fresh.yes, fresh.no, 100)
    line.session.subscribe([change.facts], line.truth.now)
    line.feed([fresh.book()])
    assert line.session.in_sync(OTHER)
    assert not anomalies(line.feed(fresh.change("BUY", "0.43", "60")))
    resolved = {
        "market": OTHER,
        "event_type": "market_resolved",
        "winning_asset_id": fresh.yes,
        "timestamp": "1791300312000",
    }
    (change,) = only(line.feed(resolved), MarketChange)
    assert (change.change, change.details["result"], change.effective_ns) == (
        "determined",
        "yes",
        1_791_300_312_000_000_000,
    )


# --- the connection ends -----------------------------------------------------------------------------------


def test_a_disconnect_opens_a_gap_that_the_next_first_snapshot_ends() -> None:
    line = Line()
    last = line.truth.now
    assert line.session.disconnected(last + 9 * S, "reset") == [GapOpened(MARKET, "reset", last)]
    assert line.session.book(MARKET) is not None
    assert not line.in_sync
    assert line.session.disconnected(last + 10 * S, "again") == []
    line.session.connected(last + 11 * S)
    assert line.session.book(MARKET) is None
    line.truth.change("BUY", "0.43", "60", after_ms=12_000)
    outputs = line.feed([line.truth.book()])
    assert only(outputs, BookSnapshot)[0].reason == "initial"
    assert only(outputs, GapClosed) == [GapClosed(MARKET, line.truth.now, "snapshot")]
    assert only(outputs, Quote)


def test_connecting_again_without_a_disconnect_opens_the_gap_too() -> None:
    line = Line()
    outputs = line.session.connected(line.truth.now + S)
    assert only(outputs, GapOpened)
    assert only(outputs, Send)


def test_unsubscribing_ends_the_gap_and_forgets_the_book() -> None:
    line = Line()
    line.session.disconnected(line.truth.now, "reset")
    outputs = line.session.unsubscribe([MARKET], line.truth.now)
    assert only(outputs, GapClosed)[0].recovery == "unsubscribed"
    assert line.session.book(MARKET) is None
    assert line.session.snapshots(0) == []


def test_snapshots_for_an_hour_tell_every_book_held() -> None:
    line = Line()
    (snapshot,) = line.session.snapshots(77)
    assert (snapshot.reason, snapshot.recv_ns, snapshot.in_sync) == ("hour", 77, True)
    assert dict(snapshot.bids) == line.truth.bids
