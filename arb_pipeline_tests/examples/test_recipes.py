"""Every recipe of ``docs/queries.md`` runs."""

import re
from pathlib import Path

import psycopg
import pytest

from arb_pipeline.storage.postgres import Postgres
from arb_pipeline.storage.query import run
from arb_pipeline_tests.examples.conftest import Captured

PAGE = Path(__file__).parents[2] / "docs" / "queries.md"


def recipes(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_there_are_recipes_of_every_kind() -> None:
    assert {language: len(recipes(language)) > 0 for language in ("bash", "sql", "python", "psql")} == dict.fromkeys(
        ("bash", "sql", "python", "psql"), True
    )


@pytest.mark.slow
@pytest.mark.parametrize("recipe", recipes("sql"))
def test_sql(recipe: str, captured: Captured) -> None:
    answer = run(captured.lake, recipe).table()
    assert answer.num_rows or "accepted" in recipe, "nothing found"


@pytest.mark.slow
@pytest.mark.parametrize("recipe", recipes("python"))
def test_python(recipe: str, captured: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARB_LAKE", captured.lake.root)
    names: dict[str, object] = {}
    exec(compile(recipe, str(PAGE), "exec"), names)
    made = {name for name in names if not name.startswith("__")} - {"arb_pipeline", "pd"}
    assert made
    for name in made & {"quotes", "trades", "by_second", "busiest", "ladder"}:
        assert len(names[name]), name  # type: ignore[arg-type]


def test_postgres(postgres_url: str) -> None:
    Postgres(postgres_url).migrate()
    with psycopg.connect(postgres_url) as connection:
        for recipe in recipes("psql"):
            assert connection.execute(recipe.encode()).fetchall() == []
