"""Arrow columns from and to plain int64 arrays, and sorting and duplicate search by declared keys."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = [
    "Ints",
    "Mask",
    "decimal_array",
    "fits",
    "fixed_point",
    "int_array",
    "is_sorted",
    "key_codes",
    "repeated",
    "sort_table",
]

Ints: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]


def fits(values: Ints, type_: pa.Decimal128Type) -> Mask:
    """Which fixed-point integers have no more digits than the decimal type."""
    if type_.precision > 18:
        return np.ones(len(values), dtype=np.bool_)
    limit = 10**type_.precision
    inside: Mask = (values < limit) & (values > -limit)
    return inside


def decimal_array(values: Ints, type_: pa.Decimal128Type, valid: Mask | None = None) -> pa.Decimal128Array:
    """A decimal column from integers counted in the type's own last digit; False in ``valid`` becomes null.

    An Arrow decimal is a 16-byte two's complement integer, so the column is built by sign extension, without a
    Python object per value.

    Raises:
        ValueError: if a value has more digits than the type; it names the value and the type.
    """
    if valid is not None:
        values = np.where(valid, values, 0)
    wrong = ~fits(values, type_)
    if wrong.any():
        raise ValueError(f"{values[wrong][0]} counts of 1e-{type_.scale} do not fit {type_}")
    words = np.empty((len(values), 2), dtype="<i8")
    words[:, 0] = values
    words[:, 1] = values >> 63
    return pa.Array.from_buffers(type_, len(values), [_bitmap(valid), pa.py_buffer(words)])


def int_array(values: Ints, valid: Mask | None = None) -> pa.Int64Array:
    """An int64 column; False in ``valid`` becomes null."""
    return pa.Array.from_buffers(
        pa.int64(), len(values), [_bitmap(valid), pa.py_buffer(np.ascontiguousarray(values, dtype="<i8"))]
    )


def _bitmap(valid: Mask | None) -> pa.Buffer | None:
    if valid is None or valid.all():
        return None
    return pa.py_buffer(np.packbits(valid, bitorder="little"))


def fixed_point(column: pa.ChunkedArray | pa.Array) -> tuple[Ints, Mask]:
    """The integers behind a decimal or int64 column, in its last digit, and which of them are not null (null is 0).

    Raises:
        OverflowError: if a value does not fit 64 bits.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    valid: Mask = array.is_valid().to_numpy(zero_copy_only=False)
    if not pa.types.is_decimal128(array.type):
        return array.fill_null(0).to_numpy(zero_copy_only=False), valid
    if not len(array):
        return np.empty(0, dtype=np.int64), valid
    words = np.frombuffer(array.buffers()[1], dtype="<i8").reshape(-1, 2)[array.offset : array.offset + len(array)]
    values: Ints = np.where(valid, words[:, 0], 0)
    if (valid & (words[:, 1] != values >> 63)).any():
        raise OverflowError(f"a value of {array.type} does not fit 64 bits")
    return values, valid


def key_codes(column: pa.ChunkedArray) -> Ints:
    """Integers that order and equal each other exactly as the column's values do; nulls come first."""
    type_ = column.type
    if pa.types.is_int64(type_) and not column.null_count:
        return np.asarray(column.to_numpy())
    encoded = column.combine_chunks().dictionary_encode()
    ranks = np.empty(len(encoded.dictionary) + 1, dtype=np.int64)
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    ranks[order] = np.arange(len(order))
    ranks[-1] = -1
    codes: Ints = ranks[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
    return codes


def sort_table(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    """The rows ordered by the named columns, all ascending; equal rows keep their order."""
    if table.num_rows < 2:
        return table
    order = np.lexsort([key_codes(table[name]) for name in reversed(keys)])
    if (order[1:] > order[:-1]).all():
        return table
    return table.take(order)


def is_sorted(table: pa.Table, keys: Sequence[str]) -> bool:
    """Whether the rows are ordered by the named columns, all ascending."""
    if table.num_rows < 2:
        return True
    order = np.lexsort([key_codes(table[name]) for name in reversed(keys)])
    return bool((order[1:] > order[:-1]).all())


def repeated(table: pa.Table, key: Sequence[str]) -> tuple[Ints, Ints]:
    """Rows whose key an earlier row has already: their indices, and for each the index of the first such row."""
    if table.num_rows < 2:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    codes = [key_codes(table[name]) for name in key]
    order = np.lexsort(codes[::-1])
    same = np.ones(len(order) - 1, dtype=np.bool_)
    for code in codes:
        same &= code[order[1:]] == code[order[:-1]]
    starts = np.concatenate(([0], np.where(same, 0, np.arange(1, len(order)))))
    first = order[np.maximum.accumulate(starts)]
    later = np.flatnonzero(same) + 1
    return order[later], first[later]
