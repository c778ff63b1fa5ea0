"""Connections to Postgres by URL, with every error told without the password."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias
from urllib.parse import unquote, urlsplit, urlunsplit

import psycopg

from arb_pipeline.storage.postgres.errors import PostgresError, translated

__all__ = ["Connection", "Postgres", "exchange_of", "hold_exchange"]

Connection: TypeAlias = psycopg.Connection[tuple[object, ...]]

_SCHEMES: Final = ("postgresql", "postgres")


class Postgres:
    """A database by its URL. Nothing is opened before it is needed; one thread at a time.

    Attributes:
        place: the URL without its password and options, for messages.
        application_name: what the server's ``pg_stat_activity`` tells of our connections.

    Raises:
        PostgresError: if the URL is not one of Postgres.
    """

    def __init__(self, url: str, *, application_name: str = "arb") -> None:
        scheme, separator, rest = url.partition("://")
        if not separator or scheme.partition("+")[0] not in _SCHEMES:
            raise PostgresError("ARB_POSTGRES_URL is no URL of Postgres: expected postgresql://user@host:port/database")
        self._url = f"postgresql://{rest}"
        try:
            parts = urlsplit(self._url)
            _port = parts.port
        except ValueError:
            # The message would repeat what it refuses, which may hold a password.
            raise PostgresError(
                "ARB_POSTGRES_URL is malformed: expected postgresql://user@host:port/database"
            ) from None
        self._password = unquote(parts.password) if parts.password else None
        self._quoted_password = parts.password
        self.place = urlunsplit(("postgresql", parts.netloc.rpartition("@")[2] or "local", parts.path, "", ""))
        self.application_name = application_name
        self._own: Connection | None = None

    def __repr__(self) -> str:
        return f"Postgres({self.place!r}, {self.application_name!r})"

    def connect(self) -> Connection:
        """A new connection, its session in UTC; the caller closes it.

        Raises:
            PostgresUnavailableError: if the server cannot be reached now. PostgresError: if it refuses us.
        """
        with self.errors("cannot connect"):
            connection: Connection = psycopg.connect(
                self._url,
                autocommit=True,
                application_name=self.application_name,
                connect_timeout=10,
                # A server that is gone without a word is noticed within half a minute.
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=3,
                tcp_user_timeout=30_000,
            )
            try:
                connection.execute("SET TIME ZONE 'UTC'")
                connection.autocommit = False
            except BaseException:
                connection.close()
                raise
        return connection

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        """The object's own connection, kept for the next time, within a transaction: committed, or rolled back.

        Raises:
            PostgresUnavailableError, PostgresError: what the driver raises within, translated.
        """
        if self._own is None or self._own.closed:
            self._own = self.connect()
        connection = self._own
        with self.errors("Postgres"):
            try:
                with connection.transaction():
                    yield connection
            except psycopg.OperationalError:
                # Whatever state it is in, the next one starts afresh.
                self.close()
                raise

    def migrate(self) -> None:
        """Bring the schema up to date: :func:`~arb_pipeline.storage.postgres.migrating.migrate`."""
        from arb_pipeline.storage.postgres.migrating import migrate  # noqa: PLC0415 - it loads Alembic

        migrate(self)

    def close(self) -> None:
        """Close the object's own connection, if there is one."""
        if self._own is not None:
            self._own.close()
            self._own = None

    @contextmanager
    def errors(self, action: str) -> Iterator[None]:
        """Errors of the driver within, as ours, with the password taken out."""
        try:
            yield
        except psycopg.Error as error:
            ours = translated(error, f"{self.place}: {action}", self._password)
            hides = self._password is None or (
                self._password not in str(error) and str(self._quoted_password) not in str(error)
            )
            raise ours from (error if hides else None)


def exchange_of(connection: Connection) -> str | None:
    """Name of the local exchange that the database's rows come from, empty for the real venues; None: no rows yet."""
    row = connection.execute("SELECT exchange FROM data_origin").fetchone()
    return None if row is None else str(row[0])


def hold_exchange(connection: Connection, exchange: str) -> None:
    """Claim the database for rows of one origin, as the lake keeps origins apart.

    Raises:
        PostgresError: if it holds rows of another one.
    """
    connection.execute("INSERT INTO data_origin (exchange) VALUES (%s) ON CONFLICT DO NOTHING", (exchange,))
    held = exchange_of(connection)
    if held != exchange:
        raise PostgresError(
            f"the database holds data of {held or 'the real venues'}, these rows come from "
            f"{exchange or 'the real venues'}; give each its own database (ARB_POSTGRES_URL)"
        )
