"""Where tests find shared data: by environment variable, skipping with a reason where it is not set.

``ARB_REQUIRE_SHARED=1`` (set by ``.ci/run``) turns such a skip into a failure.
"""

import contextlib
import importlib
import os
import tempfile
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

from arb_pipeline.settings import Settings


def absent(reason: str) -> NoReturn:
    """Skip a test for want of something that can be installed or named; under CI, which has all of it, fail."""
    if os.environ.get("ARB_REQUIRE_SHARED"):
        pytest.fail(reason)
    pytest.skip(reason)


def required(module: str) -> Any:
    """A module of an extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        absent(f"{error}: install the extras as README.md says")


def shared_folder(variable: str) -> Path:
    """The folder that an environment variable names; skips (or, under CI, fails) without it."""
    value = os.environ.get(variable)
    if value:
        path = Path(value)
        assert path.is_dir(), f"{variable}={value} is not a folder"
        return path
    absent(f"{variable} is not set: point it at the folder to run this test")


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of real recordings."""
    return shared_folder("ARB_RECORDINGS")


@pytest.fixture(scope="session")
def labelled_pairs() -> Path:
    """The folder of labelled cross-venue pairs."""
    return shared_folder("ARB_MATCHING")


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of exact arbitrage cases."""
    return shared_folder("ARB_GOLDEN")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads the developer's settings, keys, home or ``.env``."""
    for name in list(os.environ):
        if name.startswith(("ARB_", "KALSHI_", "POLY_", "DAGSTER_")) and name not in {
            "ARB_RECORDINGS",
            "ARB_MATCHING",
            "ARB_GOLDEN",
            "ARB_SPECS",
            "ARB_REQUIRE_SHARED",
            "ARB_ARTIFACTS",
            "ARB_CHROMIUM",
        }:
            monkeypatch.delenv(name)
    monkeypatch.setenv("ARB_LAKE", str(tmp_path / "lake"))
    monkeypatch.setitem(Settings.model_config, "env_file", None)


@dataclass(frozen=True)
class ObjectStore:
    """An S3-compatible server of this test run.

    Attributes:
        url: root of a lake in a bucket of the test's own.
        environment: what a process needs to reach it; set in this process while the test runs.
        requests: method, path and query of every request so far, of all tests.
    """

    url: str
    environment: dict[str, str]
    requests: list[tuple[str, str, str]]


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Moto's server in a thread; its address, and the requests that it got.

    Requests are answered one after the other: S3 promises that a conditional put is one step, moto's does not.
    """
    try:
        import s3fs  # noqa: F401
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server
    except ImportError as error:
        absent(f"no S3-compatible server: {error}; install the extra 'dev'")

    class Quiet(WSGIRequestHandler):
        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Requests are kept in the list instead."""

    application = DomainDispatcherApplication(create_backend_app)
    turn = threading.Lock()
    requests: list[tuple[str, str, str]] = []

    def answer(environ: Any, start_response: Any) -> list[bytes]:
        with turn:
            requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"]))
            return list(application(environ, start_response))

    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", requests
    server.shutdown()
    thread.join()


@pytest.fixture
def s3_lake(_s3_server: tuple[str, list[tuple[str, str, str]]], monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """A lake's URL in a new bucket of an S3-compatible server, which this process's environment names."""
    import s3fs

    address, requests = _s3_server
    environment = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "throwaway",
        "AWS_SECRET_ACCESS_KEY": "throwaway",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"arb-{uuid.uuid4().hex[:12]}"
    s3fs.S3FileSystem().mkdir(bucket)
    return ObjectStore(f"s3://{bucket}/lake", environment, requests)


@pytest.fixture(scope="session")
def _postgres_server() -> Iterator[Any]:
    """A PostgreSQL server of our own from the wheel, one per test process, that does not wait for its disk."""
    from arb_pipeline.storage.postgres.embedded import EmbeddedPostgres
    from arb_pipeline.storage.postgres.errors import PostgresError

    # A short path of its own: pytest's folders are closed to the user that the server runs as where we are root.
    with tempfile.TemporaryDirectory(prefix="arb-pg-") as folder:
        server = EmbeddedPostgres(folder, options={"fsync": "off", "full_page_writes": "off"})
        try:
            server.start()
        except PostgresError as error:
            absent(str(error))
        yield server
        server.stop()


@pytest.fixture(scope="session")
def _postgres_template(_postgres_server: Any) -> str:
    """A database with the schema in it: copying it is ten times faster than migrating."""
    from arb_pipeline.storage.postgres import Postgres

    database = Postgres(_postgres_server.ensure_database("arb_template"))
    database.migrate()
    database.close()
    return "arb_template"


@contextlib.contextmanager
def _database(server: Any, template: str) -> Iterator[str]:
    import psycopg

    name = f"arb_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield server.url_of(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(_postgres_server: Any, _postgres_template: str) -> Iterator[str]:
    """The URL of a new database with the schema in it, dropped at the end with whoever is still connected."""
    with _database(_postgres_server, _postgres_template) as url:
        yield url


@pytest.fixture
def empty_postgres_url(_postgres_server: Any) -> Iterator[str]:
    """The URL of a new database with nothing in it."""
    with _database(_postgres_server, "template0") as url:
        yield url
