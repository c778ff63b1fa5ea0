import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from arb_pipeline.matching.outcome_sets import outcome_sets
from arb_pipeline.model import Event
from arb_pipeline.storage import Lake
from arb_pipeline.storage.outcome_sets import current_outcome_sets, outcome_sets_as_of, record_outcome_sets
from arb_pipeline_tests.matching.build import AT, market

LATER = AT + timedelta(days=1)


def event(venue: str, *answers: str, event_id: str = "", **changes: Any) -> Event:
    event_id = event_id or f"{venue}-E"
    markets = tuple(
        market(
            venue, f"{event_id}-{number}", f"Will the high temp in Oslo be {answer} on Nov 30, 2026?", yes_title=answer,
            event_id=event_id,
        )
        for number, answer in enumerate(answers)
    )  # fmt: skip
    facts: dict[str, Any] = {
        "title": "High temp in Oslo?", "mutually_exclusive": True, "markets": markets, "listed_markets": len(markets),
    } | changes  # fmt: skip
    return Event(venue=venue, event_id=event_id, **facts)


BRACKETS = ("47° or below", "48° to 49°", "50° or above")


def said(kalshi: str, polymarket: str, status: str = "auto", relation: str = "equivalent") -> Mapping[str, str]:
    return {
        "kalshi_market_id": kalshi, "polymarket_market_id": polymarket, "status": status, "relation": relation,
    }  # fmt: skip


def test_what_is_known_of_an_event() -> None:
    (row,) = outcome_sets([event("kalshi", *BRACKETS)], [], AT)
    assert (row["outcomes"], row["exclusive"], row["exhaustive"]) == (3, True, True)
    assert row["why"] == "the brackets adjoin and have both tails"
    assert json.loads(row["market_ids"]) == ["kalshi-E-0", "kalshi-E-1", "kalshi-E-2"]
    assert (row["partner_event_id"], row["paired"]) == (None, None)
    assert not outcome_sets([event("kalshi", BRACKETS[0])], [], AT)


def test_an_event_of_which_some_markets_are_not_netted_is_not_exclusive() -> None:
    whole = event("polymarket", *BRACKETS)
    netted = replace(whole, markets=tuple(replace(one, neg_risk=True) for one in whole.markets))
    partly = replace(whole, markets=(replace(whole.markets[0], neg_risk=True), *whole.markets[1:]))
    assert [row["exclusive"] for row in outcome_sets([netted, partly], [], AT)] == [True, False]


def test_the_partner_is_the_event_that_shares_most_questions() -> None:
    events = [
        event("kalshi", *BRACKETS), event("polymarket", *BRACKETS),
        event("polymarket", *BRACKETS, event_id="another"),
    ]  # fmt: skip
    matches = [
        said("kalshi-E-0", "polymarket-E-0", relation="inverted"),
        said("kalshi-E-1", "polymarket-E-1", status="review"),
        said("kalshi-E-2", "another-2"),
        said("kalshi-E-2", "another-1", status="rejected"),
        said("kalshi-E-2", "another-0", relation="kalshi_implies_polymarket"),
    ]
    found = {row["event_id"]: (row["partner_event_id"], row["paired"]) for row in outcome_sets(events, matches, AT)}
    assert found == {"kalshi-E": ("polymarket-E", 2), "polymarket-E": ("kalshi-E", 2), "another": ("kalshi-E", 1)}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def test_only_what_changed_is_written_and_the_past_stays(lake: Lake) -> None:
    first = outcome_sets([event("kalshi", *BRACKETS), event("polymarket", *BRACKETS)], [], AT)
    assert record_outcome_sets(lake, first, AT) == 2
    assert record_outcome_sets(lake, first, AT) == 0
    assert record_outcome_sets(lake, outcome_sets([event("kalshi", *BRACKETS)], [], LATER), LATER) == 0
    assert record_outcome_sets(lake, outcome_sets([event("kalshi", *BRACKETS[:2])], [], LATER), LATER) == 1
    newest = current_outcome_sets(lake).to_pylist()
    assert [(row["event_id"], row["exhaustive"]) for row in newest] == [("kalshi-E", False), ("polymarket-E", True)]
    before = outcome_sets_as_of(lake, LATER - timedelta(seconds=1)).to_pylist()
    assert [row["exhaustive"] for row in before] == [True, True]
    assert outcome_sets_as_of(lake, LATER).to_pylist() == newest


def test_an_event_that_was_found_later_is_told_only_where_asked_for(lake: Lake) -> None:
    record_outcome_sets(lake, outcome_sets([event("kalshi", *BRACKETS)], [], AT), AT)
    record_outcome_sets(lake, outcome_sets([event("kalshi", *BRACKETS[:2])], [], LATER), LATER)
    earlier = AT - timedelta(hours=1)
    assert outcome_sets_as_of(lake, earlier).num_rows == 0
    (row,) = outcome_sets_as_of(lake, earlier, or_first=True).to_pylist()
    assert (row["known_at"], row["outcomes"]) == (AT, 3)
    (row,) = outcome_sets_as_of(lake, LATER, or_first=True).to_pylist()
    assert row["outcomes"] == 2


def test_nothing_is_known_of_an_empty_lake(lake: Lake) -> None:
    assert current_outcome_sets(lake).num_rows == outcome_sets_as_of(lake, AT, or_first=True).num_rows == 0
