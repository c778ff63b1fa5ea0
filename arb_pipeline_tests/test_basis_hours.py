"""The table ``basis`` of a lake, hour by hour."""

from datetime import timedelta
from pathlib import Path

import pyarrow.compute as pc
import pytest

from arb_pipeline import evaluation, pipeline
from arb_pipeline.arbitrage.pairs import Pair
from arb_pipeline.model import Relation
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline.tables import table
from arb_pipeline_tests.arbitrage.builders import START, Tape, market, pair, quadratic
from arb_pipeline_tests.arbitrage.builders import settings as chosen

OTHER = pair(kalshi=market("kalshi", "KXOTHER-26"), polymarket=market("polymarket", "0xdef"))
UNSEEN = pair(kalshi=market("kalshi", "KXUNSEEN-26"))
RELATED = Pair(OTHER.kalshi, market("polymarket"), Relation.EXCLUSIVE, OTHER.status)


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """An hour of two pairs' books, and three pairs that concern them."""
    lake = Lake(str(tmp_path))
    tape = Tape().session("kalshi").session("polymarket")
    for one in (pair(), OTHER):
        tape.snapshot("kalshi", 0, [("0.40", "10")], [("0.44", "30")], market_id=one.kalshi.market_id)
        tape.snapshot("polymarket", 0, [("0.43", "5")], [("0.47", "5")], market_id=one.polymarket.market_id)
    tape.change("polymarket", 1_800, "bid", "0.45", "5", market_id=OTHER.polymarket.market_id)
    data = tape.data()
    for name in ("quotes", "book_events", "book_gaps", "capture_sessions"):
        for venue in ("kalshi", "polymarket"):
            rows = getattr(data, name)
            own = rows.filter(pc.equal(rows["venue"], venue))
            lake.write_part(name, Partition.of(name, venue, START), own, "w")
    monkeypatch.setattr(pipeline, "load_pairs", lambda lake, since, until: [UNSEEN, OTHER, RELATED, pair()])
    monkeypatch.setattr(pipeline, "fee_source", lambda settings, lake, pairs: quadratic)
    return lake


def test_an_hour_has_a_row_of_each_captured_pair_of_one_proposition(lake: Lake) -> None:
    made = pipeline.evaluate_basis(chosen(), lake, START)
    held = lake.read("basis", START, START + timedelta(hours=1))
    assert held.equals(made)
    assert held.schema == table("basis").schema
    rows = held.to_pylist()
    assert [(row["kalshi_market_id"], row["polymarket_market_id"]) for row in rows] == [OTHER.key, pair().key]
    assert [row["basis_mean"] for row in rows] == [pytest.approx(-0.035), pytest.approx(-0.03)]
    assert {row["known_ns"] for row in rows} == {3_600 * 10**9}
    assert {row["start_at"] for row in rows} == {START}


def test_an_hour_made_again_or_pair_by_pair_is_the_same(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    made = pipeline.evaluate_basis(chosen(), lake, START)
    monkeypatch.setattr(evaluation.HourBooks.__init__, "__defaults__", (1,))
    assert pipeline.evaluate_basis(chosen(), lake, START).equals(made)
    assert lake.read("basis").equals(made)


def test_an_hour_that_has_not_begun_is_refused(lake: Lake) -> None:
    with pytest.raises(ValueError, match="has not begun"):
        pipeline.evaluate_basis(chosen(), lake, START + timedelta(days=36_500))
