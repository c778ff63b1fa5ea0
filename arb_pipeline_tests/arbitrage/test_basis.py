"""Basis, and which of two series leads: against brute force, and on series whose lead is known."""

from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arb_pipeline.arbitrage.basis import (
    LAGS_MS,
    Floats,
    LeadLag,
    Series,
    Tops,
    basis,
    basis_rows,
    cross_correlation,
    hayashi_yoshida,
    is_one_proposition,
    lead_lag,
)
from arb_pipeline.arbitrage.fees import FeeSource
from arb_pipeline.arbitrage.pairs import Pair
from arb_pipeline.arbitrage.streams import PairStream, load_streams
from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.model import Market, Relation
from arb_pipeline.tables import table
from arb_pipeline.units import price_decimal, size_decimal
from arb_pipeline.venues.base import FeeModel, FeeSchedule, FeeUnknownError
from arb_pipeline_tests.arbitrage.builders import (
    END,
    START,
    Fees,
    Tape,
    at,
    pair,
    quadratic,
    unknown,
    when,
)
from arb_pipeline_tests.arbitrage.builders import settings as chosen

SECOND = 1_000_000_000
MS = 1_000_000


def brute_force(first: Series, second: Series) -> float:
    """Every pair of overlapping changes, one by one."""
    total, a, b = 0.0, np.diff(first.values), np.diff(second.values)
    for i, move in enumerate(a):
        for j, other in enumerate(b):
            overlap = min(first.times_ns[i + 1], second.times_ns[j + 1]) > max(first.times_ns[i], second.times_ns[j])
            total += move * other if overlap else 0.0
    return float(total / np.sqrt((a * a).sum() * (b * b).sum()))


def walk(seed: int, count: int) -> Series:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.integers(1, 3 * SECOND, count)).astype(np.int64)
    values: Floats = 0.5 + np.cumsum(rng.choice([-0.01, 0.01], count)) / 100
    return Series(times, values)


def jumps(seed: int, count: int = 400, apart_ms: int = 2_000) -> Series:
    """A series that jumps to and fro, so that no change looks like the one beside it."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.integers(1, 2 * apart_ms, count)).astype(np.int64) * MS
    return Series(times, rng.uniform(0.3, 0.7, count))


def delayed(series: Series, by_ns: int) -> Series:
    return Series(series.times_ns + by_ns, series.values)


@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(2, 30))
def test_hayashi_yoshida_is_the_sum_over_overlapping_changes(seed: int, many: int, others: int) -> None:
    first, second = walk(seed, many), walk(seed + 1, others)
    assert hayashi_yoshida(first, second) == pytest.approx(brute_force(first, second), abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from(LAGS_MS))
def test_a_series_that_follows_by_so_much_is_found_there_and_the_other_way_round(seed: int, lag_ms: int) -> None:
    series = jumps(seed)
    follower = delayed(series, lag_ms * MS)
    found, turned = lead_lag(series, follower), lead_lag(follower, series)
    assert (found.lead_ms, turned.lead_ms) == (lag_ms, -lag_ms)
    assert found.correlation == turned.correlation == pytest.approx(1.0)
    assert turned.values == pytest.approx(found.values[::-1])
    assert turned.asymmetry == pytest.approx(1 / found.asymmetry)
    if abs(lag_ms) > 4_000:  # farther than the changes lie apart
        assert (found.asymmetry > 1) == (lag_ms > 0)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(-30, 30))
def test_a_lead_of_whole_seconds_is_found_on_the_grid(seed: int, lag_s: int) -> None:
    series = jumps(seed)
    follower = delayed(series, lag_s * SECOND)
    assert cross_correlation(series, follower).lead_ms == lag_s * 1_000
    assert cross_correlation(follower, series).lead_ms == -lag_s * 1_000
    assert cross_correlation(series, follower).correlation == pytest.approx(1.0)


def test_a_walk_leads_its_delayed_copy() -> None:
    series = walk(1, 500)
    assert hayashi_yoshida(series, series) == pytest.approx(1.0)
    found = lead_lag(series, delayed(series, 4 * SECOND), range(-10_000, 10_001, 1_000))
    assert found.lead_ms == 4_000
    assert found.asymmetry > 2


def test_series_that_have_nothing_to_do_with_one_another_lead_by_nothing() -> None:
    told = [lead_lag(jumps(2 * seed), jumps(2 * seed + 1)).lead_ms for seed in range(60)]
    assert told.count(None) >= 59


def test_too_few_moves_say_nothing_however_well_they_agree() -> None:
    assert lead_lag(jumps(4, 17), jumps(4, 17)).lead_ms is None  # 16 moves
    assert lead_lag(jumps(4, 60), jumps(4, 60)).lead_ms == 0
    still = Series(np.array([0, SECOND, 2 * SECOND]), np.array([0.5, 0.5, 0.5]))
    assert np.isnan(hayashi_yoshida(still, walk(3, 10)))
    assert lead_lag(still, walk(3, 10)).lead_ms is None
    none = Series(np.empty(0, dtype=np.int64), np.empty(0))
    assert cross_correlation(none, none).lead_ms is None
    assert lead_lag(none, none).correlation is None


def test_of_two_opposite_leads_as_strong_none_is_told() -> None:
    lags = (-200, -100, 0, 100, 200)
    assert LeadLag(lags, (0.1, 0.9, 0.2, 0.9, 0.9), (0.01,) * 5, 1.0).lead_ms is None
    assert LeadLag(lags, (0.9, 0.1, 0.2, -0.9, 0.1), (0.01,) * 5, 1.0).lead_ms == 100
    assert LeadLag(lags, (0.1, 0.1, 0.2, -0.9, 0.1), (0.3,) * 5, 1.0).lead_ms is None


def test_what_passes_while_nothing_is_known_is_no_move() -> None:
    nan = np.nan
    series = Series(np.arange(7), np.array([nan, 0.5, 0.5, 0.6, nan, nan, 0.9]))
    moves = series.moves()
    assert (moves.begins_ns.tolist(), moves.ends_ns.tolist()) == ([1], [3])
    assert moves.changes == pytest.approx([0.1])
    assert series.at(np.array([-1, 1, 3, 4, 9])) == pytest.approx([nan, 0.5, 0.6, nan, 0.9], nan_ok=True)


def test_a_basis_is_not_a_gap() -> None:
    kalshi = Tops(Decimal("0.40"), Decimal("0.44"), Decimal(10), Decimal(30))
    polymarket = Tops(Decimal("0.43"), Decimal("0.47"), Decimal(5), Decimal(5))
    found = basis(kalshi, polymarket, (Fees(Decimal("0.07")), Fees(Decimal("0.04"))))
    assert found.mid == Decimal("-0.03")
    assert found.executable_gap == Decimal("-0.01")
    assert found.clipped_gap == 0
    assert kalshi.microprice == Decimal("0.41")


# --- one pair's hour -------------------------------------------------------------------------------------------


def quiet_pair() -> Tape:
    return (
        Tape()
        .session("kalshi")
        .session("polymarket")
        .snapshot("kalshi", 0, [("0.40", "10")], [("0.44", "30")])
        .snapshot("polymarket", 0, [("0.43", "5")], [("0.47", "5")])
    )


def row(tape: Tape, of: Pair | None = None, fees: FeeSource = quadratic) -> dict[str, Any]:
    (found,) = basis_rows([of or pair()], tape.data(), START, END, chosen(), fees)
    (stored,) = pa.Table.from_pylist([found], table("basis").schema).to_pylist()
    assert stored.keys() == found.keys()
    return stored  # type: ignore[no-any-return]


def test_figures_are_weighted_by_time() -> None:
    tape = quiet_pair()
    tape.change("polymarket", 900, "ask", "0.47", "0").change("polymarket", 900, "ask", "0.45", "5")
    tape.change("kalshi", 2_700, "bid", "0.46", "10").change("kalshi", 2_700, "ask", "0.44", "0")
    tape.change("kalshi", 2_700, "ask", "0.48", "30")
    found = row(tape)
    # Mids: 0.42 and 0.45; then 0.42 and 0.44 from 15:15; then 0.47 and 0.44 from 15:45.
    assert found["known_ns"] == 3_600 * SECOND
    assert found["basis_mean"] == pytest.approx((-0.03 - 0.02 * 2 + 0.03) / 4)
    assert (found["basis_min"], found["basis_max"]) == (pytest.approx(-0.03), pytest.approx(0.03))
    assert found["gap_mean"] == pytest.approx((-0.01 * 3 + 0.01) / 4)
    assert (found["gap_max"], found["clipped_gap_mean"]) == (pytest.approx(0.01), pytest.approx(0.0025))
    assert found["crossed_share"] == 0.25
    assert found["paying_share"] == 0
    assert found["microprice_basis_mean"] == pytest.approx((0.41 - 0.45 + 2 * (0.41 - 0.44) + 0.465 - 0.44) / 4)
    fee = 0.07 * 0.42 * 0.58 * 3 + 0.07 * 0.47 * 0.53 + 0.04 * 0.45 * 0.55 + 3 * 0.04 * 0.44 * 0.56
    assert found["break_even_mean"] == pytest.approx(fee / 4)
    assert (found["kalshi_moves"], found["polymarket_moves"]) == (1, 1)
    assert found["lead_ms"] is found["lead_correlation"] is found["lead_asymmetry"] is found["grid_lead_ms"] is None
    assert found["start_at"] == START


def test_time_without_trust_or_without_a_side_does_not_count() -> None:
    tape = quiet_pair()
    tape.gap("kalshi", 600, 1_200).change("kalshi", 700, "bid", "0.43", "10")
    tape.change("polymarket", 2_400, "ask", "0.47", "0")
    found = row(tape)
    assert found["known_ns"] == (600 + 1_200) * SECOND
    assert found["basis_mean"] == pytest.approx((-0.03 * 600 + (0.435 - 0.45) * 1_200) / 1_800)
    assert (found["kalshi_moves"], found["polymarket_moves"]) == (0, 0)
    never = row(quiet_pair().gap("kalshi", 0, None))
    assert (never["known_ns"], never["basis_mean"], never["gap_max"], never["crossed_share"]) == (0, None, None, None)


def test_an_inverted_market_is_read_from_its_other_side() -> None:
    tape = (
        Tape()
        .session("kalshi")
        .session("polymarket")
        .snapshot("kalshi", 0, [("0.40", "10")], [("0.44", "30")])
        .snapshot("polymarket", 0, [("0.53", "5")], [("0.57", "5")])
    )
    assert row(tape, pair(inverted=True)) == row(quiet_pair())


def test_fees_that_nobody_knows_leave_the_rest() -> None:
    found = row(quiet_pair(), fees=unknown)
    assert (found["break_even_mean"], found["paying_share"]) == (None, None)
    assert found["basis_mean"] == pytest.approx(-0.03)


def test_fees_hold_from_when_they_hold() -> None:
    half = when(1_800)

    def changing(market: Market, at_time: Any) -> FeeModel:
        if market.venue == "polymarket":
            return Fees()
        if at_time < half:
            raise FeeUnknownError("not told", None, half)
        return Fees(Decimal(1), schedule=FeeSchedule("later", "test", half, when(2_700)) if at_time < when(2_700)
                    else FeeSchedule("last", "test", when(2_700)))  # fmt: skip

    crossed = quiet_pair().change("kalshi", 10, "bid", "0.99", "1").change("kalshi", 10, "ask", "0.44", "0")
    found = row(crossed.change("kalshi", 10, "ask", "0.995", "1"), fees=changing)
    mid = 0.9925
    assert found["break_even_mean"] == pytest.approx(mid * (1 - mid))
    assert found["paying_share"] == 1
    assert found["crossed_share"] == pytest.approx(1 - 10 / 3_600)


def test_a_market_that_was_not_captured_has_no_row() -> None:
    tape = Tape().session("kalshi").snapshot("kalshi", 0, [("0.40", "10")], [("0.44", "30")])
    assert list(basis_rows([pair()], tape.data(), START, END, chosen(), quadratic)) == []


def test_a_venue_that_follows_the_other_is_told_in_the_row() -> None:
    tape = quiet_pair().change("kalshi", 1, "bid", "0.40", "0").change("polymarket", 1, "bid", "0.43", "0")
    rng = np.random.default_rng(7)
    moves: list[tuple[float, str, str, str]] = []
    for now, (before, after) in zip(range(10, 3_500, 20), pairwise(rng.integers(10, 40, 400)), strict=False):
        for venue, by in (("polymarket", 0.0), ("kalshi", 0.7)):
            was, will = f"0.{before}", f"0.{after}"
            moves += [(now + by, venue, was, "0")] if now > 10 else []
            moves += [(now + by, venue, will, "7")]
    for seconds, venue, price, size in moves:
        tape.change(venue, seconds, "bid", price, size)
    found = row(tape)
    assert found["lead_ms"] == -700
    assert found["lead_correlation"] == pytest.approx(1, abs=0.05)
    assert found["lead_asymmetry"] < 1
    assert found["grid_lead_ms"] == -1_000
    assert found["kalshi_moves"] > 100


def test_only_pairs_of_one_proposition_have_a_basis() -> None:
    one = pair()
    implied = Pair(one.kalshi, one.polymarket, Relation.KALSHI_IMPLIES_POLYMARKET, one.status)
    assert is_one_proposition(one)
    assert is_one_proposition(pair(inverted=True))
    assert not is_one_proposition(implied)


levels = st.lists(st.tuples(st.integers(1, 49), st.integers(51, 99), st.integers(1, 9), st.integers(1, 9)),
                  min_size=1, max_size=8)  # fmt: skip
times = st.lists(st.integers(0, 3_599), min_size=8, max_size=8, unique=True).map(sorted)
doubt = st.lists(st.tuples(st.integers(0, 3_599), st.integers(1, 900)), max_size=2)


@settings(deadline=None, max_examples=40)
@given(levels, levels, times, times, doubt)
def test_the_hour_is_what_one_sees_second_by_second(
    kalshi: list[tuple[int, int, int, int]],
    polymarket: list[tuple[int, int, int, int]],
    kalshi_times: list[int],
    polymarket_times: list[int],
    gaps: list[tuple[int, int]],
) -> None:
    tape = Tape().session("kalshi").session("polymarket")
    for venue, tops, moments in (("kalshi", kalshi, kalshi_times), ("polymarket", polymarket, polymarket_times)):
        for second, (bid, ask, bids, asks) in zip(moments, tops, strict=False):
            tape.snapshot(venue, second, [(f"0.{bid:02}", str(bids))], [(f"0.{ask:02}", str(asks))])
    for begin, length in gaps:
        tape.gap("kalshi", begin, begin + length)
    found = row(tape)
    data = tape.data()
    stream = PairStream.of(pair(), load_streams([pair()], data, ns_from_datetime(END), chosen()))
    seconds = np.array([at(second) for second in range(3_600)])
    trusted = stream.distrust(seconds)[0] == 0
    legs = [leg.quotes.as_of(seconds) for leg in stream.legs]
    seen = []
    for second in np.flatnonzero(trusted).tolist():
        k, p = (
            Tops(
                *(price_decimal(int(getattr(of, name)[second])) for name in ("bid", "ask")),
                *(size_decimal(int(getattr(of, name)[second])) for name in ("bid_size", "ask_size")),
            )
            for of in legs
        )
        one = basis(k, p, (Fees(Decimal("0.07")), Fees(Decimal("0.04"))))
        seen.append((one.mid, k.microprice - p.microprice, one.executable_gap, one.clipped_gap, one.break_even,
                     one.executable_gap > 0, one.executable_gap > one.break_even))  # fmt: skip
    assert found["known_ns"] == len(seen) * SECOND
    names = ("basis_mean", "microprice_basis_mean", "gap_mean", "clipped_gap_mean", "break_even_mean",
             "crossed_share", "paying_share")  # fmt: skip
    for name, values in zip(names, zip(*seen, strict=True), strict=bool(seen)):
        assert found[name] == pytest.approx(float(sum(values)) / len(seen), abs=1e-9), name
    if seen:
        assert found["basis_min"] == pytest.approx(float(min(one[0] for one in seen)))
        assert found["gap_max"] == pytest.approx(float(max(one[2] for one in seen)))
