from pathlib import Path

import pytest


@pytest.fixture
def no_postgres_url(tmp_path: Path) -> str:
    """The URL of a database that does not answer."""
    return f"postgresql://postgres@/postgres?host={tmp_path}"
