"""The recording format: real captures as plain files, read by replay and by the local exchange, written by ``record``.

``NAME/<venue>/{events.json, orderbooks.json | books.json, frames.jsonl.gz}``, ``pairs.json``, ``meta.json``; every
file is optional. A line of ``frames.jsonl.gz`` is ``{"recv_ns", "conn", "frame"}``: receive time in ns, an opaque
label of the connection, and the text frame as received.
"""

import gzip
import heapq
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from arb_pipeline.errors import ArbError

__all__ = ["Frame", "Recording", "RecordingError", "check_target", "write_recording"]


class RecordingError(ArbError, ValueError):
    """A recording's file is missing or not of the format; the message names file and line."""


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One recorded text frame with its receive time (ns since the epoch) and connection label."""

    recv_ns: int
    conn: str
    frame: str


_decoder = msgspec.json.Decoder(Frame)
_encoder = msgspec.json.Encoder()


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


def check_target(path: Path) -> None:
    """Refuse a folder that a recording cannot be written to.

    Raises:
        RecordingError: if it holds something, or is no folder.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RecordingError(f"{path} is there already: give a recording a folder of its own")


def write_recording(
    path: str | Path,
    events: Mapping[str, Sequence[Mapping[str, Any]]],
    frames: Mapping[str, Iterable[Frame]],
    meta: Mapping[str, object],
) -> dict[str, int]:
    """Write a recording into a folder that is new or empty; the same input gives the same bytes.

    Args:
        path: the folder.
        events: raw catalogue events with nested markets, by venue.
        frames: frames in the order of their receive times, by venue; read one at a time.
        meta: subscription options, see :attr:`Recording.meta`.

    Returns:
        Frames written by venue.

    Raises:
        RecordingError: if the folder holds something.
    """
    root = Path(path)
    check_target(root)
    counts = {}
    for venue in sorted({*events, *frames}):
        folder = root / venue
        folder.mkdir(parents=True)
        (folder / "events.json").write_bytes(_indented(list(events.get(venue, ()))))
        counts[venue] = _write_frames(folder / "frames.jsonl.gz", frames.get(venue, ()))
    (root / "meta.json").write_bytes(_indented(meta))
    return counts


def _write_frames(path: Path, frames: Iterable[Frame]) -> int:
    count = 0
    # Neither a name nor a time in the header: the same frames are the same file.
    with path.open("wb") as file, gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as lines:
        for frame in frames:
            lines.write(_encoder.encode(frame) + b"\n")
            count += 1
    return count


def _indented(document: object) -> bytes:
    return msgspec.json.format(_encoder.encode(document), indent=1) + b"\n"
