"""``arb postgres`` and ``arb listeners`` as a user meets them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from arb_pipeline.cli import app
from arb_pipeline.errors import ArbError
from arb_pipeline.storage import Lake
from arb_pipeline.storage.postgres import Postgres, TickLoader
from arb_pipeline.storage.postgres.migrating import head
from arb_pipeline_tests.storage.postgres.reading import rows_of, select
from arb_pipeline_tests.storage.rows import TWENTY, quotes

runner = CliRunner()


def arb(*words: str) -> str:
    found = runner.invoke(app, words, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout


def test_a_new_database_from_nothing_to_filled_and_trimmed(
    empty_postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARB_POSTGRES_URL", empty_postgres_url)
    assert "schema none: arb postgres migrate" in arb("postgres", "status")
    assert f"schema {head()}" in arb("postgres", "migrate")
    assert "indexed" not in arb("postgres", "migrate")
    Lake(str(tmp_path / "lake")).replace("quotes", TWENTY, quotes(("A", 1, 1)))
    assert "1 partitions published" in arb("postgres", "sync", "--date", "2026-05-13")
    assert "0 partitions published" in arb("postgres", "sync")
    postgres = Postgres(empty_postgres_url)
    assert rows_of(postgres, "quotes") == quotes(("A", 1, 1)).to_pylist()
    TickLoader(postgres, "run7", "").load(3, {"quotes": quotes(("A", 1, 1), ("B", 2, 2))})
    told = json.loads(arb("postgres", "status", "--json"))
    assert told["runs"] == [{"run_id": "run7", "position": 3, "rows": 1, "complete": False}]
    assert [day["is_indexed"] for day in told["days"] if day["table"] == "quotes"] == [True]
    assert "1 days would be dropped" in arb("postgres", "retention", "--days", "0", "--dry-run")
    monkeypatch.setenv("ARB_POSTGRES_RETENTION_DAYS", "3")
    assert "1 days dropped" in arb("postgres", "retention")
    assert rows_of(postgres, "quotes") == []
    assert "0 partitions published" in arb("postgres", "sync", "--force")
    TickLoader(postgres, "run8", "").load(3, {"quotes": quotes(("A", 1, 1))})
    assert "quotes_20260513: indexed by market" in arb("postgres", "migrate")
    postgres.close()


def test_roles_are_printed_without_a_server_and_applied_with_one(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert arb("postgres", "roles").rstrip().endswith(";")
    monkeypatch.setenv("ARB_POSTGRES_URL", postgres_url)
    assert "statements run" in arb("postgres", "roles", "--apply")
    postgres = Postgres(postgres_url)
    assert select(postgres, "SELECT has_table_privilege('arb_reader', 'quotes', 'INSERT')") == [(False,)]
    postgres.close()


@pytest.mark.parametrize("verb", ["migrate", "sync", "retention", "status"])
def test_without_a_url_it_says_which_setting_is_missing(verb: str) -> None:
    with pytest.raises(ArbError, match="set ARB_POSTGRES_URL"):
        runner.invoke(app, ["postgres", verb], catch_exceptions=False)


def test_listeners_are_kept_in_the_table(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARB_POSTGRES_URL", postgres_url)
    monkeypatch.setenv("ARB_LISTENERS_PATH", str(tmp_path / "listeners.yaml"))
    assert "each venue has one listener without filters" in arb("listeners", "list")
    assert "table listeners of postgresql://" in arb("listeners", "seed")
    arb("listeners", "add", "fed", "kalshi", "series_tickers=KXFED", "min_volume=1000")
    arb("listeners", "pause", "fed")
    listed = {one["name"]: one for one in json.loads(arb("listeners", "list", "--json"))}
    assert set(listed) == {"all-kalshi", "all-polymarket", "fed"}
    assert listed["fed"]["is_active"] is False
    assert not (tmp_path / "listeners.yaml").exists()
