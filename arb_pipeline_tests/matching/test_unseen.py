"""Floors on labelled pairs of series that the matcher was not made on.

``unseen.jsonl`` is this project's own. The questions and rules are written by hand in the venues' wording, kind by
kind; each is labelled from its texts alone, before the matcher was run on it. Parts by series: ``tuned`` was looked at
while the matcher was changed, ``held_out`` and ``last`` only after the figures of their first run were taken down.
"""

import json
from collections import Counter
from pathlib import Path

import pytest

from arb_pipeline.matching.evaluation import Evaluation, evaluate_file
from arb_pipeline.matching.relations import SAME

FILE = Path(__file__).with_name("unseen.jsonl")
PARTS = ("tuned", "held_out", "last")


@pytest.fixture(scope="module")
def parts() -> dict[str, str]:
    rows = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
    return {row["id"]: row["part"] for row in rows}


@pytest.fixture(scope="module")
def measured() -> Evaluation:
    return evaluate_file(FILE)


def test_the_file_is_large_and_of_every_label(parts: dict[str, str], measured: Evaluation) -> None:
    labels = Counter(one.pair.relation for one in measured.outcomes)
    assert len(parts) == len(measured.outcomes) >= 500
    assert set(parts.values()) == set(PARTS)
    assert min(labels[relation] for relation in ("related", "different", "exclusive", *SAME)) >= 5
    assert labels["kalshi_implies_polymarket"] + labels["polymarket_implies_kalshi"] >= 50


@pytest.mark.parametrize("part", PARTS)
def test_the_floors_hold_on_every_part(part: str, parts: dict[str, str], measured: Evaluation) -> None:
    figures = measured.metrics([one for one in measured.outcomes if parts[one.pair.id] == part])
    assert figures["precision"] >= 0.95
    assert figures["recall"] >= 0.60
    assert figures["auto"] >= 3
    assert figures["auto_precision"] == 1.0
    assert figures["inversion_errors"] == 0
    assert figures["implications_claimed"] >= 3
    assert figures["implication_precision"] >= 0.90
    assert figures["candidate_recall_at_20"] >= 0.99
