"""A capture of the local exchange in processes of their own: what every trial begins and ends with."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from arb_pipeline.capture.journal import RunFolder, journal_root
from arb_pipeline.storage import Lake
from arb_pipeline_tests.endurance.exchange import ExchangeProcess, child_environment, until

__all__ = ["VENUES", "CaptureProcess", "Capturing", "Target"]

VENUES = ("kalshi", "polymarket")
Target = Literal["recorder", "encoder", "both"]
_LOG_CHARACTERS = 2_000
"""What is shown of a capture's log."""


class CaptureProcess:
    """``arb capture`` in a folder of its own.

    Args:
        folder: its lake and logs are there.
        environment: the settings.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self.environment = {**child_environment(**environment), "ARB_LAKE": str(folder / "lake")}
        self.lake = Lake(self.environment["ARB_LAKE"], environment["ARB_EXCHANGE_NAME"])
        self.journals = journal_root(None, self.lake.root) / "runs"
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    @property
    def pid(self) -> int:
        """The recorder's."""
        assert self.process is not None
        return self.process.pid

    def discover(self) -> None:
        """List both venues."""
        self._run("discover").check_returncode()

    def start(self) -> None:
        """Begin to capture."""
        self.starts += 1
        with (self._folder / "capture.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "arb_pipeline", "capture"],
                cwd=self._folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def encoders(self, *, recovering: bool | None = None) -> list[int]:
        """The process ids of the recorder's encoders: of its own journal, of dead runs, or (None) of either."""
        found = []
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
                with contextlib.suppress(OSError):
                    words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
                    if "arb_pipeline.capture.encoder" in words and recovering in {None, "--recover" in words}:
                        found.append(int(child))
        return found

    def kill(self, target: Target) -> Target:
        """SIGKILL; what was hit (an encoder that is not there yet cannot be)."""
        assert self.process is not None
        if target == "encoder" and not self.encoders(recovering=False):
            target = "both"
        # One that finishes a dead run's journal dies with the recorder only: killed alone some times, it leaves that
        # to the next capture.
        encoders = self.encoders(recovering=False if target == "encoder" else None)
        if target != "encoder":
            self.process.kill()
        if target != "recorder":
            for pid in encoders:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if target != "encoder":
            self.process.wait()
        return target

    def stop(self, within_s: float = 600.0) -> None:
        """SIGTERM, and wait until its journal is finished.

        Raises:
            RuntimeError: if it did not end well.
        """
        assert self.process is not None
        self.process.terminate()
        if code := self.process.wait(60):
            log = (self._folder / "capture.log").read_text(errors="replace")
            raise RuntimeError(f"arb capture ended with exit code {code}: ... {log[-_LOG_CHARACTERS:]}")
        until(lambda: not RunFolder.all(self.journals), "the encoder finishes", within_s)

    def leave(self) -> None:
        """Nothing of it stays."""
        if self.process is not None and self.process.poll() is None:
            self.kill("both")

    def _run(self, *words: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [sys.executable, "-m", "arb_pipeline", *words],
            cwd=self._folder,
            env=self.environment,
            capture_output=True,
            check=False,
        )


class Capturing:
    """A capture of an exchange, its markets listed already; a context manager that leaves no process behind.

    Args:
        folder: an empty one.
        exchange: what to capture.
        settings: of the capture, besides where the exchange is.
    """

    def __init__(self, folder: Path, exchange: ExchangeProcess, settings: Mapping[str, str]) -> None:
        self.exchange = exchange
        self.process = CaptureProcess(folder, {**exchange.environment, **settings})

    def __enter__(self) -> Self:
        self.process.discover()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.leave()

    def start(self) -> int:
        """Begin to capture; how many connections streamed before."""
        known = self._streaming()
        self.process.start()
        return known

    def await_streams(self, known: int = 0) -> None:
        """Wait for connections to both venues besides those known."""
        until(lambda: self._streaming() >= known + len(VENUES), "both venues stream")

    def stop(self, grace_s: float) -> dict[str, int]:
        """End playback, give the last frames time to arrive, then stop; frames sent by then, by connection."""
        self.exchange.end_playback()
        sent = {told["connection"]: told["sent"] for told in self.exchange.counts()}
        time.sleep(grace_s)
        self.process.stop()
        return sent

    def _streaming(self) -> int:
        """How many connections have been sent market data."""
        return sum(connection["sent"] > 1 for connection in self.exchange.counts())
