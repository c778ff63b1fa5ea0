"""What a row tells holds until the next one, and no longer than somebody looked."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.arbitrage.opportunities import evaluate
from arb_pipeline.reports import ReportInputs
from arb_pipeline.reports.charts import PriceSeries, prices_figure
from arb_pipeline.reports.figures import PairSeries
from arb_pipeline.reports.gather import quote_quality
from arb_pipeline.reports.heat import heat_cells
from arb_pipeline.reports.over_time import HOUR_NS, held_until, with_ends
from arb_pipeline.reports.quality import share_both_fresh
from arb_pipeline.reports.views import Views
from arb_pipeline.storage.lake import Lake
from arb_pipeline_tests.arbitrage.builders import END, START, Tape, at, free, pair, settings, when
from arb_pipeline_tests.reports.lakes import capture

KEY = ("KXTEST-26", "0xabc")
FOUR_HOURS = timedelta(hours=4)
TIMES = st.lists(st.integers(0, 6 * HOUR_NS - 1), min_size=1, max_size=8, unique=True).map(sorted)


@pytest.fixture(scope="module")
def inputs() -> ReportInputs:
    """A pair whose books came in the last minute of the first of four hours; nobody captured the others."""
    tape = Tape().session("kalshi").session("polymarket")
    tape.snapshot("kalshi", 3_540, [("0.38", "9")], [("0.42", "9")])
    tape.snapshot("polymarket", 3_540, [("0.45", "9")], [("0.47", "9")])
    found = evaluate([pair()], tape.data(), START, END, settings(), free)
    return ReportInputs(START, START + FOUR_HOURS, found.spreads, found.opportunities, pairs=[pair()], fees=free)


def test_hours_that_nobody_captured_are_in_no_cell(inputs: ReportInputs) -> None:
    (cell,) = heat_cells(inputs.spreads, {KEY: "Sports"}, at(4 * 3_600))
    assert (cell.hour, cell.known_s, cell.paying) == (11, 60.0, 1.0)


def test_hours_that_nobody_captured_are_not_trusted(inputs: ReportInputs) -> None:
    over_time = Views(inputs).over_time
    assert over_time[KEY]["trusted_share"] == pytest.approx(60 / (4 * 3_600))
    assert share_both_fresh(over_time.values()) == pytest.approx(60 / (4 * 3_600))
    early = Views(replace(inputs, end=when(3_570))).over_time
    assert early[KEY]["trusted_share"] == pytest.approx(30 / 3_570)


def test_figures_of_a_pair_end_with_what_is_known(inputs: ReportInputs) -> None:
    gaps = PairSeries.of(inputs.spreads, inputs.opportunities, inputs.start, inputs.end)
    prices = PriceSeries.of(inputs.spreads, inputs.opportunities, (inputs.start, inputs.end))
    for series in (gaps, prices):
        assert (series.start_ns, series.end_ns) == (at(3_540), at(3_600))
        assert series.recv_ns[-1] == at(3_600)
    assert np.isnan(gaps.gaps["yes_kalshi"][-1])
    assert np.isnan(prices.basis[-1])
    assert np.isnan(prices.sides["kalshi"][0][-1])


def test_bands_are_drawn_up_to_where_they_break_off(inputs: ReportInputs) -> None:
    prices = PriceSeries.of(inputs.spreads, inputs.opportunities, (inputs.start, inputs.end))
    axis = prices_figure(prices, narrow=False).axes[0]
    reached = [path.get_extents().x1 for band in axis.collections for path in band.get_paths()]
    assert reached == pytest.approx([60.0] * 4)


def test_an_open_episode_lasted_for_as_long_as_it_was_seen(inputs: ReportInputs) -> None:
    (episode,) = Views(inputs).all_episodes
    assert (episode["closed_at"], episode["lasted"]) == (None, 60.0)
    without = Views(replace(inputs, spreads=inputs.spreads.slice(0, 0)))
    assert without.all_episodes[0]["lasted"] == 60.0
    assert Views(replace(inputs, end=when(3_550))).all_episodes[0]["lasted"] == 10.0


def test_how_long_a_price_stood_begins_with_what_was_seen_without_a_break() -> None:
    tape = Tape().session("kalshi").session("polymarket")
    for seconds in (3_540, 10_800):
        tape.snapshot("kalshi", seconds, [("0.38", "9")], [("0.42", "9")])
        tape.snapshot("polymarket", seconds, [("0.45", "9")], [("0.47", "9")])
    tape.change("polymarket", 10_900, "bid", "0.46", "9")
    data, end = tape.data(), START + FOUR_HOURS
    found = [
        evaluate([pair()], data, START + hour * (END - START), START + (hour + 1) * (END - START), settings(), free)
        for hour in (0, 3)
    ]
    inputs = ReportInputs(START, end, pa.concat_tables([one.spreads for one in found]), pairs=[pair()])
    ages = Views(inputs)._ages(KEY, at(10_930))
    assert ages == {"kalshi": (130.0, True), "polymarket": (30.0, False)}


def test_quotes_age_until_their_connection_ends(tmp_path: Path) -> None:
    tape = Tape().session("kalshi", end=600).session("polymarket")
    tape.snapshot("kalshi", 0, [("0.40", "9")]).snapshot("polymarket", 3_000, [("0.45", "9")])
    lake = Lake(str(tmp_path))
    capture(lake, tape)
    found = quote_quality(lake, START, START + FOUR_HOURS).to_pylist()
    ages = {row["venue"]: sum(row[f"age_{number}_s"] for number in range(5)) for row in found}
    assert ages == pytest.approx({"kalshi": 600, "polymarket": 600}, abs=1e-3)


def test_a_row_holds_into_the_next_hour_if_that_one_goes_on() -> None:
    times = np.array([10, HOUR_NS + 5, 4 * HOUR_NS - 7])
    assert held_until(times, 9 * HOUR_NS).tolist() == [HOUR_NS + 5, 2 * HOUR_NS, 4 * HOUR_NS]
    assert held_until(times, 9 * HOUR_NS, np.array([False, False])).tolist() == [HOUR_NS, 2 * HOUR_NS, 4 * HOUR_NS]
    assert held_until(np.array([], dtype=np.int64), 5).tolist() == []


@given(TIMES, st.integers(1, 7 * HOUR_NS))
def test_stretches_do_not_overlap_and_stay_near_their_rows(told: list[int], end_ns: int) -> None:
    times = np.array(told)
    until = held_until(times, end_ns)
    assert (until >= times).all()
    assert (until[:-1] <= times[1:]).all()
    assert (until[times < end_ns] <= max(end_ns, times[-1])).all()
    assert (until - times < 2 * HOUR_NS).all()
    assert until[-1] <= max((times[-1] // HOUR_NS + 1) * HOUR_NS, times[-1])


@given(TIMES)
def test_a_line_breaks_off_wherever_a_row_does_not_reach_the_next(told: list[int]) -> None:
    times, end_ns = np.array(told), 7 * HOUR_NS
    drawn, (line,) = with_ends(times, [np.arange(len(told), dtype=np.float64)], times, end_ns)
    assert drawn.tolist() == sorted(drawn.tolist())
    assert line[~np.isnan(line)].tolist() == list(range(len(told)))
    until = held_until(times, end_ns)
    assert drawn[np.isnan(line)].tolist() == until[until < np.append(times[1:], end_ns)].tolist()
