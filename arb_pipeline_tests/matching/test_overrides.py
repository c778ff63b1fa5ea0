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
