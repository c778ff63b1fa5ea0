"""A recording made from what a lake holds: the frames of a time or of some runs, and the markets that they name."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.errors import ArbError
from arb_pipeline.recordings import Frame, write_recording
from arb_pipeline.storage.lake import Instant, Lake
from arb_pipeline.venues import VENUES
from arb_pipeline.venues.base import Progress, Venue

__all__ = ["Exported", "export"]

_NAMING_MARKETS = ("book_events", "trades", "tickers")
_DRAIN_EVERY = 20_000


@dataclass(frozen=True, slots=True)
class Exported:
    """What a recording was made of.

    Attributes:
        path: the recording's folder.
        frames: WebSocket frames by venue. markets: markets with data, by venue.
        rest_left_out: answers fetched over REST, by venue: the format holds what sockets brought, so a book that was
            mended by one of them is in doubt in a replay until its next snapshot.
        exchange: name of the local exchange that the frames came from, empty for the real venues.
    """

    path: Path
    frames: Mapping[str, int]
    markets: Mapping[str, int]
    rest_left_out: Mapping[str, int]
    exchange: str

    def metadata(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "path": str(self.path)}


def export(
    lake: Lake,
    target: str | Path,
    start: Instant | None = None,
    end: Instant | None = None,
    *,
    runs: Collection[str] | None = None,
    catalogue: Lake | None = None,
    venues: Mapping[str, Venue] = VENUES,
    progress: Progress | None = None,
) -> Exported:
    """Write the frames received in [start, end) as a recording.

    Args:
        lake: where the frames are.
        target: the recording's folder, new or empty.
        start: first instant; None: from the beginning. ``end``: first instant after; None: to the end. A window that
            cuts a connection's beginning off has no snapshot of its books.
        runs: only what these runs received; None: all of them.
        catalogue: the lake that knows the markets, if it is another one.
        venues: the venues to export.
        progress: called with ``"<venue> frames"`` and the number so far.

    Raises:
        ArbError: if there are no frames of it, or data of a local exchange and of real venues is mixed.
        RecordingError: if the target holds something.
    """
    sources = {name: _Source(lake, name, (start, end), runs, progress) for name in sorted(venues)}
    sources = {name: source for name, source in sources.items() if source.has_frames}
    if not sources:
        raise ArbError(f"the lake {lake.root} holds no frames of that time and run: nothing to record")
    origins = {name for source in sources.values() for name in source.origins}
    if len(origins) > 1:
        raise ArbError(f"the lake {lake.root} holds data of {', '.join(sorted(map(repr, origins)))}: narrow the window")
    [exchange] = origins
    events = {name: _events(catalogue or lake, name, source.market_ids(), end) for name, source in sources.items()}
    options = {key: value for name in sources for key, value in venues[name].recording_options().items()}
    meta = {"venues": list(sources), **options, "exchange": bool(exchange)}
    counts = write_recording(target, events, {name: source.frames() for name, source in sources.items()}, meta)
    return Exported(
        path=Path(target),
        frames=counts,
        markets={name: sum(len(event["markets"]) for event in listed) for name, listed in events.items()},
        rest_left_out={name: source.rest for name, source in sources.items()},
        exchange=exchange,
    )


class _Source:
    """One venue's part of the lake."""

    def __init__(
        self,
        lake: Lake,
        venue: str,
        window: tuple[Instant | None, Instant | None],
        runs: Collection[str] | None,
        progress: Progress | None,
    ) -> None:
        self._lake = lake
        self._venue = venue
        self._window = window
        self._tell = progress or (lambda _step, _count: None)
        self._connections = None if runs is None else self._connections_of(runs)
        files = lake.files("raw_frames", *window, venue)
        self.origins = {file.entry.exchange for file in files}
        self._hours = sorted({bounds for file in files if (bounds := file.partition.bounds)})
        self.rest = 0
        """Frames left out so far."""

    @property
    def has_frames(self) -> bool:
        """Whether there is anything to write."""
        return any(self._rows("raw_frames", hour, ("recv_ns",)).num_rows for hour in self._hours)

    def market_ids(self) -> set[str]:
        """The markets with data."""
        return {
            market_id
            for name in _NAMING_MARKETS
            for hour in self._hours
            for market_id in pc.unique(self._rows(name, hour, ("market_id",))["market_id"]).to_pylist()
        }

    def frames(self) -> Iterator[Frame]:
        """WebSocket frames in the order in which they were received; one hour in memory at a time."""
        count = 0
        for hour in self._hours:
            rows = self._rows("raw_frames", hour, ("recv_ns", "ordinal", "source", "frame"))
            pushed = rows.filter(pc.equal(rows["source"], "ws")).sort_by(
                [("recv_ns", "ascending"), ("ordinal", "ascending")]
            )
            self.rest += rows.num_rows - pushed.num_rows
            for batch in pushed.select(["recv_ns", "connection_id", "frame"]).to_batches(_DRAIN_EVERY):
                for row in batch.to_pylist():
                    yield Frame(row["recv_ns"], row["connection_id"], row["frame"])
                count += batch.num_rows
                self._tell(f"{self._venue} frames", count)

    def _rows(self, name: str, hour: tuple[int, int], columns: tuple[str, ...]) -> pa.Table:
        start, end = (None if bound is None else _ns(bound) for bound in self._window)
        rows = self._lake.read(
            name,
            hour[0] if start is None else max(start, hour[0]),
            hour[1] if end is None else min(end, hour[1]),
            self._venue,
            columns=[*columns, "connection_id"],
        )
        if self._connections is None:
            return rows
        return rows.filter(pc.is_in(rows["connection_id"], pa.array(sorted(self._connections), pa.string())))

    def _connections_of(self, runs: Collection[str]) -> set[str]:
        sessions = self._lake.read("capture_sessions", *self._window, self._venue, columns=["connection_id", "run_id"])
        return {row["connection_id"] for row in sessions.to_pylist() if row["run_id"] in runs}


def _events(lake: Lake, venue: str, market_ids: Collection[str], end: Instant | None) -> list[dict[str, Any]]:
    """Raw events with those of their markets that are meant nested, as the catalogue last told before ``end``."""
    limit = None if end is None else _ns(end)
    columns = ["event_id", "raw", "fetched_at"]
    markets = _newest(
        lake.read("markets", venue=venue, markets=market_ids, columns=["market_id", *columns]), "market_id", limit
    )
    nested: dict[str, list[dict[str, Any]]] = {}
    for row in markets.values():
        nested.setdefault(row["event_id"], []).append(json.loads(row["raw"]))
    events = _newest(lake.read("events", venue=venue, columns=columns), "event_id", limit)
    return [
        {**json.loads(events[event_id]["raw"]), "markets": members}
        for event_id, members in sorted(nested.items())
        if event_id in events
    ]


def _newest(rows: pa.Table, key: str, limit: int | None) -> dict[str, dict[str, Any]]:
    """Each id's newest row fetched before ``limit``, or the first one after where there is none."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows.sort_by("fetched_at").to_pylist():
        if row[key] not in found or limit is None or ns_from_datetime(row["fetched_at"]) < limit:
            found[row[key]] = row
    return dict(sorted(found.items()))


def _ns(at: Instant) -> int:
    return at if isinstance(at, int) else ns_from_datetime(at)
