from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.storage.arrow import decimal_array, fits, fixed_point, int_array, key_codes, repeated, sort_table

SIZE = pa.decimal128(18, 6)
PRICE = pa.decimal128(9, 4)


@given(st.lists(st.none() | st.integers(-(10**18) + 1, 10**18 - 1), max_size=40), st.integers(0, 5))
def test_decimals_are_exact_and_come_back(values: list[int | None], skip: int) -> None:
    valid = np.array([value is not None for value in values], dtype=np.bool_)
    array = decimal_array(np.array([value or 0 for value in values], dtype=np.int64), SIZE, valid)
    array.validate(full=True)
    assert array.to_pylist() == [None if value is None else Decimal(value).scaleb(-6) for value in values]
    sliced = array.slice(skip)
    back, known = fixed_point(pa.chunked_array([sliced]))
    assert [int(v) if k else None for v, k in zip(back, known, strict=True)] == values[skip:]


def test_a_number_too_long_for_its_type_is_refused_with_value_and_type() -> None:
    values = np.array([1, 10**9, -(10**9)], dtype=np.int64)
    assert fits(values, PRICE).tolist() == [True, False, False]
    with pytest.raises(ValueError, match=r"1000000000 counts of 1e-4 do not fit decimal128\(9, 4\)"):
        decimal_array(values, PRICE)
    assert decimal_array(values, PRICE, np.array([True, False, False])).null_count == 2


def test_int_columns_keep_nulls() -> None:
    array = int_array(np.array([1, 2, 3], dtype=np.int64), np.array([True, False, True]))
    assert array.to_pylist() == [1, None, 3]
    values, valid = fixed_point(array)
    assert values.tolist() == [1, 0, 3]
    assert valid.tolist() == [True, False, True]


def test_a_decimal_beyond_64_bits_is_refused() -> None:
    with pytest.raises(OverflowError):
        fixed_point(pa.array([Decimal(10**20)], pa.decimal128(38, 0)))


rows = st.lists(
    st.tuples(st.sampled_from(["a", "b", "é", ""]), st.integers(-3, 3), st.none() | st.integers(0, 2)), max_size=30
)


def _table(values: list[tuple[str, int, int | None]]) -> pa.Table:
    return pa.table(
        {
            "name": pa.array([v[0] for v in values], pa.string()),
            "time": pa.array([v[1] for v in values], pa.int64()),
            "note": pa.array([v[2] for v in values], pa.int64()),
        }
    )


@given(rows)
def test_sorting_agrees_with_python(values: list[tuple[str, int, int | None]]) -> None:
    ordered = sort_table(_table(values), ("name", "time", "note"))
    key = [(v[0].encode(), v[1], -1 if v[2] is None else v[2]) for v in values]
    expected = [value for _, value in sorted(zip(key, values, strict=True), key=lambda pair: pair[0])]
    assert [tuple(row.values()) for row in ordered.to_pylist()] == expected


@given(rows)
def test_repeats_point_at_the_first_row_of_their_key(values: list[tuple[str, int, int | None]]) -> None:
    later, first = repeated(_table(values), ("name", "time"))
    keys = [value[:2] for value in values]
    expected = {i: keys.index(key) for i, key in enumerate(keys) if keys.index(key) != i}
    assert dict(zip(later.tolist(), first.tolist(), strict=True)) == expected


def test_codes_order_as_values_do() -> None:
    codes = key_codes(pa.chunked_array([["b", "a"], ["c", "a"]]))
    assert codes[1] == codes[3] < codes[0] < codes[2]
