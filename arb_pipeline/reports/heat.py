"""When and where pairs paid: categories by hour of the day in New York."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.clock import datetime_from_ns
from arb_pipeline.reports.figures import DIRECTIONS

__all__ = ["HeatCell", "heat_cells", "pair_slices"]

_NEW_YORK: Final = ZoneInfo("America/New_York")
_HOUR_NS: Final = timedelta(hours=1) // timedelta(microseconds=1) * 1_000
_KEYS: Final = ("kalshi_market_id", "polymarket_market_id")

Nanos = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
PairKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class HeatCell:
    """A category in an hour of the day, over the time in which both books of its pairs were trusted.

    Attributes:
        hour: of the day in New York, 0 to 23.
        gap: executable gap of the better direction before fees, over time, dollars per contract.
        paying: share of the time in which the net of both fees was positive at the tops.
        known_s: that time, summed over the pairs.
        pairs: how many pairs there were.
    """

    category: str
    hour: int
    gap: float
    paying: float
    known_s: float
    pairs: int


def pair_slices(spreads: pa.Table) -> dict[PairKey, tuple[int, int]]:
    """Where the rows of each pair lie in ``spreads``, which are in their declared order: (first, after the last)."""
    if not spreads.num_rows:
        return {}
    changed = np.zeros(spreads.num_rows, dtype=np.bool_)
    for name in _KEYS:
        codes = spreads[name].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
        changed[1:] |= codes[1:] != codes[:-1]
    starts = [0, *np.flatnonzero(changed).tolist()]
    firsts = spreads.select(_KEYS).take(pa.array(starts, pa.int64())).to_pylist()
    bounds = zip(starts, [*starts[1:], spreads.num_rows], strict=True)
    return {(row[_KEYS[0]], row[_KEYS[1]]): bound for row, bound in zip(firsts, bounds, strict=True)}


def heat_cells(spreads: pa.Table, categories: Mapping[PairKey, str], end_ns: int) -> list[HeatCell]:
    """Cells by category and hour.

    Args:
        spreads: in their declared order.
        categories: of each pair that is wanted.
        end_ns: until when the last row of a pair holds.
    """
    totals: defaultdict[tuple[str, int], Floats] = defaultdict(lambda: np.zeros(3))
    seen: defaultdict[tuple[str, int], set[PairKey]] = defaultdict(set)
    for key, (begin, end) in pair_slices(spreads).items():
        category = categories.get(key)
        if category is None:
            continue
        for hour, sums in _by_hour(spreads.slice(begin, end - begin), end_ns).items():
            totals[category, hour] += sums
            seen[category, hour].add(key)
    return [
        HeatCell(category, hour, gap / known, paying / known, known / 1e9, len(seen[category, hour]))
        for (category, hour), (known, gap, paying) in sorted(totals.items())
        if known
    ]


def _by_hour(rows: pa.Table, end_ns: int) -> dict[int, Floats]:
    """(time known, integral of the gap, time in which it paid), ns, of one pair by hour of the day."""
    times = rows["recv_ns"].to_numpy()
    gaps = np.array([_floats(rows[f"gap_{name}"]) for name in DIRECTIONS])
    known = rows["trusted"].to_numpy() & np.isfinite(gaps).any(axis=0)
    best = np.where(known, np.where(np.isfinite(gaps), gaps, -np.inf).max(axis=0), 0.0)
    paying = known & (np.nan_to_num(np.array([_floats(rows[f"net_{name}"]) for name in DIRECTIONS])) > 0).any(axis=0)
    hours = np.arange(times[0] // _HOUR_NS + 1, -(-end_ns // _HOUR_NS)) * _HOUR_NS
    cuts = np.union1d(times, hours[(hours > times[0]) & (hours < end_ns)])
    lasted = np.maximum(np.diff(np.append(cuts, end_ns)), 0).astype(np.float64)
    at = np.searchsorted(times, cuts, side="right") - 1
    found: dict[int, Floats] = {}
    for hour in np.unique(cuts // _HOUR_NS).tolist():
        mine = cuts // _HOUR_NS == hour
        span, row = lasted[mine], at[mine]
        sums = np.array([(span * known[row]).sum(), (span * best[row]).sum(), (span * paying[row]).sum()])
        if sums[0]:
            local = datetime_from_ns(hour * _HOUR_NS).astimezone(_NEW_YORK).hour
            found[local] = found.get(local, np.zeros(3)) + sums
    return found


def _floats(column: pa.ChunkedArray) -> Floats:
    values: Floats = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
    return values
