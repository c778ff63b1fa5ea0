"""``book_at`` on a live capture in which frames were lost."""

import pytest

from arb_pipeline import BookUnknownError, book_at
from arb_pipeline_tests.examples.conftest import Captured

pytestmark = pytest.mark.slow


def test_inside_every_gap_it_refuses_and_outside_it_shows_the_quotes(captured: Captured) -> None:
    lake = captured.lake
    lost = [row for row in lake.read("book_gaps", venue="kalshi").to_pylist() if row["cause"] == "seq_gap"]
    assert lost, "the exchange lost frames"
    for gap in lost[:20]:
        for instant in (gap["from_ns"], (gap["from_ns"] + gap["to_ns"]) // 2, gap["to_ns"] - 1):
            with pytest.raises(BookUnknownError) as told:
                book_at(gap["market_id"], instant, lake=lake)
            assert told.value.cause == "seq_gap"
            assert told.value.from_ns is not None
            assert told.value.to_ns is not None
            assert told.value.from_ns <= instant < told.value.to_ns
            assert not book_at(gap["market_id"], instant, lake=lake, allow_untrusted=True).in_sync
    quotes = [row for row in lake.read("quotes").to_pylist() if row["in_sync"]]
    refused, shown = set(), 0
    for quote in quotes[:: max(1, len(quotes) // 60)]:
        try:
            book = book_at(quote["market_id"], quote["recv_ns"], lake=lake)
        except BookUnknownError as error:
            refused.add(error.cause)
            continue
        bid, ask = book.best_bid, book.best_ask
        assert (None if bid is None else bid.price, None if ask is None else ask.price) == (quote["bid"], quote["ask"])
        assert (None if bid is None else bid.size) == quote["bid_size"]
        shown += 1
    assert shown > 30
    assert refused <= {"seq_gap"}, "a quote in sync stands only before a gap that was dated back to the last proof"


def test_the_catalogue_of_the_capture_names_its_markets(captured: Captured) -> None:
    lake = captured.lake
    quote = next(row for row in lake.read("quotes", venue="polymarket").to_pylist()[::-1] if row["in_sync"])
    [market] = [row for row in lake.current("markets").to_pylist() if row["market_id"] == quote["market_id"]]
    by_id = book_at(quote["market_id"], quote["recv_ns"], lake=lake)
    for name in (market["slug"], market["yes_token_id"], market["no_token_id"]):
        assert book_at(name, quote["recv_ns"], lake=lake) == by_id
