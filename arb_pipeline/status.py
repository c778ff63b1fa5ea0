"""How capture is doing, read from the lake: whatever process captures, what it committed is there."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from arb_pipeline.clock import datetime_from_ns
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake

__all__ = ["VenueStatus", "capture_status", "status_grid"]

_RECENT = timedelta(minutes=5)
_LONG = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueStatus:
    """One venue's figures.

    Attributes:
        exchange: name of the local exchange that the newest data came from, empty for the real venue.
        last_recv_at: receive time of the newest committed frame, None if there is none.
        behind_s: seconds from then to now.
        live: whether that is little enough for a capture to be running.
        frames, frames_per_s: of the last five minutes.
        lag_p50_ms, lag_p99_ms: receive time less the venue's own, level changes and trades of the last five minutes.
        gaps: intervals of doubt that overlap the last hour, by cause. gaps_open: those that last.
        markets: markets with book data in the last hour.
        anomalies: by kind, of the connections of the last hour that have ended.
    """

    venue: str
    exchange: str
    last_recv_at: datetime | None
    behind_s: float | None
    live: bool
    frames: int
    frames_per_s: float
    lag_p50_ms: float | None
    lag_p99_ms: float | None
    gaps: Mapping[str, int]
    gaps_open: int
    markets: int
    anomalies: Mapping[str, int]

    def metadata(self) -> dict[str, Any]:
        """Plain values, the time in ISO format."""
        return {**asdict(self), "last_recv_at": self.last_recv_at.isoformat() if self.last_recv_at else None}


def capture_status(settings: Settings, lake: Lake, venue: str) -> VenueStatus:
    """What the lake tells about a venue's capture at the settings' clock."""
    now = settings.clock.now()
    recent, long_ago = now - _RECENT, now - _LONG
    newest = max(
        (file for file in lake.files("raw_frames", venue=venue) if file.entry.max_ns is not None),
        key=lambda file: file.entry.max_ns or 0,
        default=None,
    )
    last_at = None if newest is None else datetime_from_ns(newest.entry.max_ns or 0)
    behind = None if last_at is None else (now - last_at).total_seconds()
    frames = lake.read("raw_frames", recent, now, venue, columns=["recv_ns"]).num_rows
    lags = _lags(lake, recent, now, venue)
    gaps = lake.read("book_gaps", long_ago, now, venue, columns=["cause", "to_ns"])
    books = lake.read("book_events", long_ago, now, venue, columns=["market_id"])
    return VenueStatus(
        venue=venue,
        exchange="" if newest is None else newest.entry.exchange,
        last_recv_at=last_at,
        behind_s=behind,
        # A part file comes with every flush; three of them missing is no accident any more.
        live=behind is not None and behind <= max(15.0, 3 * settings.capture_flush_s),
        frames=frames,
        frames_per_s=round(frames / _RECENT.total_seconds(), 3),
        lag_p50_ms=_percentile(lags, 50),
        lag_p99_ms=_percentile(lags, 99),
        gaps=dict(sorted(Counter(gaps["cause"].to_pylist()).items())),
        gaps_open=gaps["to_ns"].null_count,
        markets=pc.count_distinct(books["market_id"]).as_py(),
        anomalies=_anomalies(lake, long_ago, now, venue),
    )


def status_grid(statuses: Sequence[VenueStatus]) -> Table:
    """The figures for a terminal, one column a venue."""
    grid = Table(title="Capture, by what is committed to the lake", title_justify="left")
    grid.add_column("")
    for status in statuses:
        grid.add_column(f"{status.venue} ({status.exchange})" if status.exchange else status.venue, justify="right")
    rows = {
        "capture": ["live" if status.live else "not running" for status in statuses],
        "newest frame": [
            "none" if status.last_recv_at is None else f"{status.last_recv_at:%Y-%m-%d %H:%M:%S} UTC"
            for status in statuses
        ],
        "behind now, s": ["" if status.behind_s is None else f"{status.behind_s:,.1f}" for status in statuses],
        "markets, last hour": [f"{status.markets:,}" for status in statuses],
        "frames, last 5 min": [f"{status.frames:,} ({status.frames_per_s:,.1f}/s)" for status in statuses],
        "lag p50 / p99, ms": [_pair(status.lag_p50_ms, status.lag_p99_ms) for status in statuses],
        "gaps, last hour": [_counted(status.gaps) for status in statuses],
        "anomalies, last hour": [_counted(status.anomalies) for status in statuses],
    }
    for name, cells in rows.items():
        grid.add_row(name, *cells)
    return grid


def _pair(first: float | None, second: float | None) -> str:
    return "" if first is None or second is None else f"{first:,.1f} / {second:,.1f}"


def _counted(counts: Mapping[str, int]) -> str:
    return "\n".join(f"{name}: {count:,}" for name, count in counts.items()) or "none"


def _lags(lake: Lake, start: datetime, end: datetime, venue: str) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Milliseconds; snapshots are left out, for their time is that of the book and not of the message."""
    columns = ["recv_ns", "venue_ns"]
    events = lake.read("book_events", start, end, venue, columns=[*columns, "kind"])
    changes = events.filter(pc.equal(events["kind"], "delta")).select(columns)
    both = pa.concat_tables([changes, lake.read("trades", start, end, venue, columns=columns)]).drop_null()
    lags: np.ndarray[Any, np.dtype[np.float64]] = pc.subtract(both["recv_ns"], both["venue_ns"]).to_numpy() / 1e6
    return lags


def _percentile(values: "np.ndarray[Any, np.dtype[np.float64]]", rank: float) -> float | None:
    return round(float(np.percentile(values, rank)), 3) if len(values) else None


def _anomalies(lake: Lake, start: datetime, end: datetime, venue: str) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for text in lake.read("capture_sessions", start, end, venue, columns=["anomalies"])["anomalies"].to_pylist():
        counted.update(json.loads(text))
    return dict(sorted(counted.items()))
