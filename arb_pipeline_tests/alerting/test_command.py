"""``arb alerts``."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from arb_pipeline.cli import app
from arb_pipeline.errors import ArbError
from arb_pipeline_tests.alerting.hook import Hook, serving

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
