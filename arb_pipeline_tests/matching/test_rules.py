from decimal import Decimal

import pytest

from arb_pipeline.matching.families import propositions
from arb_pipeline.matching.rules import Result, RulesDiff, compare_rules, terms
from arb_pipeline_tests.matching.build import kalshi, polymarket

HALF, NOTHING, ONE = Decimal("0.5"), Decimal(0), Decimal(1)


def compared(first: str, second: str, *, contest: bool = False) -> RulesDiff:
    left = kalshi("Will Ann Lee win the 2026 Lima Open?", rules=first)
    right = polymarket("Will Ann Lee win the 2026 Lima Open?", rules=second)
    slots = [propositions(event, event.markets[0])[0].slots for event in (left, right)]
    return compare_rules(left.markets[0], right.markets[0], slots[0], slots[1], contest=contest)


@pytest.mark.parametrize(
    ("text", "state", "pays"),
    [
        ("If the match is canceled, this market will resolve to 50-50.", "cancelled", HALF),
        ("If the game ends in a tie, the market resolves to a fair price of $0.50.", "tied", HALF),
        ("If it is cancelled, the market resolves to a fair price in accordance with the rules.", "cancelled", None),
        ('If it is postponed after August, this market will resolve to "Other".', "postponed", NOTHING),
        ("If the player dies, contracts resolve to the last traded price.", "died", None),
    ],
)
def test_what_yes_pays_in_an_exceptional_state(text: str, state: str, pays: Decimal | None) -> None:
    assert terms(text).void[state] == pays


def test_an_ordinary_rule_tells_no_exceptional_state() -> None:
    assert not terms('If Ann Lee wins, the market resolves to Yes. Otherwise, it resolves to "No".').void


def test_equal_states_keep_the_hedge() -> None:
    diff = compared("If cancelled, it resolves 50-50.", "If it is canceled, it resolves to 50-50.", contest=True)
    assert diff.result("if cancelled") is Result.EQUAL
    assert diff.void_states == {"cancelled": (HALF, HALF)}


BOTH_STATED = "If cancelled, it resolves 50-50."


@pytest.mark.parametrize(
    ("first", "second", "stated"),
    [
        (BOTH_STATED, 'If it is canceled, this market will resolve to "No".', {"cancelled": (HALF, NOTHING)}),
        (BOTH_STATED, "If Ann Lee wins, Yes.", None),
        (BOTH_STATED, "If canceled, it resolves to a fair price.", None),
        (BOTH_STATED, f"{BOTH_STATED} If she dies, it resolves 50-50.", None),
        ("If Ann Lee wins, Yes.", "If Ann Lee wins, Yes.", None),
    ],
)
def test_payouts_are_stated_only_where_both_texts_fix_every_state(
    first: str, second: str, stated: dict[str, tuple[Decimal, Decimal]] | None
) -> None:
    for contest in (False, True):
        assert compared(first, second, contest=contest).stated == stated


def test_a_price_that_no_text_fixes_stands_for_every_price() -> None:
    diff = compared("If cancelled, it resolves to a fair price.", "If canceled, it resolves to 50-50.", contest=True)
    assert diff.result("if cancelled") is Result.DIFFERS
    assert diff.void_states is not None
    assert set(diff.void_states.values()) == {(NOTHING, HALF), (ONE, HALF)}


def test_silence_is_nothing_for_an_event_and_unknown_for_a_contest() -> None:
    rule, other = "If Ann Lee wins, Yes.", 'If it is cancelled, this market will resolve to "Other".'
    assert compared(rule, other).void_states == {"cancelled": (NOTHING, NOTHING)}
    unknown = compared(rule, other, contest=True)
    assert unknown.result("if cancelled") is Result.UNKNOWN
    assert unknown.void_states is not None
    assert set(unknown.void_states.values()) == {(NOTHING, NOTHING), (ONE, NOTHING)}
    assert compared(rule, rule, contest=True).void_states is None
    assert compared(rule, rule).void_states == {}


def test_a_line_is_no_payout() -> None:
    assert "tied" not in terms("If over 2.5 goals are scored, a draw included, then Yes.").void


def test_silence_of_a_question_that_is_turned_round_pays_all() -> None:
    left = kalshi("Will Ann Lee visit Peru before 2027?", rules="If Ann Lee dies, the market resolves to No.")
    right = polymarket("Will Ann Lee not visit Peru before 2027?", rules="If she does not, Yes.")
    slots = [propositions(event, event.markets[0])[0].slots for event in (left, right)]
    diff = compare_rules(left.markets[0], right.markets[0], slots[0], slots[1], contest=False, index=1)
    assert diff.result("if died") is Result.EQUAL
    assert diff.void_states == {"died": (NOTHING, ONE)}


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [
        ("According to the National Weather Service.", "As shown on Wunderground.", Result.DIFFERS),
        ("CF Benchmarks BRTI decides.", "The Chainlink stream decides.", Result.DIFFERS),
        ("According to official information.", "A consensus of credible reporting.", Result.EQUAL),
        ("Bureau of Labor Statistics.", "The BLS report.", Result.EQUAL),
        ("Bureau of Labor Statistics.", "", Result.UNKNOWN),
    ],
)
def test_sources_are_compared_as_classes(first: str, second: str, result: Result) -> None:
    assert compared(first, second).result("source") is result


def test_terms_that_one_side_alone_tells() -> None:
    diff = compared(
        "An emergency cut does not count. Airport layovers do not count as visits.",
        "An unscheduled cut counts. Values are rounded up.",
    )
    assert diff.result("unscheduled") is Result.DIFFERS
    assert diff.result("rounding") is Result.UNKNOWN
    assert diff.result("scope") is Result.DIFFERS
    assert {line["field"] for line in diff.as_json()["fields"]} >= {"unscheduled", "rounding", "scope"}
