"""Where listeners are kept: in their YAML file, or, where Postgres is on, in its table ``listeners``.

The table takes over once it holds a listener: ``arb listeners seed`` copies the file into it. Handlers stay in the
file.
"""

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from arb_pipeline.capture.listeners import (
    Listener,
    ListenerError,
    add_listener,
    load_listeners,
    parse_listener,
    seed_listeners,
    set_active,
)
from arb_pipeline.settings import Settings

if TYPE_CHECKING:
    from arb_pipeline.storage.postgres import Postgres
    from arb_pipeline.storage.postgres.connection import Connection

__all__ = ["Fields", "FileListeners", "ListenerStore", "PostgresListeners", "listener_store"]

_log = logging.getLogger(__name__)

Fields: TypeAlias = Mapping[str, str | Sequence[str]]
"""A listener's fields as people write them."""


class ListenerStore(Protocol):
    """What both kinds offer.

    Attributes:
        place: where it is, for messages.
    """

    @property
    def place(self) -> str:
        """Where it is, for messages."""

    def is_empty(self) -> bool:
        """Whether it says nothing, so that every venue has one listener without filters."""

    def load(self, *, strict: bool = False) -> tuple[Listener, ...]:
        """The listeners, in their order.

        Args:
            strict: raise where they cannot be asked for now, rather than read the file in their stead.

        Raises:
            ListenerError: if one of them is not valid.
            PostgresError: if strict.
        """

    def add(self, fields: Fields) -> Listener:
        """Add a listener at the end.

        Raises:
            ListenerError: if it is not valid, or its name is taken; nothing is changed then.
        """

    def set_active(self, name: str, *, active: bool) -> None:
        """Pause or resume a listener.

        Raises:
            ListenerError: if there is none of that name.
        """

    def seed(self) -> None:
        """Fill it: the file with an example, the table from the file.

        Raises:
            ListenerError: if it is filled already.
        """

    def version(self) -> object:
        """Something that changes with the listeners.

        Raises:
            PostgresError: if they cannot be asked for now.
        """


class FileListeners:
    """The YAML file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def place(self) -> str:
        """The file's path."""
        return str(self._path)

    def is_empty(self) -> bool:
        """Whether there is no file."""
        return not self._path.exists()

    def load(self, *, strict: bool = False) -> tuple[Listener, ...]:  # noqa: ARG002 - a file can always be asked
        """What the file lists."""
        return load_listeners(self._path)

    def add(self, fields: Fields) -> Listener:
        """Append to the file."""
        return add_listener(self._path, fields)

    def set_active(self, name: str, *, active: bool) -> None:
        """Change one word of the file."""
        set_active(self._path, name, active=active)

    def seed(self) -> None:
        """Write the example."""
        seed_listeners(self._path)

    def version(self) -> object:
        """Time of the last change of the file."""
        try:
            return self._path.stat().st_mtime_ns
        except FileNotFoundError:
            return 0


class PostgresListeners:
    """Table ``listeners``. While it holds none, or Postgres is not there, the file is read in its stead."""

    def __init__(self, postgres: "Postgres", file: FileListeners) -> None:
        self._postgres = postgres
        self._file = file

    @property
    def place(self) -> str:
        """The table and its database."""
        return f"table listeners of {self._postgres.place}"

    def is_empty(self) -> bool:
        """Whether neither table nor file say anything."""
        return not self._rows() and self._file.is_empty()

    def load(self, *, strict: bool = False) -> tuple[Listener, ...]:
        """The table's listeners; the file's where it has none, or (unless strict) cannot be asked, which is logged."""
        from arb_pipeline.storage.postgres import PostgresError  # noqa: PLC0415 - it loads SQLAlchemy

        try:
            rows = self._rows()
        except PostgresError as error:
            if strict:
                raise
            _log.warning("listeners are read from %s, since Postgres cannot be asked: %s", self._file.place, error)
            return self._file.load()
        if not rows:
            return self._file.load()
        return tuple(parse_listener(fields, number, self.place) for number, fields in enumerate(rows, 1))

    def add(self, fields: Fields) -> Listener:
        """Insert a row; a file that there is has to be copied first, since the table takes over from it."""
        listener = parse_listener(dict(fields), 0, self.place)
        rows = self._rows()
        if not rows and not self._file.is_empty():
            raise ListenerError(
                f"{self.place} is empty and would take over from {self._file.place}: run 'arb listeners seed' first"
            )
        if any(row["name"] == listener.name for row in rows):
            raise ListenerError(f"{self.place} has a listener {listener.name!r} already: choose another name")
        self._insert([dict(fields)])
        return listener

    def set_active(self, name: str, *, active: bool) -> None:
        """Update a row."""
        with self._connected() as connection:
            changed = connection.execute(
                "UPDATE listeners SET is_active = %s, updated_at = now() WHERE name = %s", (active, name)
            ).rowcount
        if not changed:
            names = ", ".join(str(row["name"]) for row in self._rows())
            raise ListenerError(f"{self.place} has no listener {name!r}; it has {names or 'none: arb listeners seed'}")

    def seed(self) -> None:
        """Copy the file's listeners; without a file those that capture what is captured without one."""
        if self._rows():
            raise ListenerError(f"{self.place} holds listeners and is left as it is")
        self._insert([listener.model_dump(mode="json", exclude_unset=True) for listener in self._file.load()])

    def version(self) -> object:
        """Rows and the newest change; the file counts too, which may be what is read."""
        with self._connected() as connection:
            told = connection.execute("SELECT count(*), max(updated_at) FROM listeners").fetchone()
        return told, self._file.version()

    @contextlib.contextmanager
    def _connected(self) -> Iterator["Connection"]:
        """A connection for as long as it takes: listeners are looked at once in a while."""
        try:
            with self._postgres.connected() as connection:
                yield connection
        finally:
            self._postgres.close()

    def _rows(self) -> list[dict[str, object]]:
        with self._connected() as connection:
            rows = connection.execute(
                "SELECT name, venue, is_active, fields FROM listeners ORDER BY position"
            ).fetchall()
        found = []
        for name, venue, is_active, fields in rows:
            assert isinstance(fields, dict)  # written by us
            found.append({"name": name, "venue": venue, "is_active": is_active, **fields})
        return found

    def _insert(self, listeners: Sequence[Mapping[str, object]]) -> None:
        with self._connected() as connection:
            for listener in listeners:
                own = {key: value for key, value in listener.items() if key not in {"name", "venue", "is_active"}}
                active = parse_listener(dict(listener), 0, self.place).is_active
                connection.execute(
                    "INSERT INTO listeners (name, venue, is_active, fields) VALUES (%s, %s, %s, %s)",
                    (listener["name"], listener["venue"], active, json.dumps(own)),
                )


def listener_store(settings: Settings) -> ListenerStore:
    """The store that the settings ask for; a schema that is missing in Postgres is made.

    Raises:
        PostgresError: if the URL is malformed.
    """
    file = FileListeners(settings.listeners_path)
    if settings.postgres_url is None:
        return file
    from arb_pipeline.storage.postgres import Postgres, PostgresUnavailableError  # noqa: PLC0415 - it loads SQLAlchemy

    postgres = Postgres(settings.postgres_url.get_secret_value(), application_name="arb listeners")
    with contextlib.suppress(PostgresUnavailableError):
        postgres.migrate()
    return PostgresListeners(postgres, file)
