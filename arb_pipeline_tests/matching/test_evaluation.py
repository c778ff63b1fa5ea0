import json
from pathlib import Path

import pytest

from arb_pipeline.matching.evaluation import LabelledPair, evaluate, evaluate_file, wilson_interval
from arb_pipeline.matching.matcher import match
from arb_pipeline_tests.matching.build import AT, NONE, kalshi, polymarket


def test_the_interval_is_wilsons() -> None:
    low, high = wilson_interval(45, 48)
    assert (round(low, 4), round(high, 4)) == (0.8316, 0.9785)
    assert wilson_interval(0, 10)[0] == pytest.approx(0)
    assert wilson_interval(10, 10)[1] == pytest.approx(1)
    with pytest.raises(ValueError, match="0 trials"):
        wilson_interval(0, 0)


def test_a_result_is_measured_on_labelled_pairs_alone() -> None:
    names = ("Ann Lee", "Bob Ray", "Cleo Poe")
    left = [kalshi(f"Will {name} win the 2026 Lima Open?", name, market_id=f"KX{name[0]}") for name in names]
    right = [polymarket(f"2026 Lima Open winner: {name}", name, market_id=f"0x{name[0]}") for name in names]
    result = match(left, right, NONE, AT)
    labelled = [
        LabelledPair("KXA", "0xA", "equivalent"),
        LabelledPair("KXB", "0xB", "inverted"),
        LabelledPair("KXA", "0xB", "different"),
        LabelledPair("KXC", "0xZ", "equivalent"),
    ]
    measured = evaluate(result, labelled)
    assert (measured.pairs, measured.called, measured.correct, measured.true_pairs) == (4, 2, 1, 3)
    assert (measured.precision, measured.inversions) == (0.5, 1)
    assert measured.recall == pytest.approx(1 / 3)
    assert measured.confusion["different"] == {"none": 1}
    assert [(miss.kalshi, miss.called) for miss in measured.misses] == [("KXB", "equivalent"), ("KXC", "none")]
    json.dumps(measured.to_json())


def test_no_call_has_no_precision() -> None:
    measured = evaluate(match([], [], NONE, AT), [LabelledPair("KXA", "0xA", "equivalent")])
    assert (measured.precision, measured.precision_low, measured.recall) == (None, None, 0.0)


def test_a_file_is_judged_pair_by_pair(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    lines = [
        {
            "id": "1",
            "label": label,
            "kalshi": {"ticker": "", "title": f"Will Ann Lee visit {place} before Jan 1, 2027?"},
            "polymarket": {"question": "Will Ann Lee visit Peru by December 31, 2026?"},
        }
        for label, place in (("equivalent", "Peru"), ("different", "Chile"))
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    measured = evaluate_file(path)
    assert (measured.precision, measured.recall) == (1.0, 1.0)
    path.write_text('{"id": "1"}', encoding="utf-8")
    with pytest.raises(ValueError, match="line 1"):
        evaluate_file(path)


def test_no_trap_is_called_a_pair(labelled_pairs: Path) -> None:
    measured = evaluate_file(labelled_pairs / "traps.jsonl")
    assert measured.pairs == 44
    assert [miss for miss in measured.misses if miss.called != "none"] == []
    assert measured.inversions == 0


def test_precision_on_pairs_labelled_by_their_rules(labelled_pairs: Path) -> None:
    measured = evaluate_file(labelled_pairs / "rules_labelled.jsonl")
    assert measured.precision is not None
    assert measured.recall is not None
    assert measured.precision >= 0.9
    assert measured.recall >= 0.8
    assert measured.inversions == 0


def test_precision_on_titles_alone(labelled_pairs: Path) -> None:
    measured = evaluate_file(labelled_pairs / "titles_labelled.jsonl")
    assert measured.precision is not None
    assert measured.precision >= 0.95
