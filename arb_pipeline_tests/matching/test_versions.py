import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arb_pipeline.matching.versions import (
    current_matches,
    matches_as_of,
    record_matches,
    status_before_end,
    with_expired,
)
from arb_pipeline.model import Market, MarketStatus
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline.tables import table
from arb_pipeline_tests.matching.build import market

START = datetime(2026, 6, 1, 22, tzinfo=UTC)
HOUR = timedelta(hours=1)


def statement(kalshi: str = "K1", polymarket: str = "0x1", status: str = "review", **changes: Any) -> dict[str, Any]:
    row = {
        "kalshi_market_id": kalshi,
        "polymarket_market_id": polymarket,
        "polymarket_yes_index": 0,
        "relation": "equivalent",
        "status": status,
        "score": 7.0,
        "family": "fed",
        "vetoes": "[]",
        "explanation": "{}",
        "kalshi_rules_sha256": "a",
        "polymarket_rules_sha256": "b",
        "matcher_version": "1",
        "valid_from": START,
        "valid_to": None,
        "known_at": START,
    }
    return row | changes


def held(lake: Lake) -> dict[str, str]:
    return {row["kalshi_market_id"]: row["status"] for row in current_matches(lake).to_pylist()}


def then(lake: Lake, at: datetime, known_at: datetime | None = None) -> dict[str, str]:
    rows = matches_as_of(lake, at, known_at).to_pylist()
    return {row["kalshi_market_id"]: row["status"] for row in rows}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def test_a_run_appends_what_changed_and_ends_what_no_longer_holds(lake: Lake) -> None:
    rows = [statement(), statement("K2", "0x2"), statement("K3", "0x3", "rejected")]
    assert record_matches(lake, rows, START) == {"added": 3}
    later = START + 3 * HOUR  # the next day: another partition
    rows = [statement(status="approved"), statement("K2", "0x2", score=9.5)]
    assert record_matches(lake, rows, later) == {"changed": 1, "unchanged": 1, "ended": 1}
    versions = lake.read("market_matches").to_pylist()
    assert [(row["kalshi_market_id"], row["status"], row["valid_from"], row["valid_to"]) for row in versions] == [
        ("K1", "review", START, later),
        ("K1", "approved", later, None),
        ("K2", "review", START, None),
        ("K3", "rejected", START, later),
    ]
    assert all(row["known_at"] == row["valid_from"] for row in versions)
    assert held(lake) == {"K1": "approved", "K2": "review"}


def test_a_run_that_changes_nothing_writes_nothing(lake: Lake) -> None:
    told: dict[str, Any] = {
        "slots": [{"slot": "threshold", "kalshi": {"value": "3"}, "polymarket": None, "result": "unknown"}]
    }
    record_matches(lake, [statement(explanation=json.dumps(told))], START)
    before = lake.files("market_matches")
    told |= {"rank": 4, "margin": 0.3, "rivals": []}
    counts = record_matches(lake, [statement(explanation=json.dumps(told), score=1.0)], START + HOUR)
    assert counts == {"unchanged": 1}
    assert [file.entry.sha256 for file in lake.files("market_matches")] == [file.entry.sha256 for file in before]


@pytest.mark.parametrize(
    "changes",
    [
        {"relation": "inverted", "polymarket_yes_index": 1},
        {"kalshi_rules_sha256": "c"},
        {"vetoes": '["threshold: 3 against 4"]'},
        {"matcher_version": "2"},
        {"explanation": '{"override":{"void_states":{"tie":{"kalshi":"0.5","polymarket":"0"}}}}'},
        {"explanation": '{"slots":[{"slot":"x","kalshi":{"value":"1"},"polymarket":null,"result":"unknown"}]}'},
    ],
)
def test_what_a_reader_relies_on_makes_a_new_version(lake: Lake, changes: Mapping[str, Any]) -> None:
    record_matches(lake, [statement()], START)
    assert record_matches(lake, [statement(**changes)], START + HOUR) == {"changed": 1}


def test_the_past_is_told_by_what_was_known_then(lake: Lake) -> None:
    record_matches(lake, [statement()], START)
    approved, over = START + 2 * HOUR, START + 30 * HOUR
    record_matches(lake, [statement(status="approved")], approved)
    record_matches(lake, [], over)
    assert then(lake, START - HOUR) == {}
    assert then(lake, START + HOUR) == {"K1": "review"}
    assert then(lake, approved) == {"K1": "approved"}
    assert then(lake, over) == {}
    # By what was known before the end, the pair still stood at a later time, and its end was not known.
    assert then(lake, over, known_at=over - HOUR) == {"K1": "approved"}
    assert matches_as_of(lake, over, over - HOUR)["valid_to"].to_pylist() == [None]
    assert matches_as_of(lake, approved)["valid_to"].to_pylist() == [over]
    assert then(lake, approved, known_at=START) == {"K1": "review"}
    assert then(lake, approved, known_at=START - HOUR) == {}


def test_a_call_that_is_not_newer_changes_nothing(lake: Lake) -> None:
    record_matches(lake, [statement()], START)
    assert record_matches(lake, [statement(status="approved")], START) == {"unchanged": 1}
    assert record_matches(lake, [], START - HOUR) == {}
    assert held(lake) == {"K1": "review"}


def test_an_interrupted_run_is_made_good(lake: Lake) -> None:
    record_matches(lake, [statement()], START)
    later = START + 3 * HOUR
    cut_short = table("market_matches").schema
    fresh = current_matches(lake).from_pylist(
        [statement(status="approved", valid_from=later, known_at=later)], cut_short
    )
    lake.replace("market_matches", Partition.of("market_matches", None, later), fresh)
    assert held(lake) == {"K1": "approved"}
    assert record_matches(lake, [statement(status="approved")], later + HOUR) == {"unchanged": 1}
    assert [row["valid_to"] for row in lake.read("market_matches").to_pylist()] == [later, None]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("ABC"), st.sampled_from(["review", "approved"])), max_size=5))
def test_every_run_can_be_told_again(tmp_path_factory: pytest.TempPathFactory, runs: list[dict[str, str]]) -> None:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    for number, run in enumerate(runs):
        rows = [statement(name, f"0x{name}", status) for name, status in run.items()]
        record_matches(lake, rows, START + number * HOUR)
    for number, run in enumerate(runs):
        at = START + number * HOUR
        assert then(lake, at) == run
        assert then(lake, at + timedelta(minutes=59), known_at=at) == run
    assert held(lake) == (runs[-1] if runs else {})


def _markets(**statuses: MarketStatus) -> dict[tuple[str, str], Market]:
    named = {"K1": "kalshi", "0x1": "polymarket", "K9": "kalshi", "0x9": "polymarket"}
    listed = {"K9": MarketStatus.OPEN, "p9": MarketStatus.OPEN, **statuses}
    markets = {}
    for name, status in listed.items():
        market_id = name.replace("p", "0x")
        venue = named[market_id]
        made = market(venue, market_id, "?")
        markets[venue, market_id] = Market(
            **{field: getattr(made, field) for field in made.__struct_fields__} | {"status": status}
        )
    return markets


OPEN, CLOSED, SETTLED = MarketStatus.OPEN, MarketStatus.CLOSED, MarketStatus.SETTLED


def test_a_pair_whose_market_is_over_is_expired_and_keeps_what_it_was() -> None:
    before = [statement(status="approved")]
    for markets, because in (
        (_markets(K1=CLOSED, p1=OPEN), ["kalshi: closed"]),
        (_markets(K1=OPEN, p1=SETTLED), ["polymarket: settled"]),
        (_markets(K1=OPEN), ["polymarket: no longer listed"]),
    ):
        for stated in ([], [statement(status="review")]):
            (row,) = with_expired(stated, before, markets)
            assert row["status"] == "expired"
            assert json.loads(row["explanation"])["expired"] == {"was": "approved", "because": because}
            assert status_before_end(row) == "approved"
            # A later run, whatever the matcher then says, leaves it so.
            assert with_expired([statement(status="review")], [row], markets) == [row]
            assert with_expired([], [row], markets) == [row]


def test_open_pairs_and_those_ruled_out_stay_as_they_are() -> None:
    markets = _markets(K1=OPEN, p1=OPEN)
    assert with_expired([statement()], [statement()], markets) == [statement()]
    assert with_expired([], [statement()], markets) == []
    over = _markets(K1=CLOSED, p1=OPEN)
    for status in ("rejected", "refused"):
        assert with_expired([statement(status=status)], [], over) == [statement(status=status)]
        assert with_expired([], [statement(status=status)], over) == []


def test_a_venue_without_any_listing_ends_nothing() -> None:
    alone = {key: one for key, one in _markets(K1=OPEN).items() if key[0] == "kalshi"}
    assert with_expired([statement()], [statement()], alone) == [statement()]


def test_a_pair_that_opens_again_is_no_longer_expired() -> None:
    (over,) = with_expired([], [statement()], _markets(K1=CLOSED, p1=OPEN))
    assert with_expired([statement()], [over], _markets(K1=OPEN, p1=OPEN)) == [statement()]
