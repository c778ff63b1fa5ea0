"""Opportunities of the lake do not depend on the order in which hours are evaluated, nor on how often."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import permutations
from pathlib import Path

import pyarrow as pa
import pytest

from arb_pipeline.arbitrage.opportunities import evaluate, joined
from arb_pipeline.opportunities import write_opportunities
from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake
from arb_pipeline_tests.arbitrage.builders import START, Tape, free, pair, settings, when

HOUR = timedelta(hours=1)
HOURS = [START + number * HOUR for number in range(10)]
"""The last one begins at midnight."""


def minutes(value: float) -> float:
    return value * 60


@pytest.fixture(scope="module")
def tape() -> Tape:
    """One episode over three hours, one over midnight, a burst across a boundary, and one that lasts."""
    tape = Tape().session("kalshi", end=minutes(620)).session("polymarket", end=minutes(620))
    tape.snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "9")])
    tape.snapshot("polymarket", 1, [("0.41", "20")], [("0.50", "9")])
    for begin, end, price in (
        (minutes(10), minutes(150), "0.45"),
        (minutes(200), minutes(210), "0.44"),
        (minutes(240) - 0.2, minutes(240) + 0.2, "0.46"),
        (minutes(300) - 0.2, minutes(300) + 20, "0.46"),
        (minutes(530), minutes(545), "0.43"),
        (minutes(570), minutes(700), "0.43"),
    ):
        tape.change("polymarket", begin, "bid", price, "20")
        if end < minutes(620):
            tape.change("polymarket", end, "bid", price, "0")
    return tape.gap("polymarket", minutes(205), minutes(206))


def pieces(tape: Tape, hour: datetime, chosen: Settings) -> pa.Table:
    return evaluate([pair()], tape.data(), hour, hour + HOUR, chosen, free).opportunity_pieces


def stored(lake: Lake) -> pa.Table:
    return lake.read("opportunities")


def test_the_whole_is_known(tape: Tape) -> None:
    found = evaluate([pair()], tape.data(), HOURS[0], HOURS[-1] + HOUR, settings(), free).opportunities.to_pylist()
    assert [(row["opened_at"], row["closed_at"], row["reasons"]) for row in found] == [
        (when(minutes(10)), when(minutes(150)), "[]"),
        (when(minutes(200)), when(minutes(205)), "[]"),
        (when(minutes(205)), when(minutes(206)), '["not_in_sync:polymarket"]'),
        (when(minutes(206)), when(minutes(210)), "[]"),
        (when(minutes(240) - 0.2), when(minutes(240) + 0.2), '["burst"]'),
        (when(minutes(300) - 0.2), when(minutes(300) + 20), "[]"),
        (when(minutes(530)), when(minutes(545)), "[]"),
        (when(minutes(570)), None, "[]"),
    ]


@pytest.mark.parametrize("seed", range(4))
def test_in_whatever_order_and_however_often(tape: Tape, tmp_path: Path, seed: int) -> None:
    lake, chosen = Lake(str(tmp_path / "lake")), settings()
    whole = evaluate([pair()], tape.data(), HOURS[0], HOURS[-1] + HOUR, chosen, free).opportunities
    order = [hour for hours in shuffled(seed) for hour in hours]
    for hour in order:
        write_opportunities(chosen, lake, hour, pieces(tape, hour, chosen))
    assert stored(lake).equals(whole)
    counted = lake.read("rejections").to_pylist()
    assert sum(row["candidates"] for row in counted if row["step"] == 1) == whole.num_rows


def shuffled(seed: int) -> Sequence[Sequence[datetime]]:
    """All hours in some order, and then some of them again."""
    parts = [HOURS[0:3], HOURS[3:6], HOURS[6:8], HOURS[8:]]
    chosen = list(permutations(parts))[seed * 7 % 24]
    return [*([*part][:: -1 if seed % 2 else 1] for part in chosen), HOURS[2:5]]


def test_an_hour_that_is_evaluated_while_it_lasts_and_again_when_it_is_over(tape: Tape, tmp_path: Path) -> None:
    lake, chosen = Lake(str(tmp_path / "lake")), settings()
    for minute in (15, 40, 60):
        until = HOURS[0] + timedelta(minutes=minute)
        told = evaluate([pair()], tape.data(), HOURS[0], until, chosen, free).opportunity_pieces
        (row,) = write_opportunities(chosen, lake, HOURS[0], told).opportunities.to_pylist()
        assert (row["closed_at"], row["active_ns"]) == (None, (minute - 10) * 60_000_000_000)


@pytest.mark.parametrize("order", [(0, 3, 4), (4, 3, 0), (3, 0, 4)])
def test_hours_that_are_never_evaluated_lie_between(tape: Tape, tmp_path: Path, order: Sequence[int]) -> None:
    lake, chosen = Lake(str(tmp_path / "lake")), settings()
    for number in order:
        write_opportunities(chosen, lake, HOURS[number], pieces(tape, HOURS[number], chosen))
    found = stored(lake).to_pylist()
    assert [(row["opened_at"], row["closed_at"]) for row in found if row["reasons"] == "[]"][:2] == [
        (when(minutes(10)), None),
        (when(minutes(200)), when(minutes(205))),
    ]
    assert len(found) == 6


def test_what_an_earlier_version_of_an_hour_joined_is_taken_apart(tape: Tape, tmp_path: Path) -> None:
    lake, chosen = Lake(str(tmp_path / "lake")), settings()
    for hour in HOURS[:3]:
        write_opportunities(chosen, lake, hour, pieces(tape, hour, chosen))
    assert stored(lake).num_rows == 1
    nothing = pieces(tape, HOURS[1], chosen).slice(0, 0)
    assert write_opportunities(chosen, lake, HOURS[1], nothing).days == (START.date(),)
    first, second = stored(lake).to_pylist()
    assert (first["closed_at"], first["end_reason"]) == (HOURS[1], "unknown")
    assert (second["opened_at"], second["closed_at"], second["left_censored"]) == (HOURS[2], when(minutes(150)), True)
    write_opportunities(chosen, lake, HOURS[1], pieces(tape, HOURS[1], chosen))
    expected = [pieces(tape, hour, chosen) for hour in HOURS[:3]]
    assert stored(lake).equals(joined(pa.concat_tables(expected), HOURS[3], chosen))
