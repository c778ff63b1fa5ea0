from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.model import Level, OrderBook, rules_digest
from arb_pipeline.units import ONE

prices = st.integers(1, 20)
sizes = st.integers(0, 5)
changes = st.lists(st.tuples(st.sampled_from(["bid", "ask"]), prices, sizes), max_size=60)
ladders = st.lists(st.tuples(prices, sizes), max_size=15)

Change = tuple[Literal["bid", "ask"], int, int]


def check(book: OrderBook, bids: dict[int, int], asks: dict[int, int]) -> None:
    """The book against the plain way of saying the same."""
    assert book.bids == bids
    assert book.asks == asks
    bid, ask = max(bids, default=None), min(asks, default=None)
    bid_size = None if bid is None else bids[bid]
    ask_size = None if ask is None else asks[ask]
    assert book.top() == (bid, bid_size, ask, ask_size)
    assert book.crossed == (bid is not None and ask is not None and bid >= ask)
    assert book.negative_levels == sum(size < 0 for size in [*bids.values(), *asks.values()])
    assert book.bid_levels() == sorted(bids.items(), reverse=True)
    assert book.ask_levels() == sorted(asks.items())


@given(ladders, ladders, changes)
def test_any_sequence_of_changes_keeps_the_tracked_best(
    bids: list[Level], asks: list[Level], steps: list[Change]
) -> None:
    book = OrderBook()
    book.replace(bids, asks)
    expected = {
        "bid": {price: size for price, size in bids if size},
        "ask": {price: size for price, size in asks if size},
    }
    check(book, expected["bid"], expected["ask"])
    for side, price, size in steps:
        book.set(side, price, size)
        if size:
            expected[side][price] = size
        else:
            expected[side].pop(price, None)
        check(book, expected["bid"], expected["ask"])


@given(st.lists(st.tuples(st.sampled_from(["bid", "ask"]), prices, st.integers(-3, 3)), max_size=60))
def test_negative_levels_are_counted_while_they_last(steps: list[Change]) -> None:
    book = OrderBook()
    for side, price, size in steps:
        book.set(side, price, size)
        assert book.negative_levels == sum(level < 0 for levels in (book.bids, book.asks) for level in levels.values())


def test_an_unordered_ladder_has_its_best_at_either_end() -> None:
    for bids in ([(10, 1), (30, 3), (20, 2)], [(30, 3), (10, 1)], [(10, 1), (30, 3)]):
        book = OrderBook()
        book.replace(bids, [(70, 7), (50, 5), (60, 6)])
        assert book.top() == (30, 3, 50, 5)


def test_an_empty_side_has_no_price_and_no_size() -> None:
    book = OrderBook()
    assert book.top() == (None, None, None, None)
    assert not book.crossed
    book.set_bid(40, 1)
    assert book.top() == (40, 1, None, None)
    book.set_bid(40, 0)
    assert book.top() == (None, None, None, None)


@pytest.mark.parametrize(("bid", "ask", "crossed"), [(40, 41, False), (40, 40, True), (41, 40, True)])
def test_locked_counts_as_crossed(bid: int, ask: int, crossed: bool) -> None:
    book = OrderBook()
    book.set_bid(bid, 1)
    book.set_ask(ask, 1)
    assert book.crossed is crossed


def test_a_buyer_of_no_walks_the_bids_from_the_other_side() -> None:
    book = OrderBook()
    book.replace([(4100, 300), (4000, 1200), (3800, 50)], [(4400, 250)])
    assert book.no_asks() == [(5900, 300), (6000, 1200), (6200, 50)]
    assert book.yes_asks() == [(4400, 250)]
    assert all(price + (ONE - price) == ONE for price, _ in book.no_asks())


def test_replace_forgets_everything() -> None:
    book = OrderBook()
    book.set_bid(50, -1)
    book.replace([], [])
    assert book.top() == (None, None, None, None)
    assert book.negative_levels == 0


def test_one_changed_character_changes_the_digest() -> None:
    assert rules_digest("If A, then Yes.") != rules_digest("If A, then Yes")
    assert rules_digest("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
