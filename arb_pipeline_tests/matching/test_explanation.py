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
    assert "deadline +2.00 equal; Kalshi '2027-01-01T05:00:00+00:00' (title)" in text
    assert "scope: differs (Kalshi: excludes airport stops; Polymarket: excludes nothing)" in text
    assert "Open, so that a person decides: rules: scope differs" in text


def test_an_implication_says_which_way_and_why() -> None:
    text = told(title="Will Ann Lee visit Peru by March 31, 2026?")
    assert text.startswith("Whenever Polymarket's first outcome pays, Kalshi YES pays too")
    assert "Not the same because: deadline: 2027-01-01 05:00 is not 2026-04-01 04:00 UTC" in text
