"""A few columns of the rows that a test chooses, where whole tables would be too much to read again and again."""

from collections.abc import Callable, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from arb_pipeline.storage.lake import Lake, LakeFile
from arb_pipeline.tables import table as declared

__all__ = ["chosen_rows"]

_TRIES: Final = 5


def chosen_rows(
    lake: Lake, table: str, files: Callable[[], Sequence[LakeFile]], columns: Sequence[str], chosen: pc.Expression
) -> pa.Table:
    """The rows of these files for which ``chosen`` holds, in no certain order.

    Args:
        files: lists the files; asked again if one was compacted meanwhile.
    """
    schema = declared(table).schema
    for attempt in range(_TRIES):
        paths = [lake.location(table, file.partition, file.entry.name) for file in files()]
        try:
            if paths:
                data = ds.dataset(paths, schema=schema, format="parquet", filesystem=lake.filesystem)
                return data.to_table(columns=list(columns), filter=chosen)
        except FileNotFoundError:
            if attempt == _TRIES - 1:
                raise
            continue
        break
    return pa.schema([schema.field(name) for name in columns]).empty_table()
