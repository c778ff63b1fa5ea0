"""The lake: every table as Parquet files below one root, a local folder or any fsspec URL.

``<root>/<table>/venue=<v>/date=<d>/hour=<h>/`` holds part files while a partition is being written and one sorted
file after compaction. ``_manifest.json`` beside them names the files that count: a file that it does not list does
not exist for a reader, so nobody sees half a file, and a swap of the manifest is the commit. On a local disk every
file arrives by write, fsync and atomic rename, and writers of one partition take turns by a lock on its folder; an
object store has no such lock, so there a partition has one writer at a time.

The same rows give the same bytes: file names are digests of the content, and neither wall time nor the path of the
lake is written down.
"""

import fcntl
import hashlib
import io
import os
import posixpath
import re
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias

import fsspec
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from arb_pipeline.clock import datetime_from_ns, ns_from_datetime
from arb_pipeline.errors import ArbError
from arb_pipeline.model import Source
from arb_pipeline.storage.arrow import Ints, repeated, sort_table
from arb_pipeline.tables import SCHEMA_VERSION, Partitioning, Table
from arb_pipeline.tables import table as declared

if TYPE_CHECKING:
    from pyarrow.dataset import Dataset

__all__ = ["Compaction", "FileEntry", "Instant", "Lake", "LakeError", "LakeFile", "Manifest", "Partition"]

MANIFEST = "_manifest.json"
ROW_GROUP = 131_072
HOUR_NS = 3_600_000_000_000

Instant: TypeAlias = datetime | int
"""An aware datetime, or nanoseconds since the epoch."""

TableName: TypeAlias = Table | str
Day: TypeAlias = date

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")
_VENUE = re.compile(r"[a-z][a-z0-9_]{0,31}\Z")
_LEVEL = re.compile(r"(venue|date|hour)=([^/=]+)\Z")
_MARKET_COLUMNS = ("market_id", "kalshi_market_id", "polymarket_market_id")
# A row's time, and for rows that last, the column that ends them.
_TIMES = (
    ("recv_ns", None),
    ("from_ns", "to_ns"),
    ("started_at", "ended_at"),
    ("opened_at", None),
    ("begin_at", None),
    ("valid_from", "valid_to"),
)
# How a row reached us, and in what words: two receptions of the same fact may differ in these.
_RECEPTION = frozenset({"recv_ns", "ordinal", "venue_ns", "seq", "connection_id", "source", "raw"})
# Rising integers compress to their differences; other integers, prices and sizes repeat and are better listed once.
_RISING = ("recv_ns", "ordinal", "venue_ns", "seq", "epoch", "from_ns", "to_ns")
_LONG_TEXT = frozenset({"frame", "raw", "rules", "kalshi_rules", "polymarket_rules", "explanation", "trade_id"})
_READ_TRIES = 5


class LakeError(ArbError):
    """A lake that cannot be read, or rows that do not belong where they are written; the message says which."""


@dataclass(frozen=True, slots=True)
class Partition:
    """One folder of a table's files: some of venue, UTC date and hour, as the table's partitioning asks for."""

    venue: str | None = None
    date: Day | None = None
    hour: int | None = None

    def __post_init__(self) -> None:
        if self.venue is not None and not _VENUE.match(self.venue):
            raise LakeError(f"venue {self.venue!r} is no partition name; expected lower-case letters, digits and _")
        if self.hour is not None and (self.date is None or not 0 <= self.hour <= 23):
            raise LakeError(f"hour {self.hour!r} of date {self.date!r} is no partition; expected 0..23 of a date")

    @classmethod
    def of(cls, table: TableName, venue: str | None, at: Instant) -> Self:
        """The partition of a table that an instant falls into; the venue is ignored where it is no level."""
        table = _table(table)
        when = datetime_from_ns(_ns(at))
        return cls(
            venue if table.by_venue and table.partitioning is not Partitioning.CURRENT else None,
            None if table.partitioning is Partitioning.CURRENT else when.date(),
            when.hour if table.partitioning is Partitioning.HOUR else None,
        )

    @classmethod
    def parse(cls, path: str) -> Self:
        """The partition that a relative path such as ``venue=kalshi/date=2026-05-13/hour=20`` names.

        Raises:
            LakeError: if the path is not one that :attr:`path` gives.
        """
        levels: dict[str, str] = {}
        for part in filter(None, path.split("/")):
            if not (match := _LEVEL.match(part)):
                raise LakeError(f"{path!r} is no partition; expected venue=, date= and hour= levels")
            levels[match[1]] = match[2]
        try:
            day = date.fromisoformat(levels["date"]) if "date" in levels else None
            parsed = cls(levels.get("venue"), day, int(levels["hour"]) if "hour" in levels else None)
        except ValueError as error:
            raise LakeError(f"{path!r} is no partition: {error}") from error
        if parsed.path != path:
            raise LakeError(f"{path!r} is no partition; the same one is written {parsed.path!r}")
        return parsed

    @property
    def path(self) -> str:
        """Relative path, empty for the single partition of a current-state table."""
        levels = []
        if self.venue is not None:
            levels.append(f"venue={self.venue}")
        if self.date is not None:
            levels.append(f"date={self.date.isoformat()}")
        if self.hour is not None:
            levels.append(f"hour={self.hour:02d}")
        return "/".join(levels)

    @property
    def bounds(self) -> tuple[int, int] | None:
        """First nanosecond inside and first one after; None where there is no date."""
        if self.date is None:
            return None
        start = ns_from_datetime(datetime(self.date.year, self.date.month, self.date.day, self.hour or 0, tzinfo=UTC))
        return start, start + (24 if self.hour is None else 1) * HOUR_NS

    @property
    def order(self) -> tuple[str, str, int]:
        """What partitions are listed by."""
        return self.venue or "", self.date.isoformat() if self.date else "", -1 if self.hour is None else self.hour


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One file that counts.

    Attributes:
        writer: who wrote a part; empty for a compacted file.
        min_ns, max_ns: times of the rows inside; ``max_ns`` is None also while a row lasts.
        exchange: name of the local exchange that the rows came from, empty for the real venues.
    """

    name: str
    rows: int
    bytes: int
    sha256: str
    schema_version: int
    min_ns: int | None = None
    max_ns: int | None = None
    writer: str = ""
    exchange: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The files of one partition."""

    table: str
    partition: str
    files: tuple[FileEntry, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of the partition, repeats in parts counted as often as they stand there."""
        return sum(file.rows for file in self.files)


@dataclass(frozen=True, slots=True)
class LakeFile:
    """A file that counts, with its partition and its address (a path, or a URL)."""

    partition: Partition
    path: str
    entry: FileEntry


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction found.

    Attributes:
        rows: rows of the partition now. dropped: repeats of a row that were left out.
        conflicts: rows kept although another one of different content has their key.
    """

    rows: int
    dropped: int = 0
    conflicts: int = 0


class Lake:
    """Tables below one root.

    Attributes:
        root: a folder or an fsspec URL.
        exchange_name: name of the local exchange that rows written here come from, empty for the real venues. It
            stands in every file, and rows of different origin never share a partition.
    """

    def __init__(self, root: str, exchange_name: str = "") -> None:
        self.root = root
        self.exchange_name = exchange_name
        filesystem, path = fsspec.core.url_to_fs(root)
        self._fs: fsspec.AbstractFileSystem = filesystem
        self._path: str = path.rstrip("/")
        self.is_local = isinstance(filesystem, LocalFileSystem)

    def __repr__(self) -> str:
        return f"Lake({self.root!r}, {self.exchange_name!r})"

    @property
    def filesystem(self) -> fsspec.AbstractFileSystem:
        """The fsspec filesystem that the lake lives on."""
        return self._fs

    def with_exchange(self, exchange_name: str) -> "Lake":
        """The same lake, written to with rows of another origin."""
        return Lake(self.root, exchange_name)

    # --- writing ------------------------------------------------------------------------------------------

    def write_part(self, table: TableName, partition: Partition, rows: pa.Table, writer: str) -> FileEntry | None:
        """Add rows to a partition as a file of their own; None (and no file) if there are none.

        ``writer`` (letters, digits, ``_.-``) stands in the file's name, so that two writers never overwrite each
        other; the same rows by the same writer are one file.

        Raises:
            LakeError: if the rows do not fit the table or the partition, or the partition holds data of another
                exchange.
        """
        table = self._check(table, partition)
        if not _WORD.match(writer):
            raise LakeError(f"writer {writer!r} is no file name; expected letters, digits, '_', '.' and '-'")
        if not rows.num_rows:
            return None
        rows = sort_table(self._conform(table, partition, rows), _order(table))
        entry, data = self._encode(table, rows, f"part-{writer}", writer)
        with self._locked(table, partition):
            manifest = self._manifest(table, partition)
            self._same_origin(table, partition, manifest)
            self._put(self._at(table, partition, entry.name), data)
            kept = [file for file in manifest.files if file.name != entry.name]
            self._commit(table, partition, [*kept, entry])
        return entry

    def compact(self, table: TableName, partition: Partition) -> Compaction:
        """Merge a partition's files into one, sorted, without repeats, and delete what it replaces.

        A row whose key is there already is left out if both say the same (for keys without ``ordinal``, such as a
        trade's, however they were received; the earliest stays, pushed before polled). Otherwise both are kept and
        counted.
        """
        table = self._check(table, partition)
        with self._locked(table, partition, create=False) as exists:
            manifest = self._manifest(table, partition)
            if not exists or not any(file.writer for file in manifest.files):
                return Compaction(manifest.rows)
            self._same_origin(table, partition, manifest)
            rows, dropped, conflicts = _unique(table, self._load(table, partition, manifest))
            self._publish(table, partition, rows)
            return Compaction(rows.num_rows, dropped, conflicts)

    def replace(self, table: TableName, partition: Partition, rows: pa.Table) -> Manifest:
        """Make these rows the whole content of a partition. No rows are an empty partition, which is listed too.

        Raises:
            LakeError: if the rows do not fit the table or the partition, or two of them share a key.
        """
        table = self._check(table, partition)
        rows = sort_table(self._conform(table, partition, rows), _order(table))
        later, first = repeated(rows, table.key)
        if len(later):
            values = {name: rows[name][int(first[0])].as_py() for name in table.key}
            raise LakeError(f"{table.name}: {len(later)} rows repeat the key of another one, the first is {values}")
        with self._locked(table, partition):
            return self._publish(table, partition, rows)

    def replace_where(
        self, table: TableName, partition: Partition, rows: pa.Table, column: str, values: Collection[str]
    ) -> Compaction:
        """Make these rows everything that the partition holds where ``column`` has one of ``values``.

        The rest stays, and the partition is compacted on the way. Nothing happens if there is nothing to write and
        nothing to replace.
        """
        table = self._check(table, partition)
        rows = self._conform(table, partition, rows)
        with self._locked(table, partition, create=rows.num_rows > 0) as exists:
            if not exists:
                return Compaction(0)
            manifest = self._manifest(table, partition)
            if manifest.files:
                self._same_origin(table, partition, manifest)
                kept = self._load(table, partition, manifest)
                others = pc.invert(pc.is_in(kept[column], pa.array(sorted(values), pa.string())))
                rows = pa.concat_tables([kept.filter(others), rows])
            rows, dropped, conflicts = _unique(table, sort_table(rows, _order(table)))
            self._publish(table, partition, rows)
            return Compaction(rows.num_rows, dropped, conflicts)

    def update(self, table: TableName, partition: Partition, change: Callable[[pa.Table], pa.Table]) -> Compaction:
        """Make what ``change`` gives for a partition's rows its whole content, compacted, under the partition's lock.

        Nothing is written if there was nothing and there is nothing to write.

        Raises:
            LakeError: as :meth:`write_part`; the partition is left as it was.
        """
        table = self._check(table, partition)
        with self._locked(table, partition):
            manifest = self._manifest(table, partition)
            self._same_origin(table, partition, manifest)
            held = self._load(table, partition, manifest)
            rows = self._conform(table, partition, change(held))
            rows, dropped, conflicts = _unique(table, sort_table(rows, _order(table)))
            if rows.num_rows or manifest.files:
                self._publish(table, partition, rows)
            return Compaction(rows.num_rows, dropped, conflicts)

    # --- reading ------------------------------------------------------------------------------------------

    def read(
        self,
        table: TableName,
        start: Instant | None = None,
        end: Instant | None = None,
        venue: str | None = None,
        *,
        markets: Collection[str] | None = None,
        columns: Sequence[str] | None = None,
        source: Source | None = None,
    ) -> pa.Table:
        """Rows of [start, end), in the table's order.

        Rows count by ``recv_ns`` (opportunities by ``opened_at``); gaps, capture sessions, matches and states of
        markets last, and count if they overlap; rows of other tables count by their partition's day. An empty result
        has the schema. ``markets`` keeps rows that name one of these market ids, ``source`` those that were pushed
        (ws) or polled (rest).
        """
        table = _table(table)
        tests = _time_tests(table, start, end)
        if source is not None:
            tests.append(pc.field("source") == source)
        if venue is not None and "venue" in table.column_names:
            tests.append(pc.field("venue") == venue)
        if markets is not None:
            ids = pa.array(sorted(markets), pa.string())
            named = [pc.field(name).isin(ids) for name in _MARKET_COLUMNS if name in table.column_names]
            tests.append(_any(named))
        return self._scan(table, lambda: self.files(table, start, end, venue), tests, columns)

    def current(self, table: TableName, venue: str | None = None) -> pa.Table:
        """The newest snapshot: of a table by date, each venue's newest day; otherwise everything."""
        table = _table(table)
        return self._scan(table, lambda: self.current_files(table, venue), [], None)

    def files(
        self,
        table: TableName,
        start: Instant | None = None,
        end: Instant | None = None,
        venue: str | None = None,
    ) -> list[LakeFile]:
        """Files that may hold rows of [start, end), in the order of partitions; no other file counts."""
        table = _table(table)
        lower = -(2**63) if start is None else _ns(start)
        upper = 2**63 - 1 if end is None else _ns(end)
        lasting = _lasts(table)
        chosen = []
        for partition in self.partitions(table, venue):
            bounds = partition.bounds
            if bounds and (bounds[0] >= upper or (bounds[1] <= lower and not lasting)):
                continue
            for entry in self._manifest(table, partition).files:
                ended = entry.max_ns is not None and entry.max_ns < lower
                begins_later = entry.min_ns is not None and entry.min_ns >= upper
                if not ended and not begins_later:
                    chosen.append(LakeFile(partition, self._address(table, partition, entry.name), entry))
        return chosen

    def current_files(self, table: TableName, venue: str | None = None) -> list[LakeFile]:
        """Files of :meth:`current`."""
        table = _table(table)
        newest: dict[str | None, Partition] = {}
        for partition in self.partitions(table, venue):
            newest[partition.venue] = partition
        return [
            LakeFile(partition, self._address(table, partition, entry.name), entry)
            for partition in newest.values()
            for entry in self._manifest(table, partition).files
        ]

    def partitions(self, table: TableName, venue: str | None = None) -> list[Partition]:
        """Partitions that have been written, by venue and time; also those that were found to be empty."""
        table = _table(table)
        base = posixpath.join(self._path, table.name)
        pattern = posixpath.join(base, *(f"{level}=*" for level in _levels(table)), MANIFEST)
        self._fs.invalidate_cache(base)
        found = []
        for path in self._fs.glob(pattern):
            relative = posixpath.relpath(posixpath.dirname(path), base)
            found.append(Partition.parse("" if relative == "." else relative))
        return sorted((p for p in found if venue is None or p.venue in (None, venue)), key=lambda p: p.order)

    def manifest(self, table: TableName, partition: Partition) -> Manifest:
        """The manifest of a partition, without files if it was never written.

        Raises:
            LakeError: if the manifest is damaged or of a newer schema version than this package knows.
        """
        return self._manifest(self._check(table, partition), partition)

    # --- inside -------------------------------------------------------------------------------------------

    def _check(self, table: TableName, partition: Partition) -> Table:
        table = _table(table)
        given = tuple(name for name in ("venue", "date", "hour") if getattr(partition, name) is not None)
        if given != _levels(table):
            raise LakeError(
                f"{table.name} is partitioned by {_levels(table) or 'nothing'}, not by {given or 'nothing'}"
            )
        return table

    def _conform(self, table: Table, partition: Partition, rows: pa.Table) -> pa.Table:
        """The rows with the declared schema, known to belong to the partition."""
        names = set(rows.column_names)
        if names != set(table.column_names):
            missing, extra = set(table.column_names) - names, names - set(table.column_names)
            raise LakeError(f"{table.name}: missing columns {sorted(missing)}, unknown columns {sorted(extra)}")
        for column in table.columns:
            if not column.nullable and rows[column.name].null_count:
                raise LakeError(f"{table.name}.{column.name} is null in {rows[column.name].null_count} rows")
        try:
            rows = rows.select(list(table.column_names)).cast(table.schema)
        # The third is Arrow's word for a cast between two types that it knows none for.
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError) as error:
            raise LakeError(f"{table.name}: rows do not have the declared types: {error}") from error
        if partition.venue is not None and pc.unique(rows["venue"]).to_pylist() not in ([], [partition.venue]):
            raise LakeError(f"{table.name}: rows of {pc.unique(rows['venue']).to_pylist()} in {partition.path}")
        if (bounds := partition.bounds) and rows.num_rows and (times := _times(table)):
            low, high = _span(rows[times[0]])
            if low < bounds[0] or high >= bounds[1]:
                raise LakeError(f"{table.name}.{times[0]} runs from {low} to {high} ns, beyond {partition.path}")
        return rows

    def _encode(self, table: Table, rows: pa.Table, stem: str, writer: str) -> tuple[FileEntry, bytes]:
        data = _parquet(table, rows, self.exchange_name)
        digest = hashlib.sha256(data).hexdigest()
        low, high = _extent(table, rows)
        entry = FileEntry(
            name=f"{stem}-{digest[:12]}.parquet",
            rows=rows.num_rows,
            bytes=len(data),
            sha256=digest,
            schema_version=SCHEMA_VERSION,
            min_ns=low,
            max_ns=high,
            writer=writer,
            exchange=self.exchange_name,
        )
        return entry, data

    def _publish(self, table: Table, partition: Partition, rows: pa.Table) -> Manifest:
        """Make sorted rows the only file of a partition, under its lock."""
        entries = []
        if rows.num_rows:
            entry, data = self._encode(table, rows, "data", "")
            entries.append(entry)
            self._put(self._at(table, partition, entry.name), data)
        manifest = self._commit(table, partition, entries)
        # Under the lock nobody else writes here, so what the manifest does not list is superseded or a torn write.
        keep = {MANIFEST, *(entry.name for entry in entries)}
        folder = self._at(table, partition)
        self._fs.invalidate_cache(folder)
        for path in self._fs.ls(folder, detail=False):
            if posixpath.basename(path.rstrip("/")) not in keep and not self._fs.isdir(path):
                self._fs.rm_file(path)
        return manifest

    def _commit(self, table: Table, partition: Partition, entries: Sequence[FileEntry]) -> Manifest:
        manifest = Manifest(
            table=table.name, partition=partition.path, files=tuple(sorted(entries, key=lambda entry: entry.name))
        )
        self._put(self._at(table, partition, MANIFEST), msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
        return manifest

    def _manifest(self, table: Table, partition: Partition) -> Manifest:
        path = self._at(table, partition, MANIFEST)
        try:
            manifest = msgspec.json.decode(self._fs.cat_file(path), type=Manifest)
        except FileNotFoundError:
            return Manifest(table=table.name, partition=partition.path)
        except msgspec.DecodeError as error:
            raise LakeError(f"{path} is no manifest: {error}; restore it, or delete the partition") from error
        for entry in manifest.files:
            if entry.schema_version > SCHEMA_VERSION:
                raise LakeError(
                    f"{path}: {entry.name} has schema version {entry.schema_version}, this package knows "
                    f"{SCHEMA_VERSION}; install a newer arb_pipeline"
                )
        return manifest

    def _same_origin(self, table: Table, partition: Partition, manifest: Manifest) -> None:
        for entry in manifest.files:
            if entry.exchange != self.exchange_name:
                raise LakeError(
                    f"{table.name}/{partition.path} holds data of {entry.exchange or 'the real venues'}, these rows "
                    f"come from {self.exchange_name or 'the real venues'}; give each its own lake (ARB_LAKE)"
                )

    def _dataset(self, table: Table, paths: Sequence[str]) -> "Dataset":
        # It loads pandas, which takes a process that only writes a second that it can do without.
        import pyarrow.dataset as ds  # noqa: PLC0415

        return ds.dataset(paths, schema=table.schema, format="parquet", filesystem=self._fs)

    def _load(self, table: Table, partition: Partition, manifest: Manifest) -> pa.Table:
        paths = [self._at(table, partition, entry.name) for entry in manifest.files]
        if not paths:
            return table.schema.empty_table()
        rows = self._dataset(table, paths).to_table()
        return sort_table(rows, _order(table))

    def _scan(
        self,
        table: Table,
        listing: Callable[[], list[LakeFile]],
        tests: list[pc.Expression],
        columns: Sequence[str] | None,
    ) -> pa.Table:
        names = list(table.column_names if columns is None else columns)
        if unknown := set(names) - set(table.column_names):
            raise LakeError(f"{table.name} has no columns {sorted(unknown)}; it has {', '.join(table.column_names)}")
        order = _order(table)
        wanted = names + [name for name in order if name not in names]
        for attempt in range(_READ_TRIES):
            files = listing()
            if not files:
                return pa.schema([table.schema.field(name) for name in names]).empty_table()
            paths = [self._fs._strip_protocol(file.path) for file in files]  # noqa: SLF001 - fsspec's documented hook
            try:
                rows = self._dataset(table, paths).to_table(columns=wanted, filter=_all(tests))
            except FileNotFoundError:
                # A compaction replaced the files between the listing and the read: the next manifest knows.
                if attempt == _READ_TRIES - 1:
                    raise
                continue
            return (rows if len(files) == 1 else sort_table(rows, order)).select(names)
        raise AssertionError("unreachable: the last try returns or raises")

    def _at(self, table: Table, partition: Partition, name: str = "") -> str:
        return posixpath.join(*filter(None, (self._path, table.name, partition.path, name)))

    def _address(self, table: Table, partition: Partition, name: str) -> str:
        path = self._at(table, partition, name)
        return path if self.is_local else str(self._fs.unstrip_protocol(path))

    def _put(self, path: str, data: bytes) -> None:
        if not self.is_local:
            self._fs.pipe_file(path, data)
            return
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextmanager
    def _locked(self, table: Table, partition: Partition, *, create: bool = True) -> Iterator[bool]:
        """Hold the partition's lock; yields whether the partition exists (always, unless ``create`` is False)."""
        folder = self._at(table, partition)
        if not self.is_local:
            yield create or self._fs.exists(posixpath.join(folder, MANIFEST))
            return
        if create:
            Path(folder).mkdir(parents=True, exist_ok=True)
        elif not Path(folder).is_dir():
            yield False
            return
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield True
        finally:
            os.close(handle)


def _table(table: TableName) -> Table:
    return declared(table) if isinstance(table, str) else table


def _ns(at: Instant) -> int:
    return at if isinstance(at, int) else ns_from_datetime(at)


def _levels(table: Table) -> tuple[str, ...]:
    if table.partitioning is Partitioning.CURRENT:
        return ()
    venue = ("venue",) if table.by_venue else ()
    return (*venue, "date", "hour") if table.partitioning is Partitioning.HOUR else (*venue, "date")


def _order(table: Table) -> tuple[str, ...]:
    """Columns that put rows into one order whatever order they came in."""
    return (*table.sort, *(name for name in table.key if name not in table.sort))


def _times(table: Table) -> tuple[str, str | None] | None:
    return next((times for times in _TIMES if times[0] in table.column_names), None)


def _lasts(table: Table) -> bool:
    times = _times(table)
    return times is not None and times[1] is not None


def _as_ns(value: int | datetime) -> int:
    return value if isinstance(value, int) else ns_from_datetime(value)


def _span(column: pa.ChunkedArray) -> tuple[int, int]:
    both = pc.min_max(column).as_py()
    return _as_ns(both["min"]), _as_ns(both["max"])


def _extent(table: Table, rows: pa.Table) -> tuple[int | None, int | None]:
    """First and last time of the rows; the last is None without a time column and while a row lasts."""
    times = _times(table)
    if times is None or not rows.num_rows:
        return None, None
    begin, end = times
    low, high = _span(rows[begin])
    if end is None:
        return low, high
    return low, None if rows[end].null_count else _span(rows[end])[1]


def _time_tests(table: Table, start: Instant | None, end: Instant | None) -> list[pc.Expression]:
    times = _times(table)
    if times is None:
        return []
    begin, until = times
    tests = []
    if start is not None and until is None:
        tests.append(pc.field(begin) >= _scalar(table, begin, start))
    if start is not None and until is not None:
        tests.append(pc.field(until).is_null() | (pc.field(until) > _scalar(table, until, start)))
    if end is not None:
        tests.append(pc.field(begin) < _scalar(table, begin, end))
    return tests


def _scalar(table: Table, name: str, at: Instant) -> pa.Scalar:
    type_ = table.schema.field(name).type
    # Rounded up: a whole microsecond lies before an instant within it.
    return pa.scalar(-(-_ns(at) // 1_000), type_) if pa.types.is_timestamp(type_) else pa.scalar(_ns(at), type_)


def _all(tests: Sequence[pc.Expression]) -> pc.Expression | None:
    combined = None
    for test in tests:
        combined = test if combined is None else combined & test
    return combined


def _any(tests: Sequence[pc.Expression]) -> pc.Expression:
    combined = pc.scalar(value=False)
    for test in tests:
        combined = combined | test
    return combined


def _unique(table: Table, rows: pa.Table) -> tuple[pa.Table, int, int]:
    """Sorted rows without repeats, how many were dropped, and how many share a key but not the content."""
    later, first = _repeats(table, rows)
    if not len(later):
        return rows, 0, 0
    received = frozenset() if "ordinal" in table.key else _RECEPTION
    compared = [name for name in table.column_names if name not in received]
    same = np.array(
        [
            one == other
            for one, other in zip(
                rows.select(compared).take(later).to_pylist(),
                rows.select(compared).take(first).to_pylist(),
                strict=True,
            )
        ]
    )
    keep = np.ones(rows.num_rows, dtype=np.bool_)
    keep[later[same]] = False
    return rows.filter(pa.array(keep)), int(same.sum()), int((~same).sum())


def _repeats(table: Table, rows: pa.Table) -> tuple[Ints, Ints]:
    """As :func:`repeated`, but where a fact was both pushed and asked for, what was pushed counts as the first.

    A trade that was fetched later bears the time at which it was made, before anybody could receive it.
    """
    if "source" not in table.column_names or "ordinal" in table.key or "source" in table.key:
        return repeated(rows, table.key)
    asked = pc.equal(rows["source"], "rest").to_numpy()
    order = np.argsort(asked, kind="stable")
    later, first = repeated(rows.take(order), table.key)
    return order[later], order[first]


def _parquet(table: Table, rows: pa.Table, exchange: str) -> bytes:
    """The bytes of a Parquet file: a pure function of rows, table and exchange name."""
    schema = table.schema.with_metadata({**table.schema.metadata, b"arb.exchange": exchange.encode()})
    encodings = {name: "DELTA_BINARY_PACKED" for name in _RISING if name in table.column_names}
    plain = _LONG_TEXT | encodings.keys()
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level=3,
        use_dictionary=[name for name in table.column_names if name not in plain],
        column_encoding=encodings,
        write_statistics=[name for name in table.column_names if name not in _LONG_TEXT],
        store_decimal_as_integer=True,
        sorting_columns=pq.SortingColumn.from_ordering(schema, [(name, "ascending") for name in table.sort]),
    ) as writer:
        writer.write_table(rows.cast(schema), row_group_size=ROW_GROUP)
    return sink.getvalue()
