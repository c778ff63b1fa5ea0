"""Whether the lake is what its manifests say, and whether its rows are what the declarations say.

One file is held at a time, as it stands on disk, and of its rows one row group: a large lake can be checked while it
is written to. A file that a compaction replaces meanwhile is not missed: the partition is looked at again.
"""

import hashlib
import posixpath
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from arb_pipeline.storage.arrow import Ints, is_sorted, repeated
from arb_pipeline.storage.files import LOCK
from arb_pipeline.storage.lake import (
    MANIFEST,
    ROW_GROUP,
    Compaction,
    FileEntry,
    Instant,
    Lake,
    LakeError,
    Manifest,
    NewerSchemaError,
    Partition,
    as_ns,
    extent,
    row_order,
    row_times,
)
from arb_pipeline.tables import SCHEMA_VERSION, TABLES, Table

__all__ = ["GRACE", "Checked", "Description", "Finding", "Problem", "check", "compact_all", "describe"]

GRACE: Final = timedelta(hours=1)
"""A file younger than this that no manifest lists may be one that is being written."""


class Problem(StrEnum):
    """What can be wrong."""

    MANIFEST = "manifest"
    """The manifest cannot be read, or is not of its partition."""
    VERSION = "version"
    """A file of a newer schema version than this package knows."""
    MISSING = "missing"
    """A file that the manifest lists is not there."""
    SIZE = "size"
    SHA256 = "sha256"
    UNREADABLE = "unreadable"
    """A file that is no Parquet file."""
    SCHEMA = "schema"
    """Columns or types are not those declared."""
    ROWS = "rows"
    TIMES = "times"
    """The manifest's first and last time are not those of the rows."""
    OUTSIDE = "outside"
    """Rows that belong to another partition."""
    ORDER = "order"
    """Rows are not sorted as declared."""
    DUPLICATES = "duplicates"
    """Rows of a compacted file share a key."""
    ORIGIN = "origin"
    """Data of different exchanges in one partition."""
    ORPHAN = "orphan"
    """A file that no manifest lists, older than the grace period."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        file: name of the file within the partition, empty if it is about all of it.
        repaired: whether it was put right.
    """

    table: str
    partition: str
    file: str
    problem: Problem
    detail: str
    repaired: bool = False


@dataclass(slots=True)
class Checked:
    """What was looked at, and what was found.

    Attributes:
        partitions, files, rows, bytes: what was looked at.
        in_flight: files that no manifest lists, and that are too young to be called orphans.
    """

    partitions: int = 0
    files: int = 0
    rows: int = 0
    bytes: int = 0
    in_flight: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong (any more)."""
        return all(finding.repaired for finding in self.findings)


def check(
    lake: Lake,
    tables: Collection[str] | None = None,
    start: Instant | None = None,
    end: Instant | None = None,
    *,
    content: bool = True,
    repair: bool = False,
    grace: timedelta = GRACE,
    progress: Callable[[str, int], None] | None = None,
) -> Checked:
    """Verify the lake.

    Args:
        lake: the lake.
        tables: the tables to look at; None: all.
        start: only partitions with time at or after. ``end``: only partitions with time before.
        content: also read every file; otherwise only manifests, names and sizes are compared.
        repair: delete orphans, which no reader ever sees; nothing else is touched.
        grace: age from which on a file that no manifest lists is an orphan.
        progress: called with a table's name and the number of its files looked at so far.
    """
    done = Checked()
    for table in TABLES.values():
        if tables is None or table.name in tables:
            _Check(lake, table, done, content=content, repair=repair, grace=grace, progress=progress).run(start, end)
    return done


@dataclass(frozen=True, slots=True)
class Description:
    """What the lake holds of a table, by its manifests.

    Attributes:
        rows: repeats in parts that are not merged yet are counted as often as they stand there.
        min_ns, max_ns: first and last time of its rows, as far as manifests tell; None without any.
    """

    table: str
    partitions: int = 0
    files: int = 0
    rows: int = 0
    bytes: int = 0
    min_ns: int | None = None
    max_ns: int | None = None


def describe(lake: Lake) -> list[Description]:
    """What the lake holds, table by table."""
    found = []
    for table in TABLES.values():
        partitions = lake.partitions(table)
        entries = [file.entry for file in lake.files(table)] if partitions else []
        found.append(
            Description(
                table.name,
                len(partitions),
                len(entries),
                sum(entry.rows for entry in entries),
                sum(entry.bytes for entry in entries),
                min((entry.min_ns for entry in entries if entry.min_ns is not None), default=None),
                max((entry.max_ns for entry in entries if entry.max_ns is not None), default=None),
            )
        )
    return found


def compact_all(
    lake: Lake, tables: Collection[str] | None = None, progress: Callable[[str, int], None] | None = None
) -> dict[tuple[str, Partition], Compaction]:
    """Merge the parts of every partition that has some, whatever exchange they are of; what each merge found."""
    done: dict[tuple[str, Partition], Compaction] = {}
    for table in TABLES.values():
        if tables is not None and table.name not in tables:
            continue
        parted = {file.partition: file.entry.exchange for file in lake.files(table) if file.entry.writer}
        for count, (partition, exchange) in enumerate(parted.items(), 1):
            done[table.name, partition] = lake.with_exchange(exchange).compact(table, partition)
            if progress is not None:
                progress(table.name, count)
    return done


class _Check:
    """The check of one table."""

    def __init__(
        self,
        lake: Lake,
        table: Table,
        done: Checked,
        *,
        content: bool,
        repair: bool,
        grace: timedelta,
        progress: Callable[[str, int], None] | None,
    ) -> None:
        self.lake = lake
        self.files = lake.store
        self.table = table
        self.done = done
        self.content = content
        self.repair = repair
        self.grace = grace
        self.progress = progress
        self.seen = 0

    def run(self, start: Instant | None, end: Instant | None) -> None:
        """Every partition folder of the table, whether it has a manifest or not."""
        folders: dict[str, list[str]] = {}
        base = self.lake.location(self.table)
        for path in self.files.find(base):
            folder, name = posixpath.split(path)
            folders.setdefault(folder[len(base) + 1 :], []).append(name)
        for folder in sorted(folders):
            try:
                partition = Partition.parse(folder)
                self.lake.expects(self.table, partition)
            except LakeError as error:
                for name in folders[folder]:
                    self._find(folder, name, Problem.ORPHAN, f"in a folder that is no partition: {error}")
                continue
            if _overlaps(partition, start, end):
                self._partition(partition, folders[folder])

    def _partition(self, partition: Partition, names: list[str]) -> None:
        self.done.partitions += 1
        manifest = self._manifest(partition)
        while manifest is not None:
            before = len(self.done.findings)
            counted = self.done.files, self.done.rows, self.done.bytes
            self._listed(partition, manifest)
            if not any(finding.problem is Problem.MISSING for finding in self.done.findings[before:]):
                break
            now = self._manifest(partition)
            if now == manifest:
                break
            # A compaction replaced files while they were looked at: what was found is of the past.
            del self.done.findings[before:]
            self.done.files, self.done.rows, self.done.bytes = counted
            manifest = now
        if manifest is None:
            return
        listed = {file.name for file in manifest.files}
        for name in names:
            if name not in listed and name != MANIFEST:
                self._orphan(partition, name)

    def _manifest(self, partition: Partition) -> Manifest | None:
        """The partition's manifest; None if it cannot be read, which is a finding."""
        try:
            return self.lake.manifest(self.table, partition)
        except NewerSchemaError as error:
            self._find(partition.path, MANIFEST, Problem.VERSION, str(error))
            return None
        except LakeError as error:
            self._find(partition.path, MANIFEST, Problem.MANIFEST, str(error))
            return None

    def _listed(self, partition: Partition, manifest: Manifest) -> None:
        """The manifest, and the files that count."""
        if (manifest.table, manifest.partition) != (self.table.name, partition.path):
            detail = f"it says that it is of {manifest.table}/{manifest.partition}"
            self._find(partition.path, MANIFEST, Problem.MANIFEST, detail)
        names = [file.name for file in manifest.files]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            self._find(partition.path, MANIFEST, Problem.MANIFEST, f"it lists {', '.join(doubled)} more than once")
        if len(origins := sorted({file.exchange for file in manifest.files})) > 1:
            self._find(partition.path, "", Problem.ORIGIN, f"data of {', '.join(map(repr, origins))}")
        for entry in manifest.files:
            self.done.files += 1
            self.seen += 1
            if self.progress is not None:
                self.progress(self.table.name, self.seen)
            for problem, detail in self._file(partition, entry):
                self._find(partition.path, entry.name, problem, detail)

    def _file(self, partition: Partition, entry: FileEntry) -> Iterator[tuple[Problem, str]]:
        path = self.lake.location(self.table, partition, entry.name)
        try:
            data = self.files.read(path) if self.content else b""
            size = len(data) if self.content else self.files.size(path)
        except FileNotFoundError:
            yield Problem.MISSING, "the manifest lists it, but it is not there"
            return
        self.done.rows += entry.rows
        self.done.bytes += size
        if size != entry.bytes:
            yield Problem.SIZE, f"{size:,} bytes, the manifest says {entry.bytes:,}"
        if not self.content:
            return
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            # What is wrong with its bytes needs no further words about its rows.
            yield Problem.SHA256, "its bytes are not those that were written"
            return
        try:
            file = pq.ParquetFile(pa.BufferReader(data))
        except pa.ArrowInvalid as error:
            yield Problem.UNREADABLE, str(error)
            return
        problems = list(self._schema(file.schema_arrow, entry))
        yield from problems
        if not problems:
            yield from self._rows(file, partition, entry)

    def _schema(self, schema: pa.Schema, entry: FileEntry) -> Iterator[tuple[Problem, str]]:
        """A file has the declared columns; one of an older version may lack nullable ones."""
        told = schema.metadata or {}
        version = told.get(b"arb.schema_version", b"").decode()
        if version != str(entry.schema_version):
            yield Problem.SCHEMA, f"schema version {version or 'none'}, the manifest says {entry.schema_version}"
        if told.get(b"arb.table", b"").decode() != self.table.name:
            yield Problem.SCHEMA, f"it says that it is of table {told.get(b'arb.table', b'').decode() or 'none'}"
        if (origin := told.get(b"arb.exchange", b"").decode()) != entry.exchange:
            yield Problem.ORIGIN, f"data of {origin!r}, the manifest says {entry.exchange!r}"
        if unknown := sorted(set(schema.names) - set(self.table.column_names)):
            yield Problem.SCHEMA, f"undeclared columns {', '.join(unknown)}"
        for column in self.table.columns:
            if column.name not in schema.names:
                if not column.nullable or entry.schema_version == SCHEMA_VERSION:
                    yield Problem.SCHEMA, f"column {column.name} is not there"
            elif schema.field(column.name).type != column.type:
                yield Problem.SCHEMA, f"column {column.name} is {schema.field(column.name).type}, not {column.type}"

    def _rows(self, file: pq.ParquetFile, partition: Partition, entry: FileEntry) -> Iterator[tuple[Problem, str]]:
        if file.metadata.num_rows != entry.rows:
            yield Problem.ROWS, f"{file.metadata.num_rows:,} rows, the manifest says {entry.rows:,}"
        order = row_order(self.table)
        times = row_times(self.table)
        wanted = {*order, *(name for name in times or () if name), *({"venue"} & set(self.table.column_names))}
        columns = [name for name in self.table.column_names if name in wanted and name in file.schema_arrow.names]
        keys = _Keys(self.table) if not entry.writer else None
        extents = []
        outside, unsorted = 0, False
        last: pa.Table | None = None
        for batch in file.iter_batches(ROW_GROUP, columns=columns):
            rows = pa.Table.from_batches([batch])
            extents.append(extent(self.table, rows))
            outside += _outside(self.table, partition, rows)
            unsorted = unsorted or not is_sorted(rows if last is None else pa.concat_tables([last, rows]), order)
            last = rows.slice(rows.num_rows - 1)
            if keys is not None:
                keys.add(rows)
        if outside:
            yield Problem.OUTSIDE, f"{outside:,} rows belong to another partition"
        if unsorted:
            yield Problem.ORDER, f"rows are not sorted by {', '.join(order)}"
        if extents:
            lows, highs = zip(*extents, strict=True)
            found = None if None in lows else min(lows), None if None in highs else max(highs)
            if found != (entry.min_ns, entry.max_ns):
                yield Problem.TIMES, f"rows of {found} ns, the manifest says {(entry.min_ns, entry.max_ns)}"
        if keys is not None and (doubled := keys.doubled()):
            yield Problem.DUPLICATES, f"{doubled:,} rows have the key ({', '.join(self.table.key)}) of another one"

    def _orphan(self, partition: Partition, name: str) -> None:
        """A file that was there before the manifest was read, which does not list it."""
        try:
            written = self.files.modified(self.lake.location(self.table, partition, name))
        except FileNotFoundError:
            return
        written = written if written.tzinfo else written.replace(tzinfo=UTC)
        if datetime.now(UTC) - written < self.grace:  # by the clock that files are stamped by
            self.done.in_flight += 1
            return
        why = "its writer died, and nobody can write here" if name == LOCK else "no manifest lists it"
        deleted = self.repair and self.lake.delete_orphan(self.table, partition, name)
        self._find(partition.path, name, Problem.ORPHAN, why, repaired=deleted)

    def _find(self, partition: str, file: str, problem: Problem, detail: str, *, repaired: bool = False) -> None:
        self.done.findings.append(Finding(self.table.name, partition, file, problem, detail, repaired))


class _Keys:
    """Counts rows of a sorted file that have the key of an earlier one, without holding all of them.

    Where the first sort column is part of the key, rows of one key have it in common and so lie in one run of it;
    ordinals are kept as they are, 8 bytes each; keys of other tables, which are small, are kept whole.
    """

    def __init__(self, table: Table) -> None:
        self._key = list(table.key)
        self._lead = table.sort[0] if table.sort[0] in table.key else None
        self._ordinals: list[Ints] = []
        self._held: list[pa.Table] = []
        self._doubled = 0

    def add(self, rows: pa.Table) -> None:
        """Take the next rows."""
        if self._key == ["ordinal"]:
            self._ordinals.append(rows["ordinal"].to_numpy())
            return
        self._held.append(rows.select(self._key))
        if self._lead is None:
            return
        held = pa.concat_tables(self._held)
        newest = held[self._lead][-1]
        open_run = pc.equal(held[self._lead], newest)
        self._count(held.filter(pc.invert(open_run)))
        self._held = [held.filter(open_run)]

    def _count(self, rows: pa.Table) -> None:
        self._doubled += len(repeated(rows, self._key)[0])

    def doubled(self) -> int:
        """Rows with the key of another one."""
        if self._ordinals:
            every = np.concatenate(self._ordinals)
            return int(every.size - np.unique(every).size)
        if self._held:
            self._count(pa.concat_tables(self._held))
            self._held = []
        return self._doubled


def _outside(table: Table, partition: Partition, rows: pa.Table) -> int:
    """Rows of another venue, or that begin at another time."""
    inside = pa.chunked_array([pa.repeat(pa.scalar(value=True), rows.num_rows)])
    if partition.venue is not None:
        inside = pc.and_(inside, pc.equal(rows["venue"], partition.venue))
    times = row_times(table)
    if (bounds := partition.bounds) and times is not None:
        begun = rows[times[0]]
        if pa.types.is_timestamp(begun.type):
            begun = pc.multiply(begun.cast(pa.int64()), 1_000)
        inside = pc.and_(inside, pc.and_(pc.greater_equal(begun, bounds[0]), pc.less(begun, bounds[1])))
    outside: int = rows.num_rows - (pc.sum(inside).as_py() or 0)
    return outside


def _overlaps(partition: Partition, start: Instant | None, end: Instant | None) -> bool:
    bounds = partition.bounds
    if bounds is None:
        return True
    return (start is None or bounds[1] > as_ns(start)) and (end is None or bounds[0] < as_ns(end))
