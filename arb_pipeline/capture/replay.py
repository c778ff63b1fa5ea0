"""Replay: a recording's frames through the same sessions and rows as a live capture.

Nothing but the recording goes in: its receive times are the clock, commands are not executed, and time-outs do not
run. Two replays give the same bytes, and replaying again into a lake replaces what the last replay wrote there. Where
Postgres is on, it gets the rows that the lake then has, in one transaction, in place of what the last replay brought.
"""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.capture.feed import Feed
from arb_pipeline.capture.rows import RowWriter, TableKey
from arb_pipeline.capture.summary import CaptureSummary, LoadSummary, VenueSummary, summarise
from arb_pipeline.clock import datetime_from_ns, ns_from_datetime
from arb_pipeline.model import Event, MarketFacts
from arb_pipeline.recordings import Recording, RecordingError
from arb_pipeline.settings import Settings
from arb_pipeline.storage.catalogue import write_catalogue
from arb_pipeline.storage.lake import HOUR_NS, Lake, Partition
from arb_pipeline.tables import table
from arb_pipeline.venues import VENUES
from arb_pipeline.venues.base import Progress, Venue

if TYPE_CHECKING:
    from arb_pipeline.storage.postgres import Postgres

__all__ = ["replay"]

LOCAL_EXCHANGE = "local exchange"
"""Name given to the origin of a recording of a local exchange, where the lake does not name it."""

_HOURLY = ("raw_frames", "book_events", "quotes", "trades", "tickers")
_LOADED = ("book_events", "quotes", "trades", "tickers", "book_gaps", "capture_sessions")
"""What goes into Postgres."""
_CATALOGUE = ("events", "markets")
_DRAIN_EVERY = 20_000
_MARGIN = timedelta(days=1)


def replay(
    recording: Recording,
    lake: Lake,
    settings: Settings,
    progress: Progress | None = None,
    *,
    venues: Mapping[str, Venue] = VENUES,
) -> CaptureSummary:
    """Turn a recording into the tables that a live capture of it would have written; they are final on return.

    Args:
        recording: what to replay.
        lake: where the tables go; data of a local exchange is marked so.
        settings: settings of the sessions, and of Postgres.
        progress: called with ``"frames"`` and the number so far.
        venues: the venues that the recording may name.

    Raises:
        RecordingError: if a file is not of the format, names an unknown venue, or its frames are out of order by hours.
        PostgresError: if Postgres is not there, before anything is written, or refuses the rows.
    """
    if unknown := set(recording.venues) - set(venues):
        raise RecordingError(f"{recording.path}: no venue {sorted(unknown)}; there are {', '.join(sorted(venues))}")
    if recording.meta["exchange"] and not lake.exchange_name:
        lake = lake.with_exchange(settings.exchange_name or LOCAL_EXCHANGE)
    under_way = _Replay(recording, lake, settings, venues)
    if settings.postgres_url is None:
        return under_way.run(progress)
    from arb_pipeline.storage.postgres import Postgres  # noqa: PLC0415 - it loads SQLAlchemy

    with contextlib.closing(Postgres(settings.postgres_url.get_secret_value(), application_name="arb replay")) as into:
        into.migrate()
        summary = under_way.run(progress)
        rows = under_way.load(into, summary)
    return dataclasses.replace(summary, postgres=LoadSummary(rows=rows, done=True))


class _Replay:
    """One replay under way."""

    def __init__(self, recording: Recording, lake: Lake, settings: Settings, venues: Mapping[str, Venue]) -> None:
        self.recording = recording
        self.run_id = f"replay-{recording.name}"
        self.lake = lake
        self.settings = settings
        self.venues = venues
        self.events: dict[str, list[Event]] = {
            name: [venues[name].parse_event(record) for record in recording.events(name)] for name in recording.venues
        }
        self.facts: dict[str, list[MarketFacts]] = {
            name: [market.facts() for event in events for market in event.markets]
            for name, events in self.events.items()
        }
        self.feeds: dict[tuple[str, str], Feed] = {}
        self.pending: dict[TableKey, list[pa.Table]] = {}
        self.hours: set[int] = set()
        self.floor = 0
        """Hours below this one are written."""
        self.conflicts = 0

    def run(self, progress: Progress | None) -> CaptureSummary:
        """All frames, then the catalogue."""
        first = next((frame.recv_ns for _, frame in self.recording.all_frames()), None)
        started = self._catalogue_time() if first is None else first
        rows = RowWriter(self.run_id, started, exchange=self.lake.exchange_name)
        newest = started
        count = 0
        for count, (venue, frame) in enumerate(self.recording.all_frames(), 1):
            recv_ns = frame.recv_ns
            if recv_ns // HOUR_NS != newest // HOUR_NS or not count % _DRAIN_EVERY:
                self._drain(rows, newest // HOUR_NS)
                self._write_closed_hours(recv_ns // HOUR_NS)
                if progress is not None:
                    progress("frames", count)
            newest = max(newest, recv_ns)
            self._feed(rows, venue, frame.conn, recv_ns).receive(frame.frame, recv_ns)
        if progress is not None:
            progress("frames", count)
        return self._finish(rows, started, newest)

    def load(self, postgres: "Postgres", summary: CaptureSummary) -> int:
        """Bring what the lake has of the replay to Postgres; how many rows that is."""
        from arb_pipeline.storage.postgres import mirror, replace_run  # noqa: PLC0415 - it loads SQLAlchemy

        ids = [name for venue in self.recording.venues for name in self._connections(venue)]
        # What the lake keeps of the same connections near by, such as a replay that was longer, is replaced, too.
        window = summary.started_at - _MARGIN, summary.ended_at + _MARGIN
        tables = {}
        for name in _LOADED:
            rows = self.lake.read(name, *window) if name in _HOURLY else self.lake.read(name)
            tables[name] = rows.filter(pc.is_in(rows["connection_id"], pa.array(ids, pa.string())))
        count = replace_run(postgres, ids, tables, self.lake.exchange_name)
        for venue in (name for name, events in self.events.items() if events):
            for name in _CATALOGUE:
                count += mirror(postgres, self.lake, name, Partition.of(name, venue, summary.started_at)) or 0
        return count

    def _feed(self, rows: RowWriter, venue: str, label: str, recv_ns: int) -> Feed:
        """The feed of a connection; a label that was not there before is a fresh connection."""
        feed = self.feeds.get((venue, label))
        if feed is None:
            # As of a capture, it begins with the run: two recordings may use the same labels, in the same hour even.
            connection_id = f"{self.run_id}/{venue}/{label}"
            session = self.venues[venue].replay_session(connection_id, self.settings, self.recording.meta)
            feed = self.feeds[venue, label] = Feed(session, rows, awaits=False)
            feed.open(connection_id, recv_ns, ())
            # Which markets a recorded connection asked for is not told: none of them is awaited.
            feed.apply(feed.session.subscribe(self.facts[venue], recv_ns), recv_ns)
        return feed

    def _drain(self, rows: RowWriter, hour: int) -> None:
        """Turn rows into columns, which take a fraction of the memory."""
        self.hours.add(hour)
        for key, part in rows.drain().tables().items():
            self.pending.setdefault(key, []).append(part)

    def _write_closed_hours(self, current: int) -> None:
        """Write the hours that are over for good: frames of several connections may be a little out of order."""
        if current < self.floor:
            raise RecordingError(
                f"{self.recording.path}: a frame of {datetime_from_ns(current * HOUR_NS):%Y-%m-%d %H}h follows later "
                "hours; sort frames.jsonl.gz by recv_ns"
            )
        self.floor = max(self.floor, current - 1)
        written = sorted(hour for hour in self.hours if hour < self.floor)
        for hour in written:
            self._write(_HOURLY, hour)
        self.hours.difference_update(written)

    def _write(self, names: Sequence[str], hour: int) -> None:
        for name in names:
            for venue in self.recording.venues:
                key = (name, Partition.of(name, venue, hour * HOUR_NS))
                parts = self.pending.pop(key, [table(name).schema.empty_table()])
                found = self.lake.replace_where(
                    *key, pa.concat_tables(parts), "connection_id", self._connections(venue)
                )
                self.conflicts += found.conflicts

    def _connections(self, venue: str) -> list[str]:
        """Names of a venue's connections, and those that versions before gave them, whose rows are replaced, too."""
        labels = [label for owner, label in self.feeds if owner == venue]
        return [name for label in labels for name in (f"{self.run_id}/{venue}/{label}", f"{venue}/{label}")]

    def _finish(self, rows: RowWriter, started: int, newest: int) -> CaptureSummary:
        for feed in self.feeds.values():
            feed.finish(feed.newest_ns, "end_of_recording")
        self._drain(rows, newest // HOUR_NS)
        for hour in sorted(self.hours):
            self._write(_HOURLY, hour)
        while self.pending:
            # Writing takes the rows of all venues: what was written must not be replaced by nothing.
            name, partition = min(self.pending, key=lambda key: (key[0], key[1].order))
            assert partition.bounds is not None
            self._write([name], partition.bounds[0] // HOUR_NS)
        for venue, events in self.events.items():
            if events:
                write_catalogue(self.lake, venue, events, datetime_from_ns(started))
        return CaptureSummary(
            run_id=rows.run_id,
            exchange=rows.exchange,
            stop_reason="end_of_recording",
            started_at=datetime_from_ns(started),
            ended_at=datetime_from_ns(newest),
            venues={venue: self._summary(venue, rows, newest - started) for venue in self.recording.venues},
            key_conflicts=self.conflicts,
        )

    def _summary(self, venue: str, rows: RowWriter, length: int) -> VenueSummary:
        feeds = [feed for (owner, _), feed in self.feeds.items() if owner == venue]
        coverage = sum(feed.live_ns for feed in feeds) / (length * len(feeds)) if feeds and length else 0.0
        return summarise(
            venue,
            rows.totals_of(venue),
            connections=len(feeds),
            reconnects=0,
            coverage=coverage,
            message="" if feeds else "the recording has no frames of it",
        )

    def _catalogue_time(self) -> int:
        """Without frames, the newest time that the catalogue itself tells."""
        told = [
            at
            for events in self.events.values()
            for event in events
            for at in (event.updated_at, *(market.updated_at for market in event.markets))
            if at is not None
        ]
        return ns_from_datetime(max(told, default=datetime(1970, 1, 1, tzinfo=UTC)))
