"""The recording format: real captures as plain files, read by replay and by the local exchange.

``NAME/<venue>/{events.json, orderbooks.json | books.json, frames.jsonl.gz}``, ``pairs.json``, ``meta.json``; every
file is optional. A line of ``frames.jsonl.gz`` is ``{"recv_ns", "conn", "frame"}``: receive time in ns, an opaque
label of the connection, and the text frame as received.
"""

import gzip
import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from arb_pipeline.errors import ArbError

__all__ = ["Frame", "Recording", "RecordingError"]


class RecordingError(ArbError, ValueError):
    """A recording's file is missing or not of the format; the message names file and line."""


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One recorded text frame with its receive time (ns since the epoch) and connection label."""

    recv_ns: int
    conn: str
    frame: str


_decoder = msgspec.json.Decoder(Frame)


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording's folder."""

    path: Path

    @classmethod
    def open(cls, path: str | Path) -> "Recording":
        """Open a folder.

        Raises:
            RecordingError: if it is no folder, or holds nothing of either venue.
        """
        recording = cls(Path(path))
        if not recording.path.is_dir():
            raise RecordingError(f"no recording at {recording.path}: give a folder in the recording format")
        if not recording.venues:
            raise RecordingError(f"{recording.path} holds no venue's folder with events.json or frames.jsonl.gz")
        return recording

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def venues(self) -> tuple[str, ...]:
        """Venues that have a file inside, in alphabetical order."""
        return tuple(
            sorted(folder.name for folder in self.path.iterdir() if folder.is_dir() and any(folder.glob("*.json*")))
        )

    @property
    def meta(self) -> dict[str, Any]:
        """Subscription options: ``venues``, ``use_yes_price``, ``exchange``."""
        return {"use_yes_price": False, "exchange": False, **self._json("meta.json", {})}

    @property
    def pairs(self) -> list[dict[str, Any]]:
        """Ground truth of the cross-venue pairs inside; empty if none is told."""
        pairs: list[dict[str, Any]] = self._json("pairs.json", [])
        return pairs

    def events(self, venue: str) -> list[dict[str, Any]]:
        """Raw catalogue events with nested markets; empty if there are none."""
        events: list[dict[str, Any]] = self._json(f"{venue}/events.json", [])
        return events

    def books(self, venue: str) -> Any:
        """Raw REST books as the venue's file keeps them (``orderbooks.json`` or ``books.json``); None if absent."""
        for name in ("orderbooks.json", "books.json"):
            if (books := self._json(f"{venue}/{name}", None)) is not None:
                return books
        return None

    def frames(self, venue: str) -> Iterator[Frame]:
        """A venue's frames in the order of the file; nothing if there are none.

        Raises:
            RecordingError: at the first line that is not of the format.
        """
        path = self.path / venue / "frames.jsonl.gz"
        if not path.exists():
            return
        with gzip.open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield _decoder.decode(line)
                except msgspec.DecodeError as error:
                    raise RecordingError(f"{path} line {number}: {error}") from error

    def all_frames(self) -> Iterator[tuple[str, Frame]]:
        """(venue, frame) of every venue, merged by receive time; ties in the venues' alphabetical order."""
        return heapq.merge(*(self._tagged(venue) for venue in self.venues), key=lambda pair: pair[1].recv_ns)

    def _tagged(self, venue: str) -> Iterator[tuple[str, Frame]]:
        return ((venue, frame) for frame in self.frames(venue))

    def _json(self, name: str, default: Any) -> Any:
        path = self.path / name
        if not path.exists():
            return default
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RecordingError(f"{path} is not JSON: {error}") from error
