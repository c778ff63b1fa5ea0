"""How much of the market-time of a capture lies in gaps."""

from collections.abc import Iterable
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.capture.feed import NO_SNAPSHOT
from arb_pipeline.clock import ns_from_datetime

__all__ = ["gap_share_of", "ns_in_gaps", "union_ns"]


def gap_share_of(gaps: pa.Table, markets: int, start: datetime, end: datetime) -> float:
    """Share of market-time in [start, end) that lies in a gap; overlapping gaps of a market count once.

    The time before a market's first snapshot is left out: it belongs to coverage, and says nothing about trust.
    """
    first, last = ns_from_datetime(start), ns_from_datetime(end)
    if not markets or last <= first:
        return 0.0
    return ns_in_gaps(gaps, first, last) / (markets * (last - first))


def ns_in_gaps(gaps: pa.Table, first: int, last: int) -> int:
    """Time in [first, last) that lies in a gap, ns, summed over the markets; counted as by :func:`gap_share_of`."""
    gaps = gaps.filter(pc.not_equal(gaps["cause"], NO_SNAPSHOT))
    spans: dict[str, list[tuple[int, int]]] = {}
    for market, begin, stop in zip(
        gaps["market_id"].to_pylist(), gaps["from_ns"].to_pylist(), gaps["to_ns"].to_pylist(), strict=True
    ):
        inside = max(begin, first), min(last if stop is None else stop, last)
        if inside[0] < inside[1]:
            spans.setdefault(market, []).append(inside)
    return sum(union_ns(of_market) for of_market in spans.values())


def union_ns(spans: Iterable[tuple[int, int]]) -> int:
    """Length of the union of [begin, end) in ns."""
    total, reached = 0, 0
    for begin, stop in sorted(spans):
        total += max(0, stop - max(begin, reached))
        reached = max(reached, stop)
    return total
