import json
from pathlib import Path
from typing import Any

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
    figures = measured.metrics()
    assert (figures["pairs"], figures["called"], figures["correct"], figures["true_pairs"]) == (4, 2, 1, 3)
    assert (figures["precision"], figures["inversion_errors"]) == (0.5, 1)
    assert figures["recall"] == pytest.approx(1 / 3)
    assert [(miss.pair.kalshi, miss.relation) for miss in measured.misses()] == [
        ("KXB", "equivalent"),
        ("KXC", "different"),
    ]
    json.dumps(measured.to_json())


def test_no_figure_is_missing_where_there_is_nothing_to_count() -> None:
    for labelled in ([], [LabelledPair("KXA", "0xA", "equivalent")]):
        figures = evaluate(match([], [], NONE, AT), labelled).metrics()
        assert all(isinstance(value, int | float) for value in figures.values())
        assert figures["recall"] == (0.0 if labelled else 1.0)


def lines(*places: tuple[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "id": str(number),
            "label": label,
            "kalshi": {"ticker": f"KXVISIT{number}-27", "title": f"Will Ann Lee visit {place} before Jan 1, 2027?"},
            "polymarket": {"question": "Will Ann Lee visit Peru by December 31, 2026?"},
        }
        for number, (label, place) in enumerate(places)
    ]


def test_all_markets_of_a_file_compete(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = lines(("equivalent", "Peru"), ("different", "Chile"))
    path.write_text("\n".join(json.dumps(line) for line in rows), encoding="utf-8")
    document = evaluate_file(path).to_json()
    assert (document["overall"]["precision"], document["overall"]["recall"]) == (1.0, 1.0)
    assert document["overall"]["candidate_recall_at_20"] == 1.0
    assert [(pair["id"], pair["relation"], pair["status"]) for pair in document["pairs"]] == [
        ("0", "equivalent", "review"),
        ("1", "related", "rejected"),
    ]
    assert document["confusion"] == {"different": {"related": 1}, "equivalent": {"equivalent": 1}}
    path.write_text('{"id": "1"}', encoding="utf-8")
    with pytest.raises(ValueError, match="line 1"):
        evaluate_file(path)


def test_two_texts_under_one_ticker_are_two_markets(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = lines(("different", "Chile"), ("equivalent", "Peru"))
    for row in rows:
        row["kalshi"]["ticker"] = "KXVISIT-27"
    path.write_text("\n".join(json.dumps(line) for line in rows), encoding="utf-8")
    assert [one.relation for one in evaluate_file(path).outcomes] == ["related", "equivalent"]


def test_nulls_and_numbers_are_as_good_as_absence_and_text(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    (row,) = lines(("equivalent", "Peru"))
    row["polymarket"] |= {"id": 81, "group_item_title": None, "rules": None}
    path.write_text(json.dumps(row), encoding="utf-8")
    (one,) = evaluate_file(path).outcomes
    assert (one.pair.polymarket, one.relation) == ("81", "equivalent")


def test_a_record_in_place_of_the_rules_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    (row,) = lines(("equivalent", "Peru"))
    record = {
        "market": {"rules_primary": "If Ann Lee visits Peru before Jan 1, 2027, then Yes.", "yes_sub_title": "Ann Lee"}
    }
    row["kalshi"]["rules"] = str(record)
    path.write_text(json.dumps(row), encoding="utf-8")
    assert evaluate_file(path).metrics()["recall"] == 1.0


def test_the_held_out_part_depends_on_the_series_alone(labelled_pairs: Path) -> None:
    outcomes = evaluate_file(labelled_pairs / "titles_labelled.jsonl").outcomes
    by_series: dict[str, set[bool]] = {}
    for one in outcomes:
        by_series.setdefault(one.pair.kalshi.partition("-")[0], set()).add(one.held_out)
    assert all(len(found) == 1 for found in by_series.values())
    assert {True, False} == {value for found in by_series.values() for value in found}


def test_no_trap_is_called_a_pair(labelled_pairs: Path) -> None:
    measured = evaluate_file(labelled_pairs / "traps.jsonl")
    figures = measured.metrics()
    assert figures["pairs"] == 44
    assert figures["precision"] == figures["auto_precision"] == 1.0
    assert figures["inversion_errors"] == 0
    assert figures["implication_precision"] >= 0.9


def test_floors_on_pairs_labelled_by_their_rules(labelled_pairs: Path) -> None:
    figures = evaluate_file(labelled_pairs / "rules_labelled.jsonl").metrics()
    assert figures["precision"] >= 0.95
    assert figures["recall"] >= 0.6
    assert figures["inversion_errors"] == 0
    assert figures["auto_correct"] >= 10
    assert figures["auto_precision"] == 1.0
    assert figures["candidate_recall_at_20"] >= 0.99
    assert figures["implications_claimed"] >= 20
    assert figures["implication_precision"] >= 0.9


def test_precision_on_titles_alone(labelled_pairs: Path) -> None:
    figures = evaluate_file(labelled_pairs / "titles_labelled.jsonl").metrics()
    assert figures["precision"] >= 0.95
    assert figures["auto"] == 0, "nothing is accepted without rules"
