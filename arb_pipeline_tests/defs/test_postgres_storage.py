"""Dagster's storage and the pipeline's tables on an embedded Postgres."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from arb_pipeline.defs.home import prepare_home
from arb_pipeline.defs.postgres import POSTGRES_JOB, postgres_job
from arb_pipeline.defs.resources import pipeline_resource
from arb_pipeline.storage import Lake
from arb_pipeline.storage.postgres import EmbeddedPostgres, Postgres, TickLoader, embedded_environment
from arb_pipeline.storage.postgres.migrating import head, revision
from arb_pipeline.storage.postgres.retention import days
from arb_pipeline_tests.storage.postgres.reading import rows_of
from arb_pipeline_tests.storage.postgres.test_publishing import DAY, filled
from arb_pipeline_tests.storage.rows import quotes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def home(_postgres_server: Any) -> Iterator[Path]:
    """A home that the server's user may reach."""
    with tempfile.TemporaryDirectory(prefix="arb-home-") as name:
        yield prepare_home(ROOT, Path(name))


@dg.asset
def number() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(metadata={"rows": 3})


def test_runs_events_and_schedules_are_kept_in_the_embedded_postgres(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with embedded_environment(home / "postgres") as server:
        assert os.environ["ARB_POSTGRES_URL"] == server.url_of("arb")
        for _ in range(2):  # what is written is there for the next process
            with dg.DagsterInstance.get() as instance:
                kinds = {
                    type(part).__module__.split(".")[0] for part in (instance.run_storage, instance.event_log_storage)
                }
                assert kinds == {"dagster_postgres"}
                assert type(instance.schedule_storage).__module__.startswith("dagster_postgres")
                if not instance.get_runs_count():
                    result = dg.materialize([number], instance=instance)
                    assert result.success
                event = instance.get_latest_materialization_event(dg.AssetKey("number"))
                assert event is not None
                assert event.asset_materialization is not None
                assert event.asset_materialization.metadata["rows"].value == 3
                assert instance.get_runs_count() == 1
        Postgres(os.environ["ARB_POSTGRES_URL"]).migrate()
        assert revision(Postgres(os.environ["ARB_POSTGRES_URL"])) == head()
    assert "ARB_POSTGRES_URL" not in os.environ
    assert server.pid is None


def test_a_server_that_the_environment_names_stays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARB_POSTGRES_URL", "postgresql://mine@somewhere/arb")
    with embedded_environment(home / "postgres") as server:
        assert os.environ["ARB_POSTGRES_URL"] == "postgresql://mine@somewhere/arb"
        assert os.environ["ARB_DAGSTER_POSTGRES_URL"] == server.url_of("dagster")
    assert isinstance(server, EmbeddedPostgres)
    assert os.environ["ARB_POSTGRES_URL"] == "postgresql://mine@somewhere/arb"


def test_the_upkeep_fills_what_is_missing_drops_old_days_and_indexes_those_that_are_over(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, postgres = Lake(str(tmp_path / "lake")), Postgres(postgres_url)
    lake.replace("markets", DAY, filled("markets"))
    TickLoader(postgres, "run", "").load(1, {"quotes": quotes(("A", 1, 1))})
    job = definitions().resolve_job_def(POSTGRES_JOB)
    assert job.execute_in_process().success  # without a URL: nothing to do
    assert len(days(postgres)) == 1
    monkeypatch.setenv("ARB_POSTGRES_URL", postgres_url)
    monkeypatch.setenv("ARB_POSTGRES_RETENTION_DAYS", "1")
    assert job.execute_in_process().success
    assert rows_of(postgres, "markets") == filled("markets").to_pylist()
    assert days(postgres) == []
    TickLoader(postgres, "run", "").load(2, {"quotes": quotes(("A", 1, 1))})
    monkeypatch.delenv("ARB_POSTGRES_RETENTION_DAYS")
    assert job.execute_in_process().success
    assert [day.is_indexed for day in days(postgres)] == [True]
    postgres.close()


def definitions() -> dg.Definitions:
    return dg.Definitions(jobs=[postgres_job({})], resources={"pipeline": pipeline_resource})
