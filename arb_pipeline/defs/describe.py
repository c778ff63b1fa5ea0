"""What the UI shows of a table: its asset's specification, made from ``tables.py``, and metadata of its rows."""

import itertools
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

import dagster as dg
import pyarrow as pa

from arb_pipeline.tables import Table, table

if TYPE_CHECKING:
    from arb_pipeline.storage.lake import Lake, Partition

__all__ = [
    "EXCHANGE_TAG",
    "OWNER",
    "Condition",
    "Metadata",
    "asset_key",
    "column_schema",
    "exchange_tags",
    "partition_metadata",
    "preview",
    "table_metadata",
    "table_spec",
    "table_uri",
]

Metadata: TypeAlias = dict[str, dg.MetadataValue[Any]]
"""Metadata by name; what a value holds is Dagster's business."""

OWNER = "team:arb"
EXCHANGE_TAG = "arb/exchange"
Condition: TypeAlias = dg.AutomationCondition[dg.AssetKey] | dg.AutomationCondition[dg.AssetKey | dg.AssetCheckKey]

_PREVIEW_ROWS = 8
_NOT_IN_TAG = re.compile(r"[^A-Za-z0-9_.-]+")


def asset_key(name: str, venue: str = "") -> dg.AssetKey:
    """``[venue, table]`` for what a venue has of its own, else ``[table]``."""
    return dg.AssetKey([venue, name] if venue else [name])


def exchange_tags(exchange_name: str) -> dict[str, str]:
    """The tag that tells data of a local exchange from the real thing; none for the real thing.

    Dagster allows 63 letters, digits and ``_ . -`` in a tag's value; anything else becomes ``-``.
    """
    value = _NOT_IN_TAG.sub("-", exchange_name).strip("-")[:63]
    return {EXCHANGE_TAG: value} if value else {}


def column_schema(declared: Table) -> dg.TableSchema:
    """A table's columns as Dagster shows them: types, words, keys."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=str(column.type),
                description=column.doc,
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in declared.columns
        ],
        constraints=dg.TableConstraints(other=[f"key: {', '.join(declared.key)}"]),
    )


def table_spec(
    name: str,
    *,
    group: str,
    venue: str = "",
    deps: Iterable[dg.AssetKey] = (),
    kinds: frozenset[str] = frozenset({"parquet"}),
    description: str = "",
    tags: Mapping[str, str] | None = None,
    partitions_def: dg.PartitionsDefinition[str] | None = None,
    automation_condition: Condition | None = None,
    fresh_within: timedelta | None = None,
    skippable: bool = False,
) -> dg.AssetSpec:
    """The asset of a declared table.

    Args:
        fresh_within: the asset is shown as late beyond it, and as failed beyond twice as long.
        description: replaces the table's own words.
    """
    declared, key = table(name), asset_key(name, venue)
    kinds_shown = {*kinds, venue} if venue else set(kinds)
    return dg.AssetSpec(
        key,
        deps=list(deps),
        description=description or declared.doc,
        metadata={"dagster/column_schema": column_schema(declared), "dagster/table_name": ".".join(key.path)},
        group_name=group,
        owners=[OWNER],
        kinds=kinds_shown,
        tags=tags,
        partitions_def=partitions_def,
        automation_condition=automation_condition,
        skippable=skippable,
        freshness_policy=(
            None
            if fresh_within is None
            else dg.FreshnessPolicy.time_window(fail_window=2 * fresh_within, warn_window=fresh_within)
        ),
    )


def table_metadata(rows: pa.Table, uri: str, *, partitioned: bool = False) -> Metadata:
    """Row count, place and a preview of rows that were just written: a whole table's, or one partition's."""
    return {
        "dagster/partition_row_count" if partitioned else "dagster/row_count": dg.MetadataValue.int(rows.num_rows),
        "dagster/uri": dg.MetadataValue.text(uri),
        "preview": preview(rows),
    }


def partition_metadata(lake: "Lake", name: str, partition: "Partition") -> Metadata:
    """Row count, size, place and a preview of one partition; only its first rows are read."""
    manifest = lake.manifest(name, partition)
    return {
        "dagster/partition_row_count": dg.MetadataValue.int(manifest.rows),
        "bytes": dg.MetadataValue.int(sum(file.bytes for file in manifest.files)),
        "dagster/uri": dg.MetadataValue.text(table_uri(lake, name, partition)),
        "preview": preview(_head(lake, name, partition)),
    }


def preview(rows: pa.Table) -> dg.MarkdownMetadataValue:
    """The first rows as a table for people."""
    from arb_pipeline.reports import markdown_preview

    return dg.MetadataValue.md(markdown_preview(rows, _PREVIEW_ROWS))


def table_uri(lake: "Lake", name: str, partition: "Partition | None" = None) -> str:
    """Where a table, or one of its partitions, lies."""
    return "/".join(part for part in (lake.root.rstrip("/"), name, partition.path if partition else "") if part)


def _head(lake: "Lake", name: str, partition: "Partition") -> pa.Table:
    import pyarrow.parquet as pq

    files = lake.manifest(name, partition).files
    if not files:
        return table(name).schema.empty_table()
    with (
        lake.filesystem.open(f"{table_uri(lake, name, partition)}/{files[0].name}", "rb") as file,
        pq.ParquetFile(file) as parquet,
    ):
        return pa.Table.from_batches(
            itertools.islice(parquet.iter_batches(batch_size=_PREVIEW_ROWS), 1), parquet.schema_arrow
        )
