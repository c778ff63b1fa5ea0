"""A database of a test's own."""

from collections.abc import Iterator

import pytest

from arb_pipeline.storage.postgres import Postgres


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Postgres]:
    database = Postgres(postgres_url)
    yield database
    database.close()
