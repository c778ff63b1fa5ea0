import logging
from pathlib import Path

import pytest
from pydantic import SecretStr

from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake
from arb_pipeline.storage.mirroring import mirror_tables
from arb_pipeline.storage.postgres import Postgres, TickLoader
from arb_pipeline.storage.postgres.retention import days
from arb_pipeline_tests.storage.postgres.reading import rows_of
from arb_pipeline_tests.storage.postgres.test_publishing import DAY, filled
from arb_pipeline_tests.storage.rows import quotes


def test_the_write_stands_while_postgres_is_down_and_the_next_one_makes_it_good(
    postgres: Postgres, postgres_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    lake.replace("markets", DAY, filled("markets"))
    down = Settings(postgres_url=SecretStr("postgresql://me:s3cret@127.0.0.1:1/none"))
    with caplog.at_level(logging.WARNING):
        mirror_tables(down, lake, "markets")
    assert "arb postgres sync" in caplog.text
    assert "s3cret" not in caplog.text
    mirror_tables(Settings(), lake, "markets")  # without Postgres: nothing at all
    assert rows_of(postgres, "markets") == []
    mirror_tables(Settings(postgres_url=SecretStr(postgres_url)), lake, "markets", day=DAY.date)
    assert rows_of(postgres, "markets") == filled("markets").to_pylist()


def test_days_that_are_over_are_indexed_on_the_way(postgres: Postgres, postgres_url: str, tmp_path: Path) -> None:
    TickLoader(postgres, "run", "").load(1, {"quotes": quotes(("A", 1, 1))})
    assert [day.is_indexed for day in days(postgres)] == [False]
    mirror_tables(Settings(postgres_url=SecretStr(postgres_url)), Lake(str(tmp_path / "lake")), "markets")
    assert [day.is_indexed for day in days(postgres)] == [True]
