import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from arb_pipeline.capture import live, loader
from arb_pipeline.capture.encoder import finish_journals, recover
from arb_pipeline.capture.journal import Record, RunFolder, file_lock, journal_root
from arb_pipeline.capture.loader import Loader, catch_up
from arb_pipeline.capture.loading import LoaderProcess, LoadReport
from arb_pipeline.cli import app
from arb_pipeline.storage import Lake
from arb_pipeline.storage.postgres import Postgres, PostgresUnavailableError
from arb_pipeline_tests.capture.fakes import FakeVenue, every, fake_exchange
from arb_pipeline_tests.capture.test_encoder import BEGUN, ENDED, HOUR, INPUTS, START, VENUES, write
from arb_pipeline_tests.capture.test_live import until, words
from arb_pipeline_tests.capture.test_recorder import DELTA, SNAP, begin, frames
from arb_pipeline_tests.endurance.loaded import Loaded

UNTIL = START + 2 * HOUR
FAKE = ["--venue", "arb_pipeline_tests.capture.fakes:FakeVenue"]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), "a fake exchange")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def folder(root: Path) -> RunFolder:
    """The folder of a run that is over, whose rows Postgres wants."""
    folder = RunFolder(root / "runs" / "run-1")
    with folder.created(loaded=True):
        pass
    return folder


class Kept:
    """A database in memory: batches and their position commit together, or not at all."""

    def __init__(self) -> None:
        self.committed = 0
        self.tables: dict[str, list[pa.Table]] = {}
        self.complete = False
        self.trouble: list[str] = []
        """What goes wrong with the next calls: "before" the commit, or "after" it, when its answer is lost."""

    def position(self) -> int:
        return self.committed

    def load(self, position: int, tables: Mapping[str, pa.Table]) -> int:
        if position <= self.committed:
            return 0
        return self._commit(tables, position, complete=False)

    def finish(self, tables: Mapping[str, pa.Table] | None = None) -> int:
        return 0 if self.complete else self._commit(tables or {}, self.committed, complete=True)

    def _commit(self, tables: Mapping[str, pa.Table], position: int, *, complete: bool) -> int:
        how = self.trouble.pop(0) if self.trouble else ""
        if how != "before":
            for name, rows in tables.items():
                self.tables.setdefault(name, []).append(rows)
            self.committed, self.complete = position, complete
        if how:
            raise PostgresUnavailableError("it is away")
        return sum(rows.num_rows for rows in tables.values())

    def rows(self) -> dict[str, list[dict[str, object]]]:
        return {name: pa.concat_tables(parts).to_pylist() for name, parts in sorted(self.tables.items())}


def insist(action: Callable[[], None]) -> None:
    """Do it until the database does."""
    while True:
        try:
            action()
        except PostgresUnavailableError:
            continue
        return


def load_all(folder: RunFolder, kept: Kept) -> Loader:
    loading = Loader(folder, kept, VENUES)
    while loading.step():
        pass
    insist(loading.load)
    if not loading.ended:
        loading.died(folder.until(UNTIL))
    insist(loading.finish)
    return loading


@pytest.mark.parametrize("records", [(*BEGUN, *INPUTS, ENDED), (*BEGUN, *INPUTS)])
def test_postgres_gets_the_rows_of_the_lake(
    lake: Lake, folder: RunFolder, root: Path, postgres_url: str, records: tuple[Record, ...]
) -> None:
    write(folder, *records).close()
    recover(folder, lake, VENUES, UNTIL)
    assert folder.path.exists(), "Postgres has not got it yet"
    postgres = Postgres(postgres_url)
    postgres.migrate()
    assert catch_up(root, postgres, VENUES) == 1
    postgres.close()
    loaded = Loaded(postgres_url)
    assert loaded.differences(lake) == []
    assert min(loaded.counts()[name] for name in ("book_events", "quotes", "trades", "book_gaps")) > 0
    outages = {gap["to_ns"] for gap in loaded.rows("book_gaps") if gap["cause"] == "outage"}
    assert outages == (set() if ENDED in records else {UNTIL})
    assert not folder.path.exists()


@pytest.mark.parametrize("died", [False, True])
@pytest.mark.parametrize("trouble", [[], ["before"], ["after"], ["", "before"], ["", "after"]])
@pytest.mark.parametrize("killed_at", range(1, len(BEGUN) + len(INPUTS) + 1, 2))
def test_a_loader_that_begins_anew_loads_every_row_once(
    folder: RunFolder, killed_at: int, trouble: list[str], died: bool
) -> None:
    records: list[Record] = [*BEGUN, *INPUTS] + ([] if died else [ENDED])
    straight = Kept()
    writer = write(folder, *records[:killed_at])
    kept = Kept()
    first = Loader(folder, kept, VENUES)
    first.step()
    first.load()
    kept.trouble = list(trouble)
    for record in records[killed_at:]:
        writer.append(record)
    writer.close()
    load_all(folder, kept)
    load_all(folder, kept)
    load_all(folder, straight)
    assert kept.rows() == straight.rows()
    assert kept.committed == len(records)
    assert kept.complete


def test_nothing_is_read_while_a_batch_waits(folder: RunFolder) -> None:
    writer = write(folder, *BEGUN, *INPUTS[:3])
    kept = Kept()
    loading = Loader(folder, kept, VENUES)
    loading.step()
    kept.trouble = ["before"] * 3
    for _ in range(3):
        with pytest.raises(PostgresUnavailableError):
            loading.load()
        assert loading.due, "the same batch again"
    assert loading.oldest_ns == START
    for record in INPUTS[3:]:
        writer.append(record)
    writer.close()
    loading.load()
    assert kept.committed == len(BEGUN) + 3
    assert not loading.behind
    assert not loading.due


def test_a_large_batch_is_due_at_once(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "_BATCH_ROWS", 5)
    monkeypatch.setattr(loader, "_BATCH_S", 3_600.0)
    writer = write(folder, *BEGUN, *INPUTS[:1])
    loading = Loader(folder, Kept(), VENUES)
    loading.step()
    assert not loading.due
    for record in INPUTS[1:4]:
        writer.append(record)
    writer.close()
    loading.step()
    assert loading.due


# --- who deletes the journal -------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["encoder", "loader"])
def test_the_journal_goes_when_lake_and_postgres_have_its_rows(
    lake: Lake, folder: RunFolder, root: Path, postgres_url: str, first: str
) -> None:
    write(folder, *BEGUN, *INPUTS, ENDED).close()
    postgres = Postgres(postgres_url)
    postgres.migrate()
    turns: dict[str, Callable[[], object]] = {
        "encoder": lambda: recover(folder, lake, VENUES, UNTIL),
        "loader": lambda: catch_up(root, postgres, VENUES),
    }
    turns.pop(first)()
    assert folder.path.exists()
    for other in turns.values():
        other()
    assert not folder.path.exists()
    assert Loaded(postgres_url).differences(lake) == []
    postgres.close()


def test_readers_agree_on_when_capture_began_again(
    lake: Lake, folder: RunFolder, root: Path, postgres_url: str
) -> None:
    write(folder, *BEGUN, *INPUTS).close()
    recover(folder, lake, VENUES, UNTIL)
    postgres = Postgres(postgres_url)
    postgres.migrate()
    catch_up(root, postgres, VENUES)
    postgres.close()
    assert {gap["to_ns"] for gap in Loaded(postgres_url).rows("book_gaps") if gap["cause"] == "outage"} == {UNTIL}


def test_an_outage_that_lasts_has_no_end_yet(lake: Lake, folder: RunFolder, root: Path, postgres_url: str) -> None:
    write(folder, *BEGUN, *INPUTS).close()
    postgres = Postgres(postgres_url)
    postgres.migrate()
    assert catch_up(root, postgres, VENUES) == 0
    loaded = Loaded(postgres_url)
    assert loaded.counts()["book_events"] > 0, "what was received is in"
    assert not [gap for gap in loaded.rows("book_gaps") if gap["cause"] == "outage"]
    recover(folder, lake, VENUES, UNTIL)  # a capture begins again
    assert catch_up(root, postgres, VENUES) == 1
    postgres.close()
    assert Loaded(postgres_url).differences(lake) == []
    assert not folder.path.exists()


def test_an_encoder_killed_after_its_last_commit_is_believed(lake: Lake, folder: RunFolder) -> None:
    write(folder, *BEGUN, *INPUTS, ENDED).close()
    report = recover(folder, lake, VENUES, UNTIL)
    assert report.done
    writes = sorted(path.stat().st_mtime_ns for path in Path(lake.root).rglob("*"))
    again = recover(folder, lake, VENUES, UNTIL)
    assert again == report, "its figures are kept"
    assert sorted(path.stat().st_mtime_ns for path in Path(lake.root).rglob("*")) == writes
    folder.finish("loader")  # ... and the loader is killed before it deletes
    recover(folder, lake, VENUES, UNTIL)
    assert not folder.path.exists()


def test_a_journal_that_waits_for_postgres_holds_nobody_up(lake: Lake, folder: RunFolder, root: Path) -> None:
    write(folder, *BEGUN, *INPUTS, ENDED).close()
    finish_journals(root, lake, VENUES)
    assert len(every(lake, "raw_frames")) == 8
    assert folder.path.exists()
    assert folder.awaits_loader


def test_runs_that_live_or_are_loaded_are_passed_over(folder: RunFolder, root: Path, postgres_url: str) -> None:
    write(folder, *BEGUN, *INPUTS, ENDED).close()
    postgres = Postgres(postgres_url)
    postgres.migrate()
    with file_lock(folder.run_lock):
        assert catch_up(root, postgres, VENUES) == 0
    with file_lock(folder.loader_lock):
        assert catch_up(root, postgres, VENUES) == 0
    assert catch_up(root, postgres, VENUES) == 1
    postgres.close()


# --- the process -------------------------------------------------------------------------------------------


def spawn(folder: RunFolder, url: str, *options: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "arb_pipeline.capture.loader", str(folder.path), *FAKE, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "ARB_POSTGRES_URL": url},
    )


def reports(out: bytes) -> list[LoadReport]:
    return [msgspec.json.decode(line, type=LoadReport) for line in out.splitlines()]


def test_an_orphan_loads_what_there_is_and_the_next_start_what_is_missing(
    lake: Lake, folder: RunFolder, postgres_url: str
) -> None:
    write(folder, *BEGUN, *INPUTS).close()
    process = spawn(folder, postgres_url)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert not any(report.done for report in reports(out))
    loaded = Loaded(postgres_url)
    assert loaded.scalar("SELECT position FROM load_positions") == len(BEGUN) + len(INPUTS)
    assert loaded.counts()["trades"] == 1
    assert folder.path.exists(), "when its books were known again only the next start can tell"
    process = spawn(folder, postgres_url, "--recover", str(UNTIL))
    out, _ = process.communicate(timeout=60)
    assert reports(out)[-1].done
    recover(folder, lake, VENUES, UNTIL)
    assert loaded.differences(lake) == []
    assert not folder.path.exists()


def test_without_recorder_and_postgres_a_loader_gives_up(
    folder: RunFolder, no_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, *BEGUN, *INPUTS, ENDED).close()
    monkeypatch.setattr(loader, "PATIENCE_S", 0.5)
    told = io.BytesIO()
    # The input of a test is empty: nobody is there.
    assert loader._load(folder, no_postgres_url, VENUES, None, told) == 1
    assert "No such file" in reports(told.getvalue())[-1].message
    assert folder.awaits_loader


def test_a_loader_that_dies_is_started_again(folder: RunFolder, postgres_url: str) -> None:
    writer = write(folder, *BEGUN, *INPUTS[:4])
    supervised = LoaderProcess(folder, {"fake": FakeVenue()}, SecretStr(postgres_url), backoff_s=(0.05, 0.1))
    supervised.start()
    try:
        until(lambda: supervised.report.rows > 0, "no rows are loaded")
        before = supervised.report
        assert supervised.pid is not None
        assert postgres_url.encode() not in words(supervised.pid), "others can read a command line"
        os.kill(supervised.pid, signal.SIGKILL)
        until(lambda: supervised.report.restarts == 1, "it is not missed")
        for record in (*INPUTS[4:], ENDED):
            writer.append(record)
        writer.close()
        until(lambda: supervised.report.done, "it is not started again")
    finally:
        supervised.leave()
    assert (supervised.report.message, supervised.report.rows > before.rows) == ("", True)
    assert supervised.report.rows == sum(Loaded(postgres_url).counts().values())


# --- beside a capture --------------------------------------------------------------------------------------


def journals(lake: Lake) -> list[RunFolder]:
    return RunFolder.all(journal_root(None, lake.root) / "runs")


async def test_a_capture_fills_postgres_as_the_lake(lake: Lake, postgres_url: str) -> None:
    plain = Lake(lake.root)
    async with fake_exchange() as exchange:
        running = begin(plain, FakeVenue(exchange.url), postgres_url=postgres_url, max_seconds=2)
        ws = await exchange.subscribed()
        await ws.send(SNAP)
        await ws.send(DELTA)
        status = await running.until(lambda status: status.postgres is not None)
        assert status.postgres is not None
        summary = await running.task
    assert summary.postgres is not None
    assert summary.postgres.done
    assert summary.postgres.rows == sum(Loaded(postgres_url).counts().values()) > 4
    until(lambda: not journals(plain), "the journal stays")
    assert Loaded(postgres_url).differences(plain) == []


async def test_postgres_away_costs_a_capture_nothing_and_the_next_one_loads_its_rows(
    lake: Lake, postgres_url: str, no_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_LEFT_S", 0.05)
    plain = Lake(lake.root)
    async with fake_exchange() as exchange:
        running = begin(plain, FakeVenue(exchange.url), postgres_url=no_postgres_url)
        ws = await exchange.subscribed()
        await ws.send(SNAP)
        status = await running.until(lambda status: status.postgres is not None and status.postgres.message != "")
        assert status.postgres is not None
        assert "No such file" in status.postgres.message
        assert status.venues["fake"].message == "", "no trouble of the venue's"
        summary = await running.end()
        assert summary.postgres is not None
        assert (summary.postgres.done, summary.postgres.rows) == (False, 0)
        [left] = journals(plain)
        until(lambda: left.told("encoder") is not None, "the lake does not get its rows")
        assert len(every(plain, "raw_frames")) == 1
        with file_lock(left.loader_lock) as free:
            if not free:
                os.kill(_loader_of(left), signal.SIGKILL)
        running = begin(plain, FakeVenue(exchange.url), run_id="next", postgres_url=postgres_url)
        ws = await exchange.subscribed(2)
        await ws.send(SNAP)
        await running.until(lambda status: len(journals(plain)) == 1 and frames(1)(status))
        await running.end()
    until(lambda: not journals(plain), "the loader does not finish")
    assert Loaded(postgres_url).differences(plain) == []
    assert Loaded(postgres_url).counts()["capture_sessions"] == 2


async def test_where_postgres_is_switched_off_no_journal_waits_for_it(
    lake: Lake, no_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_LEFT_S", 0.05)
    plain = Lake(lake.root)
    async with fake_exchange() as exchange:
        running = begin(plain, FakeVenue(exchange.url), postgres_url=no_postgres_url)
        ws = await exchange.subscribed()
        await ws.send(SNAP)
        await running.until(frames(1))
        await running.end()
        [left] = journals(plain)
        with file_lock(left.loader_lock) as free:
            if not free:
                os.kill(_loader_of(left), signal.SIGKILL)
        running = begin(plain, FakeVenue(exchange.url), run_id="next")
        await exchange.subscribed(2)
        await running.until(lambda _: len(journals(plain)) == 1)
        await running.end()
    until(lambda: not journals(plain), "a journal stays")


def _loader_of(folder: RunFolder) -> int:
    for path in Path("/proc").glob("[0-9]*"):
        if {b"arb_pipeline.capture.loader", str(folder.path).encode()} <= set(words(int(path.name))):
            return int(path.name)
    raise AssertionError(f"nobody loads {folder.path}")


def test_what_nobody_loads_is_loaded_by_hand(
    lake: Lake, folder: RunFolder, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, BEGUN[0], ENDED).close()
    recover(folder, lake, VENUES, UNTIL)
    target = journal_root(tmp_path / "own", lake.root)
    target.mkdir(parents=True)
    folder.path.parent.rename(target / "runs")
    monkeypatch.setenv("ARB_POSTGRES_URL", postgres_url)
    monkeypatch.setenv("ARB_JOURNAL", str(tmp_path / "own"))
    asked = ["postgres", "catch-up", "--lake", lake.root, "--json"]
    for expected in (1, 0):
        result = CliRunner().invoke(app, asked)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout) == {"runs": expected}
    assert RunFolder.all(target / "runs") == []
