from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from arb_pipeline.matching.slots import Direction, Fact, Observation, Slots, is_placeholder, propositions
from arb_pipeline.matching.vocabulary import Action
from arb_pipeline.model import Event
from arb_pipeline_tests.matching.build import game, kalshi, market, polymarket


def read(event: Event, index: int = 0) -> Slots:
    return propositions(event, event.markets[0])[index].slots


def value(fact: Fact[Any] | None) -> object:
    return None if fact is None else fact.value


def test_listed_strikes_are_preferred_to_the_title() -> None:
    strike = {"strike_type": "between", "floor_strike": 3, "cap_strike": 3.25}
    fact = read(kalshi("Will the rate be above 2%?", strike=strike)).interval
    assert fact is not None
    assert (fact.source, fact.value.low, fact.value.high, fact.value.unit) == (
        "strike",
        Decimal(3),
        Decimal("3.25"),
        "%",
    )


@pytest.mark.parametrize("floor", [None, "", "n/a", float("nan"), True])
def test_a_malformed_strike_is_unknown_not_an_error(floor: object) -> None:
    fact = read(kalshi("Will it rain?", strike={"strike_type": "greater", "floor_strike": floor})).interval
    assert fact is None


def test_rules_decide_the_deadline_against_the_title() -> None:
    slots = read(
        kalshi(
            "Will Ann Lee resign by 2027?", rules="If Ann Lee resigns before Mar 1, 2026, the market resolves to Yes."
        )
    )
    assert slots.deadline == Fact(datetime(2026, 3, 1, 5, tzinfo=UTC), "rules")


def test_a_void_deadline_is_no_deadline() -> None:
    rules = (
        "This market will resolve according to the winner of the 2026 Cup. If no winner is declared by "
        'December 31, 2026, this market will resolve to "Other".'
    )
    assert read(polymarket("Will Peru win the 2026 Cup?", "Peru", rules)).deadline is None


def test_named_outcomes_state_a_proposition_each() -> None:
    event = game("Condors", "Llamas", "2026-06-03 19:00:00+00")
    first, second = propositions(event, event.markets[0])
    assert (first.index, value(first.slots.subject)) == (0, ("condors",))
    assert (second.index, value(second.slots.subject)) == (1, ("llamas",))
    assert value(first.slots.start) == datetime(2026, 6, 3, 19, tzinfo=UTC)


def test_yes_and_no_state_one() -> None:
    event = polymarket("Will it rain?")
    assert [item.index for item in propositions(event, event.markets[0])] == [0]


def test_a_spread_is_the_margin_that_the_named_side_needs() -> None:
    strike = {"sportsMarketType": "spreads", "line": -3.5}
    event = polymarket("Spread: Llamas (-3.5)", outcomes=("Llamas", "Condors"), strike=strike)
    first, second = (read(event, index).interval for index in (0, 1))
    assert first is not None
    assert second is not None
    assert (first.value.low, second.value.low) == (Decimal(4), Decimal(-3))


def test_rate_decisions() -> None:
    hold = read(kalshi("Will the Federal Reserve Hike rates by 0bps at their July 2026 meeting?"))
    assert (value(hold.direction), hold.interval, value(hold.meeting)) == (Direction.HOLD, None, (2026, 7))
    cut = read(kalshi("Will the Federal Reserve Cut rates by 25bps at their July 2026 meeting?"))
    assert value(cut.direction) is Direction.CUT
    assert value(cut.observation) is Observation.POINT


@pytest.mark.parametrize(
    ("title", "action"),
    [
        ("Will Ann Lee win the 2026 Ohio Republican primary?", Action.NOMINEE),
        ("Will Ann Lee win the 2026 Ohio Senate election?", Action.ELECTED),
        ("Will Ann Lee reach the final?", Action.REACH_FINAL),
        ("Will Ann Lee win the Open?", Action.WIN),
        ("Ann Lee out as Mayor of Lima?", Action.LEAVE),
        ("Oklahoma City Thunder and the southern route", None),
    ],
)
def test_actions_are_whole_words_and_the_more_specific_counts(title: str, action: Action | None) -> None:
    assert value(read(polymarket(title)).action) is action


def test_negation_is_read_but_not_no_change() -> None:
    assert read(polymarket("Will Ann Lee visit Peru?")).affirmative
    assert not read(polymarket("Will Ann Lee not visit Peru?")).affirmative
    assert read(polymarket("Will there be no change in interest rates?")).affirmative
    assert not read(polymarket("Will Ann Lee remain in office?")).affirmative


def test_a_year_is_found_in_the_ticker_or_stays_open() -> None:
    title = "Will Ann Lee resign before April 1?"
    assert value(read(kalshi(title, market_id="KXA-26APR01")).deadline) == datetime(2026, 4, 1, 4, tzinfo=UTC)
    assert read(kalshi(title)).incomplete


@pytest.mark.parametrize("name", ["Other", "Person B", "Player AB"])
def test_placeholders_stand_for_nothing(name: str) -> None:
    assert is_placeholder(market("polymarket", "0x1", "Who?", yes_title=name))


def test_bundles_and_reserve_outcomes_are_placeholders() -> None:
    assert is_placeholder(market("polymarket", "0x1", "Who?", strike={"negRiskOther": True}))
    assert is_placeholder(market("kalshi", "KX", "Legs", strike={"mve_collection_ticker": "KXMVE"}))
    assert not is_placeholder(market("polymarket", "0x1", "Who?", yes_title="Ann Lee"))


def test_a_long_title_is_read_in_bounded_time() -> None:
    title = "Will " + "Ann Lee and " * 300 + "at the Of The And " * 300 + "win?"
    assert read(polymarket(title, "Ann Lee", title * 3)).subject is not None


@pytest.mark.parametrize(
    ("rules", "mode"),
    [
        ("meet in person by June 30 (virtual meetings and phone calls do not count).", "in person"),
        ("meet in person by June 30; a phone call does not qualify.", "in person"),
        ("meet by June 30. Virtual meetings will not count.", "in person"),
        ("meet by June 30. Phone calls, video calls and letters don't count.", "in person"),
        ("meet by June 30, not by phone.", "in person"),
        ("meet by June 30. A phone call counts, but a letter does not count.", "any"),
        ("meet by June 30. Video calls count.", "any"),
        ("meet in person or by phone by June 30.", "any"),
        ("meet by June 30.", None),
    ],
)
def test_a_way_of_meeting_that_is_ruled_out_is_none(rules: str, mode: str | None) -> None:
    title = "Will Ann Lee and Bob Ray meet by June 30, 2026?"
    slots = read(polymarket(title, rules=f"This market resolves to Yes if Ann Lee and Bob Ray {rules}"))
    assert value(slots.mode) == mode
