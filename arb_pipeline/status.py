"""How capture is doing: what it committed to the lake, and what the captures of this host say of themselves."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.markup import escape
from rich.table import Table

from arb_pipeline.capture.heartbeat import Heartbeat, PostgresBeat, State, VenueBeat, heartbeats
from arb_pipeline.clock import datetime_from_ns
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake

__all__ = ["CaptureRun", "VenueStatus", "Verdict", "capture_grid", "capture_runs", "capture_status", "status_grid"]

Verdict: TypeAlias = Literal["live", "quiet", "starting", "disconnected", "silent", "not running"]
"""``live``: frames are committed. ``quiet``: connected, but none were committed lately. ``starting``: nothing was said
yet. ``disconnected``: every connection is down. ``silent``: the process is there, but says nothing any more."""

_RECENT = timedelta(minutes=5)
_LONG = timedelta(hours=1)
_LAST_FLUSH = timedelta(seconds=30)
"""What a killed capture and the encoder that it leaves behind commit is less than this newer than its last word."""
_NUMBERS = frozenset({"markets", "frames/s", "reconnects"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureRun:
    """A capture that has begun and not ended by itself, as it last spoke.

    Attributes:
        state: whether it still runs. spoke_at: when it last said so, by the pipeline's clock.
        venues: its figures by venue; None before its first flush.
        postgres: how far Postgres has its rows, all venues together; None where it is off.
    """

    run_id: str
    shard: str
    host: str
    pid: int
    exchange: str
    state: State
    spoke_at: datetime
    venues: Mapping[str, VenueBeat | None]
    postgres: PostgresBeat | None = None

    def part(self, venue: str) -> dict[str, Any]:
        """Plain values about one venue."""
        told = {name: getattr(self, name) for name in ("run_id", "shard", "host", "pid", "exchange", "state")}
        postgres = None if self.postgres is None else msgspec.structs.asdict(self.postgres)
        return {**told, "spoke_at": self.spoke_at.isoformat(), **self.figures(venue), "postgres": postgres}

    def figures(self, venue: str) -> dict[str, Any]:
        """The figures of one venue, none before the first flush."""
        beat = self.venues.get(venue)
        return {} if beat is None else msgspec.structs.asdict(beat)


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueStatus:
    """One venue's figures.

    Attributes:
        verdict: all in one word. since: last sign of a capture that is silent or not running.
        connected, connections: sockets (or polls) that are up, and that there should be, of the running captures of
            this host; None where they do not say.
        subscribed: markets of those captures.
        captures: the captures of this host that have not ended by themselves.
        exchange: name of the local exchange that the newest data came from, empty for the real venue.
        last_recv_at: receive time of the newest committed frame, None if there is none.
        behind_s: seconds from then to now.
        live: whether that is little enough for a capture to be running, and none was killed since.
        frames, frames_per_s: of the last five minutes.
        lag_p50_ms, lag_p99_ms: receive time less the venue's own, level changes and trades of the last five minutes.
        gaps: intervals of doubt that overlap the last hour, by cause. gaps_open: those that last.
        markets: markets with book data in the last hour.
        anomalies: by kind, of the connections of the last hour that have ended.
    """

    venue: str
    exchange: str
    verdict: Verdict
    since: datetime | None
    connected: int | None
    connections: int | None
    subscribed: int | None
    captures: Sequence[CaptureRun]
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

    @property
    def healthy(self) -> bool:
        """Whether the venue is being captured."""
        return self.verdict in {"live", "quiet"}

    def metadata(self) -> dict[str, Any]:
        """Plain values, times in ISO format."""
        return {
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "healthy": self.healthy,
            "last_recv_at": self.last_recv_at.isoformat() if self.last_recv_at else None,
            "since": self.since.isoformat() if self.since else None,
            "captures": [run.part(self.venue) for run in self.captures],
        }


def capture_runs(settings: Settings, lake: Lake) -> list[CaptureRun]:
    """The captures of this host into the lake that have not ended by themselves; those that run first."""
    found = [_run(beat) for beat in heartbeats(settings, lake.root)]
    return sorted(found, key=lambda run: (run.state != "running", run.shard, run.run_id))


def _run(beat: Heartbeat) -> CaptureRun:
    return CaptureRun(
        run_id=beat.run_id,
        shard="{}/{}".format(*beat.shard),
        host=beat.host,
        pid=beat.pid,
        exchange=beat.exchange,
        state=beat.state(),
        spoke_at=datetime_from_ns(beat.at_ns),
        venues={name: beat.venues.get(name) for name in beat.names},
        postgres=beat.postgres,
    )


def capture_status(
    settings: Settings, lake: Lake, venue: str, captures: Sequence[CaptureRun] | None = None
) -> VenueStatus:
    """What is known of a venue's capture at the settings' clock; ``captures`` None: those that are found."""
    runs = [run for run in (capture_runs(settings, lake) if captures is None else captures) if venue in run.venues]
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
    # A part file comes with every flush; three of them missing is no accident any more.
    patience_s = max(15.0, 3 * settings.capture_flush_s)
    live = behind is not None and last_at is not None and behind <= patience_s and not _killed_since(runs, last_at)
    beats = [beat for run in runs if run.state == "running" and (beat := run.venues[venue]) is not None]
    connected = _sum(beat.connected for beat in beats)
    verdict = _verdict(runs, beats, connected, live=live)
    signs = [run.spoke_at for run in runs] + ([] if last_at is None else [last_at])
    since = max(signs) if signs and verdict in {"silent", "not running"} else None
    return VenueStatus(
        venue=venue,
        exchange="" if newest is None else newest.entry.exchange,
        verdict=verdict,
        since=since,
        connected=connected,
        connections=_sum(beat.connections for beat in beats),
        subscribed=_sum(beat.markets for beat in beats),
        captures=runs,
        last_recv_at=last_at,
        behind_s=behind,
        live=live,
        frames=frames,
        frames_per_s=round(frames / _RECENT.total_seconds(), 3),
        lag_p50_ms=_percentile(lags, 50),
        lag_p99_ms=_percentile(lags, 99),
        gaps=dict(sorted(Counter(gaps["cause"].to_pylist()).items())),
        gaps_open=gaps["to_ns"].null_count,
        markets=pc.count_distinct(books["market_id"]).as_py(),
        anomalies=_anomalies(lake, long_ago, now, venue),
    )


def _killed_since(runs: Sequence[CaptureRun], last_at: datetime) -> bool:
    """Whether the newest frame is of a capture that is gone: nobody else committed anything after its last word."""
    gone = [run.spoke_at for run in runs if run.state == "gone"]
    alive = any(run.state != "gone" for run in runs)
    return bool(gone) and not alive and last_at <= max(gone) + _LAST_FLUSH


def _verdict(runs: Sequence[CaptureRun], beats: Sequence[VenueBeat], connected: int | None, *, live: bool) -> Verdict:
    if beats and connected == 0:
        return "disconnected"
    if live:
        return "live"
    if beats:
        return "quiet"
    states = {run.state for run in runs}
    return "starting" if "running" in states else "silent" if "silent" in states else "not running"


def _sum(values: Iterable[int | None]) -> int | None:
    """The sum of what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def capture_grid(runs: Sequence[CaptureRun]) -> Table:
    """The captures of this host for a terminal, one line a venue and capture."""
    grid = Table(title="Captures of this host", title_justify="left")
    for name in (
        "run",
        "shard",
        "process",
        "state",
        "venue",
        "connected",
        "markets",
        "frames/s",
        "reconnects",
        "message",
        "Postgres",
    ):
        grid.add_column(name, overflow="fold", justify="right" if name in _NUMBERS else "left")
    for run in runs:
        state = run.state if run.state == "running" else f"{run.state} since {run.spoke_at:%Y-%m-%d %H:%M:%S} UTC"
        for venue, beat in run.venues.items():
            figures = ["", "", "", "", ""] if beat is None else _beat_cells(beat)
            process = f"{run.host}:{run.pid}"
            cells = [*figures, _postgres_cell(run.postgres)]
            grid.add_row(run.run_id, run.shard, process, state, venue, *map(escape, cells))
    return grid


def _postgres_cell(beat: PostgresBeat | None) -> str:
    if beat is None:
        return ""
    waiting = f"{beat.waiting:,} journals of earlier runs wait" if beat.waiting else ""
    told = [f"{beat.rows:,} rows, {beat.lag_s:,.1f} s behind", waiting, beat.message]
    return "\n".join(filter(None, told))


def _beat_cells(beat: VenueBeat) -> list[str]:
    return [
        f"{'?' if beat.connected is None else beat.connected} of {beat.connections}",
        f"{beat.markets:,}",
        f"{beat.frames_per_s:,.1f}",
        f"{beat.reconnects:,}",
        beat.message,
    ]


def status_grid(statuses: Sequence[VenueStatus]) -> Table:
    """The figures for a terminal, one column a venue."""
    grid = Table(title="Capture", title_justify="left")
    grid.add_column("")
    for status in statuses:
        grid.add_column(f"{status.venue} ({status.exchange})" if status.exchange else status.venue, justify="right")
    rows = {
        "capture": [_told(status) for status in statuses],
        "connected": [_connected(status) for status in statuses],
        "markets subscribed": ["" if one.subscribed is None else f"{one.subscribed:,}" for one in statuses],
        "newest committed frame": [
            "none" if status.last_recv_at is None else f"{status.last_recv_at:%Y-%m-%d %H:%M:%S} UTC"
            for status in statuses
        ],
        "behind now, s": ["" if status.behind_s is None else f"{status.behind_s:,.1f}" for status in statuses],
        "markets with data, last hour": [f"{status.markets:,}" for status in statuses],
        "frames, last 5 min": [f"{status.frames:,} ({status.frames_per_s:,.1f}/s)" for status in statuses],
        "lag p50 / p99, ms": [_pair(status.lag_p50_ms, status.lag_p99_ms) for status in statuses],
        "gaps, last hour": [_counted(status.gaps) for status in statuses],
        "anomalies, last hour": [_counted(status.anomalies) for status in statuses],
    }
    for name, cells in rows.items():
        grid.add_row(name, *cells)
    return grid


def _told(status: VenueStatus) -> str:
    return status.verdict if status.since is None else f"{status.verdict} since {status.since:%Y-%m-%d %H:%M:%S} UTC"


def _connected(status: VenueStatus) -> str:
    if status.connected is None or status.connections is None:
        # Nothing on this host tells; committed frames do.
        return "yes" if status.live else "unknown" if status.healthy else "no"
    return f"{'yes' if status.connected else 'no'}, {status.connected} of {status.connections}"


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
