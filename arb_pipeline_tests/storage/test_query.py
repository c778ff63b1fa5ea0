import json
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arb_pipeline.storage import Lake, Partition, query
from arb_pipeline.storage.catalogue import write_catalogue
from arb_pipeline.storage.lake import MANIFEST
from arb_pipeline.storage.latest import latest_prices
from arb_pipeline.storage.query import Answer, QueryError, _attach, _Views, connect, refresh, run, write_database
from arb_pipeline.tables import TABLES
from arb_pipeline_tests.storage.rows import HOUR, START, TWENTY, TWENTY_ONE, quotes, trades
from arb_pipeline_tests.storage.test_catalogue import AT, simple


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "la'ke"))
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1), ("B", 2, 2)), "run")
    lake.write_part("quotes", TWENTY_ONE, quotes(("A", 3_600, 3)), "run")
    return lake


def test_views_hold_what_the_manifest_lists_with_exact_types(lake: Lake) -> None:
    (Path(lake.root) / "quotes" / TWENTY.path / "part-x-0.parquet").write_bytes(b"rubbish")
    with connect(lake) as connection:
        rows = connection.execute(
            "SELECT market_id, ordinal, bid, bid_size, ask FROM quotes ORDER BY ordinal"
        ).fetchall()
    assert rows[0] == ("A", 1, Decimal("0.4100"), Decimal("100.250000"), None)
    assert len(rows) == 3


def test_every_table_is_a_view_with_its_declared_columns_even_when_empty(tmp_path: Path) -> None:
    with connect(Lake(str(tmp_path / "empty"))) as connection:
        for table in TABLES.values():
            described = connection.execute(f'DESCRIBE "{table.name}"').fetchall()
            names = tuple(row[0] for row in described)
            assert names[: len(table.column_names)] == table.column_names
            assert set(names[len(table.column_names) :]) <= {"date", "hour"}, "the partition's own columns follow"
            assert connection.execute(f'SELECT count(*) FROM "{table.name}"').fetchone() == (0,)
        types = {row[0]: row[1] for row in connection.execute("DESCRIBE trades").fetchall()}
    assert types["price"] == "DECIMAL(12,9)"
    assert types["recv_ns"] == "BIGINT"


def test_types_are_the_same_with_and_without_files(lake: Lake, tmp_path: Path) -> None:
    write_catalogue(lake, "kalshi", [simple("E", "M")], AT)
    with connect(lake) as full, connect(Lake(str(tmp_path / "empty"))) as empty:
        for name in ("quotes", "events", "markets"):
            assert full.execute(f"DESCRIBE {name}").fetchall() == empty.execute(f"DESCRIBE {name}").fetchall()


def test_current_views_show_the_newest_day(lake: Lake) -> None:
    write_catalogue(lake, "kalshi", [simple("old", "M")], AT.replace(day=12))
    write_catalogue(lake, "kalshi", [simple("new", "M")], AT)
    with connect(lake) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (2,)
        assert connection.execute("SELECT event_id FROM events_current").fetchall() == [("new",)]
        assert connection.execute("SELECT event_id FROM markets_current").fetchall() == [("new",)]


def test_a_database_file_is_replaced_in_one_step_and_stands_alone(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "out" / "lake.duckdb"
    for _ in range(2):
        assert write_database(lake, path) == path
    assert [p.name for p in path.parent.iterdir()] == ["lake.duckdb"]
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM quotes").fetchone() == (3,)


def test_any_fsspec_filesystem_can_be_queried() -> None:
    lake = Lake("memory://query-of-test")
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
    try:
        with connect(lake) as connection:
            assert connection.execute("SELECT market_id FROM quotes").fetchall() == [("A",)]
    finally:
        fsspec.filesystem("memory").rm("/query-of-test", recursive=True)


# --- pruning and old files -----------------------------------------------------------------------------------


def spoil(lake: Lake, partition: Partition, table: str = "quotes") -> None:
    """Make a partition's files unreadable: whoever opens one fails."""
    for path in (Path(lake.root) / table / partition.path).glob("*.parquet"):
        path.write_bytes(b"rubbish")


def test_a_filter_on_the_partition_opens_no_other_file(lake: Lake) -> None:
    two = Partition.parse("venue=kalshi/date=2026-05-13/hour=22")
    lake.write_part("quotes", two, quotes(("C", 2 * 3_600, 4)), "run")
    spoil(lake, two)
    with pytest.raises(QueryError, match=r"magic|too small|Parquet"):
        run(lake, "select bid from quotes").table()
    pruned = run(lake, "select market_id, date, hour from quotes where date = '2026-05-13' and hour = 21").table()
    assert [(row["market_id"], row["hour"]) for row in pruned.to_pylist()] == [("A", 21)]
    assert run(lake, "select bid from quotes where venue = 'polymarket'").table().num_rows == 0


def test_rows_of_an_older_schema_have_nulls_where_they_lack_a_column(lake: Lake) -> None:
    folder = Path(lake.root) / "quotes" / TWENTY.path
    manifest = json.loads((folder / MANIFEST).read_text())
    [entry] = manifest["files"]
    old = pq.read_table(folder / entry["name"]).drop_columns(["venue_ns", "seq"])
    pq.write_table(old, folder / entry["name"])
    entry["schema_version"] = 1
    (folder / MANIFEST).write_text(json.dumps(manifest))
    rows = run(lake, "select market_id, seq, venue_ns from quotes order by ordinal").table().to_pylist()
    assert [row["seq"] for row in rows] == [None, None, 3]


# --- one answer ----------------------------------------------------------------------------------------------


def test_decimals_stay_exact_in_every_form(lake: Lake) -> None:
    sql = "select bid, sum(bid_size) over () as total, 0::decimal(24, 10) as nothing from quotes limit 1"
    [row] = run(lake, sql).table().to_pylist()
    assert row == {"bid": Decimal("0.4100"), "total": Decimal("300.750000"), "nothing": Decimal("0E-10")}
    [text] = run(lake, sql, text=True).table().to_pylist()
    assert text == {"bid": "0.4100", "total": "300.750000", "nothing": "0.0000000000"}


@pytest.mark.parametrize("sql", ["from quotes;", "-- a remark\nselect 1;;", "with q as (from quotes) from q"])
def test_one_reading_statement_may_be_written_in_many_ways(lake: Lake, sql: str) -> None:
    assert run(lake, sql).table().num_rows


@pytest.mark.parametrize("sql", ["describe quotes", "summarize quotes", "show tables", "explain select * from quotes"])
def test_what_only_tells_about_tables_is_answered_too(lake: Lake, sql: str) -> None:
    assert run(lake, sql).table().num_rows


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("create table mine as from quotes", "CREATE is refused"),
        ("copy (from quotes) to 'x.csv'", "COPY is refused"),
        ("explain analyze copy (from quotes) to 'x.csv'", "COPY is refused"),
        ("install httpfs", "is refused"),
        ("", "0 statements"),
        ("select 1; select 2", "2 statements"),
        ("selec", "syntax error"),
        ("select * from qoutes", 'Did you mean "quotes"'),
        ("select bidd from quotes", "bid"),
        ("select 1 / 0 as x, error('stop')", "stop"),
    ],
)
def test_what_cannot_be_answered_says_why(
    lake: Lake, sql: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(QueryError, match=says):
        run(lake, sql).table()
    assert not (tmp_path / "x.csv").exists()


def test_only_the_tables_that_are_named_are_looked_up(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []
    files = Lake.files

    def noted(self: Lake, table: str, *arguments: object) -> object:
        looked_up.append(table)
        return files(self, table, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Lake, "files", noted)
    assert run(lake, "select count(*) from quotes join trades using (market_id)").table().num_rows == 1
    assert sorted(looked_up) == ["quotes", "trades"]
    names = run(lake, "select table_name from information_schema.tables").table()["table_name"].to_pylist()
    assert set(names) > set(TABLES)


def test_latest_prices_are_each_markets_newest_quote_and_last_trade(lake: Lake) -> None:
    lake.write_part("quotes", TWENTY_ONE, quotes(("M", 3_601, 9)), "run")
    lake.write_part("trades", TWENTY, trades([("t1", 1, 1, "0.4"), ("t2", 2, 2, "0.5")]), "run")
    rows = run(lake, "from latest_prices order by venue, market_id").table()
    own = latest_prices(START + 2 * HOUR - 1, lake=lake).drop_columns(["age_ns"])
    assert rows.column_names == own.column_names
    assert rows.to_pylist() == own.to_pylist()
    assert [(row["market_id"], row["ordinal"]) for row in rows.to_pylist()] == [("A", 3), ("B", 2), ("M", 9)]


# --- while somebody writes -----------------------------------------------------------------------------------


def test_a_file_that_is_gone_when_it_is_read_has_the_lake_listed_again(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Lake.files
    tries: list[object] = []

    def compacted_at_once(self: Lake, *arguments: object) -> object:
        found = files(self, *arguments)  # type: ignore[arg-type]
        if len(tries) < 2:
            tries.append(lake.compact("quotes", (TWENTY, TWENTY_ONE)[len(tries)]))
        return found

    monkeypatch.setattr(Lake, "files", compacted_at_once)
    assert run(lake, "select count(*) as n from quotes").table().to_pylist() == [{"n": 3}]
    assert len(tries) == 2
    with connect(lake) as connection:
        assert connection.execute("select count(*) from quotes").fetchone() == (3,)


def test_queries_while_a_writer_adds_and_compacts_give_committed_rows_and_no_error(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    lake.write_part("quotes", TWENTY, quotes(("A", 0, 0)), "run")
    written, stop = [1], threading.Event()

    def write() -> None:
        ordinal = 1
        while not stop.is_set():
            for _ in range(3):
                lake.write_part("quotes", TWENTY, quotes(("A", ordinal % 3_000, ordinal)), "run")
                ordinal += 1
                written.append(ordinal)
            lake.compact("quotes", TWENTY)
            stop.wait(0.005)

    writer = threading.Thread(target=write)
    writer.start()
    counts: list[int] = []
    try:
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline or len(counts) < 5:
            before = written[-1]
            [row] = run(lake, "select count(*) as n, count(distinct ordinal) as d from quotes").table().to_pylist()
            assert row["n"] == row["d"]
            assert before <= row["n"] <= written[-1] + 1
            counts.append(row["n"])
            refresh(lake)
    finally:
        stop.set()
        writer.join(30)
    assert counts == sorted(counts)
    assert counts[-1] > counts[0], "nothing was written meanwhile"


def test_rows_that_vanish_in_the_middle_of_an_answer_are_told(lake: Lake) -> None:
    views = _Views(lake, ["quotes"])
    views.connect()
    schema = pa.schema([("n", pa.int64())])

    def breaking() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch([[1]], schema=schema)
        raise OSError("No files found that match the pattern")

    def answer() -> Answer:
        reader = pa.RecordBatchReader.from_batches(schema, breaking())
        return Answer(reader, reader.read_next_batch(), views)

    with pytest.raises(QueryError, match="the query failed: No files"):
        answer().table()
    lake.compact("quotes", TWENTY)
    with pytest.raises(QueryError, match="run the query again"):
        answer().table()


def test_the_database_file_of_a_lake_is_refreshed_in_place(lake: Lake, tmp_path: Path) -> None:
    path = refresh(lake)
    assert path == Path(lake.root) / "lake.duckdb"
    with duckdb.connect(str(path), read_only=True) as opened:
        lake.compact("quotes", TWENTY)
        assert refresh(lake) == path
        with pytest.raises(duckdb.IOException):
            opened.sql("select count(*) from quotes").fetchall()
    with duckdb.connect(str(path), read_only=True) as opened:
        assert opened.execute("select count(*) from quotes").fetchone() == (3,)
    assert refresh(Lake(str(tmp_path / "nowhere"))) is None
    assert not (tmp_path / "nowhere").exists()


# --- Postgres ------------------------------------------------------------------------------------------------


def test_postgres_without_an_address_is_an_error_that_names_the_setting(lake: Lake) -> None:
    with pytest.raises(QueryError, match="set ARB_POSTGRES_URL"):
        run(lake, "select * from pg.quotes")


def test_without_the_extension_the_error_says_how_to_get_it(tmp_path: Path) -> None:
    config: dict[str, str | bool | int | float | list[str]] = {
        "extension_directory": str(tmp_path),
        "custom_extension_repository": "http://127.0.0.1:9",
    }
    with (
        duckdb.connect(config=config) as connection,
        pytest.raises(QueryError, match=r"INSTALL postgres.*psql") as told,
    ):
        _attach(connection, "postgresql://user:hunter2@127.0.0.1/db")
    assert "hunter2" not in str(told.value)


class _Loaded:
    """A connection on which the extension loads; what it is told is kept."""

    def __init__(self, refuses: bool = False) -> None:
        self.told: list[str] = []
        self._refuses = refuses

    def execute(self, statement: str) -> None:
        self.told.append(statement)
        if self._refuses and statement.startswith("ATTACH"):
            raise duckdb.IOException(f"unable to connect: {statement}")


def test_postgres_is_attached_for_reading_and_its_password_stays_out_of_errors() -> None:
    connection = _Loaded()
    _attach(connection, "postgresql+psycopg://user:hun'ter2@host:5/db")  # type: ignore[arg-type]
    assert connection.told[-1] == "ATTACH 'postgresql://user:hun''ter2@host:5/db' AS pg (TYPE postgres, READ_ONLY)"
    with pytest.raises(QueryError, match="cannot be attached") as told:
        _attach(_Loaded(refuses=True), "postgresql://user:hunter2@host/db")  # type: ignore[arg-type]
    assert "hunter2" not in str(told.value)
    assert told.value.__cause__ is None


@pytest.mark.parametrize(
    "told", ["Unable to connect to postgresql://arb:hunter2@db:5432/arb: refused", "host=db password=hunter2 user=arb"]
)
def test_a_password_in_an_error_is_not_repeated(told: str) -> None:
    said = str(query._failed(RuntimeError(told)))
    assert "hunter2" not in said
    assert "arb" in said
