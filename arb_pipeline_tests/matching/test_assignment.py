from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.matching.assignment import assign

pairs = st.dictionaries(
    st.tuples(st.integers(0, 4), st.integers(0, 4)), st.floats(0.5, 9, allow_nan=False), max_size=10
)


def best(weights: dict[tuple[int, int], float]) -> float:
    """By trying every way."""
    rows = range(5)
    return max(
        sum(weights.get((row, column), 0.0) for row, column in zip(rows, order, strict=True))
        for order in permutations(range(5))
    )


@given(pairs)
def test_nobody_stands_in_two_pairs_and_the_total_is_the_greatest(weights: dict[tuple[int, int], float]) -> None:
    chosen = assign(weights)
    assert chosen <= weights.keys()
    assert len({row for row, _ in chosen}) == len({column for _, column in chosen}) == len(chosen)
    assert abs(sum(weights[pair] for pair in chosen) - best(weights)) < 1e-9


@given(pairs)
def test_the_order_of_the_pairs_does_not_matter(weights: dict[tuple[int, int], float]) -> None:
    turned = dict(reversed(weights.items()))
    assert abs(sum(weights[pair] for pair in assign(weights)) - sum(weights[pair] for pair in assign(turned))) < 1e-9
