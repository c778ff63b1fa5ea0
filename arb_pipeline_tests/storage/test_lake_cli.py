"""``arb lake``: output, JSON and exit codes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from arb_pipeline.cli import app
from arb_pipeline.errors import ArbError
from arb_pipeline.storage import Lake, Partition
from arb_pipeline_tests.storage.rows import START, TWENTY, quotes
from arb_pipeline_tests.storage.test_retention import frames

runner = CliRunner()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1), ("A", 2, 2)), "again")
    lake.write_part("raw_frames", Partition.of("raw_frames", "kalshi", START), frames(START, 1), "run")
    return lake


def test_describe(lake: Lake) -> None:
    told = json.loads(runner.invoke(app, ["lake", "describe", "--json"]).stdout)
    assert (told["quotes"]["partitions"], told["quotes"]["files"], told["quotes"]["rows"]) == (1, 2, 3)
    assert told["trades"]["rows"] == 0
    shown = runner.invoke(app, ["lake", "describe"]).stdout
    assert "2026-05-13 20:00:02" in shown


def test_compact(lake: Lake) -> None:
    assert "1 repeats left out" in runner.invoke(app, ["lake", "compact", "--table", "quotes"]).stdout
    assert len(lake.files("quotes")) == 1
    assert json.loads(runner.invoke(app, ["lake", "compact", "--json"]).stdout) == {
        f"raw_frames/{TWENTY.path}": {"rows": 1, "dropped": 0, "conflicts": 0}
    }


def test_check_tells_what_is_wrong_by_exit_code_too(lake: Lake) -> None:
    done = runner.invoke(app, ["lake", "check"])
    assert (done.exit_code, "3 files, 4 rows" in done.stdout, "sound" in done.stdout) == (0, True, True)
    Path(lake.files("raw_frames")[0].path).unlink()
    orphan = Path(lake.location("quotes", TWENTY, "part-dead-000000000000.parquet"))
    orphan.write_bytes(b"PAR1")
    done = runner.invoke(app, ["lake", "check", "--quick", "--json"])
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert (told["sound"], told["in_flight"]) == (False, 1)
    assert [one["problem"] for one in told["findings"]] == ["missing"]
    assert runner.invoke(app, ["lake", "check", "--table", "quotes"]).exit_code == 0
    assert runner.invoke(app, ["lake", "check", "--table", "quotes", "--grace", "0"]).exit_code == 1
    done = runner.invoke(app, ["lake", "check", "--table", "quotes", "--grace", "0", "--repair"])
    assert (done.exit_code, "orphan" in done.stdout, "deleted" in done.stdout) == (0, True, True)
    assert not orphan.exists()
    assert runner.invoke(app, ["lake", "check", "--to", "2026-05-13T20:00:00"]).exit_code == 0
    assert runner.invoke(app, ["lake", "check", "--from", "2026-05-13T20:00:00"]).exit_code == 1


def test_retention_needs_to_be_told_how_long(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = runner.invoke(app, ["lake", "retention"])
    assert isinstance(refused.exception, ArbError)
    assert "ARB_RAW_FRAMES_DAYS" in str(refused.exception)
    monkeypatch.setenv("ARB_RAW_FRAMES_DAYS", "1")
    told = json.loads(runner.invoke(app, ["lake", "retention", "--dry-run", "--json"]).stdout)
    assert [one["partition"] for one in told["removed"]] == [TWENTY.path]
    assert lake.read("raw_frames").num_rows == 1
    assert "1 partitions older than 1 days removed" in runner.invoke(app, ["lake", "retention"]).stdout
    assert lake.read("raw_frames").num_rows == 0
    assert lake.read("quotes").num_rows == 3


def test_a_table_that_nobody_declared_is_named(lake: Lake) -> None:
    refused = runner.invoke(app, ["lake", "check", "--table", "quote"])
    assert "no table 'quote'" in str(refused.exception)
