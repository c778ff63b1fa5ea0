"""``arb alerts``."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from arb_pipeline.cli import app
from arb_pipeline.errors import ArbError
from arb_pipeline.model import Event
from arb_pipeline.storage.catalogue import write_catalogue
from arb_pipeline.storage.lake import Lake
from arb_pipeline_tests.alerting.hook import Hook, serving
from arb_pipeline_tests.arbitrage.builders import START, market

RULES = """
channels:
  - {name: desk, kind: webhook, url_env: DESK_URL}
positions: held.csv
rules:
  - {name: paying, kind: net_edge, above: 0.01, size: 100, for_seconds: 5, notify: desk}
  - {name: moved, kind: price_move, by: 0.05, is_active: false}
  - {name: stalled, kind: capture_stalled}
"""


@pytest.fixture
def hook() -> Iterator[Hook]:
    with serving() as hook:
        yield hook


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "alerts.yaml"
    path.write_text(RULES)
    (tmp_path / "held.csv").write_text("venue,market_id,outcome,size,entry\nkalshi,KX,yes,20,0.4\n")
    monkeypatch.setenv("ARB_ALERTS_FILE", str(path))
    return path


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["alerts", *words])


@pytest.mark.usefixtures("path")
def test_check_shows_what_the_file_says_and_which_channel_is_unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arb_pipeline.cli.out.width", 200)
    shown = run("check")
    assert shown.exit_code == 3
    assert "DESK_URL is not set" in shown.output
    for words in ("above 0.01, size 100, for_seconds 5", "paused", "kalshi KX YES", "over tables", "every channel"):
        assert words in shown.output
    monkeypatch.setenv("DESK_URL", "https://example.org/4711")
    usable = run("check", "--json")
    assert usable.exit_code == 0
    document = json.loads(usable.output)
    assert [rule["name"] for rule in document["rules"]] == ["paying", "moved", "stalled"]
    assert document["channels"][0]["trouble"] == ""
    assert document["positions"][0]["entry"] == "0.4"
    assert "4711" not in usable.output


def test_check_tells_that_the_default_channel_is_not_set(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arb_pipeline.cli.out.width", 200)
    path.write_text("rules: [{name: a, kind: spread, at_most: 0.01, notify: default}]")
    shown = run("check")
    assert shown.exit_code == 3
    assert "ARB_ALERT_WEBHOOK_URL is not set, and rule 'a' notifies 'default'" in shown.output
    [channel] = json.loads(run("check", "--json").output)["channels"]
    assert "ARB_ALERT_WEBHOOK_URL" in channel["trouble"]
    monkeypatch.setenv("ARB_ALERT_WEBHOOK_URL", "https://example.org/4711")
    assert run("check").exit_code == 0


def test_check_tells_which_positions_are_in_no_catalogue(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arb_pipeline.cli.out.width", 200)
    monkeypatch.setenv("ARB_LAKE", str(tmp_path / "lake"))
    path.write_text("positions: held.csv")
    (tmp_path / "held.csv").write_text(
        "venue,market_id,outcome,size,entry\nkalshi,kxtest-26,yes,20,0.4\nkalshi,KXGONE,no,20,0.4\n"
    )
    event = Event(venue="kalshi", event_id="E", title="E", markets=(market("kalshi"),))
    write_catalogue(Lake(str(tmp_path / "lake")), "kalshi", [event], START)
    positions = json.loads(run("check", "--json").output)["positions"]
    assert [(one["market_id"], one["in_catalogue"]) for one in positions] == [("KXTEST-26", True), ("KXGONE", False)]
    [row] = [line for line in run("check").output.splitlines() if "KXGONE" in line]
    assert "unknown" in row


def test_check_refuses_what_is_wrong(path: Path, tmp_path: Path) -> None:
    path.write_text("rules: [{name: a, kind: spread, at_most: wide}]")
    refused = run("check")
    assert isinstance(refused.exception, ArbError)
    assert "rule 'a': at_most" in str(refused.exception)
    missing = run("check", str(tmp_path / "none.yaml"))
    assert isinstance(missing.exception, ArbError)
    assert "ARB_ALERTS_FILE" in str(missing.exception)


def test_test_sends_a_note_to_every_channel(path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESK_URL", hook.url)
    monkeypatch.setenv("ARB_ALERT_WEBHOOK_URL", hook.url)
    taken = run("test")
    assert taken.exit_code == 0
    assert taken.output.endswith("taken by desk, default\n")
    assert hook.states() == ["test", "test"]
    hook.statuses = [404]
    refused = run("test")
    assert isinstance(refused.exception, ArbError)
    assert "1 of the channels" in str(refused.exception)
    path.unlink()
    monkeypatch.delenv("ARB_ALERT_WEBHOOK_URL")
    alone = run("test")
    assert isinstance(alone.exception, ArbError)
    assert "has no channel" in str(alone.exception)
