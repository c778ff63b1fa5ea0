"""How a capture run starts to stop, and how it shows that it lives.

Dagster ends a run by a signal whose default handler raises in the middle of whatever runs. :class:`StopSwitch` turns
it into an event that the capture's loop waits for, so that buffers are flushed whatever the loop was doing.
:class:`Lease` is the heartbeat: one run tag, overwritten, so that hours of beating leave no trace in the event log.
"""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

import dagster as dg

__all__ = ["HEARTBEAT_TAG", "LIVE", "OWNED", "Lease", "StopSwitch", "last_sign_of_life"]

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


class StopSwitch:
    """SIGINT and SIGTERM as an asyncio event, with a watchdog over the loop.

    The first signal sets :attr:`event`; a second one raises, to break a call that blocks. When :meth:`beat` was not
    called for ``hang_s`` seconds the loop hangs for good: the process ends on the spot, which Dagster reports as a
    failed run within a second. Signals can be had in the main thread only; elsewhere the event is all there is.

    Attributes:
        event: set once the capture should end.
        reason: name of the signal that asked for it, empty before.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        hang_s: float = 60.0,
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

    Both methods block on Dagster's storage: call them in a thread.
    """

    def __init__(self, instance: dg.DagsterInstance, run_id: str, wall: Callable[[], float] = time.time) -> None:
        self._instance = instance
        self._run_id = run_id
        self._wall = wall

    def renew(self) -> None:
        """Overwrite the heartbeat."""
        self._instance.add_run_tags(self._run_id, {HEARTBEAT_TAG: f"{self._wall():.1f}"})

    def held(self) -> bool:
        """Whether the run may go on writing: a run that was given up must leave, another one has its place."""
        run = self._instance.get_run_by_id(self._run_id)
        return run is not None and run.status in OWNED

    def cancelled(self) -> bool:
        """Whether somebody asked for the run's end."""
        run = self._instance.get_run_by_id(self._run_id)
        return run is not None and run.status in (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)


def last_sign_of_life(record: dg.RunRecord) -> float:
    """Unix time of a run's last heartbeat; its start where it has not beaten yet."""
    beat = record.dagster_run.tags.get(HEARTBEAT_TAG)
    started = record.start_time or record.create_timestamp.timestamp()
    return max(float(beat), started) if beat else started
