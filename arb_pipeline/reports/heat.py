"""When and where pairs paid: categories by hour of the day in New York."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.arbitrage.pairs import Direction
from arb_pipeline.clock import datetime_from_ns
from arb_pipeline.reports.figures import DIRECTIONS
from arb_pipeline.reports.over_time import HOUR_NS, held_until

__all__ = ["HeatCell", "heat_cells", "pair_slices"]

_NEW_YORK: Final = ZoneInfo("America/New_York")
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


def heat_cells(
    spreads: pa.Table,
    categories: Mapping[PairKey, str],
    end_ns: int,
    directions: Mapping[PairKey, Sequence[Direction]] | None = None,
) -> list[HeatCell]:
    """Cells by category and hour.

    Args:
        spreads: in their declared order.
        categories: of each pair that is wanted.
        end_ns: nothing holds for longer.
        directions: of each pair in which one leg hedges the other; None: both, of all pairs.
    """
    totals: defaultdict[tuple[str, int], Floats] = defaultdict(lambda: np.zeros(3))
    seen: defaultdict[tuple[str, int], set[PairKey]] = defaultdict(set)
    for key, (begin, end) in pair_slices(spreads).items():
        category = categories.get(key)
        if category is None:
            continue
        hedged = DIRECTIONS if directions is None else directions[key]
        for hour, sums in _by_hour(spreads.slice(begin, end - begin), end_ns, hedged).items():
            totals[category, hour] += sums
            seen[category, hour].add(key)
    return [
        HeatCell(category, hour, gap / known, paying / known, known / 1e9, len(seen[category, hour]))
        for (category, hour), (known, gap, paying) in sorted(totals.items())
        if known
    ]


def _by_hour(rows: pa.Table, end_ns: int, hedged: Sequence[Direction]) -> dict[int, Floats]:
    """(time known, integral of the gap, time in which it paid), ns, of one pair by hour of the day."""
    times = rows["recv_ns"].to_numpy()
    gaps = np.array([_floats(rows[f"gap_{name}"]) for name in hedged])
    known = rows["trusted"].to_numpy() & np.isfinite(gaps).any(axis=0)
    best = np.where(known, np.where(np.isfinite(gaps), gaps, -np.inf).max(axis=0), 0.0)
    paying = known & (np.nan_to_num(np.array([_floats(rows[f"net_{name}"]) for name in hedged])) > 0).any(axis=0)
    hours = np.arange(times[0] // HOUR_NS + 1, -(-end_ns // HOUR_NS)) * HOUR_NS
    cuts = np.union1d(times, hours[(hours > times[0]) & (hours < end_ns)])
    at = np.searchsorted(times, cuts, side="right") - 1
    until = np.minimum(np.append(cuts[1:], end_ns), held_until(times, end_ns)[at])
    lasted = np.maximum(until - cuts, 0).astype(np.float64)
    found: dict[int, Floats] = {}
    for hour in np.unique(cuts // HOUR_NS).tolist():
        mine = cuts // HOUR_NS == hour
        span, row = lasted[mine], at[mine]
        sums = np.array([(span * known[row]).sum(), (span * best[row]).sum(), (span * paying[row]).sum()])
        if sums[0]:
            local = datetime_from_ns(hour * HOUR_NS).astimezone(_NEW_YORK).hour
            found[local] = found.get(local, np.zeros(3)) + sums
    return found


def _floats(column: pa.ChunkedArray) -> Floats:
    values: Floats = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
    return values
