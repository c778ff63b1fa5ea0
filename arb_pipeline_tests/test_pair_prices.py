from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.alerting.evaluation import UNKNOWN
from arb_pipeline.alerting.rules import NetEdge
from arb_pipeline.arbitrage.fees import FeeBook
from arb_pipeline.arbitrage.pairs import Pair
from arb_pipeline.model import Level, MarketStatus, MatchStatus, OrderBook, Relation
from arb_pipeline.pair_prices import PairBooks, directions, edge_finding, not_trading, subject
from arb_pipeline_tests.arbitrage.builders import START, free, market, pair, quadratic, unknown, when

D = Decimal
MILLION = 1_000_000


def rule(above: str = "0", size: str = "10") -> NetEdge:
    return NetEdge(name="r", kind="net_edge", above=D(above), size=D(size))


def book(bids: list[Level], asks: list[Level]) -> OrderBook:
    made = OrderBook()
    made.replace(bids, asks)
    return made


def paying(of: Pair | None = None) -> PairBooks:
    """YES at 0.40 on Kalshi, bid at 0.50 on Polymarket."""
    kalshi = book([(3_000, 90 * MILLION)], [(4_000, 90 * MILLION)])
    return PairBooks.of(of or pair(), kalshi, book([(5_000, 90 * MILLION)], [(6_000, 90 * MILLION)]))


def test_an_edge_is_net_of_exact_fees_at_the_size() -> None:
    found = edge_finding(rule(), paying(), "yes_kalshi", FeeBook(quadratic), START)
    fees = 10 * (D("0.07") * D("0.4") * D("0.6") + D("0.04") * D("0.5") * D("0.5"))
    assert found.holds
    assert (D(found.details["fees"]), D(found.details["net"])) == (fees, 1 - fees)
    assert found.details["gap"] == "0.1"
    edge = D(found.details["net_edge"])
    assert not edge_finding(rule(str(edge)), paying(), "yes_kalshi", FeeBook(quadratic), START).holds, "more than it"
    assert edge_finding(rule(str(edge - D("0.0000000001"))), paying(), "yes_kalshi", FeeBook(quadratic), START).holds


def test_unknown_fees_make_an_edge_unknown_where_there_is_a_gap_at_all() -> None:
    assert edge_finding(rule(), paying(), "yes_kalshi", FeeBook(unknown), START) is UNKNOWN
    assert edge_finding(rule(), paying(), "yes_polymarket", FeeBook(unknown), START).holds is False


def test_a_pair_that_loses_in_its_worst_state_is_no_edge() -> None:
    kind = {"cancelled": (D("0.5"), D("0.5"))}
    lossless = paying(pair(void_states=kind))
    assert edge_finding(rule(), lossless, "yes_kalshi", FeeBook(free), START).holds
    losing = paying(pair(void_states={"cancelled": (D(0), D("0.5"))}))
    found = edge_finding(rule(), losing, "yes_kalshi", FeeBook(free), START)
    assert found.holds is False
    assert D(found.details["worst_state_net"]) < 0


@pytest.mark.parametrize("size", ["0.5", "10.5", "91"])
def test_sizes_that_no_order_can_have_are_no_edges(size: str) -> None:
    assert edge_finding(rule(size=size), paying(), "yes_kalshi", FeeBook(free), START).holds is False


@given(st.integers(1, 9_998), st.integers(1, 9_998), st.booleans())
def test_a_turned_book_gives_the_same_gap_as_its_mirror(bid: int, ask: int, inverted: bool) -> None:
    kalshi = book([(100, MILLION)], [(ask, MILLION)])
    told = book([(bid, MILLION)], []) if not inverted else book([], [(10_000 - bid, MILLION)])
    books = PairBooks.of(pair(inverted=inverted), kalshi, told)
    assert books.gap("yes_kalshi") == bid - ask
    assert books.gap("yes_polymarket") is None


def test_a_subject_names_the_outcomes_of_each_market() -> None:
    exclusive = replace(pair(), relation=Relation.EXCLUSIVE)
    implied = replace(pair(), relation=Relation.KALSHI_IMPLIES_POLYMARKET, polymarket_yes_index=1)
    assert subject(pair(), "yes_kalshi").endswith(", YES on kalshi, NO on polymarket")
    assert subject(pair(inverted=True), "yes_kalshi").endswith(", YES on kalshi, YES on polymarket")
    assert subject(exclusive, "yes_polymarket").endswith(", NO on kalshi, NO on polymarket")
    assert subject(implied, "yes_polymarket").endswith(", NO on kalshi, NO on polymarket")


def test_of_an_implication_one_direction_pays() -> None:
    implied = Pair(market("kalshi"), market("polymarket"), Relation.KALSHI_IMPLIES_POLYMARKET, MatchStatus.AUTO)
    assert directions(implied) == ("yes_polymarket",)
    assert len(directions(pair())) == 2


def test_a_market_trades_while_it_is_open_between_its_times() -> None:
    assert not_trading(market("kalshi"), START) == ""
    assert not_trading(market("kalshi", status=MarketStatus.PAUSED), START) == "kalshi is paused"
    timed = market("kalshi", open_at=START, close_at=when(10))
    assert [not_trading(timed, when(t)) for t in (-1, 0, 9.9, 10)] == [
        "kalshi is not open yet",
        "",
        "",
        "kalshi is past its close",
    ]
