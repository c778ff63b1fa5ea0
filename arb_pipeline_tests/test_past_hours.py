"""An hour is what it was: whatever has become of its markets since, and in whatever order hours are evaluated."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import permutations
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from arb_pipeline import pipeline
from arb_pipeline.evaluation import evaluate_pairs
from arb_pipeline.matching.versions import current_matches, record_matches, with_expired
from arb_pipeline.model import Market, MarketStatus, MatchStatus
from arb_pipeline.storage.as_of import copy_known
from arb_pipeline.storage.catalogue import read_markets
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline_tests.arbitrage.builders import START, Tape, at, free, market, pair, settings, when
from arb_pipeline_tests.reports.lakes import capture, discover, match, match_row, priced, settings_in

HOUR = timedelta(hours=1)
LISTED = START - timedelta(minutes=30)
PAIR = pair(
    kalshi=priced(market("kalshi", event_id="KE")),
    polymarket=priced(market("polymarket", event_id="PE")),
    status=MatchStatus.APPROVED,
)
OTHERS = [market("kalshi", "KZ", event_id="KX"), market("polymarket", "0xz", event_id="PX")]
LEGS = [PAIR.kalshi, PAIR.polymarket]
TABLES = ("spreads", "opportunity_pieces", "opportunities", "execution_backtest", "rejections", "basis")


def tape() -> Tape:
    """An opportunity from second 10 on."""
    tape = Tape().session("kalshi").session("polymarket")
    tape.snapshot("kalshi", 10, [("0.30", "90")], [("0.40", "90")])
    return tape.snapshot("polymarket", 10, [("0.50", "90")], [("0.60", "90")])


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    discover(lake, [*LEGS, *OTHERS], LISTED)
    match(lake, [match_row(PAIR)], LISTED)
    capture(lake, tape())
    return lake


def leave(lake: Lake, told_at: datetime, *states: Sequence[Market]) -> None:
    """Listings an hour apart that tell these markets, and then one that tells neither leg; their pair is over."""
    for number, state in enumerate([*states, []]):
        discover(lake, [*state, *OTHERS], told_at + number * HOUR)
    listed: dict[tuple[str, str], Market] = {(one.venue, one.market_id): one for one in read_markets(lake)}
    assert len(listed) == len(OTHERS)
    record_matches(lake, with_expired([], current_matches(lake).to_pylist(), listed), told_at + len(states) * HOUR)
    assert current_matches(lake)["status"].to_pylist() == ["expired"]


def with_status(status: MarketStatus, **changes: object) -> list[Market]:
    return [msgspec.structs.replace(one, status=status, **changes) for one in LEGS]


@pytest.mark.parametrize("after", [timedelta(hours=1), timedelta(days=3)])
def test_of_markets_that_have_settled_and_left_the_listings(lake: Lake, tmp_path: Path, after: timedelta) -> None:
    chosen = settings_in(tmp_path)

    def made() -> list[pa.Table]:
        pipeline.evaluate_hour(chosen, lake, START)
        pipeline.evaluate_basis(chosen, lake, START)
        return [lake.read(name) for name in TABLES]

    before = made()
    assert before[2].filter(before[2]["accepted"]).num_rows == 1
    settled = with_status(MarketStatus.SETTLED, close_at=when(600), fee_params={}, tick=10)
    leave(lake, START + after, with_status(MarketStatus.PAUSED), settled)
    assert all(one.equals(other) for one, other in zip(made(), before, strict=True))


def test_an_hour_begun_when_they_had_left_has_no_pair(lake: Lake) -> None:
    leave(lake, START + HOUR)
    assert pipeline.load_pairs(lake, since=START + 2 * HOUR, until=START + 3 * HOUR) == []
    assert [one.key for one in pipeline.load_pairs(lake, since=START, until=START + HOUR)] == [PAIR.key]


def test_a_status_counts_while_it_was_told(lake: Lake, tmp_path: Path) -> None:
    discover(lake, [*with_status(MarketStatus.PAUSED), *OTHERS], when(600))
    discover(lake, [*LEGS, *OTHERS], when(1_200))
    discover(lake, [*with_status(MarketStatus.CLOSED), *OTHERS], when(2_400))
    pipeline.evaluate_hour(settings_in(tmp_path), lake, START)
    rows = lake.read("opportunities").sort_by("opened_at").to_pylist()
    paused = '["market_not_open:kalshi", "market_not_open:polymarket"]'
    closed = '["after_close:kalshi", "after_close:polymarket"]'
    assert [(row["opened_at"], row["closed_at"], row["reasons"]) for row in rows] == [
        (when(10), when(600), "[]"),
        (when(600), when(1_200), paused),
        (when(1_200), when(2_400), "[]"),
        (when(2_400), None, closed),
    ]


def test_a_market_that_has_left_is_not_known_to_be_open(lake: Lake, tmp_path: Path) -> None:
    leave(lake, when(1_800))
    pipeline.evaluate_hour(settings_in(tmp_path), lake, START)
    rows = lake.read("opportunities").sort_by("opened_at").to_pylist()
    assert [(row["opened_at"], row["accepted"]) for row in rows] == [(when(10), True), (when(1_800), False)]
    assert "market_not_open:kalshi" in rows[1]["reasons"]


def test_as_of_an_instant_at_which_they_had_left(lake: Lake, tmp_path: Path) -> None:
    leave(lake, when(1_800))
    then = Lake(str(tmp_path / "then"))
    copy_known(lake, then, START, when(3_000), timedelta(seconds=5))
    assert {one.market_id for one in read_markets(then)} == {one.market_id for one in OTHERS}
    pipeline.evaluate_hour(settings_in(tmp_path), then, START)
    pipeline.evaluate_hour(settings_in(tmp_path), lake, START)
    found, wanted = (one.read("opportunities") for one in (then, lake))
    assert found.num_rows == 2
    assert found.drop_columns(["closed_at"]).equals(wanted.drop_columns(["closed_at"]))


def test_polled_books_do_not_start_stale(tmp_path: Path) -> None:
    lake, then = (Lake(str(tmp_path / name)) for name in ("lake", "then"))
    rows = Tape().answer("kalshi", -20).answer("kalshi", -3).answer("kalshi", 4).data().raw_frames
    for hour in (START - HOUR, START):
        part = Partition.of("raw_frames", "kalshi", hour)
        low, high = at((hour - START).total_seconds()), at((hour - START + HOUR).total_seconds())
        own = pc.and_(pc.greater_equal(rows["recv_ns"], low), pc.less(rows["recv_ns"], high))
        lake.replace("raw_frames", part, rows.filter(own))
    copy_known(lake, then, START, when(600), timedelta(seconds=5))
    assert then.read("raw_frames")["recv_ns"].to_pylist() == [at(-3), at(4)]


@pytest.mark.parametrize("lasts", [0.1, 0.4, 3])
def test_orders_are_the_same_in_whatever_order_of_hours(tmp_path: Path, lasts: float) -> None:
    """An opportunity opens just before an hour ends, and is too short, or not, by what the next hour tells."""
    told = Tape().session("kalshi").session("polymarket")
    told.snapshot("polymarket", 1, [("0.48", "50")], [("0.60", "9")])
    told.snapshot("kalshi", 1, [("0.30", "9")], [("0.55", "50")])
    for opens, closes in ((1_000.0, 1_010.0), (3_599.8, 3_599.8 + lasts), (7_199.9, 7_204.0)):
        told.change("kalshi", opens, "ask", "0.40", "50")
        for hour in (3_600, 7_200):
            if opens < hour < closes:
                opening(told, hour)
        told.change("kalshi", closes, "ask", "0.40", "0")
        if closes < 3_600 and opens > 3_000:
            opening(told, 3_600)
    results = []
    for number, order in enumerate([(0, 1, 2), *permutations(range(3)), (0, 1, 0, 2, 1), (2, 0, 1, 0)]):
        lake = Lake(str(tmp_path / str(number)))
        capture(lake, told)
        for hour in order:
            evaluate_pairs(settings(), lake, [pair()], free, START + hour * HOUR)
        results.append(lake.read("execution_backtest"))
        orders = {row["opened_at"] for row in results[-1].to_pylist()}
        accepted = lake.read("opportunities").to_pylist()
        assert orders == {row["opened_at"] for row in accepted if row["accepted"]}
    assert results[0].num_rows >= 10
    assert all(one.equals(results[0]) for one in results)


def opening(told: Tape, second: float) -> None:
    """The books that an hour begins with."""
    kalshi_asks = [("0.40", "50"), ("0.55", "50")] if second else []
    told.snapshot("kalshi", second, [("0.30", "9")], kalshi_asks, quote=False)
    told.snapshot("polymarket", second, [("0.48", "50")], [("0.60", "9")], quote=False)
