"""Processes beside a capture run: started with it, started again when they die, left to themselves at its end."""

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, Self, TypeVar

import msgspec

__all__ = ["ProcessReport", "Supervised", "start_process"]

_log = logging.getLogger(__name__)

_STABLE_S: Final = 60.0
"""A process that lived for so long is started again with the shortest pause."""


class ProcessReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a process says of itself, a line of JSON on its standard output.

    Attributes:
        restarts: how often it died and was started again.
        done: there is nothing more to do.
        message: the newest trouble, empty if there is none.
    """

    restarts: int = 0
    done: bool = False
    message: str = ""

    def after(self, before: Self) -> Self:
        """The same with what earlier processes did."""
        return msgspec.structs.replace(self, restarts=before.restarts, message=self.message or before.message)


R = TypeVar("R", bound=ProcessReport)


def start_process(
    command: Sequence[str], pipe: int | None = None, settings: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Start a process of ours; it outlives us.

    Args:
        command: its words.
        pipe: ``subprocess.PIPE`` to speak with it.
        settings: of its environment, besides our own.
    """
    # A session of its own: an interrupt from the terminal is the recorder's to act upon. The child imports what its
    # parent does.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **(settings or {})}
    return subprocess.Popen(  # noqa: S603 - our own module
        command, bufsize=0, env=environment, start_new_session=True, stdin=pipe or subprocess.DEVNULL, stdout=pipe
    )


class Supervised(Generic[R]):
    """One process of a capture run. A thread of its own starts it and reads its reports; no method waits.

    Args:
        what: names it in messages.
        command: its words.
        kind: what its lines are.
        orders: what it is told first, given what those before it did.
        settings: of its environment, besides our own; here secrets are not seen by others.
        backoff_s: first and longest pause before a process that died is started again, seconds.
    """

    def __init__(
        self,
        what: str,
        command: Sequence[str],
        kind: type[R],
        *,
        orders: Callable[[R], bytes] = lambda _before: b"",
        settings: Mapping[str, str] | None = None,
        backoff_s: tuple[float, float] = (1.0, 60.0),
    ) -> None:
        self._what = what
        self._command = command
        self._kind = kind
        self._orders = orders
        self._settings = settings
        self._backoff_s = backoff_s
        self._before = kind()
        """What earlier processes did."""
        self._newest = kind()
        self._leaving = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def report(self) -> R:
        """How far it is, over all processes of the run."""
        return self._newest.after(self._before)

    @property
    def pid(self) -> int | None:
        """Id of the process, None while there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name=self._what, daemon=True).start()

    def leave(self) -> None:
        """Nobody asks for more: the process takes what the journal holds and ends by itself."""
        self._leaving.set()
        with self._lock:
            if self._process is not None:
                assert self._process.stdin is not None
                self._process.stdin.close()

    def _run(self) -> None:
        first, longest = self._backoff_s
        failures = 0
        while not self._leaving.is_set():
            began = time.monotonic()
            try:
                trouble = f"ended with exit code {self._attend()}"
            except OSError as error:
                trouble = f"cannot be started ({error})"
            if self._newest.done or self._leaving.is_set():
                return
            failures = 0 if time.monotonic() - began > _STABLE_S else failures
            pause = min(longest, first * 2**failures)
            failures += 1
            message = f"{self._what} {trouble}; it starts again in {pause:g} s"
            _log.warning("%s", message)
            self._before = msgspec.structs.replace(self.report, restarts=self._before.restarts + 1, message=message)
            self._newest = self._kind()
            self._leaving.wait(pause)

    def _attend(self) -> int:
        """Start a process and read its reports to its end; its exit code."""
        process = self._spawn()
        assert process.stdout is not None
        with process.stdout, open(process.stdout.fileno(), "rb", closefd=False) as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break  # it was killed in the middle of it
                try:
                    self._newest = msgspec.json.decode(line, type=self._kind)
                except msgspec.MsgspecError:
                    _log.warning("%s says what is no report: %r", self._what, line[:200])
        return process.wait()

    def _spawn(self) -> "subprocess.Popen[bytes]":
        orders = self._orders(self._before)
        with self._lock:
            self._process = start_process(self._command, subprocess.PIPE, self._settings)
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(orders)
            if self._leaving.is_set():
                self._process.stdin.close()
            return self._process
