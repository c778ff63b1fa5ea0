import itertools
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.handlers import Alert, HandlerContext, TimePassed
from arb_pipeline.handlers.shipped import PositionMonitor, PriceAlert, TightSpread
from arb_pipeline.model import AccountEvent, GapClosed, GapOpened, OrderBook, Quote

S = 1_000_000_000
Side = tuple[int, int] | None


class Market:
    """The books of one connection with one market, and what handlers alert of it."""

    def __init__(self) -> None:
        self.held: OrderBook | None = OrderBook()
        self.trusted = True
        self.at_ns = S
        self.alerts: list[Alert] = []

    def book(self, market_id: str) -> OrderBook | None:
        return self.held

    def in_sync(self, market_id: str) -> bool:
        return self.trusted

    def context(self, market_id: str = "M") -> HandlerContext:
        return HandlerContext(
            handler="h",
            venue="fake",
            market_id=market_id,
            facts=None,
            at_ns=self.at_ns,
            books=self,
            notify=self.alerts.append,
        )

    def quote(self, bid: Side, ask: Side) -> Quote:
        assert self.held is not None
        self.held.replace([bid] if bid else [], [ask] if ask else [])
        return Quote("M", *self.held.top(), self.trusted, self.at_ns, None, None)


def prices(handler: PriceAlert, market: Market, mids: Sequence[int]) -> list[int]:
    """The places in a series of mids (1e-4 dollars) at which the handler alerts."""
    at = []
    for place, mid in enumerate(mids):
        before = len(market.alerts)
        handler.look(market.quote((mid - 100, S), (mid + 100, S)), market.context())
        at += [place] * (len(market.alerts) - before)
    return at


@pytest.mark.parametrize(
    ("direction", "mids", "expected"),
    [
        ("up", [5000, 5999, 6000, 6500], [2]),
        ("up", [6000, 6100], []),
        ("up", [6000, 5000, 6000], [2]),
        ("up", [5000, 6000, 5850, 6000, 5800, 6000], [1, 5]),
        ("down", [7000, 6001, 6000, 5000], [2]),
        ("down", [5000, 6100, 6000, 6200, 6000], [4]),
    ],
)
def test_a_price_that_reaches_its_level_alerts_until_it_has_gone_back(
    direction: Any, mids: list[int], expected: list[int]
) -> None:
    assert prices(PriceAlert(Decimal("0.6"), direction, margin=Decimal("0.02")), Market(), mids) == expected


def test_a_price_alert_tells_price_level_and_market() -> None:
    market = Market()
    handler = PriceAlert(Decimal("0.6"), price="ask")
    for ask in (5999, 6000):
        handler.look(market.quote(None, (ask, S)), market.context())
    [alert] = market.alerts
    assert alert.message == "M: ask 0.6 reached 0.6 (up)"
    assert alert.details == {"price": "0.6", "level": "0.6", "direction": "up"}
    assert (alert.market_id, alert.at_ns) == ("M", S)


def test_a_price_alert_looks_at_trusted_whole_books_only() -> None:
    market, handler = Market(), PriceAlert(Decimal("0.6"))
    prices(handler, market, [5000])
    market.trusted = False
    assert prices(handler, market, [7000]) == []
    handler.look(market.quote((7000, S), None), market.context())
    market.trusted = True
    handler.look(market.quote((7000, S), None), market.context())
    assert market.alerts == [], "without an ask there is no middle"
    market.quote((7000, S), (7100, S))
    handler.look(GapClosed("M", S, "snapshot"), market.context())
    assert len(market.alerts) == 1, "it was crossed while the book was in doubt"
    market.held = None
    handler.look(GapClosed("M", S, "snapshot"), market.context())


@given(st.lists(st.integers(1, 9_999), max_size=60), st.integers(0, 10_000), st.integers(0, 500))
def test_between_two_alerts_the_price_went_back_by_the_margin(mids: list[int], level: int, margin: int) -> None:
    handler = PriceAlert(Decimal(level) / 10_000, margin=Decimal(margin) / 10_000)
    at = prices(handler, Market(), mids)
    assert all(mids[place] >= level > 0 for place in at)
    for first, second in itertools.pairwise(at):
        assert min(mids[first:second]) <= min(level - margin, level - 1)


def tight(spread: str = "0.02", seconds: str = "10", min_size: str = "5") -> TightSpread:
    return TightSpread(Decimal(spread), Decimal(seconds), Decimal(min_size))


BID, ASK = (4000, 5_000_000), (4200, 5_000_000)


def test_a_spread_alerts_once_it_has_lasted_without_any_event() -> None:
    market, handler = Market(), tight()
    handler.look(market.quote(BID, ASK), market.context())
    for second in (5, 10, 11, 12):
        market.at_ns = second * S
        handler.wait(TimePassed(market.at_ns), market.context(""))
    [alert] = market.alerts
    assert (alert.market_id, alert.at_ns) == ("M", 11 * S)
    assert alert.details == {"spread": "0.02", "since_ns": S}


@pytest.mark.parametrize(
    ("bid", "ask"),
    [((3900, 5_000_000), ASK), ((4000, 4_999_999), ASK), (BID, (4200, 4_999_999)), (None, ASK), (BID, None)],
)
def test_a_spread_that_is_wide_thin_or_one_sided_does_not_count(bid: Side, ask: Side) -> None:
    market, handler = Market(), tight(seconds="0")
    handler.look(market.quote(bid, ask), market.context())
    assert market.alerts == []
    handler.look(market.quote(BID, ASK), market.context())
    assert len(market.alerts) == 1


def test_a_doubt_ends_a_tight_spread_and_the_next_one_alerts_again() -> None:
    market, handler = Market(), tight()
    for begin in (0, 100):
        market.at_ns, market.trusted = begin * S, True
        handler.look(market.quote(BID, ASK), market.context())
        market.at_ns += 9 * S
        market.trusted = False
        handler.look(GapOpened("M", "seq_gap", market.at_ns), market.context())
        market.at_ns += 2 * S
        handler.wait(TimePassed(market.at_ns), market.context(""))
        assert len(market.alerts) == begin // 100
        market.trusted = True
        handler.look(GapClosed("M", market.at_ns, "snapshot"), market.context())
        market.at_ns += 10 * S
        handler.wait(TimePassed(market.at_ns), market.context(""))
        assert len(market.alerts) == 1 + begin // 100


def account(kind: Any, event_id: str, size: int, **fields: Any) -> AccountEvent:
    return AccountEvent(
        venue="fake", kind=kind, event_id=event_id, recv_ns=S, market_id=fields.pop("market", "M"), size=size, **fields
    )


def test_a_monitor_follows_fills_and_positions() -> None:
    market, monitor = Market(), PositionMonitor(Decimal(10))
    events = [
        account("fill", "f1", 8_000_000, side="bid", price=420_000_000),
        account("order", "o1", 50_000_000),
        account("fill", "f1", 8_000_000, side="bid", price=420_000_000),
        account("fill", "f2", 3_500_000, side="bid", price=430_000_000),
        account("position", "p1", 12_000_000),
        account("fill", "f3", 2_000_000, side="ask", price=430_000_000),
        account("position", "p2", -11_000_000),
    ]
    said = []
    for event in events:
        monitor.follow(event, market.context())
        said.append([alert.message for alert in market.alerts])
        market.alerts.clear()
    assert said == [
        ["M: filled bid 8 at 0.42"],
        [],
        [],
        ["M: filled bid 3.5 at 0.43", "M: position 11.5 is beyond 10"],
        [],
        ["M: filled ask 2 at 0.43"],
        ["M: position -11 is beyond 10"],
    ]
    assert monitor.positions == {("fake", "M"): -11_000_000}


def test_a_monitor_may_keep_quiet_about_fills() -> None:
    market, monitor = Market(), PositionMonitor(fills=False)
    monitor.follow(account("fill", "f1", 8_000_000, side="ask", price=1), market.context())
    monitor.follow(account("fill", "f2", 1_000_000, side="ask", price=1, market="N"), market.context())
    monitor.follow(AccountEvent(venue="fake", kind="position", event_id="p", recv_ns=S), market.context())
    assert market.alerts == []
    assert monitor.positions == {("fake", "M"): -8_000_000, ("fake", "N"): -1_000_000}
