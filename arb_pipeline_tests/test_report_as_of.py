"""A report as of an earlier instant: what became known later changes no byte of it."""

import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from arb_pipeline import pipeline
from arb_pipeline.arbitrage.pairs import Pair
from arb_pipeline.cli import app
from arb_pipeline.model import FeeChange, MarketStatus, MatchStatus, Relation, rules_digest
from arb_pipeline.reports import ReportFiles
from arb_pipeline.storage.fee_schedules import record_fee_changes
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline.tables import table
from arb_pipeline_tests.arbitrage.builders import START, Tape, market, when
from arb_pipeline_tests.reports.lakes import capture, discover, match, match_row, priced, settings_in

THEN = when(1_200)
LISTED, MATCHED = START - timedelta(hours=2), START - timedelta(hours=1)
LATER = when(2_400)
HOURS = timedelta(hours=3)
RULES = "If the Bills win, the market resolves to Yes."
NAMES = (("KXGAME-26", "0xaa"), ("KXOTHER-26", "0xbb"))


def pairs() -> list[Pair]:
    texts = {"rules": RULES, "rules_sha256": rules_digest(RULES)}
    return [
        Pair(
            priced(market("kalshi", kalshi, event_id="KXEVENT", series_id="KX", title=f"Game {kalshi}"), **texts),
            priced(market("polymarket", polymarket, event_id="77", title=f"Game {polymarket}"), **texts),
            Relation.EQUIVALENT,
            MatchStatus.APPROVED,
        )
        for kalshi, polymarket in NAMES
    ]


def fee_change(rate: str, since: timedelta) -> FeeChange:
    return FeeChange(
        venue="polymarket",
        scope="market",
        scope_id="0xaa",
        params={"rate": rate, "exponent": "1"},
        valid_from=START - since,
        source="test",
    )


def outcomes(known_at: object, title: str) -> pa.Table:
    row = {
        "venue": "kalshi",
        "event_id": "KXEVENT",
        "title": title,
        "outcomes": 2,
        "market_ids": '["KXGAME-26","KXOTHER-26"]',
        "exclusive": True,
        "exhaustive": False,
        "why": "nothing proves it",
        "partner_event_id": "77",
        "paired": 2,
        "known_at": known_at,
    }
    return pa.Table.from_pylist([row], schema=table("outcome_sets").schema)


def evaluation(at: object, precision: float) -> pa.Table:
    common = {"evaluated_at": at, "family": "overall", "file": "pairs.csv", "file_sha256": "x", "matcher_version": "m"}
    values = {
        "called": 30.0,
        "precision": precision,
        "precision_low": 0.8,
        "precision_high": 1.0,
        "inversion_errors": 0.0,
    }
    rows = [{**common, "metric": name, "value": value} for name, value in values.items()]
    return pa.Table.from_pylist(rows, schema=table("match_evaluation").schema)


def play(*, future: bool) -> Tape:
    """Books with an episode that lasts, and one of the future; the future also ends connections and a gap."""
    end = 3_000.0 if future else None
    tape = Tape().session("kalshi", end=end).session("polymarket", end=end)
    for kalshi, polymarket in NAMES:
        tape.snapshot("kalshi", 1, [("0.40", "90")], [("0.42", "90"), ("0.44", "300")], market_id=kalshi)
        tape.snapshot("polymarket", 1, [("0.41", "200")], [("0.55", "90")], market_id=polymarket)
        tape.change("polymarket", 100, "bid", "0.48", "120", market_id=polymarket)
    tape.change("polymarket", 300, "bid", "0.48", "0", market_id="0xaa")
    tape.change("polymarket", 500, "bid", "0.49", "50", market_id="0xaa")
    tape.gap("kalshi", 1_000, 1_500 if future else None, market_id="KXOTHER-26")
    if future:
        tape.change("polymarket", 1_200, "bid", "0.60", "500", market_id="0xaa")
        tape.change("kalshi", 1_300, "ask", "0.30", "500", market_id="KXGAME-26")
    return tape


def fill(folder: Path, *, future: bool) -> Lake:
    """A lake up to the instant, and with ``future`` beyond it."""
    lake = Lake(str(folder / "lake"))
    known = pairs()
    markets = [leg for pair in known for leg in (pair.kalshi, pair.polymarket)]
    discover(lake, markets, LISTED)
    record_fee_changes(lake, "polymarket", [fee_change("0.04", timedelta(days=30))], LISTED)
    match(lake, [match_row(pair) for pair in known], MATCHED)
    lake.replace("outcome_sets", Partition.of("outcome_sets", "kalshi", MATCHED), outcomes(MATCHED, "As it was known"))
    measured = [evaluation(MATCHED, 0.9)]
    capture(lake, play(future=future))
    if future:
        # A listing of the same day takes the place of the one that was known; another text comes a day later.
        closed = [msgspec.structs.replace(one, status=MarketStatus.CLOSED, result="yes") for one in markets]
        discover(lake, closed, LATER)
        other = [msgspec.structs.replace(one, title="New", rules="Other.", rules_sha256="other") for one in closed]
        discover(lake, other, LATER + timedelta(days=1))
        told = [fee_change("0.04", timedelta(days=30)), fee_change("0.5", timedelta(minutes=30))]
        record_fee_changes(lake, "polymarket", told, LATER)
        refused = match_row(known[0], status="refused", vetoes='["rules differ"]')
        match(lake, [refused, match_row(known[1], score=1.0, status="rejected")], LATER)
        both = pa.concat_tables([outcomes(MATCHED, "As it was known"), outcomes(LATER, "As it is known now")])
        lake.replace("outcome_sets", Partition.of("outcome_sets", "kalshi", MATCHED), both)
        measured.append(evaluation(LATER, 0.5))
        lake.replace("settlement_agreement", Partition(), settlement())
    lake.replace("match_evaluation", Partition.of("match_evaluation", None, MATCHED), pa.concat_tables(measured))
    return lake


def settlement() -> pa.Table:
    row = {
        "kalshi_market_id": "KXGAME-26",
        "polymarket_market_id": "0xaa",
        "polymarket_yes_index": 0,
        "relation": "equivalent",
        "status": "approved",
        "accepted": True,
        "family": "game_winner",
        "kalshi_result": "yes",
        "polymarket_result": "no",
        "verdict": "disagreed",
        "difference": Decimal(1),
        "kalshi_resolved_at": LATER,
        "polymarket_resolved_at": LATER,
        "known_at": LATER,
    }
    return pa.Table.from_pylist([row], schema=table("settlement_agreement").schema)


@pytest.fixture(scope="module")
def then(tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    """The report as it could have been made then: there was nothing else to know."""
    folder = tmp_path_factory.mktemp("then")
    return pipeline.report_as_of(settings_in(folder), fill(folder, future=False), THEN - HOURS, THEN).files


def test_what_became_known_later_changes_no_byte(
    then: ReportFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, future=True)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "lake").rglob("*")}
    monkeypatch.setenv("ARB_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("ARB_REPORTS_PATH", str(tmp_path / "reports"))
    ran = CliRunner().invoke(app, ["report", "--hours", "3", "--as-of", f"{THEN:%Y-%m-%dT%H:%M:%S}", "--json"])
    assert ran.exit_code == 0, ran.output
    page = Path(json.loads(ran.stdout)["report"])
    assert page == tmp_path / "reports" / "as-of-2026-07-14T152000Z" / "report.html"
    assert page.read_bytes() == then.html.read_bytes()
    for name, path in then.csv.items():
        assert (page.parent / path.name).read_bytes() == path.read_bytes(), name
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "lake").rglob("*")} == before, "the lake is only read"


def test_it_tells_what_was_known(then: ReportFiles) -> None:
    page = then.html.read_text(encoding="utf-8")
    assert "As of 2026-07-14 15:20:00.000 UTC" in page
    assert "approved" in page
    assert "As it was known" in page
    assert "90.0 %" in page
    assert "rate 0.04" in page
    assert "no accepted opportunity is of a pair that is settled" in page
    opportunities = then.csv["opportunities"].read_text(encoding="utf-8")
    assert opportunities.count("true") >= 2
    assert "2026-07-14 15:01:40" in opportunities


def test_the_ordinary_report_of_the_same_lake_tells_otherwise(tmp_path: Path) -> None:
    lake = fill(tmp_path, future=True)
    settings = settings_in(tmp_path)
    pipeline.evaluate_hours(settings, lake, THEN - HOURS, THEN)
    page = pipeline.report(settings, lake, THEN - HOURS, THEN).files.html.read_text(encoding="utf-8")
    assert "refused" in page
    assert "As it is known now" in page


def test_an_instant_to_come_is_refused(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    tomorrow = settings.clock.now() + timedelta(days=1)
    with pytest.raises(ValueError, match="give a past instant"):
        pipeline.report_as_of(settings, Lake(str(tmp_path / "lake")), START, tomorrow)
