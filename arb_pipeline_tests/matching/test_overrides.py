from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from arb_pipeline.matching.overrides import Decision, OverrideError, Overrides, load_overrides, save_decisions
from arb_pipeline.model import Relation

HASH = "a" * 64


def entry(**changes: Any) -> dict[str, Any]:
    base = {
        "kalshi": "KXA",
        "polymarket": {"condition_id": "0xab", "yes_token_index": 0},
        "verdict": "equivalent",
        "rules_sha256": {"kalshi": HASH, "polymarket": HASH},
        "by": "ann",
        "at": date(2026, 11, 21),
        "why": "same",
    }
    return {key: value for key, value in (base | changes).items() if value is not None}


def write(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(list(entries)), encoding="utf-8")
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "matches.yaml"


def test_no_file_and_an_empty_file_decide_nothing(path: Path) -> None:
    assert load_overrides(path) == Overrides()
    path.write_text("# later\n", encoding="utf-8")
    assert len(load_overrides(path)) == 0


def test_an_entry_is_read_whole(path: Path) -> None:
    void = {"cancelled": {"kalshi": "0.50", "polymarket": "0.50"}}
    (decision,) = load_overrides(write(path, entry(void_states=void)))
    assert decision.pair == ("KXA", "0xab")
    assert decision.verdict.relation is Relation.EQUIVALENT
    assert str(decision.void_states["cancelled"].kalshi) == "0.50"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"verdikt": "equivalent"}, "verdikt"),
        ({"verdict": "same"}, "verdict"),
        ({"by": None}, "by"),
        ({"polymarket": {"condition_id": "ab"}}, "polymarket.condition_id"),
        ({"polymarket": {"condition_id": "0xab", "yes_token": 1}}, "polymarket.yes_token"),
        ({"polymarket": {"condition_id": "0xab", "yes_token_index": 2}}, "polymarket.yes_token_index"),
        ({"rules_sha256": {"kalshi": "abc", "polymarket": HASH}}, "rules_sha256.kalshi"),
        ({"rules_sha256": None}, "rules_sha256"),
        ({"verdict": "inverted"}, "yes_token_index"),
        ({"void_states": {"tie": {"kalshi": "1.5", "polymarket": "0"}}}, "void_states.tie.kalshi"),
    ],
)
def test_a_bad_entry_is_refused_with_its_number_and_field(path: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(OverrideError, match=named.replace(".", r"\.")) as caught:
        load_overrides(write(path, entry(kalshi="KXGOOD", polymarket={"condition_id": "0xcc"}), entry(**changes)))
    assert "entry 2" in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["{", "kalshi: KXA", "- 5"])
def test_text_that_is_no_list_of_entries_is_refused(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(OverrideError, match=str(path)):
        load_overrides(path)


@pytest.mark.parametrize(
    "second",
    [entry(polymarket={"condition_id": "0xcd"}, by="bob"), entry(kalshi="KXB", by="bob")],
)
def test_two_approvals_of_one_market_name_both_entries(path: Path, second: dict[str, Any]) -> None:
    with pytest.raises(OverrideError, match="entries 1 and 2 both approve") as caught:
        load_overrides(write(path, entry(), second))
    assert "by ann" in str(caught.value)
    assert "by bob" in str(caught.value)


def test_one_pair_is_decided_once_and_refusals_may_share_markets(path: Path) -> None:
    rejected = entry(verdict="rejected", rules_sha256=None)
    with pytest.raises(OverrideError, match="same pair"):
        load_overrides(write(path, entry(), rejected))
    other = entry(verdict="rejected", rules_sha256=None, polymarket={"condition_id": "0xcd"})
    assert len(load_overrides(write(path, entry(), other))) == 2


def test_saving_appends_and_keeps_comments(path: Path) -> None:
    save_decisions(path, [Decision.model_validate(entry())])
    path.write_text("# ours\n" + path.read_text(encoding="utf-8").rstrip("\n"), encoding="utf-8")
    second = Decision.model_validate(
        entry(kalshi="KXB", polymarket={"condition_id": "0xcd", "yes_token_index": 1}, verdict="inverted")
    )
    save_decisions(path, [second])
    assert path.read_text(encoding="utf-8").startswith("# ours\n")
    assert [decision.kalshi for decision in load_overrides(path)] == ["KXA", "KXB"]
    assert load_overrides(path).decisions[1] == second


def test_a_conflicting_decision_leaves_the_file_as_it_was(path: Path) -> None:
    save_decisions(path, [Decision.model_validate(entry())])
    before = path.read_bytes()
    with pytest.raises(OverrideError):
        save_decisions(path, [Decision.model_validate(entry(kalshi="KXB"))])
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_decisions_cannot_be_built_wrong() -> None:
    with pytest.raises(ValidationError):
        Decision.model_validate(entry(unknown=1))


def test_a_conflict_names_the_lines_of_both_entries(path: Path) -> None:
    path.write_text(
        "# ours\n"
        "- {kalshi: KXA, polymarket: {condition_id: '0xab'}, verdict: rejected, by: ann, at: 2026-11-21}\n"
        "\n# theirs\n-\n"
        "  kalshi: KXA\n  polymarket: {condition_id: '0xAB', yes_token_index: 1}\n  verdict: inverted\n"
        f"  rules_sha256: {{kalshi: {HASH}, polymarket: {HASH}}}\n  by: bob\n  at: 2026-11-22\n",
        encoding="utf-8",
    )
    with pytest.raises(OverrideError, match=r"approve and reject the same pair \(lines 2 and 5\)") as caught:
        load_overrides(path)
    assert "KXA with 0xab (rejected, by ann); KXA with 0xab (inverted, by bob)" in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (entry(by="bob"), "decide the same pair twice"),
        (entry(verdict="kalshi_implies_polymarket", by="bob"), "state contradictory relations of the same pair"),
        (entry(verdict="rejected", by="bob"), "approve and reject the same pair"),
    ],
)
def test_two_decisions_on_a_pair_are_told_by_what_they_are(path: Path, second: dict[str, Any], says: str) -> None:
    with pytest.raises(OverrideError, match=f"entries 1 and 2 {says}"):
        load_overrides(write(path, entry(), second))


def test_a_market_may_imply_several_beside_being_the_same_as_one(path: Path) -> None:
    implied = [
        entry(verdict="kalshi_implies_polymarket", polymarket={"condition_id": name, "yes_token_index": 0})
        for name in ("0xcd", "0xce")
    ]
    assert len(load_overrides(write(path, entry(), *implied))) == 3
    other = entry(verdict="exclusive", polymarket={"condition_id": "0xcd", "yes_token_index": 1})
    with pytest.raises(OverrideError, match="first outcome, index 0"):
        load_overrides(write(path, other))


@pytest.mark.parametrize("doubled", ["  verdict: rejected\n", "  polymarket: {condition_id: '0xcd'}\n"])
def test_a_field_given_twice_is_refused(path: Path, doubled: str) -> None:
    write(path, entry())
    text = path.read_text(encoding="utf-8")
    path.write_text(text + doubled, encoding="utf-8")
    with pytest.raises(
        OverrideError, match=rf"{doubled.split(':', maxsplit=1)[0].strip()} stands on line \d+ and on line \d+"
    ):
        load_overrides(path)


def test_what_gives_way_goes_with_its_lines_and_nothing_else(path: Path) -> None:
    why = "a long reason that goes over several lines of the file because it says everything twice, " * 3
    entries = [
        Decision.model_validate(entry(kalshi=f"KX{name}", polymarket={"condition_id": f"0x{name}"}, why=why))
        for name in "abc"
    ]
    save_decisions(path, entries)
    text = path.read_text(encoding="utf-8").replace("- kalshi: KXc", "\n# about c\n- kalshi: KXc")
    path.write_text(text, encoding="utf-8")
    new = entries[1].model_copy(update={"by": "bob"})
    save_decisions(path, [new], replace=[entries[1]])
    assert [(one.kalshi, one.by) for one in load_overrides(path)] == [("KXa", "ann"), ("KXc", "ann"), ("KXb", "bob")]
    first, last = text.index("- kalshi: KXb"), text.index("\n# about c")
    assert path.read_text(encoding="utf-8").startswith(text[:first] + text[last:])
    with pytest.raises(OverrideError, match="same pair"):
        save_decisions(path, [entries[1]], replace=[entries[1]])


def test_a_new_file_says_what_it_is_and_is_the_teams(path: Path) -> None:
    save_decisions(path, [Decision.model_validate(entry())])
    assert path.read_text(encoding="utf-8").startswith("# People's decisions on pairs.")
    assert path.stat().st_mode & 0o777 == 0o644


def test_hashes_tell_whose_rules_changed() -> None:
    decision = Decision.model_validate(entry())
    assert decision.changed(HASH, HASH) == ()
    assert decision.changed("b" * 64, HASH) == ("kalshi",)
    assert decision.changed("b" * 64, "b" * 64) == ("kalshi", "polymarket")
    assert Decision.model_validate(entry(verdict="rejected", rules_sha256=None)).changed(HASH, HASH) == ()
