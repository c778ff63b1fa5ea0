"""Each way in which two questions look alike and are not, by name."""

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from arb_pipeline.matching.slots import propositions
from arb_pipeline.matching.vetoes import compare, same_name
from arb_pipeline.model import Event, Relation
from arb_pipeline_tests.matching.build import game, judged, kalshi, polymarket

BILL = "If the Harbour Act becomes law before Jan 1, 2027, then the market resolves to Yes."

TRUE_PAIRS = {
    "before a day is by the day before": (
        kalshi("Will Ann Lee visit Peru before Jan 1, 2027?"),
        polymarket("Will Ann Lee visit Peru by December 31, 2026?"),
    ),
    "nominee is winner of the primary": (
        kalshi("Will Ann Lee be the Republican nominee for Governor in Ohio?", "Ann Lee"),
        polymarket("Will Ann Lee win the Ohio Governor Republican primary?", "Ann Lee"),
    ),
    "strike from metadata": (
        kalshi("Bitcoin price on Dec 31, 2026 at 5pm EST?", "$100,000 or above",
               strike={"strike_type": "greater", "floor_strike": 99999.99}),
        polymarket("Will Bitcoin be at or above $100k? at 5pm ET on December 31, 2026", "$100,000 or higher"),
    ),
    "hike of zero is no change": (
        kalshi("Will the Federal Reserve Hike rates by 0bps at their July 2026 meeting?", "Fed maintains rate"),
        polymarket("Will there be no change in Fed interest rates after the July 2026 meeting?", "No change"),
    ),
    "more than 25 is 50 or more on the grid of decisions": (
        kalshi("Will the Federal Reserve Cut rates by >25bps at their July 2026 meeting?", "Cut >25bps"),
        polymarket("Will the Fed decrease interest rates by 50+ bps after the July 2026 meeting?", "50+ bps decrease"),
    ),
    "whole degrees": (
        kalshi("Will the high temp in Oslo be >49° on Nov 30, 2026?", "50° or above",
               strike={"strike_type": "greater", "floor_strike": 49}),
        polymarket("Will the highest temperature in Oslo be 50°F or higher on November 30, 2026?", "50°F or higher"),
    ),
    "accents and short names": (
        kalshi("Will Jose Nunez win the 2026 Golden Boot?", "Jose Nunez"),
        polymarket("Will José Núñez be the 2026 Golden Boot winner?", "José Núñez (FC)"),
    ),
}  # fmt: skip

TRAPS = {
    "threshold": (
        kalshi("Will Bitcoin be above $120,000 on Dec 31, 2026?"),
        polymarket("Will Bitcoin be above $125,000 on December 31, 2026?"),
    ),
    "unit": (
        kalshi("Will the tariff on steel be above 25% on Dec 31, 2026?"),
        polymarket("Will the tariff on steel be above $25 on December 31, 2026?"),
    ),
    "inclusive end of a published percentage": (
        kalshi("Will CPI inflation be above 2.8% in December 2026?"),
        polymarket("Will CPI inflation be at least 2.8% in December 2026?"),
    ),
    "deadline": (
        kalshi("Will Ann Lee visit Peru before May 1, 2026?"),
        polymarket("Will Ann Lee visit Peru by March 31, 2026?"),
    ),
    "by or on": (
        kalshi("Will Bitcoin be above $90,000 on Dec 31, 2026?"),
        polymarket("Will Bitcoin be above $90,000 by December 31, 2026?"),
    ),
    "point or touch": (
        kalshi("Will Bitcoin close above $90,000 on Dec 31, 2026?"),
        polymarket("Will Bitcoin reach $90,000 by December 31, 2026?"),
    ),
    "meeting": (
        kalshi("Will the Federal Reserve Cut rates by 25bps at their July 2026 meeting?", "Cut 25bps"),
        polymarket("Will the Fed decrease interest rates by 25 bps after the September 2026 meeting?", "25 bps cut"),
    ),
    "meeting of another year": (
        kalshi("Will the Federal Reserve Cut rates by 25bps at their July 2027 meeting?", "Cut 25bps"),
        polymarket("Will the Fed decrease interest rates by 25 bps after the July 2026 meeting?", "25 bps cut"),
    ),
    "at a meeting or by it": (
        kalshi("Fed hikes rates by 25bps at June 2026 meeting"),
        polymarket("Fed hikes rates by 25bps by June 2026 meeting?"),
    ),
    "cut or hike": (
        kalshi("Will the Federal Reserve Cut rates by 25bps at their July 2026 meeting?"),
        polymarket("Will the Fed increase interest rates by 25 bps after the July 2026 meeting?"),
    ),
    "one decision or a count of them": (
        kalshi("Fed cuts rates by 25bps at Dec 2026 meeting"),
        polymarket("Will 4 Fed rate cuts happen in 2026?"),
    ),
    "one decision or a row of them": (
        kalshi("Fed cuts rates by 25bps at Apr 2026 meeting"),
        polymarket("Will the Fed Cut-Pause-Pause in the next three decisions (Apr-Jun-Jul)?"),
    ),
    "upper or lower bound": (
        kalshi("Fed upper bound above 1.25% after Jan 2027 meeting"),
        polymarket("Will the Fed's lower bound be above 1.25% after January 2027 meeting?"),
    ),
    "nominee or winner": (
        kalshi("Will Ann Lee be the Democratic nominee for Senate in Ohio in 2026?", "Ann Lee"),
        polymarket("Will Ann Lee win the 2026 Ohio Senate election?", "Ann Lee"),
    ),
    "reach the final or win": (
        kalshi("Will Ann Lee win the 2026 Open?", "Ann Lee"),
        polymarket("Will Ann Lee reach the final of the 2026 Open?", "Ann Lee"),
    ),
    "margin or win": (
        kalshi("Will Ann Lee win the 2026 Ohio Governor election?", "Ann Lee"),
        polymarket("Will Ann Lee win the 2026 Ohio Governor election by more than 5 points?"),
    ),
    "edition": (
        kalshi("Will Peru win the 2026 World Cup?", "Peru"),
        polymarket("Will Peru win the 2030 World Cup?", "Peru"),
    ),
    "answer": (
        kalshi("Will South Korea win the 2026 World Cup?", "South Korea"),
        polymarket("Will South Africa win the 2026 World Cup?", "South Africa"),
    ),
    "father or son": (
        kalshi("Will Ann Lee visit Peru before 2027?", "Bob Lee Jr."),
        polymarket("Will Ann Lee visit Peru before 2027?", "Bob Lee"),
    ),
    "competition": (
        kalshi("Will Celtic win the 2026 Champions League?", "Celtic"),
        polymarket("Will Celtic win the 2026 Europa League?", "Celtic"),
    ),
    "women or men": (
        kalshi("Will Peru win the 2026 Women's Open?", "Peru"),
        polymarket("Will Peru win the 2026 Men's Open?", "Peru"),
    ),
    "award": (
        kalshi("Will Long Road win Best Picture at the 2027 Oscars?", "Long Road"),
        polymarket("Will Long Road win Best Director at the 2027 Oscars?", "Long Road"),
    ),
    "city": (
        kalshi("Will the high temp in Oslo be above 50° on Nov 30, 2026?"),
        polymarket("Will the highest temperature in Rome be above 50°F on November 30, 2026?"),
    ),
    "weather station": (
        kalshi("Will the high temp in Oslo be above 50° on Nov 30, 2026?", rules="As measured at Frogner Park."),
        polymarket("Will the high temp in Oslo be above 50°F on November 30, 2026?", rules="At Fornebu Airport."),
    ),
    "price source": (
        kalshi("Will Bitcoin be above $90,000 on Dec 31, 2026?", rules="According to CF Benchmarks BRTI."),
        polymarket("Will Bitcoin be above $90,000 on December 31, 2026?", rules="The Binance 1-minute candle decides."),
    ),
    "minute": (
        kalshi("Will Bitcoin be above $90,000 on Dec 31, 2026 at 5pm EST?"),
        polymarket("Will Bitcoin be above $90,000 on December 31, 2026 at noon ET?"),
    ),
    "office that is left": (
        kalshi("Will Ann Lee leave as Mayor of Lima before 2027?"),
        polymarket("Ann Lee out as Senator from Lima before 2027?"),
    ),
    "next to leave or leave": (
        kalshi("Will Ann Lee leave the cabinet before 2027?", "Ann Lee"),
        polymarket("Will Ann Lee be the next to leave the cabinet before 2027?", "Ann Lee"),
    ),
    "one of a list": (
        kalshi("Will Ann Lee and Bob Ray meet before 2027?"),
        polymarket("Will Ann Lee, Bob Ray, and Cleo Poe meet before 2027?"),
    ),
    "in person or by phone": (
        kalshi("Ann Lee and Bob Ray meet before 2027?", rules="A phone call or a video call is a meeting."),
        polymarket("Ann Lee and Bob Ray meet before 2027?", rules="They have to meet in person."),
    ),
    "chamber or law": (
        kalshi("Will the Harbour Act become law before Jan 1, 2027?", rules=BILL),
        polymarket("Will the Harbour Act pass the House by December 31, 2026?"),
    ),
    "pardon or charge": (
        kalshi("Will Ann Lee be pardoned before 2027?"),
        polymarket("Will Ann Lee be charged with a crime before 2027?"),
    ),
    "spread or moneyline": (
        kalshi("Lima wins Cusco v Lima by more than 1.5 goals", "Lima"),
        polymarket("Will Lima FC win (Cusco FC vs. Lima FC)?", "Lima FC"),
    ),
    "district": (
        kalshi("Will Ann Lee be the Democratic nominee for NY-12?", "Ann Lee"),
        polymarket("Will Ann Lee be the Democratic nominee for NY-17?", "Ann Lee"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRUE_PAIRS)
def test_true_pair(name: str) -> None:
    judgement = judged(*TRUE_PAIRS[name])
    assert judgement.relation is Relation.EQUIVALENT, judgement.reasons
    assert judgement.polymarket_yes_index == 0


@pytest.mark.parametrize("name", TRAPS)
def test_trap(name: str) -> None:
    first, second = TRAPS[name]
    judgement = judged(first, second)
    assert judgement.relation not in {Relation.EQUIVALENT, Relation.INVERTED}
    assert judgement.verdict.vetoes, f"not proposed for want of weight alone: {judgement.reasons}"


@pytest.mark.parametrize("name", TRAPS)
def test_trap_with_the_venues_exchanged(name: str) -> None:
    first, second = TRAPS[name]
    assert not judged(second, first).proposed


@pytest.mark.parametrize("name", TRAPS)
def test_what_one_side_does_not_say_never_vetoes(name: str) -> None:
    first, second = (propositions(event, event.markets[0])[0].slots for event in TRAPS[name])
    for slot, _ in first.facts():
        if slot == "window_start":
            continue  # a month that one side alone names is part of the other's longer time
        unsaid: dict[str, Any] = {slot: None}
        reasons = compare(replace(first, **unsaid), second).vetoes
        assert not any(reason.startswith(f"{slot}:") for reason in reasons if slot != "subject")


INVERTED = {
    "other comparator": (
        kalshi("Will Bitcoin be above $90,000 on Dec 31, 2026?"),
        polymarket("Will Bitcoin be $90,000 or lower on December 31, 2026?"),
    ),
    "negation": (
        kalshi("Will Ann Lee visit Peru before Jan 1, 2027?"),
        polymarket("Will Ann Lee not visit Peru by December 31, 2026?"),
    ),
    "stays in office": (
        kalshi("Will Ann Lee leave office as Mayor of Lima before Jan 1, 2027?"),
        polymarket("Will Ann Lee remain Mayor of Lima through December 31, 2026?"),
    ),
    "change or none": (
        kalshi("Will the Federal Reserve Hike rates by 0bps at their July 2026 meeting?", "Fed maintains rate"),
        polymarket("Will the Fed change interest rates at its July 2026 meeting?", "Fed"),
    ),
}


@pytest.mark.parametrize("name", INVERTED)
def test_inverted(name: str) -> None:
    judgement = judged(*INVERTED[name])
    assert judgement.relation is Relation.INVERTED, judgement.reasons
    assert judgement.polymarket_yes_index == 1


def test_turned_round_twice_is_not_guessed() -> None:
    judgement = judged(
        kalshi("Will Bitcoin be above $90,000 on Dec 31, 2026?"),
        polymarket("Will Bitcoin not be $90,000 or lower on December 31, 2026?"),
    )
    assert not judgement.proposed


RULES = "If the Lima Llamas win, it resolves to Llamas. If the Cusco Condors win, it resolves to Condors."


@pytest.mark.parametrize(("answer", "index"), [("Lima", 1), ("Cusco", 0)])
def test_sides_are_aligned_by_name_with_cities_from_the_rules(answer: str, index: int) -> None:
    home = kalshi("Lima at Cusco Winner?", answer, occurrence_at=datetime(2026, 6, 3, 21, tzinfo=UTC))
    judgement = judged(home, game("Condors", "Llamas", "2026-06-03 19:00:00+00", rules=RULES))
    assert judgement.proposed, judgement.reasons
    assert judgement.polymarket_yes_index == index
    assert judgement.relation is (Relation.INVERTED if index else Relation.EQUIVALENT)
    assert any(caveat.startswith("void") for caveat in judgement.verdict.caveats)


def test_the_return_game_is_another_game() -> None:
    home = kalshi("Lima at Cusco Winner?", "Lima", occurrence_at=datetime(2026, 6, 3, 21, tzinfo=UTC))
    judgement = judged(home, game("Condors", "Llamas", "2026-06-04 19:00:00+00", rules=RULES))
    assert any(reason.startswith("start") for reason in judgement.reasons)


def total(line: Any, outcomes: tuple[str, str] = ("Over", "Under")) -> Event:
    return polymarket(
        "Llamas vs. Condors: O/U",
        outcomes=outcomes,
        strike={"sportsMarketType": "totals", "line": line, "gameStartTime": "2026-06-03 19:00:00+00"},
        rules=RULES,
    )


def test_lines_are_compared_exactly_and_over_is_found_by_name() -> None:
    over = kalshi(
        "Lima at Cusco: Total points",
        "Over 47.5 points scored",
        strike={"strike_type": "greater", "floor_strike": 47.5},
        occurrence_at=datetime(2026, 6, 3, 21, tzinfo=UTC),
    )
    assert judged(over, total(47.5)).polymarket_yes_index == 0
    assert judged(over, total(47.5)).proposed
    assert judged(over, total(47.5, ("Under", "Over"))).polymarket_yes_index == 1
    assert not judged(over, total(48)).proposed
    assert not judged(over, total(48.5)).proposed


def test_a_meeting_without_a_year_is_never_called_equivalent() -> None:
    judgement = judged(
        kalshi("Will the Federal Reserve Cut rates by 25bps at their June 2026 meeting?"),
        polymarket("Will the Fed decrease interest rates by 25 bps after the June meeting?"),
    )
    assert judgement.verdict.vetoes == ()
    assert not judgement.proposed


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("golden state", "golden state warriors", True),
        ("los angeles l", "los angeles lakers", True),
        ("los angeles l", "los angeles clippers", False),
        ("zelenskyy", "volodymyr zelensky", True),
        ("korea", "south korea", False),
        ("bob lee", "bob lee jr", False),
        ("ann lee", "ann ray", False),
    ],
)
def test_names(first: str, second: str, same: bool) -> None:
    assert same_name(tuple(first.split()), tuple(second.split())) is same
    assert same_name(tuple(second.split()), tuple(first.split())) is same
