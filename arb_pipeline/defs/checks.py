"""Checks of what an asset has just written. They run inside the producing asset, on the partition it wrote."""

from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.gaps import gap_share_of, union_ns
from arb_pipeline.model import MatchStatus, Relation
from arb_pipeline.tables import table

if TYPE_CHECKING:
    from arb_pipeline.storage.lake import Lake, Partition

__all__ = [
    "check_spec",
    "coverage_of",
    "gap_share",
    "gap_share_of",
    "in_order",
    "keys_unique",
    "not_crossed",
    "not_empty",
    "ohlc_sane",
    "one_to_one",
    "ordered_keys_unique",
]

MAX_CROSSED_SHARE = 0.01
MAX_GAP_SHARE = 0.05
MIN_COVERAGE = 0.9

_DESCRIPTIONS = {
    "keys_unique": "No two rows share a key.",
    "not_empty": "There is at least one row.",
    "in_order": "Within a connection the recorder's order is the order of receipt.",
    "not_crossed": "Hardly any trusted quote has its bid at or above its ask.",
    "gap_share": "The time in which books were not to be trusted is a small part of the time captured.",
    "one_to_one": "No market stands in two accepted pairs.",
    "ohlc_sane": "No price of a candle lies above its high or below its low, and a high goes with all the others.",
    "coverage": "Books were known nearly all of the time in which they moved.",
    "decisions_apply": "People's decisions are about the rules texts of today.",
    "settled_as_said": "No accepted pair settled against its relation.",
}


def check_spec(name: str, asset: dg.AssetKey, *, blocking: bool = False) -> dg.AssetCheckSpec:
    """The specification of one of the checks below on an asset."""
    return dg.AssetCheckSpec(name, asset=asset, description=_DESCRIPTIONS[name], blocking=blocking)


def keys_unique(asset: dg.AssetKey, rows: pa.Table, table_name: str) -> dg.AssetCheckResult:
    """No two rows share the table's key."""
    key = list(table(table_name).key)
    distinct = rows.select(key).group_by(key).aggregate([]).num_rows
    doubled = rows.num_rows - distinct
    return dg.AssetCheckResult(
        passed=doubled == 0,
        asset_key=asset,
        check_name="keys_unique",
        metadata={"rows": rows.num_rows, "doubled": doubled, "key": ", ".join(key)},
    )


def ordered_keys_unique(
    asset: dg.AssetKey, lake: "Lake", table_name: str, partition: "Partition", rows_at_once: int = 65_536
) -> dg.AssetCheckResult:
    """:func:`keys_unique` of a partition of one file in the order of its key, some rows at a time."""
    import pyarrow.parquet as pq

    key = list(table(table_name).key)
    rows = doubled = 0
    for entry in lake.manifest(table_name, partition).files:
        path = lake.location(table_name, partition, entry.name)
        last: dict[str, object] | None = None
        with lake.filesystem.open(path, "rb") as file, pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(rows_at_once, columns=key):
                same = np.ones(batch.num_rows - 1, dtype=np.bool_)
                for name in key:
                    column = batch[name]
                    same &= pc.equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
                first = batch.slice(0, 1).to_pylist()[0]
                doubled += int(same.sum()) + (first == last)
                last = batch.slice(batch.num_rows - 1).to_pylist()[0]
                rows += batch.num_rows
    return dg.AssetCheckResult(
        passed=doubled == 0,
        asset_key=asset,
        check_name="keys_unique",
        metadata={"rows": rows, "doubled": doubled, "key": ", ".join(key)},
    )


def not_empty(asset: dg.AssetKey, rows: pa.Table) -> dg.AssetCheckResult:
    """There is at least one row."""
    return dg.AssetCheckResult(
        passed=rows.num_rows > 0, asset_key=asset, check_name="not_empty", metadata={"rows": rows.num_rows}
    )


def in_order(asset: dg.AssetKey, rows: pa.Table) -> dg.AssetCheckResult:
    """Sorted by ordinal within a connection, receive times never step back."""
    ordered = rows.select(["connection_id", "ordinal", "recv_ns"]).sort_by(
        [("connection_id", "ascending"), ("ordinal", "ascending")]
    )
    backwards = 0
    if ordered.num_rows > 1:
        steps = np.diff(ordered["recv_ns"].to_numpy())
        connection = pc.dictionary_encode(ordered["connection_id"].combine_chunks()).indices.to_numpy()
        backwards = int(((steps < 0) & (np.diff(connection) == 0)).sum())
    return dg.AssetCheckResult(
        passed=backwards == 0,
        asset_key=asset,
        check_name="in_order",
        metadata={"rows": rows.num_rows, "steps_back": backwards},
    )


def not_crossed(asset: dg.AssetKey, quotes: pa.Table) -> dg.AssetCheckResult:
    """Real books cross for a frame and heal; a larger share means that they are put together wrongly."""
    trusted = quotes.filter(quotes["in_sync"])
    crossed = trusted.filter(pc.greater_equal(trusted["bid"], trusted["ask"])).num_rows
    share = crossed / trusted.num_rows if trusted.num_rows else 0.0
    return dg.AssetCheckResult(
        passed=share <= MAX_CROSSED_SHARE,
        asset_key=asset,
        check_name="not_crossed",
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"trusted_quotes": trusted.num_rows, "crossed": crossed, "share": share, "limit": MAX_CROSSED_SHARE},
    )


def ohlc_sane(asset: dg.AssetKey, candles: pa.Table) -> dg.AssetCheckResult:
    """Of bids, asks and trades: low <= open, close <= high, and all four points or none."""
    wrong = 0
    for side in ("bid", "ask", "price"):
        open_, high, low, close = (candles[f"{side}_{point}"] for point in ("open", "high", "low", "close"))
        there = np.stack([column.is_valid().to_numpy() for column in (open_, high, low, close)])
        inside = [pc.less_equal(low, point) for point in (open_, close)]
        inside += [pc.less_equal(point, high) for point in (open_, close)]
        sane = np.stack([pc.fill_null(one, pa.scalar(True)).to_numpy() for one in inside]).all(axis=0)
        wrong += int((~sane | (there.any(axis=0) & ~there.all(axis=0))).sum())
    return dg.AssetCheckResult(
        passed=wrong == 0, asset_key=asset, check_name="ohlc_sane", metadata={"rows": candles.num_rows, "wrong": wrong}
    )


def coverage_of(asset: dg.AssetKey, shares: pa.ChunkedArray) -> dg.AssetCheckResult:
    """Shares of time in which a book was known, one per row."""
    share = pc.mean(shares).as_py()
    return dg.AssetCheckResult(
        passed=share is None or share >= MIN_COVERAGE,
        asset_key=asset,
        check_name="coverage",
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"rows": len(shares), "share": 1.0 if share is None else share, "limit": MIN_COVERAGE},
    )


def connected_share_of(sessions: pa.Table, start: datetime, end: datetime) -> float:
    """Share of [start, end) in which some connection was up, by the times of ``capture_sessions``."""
    first, last = ns_from_datetime(start), ns_from_datetime(end)
    spans = []
    for begin, stop in zip(sessions["started_at"].to_pylist(), sessions["ended_at"].to_pylist(), strict=True):
        inside = max(ns_from_datetime(begin), first), last if stop is None else min(ns_from_datetime(stop), last)
        if inside[0] < inside[1]:
            spans.append(inside)
    return union_ns(spans) / (last - first)


def gap_share(asset: dg.AssetKey, gaps: pa.Table, markets: int, start: datetime, end: datetime) -> dg.AssetCheckResult:
    """The share of untrusted market-time of a capture is small."""
    share = gap_share_of(gaps, markets, start, end)
    return dg.AssetCheckResult(
        passed=share <= MAX_GAP_SHARE,
        asset_key=asset,
        check_name="gap_share",
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"gaps": gaps.num_rows, "markets": markets, "share": share, "limit": MAX_GAP_SHARE},
    )


def one_to_one(asset: dg.AssetKey, matches: pa.Table) -> dg.AssetCheckResult:
    """Of the pairs that count as arbitrage, each market stands in one."""
    counted = matches.filter(
        pc.and_(
            pc.is_in(matches["status"], pa.array([MatchStatus.AUTO, MatchStatus.APPROVED])),
            pc.is_in(matches["relation"], pa.array([Relation.EQUIVALENT, Relation.INVERTED])),
        )
    )
    doubled = {
        side: counted.num_rows - pc.count_distinct(counted[side]).as_py()
        for side in ("kalshi_market_id", "polymarket_market_id")
    }
    return dg.AssetCheckResult(
        passed=not any(doubled.values()),
        asset_key=asset,
        check_name="one_to_one",
        metadata={"accepted": counted.num_rows, **doubled},
    )
