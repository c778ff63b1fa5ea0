import pytest

from arb_pipeline.matching.families import FAMILIES, family_named, propositions
from arb_pipeline.model import Event
from arb_pipeline_tests.matching.build import game, judged, kalshi, polymarket

EXAMPLES: dict[str, tuple[Event, ...]] = {
    "game_winner": (kalshi("Lima at Cusco Winner?", "Lima"), game("Lima", "Cusco", "2026-06-03 19:00:00+00")),
    "spread_total": (
        kalshi("Lima wins Cusco v Lima by more than 1.5 goals", "Lima"),
        polymarket("Spread: Lima (-1.5)"),
    ),
    "series_advance": (kalshi("Will Lima advance to the 2026 quarterfinals?", "Lima"),),
    "tournament_winner": (
        kalshi("Will Ann Lee win the 2026 Lima Open?", "Ann Lee"),
        polymarket("2026 Lima Open winner: Ann Lee", "Ann Lee"),
    ),
    "award": (kalshi("Will Long Road win Best Picture at the 2027 Oscars?", "Long Road"),),
    "nominee": (
        kalshi("Will Ann Lee be the Democratic nominee for NY-12?"),
        polymarket("Will Ann Lee win the Ohio Senate Democratic primary?", "Ann Lee"),
    ),
    "election_winner": (kalshi("Will Ann Lee win the 2026 Ohio Governor election?"),),
    "office_exit": (
        kalshi("Will Ann Lee leave as Mayor of Lima before 2027?"),
        polymarket("Ann Lee out as Mayor of Lima before 2027?"),
    ),
    "fed_decision": (kalshi("Will the Federal Reserve Cut rates by 25bps at their July 2026 meeting?", "Cut 25bps"),),
    "macro_print": (kalshi("Will core PCE inflation be above 2.8% in November 2026?"),),
    "crypto_point": (kalshi("Will Ethereum be above $4,000 on Dec 31, 2026 at 5pm EST?"),),
    "crypto_touch": (polymarket("Will Solana reach $300 by December 31, 2026?"),),
    "index_close": (kalshi("Will the Nasdaq 100 close above 27,000 on Dec 31, 2026?"),),
    "temperature_bracket": (kalshi("Will the high temp in Denver be >49° on Nov 30, 2026?"),),
    "meeting": (kalshi("Ann Lee and Bob Ray meet before 2027?"),),
    "visit": (kalshi("Will Ann Lee visit Peru before 2027?"), polymarket("Will Ann Lee enter Peru by June 30, 2026?")),
    "repeatable_act": (
        kalshi("Will Ann Lee be arrested before Jan 1, 2027?"),
        polymarket("Will Ann Lee be arrested by December 31, 2026?"),
    ),
    "act_by_deadline": (
        kalshi("Will Ann Lee be pardoned before 2027?"),
        polymarket("Will Acme go public by June 30, 2026?"),
    ),
    "legislation": (kalshi("Will the Harbour Act become law before Jan 1, 2027?"),),
    "approval_threshold": (kalshi("Will the President's approval be above 42% on Dec 31, 2026?"),),
    "count": (kalshi("Will at least 5 members leave before 2027? How many times at least 5 times"),),
}


def read(event: Event) -> str:
    return propositions(event, event.markets[0])[0].slots.family


def test_every_family_has_an_example() -> None:
    assert set(EXAMPLES) == {family.name for family in FAMILIES}
    assert family_named("") is None


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_market_is_read_by_its_family(name: str) -> None:
    assert {read(event) for event in EXAMPLES[name]} == {name}


def test_what_no_parser_knows_is_never_accepted() -> None:
    rules = "If the lake of Lima freezes before Jan 1, 2027, then the market resolves to Yes."
    judgement = judged(
        kalshi("Will the lake of Lima freeze before Jan 1, 2027?", rules=rules),
        polymarket("Will the lake of Lima freeze before Jan 1, 2027?", rules=rules),
    )
    assert judgement.proposed
    assert judgement.family == ""
    assert judgement.blockers == ("family: no parser knows both questions as one kind",)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_market_without_rules_is_never_accepted(name: str) -> None:
    first = EXAMPLES[name][0]
    assert (
        any(blocker.startswith("rules") for blocker in judged(first, first).blockers)
        or not judged(first, first).proposed
    )
