"""Dagster's home, and the UI and daemon as child processes: what ``arb up`` and ``arb demo`` need."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import httpx

from arb_pipeline.errors import ArbError

__all__ = [
    "POSTGRES_FOLDER",
    "ProjectRootError",
    "Service",
    "Ui",
    "UiError",
    "graphql",
    "prepare_home",
    "running_ui",
    "switch_off",
    "switch_on",
    "ui_commands",
    "up",
]

Instigator: TypeAlias = Literal["sensor", "schedule"]

HOME_FOLDER = ".dagster"
POSTGRES_FOLDER = "postgres"
_READY_S = 120.0
_STOP_S = 30.0
_SWITCHES: tuple[tuple["Instigator", str], ...] = (
    ("schedule", "discover_daily"),
    ("schedule", "discover_hourly"),
    ("schedule", "report_daily"),
    ("sensor", "keep_capture_alive"),
)
_SWITCH_ON = {
    "sensor": (
        "startSensor",
        """mutation($selector: SensorSelector!) { startSensor(sensorSelector: $selector) {
            __typename ... on Sensor { state: sensorState { id } } ... on PythonError { message } } }""",
    ),
    "schedule": (
        "startSchedule",
        """mutation($selector: ScheduleSelector!) { startSchedule(scheduleSelector: $selector) {
            __typename ... on ScheduleStateResult { state: scheduleState { id } } ... on PythonError { message } } }""",
    ),
}
_SWITCH_OFF = {
    "sensor": (
        "stopSensor",
        "mutation($id: String!) { stopSensor(id: $id) { __typename ... on PythonError { message } } }",
    ),
    "schedule": (
        "stopRunningSchedule",
        "mutation($id: String!) { stopRunningSchedule(id: $id) { __typename ... on PythonError { message } } }",
    ),
}
_LOCATION = {"repositoryLocationName": "arb_pipeline", "repositoryName": "__repository__"}


class ProjectRootError(ArbError):
    """A folder lacks the files of the project's root."""


class UiError(ArbError):
    """Dagster's webserver or daemon did not come up, or refused; the message says why."""


def prepare_home(root: Path, home: Path | None = None) -> Path:
    """Make a folder (default ``root/.dagster``) Dagster's home and return it, absolute.

    A folder of its own keeps Dagster's databases out of the project's root; its ``dagster.yaml`` is a link to the
    root's. The caller sets ``DAGSTER_HOME``.

    Raises:
        ProjectRootError: if the root has no ``dagster.yaml``.
    """
    root = root.resolve()
    config = root / "dagster.yaml"
    if not config.is_file():
        raise ProjectRootError(f"no dagster.yaml in {root}: run from the project's root, or name it")
    home = (home or root / HOME_FOLDER).resolve()
    home.mkdir(parents=True, exist_ok=True)
    link = home / "dagster.yaml"
    if not link.exists() or link.resolve() != config:
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(config, home))
    return home


def ui_commands(root: Path, host: str = "127.0.0.1", port: int = 3000) -> dict[str, list[str]]:
    """The commands of webserver and daemon by name, over the root's ``workspace.yaml``.

    Raises:
        ProjectRootError: if the root has no ``workspace.yaml``.
    """
    workspace = root.resolve() / "workspace.yaml"
    if not workspace.is_file():
        raise ProjectRootError(f"no workspace.yaml in {root.resolve()}: run from the project's root, or name it")
    scripts = Path(sys.executable).parent
    return {
        "webserver": [
            *(str(scripts / "dagster-webserver"), "--workspace", str(workspace)),
            *("--host", host, "--port", str(port), "--code-server-log-level", "warning"),
        ],
        "daemon": [str(scripts / "dagster-daemon"), "run", "--workspace", str(workspace)],
    }


@dataclass
class Service:
    """A child process in a session of its own, stopped as a whole with what it started."""

    name: str
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, name: str, command: list[str], root: Path, home: Path, log: Path | None = None) -> "Service":
        """Start a command in the project's root with Dagster's home set. Output goes to ``log``, else to ours."""
        environment = {**os.environ, "DAGSTER_HOME": str(home)}
        with contextlib.ExitStack() as files:
            output = files.enter_context(log.open("ab")) if log else None
            process = subprocess.Popen(  # noqa: S603 - our own commands
                command,
                cwd=root,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                start_new_session=True,
                preexec_fn=_default_signals,  # noqa: PLW1509 - two plain system calls, no lock is taken
            )
        return cls(name, process)

    def stop(self, timeout_s: float = _STOP_S) -> None:
        """Ask the whole session to end, captures with it, which flush; kill what does not within the time."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        while self._lives() and time.monotonic() < deadline:
            time.sleep(0.1)
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _lives(self) -> bool:
        """Whether the process or anything that it started still runs."""
        if self.process.poll() is None:
            return True
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        # In a container that nobody tidies up, ended processes stay listed as zombies.
        states = _group_states(self.process.pid)
        return not states or any(state != "Z" for state in states)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def _group_states(group: int) -> list[str]:
    """State letters of a process group's members, as Linux tells them; none on other systems."""
    states = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            state, _parent, of_group, *_ = path.read_text().rpartition(")")[2].split()
            if int(of_group) == group:
                states.append(state)
    return states


def _default_signals() -> None:
    # A shell's background job has SIGINT ignored; Dagster would hand that down, and nothing could stop it any more.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def graphql(url: str, query: str, variables: dict[str, object] | None = None) -> dict[str, Any]:
    """Ask the webserver at ``url``.

    Raises:
        httpx.HTTPError: if it cannot be reached or answers with an error.
        UiError: if GraphQL reports errors.
    """
    answer = httpx.post(f"{url}/graphql", json={"query": query, "variables": variables or {}}, timeout=30)
    answer.raise_for_status()
    body = answer.json()
    if body.get("errors"):
        raise UiError(f"Dagster's GraphQL: {body['errors'][0]['message']}")
    data: dict[str, Any] = body["data"]
    return data


@dataclass
class Ui:
    """Webserver and daemon, ready.

    Attributes:
        url: where the UI answers.
    """

    url: str
    services: list[Service] = field(default_factory=list)

    def wait(self) -> int:
        """Block until one of the services ends by itself; returns its exit code."""
        while True:
            for service in self.services:
                if (code := service.process.poll()) is not None:
                    return code
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop everything; captures flush and end."""
        # The daemon first: it would replace captures that end.
        for service in reversed(self.services):
            service.stop()


@contextlib.contextmanager
def running_ui(
    root: Path,
    home: Path | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 3000,
    capture: bool = False,
    daemon: bool = True,
    log_folder: Path | None = None,
    on_step: Callable[[str], None] = lambda _step: None,
) -> Iterator[Ui]:
    """Run the UI and the daemon for the time of the context.

    Args:
        port: 0 takes a free one.
        capture: switch the capture sensor and the schedules on, and off again at the end, so that opening the UI
            later dials nobody.
        log_folder: where the services write; None lets them write to this process's output.

    Raises:
        ProjectRootError: if ``root`` is not the project's root.
        UiError: if a service ends, or the project does not load, within two minutes.
    """
    home = prepare_home(root, home)
    _create_storage(home)
    port = port or _free_port(host)
    ui = Ui(f"http://{host}:{port}")
    commands = ui_commands(root, host, port)
    if not daemon:
        del commands["daemon"]
    try:
        for name, command in commands.items():
            on_step(f"starting {name}")
            log = log_folder / f"{name}.log" if log_folder else None
            ui.services.append(Service.start(name, command, root, home, log))
        on_step("loading the project")
        _wait_ready(ui)
        with contextlib.ExitStack() as switched:
            for kind, name in _SWITCHES if capture else ():
                on_step(f"switching {name} on")
                switched.callback(_switch_off_quietly, ui.url, kind, switch_on(ui.url, kind, name))
            yield ui
    finally:
        ui.stop()


def up(
    home: Path | None = None,
    *,
    root: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 3000,
    capture: bool = True,
    embedded_postgres: bool = False,
    on_step: Callable[[str], None] = lambda _step: None,
) -> int:
    """Run the UI and the daemon until Ctrl-C or SIGTERM, with captures flushed at the end.

    Args:
        embedded_postgres: run a Postgres below the home too, and stop it last.

    Returns:
        An exit code: 0 when stopped, that of the service that ended by itself otherwise.

    Raises:
        ProjectRootError, UiError: see :func:`running_ui`.
        PostgresError: if the embedded Postgres is not installed, or does not start.
    """
    # SIGINT too: a shell's background job inherits it ignored, and then nothing but a kill would end this.
    previous = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    root = root or Path.cwd()
    try:
        with contextlib.ExitStack() as stack:
            if embedded_postgres:
                from arb_pipeline.storage.postgres import embedded_environment

                on_step("starting the embedded Postgres")
                stack.enter_context(embedded_environment(prepare_home(root, home) / POSTGRES_FOLDER))
            ui = stack.enter_context(running_ui(root, home, host=host, port=port, capture=capture, on_step=on_step))
            on_step(f"ready: {ui.url}")
            return ui.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _switch_off_quietly(url: str, kind: Instigator, state_id: str) -> None:
    # Where the webserver is gone already there is nobody left to ask, and stopping goes on.
    with contextlib.suppress(httpx.HTTPError, UiError):
        switch_off(url, kind, state_id)


def switch_on(url: str, kind: Instigator, name: str) -> str:
    """Switch a sensor or schedule on through the webserver at ``url``; returns what :func:`switch_off` takes.

    Raises:
        UiError: if Dagster refuses.
    """
    field_name, query = _SWITCH_ON[kind]
    variables: dict[str, object] = {"selector": {**_LOCATION, f"{kind}Name": name}}
    answer = _expect(graphql(url, query, variables)[field_name], {"Sensor", "ScheduleStateResult"})
    state: dict[str, str] = answer["state"]
    return state["id"]


def switch_off(url: str, kind: Instigator, state_id: str) -> None:
    """Switch off what :func:`switch_on` switched on.

    Raises:
        UiError: if Dagster refuses.
    """
    field_name, query = _SWITCH_OFF[kind]
    answer = graphql(url, query, {"id": state_id})
    _expect(answer[field_name], {"StopSensorMutationResult", "ScheduleStateResult"})


def _expect(answer: Any, kinds: set[str]) -> dict[str, Any]:
    if not isinstance(answer, dict) or answer.get("__typename") not in kinds:
        raise UiError(f"Dagster answered {answer!r} where {' or '.join(sorted(kinds))} was expected")
    return answer


def _create_storage(home: Path) -> None:
    """Open Dagster's storage once, alone: webserver, daemon and code server would create its tables all at once."""
    from dagster import DagsterInstance

    before = os.environ.get("DAGSTER_HOME")
    os.environ["DAGSTER_HOME"] = str(home)
    try:
        with DagsterInstance.get():
            pass
    finally:
        if before is None:
            del os.environ["DAGSTER_HOME"]
        else:
            os.environ["DAGSTER_HOME"] = before


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_ready(ui: Ui) -> None:
    """Wait until the webserver shows the project's code location."""
    deadline = time.monotonic() + _READY_S
    query = """{ workspaceOrError { ... on Workspace { locationEntries {
        loadStatus locationOrLoadError { __typename ... on PythonError { message } } } } } }"""
    while time.monotonic() < deadline:
        for service in ui.services:
            if (code := service.process.poll()) is not None:
                raise UiError(f"Dagster's {service.name} ended with exit code {code}")
        with contextlib.suppress(httpx.TransportError, httpx.HTTPStatusError):
            entries = graphql(ui.url, query)["workspaceOrError"].get("locationEntries", [])
            loaded = [entry["locationOrLoadError"] for entry in entries if entry["loadStatus"] == "LOADED"]
            if errors := [entry["message"] for entry in loaded if entry["__typename"] == "PythonError"]:
                raise UiError(f"the project does not load: {errors[0]}")
            if loaded:
                return
        time.sleep(0.2)
    raise UiError(f"the webserver at {ui.url} was not ready within {_READY_S:.0f} s")
