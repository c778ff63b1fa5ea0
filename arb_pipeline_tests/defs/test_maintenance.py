from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from arb_pipeline.definitions import build
from arb_pipeline.defs.maintenance import LAKE_CHECK_JOB, RETENTION_JOB
from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake, Partition
from arb_pipeline.tables import table


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Raw frames of an hour ten days ago and of one a day ago."""
    lake = Lake(str(tmp_path / "lake"))
    for days in (10, 1):
        at = datetime.now(UTC) - timedelta(days=days)
        row: dict[str, object] = {
            "venue": "kalshi",
            "source": "ws",
            "connection_id": "c",
            "ordinal": days,
            "frame": "{}",
        }
        rows = pa.Table.from_pylist(
            [{**row, "recv_ns": int(at.timestamp()) * 10**9}], schema=table("raw_frames").schema
        )
        lake.write_part("raw_frames", Partition.of("raw_frames", "kalshi", at), rows, "run")
    return lake


def run(job: str) -> dg.ExecuteInProcessResult:
    return build(Settings()).resolve_job_def(job).execute_in_process(raise_on_error=False)


def test_retention_does_nothing_unless_it_is_set(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(RETENTION_JOB).success
    assert lake.read("raw_frames").num_rows == 2
    monkeypatch.setenv("ARB_RAW_FRAMES_DAYS", "5")
    assert run(RETENTION_JOB).success
    assert lake.read("raw_frames")["ordinal"].to_pylist() == [1]


def test_the_check_fails_where_the_lake_is_not_sound(lake: Lake) -> None:
    assert run(LAKE_CHECK_JOB).success
    next(Path(lake.root).rglob("*.parquet")).unlink()
    result = run(LAKE_CHECK_JOB)
    assert not result.success
    [failure] = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    assert "1 problems in the lake" in str(failure.event_specific_data)
