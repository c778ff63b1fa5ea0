"""An hour evaluated some pairs at a time is what it is all at once."""

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from arb_pipeline.arbitrage.backtest import backtest
from arb_pipeline.arbitrage.opportunities import evaluate
from arb_pipeline.arbitrage.pairs import Pair
from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.evaluation import HourBooks, evaluate_pairs, market_data
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline_tests.arbitrage.builders import START, Tape, market, pair, quadratic, settings

HOUR = timedelta(hours=1)
END = START + HOUR
PAIRS: list[Pair] = [
    *(pair(kalshi=market("kalshi", f"K{n}"), polymarket=market("polymarket", f"0x{n}")) for n in range(4)),
    # A market may stand in two pairs.
    pair(kalshi=market("kalshi", "K5"), polymarket=market("polymarket", "0x0")),
    pair(kalshi=market("kalshi", "K6"), polymarket=market("polymarket", "0x6"), inverted=True),
]


def tape() -> Tape:
    """Kalshi is polled over one connection, which proves every market alive; Polymarket pushes, and resyncs by REST."""
    tape = Tape().session("kalshi").session("polymarket").session("kalshi", connection="kalshi-2")
    for n in (0, 1, 2, 3, 5, 6):
        # K3 comes over a connection that answers for K5 alone later on, K6 over one that pushes as well.
        connection = {3: "kalshi-2", 5: "kalshi-2"}.get(n, "kalshi-1")
        tape.snapshot(
            "kalshi",
            2 + n,
            [("0.40", "9")],
            [("0.42", "50"), ("0.43", "70")],
            market_id=f"K{n}",
            connection=connection,
            source="rest",
        )
        tape.snapshot("polymarket", 1, [("0.41", "20"), ("0.39", "80")], [("0.60", "9")], market_id=f"0x{n}")
    for second in range(10, 60, 3):
        n = second % 4
        tape.change(
            "kalshi",
            second,
            "ask",
            "0.42",
            str(second),
            market_id=f"K{n}",
            source="rest",
            connection="kalshi-2" if n == 3 else "kalshi-1",
        )
        tape.change("polymarket", second + 0.5, "bid", "0.48", str(second % 7), market_id=f"0x{n}")
    tape.change("kalshi", 40, "ask", "0.42", "8", market_id="K5", connection="kalshi-2", source="rest")
    tape.snapshot("polymarket", 44, [("0.47", "30")], [("0.60", "9")], market_id="0x1", source="rest")
    tape.gap("polymarket", 47, 50, market_id="0x2")
    return tape.answer("kalshi", 30).answer("kalshi", 63)


def written(root: Path) -> Lake:
    lake, data = Lake(str(root)), tape().data()
    for name in ("quotes", "book_events", "book_gaps", "capture_sessions", "raw_frames"):
        for venue in ("kalshi", "polymarket"):
            rows: pa.Table = getattr(data, name)
            own = rows.filter(pa.compute.equal(rows["venue"], venue))
            lake.write_part(name, Partition.of(name, venue, START), own, "test")
    return lake


@pytest.mark.parametrize("rows_at_once", [1, 40, 10**6])
def test_in_whatever_batches(tmp_path: Path, rows_at_once: int) -> None:
    lake, chosen = written(tmp_path), settings()
    found = evaluate_pairs(chosen, lake, PAIRS, quadratic, START, rows_at_once)
    data = market_data(chosen, lake, START, END, {name for one in PAIRS for name in one.key})
    whole = evaluate(PAIRS, data, START, END, chosen, quadratic)
    assert lake.read("spreads").equals(whole.spreads)
    assert found.spreads.rows == whole.spreads.num_rows > 50
    assert found.opportunity_pieces.equals(whole.opportunity_pieces)
    assert found.opportunities.equals(whole.opportunities)
    assert found.rejections.equals(whole.rejections)
    accepted = whole.opportunities.filter(whole.opportunities["accepted"])
    assert 0 < accepted.num_rows < whole.opportunities.num_rows
    until = ns_from_datetime(END + timedelta(seconds=6))
    assert found.execution_backtest.equals(backtest(PAIRS, data, accepted, until, chosen, quadratic))
    reasons = set(whole.opportunities["reasons"].to_pylist())
    assert any("stale_leg:kalshi" in each for each in reasons)


def test_batches_hold_no_more_rows_than_asked_for_unless_one_pair_has_them(tmp_path: Path) -> None:
    lake = written(tmp_path)
    for rows_at_once in (1, 40, 60, 10**6):
        told = [
            (pairs, data.quotes.num_rows + data.book_events.num_rows)
            for pairs, data in HourBooks(settings(), lake, PAIRS, START, END, rows_at_once).batches()
        ]
        assert [one.key for pairs, _ in told for one in pairs] == sorted(one.key for one in PAIRS)
        assert all(rows <= rows_at_once or len(pairs) == 1 for pairs, rows in told)
    assert len(told) == 1


def test_no_pairs_make_an_empty_hour(tmp_path: Path) -> None:
    found = evaluate_pairs(settings(), written(tmp_path), [], quadratic, START)
    assert (found.spreads.rows, found.opportunities.num_rows, found.rejections["stopped"][0].as_py()) == (0, 0, 0)


def test_an_hour_that_has_not_begun_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has not begun"):
        evaluate_pairs(settings(), Lake(str(tmp_path)), PAIRS, quadratic, START + timedelta(days=10_000))
