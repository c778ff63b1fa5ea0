"""The bench of storage in its short form: what it compares comes out the right way round."""

import pytest

from bench.storage import PAIRS, Figure, as_of, parquet, postgres


def _values(figures: list[Figure]) -> dict[str, float]:
    return {figure.what: figure.value for figure in figures}


def test_the_lakes_files_are_smaller_than_pyarrows() -> None:
    found = _values(parquet(20_000))
    for name in ("book_events", "quotes"):
        own, plain = (value for what, value in found.items() if what.startswith(f"{name}: bytes"))
        assert 0 < own < plain


def test_copy_beats_executemany() -> None:
    found = _values(postgres(20_000))
    running, over = (what for what in found if what.endswith("): by COPY"))
    assert running == "quotes (key (recv_ns, ordinal)): by COPY"
    assert over == "quotes (key (recv_ns, ordinal), key (market_id, recv_ns)): by COPY"
    assert found[running] > 2 * found["  by executemany"]


def test_edges_are_told_at_every_change_of_either_top() -> None:
    found = _values(as_of(20_000, rounds=1))
    assert 19_000 < found["instants"] <= 20_000 + 10 * PAIRS
    assert 0 < found["of which priced net of fees, for their gap is positive"] < found["instants"] / 10


@pytest.mark.parametrize(
    ("figure", "missed"),
    [
        (Figure("x", 10, "rows/s", at_least=10), False),
        (Figure("x", 9, "rows/s", at_least=10), True),
        (Figure("x", 5, "s", at_most=5), False),
        (Figure("x", 6, "s", at_most=5), True),
        (Figure("x", 6, "s"), False),
    ],
)
def test_a_floor_is_kept_or_missed(figure: Figure, missed: bool) -> None:
    assert figure.missed is missed
    assert ("MISSED" in figure.line()) is missed
