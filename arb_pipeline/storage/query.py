"""SQL over the lake: DuckDB with a view of every table, and Postgres beside them.

A view names the files that counted when it was made. A compaction may delete one of them while a query runs, so
:func:`run` lists the files anew for every query, and lists them again where one is gone by the time it is read: an
answer is made of whole, committed partitions. ``lake.duckdb`` holds the same views for other tools, and is replaced in
one step by :func:`refresh`.

Beside a table's own columns a view has those of its partition, ``date`` and ``hour`` (UTC): whoever filters on them,
or on ``venue``, has DuckDB open no other file. ``<table>_current`` is the newest snapshot of a catalogue;
``latest_prices`` has each market's newest quote and last trade of the last 24 hours captured.
"""

import json
import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import duckdb
import pyarrow as pa

from arb_pipeline.errors import ArbError
from arb_pipeline.storage.history import AS_OF_MACRO
from arb_pipeline.storage.lake import HOUR_NS, Lake, LakeFile
from arb_pipeline.tables import TABLES, Partitioning, Table

__all__ = [
    "CURRENT_VIEWS",
    "DATABASE",
    "Answer",
    "QueryError",
    "connect",
    "refresh",
    "run",
    "write_database",
]

CURRENT_VIEWS = ("events", "markets", "market_matches")
"""``<table>_current`` is the newest daily snapshot; of the matches, what holds now."""

DATABASE = "lake.duckdb"
"""The database file below a local lake's root."""

BATCH_ROWS = 65_536

_TYPES = {
    pa.string(): "VARCHAR",
    pa.int64(): "BIGINT",
    pa.bool_(): "BOOLEAN",
    pa.float64(): "DOUBLE",
    pa.date32(): "DATE",
    pa.timestamp("us", tz="UTC"): "TIMESTAMP WITH TIME ZONE",
}
_LEVELS = {"venue": "VARCHAR", "date": "DATE", "hour": "BIGINT"}
_READS = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
_EXPLAIN = re.compile(r"\s*explain\s+(analyze\s+)?(\([^)]*\)\s*)?", re.IGNORECASE)
_TRIES = 20
_POSTGRES = "pg"
# What a reader of Arrow batches raises, whatever the engine behind it raised.
_FAILURES = (duckdb.Error, pa.ArrowException, OSError, RuntimeError)


class QueryError(ArbError):
    """A query that cannot be answered; the message says why and what to do."""


class Answer:
    """What a query gives, read in batches.

    Attributes:
        schema: names and types of the columns; decimals stay decimals.
    """

    def __init__(self, reader: pa.RecordBatchReader, first: pa.RecordBatch | None, views: "_Views") -> None:
        self.schema: pa.Schema = reader.schema
        self._reader = reader
        self._first = first
        self._views = views

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows; they can be read once.

        Raises:
            QueryError: if the rest of the answer cannot be read.
        """
        if self._first is None:
            return
        yield self._first
        try:
            yield from self._reader
        except _FAILURES as error:
            _check_interrupt(error)
            if self._views.superseded():
                raise QueryError(
                    "a partition was compacted while its rows were being read, and what was printed is not all: "
                    "run the query again"
                ) from error
            raise _failed(error) from error

    def table(self) -> pa.Table:
        """All rows at once."""
        return pa.Table.from_batches(self.batches(), self.schema)


def run(lake: Lake, sql: str, *, postgres_url: str = "", text: bool = False) -> Answer:
    """Answer one statement that reads.

    Only the tables that it names are looked up in the lake. ``pg`` is Postgres (``select * from pg.quotes``).

    Args:
        lake: the lake.
        sql: one SELECT (FROM, WITH, DESCRIBE, SUMMARIZE, SHOW) or EXPLAIN.
        postgres_url: Postgres to attach where the statement names it; empty: none.
        text: exact text instead of decimals, lists and other types that CSV has no form for.

    Raises:
        QueryError: if the statement is wrong, writes, or cannot be answered.
    """
    statement = _statement(sql)
    names = _names(statement)
    views = _Views(lake, None if names is None else {name for name in names if "." not in name})

    def answer() -> Answer:
        connection = views.connect()
        if any(name.startswith(f"{_POSTGRES}.") for name in names or ()):
            _attach(connection, postgres_url)
        relation = connection.sql(statement)
        if text:
            relation = _as_text(relation)
        reader = relation.to_arrow_reader(BATCH_ROWS)
        return Answer(reader, next(iter(reader), None), views)

    return _again(answer, views.superseded)


def connect(lake: Lake) -> duckdb.DuckDBPyConnection:
    """An in-memory database with a view per table over the files that count now; a table without files is empty.

    The views name files: connect again to see what was written or compacted since.

    Raises:
        QueryError: if a file cannot be read.
    """
    return _Views(lake).connect()


def write_database(lake: Lake, path: str | Path) -> Path:
    """Write a DuckDB file with the same views, replacing an older one in one step; returns its path.

    Who has the older one open keeps reading that. The file holds no rows.

    Raises:
        QueryError: if a file of the lake cannot be read.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with duckdb.connect(str(temporary)) as connection:
            _Views(lake).create(connection)
        return temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def refresh(lake: Lake) -> Path | None:
    """Make ``lake.duckdb`` in a local lake anew; None where the lake is not a folder that there is.

    On an object store there is no such file: a view cannot be read there without this package's filesystem.
    """
    root = Path(lake.root)
    return write_database(lake, root / DATABASE) if lake.is_local and root.is_dir() else None


T = TypeVar("T")


def _again(work: Callable[[], T], superseded: Callable[[], bool]) -> T:
    """What ``work`` gives; it is done again as long as it fails on a file that does not count any more.

    Raises:
        QueryError: if something else is wrong.
    """
    for _ in range(_TRIES):
        try:
            return work()
        except _FAILURES as error:
            _check_interrupt(error)
            if not superseded():
                raise _failed(error) from error
    raise QueryError("partitions are compacted faster than they can be read: try again")


# --- views -------------------------------------------------------------------------------------------------

_CURRENT = "_current"
_LATEST = "latest_prices"
_HOLDING = "market_matches_current"
"""A statement holds until it is ended, whatever the day on which it was made."""


def _view_names() -> list[str]:
    return [*TABLES, *(f"{name}{_CURRENT}" for name in CURRENT_VIEWS), _LATEST]


class _Views:
    """The views of some tables (None: all), and the files that they name."""

    def __init__(self, lake: Lake, names: Collection[str] | None = None) -> None:
        self._lake = lake
        known = _view_names()
        # With a name that there is not, all views are made, so that DuckDB can propose the one that was meant.
        self._names = known if names is None or set(names) - set(known) else [name for name in known if name in names]
        self._listed: dict[str, dict[str, list[LakeFile]]] = {}

    def superseded(self) -> bool:
        """Whether one of the files does not count any more."""
        return any(self._is_superseded(name) for name in self._listed)

    def connect(self) -> duckdb.DuckDBPyConnection:
        """An in-memory database with the views over the files that count now."""
        connection = duckdb.connect()
        self.create(connection)
        return connection

    def create(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Create the views in a database."""
        if not self._lake.is_local:
            connection.register_filesystem(self._lake.filesystem)
        connection.execute("SET TimeZone = 'UTC'")
        for name in self._names:
            # DuckDB looks at the files right away. One view at a time, so that little can happen to them meanwhile.
            _again(partial(self._create, connection, name), partial(self._is_superseded, name))

    def _create(self, connection: duckdb.DuckDBPyConnection, name: str) -> None:
        listed = self._listed[name] = self._list(name)
        rows = [_rows(TABLES[table], files) for table, files in listed.items()]
        if name == _HOLDING:
            rows = [f"SELECT * FROM ({rows[0]}) WHERE valid_to IS NULL"]  # noqa: S608 - declared names
        elif name.endswith(_CURRENT):
            # What a day's newest listing no longer told is kept with the time at which it was last told.
            rows = [f"SELECT * FROM ({rows[0]}) QUALIFY fetched_at = max(fetched_at) OVER (PARTITION BY venue)"]  # noqa: S608
        connection.execute(f'CREATE OR REPLACE VIEW "{name}" AS {_latest(*rows) if name == _LATEST else rows[0]}')
        if name == "market_history":
            connection.execute(AS_OF_MACRO)

    def _is_superseded(self, name: str) -> bool:
        now = self._list(name)
        return any(
            {file.path for file in files} - {file.path for file in now[table]}
            for table, files in self._listed[name].items()
        )

    def _list(self, name: str) -> dict[str, list[LakeFile]]:
        """Files of a view by table."""
        if name == _LATEST:
            return {table: _newest_day(self._lake.files(table)) for table in ("quotes", "trades")}
        table = name.removesuffix(_CURRENT)
        return {table: self._lake.files(table) if name in {table, _HOLDING} else self._lake.current_files(table)}


def _newest_day(files: Sequence[LakeFile]) -> list[LakeFile]:
    """Those of each venue's last 24 hours, counted back from the end of its newest partition."""
    ends: defaultdict[str | None, int] = defaultdict(int)
    for file in files:
        ends[file.partition.venue] = max(ends[file.partition.venue], _bounds(file)[1])
    return [file for file in files if _bounds(file)[0] >= ends[file.partition.venue] - 24 * HOUR_NS]


def _bounds(file: LakeFile) -> tuple[int, int]:
    bounds = file.partition.bounds
    assert bounds is not None, "quotes and trades are partitioned by hour"
    return bounds


def _rows(table: Table, files: Sequence[LakeFile]) -> str:
    """A SELECT of the files' rows; its empty first branch fixes types, also of columns that old files lack.

    Files of one schema version are read together: DuckDB takes their columns from the first, and opens no other one
    before it knows that it needs it.
    """
    levels = _levels(table)
    types = {column.name: _sql_type(column.type) for column in table.columns}
    types |= {level: _LEVELS[level] for level in levels if level not in types}
    typed = ", ".join(f'NULL::{type_} AS "{column}"' for column, type_ in types.items())
    branches = [f"SELECT {typed} WHERE false"]
    by_version: defaultdict[int, list[str]] = defaultdict(list)
    for file in files:
        by_version[file.entry.schema_version].append("'" + file.path.replace("'", "''") + "'")
    hive = "false"
    if levels:
        hive = "true, hive_types = {" + ", ".join(f"'{level}': {_LEVELS[level]}" for level in levels) + "}"
    for version in sorted(by_version):
        paths = ", ".join(by_version[version])
        branches.append(f"SELECT * FROM read_parquet([{paths}], hive_partitioning = {hive})")  # noqa: S608 - own paths
    columns = ", ".join(f'"{column}"' for column in types)
    return f"SELECT {columns} FROM ({' UNION ALL BY NAME '.join(branches)})"  # noqa: S608 - declared names


def _latest(quotes: str, trades: str) -> str:
    """Each market's newest quote with its last trade, as :mod:`arb_pipeline.storage.latest` has them at any time."""
    newest = "QUALIFY row_number() OVER (PARTITION BY venue, market_id ORDER BY recv_ns DESC, ordinal DESC) = 1"
    columns = ", ".join(f"newest.{name}" for name in TABLES["quotes"].column_names)
    return (
        f"WITH q AS ({quotes}), t AS ({trades}), newest AS (FROM q {newest}), last AS (FROM t {newest}) "  # noqa: S608
        f"SELECT {columns}, last.price AS last_price, last.size AS last_size, last.taker_side AS last_taker_side, "
        "last.recv_ns AS last_trade_ns FROM newest LEFT JOIN last USING (venue, market_id)"
    )


def _levels(table: Table) -> tuple[str, ...]:
    if table.partitioning is Partitioning.CURRENT:
        return ()
    venue = ("venue",) if table.by_venue else ()
    return (*venue, "date", "hour") if table.partitioning is Partitioning.HOUR else (*venue, "date")


def _sql_type(type_: pa.DataType) -> str:
    if pa.types.is_decimal(type_):
        return f"DECIMAL({type_.precision}, {type_.scale})"
    return _TYPES[type_]


# --- statements --------------------------------------------------------------------------------------------


def _statement(sql: str) -> str:
    """The one statement of the text.

    Raises:
        QueryError: if it is none, more than one, or does more than read.
    """
    try:
        found = [one for one in duckdb.extract_statements(sql) if one.query.strip(" ;\n\t")]
        if len(found) != 1:
            raise QueryError(f"{len(found)} statements were given; give one (WITH names intermediate results)")
        [statement] = found
        explained = _EXPLAIN.match(statement.query)
        inner = duckdb.extract_statements(statement.query[explained.end() :])[0] if explained else statement
    except duckdb.Error as error:
        raise _failed(error) from error
    if statement.type not in _READS or inner.type is not duckdb.StatementType.SELECT:
        raise QueryError(
            f"{inner.type.name} is refused: 'arb sql' only reads. For tables of your own open {DATABASE} in DuckDB "
            "('arb sql' without a query makes it); --csv, --json and --parquet FILE write an answer down"
        )
    return statement.query.strip(" ;\n\t")


def _names(statement: str) -> set[str] | None:
    """The tables that a SELECT names, as ``catalog.schema.table``; None where that cannot be told: it may be any."""
    with duckdb.connect() as parser:
        [[text]] = parser.execute("SELECT json_serialize_sql(?)", [statement]).fetchall()
    tree = json.loads(text)
    if tree["error"]:  # DESCRIBE, SHOW, EXPLAIN
        return None
    found: set[str] = set()
    own: set[str] = set()
    if not _walk(tree, found, own) or any("." in name and not name.startswith(f"{_POSTGRES}.") for name in found):
        return None
    return found - (own - TABLES.keys())


def _walk(node: object, found: set[str], own: set[str]) -> bool:
    """Collect the tables of a syntax tree, and the names that its WITH clauses give; whether these are all."""
    if isinstance(node, dict):
        if node.get("type") in {"SHOW_REF", "TABLE_FUNCTION"}:
            return False
        if node.get("type") == "BASE_TABLE":
            found.add(".".join(filter(None, (node[f"{part}_name"] for part in ("catalog", "schema", "table")))))
        if isinstance(node.get("cte_map"), dict):
            own.update(entry["key"] for entry in node["cte_map"]["map"])
    if isinstance(node, dict | list):
        return all(_walk(child, found, own) for child in (node.values() if isinstance(node, dict) else node))
    return True


def _as_text(relation: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """The same rows with what a text file has no form for as exact text."""
    columns = []
    for name, type_ in zip(relation.columns, relation.types, strict=True):
        quoted = '"' + name.replace('"', '""') + '"'
        plain = type_.id in _PLAIN
        columns.append(quoted if plain else f"CAST({quoted} AS VARCHAR) AS {quoted}")
    return relation.project(", ".join(columns))


_PASSWORD = re.compile(r"(://[^\s:/@]*:|\bpassword=)[^\s@]+")
_PLAIN = frozenset({"varchar", "tinyint", "smallint", "integer", "bigint", "float", "double", "date"})


def _check_interrupt(error: BaseException) -> None:
    """Ctrl-C during a query is what it is everywhere else."""
    if isinstance(error, duckdb.InterruptException) or (type(error) is RuntimeError and "interrupt" in str(error)):
        raise KeyboardInterrupt from None


def _failed(error: BaseException) -> QueryError:
    # What reads Postgres repeats its address when a connection fails.
    told = _PASSWORD.sub(r"\1***", str(error))
    return QueryError(f"the query failed: {told}")


# --- Postgres ----------------------------------------------------------------------------------------------


def _attach(connection: duckdb.DuckDBPyConnection, url: str) -> None:
    """Attach Postgres as ``pg``, read-only.

    Raises:
        QueryError: if there is none or it cannot be had; the address, which may hold a password, is not in it.
    """
    if not url:
        raise QueryError(f"{_POSTGRES} is Postgres, and there is none: set ARB_POSTGRES_URL")
    try:
        connection.execute("LOAD postgres")
    except duckdb.Error as error:
        platform = connection.execute("PRAGMA platform").fetchall()[0][0]
        home = f"~/.duckdb/extensions/v{duckdb.__version__}/{platform}/"
        raise QueryError(
            f"{_POSTGRES} needs DuckDB's extension 'postgres', which is not installed and cannot be downloaded from "
            "here. With internet access run once: python -c \"import duckdb; duckdb.sql('INSTALL postgres')\"; or copy "
            f"postgres_scanner.duckdb_extension of this version and platform to {home}. psql queries the same tables "
            "without it"
        ) from error
    address = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url).replace("'", "''")
    try:
        connection.execute(f"ATTACH '{address}' AS {_POSTGRES} (TYPE postgres, READ_ONLY)")
    except duckdb.Error:
        # DuckDB's message repeats the address.
        raise QueryError("Postgres cannot be attached: is it up, and is ARB_POSTGRES_URL right?") from None
