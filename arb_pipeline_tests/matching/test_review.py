import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.errors import ArbError
from arb_pipeline.matching.overrides import OverrideError, Verdict, load_overrides
from arb_pipeline.matching.review import (
    Case,
    Kind,
    Span,
    cases,
    changed_text,
    compare_texts,
    decide,
    find_case,
    queue,
    queue_table,
)
from arb_pipeline.model import Market, rules_digest
from arb_pipeline.tables import table
from arb_pipeline_tests.matching.build import market
from arb_pipeline_tests.matching.test_versions import statement

AT = datetime(2026, 6, 2, 9, 30, 15, 123, tzinfo=UTC)
FIRST = "If the Bank's rate is above 4.25% after the July meeting, the market resolves to Yes."
SECOND = "This market resolves to Yes if, after the June meeting, the bank's rate is above 4.50%!"


def marked(spans: list[Span]) -> dict[str, str]:
    return {span.text: span.kind.value for span in spans if span.kind is not Kind.SAME}


def test_what_only_one_text_has_is_marked_and_figures_apart() -> None:
    first, second = compare_texts(FIRST, SECOND)
    assert {text: kind for text, kind in marked(first).items() if kind != "moved"} == {
        "4.25": "figure",
        "July": "only",
    }
    assert {text: kind for text, kind in marked(second).items() if kind != "moved"} == {
        "June": "only",
        "4.50": "figure",
    }


def test_words_that_stand_elsewhere_are_moved_not_missing() -> None:
    first, second = compare_texts("ends before it begins", "begins before it ends")
    assert set(marked(first).values()) | set(marked(second).values()) == {"moved"}


def test_case_punctuation_and_thousands_are_no_difference() -> None:
    first, second = compare_texts("At least 1,000 Votes.", "at least  1000 votes")
    assert marked(first) == marked(second) == {}


@given(st.text(max_size=80), st.text(max_size=80))
def test_spans_joined_are_the_texts(first: str, second: str) -> None:
    for compared in (compare_texts(first, second), changed_text(first, second)):
        assert ["".join(span.text for span in spans) for spans in compared] == [first, second]


@given(st.text(max_size=60), st.integers(0, 59), st.characters())
def test_a_change_of_one_character_is_seen(text: str, place: int, letter: str) -> None:
    changed = text[:place] + letter + text[place:]
    before, after = changed_text(text, changed)
    assert Kind.ONLY in {span.kind for span in after}
    assert "".join(span.text for span in before if span.kind is Kind.SAME) == "".join(
        span.text for span in after if span.kind is Kind.SAME
    )


def listed(*names: str, rules: str = "rules", volume: int = 0) -> dict[tuple[str, str], Market]:
    markets = {}
    for name in names:
        for venue, market_id in (("kalshi", f"K{name}"), ("polymarket", f"0x{name}")):
            text = f"{rules} {market_id}"
            markets[venue, market_id] = market(
                venue, market_id, name, rules=text, rules_sha256=rules_digest(text), volume_24h=volume
            )
    return markets


def row(name: str, other: str = "", **changes: Any) -> dict[str, Any]:
    return statement(f"K{name}", f"0x{other or name}", **changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "matches.yaml"


def of(path: Path, rows: list[dict[str, Any]], markets: Mapping[tuple[str, str], Market]) -> list[Case]:
    return cases(rows, markets, load_overrides(path))


def test_the_queue_begins_with_what_is_worth_looking_at(path: Path) -> None:
    busy = listed("c", volume=50_000_000_000)
    markets = listed("a", "b", "d", "e", "f") | busy
    rows = [
        row("a", score=9.0, relation="kalshi_implies_polymarket"),
        row("b", score=6.0),
        row("c", score=5.0),
        row("d", score=5.5),
        row("e", score=1.0, relation="kalshi_implies_polymarket"),
        row("f", status="rejected"),
        row("f", "gone"),
    ]
    found = of(path, rows, markets)
    decide(path, found[4], None, reason="read", author="ann", at=AT)
    waiting = queue(of(path, rows, markets | listed("e", rules="changed")))
    assert [case.kalshi.title for case in waiting] == ["e", "c", "b", "d", "a"]
    assert waiting[0].reopened == ("kalshi", "polymarket")
    assert waiting[0].reasons[0] == "the rules of Kalshi changed after the decision"
    written = queue_table(waiting)
    assert written.schema == table("match_review").schema
    assert written["rank"].to_pylist() == [1, 2, 3, 4, 5]
    assert written["kalshi_rules"].to_pylist()[1] == "rules Kc"


def test_a_decided_pair_leaves_the_queue_at_once(path: Path) -> None:
    markets, rows = listed("a", "b"), [row("a"), row("b")]
    decide(path, of(path, rows, markets)[0], None, reason="read", author="ann", at=AT)
    assert [case.kalshi.title for case in queue(of(path, rows, markets))] == ["b"]


@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("verdict", [None, Verdict.INVERTED, Verdict.REJECTED])
def test_an_approval_takes_down_the_payouts_that_both_texts_state(
    path: Path, verdict: Verdict | None, read: bool
) -> None:
    markets = listed("a")
    states = {"cancelled": {"kalshi": "0.5", "polymarket": "0"}}
    kalshi, polymarket = markets["kalshi", "Ka"].rules_sha256, markets["polymarket", "0xa"].rules_sha256
    told = {
        "rules": {"kalshi": kalshi if read else rules_digest("an older text"), "polymarket": polymarket},
        "stated_void_states": states,
        "void_states": states | {"tied": {"kalshi": "0", "polymarket": "1"}},
    }
    case = of(path, [row("a") | {"explanation": json.dumps(told)}], markets)[0]
    decide(path, case, verdict, reason="read", author="ann", at=AT)
    written = next(iter(load_overrides(path))).model_dump(mode="json")["void_states"]
    assert written == (states if read and verdict is not Verdict.REJECTED else {})


def test_an_explanation_is_shown_with_what_speaks_against_first(path: Path) -> None:
    told = {
        "slots": [
            {"slot": "a", "kalshi": {"value": "1", "source": "title", "text": ""}, "polymarket": None,
             "result": "unknown", "weight": 0.0},
            {"slot": "b", "kalshi": {"value": "1", "source": "title", "text": ""},
             "polymarket": {"value": "1", "source": "rules", "text": ""}, "result": "equal", "weight": 2.0},
            {"slot": "c", "kalshi": {"value": "1", "source": "title", "text": ""},
             "polymarket": {"value": "2", "source": "rules", "text": ""}, "result": "veto", "weight": -9.0,
             "reason": "1 against 2"},
        ],
        "terms": [{"field": "source", "kalshi": "AP", "polymarket": "", "result": "unknown"}],
        "open": ["void: not told"],
        "alarms": ["prices look inverted"],
        "caveats": ["rules_changed: kalshi", "void: half", "timing: an hour apart"],
        "void_states": {"cancelled": {"kalshi": "0.5", "polymarket": "0"}},
        "rivals": [{"kalshi": "Ka", "polymarket": "0xb", "score": 4.0}],
        "margin": 1.5,
    }  # fmt: skip
    (case,) = of(path, [row("a", explanation=json.dumps(told), vetoes='["c: 1 against 2"]')], listed("a"))
    assert [(line.slot, line.tone) for line in case.slots] == [("c", "differs"), ("a", "unknown"), ("b", "equal")]
    assert [(line.slot, line.kalshi, line.tone) for line in case.terms] == [("source", "AP", "unknown")]
    assert case.reasons == (
        "alarm: prices look inverted",
        "c: 1 against 2",
        "void: not told",
        "timing: an hour apart",
    )
    assert case.void_states["cancelled"]["polymarket"] == "0"
    assert (case.rivals[0].polymarket, case.margin) == ("0xb", 1.5)


def test_a_pair_is_named_in_several_ways(path: Path) -> None:
    markets = listed("aa", "ab", "b")
    rows = [row("aa", score=8.0), row("ab"), row("aa", "ab", status="rejected")]
    found = of(path, rows, markets)
    everything = (found, markets, load_overrides(path))
    assert find_case("1", *everything) is found[0]
    assert find_case("Kaa", *everything) is found[0]
    assert find_case("0xAB", *everything) is found[1]
    assert find_case("Kaa/0xab", *everything) is found[2]
    never = find_case("Kb/0xaa", *everything)
    assert (never.pair, never.relation, never.status) == (("Kb", "0xaa"), "", "")
    for text, says in (
        ("3", "the queue has 2 places"),
        ("0xa", "fits 2 pairs"),
        ("Kc", "no pair is named"),
        ("0", "no pair"),
    ):
        with pytest.raises(ArbError, match=says):
            find_case(text, *everything)


def test_a_decision_holds_for_the_texts_that_were_read(path: Path) -> None:
    markets, rows = listed("a"), [row("a", relation="inverted", polymarket_yes_index=1)]
    (case,) = of(path, rows, markets)
    made = decide(path, case, None, reason=" same, turned round ", author="ann", at=AT)
    (held,) = load_overrides(path)
    assert held == made
    assert (held.verdict, held.polymarket.yes_token_index, held.by, held.why) == (
        Verdict.INVERTED, 1, "ann", "same, turned round",
    )  # fmt: skip
    assert held.at == AT.replace(microsecond=0)
    assert held.rules_sha256 is not None
    assert held.rules_sha256.kalshi == rules_digest("rules Ka")
    (again,) = of(path, rows, markets)
    assert again.decided
    (changed,) = of(path, rows, {**markets, ("kalshi", "Ka"): market("kalshi", "Ka", "a", rules="rules Kb")})
    assert (changed.decided, changed.reopened) == (False, ("kalshi",))


def test_a_standing_decision_is_replaced_only_when_asked_to(path: Path) -> None:
    path.write_text("# ours\n", encoding="utf-8")
    markets, rows = listed("a", "b"), [row("a"), row("b")]
    first, second = of(path, rows, markets)
    decide(path, first, None, reason="read", author="ann", at=AT)
    decide(path, second, None, reason="read", author="ann", at=AT)
    text = path.read_text(encoding="utf-8").replace("- kalshi: Kb", "# about b\n- kalshi: Kb")
    path.write_text(text, encoding="utf-8")
    first, _ = of(path, rows, markets)
    with pytest.raises(OverrideError, match=r"decided already: equivalent by ann on 2026-06-02 \(read\)"):
        decide(path, first, Verdict.REJECTED, reason="not so", author="bob", at=AT)
    assert path.read_text(encoding="utf-8") == text
    decide(path, first, Verdict.REJECTED, reason="not so", author="bob", at=AT, overrule=True)
    assert [(one.kalshi, one.verdict, one.by) for one in load_overrides(path)] == [
        ("Kb", Verdict.EQUIVALENT, "ann"),
        ("Ka", Verdict.REJECTED, "bob"),
    ]
    after = path.read_text(encoding="utf-8")
    assert after.startswith("# ours\n# about b\n- kalshi: Kb\n")


def test_a_decision_that_fell_gives_way_without_asking(path: Path) -> None:
    rows = [row("a")]
    (case,) = of(path, rows, listed("a"))
    decide(path, case, None, reason="read", author="ann", at=AT)
    (case,) = of(path, rows, listed("a", rules="new"))
    decide(path, case, Verdict.REJECTED, reason="another date now", author="bob", at=AT)
    assert [one.by for one in load_overrides(path)] == ["bob"]


def test_who_decides_on_what_was_shown_before_somebody_else_did_is_told(path: Path) -> None:
    rows = [row("a")]
    (case,) = of(path, rows, listed("a"))
    decide(path, case, None, reason="read", author="ann", at=AT)
    with pytest.raises(OverrideError, match="approve and reject the same pair"):
        decide(path, case, Verdict.REJECTED, reason="read", author="bob", at=AT, overrule=True)
    assert [one.by for one in load_overrides(path)] == ["ann"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"reason": "  "}, "reason is empty"),
        ({"author": ""}, "author is empty"),
        ({}, "calls Ka/0xa related, which cannot"),
    ],
)
def test_a_decision_without_a_reason_an_author_or_a_relation_is_not_written(
    path: Path, given: dict[str, str], says: str
) -> None:
    (case,) = of(path, [row("a", relation="related")], listed("a"))
    with pytest.raises(OverrideError, match=says):
        decide(path, case, None, **{"reason": "read", "author": "ann", **given}, at=AT)  # type: ignore[arg-type]
    assert not path.exists()


_WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from arb_pipeline.matching.overrides import Decision, save_decisions
for number in range(15):
    name = f"{sys.argv[2]}{number}"
    save_decisions(Path(sys.argv[1]), [Decision(
        kalshi=f"K{name}", polymarket={"condition_id": "0x" + name.encode().hex()}, verdict="rejected",
        by=sys.argv[2], at=datetime(2026, 6, 1, tzinfo=UTC), why="x")])
"""


def test_reviewers_at_the_same_time_lose_nothing(path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", _WRITER, str(path), name]) for name in ("ann", "bob", "eve")]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    kept = {one.kalshi for one in load_overrides(path)}
    assert kept == {f"K{name}{number}" for name in ("ann", "bob", "eve") for number in range(15)}
    assert [one.name for one in path.parent.iterdir()] == [path.name]
