"""Whatever happens to frames, ``receive`` does not raise, and a wrong book is never called in sync without a word."""

import json
from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arb_pipeline.model import Anomaly, FetchBooks, Output
from arb_pipeline.venues.polymarket import PolymarketSession
from arb_pipeline_tests.venues.polymarket.truth import MARKET, S, Truth

many = settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
few = settings(many, max_examples=300)
Mutation = Callable[[str], str]


def _replaced(frame: str, at: int, text: str) -> str:
    at %= len(frame)
    return frame[:at] + text + frame[at + 1 :]


mutations: st.SearchStrategy[Mutation] = st.one_of(
    st.builds(
        lambda at, text: lambda frame: _replaced(frame, at, text),
        st.integers(0, 3000),
        st.sampled_from([*"0123456789abfx.-\"'{}[],: \\", "", "null", "\x00", "é", "1e9", "\ud800"]),
    ),
    st.builds(lambda at: lambda frame: frame[: at % len(frame)], st.integers(0, 3000)),
    st.builds(
        lambda old, new: lambda frame: frame.replace(old, new, 1),
        st.sampled_from(['"BUY"', '"SELL"', '"size"', '"0.', "price_change", '"hash"', '"asset_id"', '"timestamp"']),
        st.sampled_from(['"BUY"', '"SELL"', "7", "null", '""', '"x"', '"0.0']),
    ),
    st.just(lambda frame: ""),
    st.just(lambda frame: frame + frame),
    st.just(lambda frame: f"[{frame},{frame},null]"),
)
steps = st.lists(
    st.tuples(
        st.sampled_from(["change", "trade", "book"]),
        st.sampled_from(["BUY", "SELL"]),
        st.integers(1, 9),
        st.integers(0, 3),
        st.one_of(st.none(), st.none(), st.none(), mutations),
    ),
    min_size=1,
    max_size=12,
)


@many
@given(steps)
def test_no_book_is_silently_wrong(script: list[tuple[str, str, int, int, Mutation | None]]) -> None:
    truth = Truth()
    session = PolymarketSession("c-0", "wss://localhost/ws/market")
    session.connected(truth.now)
    session.subscribe([truth.facts], truth.now)
    session.receive(json.dumps([truth.book()]), truth.now)
    said: list[Output] = []
    mutated = False
    for what, side, step, size, mutation in script:
        # Bids stay below 0.43 and asks above it, so that the truth is a book that a venue could have.
        price = f"0.{43 - step if side == 'BUY' else 43 + step}"
        for message in _step(truth, what, side, price, size):
            frame = json.dumps(message, separators=(",", ":"))
            if mutation is not None:
                mutated = True
                said += session.receive(mutation(frame), truth.now)
                continue
            said += session.receive(frame, truth.now)
            if what != "trade":
                # A whole message tells the hash of the whole book: what was lost before it must have shown.
                assert not session.in_sync(MARKET) or _right(session, truth) or session._markets[MARKET].doubt_ns
                said = []
    said += session.tick(truth.now + 3 * S)
    assert not session.in_sync(MARKET) or _right(session, truth) or _told(said)
    if not mutated:
        assert session.in_sync(MARKET)
        assert _right(session, truth)
        assert not [output for output in said if isinstance(output, FetchBooks)]
    session.rest_book(MARKET, truth.rest(), truth.now + 4 * S)
    session.rest_book(MARKET, truth.rest(), truth.now + 4 * S)
    # What REST told, the stream has two seconds to come to.
    session.tick(truth.now + 7 * S)
    assert not session.in_sync(MARKET) or _right(session, truth)
    # Whatever a false time left behind ends with the next whole change and one more answer.
    session.receive(json.dumps(truth.change("BUY", "0.11", "7", after_ms=5_000)), truth.now)
    session.rest_book(MARKET, truth.rest(), truth.now)
    assert session.in_sync(MARKET)
    assert _right(session, truth)


def _right(session: PolymarketSession, truth: Truth) -> bool:
    book = session.book(MARKET)
    return book is not None and (book.bids, book.asks) == (truth.bids, truth.asks)


def _told(said: list[Output]) -> bool:
    return any(isinstance(output, FetchBooks | Anomaly) for output in said)


def _step(truth: Truth, what: str, side: str, price: str, size: int) -> list[object]:
    if what == "book":
        return [truth.book(full=False)]
    if what == "trade":
        message = truth.trade(price, str(size + 1), side)
        truth.ltp = f"{price}0"
        return [message]
    if size == 0 and int(price[2:]) * 100 not in (truth.bids if side == "BUY" else truth.asks):
        return []
    return [truth.change(side, price, str(size))]


@few
@given(st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_any_frame_is_survived(frame: str | bytes) -> None:
    session = PolymarketSession("c-0", "wss://localhost/ws/market", accept_unknown=True)
    session.connected(0)
    session.receive(frame, 1)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    [
        "market",
        "asset_id",
        "bids",
        "asks",
        "price_changes",
        "changes",
        "hash",
        "timestamp",
        "price",
        "size",
        "side",
        "best_bid",
        "best_ask",
        "new_tick_size",
        "tick_size",
        "last_trade_price",
        "event_message",
        "winning_asset_id",
    ]
)
types = st.sampled_from(
    [
        "book",
        "price_change",
        "last_trade_price",
        "tick_size_change",
        "best_bid_ask",
        "new_market",
        "market_resolved",
        "other",
    ]
)


@many
@given(types, st.dictionaries(keys, json_values, max_size=6), st.booleans())
def test_any_fields_of_any_type_are_survived(kind: str, fields: dict[str, object], whole: bool) -> None:
    truth = Truth()
    session = PolymarketSession("c-0", "wss://localhost/ws/market", accept_unknown=True)
    session.connected(truth.now)
    session.receive(json.dumps(truth.book()), truth.now)
    base = truth.book() | {"price": "0.43", "size": "1", "side": "BUY"} if whole else {}
    session.receive(json.dumps(base | fields | {"event_type": kind}), truth.now)
    session.rest_book(MARKET, json.dumps(json.loads(truth.rest()) | fields).encode(), truth.now)
    session.tick(truth.now + 20 * S)
