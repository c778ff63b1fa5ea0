"""What markets become while a capture runs, written to ``market_history`` by processes of their own.

A row that ends is written again where it stands, in its day's partition: that takes memory by the size of the day,
which the allocator of a process that lives for hours would never give back. So what is told is collected, and at
intervals a process ``python -m arb_pipeline.capture.history`` writes it and ends. What a killed capture had not written
yet, the next discovery finds as it then stands.
"""

import asyncio
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime

import msgspec

from arb_pipeline.errors import ArbError
from arb_pipeline.model import Market
from arb_pipeline.storage.history import record_markets
from arb_pipeline.storage.lake import Lake

__all__ = ["HistoryKeeper", "main"]

_log = logging.getLogger(__name__)

_PATIENCE_S = 60.0
_LAST_PATIENCE_S = 4.0
"""A stop has to be over in ten seconds."""


class Told(msgspec.Struct, frozen=True):
    """Markets of one venue as it told them at one time."""

    venue: str
    at: datetime
    markets: tuple[Market, ...]


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is to write, and where."""

    lake: str
    exchange: str
    told: tuple[Told, ...]


class HistoryKeeper:
    """Collects what markets became, and has it written at intervals.

    Args:
        lake: where the history is.
        interval_s: seconds between two processes.
    """

    def __init__(self, lake: Lake, interval_s: float) -> None:
        self._lake = lake
        self._interval_s = interval_s
        self._told: list[Told] = []
        self._writing: asyncio.Task[None] | None = None
        self._due = time.monotonic() + interval_s

    def note(self, venue: str, markets: Sequence[Market], at: datetime) -> None:
        """Keep how these markets stand."""
        self._told.append(Told(venue, at, tuple(markets)))

    def write_if_due(self) -> None:
        """Start to write what there is, unless that was done a short while ago or goes on still."""
        busy = self._writing is not None and not self._writing.done()
        if self._told and not busy and time.monotonic() >= self._due:
            self._due = time.monotonic() + self._interval_s
            self._writing = asyncio.create_task(self._write(_PATIENCE_S), name="market history")

    async def close(self) -> None:
        """Write the rest. A stop is not kept waiting for a slow disk: the process then goes on by itself."""
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=_LAST_PATIENCE_S)
        if self._told:
            await self._write(_LAST_PATIENCE_S)

    async def _write(self, patience_s: float) -> None:
        """Write what there is; what cannot be written is kept for the next time."""
        told, self._told = self._told, []
        orders = Orders(lake=self._lake.root, exchange=self._lake.exchange_name, told=tuple(told))
        if trouble := await asyncio.to_thread(_run, msgspec.json.encode(orders), patience_s):
            _log.warning("the history of %d markets is not written: %s", sum(len(one.markets) for one in told), trouble)
            self._told = told + self._told


def _run(orders: bytes, patience_s: float) -> str:
    """Have a process write; what went wrong, empty if nothing did. One that takes longer finishes by itself."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "arb_pipeline.capture.history"]
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as trouble:
        told.write(orders)
        told.seek(0)
        try:
            process = subprocess.Popen(  # noqa: S603 - our own module
                command, stdin=told, stderr=trouble, env=environment, start_new_session=True
            )
            code = process.wait(patience_s)
        except OSError as error:
            return str(error)
        except subprocess.TimeoutExpired:
            return ""
        trouble.seek(0)
        return trouble.read().decode("utf-8", "replace").strip()[-500:] if code else ""


def main() -> int:
    """Write what standard input tells; the exit code is 0 if all is written."""
    orders = msgspec.json.decode(sys.stdin.buffer.read(), type=Orders)
    lake = Lake(orders.lake, orders.exchange)
    try:
        for told in orders.told:
            record_markets(lake, told.venue, told.markets, told.at)
    except (ArbError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
