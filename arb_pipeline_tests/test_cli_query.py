"""``arb sql`` and ``arb book`` as a user meets them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from arb_pipeline.cli import app
from arb_pipeline.errors import ArbError
from arb_pipeline.storage import Lake, Partition
from arb_pipeline.storage.books import BookUnknownError
from arb_pipeline.storage.query import BATCH_ROWS
from arb_pipeline.tables import TABLES
from arb_pipeline_tests.storage.rows import START, TWENTY, gaps, quotes
from arb_pipeline_tests.storage.test_books import CHANGES, OPENING, events, session

runner = CliRunner()


@pytest.fixture
def lake(tmp_path: Path) -> str:
    lake = Lake(str(tmp_path / "lake"))
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1), ("B", 2, 2)), "run")
    lake.write_part("book_events", TWENTY, events([*OPENING, *CHANGES]), "run")
    for name, rows in (("capture_sessions", session()), ("book_gaps", gaps(("M", 100, 200)))):
        lake.write_part(name, Partition.of(name, "kalshi", START), rows, "run")
    return lake.root


def arb(*arguments: str, stdin: str | None = None) -> Result:
    return runner.invoke(app, list(arguments), input=stdin, catch_exceptions=False)


def test_rows_in_every_form_are_exact(lake: str, tmp_path: Path) -> None:
    sql = "select market_id, bid, bid_size, ask, in_sync, ['x', 'y'] as words from quotes order by market_id"
    shown = arb("sql", sql, "--lake", lake).stdout
    assert "0.4100" in shown
    assert "100.250000" in shown
    assert arb("sql", sql, "--lake", lake, "--csv").stdout.splitlines() == [
        "market_id,bid,bid_size,ask,in_sync,words",
        'A,0.4100,100.250000,,true,"[x, y]"',
        'B,0.4100,100.250000,,true,"[x, y]"',
    ]
    assert json.loads(arb("sql", sql, "--lake", lake, "--json").stdout)[0] == {
        "market_id": "A",
        "bid": "0.4100",
        "bid_size": "100.250000",
        "ask": None,
        "in_sync": True,
        "words": ["x", "y"],
    }
    target = tmp_path / "out.parquet"
    assert arb("sql", sql, "--lake", lake, "--parquet", str(target)).stdout == ""
    written = pq.read_table(target)
    assert written.schema.field("bid").type == pa.decimal128(9, 4)
    assert written.num_rows == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lake", "out.parquet"]


def test_no_rows_are_no_error(lake: str) -> None:
    sql = "select bid from quotes where false"
    assert arb("sql", sql, "--lake", lake, "--csv").stdout == "bid\n"
    assert json.loads(arb("sql", sql, "--lake", lake, "--json").stdout) == []
    assert "bid" in arb("sql", sql, "--lake", lake).stdout


def test_large_answers_are_all_there_and_a_table_says_that_it_is_not(lake: str) -> None:
    sql = f"select range as n from range({2 * BATCH_ROWS + 5})"
    assert len(arb("sql", sql, "--lake", lake, "--csv").stdout.splitlines()) == 2 * BATCH_ROWS + 6
    assert len(json.loads(arb("sql", sql, "--lake", lake, "--json").stdout)) == 2 * BATCH_ROWS + 5
    assert "--csv" in arb("sql", sql, "--lake", lake).stdout.splitlines()[-1]


def test_the_query_may_come_from_a_file_or_standard_input(lake: str, tmp_path: Path) -> None:
    path = tmp_path / "query.sql"
    path.write_text("-- how many\nselect count(*) as n\nfrom quotes;\n", encoding="utf-8")
    assert arb("sql", "--file", str(path), "--lake", lake, "--csv").stdout == "n\n2\n"
    assert arb("sql", "-", "--lake", lake, "--csv", stdin="select count(*) as n from quotes").stdout == "n\n2\n"
    for arguments, says in {
        ("select 1", "--file", str(path)): "give one of them",
        ("--file", str(tmp_path / "none.sql")): "No such file",
        ("select 1", "--csv", "--json"): "three forms",
        ("--csv",): "need a query",
    }.items():
        with pytest.raises(ArbError, match=says):
            arb("sql", *arguments, "--lake", lake)


def test_without_a_query_the_tables_are_listed_and_the_database_file_is_made(lake: str) -> None:
    shown = arb("sql", "--lake", lake).stdout
    assert all(name in shown for name in TABLES)
    assert (Path(lake) / "lake.duckdb").exists()
    sizes = {row["table"]: row["rows"] for row in json.loads(arb("sql", "--lake", lake, "--json").stdout)}
    assert (sizes["quotes"], sizes["trades"], sizes.keys()) == (2, 0, TABLES.keys())


def test_a_plan_is_printed_as_text(lake: str) -> None:
    assert "Empty Result" in arb("sql", "explain select * from trades", "--lake", lake).stdout


def test_what_writes_is_refused(lake: str) -> None:
    with pytest.raises(ArbError, match="only reads"):
        arb("sql", "create table mine as from quotes", "--lake", lake)


def interrupt(process: "subprocess.Popen[bytes]") -> None:
    """Press Ctrl-C, as often as people do: an interrupt that meets a callback of the interpreter is lost."""
    for _ in range(30):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=2)
            return
    raise AssertionError("it goes on")


def test_ctrl_c_ends_a_long_query_with_130_and_leaves_no_file(tmp_path: Path) -> None:
    endless = "select a.range as n from range(100000000000) a, range(1000000) b"
    process = subprocess.Popen(
        [sys.executable, "-m", "arb_pipeline", "sql", endless, "--csv"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
        env={**os.environ, "ARB_LAKE": str(tmp_path)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"n\n"
        interrupt(process)
        assert process.returncode == 130
    finally:
        process.kill()
        process.wait()
    counting = subprocess.Popen(
        [sys.executable, "-m", "arb_pipeline", "sql", endless, "--parquet", "out.parquet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "ARB_LAKE": str(tmp_path)},
    )
    try:
        while not list(tmp_path.glob(".out.parquet.*")):
            assert counting.poll() is None
        interrupt(counting)
        assert counting.returncode == 130
    finally:
        counting.kill()
        counting.wait()
    assert list(tmp_path.glob("*.parquet*")) + list(tmp_path.glob(".*.tmp")) == []


# --- arb book ------------------------------------------------------------------------------------------------


def test_a_past_book_is_printed(lake: str) -> None:
    shown = arb("book", "M", "2026-05-13T20:00:15Z", "--lake", lake, "--depth", "2").stdout
    assert "0.41" in shown
    assert "0.39" not in shown
    assert "3 bids and 1 asks in all" in shown
    assert "in sync" in shown
    told = json.loads(arb("book", "M", "2026-05-13T22:00:15+02:00", "--lake", lake, "--json").stdout)
    assert told["bids"] == [["0.41", "3"], ["0.4", "10"], ["0.39", "5"]]
    assert told["asks"] == [["0.45", "7.5"]]
    assert told["in_sync"] is True
    assert told["at_ns"] == START + 15_000_000_000


def test_a_book_in_a_gap_is_refused_unless_it_is_wanted_all_the_same(lake: str) -> None:
    at = datetime(2026, 5, 13, 20, 2, tzinfo=UTC).isoformat()
    with pytest.raises(BookUnknownError, match="seq_gap"):
        arb("book", "M", at, "--lake", lake)
    shown = arb("book", "M", at, "--lake", lake, "--allow-untrusted").stdout
    assert "NOT to be trusted: seq_gap" in shown
    assert json.loads(arb("book", "M", at, "--lake", lake, "--allow-untrusted", "--json").stdout)["in_sync"] is False


@pytest.mark.parametrize("at", ["2026-05-13 20:00:15", "2026-05-13T21:00:15+01:00", str(START + 15 * 10**9)])
def test_a_time_is_utc_unless_it_has_an_offset(lake: str, at: str) -> None:
    told = json.loads(arb("book", "M", at, "--lake", lake, "--json").stdout)
    assert told["at_ns"] == START + 15 * 10**9


def test_what_is_no_time_is_refused_with_an_example(lake: str) -> None:
    done = arb("book", "M", "yesterday", "--lake", lake)
    assert done.exit_code == 2
    assert "'yesterday' is no time" in " ".join(done.output.split())


def test_errors_of_both_are_one_line_and_exit_code_1(lake: str) -> None:
    for arguments, says in (
        (("book", "M", "2026-05-13T20:02:00Z"), "seq_gap from"),
        (("book", "nobody", "2026-05-13T20:00:15Z"), "no market is called"),
        (("sql", "select * from qoutes"), 'Did you mean "quotes"'),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "arb_pipeline", *arguments, "--lake", lake],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert says in done.stderr
        assert "Traceback" not in done.stderr
