import pytest

from arb_pipeline.matching.explanation import explain
from arb_pipeline.matching.matcher import match
from arb_pipeline_tests.matching.build import AT, NONE, kalshi, polymarket


def told(**fields: str) -> str:
    question = kalshi(
        "Will Ann Lee visit Peru before Jan 1, 2027?", rules="If Ann Lee visits Peru, Yes. Layovers do not count."
    )
    answer = polymarket(
        fields.get("title", "Will Ann Lee visit Peru by December 31, 2026?"), rules="If Ann Lee enters Peru, Yes."
    )
    (row,) = match([question], [answer], NONE, AT).matches
    return explain(row.relation.value, row.status.value, row.explanation, row.vetoes)


def test_a_match_is_told_in_words_with_where_they_were_read() -> None:
    text = told()
    assert text.startswith("The same question")
    assert "Both are questions of the kind visit." in text
    assert "first instant that is too late +2.00 equal; Kalshi '2027-01-01 05:00 UTC' (title)" in text
    assert "what does not count: differs (Kalshi: excludes airport stops; Polymarket: excludes nothing)" in text
    assert "Open, so that a person decides: rules: scope differs" in text


def test_an_implication_says_which_way_and_why() -> None:
    text = told(title="Will Ann Lee visit Peru by March 31, 2026?")
    assert text.startswith("Whenever Polymarket's first outcome pays, Kalshi YES pays too")
    assert "Not the same because: first instant that is too late: 2027-01-01 05:00 is not 2026-04-01 04:00 UTC" in text


def test_it_says_which_side_leaves_a_fact_open() -> None:
    rule = "If Duke wins, the market resolves to Yes."
    question = kalshi("Will Duke win the 2027 Women's NCAA Tournament?", "Duke", rules=rule)
    answer = polymarket("Will Duke win the 2027 NCAA Tournament?", "Duke", rules=rule)
    (row,) = match([question], [answer], NONE, AT).matches
    text = explain(row.relation.value, row.status.value, row.explanation, row.vetoes)
    assert "gender +0.00 Polymarket does not tell it; Kalshi 'women' (title: \"women's\")" in text
    assert "Open, so that a person decides: gender: only Kalshi tells it (women), Polymarket does not" in text


@pytest.mark.parametrize(
    ("strike", "words"),
    [
        ("more than 2.5%", "'> 2.5 %'"),
        ("at least 2.5%", "'>= 2.5 %'"),
        ("between 2.5% and 3%", "'>= 2.5 and <= 3 %'"),
        ("2.5% or lower", "'<= 2.5 %'"),
    ],
)
def test_thresholds_are_told_by_their_comparators(strike: str, words: str) -> None:
    question = kalshi(f"Will US inflation be {strike} in November 2026?")
    answer = polymarket("Will US inflation be more than 2.5% in November 2026?")
    (row,) = match([question], [answer], NONE, AT).matches
    text = explain(row.relation.value, row.status.value, row.explanation, row.vetoes)
    assert f"Kalshi {words}" in text


def test_a_price_that_no_text_fixes_is_told_as_two() -> None:
    rule = "If Duke wins, the market resolves to Yes. If the tournament is cancelled, it resolves"
    question = kalshi("Will Duke win the 2027 NCAA Tournament?", "Duke", rules=f"{rule} to a fair price.")
    answer = polymarket("Will Duke win the 2027 NCAA Tournament?", "Duke", rules=f"{rule} 50-50.")
    (row,) = match([question], [answer], NONE, AT).matches
    text = explain(row.relation.value, row.status.value, row.explanation, row.vetoes)
    assert "cancelled (a): Kalshi 0, Polymarket 0.5 dollars" in text
    assert "(a), (b) and so on: a price that no text fixes counts as 0 and as 1" in text
