"""The known ways in which such systems lose money on pairs, each by its name: F1 to F17, and the trap catalogue."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from arb_pipeline.matching.alignment import exhaustiveness
from arb_pipeline.matching.families import propositions
from arb_pipeline.matching.matcher import match
from arb_pipeline.matching.rules import Result
from arb_pipeline.matching.slots import is_placeholder
from arb_pipeline.model import Event, MatchStatus, Relation
from arb_pipeline_tests.matching.build import AT, NONE, game, judged, kalshi, market, polymarket

START = datetime(2026, 12, 6, 1, tzinfo=UTC)
KICK_OFF = "2026-12-06 00:00:00+00"
SIDES = "If the Lima Llamas win, it resolves to Llamas. If the Cusco Condors win, it resolves to Condors."


def yes(rule: str) -> str:
    return f"If {rule}, then the market resolves to Yes."


def same(first: Event, second: Event) -> bool:
    return judged(first, second).proposed


def accepted(first: Event, second: Event) -> bool:
    judgement = judged(first, second)
    return judgement.proposed and not judgement.blockers


def vetoing(first: Event, second: Event) -> set[str]:
    """Slots that rule a pair out."""
    return {reason.partition(":")[0] for reason in judged(first, second).verdict.vetoes}


def relation(first: Event, second: Event) -> Relation:
    return judged(first, second).relation


# --- F1 to F17 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ours", "theirs"), [("120,000", "125,000"), ("120,000", "120,001")])
def test_f1_threshold_or_bracket_differs(ours: str, theirs: str) -> None:
    assert "interval" in vetoing(
        kalshi(f"Will Bitcoin be above ${ours} on Dec 31, 2026?"),
        polymarket(f"Will Bitcoin be above ${theirs} on December 31, 2026?"),
    )


def test_f2_comparator_and_inclusivity() -> None:
    above = kalshi("Will CPI inflation be above 2.8% in December 2026?")
    assert relation(above, polymarket("Will CPI inflation be at least 2.8% in December 2026?")) is (
        Relation.KALSHI_IMPLIES_POLYMARKET
    )
    whole = kalshi("Will Ann Lee win more than 35 games?", "Ann Lee")
    assert "interval" not in {
        reason.partition(":")[0]
        for reason in judged(whole, polymarket("Will Ann Lee win at least 36 games?", "Ann Lee")).reasons
    }


@pytest.mark.parametrize(
    "theirs",
    [
        "Will Bitcoin reach $90,000 by December 31, 2026?",
        "Will Bitcoin hit $90,000 in 2026?",
        "How many times will Bitcoin be above $90,000 in 2026?",
    ],
)
def test_f3_point_touch_count(theirs: str) -> None:
    assert "observation" in vetoing(kalshi("Will Bitcoin close above $90,000 on Dec 31, 2026?"), polymarket(theirs))


def test_f4_deadline() -> None:
    before = kalshi("Will Ann Lee visit Peru before Jan 1, 2027?")
    assert relation(before, polymarket("Will Ann Lee visit Peru by December 31, 2026?")) is Relation.EQUIVALENT
    assert relation(before, polymarket("Will Ann Lee visit Peru in 2026?")) is Relation.EQUIVALENT
    assert not same(before, polymarket("Will Ann Lee visit Peru on December 31, 2026?"))
    assert not same(before, polymarket("Will Ann Lee visit Peru by December 30, 2026?"))


def test_f5_timezone() -> None:
    noon = polymarket("Will Bitcoin be above $90,000 on December 31, 2026 at noon ET?")
    assert not same(kalshi("Will Bitcoin be above $90,000 on Dec 31, 2026 at 5pm EST?"), noon)
    utc = polymarket(
        "Will Ann Lee visit Peru by December 31, 2026, 11:59 PM UTC?",
        rules=yes("Ann Lee visits Peru by December 31, 2026, 11:59 PM UTC"),
    )
    judgement = judged(kalshi("Will Ann Lee visit Peru before Jan 1, 2027?"), utc)
    assert any(caveat.startswith("deadline: deadlines 5:0") for caveat in judgement.verdict.caveats)
    assert judgement.blockers


@pytest.mark.parametrize(
    "theirs",
    [
        "Will Ann Lee win the 2026 Ohio Senate election?",
        "Will Ann Lee win the 2026 Ohio Senate Democratic runoff?",
        "Will Ann Lee announce a run for the 2026 Ohio Senate?",
    ],
)
def test_f6_stage(theirs: str) -> None:
    ours = kalshi("Will Ann Lee be the Democratic nominee for Senate in Ohio in 2026?", "Ann Lee")
    assert "action" in vetoing(ours, polymarket(theirs, "Ann Lee"))


def test_f7_scope() -> None:
    whole = kalshi("Lima at Cusco Winner?", "Lima", occurrence_at=START, rules=SIDES)
    for kind in ("first_half_moneyline", "spreads"):
        strike: dict[str, Any] = {"sportsMarketType": kind, "gameStartTime": KICK_OFF, "line": -1.5}
        part = polymarket("Llamas vs. Condors: 1H", outcomes=("Llamas", "Condors"), strike=strike, rules=SIDES)
        assert not same(whole, part), kind


@pytest.mark.parametrize("source", ["Chainlink", "the Binance 1-minute candle", "Coinbase"])
def test_f8_who_decides(source: str) -> None:
    ours = kalshi("Will Bitcoin be above $90,000 on Dec 31, 2026?", rules="According to CF Benchmarks BRTI.")
    theirs = polymarket("Will Bitcoin be above $90,000 on December 31, 2026?", rules=f"{source} decides.")
    assert vetoing(ours, theirs) == {"source_class"}


def test_f9_void_tie_postponement() -> None:
    ours = kalshi(
        "Lima at Cusco Winner?",
        "Lima",
        occurrence_at=START,
        rules=f"{SIDES} If it is canceled, the market resolves to a fair price.",
    )
    theirs = game("Llamas", "Condors", KICK_OFF, rules=f"{SIDES} If it is canceled, the market resolves to 50-50.")
    judgement = judged(ours, theirs)
    assert judgement.proposed
    assert judgement.rules is not None
    assert judgement.rules.result("if cancelled") is Result.DIFFERS
    assert (Decimal(0), Decimal("0.5")) in (judgement.rules.void_states or {}).values()
    assert any("if cancelled" in blocker for blocker in judgement.blockers)


@pytest.mark.parametrize(("names", "index"), [(("Llamas", "Condors"), 0), (("Condors", "Llamas"), 1)])
def test_f10_inverted_outcome(names: tuple[str, str], index: int) -> None:
    ours = kalshi("Lima at Cusco Winner?", "Lima", occurrence_at=START, rules=SIDES)
    judgement = judged(ours, game(*names, KICK_OFF, rules=SIDES))
    assert judgement.polymarket_yes_index == index
    assert judgement.relation is (Relation.INVERTED if index else Relation.EQUIVALENT)


def test_f11_an_event_is_no_market() -> None:
    assert "observation" in vetoing(
        kalshi("Will the WTI front-month settle oil price be above $106 on Apr 10, 2026?"),
        polymarket("What will WTI Crude Oil (WTI) hit in April 2026?"),
    )


def test_f12_placeholders_and_other() -> None:
    other = market("polymarket", "0xo", "Will another person win?", yes_title="Other", strike={"negRiskOther": True})
    reserve = market("polymarket", "0xp", "Will Person B win?", yes_title="Person B")
    assert is_placeholder(other)
    assert is_placeholder(reserve)
    flagged = Event(
        venue="kalshi",
        event_id="KX",
        title="Who?",
        mutually_exclusive=True,
        listed_markets=2,
        markets=(
            market("kalshi", "KX1", "Who?", yes_title="Ann Lee"),
            market("kalshi", "KX2", "Who?", yes_title="Bob Ray"),
        ),
    )
    found = [propositions(flagged, one)[0] for one in flagged.markets]
    assert not exhaustiveness(flagged, found).proven, "at most one is not at least one"


@pytest.mark.parametrize(
    ("ours", "theirs"), [("Bob Lee", "Bob Lee Jr."), ("South Korea", "North Korea"), ("Guinea", "Guinea Bissau")]
)
def test_f13_homonyms(ours: str, theirs: str) -> None:
    assert "subject" in vetoing(
        kalshi(f"Will {ours} win the 2026 World Cup?", ours),
        polymarket(f"Will {theirs} win the 2026 World Cup?", theirs),
    )


def test_f14_recycled_listing() -> None:
    ours = kalshi("Will Ann Lee win the Lima Open in 2026?", "Ann Lee")
    assert "editions" in vetoing(ours, polymarket("Will Ann Lee win the Lima Open in 2027?", "Ann Lee"))


@pytest.mark.parametrize("start", ["2026-12-05 00:00:00+00", "2026-12-07 00:00:00+00", "2026-12-06 12:00:00+00"])
def test_f15_the_same_game_on_another_day(start: str) -> None:
    ours = kalshi("Lima at Cusco Winner?", "Lima", occurrence_at=START, rules=SIDES)
    assert vetoing(ours, game("Llamas", "Condors", start, rules=SIDES)) == {"start"}


def test_f16_unscheduled_events() -> None:
    title = "Will the Fed cut rates by 25 bps at its July 2026 meeting?"
    ours = kalshi(title, rules="An emergency cut does not count.")
    judgement = judged(ours, polymarket(title, rules="An unscheduled cut counts too."))
    assert judgement.proposed
    assert any("unscheduled differs" in blocker for blocker in judgement.blockers)


def test_f17_combos() -> None:
    combo = kalshi("Lima and Cusco both win?", strike={"mve_collection_ticker": "KXMVE-1"})
    assert is_placeholder(combo.markets[0])
    assert not match([combo], [polymarket("Lima and Cusco both win?")], NONE, AT).matches


# --- the trap catalogue -------------------------------------------------------------------------------------


def temperature(station: str, source: str) -> Callable[..., Event]:
    rule = f"the highest temperature at {station} on Nov 30, 2026 is above 49° according to {source}"
    return lambda venue: venue("Will the high temp in New York be >49° on Nov 30, 2026?", rules=yes(rule))


VETOED_BY = {
    "NYC temperature: Central Park or LaGuardia": "station",
    "NYC temperature: NWS or Wunderground": "source_class",
    "BTC 5-minute or 15-minute window": "clock",
    "Binance candle or CF Benchmarks": "source_class",
    "top 5 or top 10": "numbers",
    "nominee or winner": "action",
    "by or on a date": "observation",
    "at least or more than": "interval",
    "total line 47.5 or 48": "interval",
    "regulation or overtime": "period",
    "three-way or two-way result": "ways",
}
TRAPS: dict[str, tuple[Event, Event]] = {
    "NYC temperature: Central Park or LaGuardia": (
        temperature("Central Park Observatory", "the National Weather Service")(kalshi),
        temperature("LaGuardia Airport", "the National Weather Service")(polymarket),
    ),
    "NYC temperature: NWS or Wunderground": (
        temperature("Central Park", "the National Weather Service")(kalshi),
        temperature("Central Park", "Wunderground")(polymarket),
    ),
    "BTC 5-minute or 15-minute window": (
        kalshi("Bitcoin up in the 15 minutes to 5:15 PM ET on Dec 1, 2026?", rules="CF Benchmarks decides."),
        polymarket(
            "Bitcoin Up or Down - December 1, 2026, 5:10PM-5:15PM ET", outcomes=("Up", "Down"), rules="Chainlink."
        ),
    ),
    "Binance candle or CF Benchmarks": (
        kalshi("Will Ethereum be above $4,000 on Dec 31, 2026?", rules="According to CF Benchmarks ERTI."),
        polymarket("Will Ethereum be above $4,000 on December 31, 2026?", rules="The Binance 1-minute candle."),
    ),
    "top 5 or top 10": (
        kalshi("Will Ann Lee finish in the top 5 at the 2026 Lima Open?", "Ann Lee"),
        polymarket("Will Ann Lee finish in the top 10 at the 2026 Lima Open?", "Ann Lee"),
    ),
    "nominee or winner": (
        kalshi("Will Ann Lee be the Republican nominee for Governor in Ohio in 2026?", "Ann Lee"),
        polymarket("Will Ann Lee win the 2026 Ohio Governor election?", "Ann Lee"),
    ),
    "by or on a date": (
        kalshi("Will Ethereum be above $4,000 by Dec 31, 2026?"),
        polymarket("Will Ethereum be above $4,000 on December 31, 2026?"),
    ),
    "at least or more than": (
        kalshi("Will unemployment be at least 4.5% in November 2026?"),
        polymarket("Will unemployment be more than 4.5% in November 2026?"),
    ),
    "total line 47.5 or 48": (
        kalshi(
            "Lima at Cusco: Total points",
            "Over 47.5 points",
            occurrence_at=START,
            rules=SIDES,
            strike={"strike_type": "greater", "floor_strike": 47.5},
        ),
        polymarket(
            "Llamas vs. Condors: O/U 48",
            outcomes=("Over", "Under"),
            rules=SIDES,
            strike={"sportsMarketType": "totals", "line": 48, "gameStartTime": KICK_OFF},
        ),
    ),
    "regulation or overtime": (
        kalshi("Will Lima win in regulation time (Lima at Cusco)?", "Lima", occurrence_at=START, rules=SIDES),
        game("Llamas", "Condors", KICK_OFF, rules=SIDES),
    ),
    "three-way or two-way result": (
        Event(
            venue="kalshi",
            event_id="KXG",
            title="Lima vs Cusco Winner?",
            mutually_exclusive=True,
            markets=tuple(
                market(
                    "kalshi",
                    f"KXG-{name}",
                    f"Lima vs Cusco Winner? {name}",
                    yes_title=name,
                    occurrence_at=START,
                    rules=SIDES,
                )
                for name in ("Lima", "Cusco", "Tie")
            ),
        ),
        game("Llamas", "Condors", KICK_OFF, rules=SIDES),
    ),
}


@pytest.mark.parametrize("name", TRAPS)
def test_trap(name: str) -> None:
    assert not same(*TRAPS[name])
    assert VETOED_BY[name] in vetoing(*TRAPS[name])


def test_trap_fair_price_or_half_or_plain_no() -> None:
    ours = f"{SIDES} If it is canceled, the market resolves to a fair price."
    for pays in ("50-50", 'to "No"'):
        theirs = f"{SIDES} If it is canceled, the market resolves {pays}."
        assert not accepted(
            kalshi("Lima at Cusco Winner?", "Lima", occurrence_at=START, rules=ours),
            game("Llamas", "Condors", KICK_OFF, rules=theirs),
        )


def test_trap_early_close_is_told() -> None:
    ours = kalshi(
        "Will Ann Lee visit Peru before Jan 1, 2027?", rules="The market will close early. Ann Lee visits Peru."
    )
    judgement = judged(ours, polymarket("Will Ann Lee visit Peru by December 31, 2026?", rules="Ann Lee visits Peru."))
    assert judgement.rules is not None
    assert ("early close", "may end early", "") in {
        (line.field, line.kalshi, line.polymarket) for line in judgement.rules.lines
    }


def test_trap_augmented_other_is_no_partner() -> None:
    ours = kalshi("Will another person win the 2026 Lima Open?", "Other")
    theirs = polymarket("Will another person win the 2026 Lima Open?", "Other", strike={"negRiskOther": True})
    assert not match([ours], [theirs], NONE, AT).matches


def test_trap_prices_that_add_up_to_one_are_no_match() -> None:
    ours = kalshi("Will Ann Lee win the 2026 Lima Open?", "Ann Lee", last_trade_price="0.6")
    theirs = polymarket("Will Bob Ray win the 2026 Lima Open?", "Bob Ray", last_trade_price="0.4")
    assert relation(ours, theirs) is Relation.EXCLUSIVE


def test_trap_duplicate_pairings() -> None:
    ours = kalshi("Will Ann Lee visit Peru before Jan 1, 2027?", market_id="KX1")
    twice = [polymarket("Will Ann Lee visit Peru by December 31, 2026?", market_id=name) for name in ("0x1", "0x2")]
    found = match([ours], twice, NONE, AT).matches
    assert sum(item.relation is Relation.EQUIVALENT for item in found) == 1
    assert {item.status for item in found} == {MatchStatus.REVIEW, MatchStatus.REJECTED}


def test_a_changed_word_of_a_rule_is_a_changed_market() -> None:
    ours = kalshi("Will Ann Lee visit Peru before Jan 1, 2027?", rules=yes("Ann Lee visits Peru before Jan 1, 2027"))
    other = msgspec.structs.replace(ours.markets[0], rules=yes("Ann Lee visits Chile before Jan 1, 2027"))
    theirs = polymarket(
        "Will Ann Lee visit Peru by December 31, 2026?", rules=yes("Ann Lee visits Peru by December 31, 2026")
    )
    assert accepted(ours, theirs)
    assert not accepted(msgspec.structs.replace(ours, markets=(other,)), theirs)


# --- pairs that differ in one word --------------------------------------------------------------------------


def ruled(ours: str, theirs: str, names: tuple[str, str] = ("", "")) -> tuple[Event, Event]:
    """A pair whose rules say what the titles say, so that nothing else is open."""
    first, second = (yes(title.removeprefix("Will ").removesuffix("?")) for title in (ours, theirs))
    return kalshi(ours, names[0], rules=first), polymarket(theirs, names[1], rules=second)


ANN = ("Ann Lee", "Ann Lee")
ONE_WORD: dict[str, tuple[tuple[Event, Event], Relation, str]] = {
    "tournament of women or of men": (
        ruled(
            "Will Duke win the 2027 Women's NCAA Tournament?",
            "Will Duke win the 2027 NCAA Tournament?",
            ("Duke", "Duke"),
        ),
        Relation.EQUIVALENT,
        "gender",
    ),
    "award of the season or of the finals": (
        ruled("Will Ann Lee win the 2027 NBA MVP?", "Will Ann Lee win the 2027 NBA Finals MVP?", ANN),
        Relation.EQUIVALENT,
        "competition",
    ),
    "tournament or its first round": (
        ruled("Will Ann Lee win the 2027 Masters?", "Will Ann Lee win the first round of the 2027 Masters?", ANN),
        Relation.EQUIVALENT,
        "round",
    ),
    "from issuance or from January": (
        (
            kalshi(
                "Will Bitcoin reach $150,000 by Dec 31, 2026?",
                rules=yes("Bitcoin reaches $150,000 after issuance and by Dec 31, 2026 according to CF Benchmarks"),
            ),
            polymarket(
                "Will Bitcoin reach $150,000 in 2026?",
                rules=yes(
                    "Bitcoin reaches $150,000 between January 1, 2026 and December 31, 2026 according to CF Benchmarks"
                ),
            ),
        ),
        Relation.EQUIVALENT,
        "window_start",
    ),
    "most or one": (
        ruled("Will Dune win the most Oscars in 2027?", "Will Dune win an Oscar in 2027?", ("Dune",) * 2),
        Relation.EQUIVALENT,
        "qualifier",
    ),
    "first or last": (
        ruled(
            "Will Ann Lee win the first race of the 2027 F1 season?",
            "Will Ann Lee win the last race of the 2027 F1 season?",
            ANN,
        ),
        Relation.RELATED,
        "qualifier",
    ),
    "announced or done": (
        ruled("Will Acme officially announce an IPO before Jan 1, 2027?", "Will Acme IPO by December 31, 2026?"),
        Relation.RELATED,
        "evidence",
    ),
    "signed or announced": (
        ruled(
            "Will Peru and Chile sign a peace deal before Jan 1, 2027?",
            "Will a peace deal between Peru and Chile be announced by December 31, 2026?",
        ),
        Relation.RELATED,
        "evidence",
    ),
    "announced or in effect": (
        ruled(
            "Will Peru and Chile announce a ceasefire before Jan 1, 2027?",
            "Will a ceasefire between Peru and Chile take effect by December 31, 2026?",
        ),
        Relation.RELATED,
        "evidence",
    ),
    "sentenced or in prison": (
        ruled(
            "Will Ann Lee be sentenced to prison before Jan 1, 2027?",
            "Will Ann Lee be in prison by December 31, 2026?",
        ),
        Relation.RELATED,
        "action",
    ),
    "election of the House or of the Senate": (
        ruled(
            "Will the Democratic Party win the House in the 2026 election?",
            "Will the Democratic Party win the Senate in the 2026 election?",
            ("Democratic Party",) * 2,
        ),
        Relation.RELATED,
        "office",
    ),
    "passed by the House or by the Senate": (
        ruled(
            "Will the Harbour Act pass the House before Jan 1, 2027?",
            "Will the Harbour Act pass the Senate by December 31, 2026?",
        ),
        Relation.RELATED,
        "office",
    ),
    "touched from below or from above": (
        ruled("Will Ethereum reach $4,000 by Dec 31, 2026?", "Will Ethereum dip to $4,000 by December 31, 2026?"),
        Relation.RELATED,
        "interval",
    ),
    "cut of a size or of any": (
        ruled(
            "Will the Fed cut rates by 25 bps at the December 2026 meeting?",
            "Fed rate cut at the December 2026 meeting?",
        ),
        Relation.KALSHI_IMPLIES_POLYMARKET,
        "interval",
    ),
    "university or state university": (
        ruled(
            "Will Michigan win the 2027 NCAA Tournament?",
            "Will Michigan State win the 2027 NCAA Tournament?",
            ("Michigan", "Michigan State"),
        ),
        Relation.EXCLUSIVE,
        "subject",
    ),
    "two clubs of a city": (
        ruled("Will Milan win the 2027 Serie A?", "Will Inter Milan win the 2027 Serie A?", ("Milan", "Inter Milan")),
        Relation.EXCLUSIVE,
        "subject",
    ),
    "clubs of a city, both with another word": (
        ruled(
            "Will Manchester United win the 2027 FA Cup?",
            "Will Manchester City win the 2027 FA Cup?",
            ("Manchester United", "Manchester City"),
        ),
        Relation.EXCLUSIVE,
        "subject",
    ),
    "the other's name in passing": (
        (
            kalshi(
                "Will Acme acquire Borealis before Jan 1, 2027?",
                rules=yes("Acme acquires Borealis before Jan 1, 2027") + " A deal for Cumulus does not count.",
            ),
            polymarket(
                "Will Acme acquire Cumulus by December 31, 2026?",
                rules=yes("Acme acquires Cumulus by December 31, 2026") + " A deal for Borealis does not count.",
            ),
        ),
        Relation.RELATED,
        "entity",
    ),
    "a person or her team": (
        ruled(
            "Will Ann Lee be arrested before Jan 1, 2027?", "Will Ann Lee's team be arrested by December 31, 2026?"
        ),
        Relation.EQUIVALENT,
        "topic",
    ),
    "cup or its points title": (
        ruled("Will Ann Lee win the 2027 Lima Cup?", "Will Ann Lee win the points title of the 2027 Lima Cup?", ANN),
        Relation.EQUIVALENT,
        "topic",
    ),
    "election or the popular vote": (
        ruled(
            "Will Ann Lee win the 2028 presidential election?",
            "Will Ann Lee win the popular vote in the 2028 presidential election?",
            ANN,
        ),
        Relation.RELATED,
        "aspect",
    ),
    "impeached or removed as well": (
        ruled(
            "Will Ann Lee be impeached before Jan 1, 2027?",
            "Will Ann Lee be impeached and removed by December 31, 2026?",
        ),
        Relation.EQUIVALENT,
        "topic",
    ),
    "election or special election": (
        ruled(
            "Will Ann Lee win the 2026 Ohio Senate election?",
            "Will Ann Lee win the 2026 Ohio Senate special election?",
            ANN,
        ),
        Relation.RELATED,
        "aspect",
    ),
    "Senate or state Senate": (
        ruled(
            "Will Ann Lee win the 2026 Ohio Senate election?",
            "Will Ann Lee win the 2026 Ohio State Senate election?",
            ANN,
        ),
        Relation.RELATED,
        "office",
    ),
    "nominated for another office": (
        ruled(
            "Will Ann Lee be the Democratic nominee for Governor in Ohio in 2026?",
            "Will Ann Lee be the Democratic nominee for Lieutenant Governor in Ohio in 2026?",
            ANN,
        ),
        Relation.RELATED,
        "office",
    ),
    "group or cup": (
        ruled(
            "Will Uruguay win Group H of the 2027 Copa America?",
            "Will Uruguay win the 2027 Copa America?",
            ("Uruguay",) * 2,
        ),
        Relation.RELATED,
        "action",
    ),
    "annualized or over the year": (
        ruled(
            "Will US GDP grow by more than 3% annualized in Q3 2026?",
            "Will US GDP grow by more than 3% year over year in Q3 2026?",
        ),
        Relation.RELATED,
        "period",
    ),
}  # fmt: skip
"""Pairs with the relation that is said of them and the slot that keeps them from being accepted."""


@pytest.mark.parametrize("name", ONE_WORD)
def test_one_word_makes_another_question(name: str) -> None:
    (first, second), wanted, slot = ONE_WORD[name]
    for ours, theirs in ((first, second), (as_venue(second, "kalshi"), as_venue(first, "polymarket"))):
        judgement = judged(ours, theirs)
        if wanted is Relation.EQUIVALENT:
            assert judgement.relation is wanted
            assert slot in {blocker.partition(":")[0] for blocker in judgement.blockers}
            assert [item.status for item in match([ours], [theirs], NONE, AT).matches] == [MatchStatus.REVIEW]
        else:
            turned = {Relation.KALSHI_IMPLIES_POLYMARKET: Relation.POLYMARKET_IMPLIES_KALSHI}
            assert judgement.relation in ({wanted} if ours is first else {turned.get(wanted, wanted)})
            assert slot in vetoing(ours, theirs)


def as_venue(event: Event, venue: str) -> Event:
    """The same texts listed on the other venue."""
    markets = tuple(msgspec.structs.replace(one, venue=venue) for one in event.markets)
    return msgspec.structs.replace(event, venue=venue, markets=markets)


@pytest.mark.parametrize("names", [("Yes", "No"), ("No", "Yes")])
def test_yes_is_found_by_its_name(names: tuple[str, str]) -> None:
    ours = kalshi("Will Ann Lee visit Peru before Jan 1, 2027?", rules=yes("Ann Lee visits Peru before Jan 1, 2027"))
    theirs = polymarket(
        "Will Ann Lee visit Peru by December 31, 2026?",
        rules=yes("Ann Lee visits Peru by December 31, 2026"),
        outcomes=names,
    )
    judgement = judged(ours, theirs)
    assert judgement.polymarket_yes_index == names.index("Yes")
    assert judgement.relation is (Relation.INVERTED if names[0] == "No" else Relation.EQUIVALENT)


LISTED_SPREAD = {"line": -3.5}
"""The points of the first outcome, as Polymarket lists them."""


@pytest.mark.parametrize(
    ("title", "strike"), [("Heat vs. Celtics: Spread", LISTED_SPREAD), ("Spread: Boston Celtics (-3.5)", {})]
)
def test_the_other_side_of_a_spread_is_no_complement(title: str, strike: dict[str, Any]) -> None:
    rules = "If the Miami Heat win, Heat. If the Boston Celtics win, Celtics. If canceled or tied, it resolves 50-50."
    sides = ("Miami Heat", "Boston Celtics")
    ours = Event(
        venue="kalshi",
        event_id="KXG",
        title="Miami at Boston",
        mutually_exclusive=True,
        markets=tuple(
            market(
                "kalshi",
                f"KXG-{side}",
                f"{side} wins by over 3.5 points?",
                yes_title=f"{side} wins by over 3.5 points",
                occurrence_at=START,
                rules=rules,
                strike={"strike_type": "greater", "floor_strike": 3.5},
            )
            for side in sides
        ),
    )
    theirs = polymarket(
        title,
        outcomes=("Boston Celtics", "Miami Heat"),
        strike={"sportsMarketType": "spreads", "gameStartTime": KICK_OFF, **strike},
        rules=rules,
    )
    assert relation(ours, theirs) is Relation.RELATED
    assert "interval" in vetoing(ours, theirs)


def test_a_spread_of_a_title_is_of_the_side_that_it_names() -> None:
    theirs = polymarket(
        "Spread: Boston Celtics (-3.5)",
        outcomes=("Miami Heat", "Boston Celtics"),
        strike={"sportsMarketType": "spreads", "gameStartTime": KICK_OFF},
    )
    found = [one.slots.interval for one in propositions(theirs, theirs.markets[0])]
    assert [fact.value.low for fact in found if fact is not None] == [-3, 4]


def test_a_death_that_pays_no_on_both_sides_of_a_negation_is_no_equal_term() -> None:
    died = " If Ann Lee dies, the market resolves to No."
    ours = kalshi(
        "Will Ann Lee leave office as Mayor of Lima before Jan 1, 2027?",
        rules=yes("Ann Lee leaves office as Mayor of Lima before Jan 1, 2027") + died,
    )
    theirs = polymarket(
        "Will Ann Lee remain Mayor of Lima through December 31, 2026?",
        rules=yes("Ann Lee remains Mayor of Lima through December 31, 2026") + died,
    )
    judgement = judged(ours, theirs)
    assert judgement.relation is Relation.INVERTED
    assert any("if died differs" in blocker for blocker in judgement.blockers)


@pytest.mark.parametrize(
    ("told", "missing"),
    [
        ("If it is tied, the market resolves 50-50.", "cancelled"),
        ("If it is canceled, the market resolves 50-50.", "tied"),
    ],
)
def test_every_exceptional_state_of_a_contest_has_to_be_told(told: str, missing: str) -> None:
    ours = kalshi("Lima at Cusco Winner?", "Lima", occurrence_at=START, rules=f"{SIDES} {told}")
    judgement = judged(ours, game("Llamas", "Condors", KICK_OFF, rules=f"{SIDES} {told}"))
    assert judgement.proposed
    assert any(missing in blocker for blocker in judgement.blockers)
    assert judgement.rules is not None
    states = judgement.rules.void_states or {}
    assert {pays for name, pays in states.items() if name.startswith(missing)} == {
        (Decimal(one), Decimal(other)) for one in (0, 1) for other in (0, 1)
    }


@pytest.mark.parametrize(
    ("first", "second", "slot"),
    [
        ("Will Dune win the 2027 Lima Prize?", "Will Dune win the jury vote of the 2027 Lima Prize?", "aspect"),
        ("Will Ann Lee win the 2027 Lima Prize?", "Will Ann Lee be a 2027 Lima Prize finalist?", "aspect"),
        (
            "Will Acme deliver more than 500 trucks in Q4 2026?",
            "Will Acme produce more than 500 trucks in Q4 2026?",
            "aspect",
        ),
        ("Will Ann Lee be the #1 pick in 2027?", "Will Ann Lee be the second overall pick in 2027?", "ordinal"),
        (
            "Will the Democratic Party win the Senate race in Ohio in 2026?",
            "Will the Democratic Party win the Senate in the 2026 midterm elections?",
            "place",
        ),
        (
            "Will the Democratic Party win NE-02 in the 2026 House election?",
            "Will the Democratic Party win Nebraska's 1st congressional district in the 2026 House election?",
            "place",
        ),
        (
            "Will Ann Lee be the next Prime Minister of Peru?",
            "Will Ann Lee be the next Defense Minister of Peru?",
            "office",
        ),
    ],
)
def test_a_word_that_picks_something_else_rules_a_pair_out(first: str, second: str, slot: str) -> None:
    name = ("Democratic Party",) * 2 if "Party" in first else ("",) * 2 if "Acme" in first else ANN
    ours, theirs = ruled(first, second, name)
    assert not judged(ours, theirs).proposed
    assert slot in vetoing(ours, theirs)


@pytest.mark.parametrize(
    ("window", "relation"),
    [("in December 2026", Relation.POLYMARKET_IMPLIES_KALSHI), ("in 2026", Relation.EQUIVALENT)],
)
def test_a_month_is_part_of_a_longer_time_and_a_year_is_all_of_it(window: str, relation: Relation) -> None:
    ours, theirs = ruled("Will Ann Lee visit Peru before Jan 1, 2027?", f"Will Ann Lee visit Peru {window}?")
    assert judged(ours, theirs).relation is relation


def test_a_month_that_the_ticker_names_may_be_all_that_counts() -> None:
    ours, theirs = ruled("Will Ann Lee visit Peru before Jan 1, 2027?", "Will Ann Lee visit Peru in December 2026?")
    market = msgspec.structs.replace(ours.markets[0], market_id="KXVISIT-26DEC-PERU")
    assert judged(msgspec.structs.replace(ours, markets=(market,)), theirs).relation is Relation.EQUIVALENT


def test_a_game_on_another_day_is_another_game() -> None:
    def listed(day: str) -> str:
        return f"If Lima wins the game against Cusco, scheduled for {day}, then the market resolves to Yes."

    ours = kalshi("Lima vs Cusco Winner?", "Lima", rules=listed("November 29, 2026"))
    same, other = (
        polymarket("Will Lima win?", "Lima", rules=listed(day), event_title="Lima vs. Cusco")
        for day in ("Nov 29, 2026", "April 11, 2027")
    )
    assert judged(ours, same).proposed
    assert not judged(ours, other).proposed
