"""What a running capture says of itself: one small file for each, overwritten at every flush.

The files stand beside the journals, on the capture's own host. One that is not overwritten any more tells that its
capture was killed, and when.
"""

import contextlib
import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec

from arb_pipeline.capture.journal import journal_root, slug
from arb_pipeline.capture.summary import CaptureStatus
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake

__all__ = ["Heartbeat", "HeartbeatFile", "PostgresBeat", "State", "VenueBeat", "heartbeats"]

State: TypeAlias = Literal["running", "silent", "gone"]
"""``silent``: the process is there (or on another host), but has said nothing for too long."""

_LEAST_PATIENCE_S: Final = 15.0
_FORGOTTEN_S: Final = 86_400.0


class VenueBeat(msgspec.Struct, frozen=True, kw_only=True):
    """One venue's part; ``frames_per_s`` is that of the last interval, ``connected`` None where not known."""

    markets: int
    connections: int
    connected: int | None
    frames: int
    frames_per_s: float
    reconnects: int
    message: str


class PostgresBeat(msgspec.Struct, frozen=True, kw_only=True):
    """How far Postgres has the rows, see :class:`arb_pipeline.capture.summary.LoadSummary`."""

    rows: int
    lag_s: float
    waiting: int
    message: str


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """A capture's newest word.

    Attributes:
        shard: (k, n).
        written_at: Unix time in seconds by the wall clock. at_ns: the same instant by the pipeline's clock.
        every_s: seconds between two of them.
        names: the venues that are to be captured. venues: their figures, none before the first flush.
        postgres: None before the first flush, and where Postgres is off.
    """

    run_id: str
    shard: tuple[int, int]
    host: str
    pid: int
    exchange: str
    written_at: float
    at_ns: int
    every_s: float
    names: tuple[str, ...]
    venues: dict[str, VenueBeat] = {}
    postgres: PostgresBeat | None = None

    def state(self, wall: float | None = None) -> State:
        """Whether the capture still runs, at a Unix time in seconds; None means now."""
        if self.host == socket.gethostname() and not _alive(self.pid):
            return "gone"
        silent_s = (time.time() if wall is None else wall) - self.written_at
        return "running" if silent_s <= max(_LEAST_PATIENCE_S, 3 * self.every_s) else "silent"


class HeartbeatFile:
    """The file of one capture."""

    def __init__(
        self, settings: Settings, lake: Lake, run_id: str, *, shard: tuple[int, int], venues: Iterable[str]
    ) -> None:
        self._settings = settings
        self._folder = _folder(settings, lake.root)
        self._path = self._folder / f"{slug(run_id)}-{shard[0]}of{shard[1]}.json"
        self._plain = Heartbeat(
            run_id=run_id,
            shard=shard,
            host=socket.gethostname(),
            pid=os.getpid(),
            exchange=lake.exchange_name,
            written_at=0.0,
            at_ns=0,
            every_s=settings.capture_flush_s,
            names=tuple(venues),
        )
        self._before: tuple[float, Mapping[str, int]] = (0.0, {})

    def begin(self) -> None:
        """Say that the capture starts, and forget what dead captures of its shard said."""
        for path, beat in _read(self._folder):
            old = time.time() - beat.written_at > _FORGOTTEN_S
            if beat.state() != "running" and (old or (beat.state() == "gone" and beat.shard == self._plain.shard)):
                path.unlink(missing_ok=True)
        self._write(self._plain)

    def beat(self, status: CaptureStatus) -> None:
        """Say how far the capture has come."""
        since, frames = self._before
        seconds = status.elapsed_s - since
        venues = {
            name: VenueBeat(
                markets=one.markets,
                connections=one.connections,
                connected=one.connected,
                frames=one.frames,
                frames_per_s=round((one.frames - frames.get(name, 0)) / seconds, 1) if seconds > 0 else 0.0,
                reconnects=one.reconnects,
                message=one.message,
            )
            for name, one in status.venues.items()
        }
        self._before = status.elapsed_s, {name: one.frames for name, one in status.venues.items()}
        load = status.postgres
        postgres = (
            None
            if load is None
            else PostgresBeat(rows=load.rows, lag_s=load.lag_s, waiting=load.waiting, message=load.message)
        )
        self._write(msgspec.structs.replace(self._plain, venues=venues, postgres=postgres))

    def end(self) -> None:
        """The capture ended by itself: there is nothing to say any more."""
        self._path.unlink(missing_ok=True)

    def _write(self, beat: Heartbeat) -> None:
        now = msgspec.structs.replace(beat, written_at=time.time(), at_ns=self._settings.clock.now_ns())
        self._folder.mkdir(parents=True, exist_ok=True)
        scratch = self._path.with_suffix(".new")
        scratch.write_bytes(msgspec.json.encode(now))
        scratch.replace(self._path)


def heartbeats(settings: Settings, lake_root: str) -> list[Heartbeat]:
    """The newest word of every capture of this host into a lake that has not ended by itself."""
    return [beat for _, beat in _read(_folder(settings, lake_root))]


def _folder(settings: Settings, lake_root: str) -> Path:
    return journal_root(settings.journal, lake_root) / "status"


def _read(folder: Path) -> list[tuple[Path, Heartbeat]]:
    found = []
    for path in sorted(folder.glob("*.json")):
        # Ended between the look and the reading, or written by another version: it says nothing to this one.
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
            found.append((path, msgspec.json.decode(path.read_bytes(), type=Heartbeat)))
    return found


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
