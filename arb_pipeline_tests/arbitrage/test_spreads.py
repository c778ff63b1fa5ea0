from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from arb_pipeline.arbitrage.books import pair_states
from arb_pipeline.arbitrage.fees import FeeSource
from arb_pipeline.arbitrage.pairs import MarketData, Pair
from arb_pipeline.arbitrage.spreads import latest_spreads
from arb_pipeline.arbitrage.streams import PairStream, load_streams
from arb_pipeline.model import MatchStatus, Relation
from arb_pipeline.tables import table
from arb_pipeline.units import price_decimal
from arb_pipeline_tests.arbitrage.builders import (
    END,
    START,
    Tape,
    at,
    free,
    market,
    pair,
    quadratic,
    settings,
    spreads_table,
    unknown,
    when,
)


def rows(
    tape: Tape, one: Pair | None = None, fees: FeeSource = quadratic, *, shuffled: bool = False
) -> list[dict[str, Any]]:
    found = spreads_table(
        [one or pair()], tape.data(shuffled=shuffled), start=START, end=END, settings=settings(), fees=fees
    )
    assert found.schema.equals(table("spreads").schema)
    listed: list[dict[str, Any]] = found.to_pylist()
    return listed


def both() -> Tape:
    return Tape().session("kalshi").session("polymarket")


def test_both_directions_by_hand() -> None:
    tape = both().snapshot("kalshi", 1, [("0.40", "100")], [("0.42", "80")])
    tape.snapshot("polymarket", 2, [("0.47", "50")], [("0.49", "60")])
    last = rows(tape)[-1]
    assert last["recv_ns"] == at(2)
    assert (last["gap_yes_kalshi"], last["top_size_yes_kalshi"]) == (Decimal("0.05"), Decimal(50))
    assert (last["gap_yes_polymarket"], last["top_size_yes_polymarket"]) == (Decimal("-0.09"), Decimal(60))
    # 0.07 x 0.42 x 0.58 = 0.017052 and 0.04 x 0.53 x 0.47 = 0.009964
    assert last["net_yes_kalshi"] == Decimal("0.022984")
    assert last["net_yes_polymarket"] is None
    assert (last["trusted"], last["reason"]) == (True, "")


def test_inverted_pair_reads_polymarket_from_the_other_side() -> None:
    straight = both().snapshot("kalshi", 1, [("0.40", "100")], [("0.42", "80")])
    straight.snapshot("polymarket", 2, [("0.47", "50")], [("0.49", "60")])
    turned = both().snapshot("kalshi", 1, [("0.40", "100")], [("0.42", "80")])
    turned.snapshot("polymarket", 2, [("0.51", "60")], [("0.53", "50")])
    assert rows(turned, pair(inverted=True)) == rows(straight)


def test_relation_and_index_must_agree() -> None:
    with pytest.raises(ValueError, match="inverted with 1"):
        Pair(market("kalshi"), market("polymarket"), Relation.INVERTED, MatchStatus.AUTO, 0)


def test_one_row_per_instant_of_either_book_and_no_look_ahead() -> None:
    tape = both().snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "9")])
    tape.snapshot("polymarket", 2, [("0.43", "9")], [("0.50", "9")])
    tape.change("kalshi", 3, "ask", "0.41", "5")
    tape.change("polymarket", 4, "bid", "0.45", "7")
    found = rows(tape, fees=free)
    assert [row["recv_ns"] for row in found] == [at(1), at(2), at(3), at(4)]
    assert [row["gap_yes_kalshi"] for row in found] == [None, Decimal("0.01"), Decimal("0.02"), Decimal("0.04")]
    assert found[0]["reason"] == "no_snapshot:polymarket"
    assert rows(tape, fees=free, shuffled=True) == found


def test_rows_from_before_the_window_carry_over() -> None:
    tape = both().snapshot("kalshi", -5, [("0.40", "9")], [("0.42", "9")])
    tape.snapshot("polymarket", -4, [("0.43", "9")], [("0.50", "9")])
    tape.change("polymarket", 3600, "bid", "0.49", "9")
    found = rows(tape, fees=free)
    assert [(row["recv_ns"], row["gap_yes_kalshi"]) for row in found] == [(at(0), Decimal("0.01"))]


def test_opening_snapshot_without_quote_gives_the_top() -> None:
    tape = both().snapshot("kalshi", 0, [("0.40", "9"), ("0.39", "1")], [("0.45", "2"), ("0.42", "9")], quote=False)
    tape.snapshot("polymarket", 0, [("0.43", "4")], [], quote=False)
    found = rows(tape, fees=free)
    assert [(row["gap_yes_kalshi"], row["top_size_yes_kalshi"]) for row in found] == [(Decimal("0.01"), Decimal(4))]
    assert found[0]["gap_yes_polymarket"] is None, "an empty side has no gap"


def test_gap_makes_the_edge_unknown_until_it_closes() -> None:
    tape = both().snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "9")])
    tape.snapshot("polymarket", 1, [("0.45", "9")], [("0.50", "9")]).gap("polymarket", 10, 20)
    found = {row["recv_ns"]: row for row in rows(tape)}
    assert found[at(1)]["gap_yes_kalshi"] == Decimal("0.03")
    assert (found[at(10)]["gap_yes_kalshi"], found[at(10)]["net_yes_kalshi"]) == (None, None)
    assert found[at(10)]["polymarket_bid"] == Decimal("0.45"), "the top as received stays"
    assert found[at(10)]["reason"] == "not_in_sync:polymarket"
    assert found[at(20)]["gap_yes_kalshi"] == Decimal("0.03")


def test_gap_of_an_old_connection_ends_with_the_new_one() -> None:
    tape = both().session("polymarket", 15, connection="p2")
    tape.snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "9")]).snapshot("polymarket", 1, [("0.45", "9")])
    tape.gap("polymarket", 10, None).snapshot("polymarket", 16, [("0.44", "9")], connection="p2")
    assert [(row["recv_ns"], row["gap_yes_kalshi"]) for row in rows(tape)] == [
        (at(1), Decimal("0.03")),
        (at(10), None),
        (at(16), Decimal("0.02")),
    ]


def test_quote_out_of_sync_counts_until_the_gap_closes() -> None:
    tape = both().snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "9")])
    tape.snapshot("polymarket", 1, [("0.45", "9")], [("0.50", "9")]).gap("polymarket", 5, 8)
    tape.change("polymarket", 5, "bid", "0.46", "9", in_sync=False)
    assert [(row["recv_ns"], row["gap_yes_kalshi"]) for row in rows(tape)][1:] == [
        (at(5), None),
        (at(8), Decimal("0.04")),
    ]


def test_crossed_book_is_unknown() -> None:
    tape = both().snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "9")])
    tape.snapshot("polymarket", 1, [("0.45", "9")], [("0.50", "9")])
    tape.change("polymarket", 2, "bid", "0.51", "9").change("polymarket", 3, "bid", "0.51", "0")
    assert [row["gap_yes_kalshi"] for row in rows(tape)] == [Decimal("0.03"), None, Decimal("0.03")]


def test_lost_connection_is_unknown_and_a_quiet_one_is_fresh() -> None:
    tape = Tape().session("kalshi").session("polymarket", end=600)
    tape.snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "9")]).snapshot("polymarket", 1, [("0.45", "9")])
    tape.change("kalshi", 599, "ask", "0.41", "1")
    found = rows(tape)
    assert [row["trusted"] for row in found] == [True, True, False]
    assert found[-1]["reason"] == "connection_down:polymarket"


def test_connection_that_no_session_tells_of_is_not_trusted() -> None:
    tape = Tape().session("kalshi").snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "9")])
    tape.snapshot("polymarket", 1, [("0.45", "9")])
    assert {row["reason"] for row in rows(tape)} == {"connection_down:polymarket"}


def test_polled_book_grows_stale() -> None:
    tape = both().snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "9")], source="rest")
    tape.snapshot("polymarket", 1, [("0.45", "9")]).snapshot(
        "kalshi", 3, [("0.40", "9")], [("0.42", "9")], source="rest"
    )
    found = [(row["recv_ns"], row["reason"]) for row in rows(tape)]
    assert found == [(at(1), ""), (at(8), "stale_leg:kalshi")]


def test_a_poll_that_changed_nothing_proves_the_book() -> None:
    tape = both().snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "9")], source="rest")
    tape.snapshot("polymarket", 1, [("0.45", "9")]).answer("kalshi", 4).answer("kalshi", 8).answer("kalshi", 20)
    found = [(row["recv_ns"], row["reason"]) for row in rows(tape)]
    assert found == [(at(1), ""), (at(13), "stale_leg:kalshi"), (at(20), ""), (at(25), "stale_leg:kalshi")]


def test_resync_by_rest_does_not_make_a_pushed_connection_a_polled_one() -> None:
    tape = both().snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "9")]).snapshot("polymarket", 1, [("0.45", "9")])
    tape.snapshot("polymarket", 5, [("0.44", "9")], source="rest")
    assert [(row["recv_ns"], row["reason"]) for row in rows(tape)] == [(at(1), ""), (at(5), "")]


def test_market_past_its_close() -> None:
    one = pair(kalshi=market("kalshi", close_at=when(60)), polymarket=market("polymarket", open_at=when(30)))
    tape = both().snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "9")]).snapshot("polymarket", 1, [("0.45", "9")])
    found = rows(tape, one)
    assert [(row["recv_ns"], row["reason"]) for row in found] == [
        (at(1), "market_not_open:polymarket"),
        (at(30), ""),
        (at(60), "after_close:kalshi"),
    ]
    # its book is known all the time, and so is the gap; only nobody can trade on it
    assert [row["gap_yes_kalshi"] for row in found] == [Decimal("0.03")] * 3
    assert [row["trusted"] for row in found] == [False, True, False]


def test_unknown_fees_leave_net_null() -> None:
    tape = both().snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "9")]).snapshot("polymarket", 1, [("0.45", "9")])
    (row,) = rows(tape, fees=unknown)
    assert (row["gap_yes_kalshi"], row["net_yes_kalshi"]) == (Decimal("0.03"), None)


def test_nothing_captured() -> None:
    empty = spreads_table([pair()], MarketData(), start=START, end=END, settings=settings(), fees=free)
    assert (empty.num_rows, empty.schema.equals(table("spreads").schema)) == (0, True)
    none = spreads_table([], MarketData(), start=START, end=END, settings=settings(), fees=free)
    assert none.schema.equals(table("spreads").schema)


def test_sliced_tables_are_read_at_their_offset() -> None:
    tape = both().snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "9")]).snapshot("polymarket", 2, [("0.45", "9")])
    tape.change("polymarket", 3, "bid", "0.46", "9")
    whole = tape.data()
    parts = [whole.quotes.slice(index, 1) for index in range(whole.quotes.num_rows)]
    data = MarketData(pa.concat_tables(parts), whole.book_events, whole.book_gaps, whole.capture_sessions)
    found = spreads_table([pair()], data, start=START, end=END, settings=settings(), fees=free)
    assert [row["gap_yes_kalshi"] for row in found.to_pylist()] == [None, Decimal("0.03"), Decimal("0.04")]


levels = st.tuples(st.sampled_from(["kalshi", "polymarket"]), st.sampled_from(["bid", "ask"]), st.integers(1, 20))


@given(st.lists(st.tuples(levels, st.integers(0, 3), st.integers(0, 2)), max_size=30), st.booleans())
@hypothesis_settings(max_examples=60, deadline=None)
def test_vectorised_gaps_equal_the_replayed_books(
    changes: list[tuple[tuple[str, str, int], int, int]], inverted: bool
) -> None:
    tape = both().snapshot("kalshi", 1, [], []).snapshot("polymarket", 1, [], []).gap("kalshi", 12, 15)
    now = 2
    for (venue, side, cents), size, pause in changes:
        now += pause
        tape.change(venue, now, "bid" if side == "bid" else "ask", f"0.{cents:02d}", str(size))
    one = pair(inverted=inverted)
    found = {row["recv_ns"]: row["gap_yes_kalshi"] for row in rows(tape, one, free)}
    stream = PairStream.of(one, load_streams([one], tape.data(), at(3600), settings()))
    for state in pair_states(stream, at(1), at(3600)):
        assert state.kalshi is not None
        assert state.polymarket is not None
        ask, bid = state.kalshi.best_ask, state.polymarket.best_bid
        known = not state.reasons and ask is not None and bid is not None
        if state.recv_ns in found:
            wanted = price_decimal((bid or 0) - (ask or 0)) if known else None
            assert found[state.recv_ns] == wanted
    assert set(found) <= {state.recv_ns for state in pair_states(stream, at(1), at(3600))}


def test_latest_row_is_the_newest_that_tells_a_gap() -> None:
    tape = (
        Tape().session("kalshi").session("polymarket", end=30).snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "9")])
    )
    tape.snapshot("polymarket", 1, [("0.45", "9")]).snapshot("polymarket", 5, [("0.44", "9")])
    found = spreads_table([pair()], tape.data(), start=START, end=END, settings=settings(), fees=free)
    assert found.to_pylist()[-1]["reason"] != ""
    (latest,) = latest_spreads(found).to_pylist()
    assert (latest["recv_ns"], latest["gap_yes_kalshi"]) == (at(5), Decimal("0.02"))


def test_latest_row_of_a_pair_that_never_told_one() -> None:
    tape = both().snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "9")])
    found = spreads_table([pair()], tape.data(), start=START, end=END, settings=settings(), fees=free)
    assert [row["recv_ns"] for row in latest_spreads(found).to_pylist()] == [at(1)]
    assert latest_spreads(table("spreads").schema.empty_table()).num_rows == 0
