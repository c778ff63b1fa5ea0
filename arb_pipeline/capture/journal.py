"""The journal of a capture run: every input of its sessions, in order, and nothing that is derived from them.

A run has a folder of segments ``000000.seg``, ``000001.seg``, ... A segment is a header (magic, format version, number)
and records, each framed by its length and CRC-32; bodies are MessagePack arrays that begin with their type's number.
Fields are only ever added at the end, with a default, so that what an older version wrote stays readable; a version
that is newer than the reader is refused. A writer that is killed leaves at worst half a record: the reader stops at
the last whole one, whatever follows.
"""

import contextlib
import fcntl
import os
import re
import shutil
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias

import msgspec

from arb_pipeline.errors import ArbError
from arb_pipeline.model import AccountEvent, Anomaly, MarketFacts

__all__ = [
    "VERSION",
    "AccountTold",
    "Begun",
    "Ended",
    "FeedAdded",
    "FeedKind",
    "Frame",
    "JournalError",
    "JournalReader",
    "JournalWriter",
    "Lost",
    "Opened",
    "PollAnswer",
    "PollBegun",
    "PollComplete",
    "PollFailed",
    "Reader",
    "Record",
    "RestBook",
    "RunFolder",
    "Sent",
    "Skipped",
    "Subscribed",
    "Tick",
    "TradesPage",
    "Unsubscribed",
    "file_lock",
    "journal_root",
    "slug",
    "try_lock",
]

VERSION: Final = 2
"""Version 2 added polls and subscriptions that change while a connection lasts."""

FeedKind: TypeAlias = Literal["stream", "books", "trades", "account"]
"""What a feed is: a WebSocket, order books or trades polled over REST, or the private channels of an account."""

Reader: TypeAlias = Literal["encoder", "loader"]
"""Who turns a journal into rows that are kept."""

_MAGIC: Final = b"ARBJ"
_HEADER: Final = struct.Struct("<4sHHI")
_FRAMING: Final = struct.Struct("<II")
_MAX_BODY: Final = 256 << 20
_SEGMENT_BYTES: Final = 64 << 20
_SEGMENT_S: Final = 600.0
_BACKLOG_BYTES: Final = 64 << 20
_READ_BYTES: Final = 4 << 20
_COMMITTED: Final = ".committed"
_LOADER_WANTED: Final = "loader.wanted"
_NOT_A_NAME: Final = re.compile(r"[^A-Za-z0-9_.-]+")


class JournalError(ArbError):
    """A journal that cannot be used: of another format, or in use by another capture."""


class _Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One input."""


class Begun(_Record, frozen=True, tag=0):
    """The run begins. Times are ns since the epoch; ``settings`` are those in force, without secrets."""

    run_id: str
    shard: tuple[int, int]
    started_ns: int
    window: tuple[int | None, int | None]
    exchange: str
    settings: dict[str, Any]


class FeedAdded(_Record, frozen=True, tag=1):
    """From here on ``feed`` is the number of a session of this venue, name and kind."""

    feed: int
    venue: str
    name: str
    kind: FeedKind = "stream"


class Opened(_Record, frozen=True, tag=2):
    """A feed has a connection, and subscribes these markets."""

    feed: int
    at_ns: int
    connection_id: str
    markets: tuple[MarketFacts, ...]


class Frame(_Record, frozen=True, tag=3):
    """A frame was received."""

    feed: int
    at_ns: int
    frame: str


class RestBook(_Record, frozen=True, tag=4):
    """A book was fetched over REST."""

    feed: int
    at_ns: int
    market_id: str
    body: bytes


class Tick(_Record, frozen=True, tag=5):
    """Time passed: a session's deadlines were looked at."""

    feed: int
    at_ns: int


class Sent(_Record, frozen=True, tag=6):
    """A frame was sent."""

    feed: int
    at_ns: int
    frame: str


class Lost(_Record, frozen=True, tag=7):
    """A feed's connection ended; ``doubt`` is the cause of its books' gaps."""

    feed: int
    at_ns: int
    cause: str
    doubt: str = "disconnect"


class Ended(_Record, frozen=True, tag=8):
    """The run is over, and the journal complete."""

    at_ns: int
    reason: str


class Subscribed(_Record, frozen=True, tag=9):
    """A feed that has a connection takes these markets, too."""

    feed: int
    at_ns: int
    markets: tuple[MarketFacts, ...]


class Unsubscribed(_Record, frozen=True, tag=10):
    """A feed lets go of these markets."""

    feed: int
    at_ns: int
    market_ids: tuple[str, ...]


class PollBegun(_Record, frozen=True, tag=11):
    """A polled feed begins; ``since_ns`` is the venue time from which trades are wanted."""

    feed: int
    at_ns: int
    connection_id: str
    markets: tuple[MarketFacts, ...]
    since_ns: int = 0


class PollAnswer(_Record, frozen=True, tag=12):
    """A poll of books was answered: a body for each market asked for, None where the answer has none."""

    feed: int
    at_ns: int
    bodies: dict[str, bytes | None]


class PollFailed(_Record, frozen=True, tag=13):
    """A poll brought no answer."""

    feed: int
    at_ns: int
    cause: str


class TradesPage(_Record, frozen=True, tag=14):
    """A page of a listing of trades, newest first."""

    feed: int
    at_ns: int
    body: bytes


class PollComplete(_Record, frozen=True, tag=15):
    """A listing of trades came to its end."""

    feed: int
    at_ns: int


class Skipped(_Record, frozen=True, tag=16):
    """So many ticker frames were not kept since the last such record, because the disk could not keep up."""

    feed: int
    at_ns: int
    frames: int


class AccountTold(_Record, frozen=True, tag=17):
    """An own account was asked for over REST: what it told, each with the venue's record."""

    feed: int
    at_ns: int
    events: tuple[AccountEvent, ...]
    anomalies: tuple[Anomaly, ...] = ()


Record: TypeAlias = (
    Begun
    | FeedAdded
    | Opened
    | Frame
    | RestBook
    | Tick
    | Sent
    | Lost
    | Ended
    | Subscribed
    | Unsubscribed
    | PollBegun
    | PollAnswer
    | PollFailed
    | TradesPage
    | PollComplete
    | Skipped
    | AccountTold
)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


class JournalWriter:
    """Appends records; a thread of its own writes and fsyncs them at intervals, so that no disk holds up the caller.

    While the disk refuses, records are kept in memory and tried again: see :attr:`error` and :attr:`full`.

    Args:
        folder: where the segments go; it must exist and have none.
        flush_s: seconds between two writes.
        segment_bytes, segment_s: a segment that is this large or this old is followed by another one.
        backlog_bytes: what may wait for the disk before the journal counts as full, and a quarter of it before it
            counts as pressed.
    """

    def __init__(
        self,
        folder: Path,
        flush_s: float = 0.1,
        *,
        segment_bytes: int = _SEGMENT_BYTES,
        segment_s: float = _SEGMENT_S,
        backlog_bytes: int = _BACKLOG_BYTES,
    ) -> None:
        self.error = ""
        """Why the last write failed, empty if it did not."""
        self._folder = folder
        self._flush_s = flush_s
        self._segment_bytes = segment_bytes
        self._segment_s = segment_s
        self._backlog_bytes = backlog_bytes
        self._buffer = bytearray()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._closed = threading.Event()
        self._number = -1
        self._fd: int | None = None
        self._size = 0
        self._began = 0.0
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    @property
    def full(self) -> bool:
        """Whether the disk refuses and the backlog has reached its limit: no more input should be taken."""
        return bool(self.error) and len(self._buffer) >= self._backlog_bytes

    @property
    def pressed(self) -> bool:
        """Whether the disk falls behind: what can be missed should be left out."""
        return len(self._buffer) >= self._backlog_bytes // 4

    def append(self, record: Record) -> None:
        """Add a record; it is durable within about ``flush_s``."""
        body = _encode(record)
        with self._lock:
            self._buffer += _FRAMING.pack(len(body), zlib.crc32(body))
            self._buffer += body

    def sync(self) -> None:
        """Write and fsync what there is now. Blocks; a failure is told by :attr:`error`."""
        with self._writing:
            with self._lock:
                data, self._buffer = self._buffer, bytearray()
            if not data:
                return
            try:
                self._write(data)
            except OSError as error:
                with self._lock:
                    self._buffer = data + self._buffer
                self.error = f"journal {self._folder}: {error.strerror or error}"
            else:
                self.error = ""

    def close(self) -> None:
        """Write the rest and end; blocks."""
        if not self._closed.is_set():
            self._closed.set()
            self._thread.join()
            self.sync()
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def _run(self) -> None:
        # What a write takes counts: otherwise a slow disk would be asked less often, and a kill cost more.
        pause = self._flush_s
        while not self._closed.wait(pause):
            began = time.monotonic()
            self.sync()
            pause = max(0.0, self._flush_s - (time.monotonic() - began))

    def _write(self, data: bytes | bytearray) -> None:
        if self._fd is None or self._size >= self._segment_bytes or time.monotonic() - self._began > self._segment_s:
            self._rotate()
        assert self._fd is not None
        try:
            _write_all(self._fd, data, self._size)
            os.fsync(self._fd)
        except OSError:
            # What a full disk took of it goes, so that the same bytes can follow at the same place.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)

    def _rotate(self) -> None:
        header = _HEADER.pack(_MAGIC, VERSION, 0, self._number + 1)
        header += zlib.crc32(header).to_bytes(4, "little")
        path = self._folder / f"{self._number + 1:06d}.seg"
        # Without its header a segment is not there for a reader: it is renamed into place once it has one.
        scratch = path.with_suffix(".new")
        fd = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(fd, header, 0)
            os.fsync(fd)
            scratch.rename(path)
            _fsync_folder(self._folder)
        except OSError:
            os.close(fd)
            raise
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._size, self._began = fd, len(header), time.monotonic()
        self._number += 1


class JournalReader:
    """Reads a journal, also one that is still being written.

    Attributes:
        records: number of records read.
    """

    def __init__(self, folder: Path) -> None:
        self.records = 0
        self._folder = folder
        self._number = 0
        self._offset = 0
        """How far the segment has been read; 0 before its header."""

    def read(self) -> list[Record]:
        """Some of the records that follow, in order; none if there is no further whole one (yet).

        Raises:
            JournalError: if a segment is of a newer version, or no journal at all.
        """
        while True:
            followed = self._path(self._number + 1).exists()
            if found := self._read_segment():
                self.records += len(found)
                return found
            # A writer finishes a segment before it begins the next one: only then is this one's end known.
            if not followed or not self._at_end():
                return []
            self._number, self._offset = self._number + 1, 0

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.seg"

    def _at_end(self) -> bool:
        return self._offset > 0 and self._path(self._number).stat().st_size == self._offset

    def _read_segment(self) -> list[Record]:
        path = self._path(self._number)
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return []
        with file:
            if not self._offset and not self._header(path, file.read(_HEADER.size + 4)):
                return []
            file.seek(self._offset)
            data = file.read(_READ_BYTES)
            if len(data) >= _FRAMING.size:
                length = _FRAMING.size + min(_FRAMING.unpack_from(data)[0], _MAX_BODY)
                if length > len(data):
                    data += file.read(length - len(data))
        found, used = _records(data)
        self._offset += used
        return found

    def _header(self, path: Path, data: bytes) -> bool:
        if len(data) < _HEADER.size + 4:
            return False
        magic, version, _, number = _HEADER.unpack_from(data)
        if magic != _MAGIC or zlib.crc32(data[: _HEADER.size]).to_bytes(4, "little") != data[_HEADER.size :]:
            raise JournalError(f"{path} is no journal segment, or its header is damaged; move it away")
        if version > VERSION:
            raise JournalError(
                f"{path} has journal version {version}, this package reads up to {VERSION}; "
                "install a newer arb_pipeline"
            )
        if number != self._number:
            raise JournalError(f"{path} says that it is segment {number}; restore its name")
        self._offset = len(data)
        return True


def _records(data: bytes) -> tuple[list[Record], int]:
    """The whole records that data begins with, and their length."""
    found: list[Record] = []
    at = 0
    while at + _FRAMING.size <= len(data):
        length, checksum = _FRAMING.unpack_from(data, at)
        start = at + _FRAMING.size
        body = data[start : start + length]
        # A length of zero is what a file that was extended, but not filled, holds.
        if not length or len(body) < length or zlib.crc32(body) != checksum:
            break
        found.append(_decode(body))
        at = start + length
    return found, at


def _write_all(fd: int, data: bytes | bytearray, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _fsync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# --- folders -----------------------------------------------------------------------------------------------


def journal_root(journal: Path | None, lake_root: str) -> Path:
    """The folder of a lake's journals.

    Args:
        journal: the folder that the settings name; None: ``journal`` beside a local lake, else the user's state folder.
        lake_root: the lake; each has a folder of its own inside.
    """
    local = "://" not in lake_root
    if journal is None:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        journal = Path(lake_root).parent / "journal" if local else state / "arb_pipeline" / "journal"
    return journal.expanduser().resolve() / f"{slug(lake_root.rstrip('/'))[-40:]}-{zlib.crc32(lake_root.encode()):08x}"


def slug(name: str) -> str:
    """A name with nothing in it that a path may not have."""
    return _NOT_A_NAME.sub("-", name).strip("-.")


def try_lock(path: Path) -> int | None:
    """Lock a file: the descriptor that holds the lock until it is closed.

    None if another process has it, or its folder is gone. The kernel frees the lock when its holder dies.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[bool]:
    """Try to hold the lock of a file for the context; whether it is held."""
    fd = try_lock(path)
    try:
        yield fd is not None
    finally:
        if fd is not None:
            os.close(fd)


class RunFolder:
    """The folder of one run's journal, and who still needs it.

    Whoever writes it holds ``run.lock``, whoever reads it for the lake ``encoder.lock``, for Postgres ``loader.lock``.
    A reader that has committed all rows leaves ``encoder.done`` or ``loader.done``; the journal goes once every reader
    that is wanted has. The loader is wanted where there is a file ``loader.wanted``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def run_lock(self) -> Path:
        """Held while the run lives."""
        return self.path / "run.lock"

    @property
    def encoder_lock(self) -> Path:
        """Held while a process turns the journal into rows; it is there once one has begun to."""
        return self.path / "encoder.lock"

    @property
    def loader_lock(self) -> Path:
        """Held while a process loads the journal into Postgres."""
        return self.path / "loader.lock"

    @property
    def is_dead(self) -> bool:
        """Whether the run is over; nobody who asks at the same time is held up."""
        with file_lock(self.run_lock) as held:
            return held

    @property
    def awaits_loader(self) -> bool:
        """Whether Postgres wants rows of the journal that are not known to be there."""
        return (self.path / _LOADER_WANTED).exists() and self.told("loader") is None

    @classmethod
    def all(cls, root: Path) -> list[Self]:
        """Every run's folder below a root."""
        if not root.is_dir():
            return []
        for committed in root.glob(f".*{_COMMITTED}"):
            shutil.rmtree(committed, ignore_errors=True)
        folders = [path for path in root.iterdir() if path.name[0] != "." and (path / "run.lock").exists()]
        return [cls(path) for path in sorted(folders)]

    @contextlib.contextmanager
    def created(self, *, loaded: bool = False) -> Iterator[None]:
        """Make the folder; its run lock is held for the context, and from the moment at which others can see it.

        Args:
            loaded: whether the rows go into Postgres, too.
        """
        scratch = self.path.with_name(f".{self.path.name}.new")
        scratch.mkdir(parents=True)
        if loaded:
            (scratch / _LOADER_WANTED).touch()
        with file_lock(scratch / self.run_lock.name):
            scratch.rename(self.path)
            yield

    def begun(self) -> Begun | None:
        """What the journal begins with, None if nothing was written."""
        first = next(iter(JournalReader(self.path).read()), None)
        return first if isinstance(first, Begun) else None

    def until(self, until_ns: int) -> int:
        """When capture began again after a run that died: the time given by whoever asks first, for all readers."""
        path = self.path / "died"
        scratch = self.path / f"died.{os.getpid()}"
        scratch.write_text(str(until_ns))
        with contextlib.suppress(FileExistsError):
            os.link(scratch, path)
        scratch.unlink()
        return int(path.read_text())

    @property
    def is_succeeded(self) -> bool:
        """Whether it is known when capture began again after a run that died."""
        return (self.path / "died").exists()

    def told(self, reader: Reader) -> bytes | None:
        """What a reader that committed all rows left; None if it has not."""
        try:
            return (self.path / f"{reader}.done").read_bytes()
        except FileNotFoundError:
            return None

    def finish(self, reader: Reader, note: bytes = b"") -> None:
        """A reader has committed all rows.

        Args:
            note: what it has to say of it.
        """
        path = self.path / f"{reader}.done"
        scratch = path.with_suffix(f".{os.getpid()}")
        scratch.write_bytes(note)
        scratch.rename(path)

    def forgo_loader(self) -> None:
        """Postgres does not want the rows any more."""
        (self.path / _LOADER_WANTED).unlink(missing_ok=True)

    def release(self) -> bool:
        """Delete the journal if nobody needs it any more; whether it is gone."""
        if self.path.is_dir() and (self.told("encoder") is None or self.awaits_loader):
            return False
        # Of two readers that finish at once both may get here.
        with contextlib.suppress(FileNotFoundError):
            self.remove()
        return True

    def remove(self) -> None:
        """Delete the journal."""
        # All at once: half a journal that is left by a kill would be taken for a whole one.
        committed = self.path.with_name(f".{self.path.name}{_COMMITTED}")
        self.path.rename(committed)
        shutil.rmtree(committed, ignore_errors=True)
