import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.matching.text import deciding_sentence, fold, fold_spelling, normalise, tokenise, words


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Félix Auger\u2011Aliassime", "felix auger-aliassime"),
        ("Men\u2019s \u201cFinal\u201d", 'men\'s "final"'),
        ("70\u201371\u00baF", "70-71°f"),
        ("\uff22\uff34\uff23 \ufb01nal", "btc final"),
        ("e\u0301", "e"),
    ],
)
def test_writing_is_unified(text: str, folded: str) -> None:
    assert normalise(text).text == folded == fold(text)


def test_offsets_lead_back_to_the_original() -> None:
    folded = normalise("“Straße” in Zürich")
    start = folded.text.index("strasse")
    assert folded.span(start, start + len("strasse")) == "Straße"
    assert folded.capital(start)


@given(st.text(max_size=60))
def test_both_foldings_agree_and_offsets_stay_inside(text: str) -> None:
    folded = normalise(text)
    assert len(folded.text) == len(folded.offsets)
    assert all(0 <= offset < len(text) for offset in folded.offsets)
    assert list(folded.offsets) == sorted(folded.offsets)
    for token in tokenise(text):
        assert 0 <= token.start < token.end <= len(text)


def test_tokens_are_whole_words() -> None:
    assert "under" not in words("Oklahoma City Thunder")
    assert [token.text for token in tokenise("U.S. GDP: Men's 100,000 J.B. Auger-Aliassime")] == (
        ["us", "gdp", "men", "100000", "jb", "auger", "aliassime"]
    )


def test_aliases_are_read_as_one_word() -> None:
    assert [token.text for token in tokenise("the Federal Reserve and the FOMC")] == ["the", "fed", "and", "the", "fed"]
    assert {"super", "bowl"} <= words("Pro Football Championship")


def test_the_deciding_sentence_is_not_that_of_a_cancelled_event() -> None:
    rules = (
        "The race is on May 3, 2026.\n\nIf no winner is declared by December 31, 2026, this market will not resolve to "
        '"Yes". If Ann Lee wins the race, this market will resolve to "Yes". Otherwise it resolves to "No".'
    )
    assert deciding_sentence(rules) == 'If Ann Lee wins the race, this market will resolve to "Yes".'
    assert deciding_sentence("Nothing is decided here.") == ""


def test_transliterations_share_a_spelling() -> None:
    assert fold_spelling("zelenskyy") == fold_spelling("zelensky") == fold_spelling("zelenski")
    assert fold_spelling("austria") != fold_spelling("australia")


@pytest.mark.parametrize("text", ["by 9 A M ET", "at 9:30 A M"])
def test_an_hour_of_the_morning_is_no_university(text: str) -> None:
    assert "a&m" not in words(text) | {token.text for token in tokenise(text)}


@pytest.mark.parametrize("text", ["Texas A&M", "Texas A M at 9 A M"])
def test_a_university_is_one(text: str) -> None:
    assert "a&m" in words(text)
    assert [token.text for token in tokenise(text)].count("a&m") == 1
