"""Arrow rows as PostgreSQL's binary COPY stream, built by numpy without a Python object per value.

The format (PostgreSQL documentation, "COPY", binary format): a header, then for each row the number of its fields and
for each field its length and bytes, big-endian, length -1 for null. A ``numeric`` is a count of base-10000 digits, the
weight of the first one, sign, decimals shown, and the digits; leading and trailing zero digits are taken too, so every
column's numbers have one width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import psycopg
import pyarrow as pa
from psycopg import sql

from arb_pipeline.storage.arrow import Ints

__all__ = ["binary_copy", "copy_rows"]

Values: TypeAlias = npt.NDArray[Any]

_HEADER: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_ROWS_AT_A_TIME: Final = 2_048
"""Keeps the buffers that are filled column by column within the processor's cache; and what was sent last is about what
a socket holds, so that the server works on it while the next rows are encoded."""
_LENGTH: Final = ">i4"
_NULL: Final = -1

_EPOCH_US: Final = 946_684_800_000_000
_EPOCH_DAYS: Final = 10_957
"""PostgreSQL counts time from 2000-01-01."""

_BASE: Final = 10_000
_NEGATIVE: Final = 0x4000
_LOW_WORD: Final = 2**64 - 1


@dataclass(slots=True)
class _Block:
    """Bytes of one column, or of several side by side, lengths included.

    Attributes:
        widths: how many bytes a row has, of all rows or of each.
        parts: records of equal size, the rows that have them, and where in the row's bytes of this block they begin.
    """

    widths: Ints | int
    parts: list[tuple[Ints | slice, int, Values]]


_ALL: Final = slice(None)


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
    blocks = list(_blocks(rows))
    lengths = np.full(rows.num_rows, 2, dtype=np.int64)
    for block in blocks:
        lengths += block.widths
    ends = np.cumsum(lengths)
    at = ends - lengths
    buffer = np.empty(int(ends[-1]), dtype=np.uint8)
    _put(buffer, at, np.full(rows.num_rows, rows.num_columns, dtype=">i2"))
    at += 2
    for block in blocks:
        for places, offset, records in block.parts:
            _put(buffer, at[places] + offset, records)
        at += block.widths
    return buffer.tobytes()


def _put(buffer: Values, at: Ints, records: Values) -> None:
    """Copy records to where they belong, each in one piece."""
    _windows(buffer, records.dtype.itemsize)[at] = records.view(f"V{records.dtype.itemsize}")


def _windows(data: Values, width: int) -> Values:
    """The ``width`` bytes from each byte on."""
    return np.ndarray(len(data) - width + 1, dtype=f"V{width}", buffer=data, strides=(1,))


def _blocks(rows: pa.Table) -> Iterator[_Block]:
    """The columns in order; neighbours that have neither nulls nor text are one block, whose records are all alike."""
    alike: list[Values] = []
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        array = column.combine_chunks()
        is_text = pa.types.is_string(array.type)
        if not is_text and not array.null_count:
            alike.append(_values(name, array))
            continue
        if alike:
            yield _side_by_side(alike)
            alike = []
        yield _text(array) if is_text else _nullable(name, array)
    if alike:
        yield _side_by_side(alike)


def _side_by_side(columns: list[Values]) -> _Block:
    records = _records(columns)
    return _Block(records.dtype.itemsize, [(_ALL, 0, records)])


def _records(columns: list[Values]) -> Values:
    """Each row's values, with the length before each."""
    fields: list[Any] = []
    for number, values in enumerate(columns):
        fields += [(f"length{number}", _LENGTH), (f"value{number}", values.dtype, values.shape[1:])]
    records = np.empty(len(columns[0]), dtype=fields)
    for number, values in enumerate(columns):
        records[f"length{number}"] = records.dtype[f"value{number}"].itemsize
        records[f"value{number}"] = values
    return records


def _nullable(name: str, array: pa.Array) -> _Block:
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    records = _records([_values(name, array.drop_null())])
    missing = np.flatnonzero(~valid)
    return _Block(
        np.where(valid, records.dtype.itemsize, np.dtype(_LENGTH).itemsize),
        [(np.flatnonzero(valid), 0, records), (missing, 0, np.full(len(missing), _NULL, dtype=_LENGTH))],
    )


def _text(array: pa.StringArray) -> _Block:
    """Lengths, and then the words, those of one length at a time."""
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int32)[array.offset : array.offset + len(array) + 1].astype(np.int64)
    sizes, starts = np.diff(bounds), bounds[:-1]
    lengths = sizes
    if array.null_count:
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        sizes, lengths = np.where(valid, sizes, 0), np.where(valid, sizes, _NULL)
    header = np.dtype(_LENGTH).itemsize
    text = np.frombuffer(b"" if data is None else data, dtype=np.uint8)
    order = np.argsort(sizes, kind="stable")
    alike = np.split(order, np.flatnonzero(np.diff(sizes[order])) + 1)
    words = [
        (places, header, _windows(text, size)[starts[places]]) for places in alike if (size := int(sizes[places[0]]))
    ]
    return _Block(header + sizes, [(_ALL, 0, lengths.astype(_LENGTH)), *words])


def _values(name: str, array: pa.Array) -> Values:
    """A column without nulls, as PostgreSQL has it: one row's value in each place, or its words of 16 bits."""
    type_ = array.type
    if pa.types.is_decimal128(type_):
        return _numeric(array)
    if pa.types.is_int64(type_):
        return _plain(array, ">i8")
    if pa.types.is_boolean(type_):
        return _plain(array, "u1")
    if pa.types.is_float64(type_):
        return _plain(array, ">f8")
    if type_ == pa.timestamp("us", tz="UTC"):
        return (_plain(array.cast(pa.int64()), "i8") - _EPOCH_US).astype(">i8")
    if pa.types.is_date32(type_):
        return (_plain(array.cast(pa.int32()), "i4") - _EPOCH_DAYS).astype(">i4")
    raise TypeError(f"column {name!r} is {type_}, which no table of ours has")


def _plain(array: pa.Array, type_: str) -> Values:
    values: Values = array.to_numpy(zero_copy_only=False).astype(type_)
    return values


def _numeric(array: pa.Decimal128Array) -> Values:
    """The numbers of a decimal column, all of one width."""
    scale = array.type.scale
    whole, fraction = -(-(array.type.precision - scale) // 4), -(-scale // 4)
    words = np.frombuffer(array.buffers()[1], dtype="<i8").reshape(-1, 2)[array.offset : array.offset + len(array)]
    low, high = words[:, 0], words[:, 1]
    fixed = np.empty((len(array), 4 + whole + fraction), dtype=">i2")
    fixed[:, 0] = whole + fraction
    fixed[:, 1] = whole - 1
    fixed[:, 2] = np.where(high < 0, _NEGATIVE, 0)
    fixed[:, 3] = scale
    units, parts = np.divmod(np.abs(low), 10**scale)
    parts *= 10 ** (4 * fraction - scale)
    for place in range(3 + whole + fraction, 3 + whole, -1):
        parts, fixed[:, place] = np.divmod(parts, _BASE)
    for place in range(3 + whole, 3, -1):
        units, fixed[:, place] = np.divmod(units, _BASE)
    # More than 64 bits is sums beyond 900 million dollars: rare, and exact by Python's integers.
    for row in np.flatnonzero((high != low >> 63) | (low == -(2**63))):
        fixed[row, 4:] = _digits((int(high[row]) << 64) + (int(low[row]) & _LOW_WORD), scale, whole, fraction)
    return fixed


def _digits(value: int, scale: int, whole: int, fraction: int) -> list[int]:
    shifted = abs(value) * 10 ** (4 * fraction - scale)
    return [shifted // _BASE**place % _BASE for place in range(whole + fraction - 1, -1, -1)]
