import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from arb_pipeline.defs.home import ProjectRootError, Service, UiError, graphql, prepare_home, ui_commands

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (folder / "workspace.yaml").write_text("load_from: []\n")
    return folder


def test_home_is_a_folder_whose_configuration_is_the_roots(root: Path) -> None:
    home = prepare_home(root)
    assert home == root / ".dagster"
    assert home.is_absolute()
    (root / "dagster.yaml").write_text("telemetry: {enabled: true}\n")
    assert (home / "dagster.yaml").read_text() == "telemetry: {enabled: true}\n"
    assert prepare_home(root) == home


def test_home_can_lie_elsewhere_and_a_stale_link_is_renewed(root: Path, tmp_path: Path) -> None:
    home = tmp_path / "elsewhere" / "home"
    home.mkdir(parents=True)
    (home / "dagster.yaml").symlink_to("/nowhere/dagster.yaml")
    assert prepare_home(root, home) == home
    assert (home / "dagster.yaml").resolve() == root / "dagster.yaml"


def test_a_folder_that_is_not_the_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProjectRootError, match=str(tmp_path)):
        prepare_home(tmp_path)
    with pytest.raises(ProjectRootError, match=str(tmp_path)):
        ui_commands(tmp_path)


def test_commands_exist_and_name_the_workspace(root: Path) -> None:
    commands = ui_commands(root, port=1234)
    assert list(commands) == ["webserver", "daemon"]
    for command in commands.values():
        assert os.access(command[0], os.X_OK)
        assert str(root / "workspace.yaml") in command
    assert "1234" in commands["webserver"]


_PARENT = """
import signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, signal.getsignal(signal.SIGINT) is signal.default_int_handler, flush=True)
time.sleep(60)
"""


def test_a_service_is_stopped_with_everything_that_it_started(root: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does to its background jobs
    try:
        service = Service.start("parent", [sys.executable, "-c", _PARENT], root, tmp_path, log)
    finally:
        signal.signal(signal.SIGINT, before)
    while not log.read_text().endswith("\n"):
        assert service.process.poll() is None
    child, interruptible = log.read_text().split()
    assert interruptible == "True"
    service.stop()
    assert service.process.poll() is not None
    assert _gone(int(child))


def test_a_child_that_flushes_is_waited_for(root: Path, tmp_path: Path) -> None:
    flushed, log = tmp_path / "flushed", tmp_path / "log"
    child = (
        "import pathlib, signal, sys, time\n"
        "def flush(*_):\n"
        "    time.sleep(0.5)\n"
        "    pathlib.Path(sys.argv[1]).write_text('all')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, flush)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', *sys.argv[1:]]); time.sleep(60)"
    service = Service.start("parent", [sys.executable, "-c", parent, child, str(flushed)], root, tmp_path, log)
    while "ready" not in log.read_text():
        assert service.process.poll() is None
    service.stop()
    assert flushed.read_text() == "all"


def test_what_does_not_end_is_killed(root: Path, tmp_path: Path) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    )
    log = tmp_path / "log"
    service = Service.start("stubborn", [sys.executable, "-c", stubborn], root, tmp_path, log)
    while not log.read_text():
        assert service.process.poll() is None
    service.stop(timeout_s=0.2)
    assert service.process.returncode == -signal.SIGKILL


def _gone(pid: int) -> bool:
    """Whether a process ended; a zombie that nobody waits for has ended too."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return not state.strip() or state.startswith("Z")


def test_graphql_errors_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(url: str, **_: object) -> httpx.Response:
        return httpx.Response(200, json={"errors": [{"message": "no such field"}]}, request=httpx.Request("POST", url))

    monkeypatch.setattr(httpx, "post", answer)
    with pytest.raises(UiError, match="no such field"):
        graphql("http://127.0.0.1:1", "{ x }")
