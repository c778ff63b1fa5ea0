from datetime import timedelta

from arb_pipeline.reports.figures import PairSeries
from arb_pipeline.tables import table
from arb_pipeline_tests.arbitrage.builders import START, Tape, at, free, pair, settings, spreads_table

NO_EPISODES = table("opportunities").schema.empty_table()


def test_figure_shows_the_part_of_the_window_that_is_known() -> None:
    tape = Tape().session("kalshi").session("polymarket", end=30)
    tape.snapshot("kalshi", 10, [("0.40", "9")], [("0.42", "9")]).snapshot("polymarket", 12, [("0.45", "9")])
    end = START + timedelta(hours=24)
    spreads = spreads_table([pair()], tape.data(), start=START, end=end, settings=settings(), fees=free)
    series = PairSeries.of(spreads, NO_EPISODES, START, end)
    assert series.start_ns == at(12)
    assert at(30) <= series.end_ns <= at(31)


def test_gap_that_is_known_to_the_end_is_drawn_to_the_end() -> None:
    tape = Tape().session("kalshi").session("polymarket")
    tape.snapshot("kalshi", 10, [("0.40", "9")], [("0.42", "9")]).snapshot("polymarket", 12, [("0.45", "9")])
    end = START + timedelta(seconds=100)
    spreads = spreads_table([pair()], tape.data(), start=START, end=end, settings=settings(), fees=free)
    series = PairSeries.of(spreads, NO_EPISODES, START, end)
    assert (series.start_ns, series.end_ns) == (at(12), at(100))


def test_nothing_known_keeps_the_window() -> None:
    end = START + timedelta(seconds=100)
    series = PairSeries.of(table("spreads").schema.empty_table(), NO_EPISODES, START, end)
    assert (series.start_ns, series.end_ns) == (at(0), at(100))
