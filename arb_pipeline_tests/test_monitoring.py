"""``arb capture`` from outside: its JSON log lines, its metrics, and ``arb status`` while it runs and after a kill."""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from arb_pipeline import pipeline
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake
from arb_pipeline_tests.defs.conftest import exchange_in_thread

WAIT_S = 60.0


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A local exchange whose markets are discovered, and the settings for it."""
    monkeypatch.chdir(tmp_path)
    with exchange_in_thread() as exchange:
        given = {
            **exchange.environment(),
            "ARB_LAKE": str(tmp_path / "lake"),
            "ARB_CAPTURE_FLUSH_S": "0.5",
            "ARB_LOG_FORMAT": "json",
            "ARB_METRICS_PORT": "0",
        }
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        settings = Settings(http_requests_per_s=1000)
        for venue in settings.capture_venues:
            asyncio.run(pipeline.discover(venue, settings, Lake(settings.lake, settings.exchange_name)))
        yield given


@contextmanager
def begun(log: Path, *options: str) -> "Iterator[subprocess.Popen[bytes]]":
    """A capture that logs into a file; it is killed at the end of the context."""
    with log.open("wb") as stderr:
        command = [sys.executable, "-m", "arb_pipeline", "capture", *options]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def metrics_at(log: Path) -> str:
    """Where the metrics are, by the log; empty while it does not say."""
    return next((line["event"].removeprefix("metrics at ") for line in log_lines(log) if "http" in line["event"]), "")


def scraped(address: str) -> str:
    """The metrics, once both venues have committed frames."""
    with urlopen(address, timeout=5) as answer:
        text = str(answer.read().decode())
    return text if text.count("\narb_capture_last_committed_timestamp_seconds{") == 2 else ""


def status() -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "arb_pipeline", "status", "--json"], capture_output=True, check=False, timeout=WAIT_S
    )
    return done.returncode, json.loads(done.stdout)


def log_lines(path: Path) -> list[dict[str, Any]]:
    whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in whole]


def until(ready: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (found := ready()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


@pytest.mark.slow
def test_captures_are_seen_while_they_run_and_missed_when_they_are_killed(
    environment: dict[str, str], tmp_path: Path
) -> None:
    code, nothing = status()
    assert (code, nothing["kalshi"]["verdict"]) == (3, "not running")
    logs = [tmp_path / "log0", tmp_path / "log1"]
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(begun(log, "--shard", f"{k}/2")) for k, log in enumerate(logs))
        events = (until(lambda log=log: metrics_at(log)) for log in logs)  # type: ignore[misc]
        for number, text in enumerate([until(lambda at=at: scraped(at)) for at in events]):  # type: ignore[misc]
            for venue in ("kalshi", "polymarket"):
                assert f'arb_capture_frames_total{{shard="{number}/2",venue="{venue}"}}' in text
        code, running = status()
        assert code == 0
        for told in running.values():
            assert (told["verdict"], told["healthy"]) == ("live", True)
            assert told["subscribed"] > 0
            assert told["frames_per_s"] > 0
            assert [(run["pid"], run["shard"], run["state"]) for run in told["captures"]] == [
                (first.pid, "0/2", "running"),
                (second.pid, "1/2", "running"),
            ]
        first.kill()
        first.wait(10)
        code, half = status()
        assert code == 0
        assert [run["state"] for run in half["kalshi"]["captures"]] == ["running", "gone"]
        assert half["kalshi"]["subscribed"] < running["kalshi"]["subscribed"]
    code, after = status()
    assert code == 3
    for told in after.values():
        assert (told["verdict"], {run["state"] for run in told["captures"]}) == ("not running", {"gone"})
        assert told["since"]
    text = "".join(log.read_text(encoding="utf-8") for log in logs)
    assert environment["KALSHI_API_KEY_ID"] not in text
    assert "PRIVATE KEY" not in text
    [start] = [line for line in log_lines(logs[1]) if line["event"] == "capture starts"]
    assert start["run_id"].startswith("cli-")
    assert (start["shard"], start["exchange"]) == ("1/2", environment["ARB_EXCHANGE_NAME"])


@pytest.mark.slow
def test_a_taken_port_costs_the_metrics_and_nothing_else(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("ARB_METRICS_PORT", str(taken.getsockname()[1]))
        with begun(path, "--max-seconds", "2") as process:
            assert process.wait(WAIT_S) == 0
    told = log_lines(path)
    assert [line["level"] for line in told if "no metrics yet" in line["event"]] == ["warning"]
    assert told[-1]["event"] == "capture ended: max_seconds"
    assert {line["venue"] for line in told if line["event"].endswith(": captured") and line["frames"]} == {
        "kalshi",
        "polymarket",
    }
