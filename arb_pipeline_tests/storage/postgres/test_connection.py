import logging
import socket
import traceback

import psycopg
import pytest

from arb_pipeline.storage.postgres import Postgres, PostgresError, PostgresUnavailableError
from arb_pipeline.storage.postgres.errors import translated

SECRET = "s3cret%2Fword"


def test_the_session_is_in_utc_and_names_the_application(postgres_url: str) -> None:
    with Postgres(postgres_url, application_name="arb test").connect() as connection:
        assert connection.execute("SHOW TIME ZONE").fetchone() == ("UTC",)
        assert connection.execute("SHOW application_name").fetchone() == ("arb test",)


@pytest.mark.parametrize("url", ["mysql://u:s3cret@h/d", "s3cret", "postgresql://u:s3cret@h:port/d"])
def test_a_url_of_something_else_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(PostgresError) as caught:
        Postgres(url)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    assert "ARB_POSTGRES_URL" in str(caught.value)


def test_the_password_is_in_no_repr_message_trace_or_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    postgres = Postgres(f"postgresql+psycopg2://me:{SECRET}@127.0.0.1:{port}/none")
    with pytest.raises(PostgresUnavailableError) as caught:
        postgres.connect()
    with pytest.raises(PostgresError) as strange:
        Postgres(f"postgresql://me:{SECRET}@127.0.0.1:{port}/none?nonsense={SECRET}").connect()
    with pytest.raises(PostgresUnavailableError) as migrating:
        postgres.migrate()
    told = [repr(postgres), str(postgres), caplog.text, *vars(postgres).values()]
    for error in (caught, strange, migrating):
        told += traceback.format_exception(error.value)
    public = [text for text in told if text not in (postgres._url, postgres._password, postgres._quoted_password)]
    assert not any("s3cret" in str(text) for text in public)
    assert f"127.0.0.1:{port}/none" in str(caught.value)


def test_what_waiting_mends_is_told_from_what_it_does_not(postgres_url: str) -> None:
    with pytest.raises(PostgresError, match="does not exist") as caught:
        Postgres(postgres_url.replace("/arb_", "/missing_")).connect()
    assert not isinstance(caught.value, PostgresUnavailableError)
    ours = Postgres(postgres_url)
    with pytest.raises(PostgresError) as refused, ours.connected() as connection:
        connection.execute("SELECT 1 / 0")
    assert not isinstance(refused.value, PostgresUnavailableError)
    with ours.connected() as connection:  # the connection is still good
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(PostgresUnavailableError), ours.connected() as connection:
        raise psycopg.errors.DeadlockDetected("deadlock")
    ours.close()


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (psycopg.errors.AdminShutdown("x"), True),
        (psycopg.errors.CannotConnectNow("x"), True),
        (psycopg.errors.DiskFull("x"), True),
        (psycopg.errors.TooManyConnections("x"), True),
        (psycopg.errors.ReadOnlySqlTransaction("x"), True),
        (psycopg.OperationalError("server closed the connection unexpectedly"), True),
        (psycopg.OperationalError('password authentication failed for user "me"'), False),
        (psycopg.errors.InsufficientPrivilege("x"), False),
        (psycopg.errors.UndefinedTable("x"), False),
    ],
)
def test_which_errors_are_worth_trying_again(error: psycopg.Error, again: bool) -> None:
    assert isinstance(translated(error, "loading"), PostgresUnavailableError) is again
