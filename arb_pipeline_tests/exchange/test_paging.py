import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.exchange.paging import CursorError, page_newest_first


@given(st.integers(0, 30), st.integers(1, 7), st.lists(st.integers(0, 3), min_size=40, max_size=40))
def test_pages_are_complete_though_items_come_in_between(count: int, limit: int, arrivals: list[int]) -> None:
    items = list(range(count, 0, -1))
    seen: list[int] = []
    cursor = ""
    for arrived in arrivals:
        got, cursor = page_newest_first(items, int, cursor, limit, {"kind": "numbers"})
        seen += got
        if not cursor:
            break
        newest = items[0]
        items = [*range(newest + arrived, newest, -1), *items]
    assert seen == list(range(count, 0, -1))


def test_a_cursor_belongs_to_its_filters() -> None:
    _, cursor = page_newest_first([3, 2, 1], int, "", 2, {"ticker": "A"})
    with pytest.raises(CursorError, match="another listing"):
        page_newest_first([3, 2, 1], int, cursor, 2, {"ticker": "B"})
