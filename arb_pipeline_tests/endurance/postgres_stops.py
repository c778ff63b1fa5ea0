"""A capture whose Postgres is killed again and again, and what is in its tables all the same.

The exchange, the capture with its encoder and loader, and a PostgreSQL server of its own are processes. The server is
killed while the loader is at a batch, by an immediate shutdown or by SIGKILL, stays away for a while, and is started
again. All the time the journal's size is looked at, so that a capture that paused is found. In the end

- every tick table in Postgres has the rows that the lake has: counts and checksums, or row by row where there are few;
- every frame that the exchange sent is in the lake, and no book was in doubt because of a connection;
- the journal never stood still while Postgres was away, and the lake went on, too.
"""

import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import psycopg

from arb_pipeline.capture.journal import RunFolder
from arb_pipeline.storage import Lake
from arb_pipeline.storage.postgres import EmbeddedPostgres, Postgres, PostgresError
from arb_pipeline_tests.endurance.captured import Captured
from arb_pipeline_tests.endurance.capturing import VENUES, Capturing
from arb_pipeline_tests.endurance.exchange import ExchangeProcess, until
from arb_pipeline_tests.endurance.loaded import Loaded

__all__ = ["PostgresResult", "Stop", "postgres_trial"]

How = Literal["SIGQUIT", "SIGKILL"]

_SIGNALS: tuple[How, ...] = ("SIGQUIT", "SIGKILL")
_MB = 1 << 20
_LOOK_S = 0.02
_AT_WORK_S = 5.0
"""So long at most a kill waits for the loader to be at a batch."""
_ARRIVAL_S = 1.0
"""What was handed to a socket has arrived by then."""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """One time without Postgres.

    Attributes:
        how: the signal.
        mid_load: whether the loader was at a batch.
        away_s: from the kill until the server answered again.
        journal_mb, frames: what capture put into the journal, and into the lake, meanwhile.
        pause_s: the longest time meanwhile in which the journal did not grow.
        caught_s: from the server's answer to the loader's first commit.
    """

    how: How
    mid_load: bool
    away_s: float
    journal_mb: float
    frames: int
    pause_s: float
    caught_s: float


@dataclass
class PostgresResult:
    """What happened, and what is wrong."""

    stops: list[Stop] = field(default_factory=list)
    usual_pause_s: float = 0.0
    sent: Counter[str] = field(default_factory=Counter)
    captured: Counter[str] = field(default_factory=Counter)
    rows: dict[str, int] = field(default_factory=dict)
    rate: float = 0.0
    finish_s: float = 0.0
    seconds: float = 0.0
    findings: list[str] = field(default_factory=list)

    def table(self) -> str:
        """The result as text."""
        heads = ("mid-load", "away s", "journal MB", "frames", "pause ms", "caught s")
        lines = [f"stop  {'how':8}" + "".join(f" {head:>10}" for head in heads)]
        lines += [
            f"{number:4}  {stop.how:8} {'yes' if stop.mid_load else 'no':>10} {stop.away_s:10.1f} "
            f"{stop.journal_mb:10.1f} {stop.frames:10,} {1e3 * stop.pause_s:10.0f} {stop.caught_s:10.2f}"
            for number, stop in enumerate(self.stops, 1)
        ]
        longest = max((stop.pause_s for stop in self.stops), default=0.0)
        lines += [
            "",
            f"{self.rate:,.0f} frames/s; longest time without growth of the journal:",
            f"  {1e3 * longest:.0f} ms without Postgres, {1e3 * self.usual_pause_s:.0f} ms with it",
            *(f"{venue}: {self.sent[venue]:,} sent, {self.captured[venue]:,} in the lake" for venue in VENUES),
            f"rows in Postgres: {', '.join(f'{name} {count:,}' for name, count in self.rows.items())}",
            f"Postgres has everything {self.finish_s:.0f} s after the stop; {self.seconds:.0f} s in all",
            *(f"FAILED: {finding}" for finding in self.findings),
            "FAILED" if self.findings else "passed",
        ]
        return "\n".join(lines)


def postgres_trial(
    folder: Path,
    *,
    stops: int = 10,
    rate: float = 5_000.0,
    seed: int = 1,
    markets: int = 150,
    up_s: float = 8.0,
    away_s: float = 6.0,
    pause_s: float = 2.0,
    say: Callable[[str], None] = lambda _words: None,
) -> PostgresResult:
    """Kill Postgres so many times under load, let everything end well, and compare.

    Args:
        folder: an empty one.
        rate: frames per second over both venues, about.
        seed: chooses moments and signals.
        markets: at each venue.
        up_s, away_s: the longest times from catching up to the next kill, and from a kill to the next start.
        pause_s: the journal may stand still so long at most.
        say: told of each stop.
    """
    rng, began, result = random.Random(seed), time.monotonic(), PostgresResult()
    with (
        # For root the server runs as another user, to whom the given folder may be closed.
        tempfile.TemporaryDirectory(prefix="arb-postgres-") as place,
        EmbeddedPostgres(place) as server,
        ExchangeProcess(7, rate, log_frames=1_000) as exchange,
    ):
        Postgres(server.url).migrate()
        settings = {
            "ARB_POSTGRES_URL": server.url,
            "ARB_CAPTURE_MAX_MARKETS": str(markets),
            "ARB_CAPTURE_FLUSH_S": "1",
        }
        with Capturing(folder, exchange, settings) as capturing:
            capturing.await_streams(capturing.start())
            loaded = Loaded(server.url)
            until(lambda: bool(_position(loaded)), "Postgres gets its first rows")
            with _Growth(capturing.process.journals) as growth:
                first, since = _sent(exchange), time.monotonic()
                for number in range(stops):
                    time.sleep(rng.uniform(0.3, up_s))
                    how, away = rng.choice(_SIGNALS), rng.uniform(0.5, away_s)
                    result.stops.append(_stop(server, capturing.process.lake, growth, how, away))
                    say(f"stop {number + 1} of {stops}: {result.stops[-1].how}")
                time.sleep(rng.uniform(0.3, up_s))
                result.rate = (_sent(exchange) - first) / (time.monotonic() - since)
            result.usual_pause_s = growth.longest_outside()
            ended = time.monotonic()
            sent = capturing.stop(_ARRIVAL_S)
            result.finish_s = time.monotonic() - ended - _ARRIVAL_S
        _check_tables(exchange, capturing.process.lake, loaded, result, sent)
        _check_stops(result, pause_s)
    result.seconds = time.monotonic() - began
    return result


def _stop(server: EmbeddedPostgres, lake: Lake, growth: "_Growth", how: How, away_s: float) -> Stop:
    """Kill the server, let it be away, start it again, and wait until the loader commits."""
    loaded, mid_load = Loaded(server.url), _await_batch(server.url)
    began, size, frames = time.monotonic(), growth.size, _frames(lake)
    _kill(server, how)
    time.sleep(away_s)
    _start(server)
    back = time.monotonic()
    grown, more = growth.size - size, _frames(lake) - frames
    position = _position(loaded)
    until(lambda: _position(loaded) > position, "the loader commits again", pause_s=0.02)
    return Stop(
        how=how,
        mid_load=mid_load,
        away_s=back - began,
        journal_mb=grown / _MB,
        frames=more,
        pause_s=growth.longest(began, back),
        caught_s=time.monotonic() - back,
    )


def _kill(server: EmbeddedPostgres, how: How) -> None:
    pid = server.pid
    assert pid is not None
    if how == "SIGQUIT":
        server.kill()
    else:
        os.kill(pid, signal.SIGKILL)
        until(lambda: server.pid is None, "the server is gone")


def _start(server: EmbeddedPostgres) -> None:
    """Start the server; after a SIGKILL its last children may still hold its memory for a moment."""

    def started() -> bool:
        try:
            server.start()
        except PostgresError:
            return False
        return True

    until(started, "the server starts again")


def _await_batch(url: str) -> bool:
    """Wait until the loader is within a transaction; whether it came to that."""
    asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'arb loader' AND xact_start IS NOT NULL"
    deadline = time.monotonic() + _AT_WORK_S
    with psycopg.connect(url, autocommit=True) as connection:
        while time.monotonic() < deadline:
            row = connection.execute(asked).fetchone()
            if row is not None and row[0]:
                return True
    return False


def _position(loaded: Loaded) -> int:
    return int(loaded.scalar("SELECT max(position) FROM load_positions") or 0)


def _sent(exchange: ExchangeProcess) -> int:
    return sum(told["sent"] for told in exchange.counts())


def _frames(lake: Lake) -> int:
    """Frames in the lake, by the manifests alone."""
    return sum(lake.manifest("raw_frames", partition).rows for partition in lake.partitions("raw_frames"))


def _check_tables(
    exchange: ExchangeProcess, lake: Lake, loaded: Loaded, result: PostgresResult, sent: dict[str, int]
) -> None:
    captured, find = Captured(lake), result.findings
    result.rows = loaded.counts()
    find += [f"Postgres differs: {words}" for words in loaded.differences(lake)]
    find += [f"{name}: there are no rows" for name in ("book_events", "quotes", "trades") if not result.rows[name]]
    rejected = loaded.scalar("SELECT count(*) FROM load_rejects")
    find += [f"Postgres refused {rejected} rows"] if rejected else []
    total = {told["connection"]: told["sent"] for told in exchange.counts()}
    for venue in VENUES:
        result.sent[venue], result.captured[venue], finding = captured.frames_due(venue, sent, total)
        find += [finding] if finding else []
    for cause, count in captured.rows("SELECT cause, count(*) FROM book_gaps GROUP BY 1"):
        find += [f"{count} gaps by {cause}"] if cause in {"outage", "disconnect", "seq_gap"} else []


def _check_stops(result: PostgresResult, pause_s: float) -> None:
    find = result.findings
    for number, stop in enumerate(result.stops, 1):
        if stop.pause_s > pause_s or not stop.journal_mb:
            find.append(f"stop {number}: the journal stood still for {stop.pause_s:.1f} s")
        if not stop.frames and stop.away_s > 4:
            find.append(f"stop {number}: the lake got nothing while Postgres was away")
    if not any(stop.mid_load for stop in result.stops):
        find.append("the loader was never at a batch when Postgres was killed")


class _Growth:
    """Looks at the size of the newest journal again and again; a context manager."""

    def __init__(self, journals: Path) -> None:
        self._journals = journals
        self._looks: list[tuple[float, int]] = []
        self._away: list[tuple[float, float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: bool(self._looks), "the journal is found", pause_s=0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    @property
    def size(self) -> int:
        """Bytes on disk at the last look."""
        return self._looks[-1][1]

    def longest(self, began: float, ended: float) -> float:
        """The longest time within [began, ended) without growth, seconds; this time counts as one without Postgres."""
        self._away.append((began, ended))
        return self._longest(lambda at: began <= at < ended, began)

    def longest_outside(self) -> float:
        """The longest time without growth while Postgres was there, seconds."""
        return self._longest(lambda at: not any(began <= at < ended for began, ended in self._away), 0.0)

    def _longest(self, counts: Callable[[float], bool], began: float) -> float:
        longest, (since, size) = 0.0, (began or self._looks[0][0], -1)
        for at, now in self._looks:
            if not counts(at) or now != size:
                since = max(at, began)
                size = now
            else:
                longest = max(longest, at - since)
        return longest

    def _run(self) -> None:
        while not self._over.wait(_LOOK_S):
            folders = RunFolder.all(self._journals)
            if folders:
                sizes = [path.stat().st_size for path in folders[-1].path.glob("*.seg")]
                self._looks.append((time.monotonic(), sum(sizes)))
