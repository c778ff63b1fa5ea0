"""How a capture run starts to stop, and how it shows that it lives.

Dagster ends a run by a signal whose default handler raises in the middle of whatever runs. :class:`StopSwitch` turns
it into an event that the capture's loop waits for, so that buffers are flushed whatever the loop was doing.
:class:`Lease` is a run's claim on its hour and shard; :class:`Heartbeat` renews it: run tags, overwritten, so that
hours of beating leave no trace in the event log.
"""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType, TracebackType
from typing import Self

import dagster as dg

__all__ = ["HEARTBEAT_TAG", "LIVE", "OWNED", "Heartbeat", "Lease", "StopSwitch", "last_sign_of_life"]

HEARTBEAT_TAG = "arb/heartbeat"
"""Run tag: Unix time in seconds (wall clock, never shifted) of the last beat."""

OWNED = frozenset({dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING})
"""Statuses in which a run may go on writing."""

LIVE = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
"""Statuses of a run that is there or on its way."""

_HUNG_EXIT_CODE = 70
_LAST_BEAT_S = 2.0


class StopSwitch:
    """SIGINT and SIGTERM as an asyncio event, with a watchdog over the loop.

    The first signal sets :attr:`event`; a second one raises, to break a call that blocks. When :meth:`beat` was not
    called for ``hang_s`` seconds the loop hangs for good: the process ends on the spot, which Dagster reports as a
    failed run within a second. Keep that below the lease, so that a capture that hangs is gone before it is replaced.
    Signals can be had in the main thread only; elsewhere the event is all there is.

    Attributes:
        event: set once the capture should end.
        reason: name of the signal that asked for it, empty before.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        hang_s: float,
        end_process: Callable[[int], object] = os._exit,
    ) -> None:
        self.event = asyncio.Event()
        self.reason = ""
        self._loop = loop
        self._hang_s = hang_s
        self._end_process = end_process
        self._beat = time.monotonic()
        self._done = threading.Event()
        self._watchdog = threading.Thread(target=self._watch, name="capture-watchdog", daemon=True)
        self._previous: dict[signal.Signals, signal._HANDLER] = {}

    def beat(self) -> None:
        """Say that the loop turns."""
        self._beat = time.monotonic()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        again = bool(self.reason)
        self.reason = signal.Signals(number).name
        self._loop.call_soon_threadsafe(self.event.set)
        if again:
            raise dg.DagsterExecutionInterruptedError

    def _watch(self) -> None:
        while not self._done.wait(min(1.0, self._hang_s / 4)):
            if time.monotonic() - self._beat > self._hang_s:
                self._end_process(_HUNG_EXIT_CODE)
                return

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        self.beat()
        self._watchdog.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class Lease:
    """A run's claim on its partition and shard: renewed by beating, lost when Dagster gave the run up.

    Its methods block on Dagster's storage: call them outside the capture's loop.
    """

    def __init__(self, instance: dg.DagsterInstance, run_id: str, wall: Callable[[], float] = time.time) -> None:
        self._instance = instance
        self._run_id = run_id
        self._wall = wall
        self._lock = threading.Lock()

    def tag(self, tags: Mapping[str, str]) -> None:
        """Add tags to the run, or overwrite them."""
        # Dagster reads all tags and writes them back: two threads at once would lose one's.
        with self._lock:
            self._instance.add_run_tags(self._run_id, tags)

    def renew(self, notes: Mapping[str, str] | None = None) -> None:
        """Overwrite the heartbeat, and with it the run tags ``notes``."""
        self.tag({**(notes or {}), HEARTBEAT_TAG: f"{self._wall():.1f}"})

    def held(self) -> bool:
        """Whether the run may go on writing: a run that was given up must leave, another one has its place."""
        run = self._instance.get_run_by_id(self._run_id)
        return run is not None and run.status in OWNED

    def cancelled(self) -> bool:
        """Whether somebody asked for the run's end."""
        run = self._instance.get_run_by_id(self._run_id)
        return run is not None and run.status in (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)


class Heartbeat:
    """Renews a lease until the context ends, from a thread: merging the hour's files takes the main one for a while.

    Attributes:
        notes: run tags that go out with each beat, to be replaced as a whole: what the capture shows of itself.
    """

    def __init__(self, lease: Lease, every_s: float, on_error: Callable[[str], object]) -> None:
        self.notes: Mapping[str, str] = {}
        self._lease = lease
        self._every_s = every_s
        self._on_error = on_error
        self._failing = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="capture-heartbeat", daemon=True)

    def _run(self) -> None:
        ending = False
        while True:
            self._beat()
            if ending:
                return
            ending = self._done.wait(self._every_s)

    def _beat(self) -> None:
        try:
            self._lease.renew(self.notes)
            self._failing = False
        except Exception as error:
            # A capture outlives an outage of Dagster's storage, and does not fill the log with it.
            if not self._failing:
                self._on_error(f"heartbeat not written: {error}")
            self._failing = True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join(_LAST_BEAT_S)


def last_sign_of_life(record: dg.RunRecord) -> float:
    """Unix time of a run's last heartbeat; where it has not beaten yet, of its start, or of its launch."""
    run = record.dagster_run
    if run.status is dg.DagsterRunStatus.STARTING:
        return record.update_timestamp.timestamp()
    beat = run.tags.get(HEARTBEAT_TAG)
    started = record.start_time or record.create_timestamp.timestamp()
    return max(float(beat), started) if beat else started
