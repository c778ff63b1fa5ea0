"""What a capture or a replay reports."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final

import msgspec

from arb_pipeline.capture.rows import VenueTotals

__all__ = ["LAG_BOUNDS_MS", "CaptureStatus", "CaptureSummary", "LoadSummary", "VenueSummary", "summarise"]

LAG_BOUNDS_MS: Final = (0, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000)
"""Upper bounds of the lag's buckets for monitoring."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueSummary:
    """One venue's part.

    Attributes:
        rows: rows written by table.
        connected: connections that are up now; None where that is not known (a replay has none).
        anomalies, examples: kind of anomaly to count, and to its first example.
        gap_causes: gaps by cause.
        gap_seconds: time without a trusted book, summed over markets.
        coverage: share of the window with a live connection, averaged over connections.
        lag_counts: lags at most each of ``LAG_BOUNDS_MS``, then all of them; empty where none were counted.
        message: why nothing was captured, or the newest error of the connections; empty if there is none.
    """

    venue: str
    frames: int = 0
    bytes: int = 0
    rows: Mapping[str, int] = field(default_factory=dict)
    markets: int = 0
    connections: int = 0
    connected: int | None = None
    reconnects: int = 0
    anomalies: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    gaps: int = 0
    gap_causes: Mapping[str, int] = field(default_factory=dict)
    gap_seconds: float = 0.0
    coverage: float = 0.0
    lag_p50_ms: float | None = None
    lag_p99_ms: float | None = None
    lag_counts: tuple[int, ...] = ()
    message: str = ""

    def metadata(self) -> dict[str, Any]:
        """Plain values, without the lag's buckets."""
        return {name: value for name, value in asdict(self).items() if name != "lag_counts"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSummary:
    """How far Postgres has what a capture took in.

    Attributes:
        rows: rows inserted.
        lag_s: age of the oldest input whose rows are not committed, seconds; 0 if there is none.
        waiting: journals of earlier runs that have still to be loaded.
        done: all rows of the run are in.
        message: the newest trouble, empty if there is none.
    """

    rows: int = 0
    lag_s: float = 0.0
    waiting: int = 0
    done: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureStatus:
    """How far a running capture has come.

    Attributes:
        postgres: None where Postgres is off.
    """

    run_id: str
    elapsed_s: float
    venues: Mapping[str, VenueSummary]
    postgres: LoadSummary | None = None

    @property
    def frames(self) -> int:
        """Frames of all venues."""
        return sum(venue.frames for venue in self.venues.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureSummary:
    """What a capture did.

    Attributes:
        exchange: name of the local exchange that it came from, empty for the real venues.
        stop_reason: ``window_end``, ``max_seconds``, ``stopped``, ``superseded``, ``nothing_to_capture`` or
            ``end_of_recording``.
        key_conflicts: rows that share a key with a row of different content (kept, and worth a look).
        uncompacted: partitions left as part files, because there was no time to merge them.
        postgres: how far Postgres has the rows; None where it is off.
    """

    run_id: str
    exchange: str
    stop_reason: str
    started_at: datetime
    ended_at: datetime
    venues: Mapping[str, VenueSummary]
    key_conflicts: int = 0
    uncompacted: tuple[str, ...] = ()
    postgres: LoadSummary | None = None

    def metadata(self) -> dict[str, Any]:
        """Plain values, times in ISO format."""
        return {
            "run_id": self.run_id,
            "exchange": self.exchange,
            "stop_reason": self.stop_reason,
            "started_at": self.started_at.isoformat(),
            "ended_at": self.ended_at.isoformat(),
            "key_conflicts": self.key_conflicts,
            "uncompacted": list(self.uncompacted),
            "postgres": None if self.postgres is None else asdict(self.postgres),
            "venues": {name: venue.metadata() for name, venue in self.venues.items()},
        }

    def to_json(self) -> str:
        """The same as one line of JSON."""
        return msgspec.json.encode(self.metadata()).decode()


def summarise(
    venue: str,
    totals: VenueTotals,
    *,
    markets: int | None = None,
    connections: int,
    connected: int | None = None,
    reconnects: int,
    coverage: float,
    message: str = "",
) -> VenueSummary:
    """A venue's figures; ``markets`` None: those seen."""
    return VenueSummary(
        venue=venue,
        frames=totals.frames,
        bytes=totals.bytes,
        rows=dict(sorted(totals.rows.items())),
        markets=len(totals.markets) if markets is None else markets,
        connections=connections,
        connected=connected,
        reconnects=reconnects,
        anomalies=dict(sorted(totals.anomalies.items())),
        examples=dict(sorted(totals.examples.items())),
        gaps=totals.gaps,
        gap_causes=dict(sorted(totals.gap_causes.items())),
        gap_seconds=round(totals.gap_ns / 1e9, 3),
        coverage=round(coverage, 6),
        lag_p50_ms=totals.lags.percentile_ms(0.5),
        lag_p99_ms=totals.lags.percentile_ms(0.99),
        lag_counts=totals.lags.counts_below(LAG_BOUNDS_MS),
        message=message,
    )
