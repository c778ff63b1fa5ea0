"""Arrow rows as PostgreSQL's binary COPY stream, built by numpy without a Python object per value.

The format (PostgreSQL documentation, "COPY", binary format): a header, then for each row the number of its fields and
for each field its length and bytes, big-endian, length -1 for null. A ``numeric`` is a count of base-10000 digits, the
weight of the first one, sign, decimals shown, and the digits; leading and trailing zero digits are taken too, so every
column's numbers have one width.
"""

from collections.abc import Iterator
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import psycopg
import pyarrow as pa
from psycopg import sql

from arb_pipeline.storage.arrow import Ints, Mask

__all__ = ["binary_copy", "copy_rows"]

Bytes: TypeAlias = npt.NDArray[np.uint8]

_HEADER: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_ROWS_AT_A_TIME: Final = 16_384
"""Keeps the buffers that are filled column by column within the processor's cache."""

_EPOCH_US: Final = 946_684_800_000_000
_EPOCH_DAYS: Final = 10_957
"""PostgreSQL counts time from 2000-01-01."""

_BASE: Final = 10_000
_NEGATIVE: Final = 0x4000
_LOW_WORD: Final = 2**64 - 1


class _Field:
    """One column's values as bytes: ``fixed`` (rows x width), or ``data`` cut at ``starts`` and ``starts + sizes``."""

    def __init__(self, valid: Mask, fixed: Bytes | None, data: Bytes, starts: Ints, sizes: Ints) -> None:
        self.valid = valid
        self.fixed = fixed
        self.data = data
        self.starts = starts
        self.sizes = sizes

    def write(self, buffer: Bytes, at: Ints) -> None:
        """Put length and bytes of every row's value at its place."""
        lengths = np.where(self.valid, self.sizes, -1).astype(">i4")
        buffer[at[:, None] + np.arange(4)] = lengths.view(np.uint8).reshape(-1, 4)
        if self.fixed is not None:
            width = self.fixed.shape[1]
            if self.valid.all():
                buffer[(at + 4)[:, None] + np.arange(width)] = self.fixed
            else:
                buffer[(at + 4)[self.valid][:, None] + np.arange(width)] = self.fixed[self.valid]
            return
        ends = np.cumsum(self.sizes)
        steps = np.arange(int(ends[-1]) if len(ends) else 0)
        before = ends - self.sizes
        buffer[steps + np.repeat(at + 4 - before, self.sizes)] = self.data[
            steps + np.repeat(self.starts - before, self.sizes)
        ]


_NO_BYTES: Final = np.empty(0, dtype=np.uint8)
_NO_STARTS: Final = np.empty(0, dtype=np.int64)


def copy_rows(cursor: psycopg.Cursor[object], table: str, rows: pa.Table) -> int:
    """Append rows to a table by one binary COPY, within the cursor's transaction; returns how many.

    The columns are those of ``rows``, by name; their types must be the table's (text, bigint, boolean, double
    precision, timestamptz, date, and numeric of any precision).

    Raises:
        psycopg.Error: what the server refuses, with nothing copied.
        TypeError: if a column has a type that no table has; it names the column and the type.
    """
    columns = sql.SQL(", ").join(map(sql.Identifier, rows.column_names))
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(sql.Identifier(table), columns)
    with cursor.copy(statement) as copy:
        for part in binary_copy(rows):
            copy.write(part)
    return int(rows.num_rows)


def binary_copy(rows: pa.Table) -> Iterator[bytes]:
    """The COPY stream of a table, in parts."""
    yield _HEADER
    for start in range(0, rows.num_rows, _ROWS_AT_A_TIME):
        yield _encode(rows.slice(start, _ROWS_AT_A_TIME))
    yield _TRAILER


def _encode(rows: pa.Table) -> bytes:
    fields = [_field(name, column) for name, column in zip(rows.column_names, rows.columns, strict=True)]
    lengths = np.full(rows.num_rows, 2 + 4 * len(fields), dtype=np.int64)
    for field in fields:
        lengths += field.sizes
    ends = np.cumsum(lengths)
    at = ends - lengths
    buffer = np.empty(int(ends[-1]), dtype=np.uint8)
    buffer[at[:, None] + np.arange(2)] = np.frombuffer(len(fields).to_bytes(2, "big"), dtype=np.uint8)
    at = at + 2
    for field in fields:
        field.write(buffer, at)
        at = at + 4 + field.sizes
    return buffer.tobytes()


def _field(name: str, column: pa.ChunkedArray) -> _Field:
    array = column.combine_chunks()
    valid: Mask = array.is_valid().to_numpy(zero_copy_only=False)
    type_ = array.type
    if pa.types.is_string(type_):
        return _text(array, valid)
    if pa.types.is_decimal128(type_):
        fixed = _numeric(array, valid)
    elif pa.types.is_int64(type_):
        fixed = _bytes(array.fill_null(0).to_numpy(), ">i8")
    elif pa.types.is_boolean(type_):
        fixed = _bytes(array.fill_null(False).to_numpy(zero_copy_only=False), "u1")
    elif pa.types.is_float64(type_):
        fixed = _bytes(array.fill_null(0.0).to_numpy(), ">f8")
    elif type_ == pa.timestamp("us", tz="UTC"):
        fixed = _bytes(array.cast(pa.int64()).fill_null(_EPOCH_US).to_numpy() - _EPOCH_US, ">i8")
    elif pa.types.is_date32(type_):
        fixed = _bytes(array.cast(pa.int32()).fill_null(_EPOCH_DAYS).to_numpy() - _EPOCH_DAYS, ">i4")
    else:
        raise TypeError(f"column {name!r} is {type_}, which no table of ours has")
    return _Field(valid, fixed, _NO_BYTES, _NO_STARTS, np.where(valid, fixed.shape[1], 0))


def _bytes(values: npt.NDArray[np.generic], type_: str) -> Bytes:
    fixed: Bytes = np.ascontiguousarray(values.astype(type_)).view(np.uint8).reshape(len(values), -1)
    return fixed


def _text(array: pa.StringArray, valid: Mask) -> _Field:
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int32)[array.offset : array.offset + len(array) + 1].astype(np.int64)
    sizes = np.where(valid, bounds[1:] - bounds[:-1], 0)
    text = _NO_BYTES if data is None else np.frombuffer(data, dtype=np.uint8)
    return _Field(valid, None, text, bounds[:-1], sizes)


def _numeric(array: pa.Decimal128Array, valid: Mask) -> Bytes:
    """The numbers of a decimal column, all of one width."""
    scale = array.type.scale
    whole, fraction = -(-(array.type.precision - scale) // 4), -(-scale // 4)
    words = np.frombuffer(array.buffers()[1], dtype="<i8").reshape(-1, 2)[array.offset : array.offset + len(array)]
    low, high = np.where(valid, words[:, 0], 0), np.where(valid, words[:, 1], 0)
    magnitude = np.abs(low)
    fixed = np.empty((len(array), 4 + whole + fraction), dtype=">i2")
    fixed[:, 0] = whole + fraction
    fixed[:, 1] = whole - 1
    fixed[:, 2] = np.where(high < 0, _NEGATIVE, 0)
    fixed[:, 3] = scale
    units, parts = np.divmod(magnitude, 10**scale)
    parts = parts * 10 ** (4 * fraction - scale)
    for place in range(3 + whole + fraction, 3 + whole, -1):
        parts, fixed[:, place] = np.divmod(parts, _BASE)
    for place in range(3 + whole, 3, -1):
        units, fixed[:, place] = np.divmod(units, _BASE)
    # More than 64 bits is sums beyond 900 million dollars: rare, and exact by Python's integers.
    for row in np.flatnonzero((high != low >> 63) | (low == -(2**63))):
        fixed[row, 4:] = _digits((int(high[row]) << 64) + (int(low[row]) & _LOW_WORD), scale, whole, fraction)
    return fixed.view(np.uint8).reshape(len(array), -1)


def _digits(value: int, scale: int, whole: int, fraction: int) -> list[int]:
    shifted = abs(value) * 10 ** (4 * fraction - scale)
    return [shifted // _BASE**place % _BASE for place in range(whole + fraction - 1, -1, -1)]
