"""How far the data can be trusted, venue by venue."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from arb_pipeline.arbitrage.fees import FeeBook
from arb_pipeline.arbitrage.pairs import Pair
from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.gaps import ns_in_gaps
from arb_pipeline.reports.inputs import AGE_BOUNDS_S, ReportInputs

__all__ = ["FeeCoverage", "age_shares", "fee_coverage", "share_both_fresh", "venue_quality"]

Row = dict[str, Any]
_RESNAPSHOT = ("snapshot", "rest_book")


@dataclass(frozen=True, slots=True)
class FeeCoverage:
    """Markets of a venue's pairs that can be priced at the window's end, and why the others cannot."""

    venue: str
    markets: int
    priced: int
    why: Sequence[tuple[str, int]]


def venue_quality(inputs: ReportInputs) -> list[Row]:
    """Per venue: connections, uptime, frames, anomalies, gaps and lags.

    ``gap_seconds`` is summed over markets, by the rule of :func:`arb_pipeline.gaps.gap_share_of`.
    """
    sessions = inputs.capture_sessions.to_pylist()
    gaps = inputs.book_gaps.to_pylist()
    quotes = inputs.quote_quality.to_pylist()
    venues = sorted({row["venue"] for row in (*sessions, *gaps, *quotes)})
    return [
        _of_venue(venue, inputs, *([row for row in rows if row["venue"] == venue] for rows in (sessions, gaps, quotes)))
        for venue in venues
    ]


def _of_venue(venue: str, inputs: ReportInputs, sessions: list[Row], gaps: list[Row], quotes: list[Row]) -> Row:
    start_ns, end_ns = ns_from_datetime(inputs.start), ns_from_datetime(inputs.end)
    of_venue = inputs.book_gaps.filter(pc.equal(inputs.book_gaps["venue"], venue))
    up = _covered(
        (ns_from_datetime(one["started_at"]), end_ns if one["ended_at"] is None else ns_from_datetime(one["ended_at"]))
        for one in sessions
    )
    # What a connection carried is told at its end: as of an earlier instant nobody knew it.
    told = [one for one in sessions if inputs.as_of is None or one["ended_at"] is not None]
    anomalies: Counter[str] = Counter()
    for session in told:
        anomalies.update(json.loads(session["anomalies"]))
    return {
        "venue": venue,
        "connections": len(sessions),
        "untold": len(sessions) - len(told),
        "markets": max((session["markets"] for session in sessions), default=0),
        "frames": sum(session["frames"] for session in told),
        "bytes": sum(session["bytes"] for session in told),
        "uptime_s": sum(min(to, end_ns) - max(since, start_ns) for since, to in up if to > start_ns) / 1e9,
        "anomalies": anomalies.most_common(),
        "gaps": len(gaps),
        "gap_causes": Counter(gap["cause"] for gap in gaps).most_common(),
        "gap_seconds": ns_in_gaps(of_venue, start_ns, end_ns) / 1e9,
        "open_gaps": sum(gap["to_ns"] is None for gap in gaps),
        "resnapshots": sum(gap["recovery"] in _RESNAPSHOT for gap in gaps),
        "lag_p50": max((s["lag_p50_ms"] for s in told if s["lag_p50_ms"] is not None), default=None),
        "lag_p99": max((s["lag_p99_ms"] for s in told if s["lag_p99_ms"] is not None), default=None),
        "quotes": sum(row["rows"] for row in quotes),
        "crossed": sum(row["crossed"] for row in quotes),
        "out_of_sync": sum(row["out_of_sync"] for row in quotes),
    }


def _covered(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The union of some spans."""
    joined: list[tuple[int, int]] = []
    for since, to in sorted(spans):
        if joined and since <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], to)
        else:
            joined.append((since, to))
    return joined


def age_shares(inputs: ReportInputs) -> dict[str, list[float]]:
    """By venue (and source, where quotes were polled), how the time divides by the age of the newest quote."""
    found = {}
    for row in inputs.quote_quality.to_pylist():
        seconds = [row[f"age_{number}_s"] for number in range(len(AGE_BOUNDS_S) + 1)]
        if total := sum(seconds):
            name = row["venue"].capitalize() + (" (polled)" if row["source"] == "rest" else "")
            found[name] = [one / total for one in seconds]
    return found


def share_both_fresh(over_time: Iterable[Mapping[str, Any]]) -> float | None:
    """Share of the window, over all pairs seen, in which both books were trusted; None without any pair."""
    shares = [one["trusted_share"] for one in over_time]
    return sum(shares) / len(shares) if shares else None


def fee_coverage(pairs: Sequence[Pair], fees: FeeBook | None, inputs: ReportInputs) -> list[FeeCoverage]:
    """Of each venue, how many markets of the pairs can be priced at the window's end."""
    if fees is None or not pairs:
        return []
    found = []
    for venue in ("kalshi", "polymarket"):
        markets = {market.market_id: market for pair in pairs for market in (pair.kalshi, pair.polymarket)}
        mine = [market for market in markets.values() if market.venue == venue]
        answers = [fees.at(market, inputs.end) for market in mine]
        unknown = Counter(answer for answer in answers if isinstance(answer, str))
        found.append(FeeCoverage(venue, len(mine), len(mine) - unknown.total(), unknown.most_common(3)))
    return found
