"""Gaps that nobody could have taken: after the event, with one side settled, and of books of different times."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from arb_pipeline.arbitrage.opportunities import evaluate
from arb_pipeline.arbitrage.pairs import Pair
from arb_pipeline.arbitrage.streams import GAME_SPAN
from arb_pipeline_tests.arbitrage.builders import END, START, Tape, free, market, pair, settings, when

FAR = START + timedelta(days=14)


def found(tape: Tape, one: Pair) -> list[dict[str, Any]]:
    rows = evaluate([one], tape.data(), START, END, settings(), free).opportunities.sort_by("opened_at").to_pylist()
    return [{name: row[name] for name in ("opened_at", "closed_at", "reasons")} for row in rows]


def reasons(tape: Tape, one: Pair) -> list[str]:
    return [row["reasons"] for row in found(tape, one)]


def open_books(kalshi: tuple[str, str], polymarket: tuple[str, str]) -> Tape:
    """Both books from second 1 on, by (bid, ask)."""
    tape = Tape().session("kalshi").session("polymarket")
    for venue, (bid, ask) in (("kalshi", kalshi), ("polymarket", polymarket)):
        tape.snapshot(venue, 1, [(bid, "50")], [(ask, "50")])
    return tape


GAP = ("0.30", "0.40"), ("0.50", "0.60")


def test_an_event_that_is_over_on_one_venue_is_over_for_both() -> None:
    kalshi = market("kalshi", expected_expiration_at=when(600), close_at=FAR, occurrence_at=START - timedelta(days=1))
    assert found(open_books(*GAP), pair(kalshi=kalshi, polymarket=market("polymarket", close_at=FAR))) == [
        {"opened_at": when(1), "closed_at": when(600), "reasons": "[]"},
        {"opened_at": when(600), "closed_at": None, "reasons": '["after_event:kalshi"]'},
    ]


@pytest.mark.parametrize("venue", ["kalshi", "polymarket"])
def test_without_an_expected_end_a_game_has_its_span(venue: str) -> None:
    def of_game(begins: datetime) -> Pair:
        game = market(venue, occurrence_at=begins, close_at=FAR)
        return pair(kalshi=game) if venue == "kalshi" else pair(polymarket=game)

    lasting = found(open_books(*GAP), of_game(when(600) - GAME_SPAN))
    assert [row["opened_at"] for row in lasting] == [when(1), when(600)]
    assert reasons(open_books(*GAP), of_game(when(1) - GAME_SPAN)) == [f'["after_event:{venue}"]']


def test_nothing_is_guessed_where_no_time_is_told() -> None:
    # Polymarket's scheduled end is no time at which its question is decided.
    polymarket = market("polymarket", expected_expiration_at=START - timedelta(days=1), close_at=FAR)
    assert reasons(open_books(*GAP), pair(polymarket=polymarket)) == ["[]"]


@pytest.mark.parametrize(
    ("kalshi", "polymarket", "lags"),
    [
        (("0.99", "0.995"), ("0.70", "0.80"), True),
        (("0.70", "0.80"), ("0.99", "0.995"), True),
        (("0.005", "0.01"), ("0.30", "0.40"), True),
        # One more cent, and it still trades; ten cents or less are no lag; both settled, against each other, is another
        # thing.
        (("0.98", "0.985"), ("0.70", "0.80"), False),
        (("0.99", "0.995"), ("0.80", "0.89"), False),
        (("0.99", "0.995"), ("0.005", "0.01"), False),
        (*GAP, False),
    ],
)
def test_one_side_settled(kalshi: tuple[str, str], polymarket: tuple[str, str], lags: bool) -> None:
    assert reasons(open_books(kalshi, polymarket), pair()) == ['["resolution_lag"]' if lags else "[]"]


def polled(kalshi: float, polymarket: float, *, pushed: bool = False) -> Tape:
    tape = Tape().session("kalshi").session("polymarket")
    tape.snapshot("kalshi", kalshi, [("0.30", "50")], [("0.40", "50")], source="ws" if pushed else "rest")
    return tape.snapshot("polymarket", polymarket, [("0.50", "50")], [("0.60", "50")], source="rest")


def test_two_polled_books_are_of_one_time() -> None:
    apart = polled(1, 4).answer("kalshi", 5)
    assert found(apart, pair()) == [
        {"opened_at": when(4), "closed_at": when(5), "reasons": '["skewed_legs"]'},
        {"opened_at": when(5), "closed_at": when(9), "reasons": "[]"},
        {"opened_at": when(9), "closed_at": when(10), "reasons": '["stale_leg:polymarket"]'},
        {"opened_at": when(10), "closed_at": None, "reasons": '["stale_leg:kalshi", "stale_leg:polymarket"]'},
    ]
    assert reasons(polled(1, 3), pair())[0] == "[]"
    # A pushed book is of now, however long it has been quiet.
    assert reasons(polled(1, 4, pushed=True), pair())[0] == "[]"
