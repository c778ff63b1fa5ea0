"""The exchange in a process of its own (:mod:`arb_pipeline_tests.endurance.__main__`), from the outside."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from arb_pipeline_tests.endurance.churn import Passing

__all__ = ["ExchangeProcess", "SentFrame", "child_environment", "until"]

SentFrame = tuple[int, str, str]
"""Wall time (ns) at which a frame was handed to the socket, its type, and its text."""

_PAGE = 20_000


def until(condition: Callable[[], bool], what: str, within_s: float = 120.0, pause_s: float = 0.05) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: if it does not come true.
    """
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within_s:g} s: {what}")
        time.sleep(pause_s)


def child_environment(**settings: str) -> dict[str, str]:
    """This process' environment for a child that imports what it imports, with these settings and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ARB_", "KALSHI_", "POLY_"))}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **settings}


class ExchangeProcess:
    """A running exchange; a context manager.

    Args:
        seed, rate: of the generated market: frames per second, about.
        log_frames: how many of the newest frames to keep per connection.
        per_minute, minutes, life_s: markets that come and go, see :class:`Churn`.
    """

    def __init__(
        self,
        seed: int,
        rate: float,
        *,
        log_frames: int = 0,
        per_minute: int = 0,
        minutes: float = 0.0,
        life_s: float = 30.0,
    ) -> None:
        command = [sys.executable, "-m", __package__, f"--seed={seed}", f"--rate={rate}", f"--log-frames={log_frames}"]
        command += [f"--per-minute={per_minute}", f"--minutes={minutes}", f"--life-s={life_s}"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, env=child_environment(), start_new_session=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the exchange ended with exit code {self._process.wait()} before it was ready")
        announcement = json.loads(line)
        self.pid = self._process.pid
        self.environment: dict[str, str] = announcement["env"]
        self.port = int(httpx.URL(announcement["control_url"]).port or 0)
        self._http = httpx.Client(base_url=announcement["control_url"], timeout=60.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()
        self._process.terminate()
        self._process.wait()

    def get(self, path: str, **parameters: Any) -> Any:
        """A control route's answer."""
        answer = self._http.get(path, params=parameters)
        answer.raise_for_status()
        return answer.json()

    def status(self) -> dict[str, Any]:
        """How far playback is, and what waits for the clients."""
        status: dict[str, Any] = self.get("/status")
        return status

    def counts(self) -> list[dict[str, Any]]:
        """Every connection so far with its number of frames, in the order in which they were opened."""
        found: list[dict[str, Any]] = self.get("/sent")["connections"]
        return sorted(found, key=lambda connection: int(connection["connection"].rpartition("-")[2]))

    def frames(self, connection: str) -> list[SentFrame]:
        """The frames kept of a connection, in order."""
        found: list[SentFrame] = []
        after = 0
        while True:
            (told,) = self.get("/sent", connection=connection, log=1, after=after, limit=_PAGE)["connections"]
            page = told["log"]
            if not page:
                return found
            found += [(entry["sent_ns"], entry["type"], entry["frame"]) for entry in page]
            after = page[-1]["number"]

    def book(self, market_id: str) -> tuple[dict[int, int], dict[int, int]]:
        """The exchange's own book: bids and asks."""
        told = self.get("/book", market=market_id)
        return dict(map(tuple, told["bids"])), dict(map(tuple, told["asks"]))

    def passing(self) -> list[Passing]:
        """The markets that come and go."""
        return msgspec.convert(self.get("/truth")["passing"], list[Passing])

    def end_playback(self) -> None:
        """Nothing moves any more once this returns, and all was handed to the sockets of who reads."""
        self._process.send_signal(signal.SIGUSR1)
        until(lambda: bool(self.status()["finished"]), "playback ends")
        until(lambda: not self.status()["queued"], "the clients have read everything")
