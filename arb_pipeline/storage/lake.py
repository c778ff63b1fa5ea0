"""The lake: every table as Parquet files below one root, a local folder or any fsspec URL.

``<root>/<table>/venue=<v>/date=<d>/hour=<h>/`` holds part files while a partition is being written and one sorted
file after compaction. ``_manifest.json`` beside them names the files that count: a file that it does not list does
not exist for a reader, so nobody sees half a file, and a swap of the manifest is the commit. How several writers
of one partition agree, on a disk and on an object store, is told in :mod:`arb_pipeline.storage.files`.

The same rows give the same bytes: file names are digests of the content, and neither wall time nor the path of the
lake is written down.
"""

import errno
import hashlib
import io
import posixpath
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Self, TypeAlias

import fsspec
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from arb_pipeline.clock import datetime_from_ns, ns_from_datetime
from arb_pipeline.errors import ArbError
from arb_pipeline.model import Source
from arb_pipeline.storage.arrow import Ints, repeated, sort_table
from arb_pipeline.storage.files import LOCK, Files, open_files
from arb_pipeline.tables import SCHEMA_VERSION, Partitioning, Table
from arb_pipeline.tables import table as declared

if TYPE_CHECKING:
    from pyarrow.dataset import Dataset

__all__ = [
    "Compaction",
    "FileEntry",
    "Instant",
    "Lake",
    "LakeError",
    "LakeFile",
    "Manifest",
    "NewerSchemaError",
    "Partition",
    "as_ns",
    "extent",
    "newest_listing",
    "row_order",
    "row_times",
]

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
_OURS = re.compile(r"(part|data)-.*\.parquet\Z|\..*\.tmp\Z")
_MARKET_COLUMNS = ("market_id", "kalshi_market_id", "polymarket_market_id")
# A row's time, and for rows that last, the column that ends them.
_TIMES = (
    ("recv_ns", None),
    ("from_ns", "to_ns"),
    ("started_at", "ended_at"),
    ("opened_at", None),
    ("opened_ns", None),
    ("begin_at", None),
    ("valid_from", "valid_to"),
)
# How a row reached us, and in what words: two receptions of the same fact may differ in these.
_RECEPTION = frozenset({"recv_ns", "ordinal", "venue_ns", "seq", "connection_id", "source", "raw"})
# Rising integers compress to their differences; other integers, prices and sizes repeat and are better listed once.
_RISING = ("recv_ns", "ordinal", "venue_ns", "seq", "epoch", "from_ns", "to_ns")
_LONG_TEXT = frozenset({"frame", "raw", "rules", "kalshi_rules", "polymarket_rules", "explanation", "trade_id"})
_FETCHED = "fetched_at"
_READ_TRIES = 5
_SWAP_TRIES = 40
_SWAP_WAIT_S = 0.2
_PIECE = 500_000
"""Rows that a merge holds at once, about: memory does not grow with the partition."""
_DIRECT_HOURS = 48
"""So many partitions are asked for by name, without a listing of which there are."""


class LakeError(ArbError):
    """A lake that cannot be read, or rows that do not belong where they are written; the message says which."""


class NewerSchemaError(LakeError):
    """A file of a newer schema version than this package knows."""


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
        when = datetime_from_ns(as_ns(at))
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
        self._files = open_files(root)
        self._path = self._files.root
        self.is_local = self._files.is_local

    def __repr__(self) -> str:
        return f"Lake({self.root!r}, {self.exchange_name!r})"

    @property
    def filesystem(self) -> fsspec.AbstractFileSystem:
        """The fsspec filesystem that the lake lives on."""
        return self._files.filesystem

    @property
    def store(self) -> Files:
        """The files below the root, as they are written and read."""
        return self._files

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
        rows = sort_table(self._conform(table, partition, rows), row_order(table))
        entry, data = self._encode(table, [rows], f"part-{writer}", writer)

        def add(manifest: Manifest, _exists: bool) -> Sequence[FileEntry]:
            self._same_origin(table, partition, manifest)
            return [*(file for file in manifest.files if file.name != entry.name), entry]

        with self._files.turn(self._at(table, partition)):
            self._revise(table, partition, add, {entry.name: data})
        return entry

    def compact(self, table: TableName, partition: Partition) -> Compaction:
        """Merge a partition's files into one, sorted, without repeats, and delete what it replaces.

        A row whose key is there already is left out if both say the same (for keys without ``ordinal``, such as a
        trade's, however they were received; the earliest stays, pushed before polled). Otherwise both are kept and
        counted. Parts that another writer adds meanwhile, where the store lets it, wait for the next compaction.
        In memory are about half a million rows, the merged file's bytes and, of tables whose key is ``ordinal``, the
        ordinals: 8 bytes a row, and as much again for a moment at the end.
        """
        table = self._check(table, partition)
        merged: _Merged | None = None

        def merge(manifest: Manifest, _exists: bool) -> Sequence[FileEntry] | None:
            nonlocal merged
            self._same_origin(table, partition, manifest)
            if merged is None or not merged.sources <= {file.name for file in manifest.files}:
                if not any(file.writer for file in manifest.files):
                    merged = None
                    return None
                merged = self._merge(table, partition, manifest)
            return [*merged.entries, *(file for file in manifest.files if file.name not in merged.sources)]

        with self._files.turn(self._at(table, partition), create=False) as there:
            if not there:
                return Compaction(0)
            manifest = self._revise(table, partition, merge)
        return Compaction(manifest.rows) if merged is None else merged.found

    def replace(self, table: TableName, partition: Partition, rows: pa.Table) -> Manifest:
        """Make these rows the whole content of a partition. No rows are an empty partition, which is listed too.

        Raises:
            LakeError: if the rows do not fit the table or the partition, or two of them share a key.
        """
        table = self._check(table, partition)
        rows = sort_table(self._conform(table, partition, rows), row_order(table))
        later, first = repeated(rows, table.key)
        if len(later):
            values = {name: rows[name][int(first[0])].as_py() for name in table.key}
            raise LakeError(f"{table.name}: {len(later)} rows repeat the key of another one, the first is {values}")
        entries, data = self._whole(table, rows)
        with self._files.turn(self._at(table, partition)):
            return self._revise(table, partition, lambda _manifest, _exists: entries, data)

    def replace_in_order(self, table: TableName, partition: Partition, pieces: Iterable[pa.Table]) -> Manifest:
        """As :meth:`replace`, of rows that come in pieces that are in the table's order, one after the other.

        In memory are one piece and the bytes of the file, and of tables whose key is ``ordinal`` all the ordinals. The
        file is that which :meth:`replace` would write.

        Raises:
            LakeError: if the rows do not fit the table or the partition, are out of order, or two of them share a key;
                the partition is left as it was. And of a table in whose order equal keys are no neighbours.
        """
        table = self._check(table, partition)
        if table.key != ("ordinal",) and not set(table.sort) <= set(table.key):
            raise LakeError(f"{table.name} is not in the order of its key: give all of its rows to replace() at once")
        ordered = _in_order(table, (self._conform(table, partition, piece) for piece in pieces))
        first = next(ordered, None)
        entries: Sequence[FileEntry] = ()
        data: dict[str, bytes] = {}
        if first is not None:
            entry, content = self._encode(table, _chained(first, ordered), "data", "")
            entries, data = (entry,), {entry.name: content}
        with self._files.turn(self._at(table, partition)):
            return self._revise(table, partition, lambda _manifest, _exists: entries, data)

    def replace_where(
        self, table: TableName, partition: Partition, rows: pa.Table, column: str, values: Collection[str]
    ) -> Compaction:
        """Make these rows everything that the partition holds where ``column`` has one of ``values``.

        The rest stays, and the partition is compacted on the way. Nothing happens if there is nothing to write and
        nothing to replace.
        """
        table = self._check(table, partition)
        rows = self._conform(table, partition, rows)
        others = pc.invert(pc.field(column).isin(pa.array(sorted(values), pa.string())))

        def join(manifest: Manifest) -> pa.Table:
            return pa.concat_tables([self._load(table, partition, manifest, others), rows])

        return self._rewrite(table, partition, join, create=rows.num_rows > 0)

    def update(self, table: TableName, partition: Partition, change: Callable[[pa.Table], pa.Table]) -> Compaction:
        """Make what ``change`` gives for a partition's rows its whole content, compacted.

        Where another writer came in between, ``change`` is asked again, with the rows as they are then. Nothing is
        written if there was nothing and there is nothing to write.

        Raises:
            LakeError: as :meth:`write_part`; the partition is left as it was.
        """
        table = self._check(table, partition)

        def apply(manifest: Manifest) -> pa.Table:
            return self._conform(table, partition, change(self._load(table, partition, manifest)))

        return self._rewrite(table, partition, apply, create=True)

    def drop(self, table: TableName, partition: Partition) -> Manifest:
        """Remove a partition; what it held.

        The manifest is emptied first and goes last, so that a reader sees all of the partition or none of it. Broken
        off, the next call ends it; files that it no longer knows of, on an object store, are orphans.
        """
        table = self._check(table, partition)
        held = Manifest(table=table.name, partition=partition.path)

        def empty(manifest: Manifest, exists: bool) -> Sequence[FileEntry] | None:
            nonlocal held
            if not exists:
                return None
            held = manifest if manifest.files else held
            return ()

        folder = self._at(table, partition)
        path = self._at(table, partition, MANIFEST)
        with self._files.turn(folder, create=False) as there:
            if there:
                self._revise(table, partition, empty)
                now = self._files.read_version(path)
                # What was added since, where the store lets others write now, stays.
                if now is not None and not _decode(path, now[0]).files:
                    self._files.delete_version(path, now[1])
                self._files.remove_empty(folder)
        return held

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
        """The newest snapshot: of a table by date, each venue's newest day; otherwise everything.

        Of a catalogue, the venue's newest listing of that day: what it no longer told is not current.
        """
        table = _table(table)
        rows = self._scan(table, lambda: self.current_files(table, venue), [], None)
        return newest_listing(rows) if _FETCHED in rows.column_names else rows

    def files(
        self,
        table: TableName,
        start: Instant | None = None,
        end: Instant | None = None,
        venue: str | None = None,
    ) -> list[LakeFile]:
        """Files that may hold rows of [start, end), in the order of partitions; no other file counts."""
        table = _table(table)
        lower = -(2**63) if start is None else as_ns(start)
        upper = 2**63 - 1 if end is None else as_ns(end)
        chosen = []
        for partition, manifest in self._manifests(table, self._candidates(table, venue, lower, upper)):
            for entry in manifest.files:
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
            for partition, manifest in self._manifests(table, newest.values())
            for entry in manifest.files
        ]

    def partitions(self, table: TableName, venue: str | None = None) -> list[Partition]:
        """Partitions that have been written, by venue and time; also those that were found to be empty."""
        table = _table(table)
        if self.is_local:
            return [
                partition
                for partition in self._candidates(table, venue, -(2**63), 2**63 - 1)
                if self._files.exists(self._at(table, partition, MANIFEST))
            ]
        # Of all partitions of an object store, one flat listing takes the fewest requests.
        base = posixpath.join(self._path, table.name)
        found = []
        for path in self._files.find(base if venue is None or not table.by_venue else f"{base}/venue={venue}"):
            folder, name = posixpath.split(path)
            if name == MANIFEST and folder.count("=") == self._path.count("=") + len(_levels(table)):
                found.append(Partition.parse(folder[len(base) + 1 :]))
        return sorted(found, key=lambda partition: partition.order)

    def manifest(self, table: TableName, partition: Partition) -> Manifest:
        """The manifest of a partition, without files if it was never written.

        Raises:
            LakeError: if the manifest is damaged or of a newer schema version than this package knows.
        """
        table = self._check(table, partition)
        return dict(self._manifests(table, [partition])).get(
            partition, Manifest(table=table.name, partition=partition.path)
        )

    def location(self, table: TableName, partition: Partition | None = None, name: str = "") -> str:
        """The filesystem's path of a table, of one of its partitions, or of a file in that."""
        return self._at(_table(table), Partition() if partition is None else partition, name)

    def expects(self, table: TableName, partition: Partition) -> None:
        """Make sure that the table is partitioned so.

        Raises:
            LakeError: if it is not.
        """
        self._check(table, partition)

    def delete_orphan(self, table: TableName, partition: Partition, name: str) -> bool:
        """Delete a file of ours that the partition's manifest does not list; whether that could be done."""
        table = self._check(table, partition)
        if not _OURS.match(name):
            return False
        with self._files.turn(self._at(table, partition), create=False) as there:
            if not there or name in {file.name for file in self._versioned(table, partition)[0].files}:
                return False
            self._files.delete([self._at(table, partition, name)])
        return True

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
        # pyarrow raises the third where it has no cast between two types at all, such as a list where a number belongs:
        # to whoever writes rows that is the same mistake as a value that does not fit. Its base class would do as well,
        # but it is also that of running out of memory, which must not be told as a mistake in the rows.
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError) as error:
            raise LakeError(f"{table.name}: rows do not have the declared types: {error}") from error
        if partition.venue is not None and pc.unique(rows["venue"]).to_pylist() not in ([], [partition.venue]):
            raise LakeError(f"{table.name}: rows of {pc.unique(rows['venue']).to_pylist()} in {partition.path}")
        if (bounds := partition.bounds) and rows.num_rows and (times := row_times(table)):
            low, high = _span(rows[times[0]])
            if low < bounds[0] or high >= bounds[1]:
                raise LakeError(f"{table.name}.{times[0]} runs from {low} to {high} ns, beyond {partition.path}")
        return rows

    def _encode(self, table: Table, pieces: Iterable[pa.Table], stem: str, writer: str) -> tuple[FileEntry, bytes]:
        """The file of sorted rows that come in pieces, none of them without rows."""
        extents = []

        def told() -> Iterator[pa.Table]:
            for piece in pieces:
                extents.append((piece.num_rows, *extent(table, piece)))
                yield piece

        data = _parquet(table, told(), self.exchange_name)
        digest = hashlib.sha256(data).hexdigest()
        lows = [low for _, low, _ in extents]
        highs = [high for _, _, high in extents]
        entry = FileEntry(
            name=f"{stem}-{digest[:12]}.parquet",
            rows=sum(rows for rows, _, _ in extents),
            bytes=len(data),
            sha256=digest,
            schema_version=SCHEMA_VERSION,
            min_ns=None if None in lows else min(low for low in lows if low is not None),
            max_ns=None if None in highs else max(high for high in highs if high is not None),
            writer=writer,
            exchange=self.exchange_name,
        )
        return entry, data

    def _whole(self, table: Table, rows: pa.Table) -> "tuple[Sequence[FileEntry], dict[str, bytes]]":
        """Sorted rows as the only file of a partition."""
        if not rows.num_rows:
            return (), {}
        entry, data = self._encode(table, [rows], "data", "")
        return (entry,), {entry.name: data}

    def _rewrite(
        self, table: Table, partition: Partition, make: Callable[[Manifest], pa.Table], *, create: bool
    ) -> Compaction:
        """Make what ``make`` gives for a manifest the whole content of a partition, compacted."""
        found = Compaction(0)

        def revise(manifest: Manifest, exists: bool) -> Sequence[FileEntry] | None:
            nonlocal found
            if not (exists or create):
                return None
            self._same_origin(table, partition, manifest)
            rows, dropped, conflicts = _unique(table, sort_table(make(manifest), row_order(table)))
            found = Compaction(rows.num_rows, dropped, conflicts)
            if not (rows.num_rows or exists):
                return None
            entries, data = self._whole(table, rows)
            self._put(table, partition, data)
            return entries

        with self._files.turn(self._at(table, partition), create=create) as there:
            if there:
                self._revise(table, partition, revise)
        return found

    def _merge(self, table: Table, partition: Partition, manifest: Manifest) -> "_Merged":
        """Write the file that takes the place of those of a manifest."""
        merged = _Merged(frozenset(file.name for file in manifest.files))
        paths = [self._at(table, partition, file.name) for file in manifest.files]
        with self._files.errors():
            tests = _pieces(table, paths, manifest.rows, self.filesystem)
            pieces = merged.take(table, (self._coded(table, paths, test) for test in tests))
            first = next(pieces, None)
            if first is not None:
                entry, data = self._encode(table, _chained(first, pieces), "data", "")
                self._put(table, partition, {entry.name: data})
                merged.entries = (entry,)
        return merged

    def _put(self, table: Table, partition: Partition, data: dict[str, bytes]) -> None:
        for name, content in data.items():
            self._files.write(self._at(table, partition, name), content)

    def _revise(
        self,
        table: Table,
        partition: Partition,
        revise: "Callable[[Manifest, bool], Sequence[FileEntry] | None]",
        data: dict[str, bytes] | None = None,
    ) -> Manifest:
        """Write ``data`` and commit what ``revise`` makes of a manifest, None being: leave it as it is.

        ``revise`` is told whether there is a manifest, and asked again if another writer came in between.

        Raises:
            OSError: if others keep changing the manifest.
        """
        path = self._at(table, partition, MANIFEST)
        for attempt in range(_SWAP_TRIES):
            manifest, version = self._versioned(table, partition)
            try:
                entries = revise(manifest, version is not None)
            except FileNotFoundError:
                # Another writer merged the files between the manifest and the read: the next one knows.
                if self._versioned(table, partition)[0] == manifest:
                    raise
                continue
            if entries is None:
                return manifest
            # Each time anew: what a file of this name superseded may just be being deleted.
            self._put(table, partition, data or {})
            revised = Manifest(
                table=table.name, partition=partition.path, files=tuple(sorted(entries, key=lambda entry: entry.name))
            )
            if self._files.swap(path, _encoded(revised), version):
                self._tidy(table, partition, manifest, revised)
                return revised
            time.sleep(random.uniform(0, _SWAP_WAIT_S * min(1, attempt / 8)))  # noqa: S311 - spreads retries only
        raise OSError(errno.EBUSY, f"other writers changed the manifest {_SWAP_TRIES} times in a row", path)

    def _tidy(self, table: Table, partition: Partition, before: Manifest, after: Manifest) -> None:
        """Delete what a commit superseded."""
        gone = {file.name for file in before.files} - {file.name for file in after.files}
        if not self._files.sweeps:
            if gone:
                # Another writer may have committed a file of the very same content since, which has the same name.
                gone -= {file.name for file in self._versioned(table, partition)[0].files}
        elif gone or not any(file.writer for file in after.files):
            # In its turn nobody else writes here: what the manifest does not list is superseded or a torn write.
            folder = self._at(table, partition)
            kept = {MANIFEST, LOCK, *(file.name for file in after.files)}
            gone = {name for name in self._files.names(folder) if name not in kept and "=" not in name}
        self._files.delete([self._at(table, partition, name) for name in sorted(gone)])

    def _versioned(self, table: Table, partition: Partition) -> tuple[Manifest, str | None]:
        """A partition's manifest, and what its next version has to replace; None if there is none."""
        path = self._at(table, partition, MANIFEST)
        read = self._files.read_version(path)
        if read is None:
            return Manifest(table=table.name, partition=partition.path), None
        return _decode(path, read[0]), read[1]

    def _manifests(self, table: Table, partitions: Iterable[Partition]) -> list[tuple[Partition, Manifest]]:
        """Those of the partitions that have a manifest, with it."""
        paths = {self._at(table, partition, MANIFEST): partition for partition in partitions}
        read = self._files.read_all(list(paths))
        return [(partition, _decode(path, read[path])) for path, partition in paths.items() if path in read]

    def _candidates(self, table: Table, venue: str | None, lower: int, upper: int) -> list[Partition]:
        """Partitions that may hold rows of [lower, upper), in order; some of them may have no manifest."""
        levels = _levels(table)
        if not levels:
            return [Partition()]
        venues: list[str | None] = [venue if table.by_venue else None]
        if table.by_venue and venue is None:
            venues = list(self._level(posixpath.join(self._path, table.name), "venue"))
        if _lasts(table):
            lower = -(2**63)
        found: list[Partition] = []
        for one in venues:
            direct = _between(table, one, lower, upper)
            found += self._walk(table, one, lower, upper) if direct is None else direct
        return found

    def _walk(self, table: Table, venue: str | None, lower: int, upper: int) -> Iterator[Partition]:
        """Partitions of a venue by listing days and then, of those in [lower, upper), hours."""
        base = posixpath.join(self._path, table.name, *([] if venue is None else [f"venue={venue}"]))
        for day in self._level(base, "date"):
            try:
                whole = Partition(venue, date.fromisoformat(day))
            except ValueError:
                continue
            if not _within(whole, lower, upper):
                continue
            if table.partitioning is not Partitioning.HOUR:
                yield whole
                continue
            for hour in self._level(posixpath.join(base, f"date={day}"), "hour"):
                if hour.isdecimal() and int(hour) < 24:
                    partition = Partition(venue, whole.date, int(hour))
                    if _within(partition, lower, upper):
                        yield partition

    def _level(self, folder: str, level: str) -> list[str]:
        """Values of a partition level below a folder, in order."""
        prefix = f"{level}="
        return [name[len(prefix) :] for name in self._files.names(folder) if name.startswith(prefix)]

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

        return ds.dataset(paths, schema=table.schema, format="parquet", filesystem=self.filesystem)

    def _load(
        self, table: Table, partition: Partition, manifest: Manifest, test: pc.Expression | None = None
    ) -> pa.Table:
        paths = [self._at(table, partition, entry.name) for entry in manifest.files]
        if not paths:
            return table.schema.empty_table()
        with self._files.errors():
            return self._rows(table, paths, test)

    def _rows(self, table: Table, paths: Sequence[str], test: pc.Expression | None) -> pa.Table:
        return sort_table(self._dataset(table, paths).to_table(filter=test), row_order(table))

    def _coded(self, table: Table, paths: Sequence[str], test: pc.Expression | None) -> pa.Table:
        """As :meth:`_rows`, with texts that repeat as indices into a dictionary, which takes a third of the memory."""
        import pyarrow.dataset as ds  # noqa: PLC0415 - as above

        coded = [
            column.name for column in table.columns if pa.types.is_string(column.type) and column.name not in _LONG_TEXT
        ]
        schema = pa.schema(
            [
                column.with_type(pa.dictionary(pa.int32(), pa.string())) if column.name in coded else column
                for column in table.schema
            ]
        )
        rows = ds.dataset(
            paths,
            schema=schema,
            format=ds.ParquetFileFormat(dictionary_columns=coded),
            filesystem=self.filesystem,
        ).to_table(filter=test, batch_readahead=2, fragment_readahead=2)
        return sort_table(rows.unify_dictionaries().combine_chunks(), row_order(table))

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
        order = row_order(table)
        wanted = names + [name for name in order if name not in names]
        for attempt in range(_READ_TRIES):
            files = listing()
            if not files:
                return pa.schema([table.schema.field(name) for name in names]).empty_table()
            paths = [self._at(table, file.partition, file.entry.name) for file in files]
            try:
                with self._files.errors():
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
        return path if self.is_local else str(self.filesystem.unstrip_protocol(path))


@dataclass(slots=True)
class _Merged:
    """A compaction's file, and what it is made of."""

    sources: frozenset[str]
    entries: Sequence[FileEntry] = ()
    found: Compaction = field(default_factory=lambda: Compaction(0))

    def take(self, table: Table, pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The pieces without repeats, and of them only those with rows; counts what it leaves out."""
        total, dropped, conflicts = 0, 0, 0
        ordinals = []
        for piece in pieces:
            rows, left_out, doubled = _unique(table, piece)
            total, dropped, conflicts = total + rows.num_rows, dropped + left_out, conflicts + doubled
            self.found = Compaction(total, dropped, conflicts)
            if table.key == ("ordinal",):
                ordinals.append(rows["ordinal"].to_numpy())
            if rows.num_rows:
                yield rows
        if len(ordinals) > 1:
            # Rows of one ordinal that differ may lie in different pieces.
            every = np.concatenate(ordinals)
            every.sort()
            conflicts = int((every[1:] == every[:-1]).sum())
            self.found = Compaction(total, dropped, conflicts)


def _in_order(table: Table, pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Those of the pieces that have rows; raises where they are out of order or two rows share a key."""
    order = row_order(table)
    last: pa.Table | None = None
    ordinals: list[Ints] = []
    for piece in pieces:
        if not piece.num_rows:
            continue
        keys = piece.select(list(order))
        _require_rising(table, keys if last is None else pa.concat_tables([last, keys]))
        if table.key == ("ordinal",):
            ordinals.append(piece["ordinal"].to_numpy())
        yield piece
        last = keys.slice(keys.num_rows - 1)
    if ordinals and len(np.unique(every := np.concatenate(ordinals))) < len(every):
        raise LakeError(f"{table.name}: rows repeat the ordinal of another one; give each row its own")


def _require_rising(table: Table, rows: pa.Table) -> None:
    """Raise unless every row comes after the one before it; equal keys are neighbours where it does not."""
    tied = np.ones(rows.num_rows - 1, dtype=np.bool_)
    for name in row_order(table):
        column = rows[name].combine_chunks()
        falls = tied & pc.less(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
        if falls.any():
            raise LakeError(
                f"{table.name}: rows are not in the order of {', '.join(row_order(table))}; sort them first"
            )
        tied &= pc.equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    if tied.any():
        values = rows.slice(int(np.argmax(tied)), 1).to_pylist()[0]
        raise LakeError(f"{table.name}: {int(tied.sum())} rows repeat the key of another one, the first is {values}")


def _chained(first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from rest


def _encoded(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"


def _decode(path: str, data: bytes) -> Manifest:
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise LakeError(f"{path} is no manifest: {error}; restore it, or delete the partition") from error
    for entry in manifest.files:
        if entry.schema_version > SCHEMA_VERSION:
            raise NewerSchemaError(
                f"{path}: {entry.name} has schema version {entry.schema_version}, this package knows "
                f"{SCHEMA_VERSION}; install a newer arb_pipeline"
            )
    return manifest


def _pieces(
    table: Table, paths: Sequence[str], rows: int, filesystem: fsspec.AbstractFileSystem
) -> list[pc.Expression | None]:
    """Tests that cut files into pieces of about ``_PIECE`` rows, in the table's order; None is: all rows.

    No two pieces hold repeats of one row: cuts lie between values of the first sort column where the key names that,
    and for keys of ``ordinal`` alone, whose repeats are alike in every column, also between times of one value.
    """
    lead = table.sort[0]
    by_ordinal = table.key == ("ordinal",)
    if rows <= _PIECE or not (by_ordinal or lead in table.key):
        return [None]
    counts: Counter[object] = Counter()
    for path in paths:
        column = pq.read_table(path, columns=[lead], filesystem=filesystem)[lead]
        counts.update({one["values"]: one["counts"] for one in pc.value_counts(column).to_pylist()})
    tests: list[pc.Expression | None] = []
    group: list[object] = []
    size = 0
    for value in sorted(counts, key=lambda value: (str(type(value)), value)):
        if group and size + counts[value] > _PIECE:
            tests.append((pc.field(lead) >= group[0]) & (pc.field(lead) <= group[-1]))
            group, size = [], 0
        if by_ordinal and counts[value] > _PIECE:
            tests += _times_of(paths, lead, value, filesystem)
            continue
        group.append(value)
        size += counts[value]
    if group:
        tests.append((pc.field(lead) >= group[0]) & (pc.field(lead) <= group[-1]))
    return tests


def _times_of(
    paths: Sequence[str], lead: str, value: object, filesystem: fsspec.AbstractFileSystem
) -> list[pc.Expression]:
    """Tests that cut the rows of one value of the first sort column by their receive time."""
    chosen = [
        pq.read_table(path, columns=["recv_ns"], filters=pc.field(lead) == value, filesystem=filesystem)["recv_ns"]
        for path in paths
    ]
    times = np.sort(np.concatenate([column.to_numpy() for column in chosen]))
    cuts = np.unique(times[_PIECE::_PIECE]).tolist()
    is_value = pc.field(lead) == value
    bounds = [-(2**63), *cuts, None]
    return [
        is_value & (pc.field("recv_ns") >= begin)
        if end is None
        else is_value & (pc.field("recv_ns") >= begin) & (pc.field("recv_ns") < end)
        for begin, end in pairwise(bounds)
    ]


def _within(partition: Partition, lower: int, upper: int) -> bool:
    bounds = partition.bounds
    assert bounds is not None
    return bounds[0] < upper and bounds[1] > lower


def _between(table: Table, venue: str | None, lower: int, upper: int) -> list[Partition] | None:
    """The partitions of a venue in [lower, upper), if they are few; None if they are many."""
    hourly = table.partitioning is Partitioning.HOUR
    step = HOUR_NS if hourly else 24 * HOUR_NS
    if upper <= lower:
        return []
    if (upper - lower) // step >= _DIRECT_HOURS:
        return None
    return [Partition.of(table, venue, number * step) for number in range(lower // step, -(-upper // step))]


def _table(table: TableName) -> Table:
    return declared(table) if isinstance(table, str) else table


def _levels(table: Table) -> tuple[str, ...]:
    if table.partitioning is Partitioning.CURRENT:
        return ()
    venue = ("venue",) if table.by_venue else ()
    return (*venue, "date", "hour") if table.partitioning is Partitioning.HOUR else (*venue, "date")


def newest_listing(rows: pa.Table) -> pa.Table:
    """Of a catalogue's rows those of each venue's newest listing among them."""
    newest = rows.group_by("venue").aggregate([(_FETCHED, "max")])
    told = [
        rows.filter(pc.and_(pc.equal(rows["venue"], venue), pc.equal(rows[_FETCHED], at)))
        for venue, at in sorted(zip(newest["venue"].to_pylist(), newest[f"{_FETCHED}_max"].to_pylist(), strict=True))
    ]
    return pa.concat_tables([rows.slice(0, 0), *told])


def row_order(table: Table) -> tuple[str, ...]:
    """Columns that put rows into one order whatever order they came in."""
    return (*table.sort, *(name for name in table.key if name not in table.sort))


def row_times(table: Table) -> tuple[str, str | None] | None:
    """The column of a row's time and, for rows that last, the one that ends them; None if rows have no time."""
    return next((times for times in _TIMES if times[0] in table.column_names), None)


def _lasts(table: Table) -> bool:
    times = row_times(table)
    return times is not None and times[1] is not None


def as_ns(value: Instant) -> int:
    """Nanoseconds since the epoch."""
    return value if isinstance(value, int) else ns_from_datetime(value)


def _span(column: pa.ChunkedArray) -> tuple[int, int]:
    both = pc.min_max(column).as_py()
    return as_ns(both["min"]), as_ns(both["max"])


def extent(table: Table, rows: pa.Table) -> tuple[int | None, int | None]:
    """First and last time of the rows; the last is None without a time column and while a row lasts."""
    times = row_times(table)
    if times is None or not rows.num_rows:
        return None, None
    begin, end = times
    low, high = _span(rows[begin])
    if end is None:
        return low, high
    return low, None if rows[end].null_count else _span(rows[end])[1]


def _time_tests(table: Table, start: Instant | None, end: Instant | None) -> list[pc.Expression]:
    times = row_times(table)
    if times is None:
        return []
    begin, until = times
    tests = []
    if start is not None and until is None:
        tests.append(pc.field(begin) >= _scalar(table, begin, start))
    if start is not None and until is not None:
        # An end that is cut to microseconds may lie within the one in which the time begins.
        is_cut = pa.types.is_timestamp(table.schema.field(until).type)
        begins = as_ns(start) // 1_000 * 1_000 if is_cut else start
        tests.append(pc.field(until).is_null() | (pc.field(until) > _scalar(table, until, begins)))
    if end is not None:
        tests.append(pc.field(begin) < _scalar(table, begin, end))
    return tests


def _scalar(table: Table, name: str, at: Instant) -> pa.Scalar:
    type_ = table.schema.field(name).type
    # Rounded up: a whole microsecond lies before an instant within it.
    return pa.scalar(-(-as_ns(at) // 1_000), type_) if pa.types.is_timestamp(type_) else pa.scalar(as_ns(at), type_)


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
    """Sorted rows without repeats, how many were dropped, and how many share a key but not the content.

    Where a fact was both pushed and asked for, what was pushed counts as the first: a trade that was fetched later
    bears the time at which it was made, before anybody could receive it.
    """
    order: Ints | None = None
    if "source" in table.column_names and not {"ordinal", "source"} & set(table.key):
        order = np.argsort(pc.equal(rows["source"], "rest").to_numpy(), kind="stable")
    ranked = rows if order is None else rows.take(order)
    later, first = repeated(ranked, table.key)
    if not len(later):
        return rows, 0, 0
    received = frozenset() if "ordinal" in table.key else _RECEPTION
    compared = [name for name in table.column_names if name not in received]
    involved = np.union1d(later, first)
    again, _ = repeated(ranked.select(compared).take(involved), compared)
    gone = involved[again]
    keep = np.ones(rows.num_rows, dtype=np.bool_)
    keep[gone if order is None else order[gone]] = False
    return rows.filter(pa.array(keep)), len(gone), len(later) - len(gone)


def _parquet(table: Table, pieces: Iterable[pa.Table], exchange: str) -> bytes:
    """The bytes of a Parquet file: a pure function of rows, table and exchange name, however the rows are cut."""
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
        for group in _row_groups(pieces):
            writer.write_table(group.cast(schema), row_group_size=ROW_GROUP)
    return sink.getvalue()


def _row_groups(pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows in whole row groups, the last one shorter; each in one chunk, since chunks show in the bytes."""
    rest: pa.Table | None = None
    for piece in pieces:
        rows = piece if rest is None else pa.concat_tables([rest, piece])
        full = rows.num_rows // ROW_GROUP * ROW_GROUP
        for begin in range(0, full, ROW_GROUP):
            yield rows.slice(begin, ROW_GROUP).combine_chunks()
        rest = rows.slice(full).combine_chunks()
    if rest is not None and rest.num_rows:
        yield rest
