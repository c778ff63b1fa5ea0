from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage

from arb_pipeline.defs.instance import EnvSwitchedStorage, with_psycopg2

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2", "postgresql+psycopg"])
def test_every_spelling_of_postgres_becomes_psycopg2(scheme: str) -> None:
    assert with_psycopg2(f"{scheme}://u:p@h:5432/d?sslmode=require") == (
        "postgresql+psycopg2://u:p@h:5432/d?sslmode=require"
    )


def test_another_database_is_refused_without_repeating_its_password() -> None:
    with pytest.raises(ValueError, match="postgresql://") as error:
        with_psycopg2("mysql://user:hunter2@host/db")
    assert "hunter2" not in str(error.value)
    with pytest.raises(ValueError, match="postgresql://"):
        with_psycopg2("user:hunter2@host/db")


def test_without_the_variable_storage_is_sqlite_below_dagster_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    storage = EnvSwitchedStorage.from_config_value(None, {"url_env": "ARB_DAGSTER_POSTGRES_URL", "base_dir": "."})
    assert isinstance(storage, DagsterSqliteStorage)
    assert (tmp_path / "history" / "runs").is_dir()


def test_without_a_home_nothing_is_left_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    EnvSwitchedStorage.from_config_value(None, {"url_env": "ARB_DAGSTER_POSTGRES_URL", "base_dir": "."})
    assert [path.name for path in tmp_path.iterdir()] == [".dagster"]


def test_with_the_variable_storage_is_postgres(monkeypatch: pytest.MonkeyPatch) -> None:
    import dagster_postgres

    urls: list[str] = []

    class Recorded:
        def __init__(self, url: str) -> None:
            urls.append(url)

    monkeypatch.setattr(dagster_postgres, "DagsterPostgresStorage", Recorded)
    monkeypatch.setenv("ARB_DAGSTER_POSTGRES_URL", "postgresql://u:p@h/d")
    storage = EnvSwitchedStorage.from_config_value(None, {"url_env": "ARB_DAGSTER_POSTGRES_URL", "base_dir": "."})
    assert isinstance(storage, Recorded)
    assert urls == ["postgresql+psycopg2://u:p@h/d"]


def test_dagster_yaml_opens_an_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as instance:
        assert instance.get_runs_count() == 0
        limits = yaml.safe_load((ROOT / "dagster.yaml").read_text())["concurrency"]["runs"]["tag_concurrency_limits"]
        assert limits == [{"key": "arb/shard", "value": {"applyLimitPerUniqueValue": True}, "limit": 3}]
    assert (tmp_path / "history").is_dir()


def test_runs_and_events_are_kept_in_postgres(
    empty_postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("ARB_DAGSTER_POSTGRES_URL", empty_postgres_url)

    @dg.asset
    def one() -> None: ...

    with dg.DagsterInstance.get() as instance:
        result = dg.materialize([one], instance=instance)
        instance.add_run_tags(result.run_id, {"arb/heartbeat": "1"})
    with dg.DagsterInstance.get() as again:
        (run,) = again.get_runs()
        assert run.status is dg.DagsterRunStatus.SUCCESS
        assert run.tags["arb/heartbeat"] == "1"
        assert again.get_latest_materialization_event(dg.AssetKey("one")) is not None
    assert not (tmp_path / "history").exists()
