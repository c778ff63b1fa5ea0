"""A query's answer written down: CSV, JSON or Parquet, batch by batch, so that its size does not matter.

Nothing passes through a float that was none: decimals are exact text in CSV and JSON, and decimals in Parquet.
"""

import csv
import json
import math
import uuid
from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from arb_pipeline.storage.query import Answer, QueryError

__all__ = ["first_rows", "printed", "write_csv", "write_json", "write_parquet"]


def write_csv(answer: Answer, out: IO[str]) -> None:
    """CSV with a header line; null is an empty field.

    The answer is one that was asked for as text (:func:`arb_pipeline.storage.query.run`).
    """
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(answer.schema.names)
    writer.writerows(_rows(answer))


def write_json(answer: Answer, out: IO[str]) -> None:
    """One JSON list with an object per row: decimals as exact text, times as ISO 8601, whole numbers as numbers.

    What JSON has no word for (nan, inf) is null.

    Raises:
        QueryError: if two columns have one name, of which an object could hold one only.
    """
    names = answer.schema.names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise QueryError(
            f"two columns are named {twice!r}: name one of them anew, as in 'select a.x as x, b.x as other'"
        )
    before = "["
    for row in _rows(answer):
        told = {name: _finite(value) for name, value in zip(names, row, strict=True)}
        out.write(before + json.dumps(told, default=_plain))
        before = ",\n"
    out.write("[]\n" if before == "[" else "]\n")


def write_parquet(answer: Answer, path: Path) -> int:
    """A Parquet file, there only once it is whole; replaces an older one. Returns the number of rows.

    Raises:
        QueryError: if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    rows = 0
    try:
        with pq.ParquetWriter(temporary, answer.schema, compression="zstd") as writer:
            for batch in answer.batches():
                writer.write_batch(batch)
                rows += batch.num_rows
        temporary.replace(path)
    except (OSError, pa.ArrowException) as error:
        raise QueryError(f"{path} cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return rows


def first_rows(answer: Answer, count: int) -> tuple[list[tuple[Any, ...]], bool]:
    """The first rows, and whether there are more."""
    found = list(islice(_rows(answer), count + 1))
    return found[:count], len(found) > count


def printed(value: Any) -> str:
    """A value for people: null is empty, a decimal has all its digits and no exponent."""
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict | list):
        return json.dumps(value, default=_plain)
    return str(value)


def _rows(answer: Answer) -> Iterator[tuple[Any, ...]]:
    for batch in answer.batches():
        # By place: two columns may have one name.
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else str(value)
