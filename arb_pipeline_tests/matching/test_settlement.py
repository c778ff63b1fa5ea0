from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.matching.settlement import Agreement, compare, figures
from arb_pipeline.model import Relation

EQUIVALENT, INVERTED = Relation.EQUIVALENT, Relation.INVERTED
IMPLIES, IMPLIED = Relation.KALSHI_IMPLIES_POLYMARKET, Relation.POLYMARKET_IMPLIES_KALSHI
PROMISES = [EQUIVALENT, INVERTED, IMPLIES, IMPLIED, Relation.EXCLUSIVE]
AGREED, DISAGREED, SPLIT = Agreement.AGREED, Agreement.DISAGREED, Agreement.VOID_SPLIT


@pytest.mark.parametrize(
    ("relation", "index", "kalshi", "polymarket", "verdict", "difference"),
    [
        (EQUIVALENT, 0, "yes", "yes", AGREED, "0"),
        (EQUIVALENT, 0, "no", "no", AGREED, "0"),
        (EQUIVALENT, 0, "yes", "no", DISAGREED, "1"),
        (EQUIVALENT, 0, "no", "yes", DISAGREED, "-1"),
        (INVERTED, 1, "yes", "no", AGREED, "0"),
        (INVERTED, 1, "yes", "yes", DISAGREED, "1"),
        (IMPLIES, 0, "yes", "no", DISAGREED, "1"),
        (IMPLIES, 0, "no", "yes", AGREED, "-1"),
        (IMPLIES, 1, "yes", "yes", DISAGREED, "1"),
        (IMPLIED, 0, "no", "yes", DISAGREED, "-1"),
        (IMPLIED, 0, "yes", "no", AGREED, "1"),
        (Relation.EXCLUSIVE, 0, "yes", "yes", DISAGREED, "0"),
        (Relation.EXCLUSIVE, 0, "no", "no", AGREED, "0"),
        (EQUIVALENT, 0, "0.5", "0.5", SPLIT, "0"),
        (EQUIVALENT, 0, "0.52", "0.5", SPLIT, "0.02"),
        (INVERTED, 1, "yes", "0.5", SPLIT, "0.5"),
    ],
)
def test_results_are_held_against_the_relation(  # noqa: PLR0917 - one row of the table
    relation: Relation, index: int, kalshi: str, polymarket: str, verdict: Agreement, difference: str
) -> None:
    assert compare(relation, index, kalshi, polymarket) == (verdict, Decimal(difference))


@pytest.mark.parametrize(("kalshi", "polymarket"), [("", "yes"), ("yes", "maybe"), ("1.5", "no"), ("no", "NaN")])
def test_what_is_no_result_is_not_compared(kalshi: str, polymarket: str) -> None:
    with pytest.raises(ValueError, match="neither yes nor no"):
        compare(EQUIVALENT, 0, kalshi, polymarket)


def test_a_relation_that_promises_nothing_is_not_compared() -> None:
    with pytest.raises(ValueError, match="promises nothing"):
        compare(Relation.RELATED, 0, "yes", "yes")


@given(st.sampled_from(PROMISES), st.sampled_from(["yes", "no"]), st.sampled_from(["yes", "no"]))
def test_turning_polymarket_round_changes_nothing(relation: Relation, kalshi: str, polymarket: str) -> None:
    other = {"yes": "no", "no": "yes"}[polymarket]
    assert compare(relation, 0, kalshi, polymarket) == compare(relation, 1, kalshi, other)


def test_figures_leave_splits_out_and_bound_the_disagreement() -> None:
    rows = [{"family": "fed", "verdict": "agreed"}] * 59 + [{"family": "", "verdict": "void_split"}]
    overall, fed, other = figures(rows)
    assert (overall.family, overall.resolved, overall.agreed, overall.split, overall.rate) == (
        "overall",
        59,
        59,
        1,
        1.0,
    )
    # Rule of three: without a disagreement in n pairs, the share is at most 3 / n at 95 %.
    assert overall.bound == pytest.approx(1 - 0.05 ** (1 / 59))
    assert fed.bound == overall.bound
    assert (other.family, other.resolved, other.rate, other.bound) == ("other", 0, None, 1.0)
    (empty,) = figures([])
    assert (empty.resolved, empty.bound) == (0, 1.0)
    one_wrong = figures([*rows, {"family": "fed", "verdict": "disagreed"}])[0]
    assert one_wrong.bound > overall.bound
    assert one_wrong.rate == pytest.approx(59 / 60)
