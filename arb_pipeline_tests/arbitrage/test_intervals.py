import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.arbitrage.intervals import Intervals, union

spans = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)))


@given(spans)
def test_union_and_complement_against_sets(pairs: list[tuple[int, int]]) -> None:
    times = np.arange(-2, 33)
    wanted = [any(start <= at < end for start, end in pairs) for at in times.tolist()]
    found = Intervals.of(pairs)
    assert found.contains(times).tolist() == wanted
    assert found.complement().contains(times).tolist() == [not inside for inside in wanted]
    assert (found.starts[1:] > found.ends[:-1]).all(), "disjoint and not touching"


def test_clip() -> None:
    assert Intervals.of([(0, 5), (8, 12), (20, 30)]).clip(3, 20) == [(3, 5), (8, 12)]


@given(st.lists(st.lists(st.integers(-5, 5)), min_size=1))
def test_union_is_every_distinct_time(parts: list[list[int]]) -> None:
    found = union(*(np.array(sorted(part), dtype=np.int64) for part in parts))
    assert found.tolist() == sorted({at for part in parts for at in part})
