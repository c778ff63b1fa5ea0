"""The demo, run as a user runs it, shorter."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from arb_pipeline.demo import SETTINGS_FILE, DemoError, run_demo
from arb_pipeline.exchange.planted import PHANTOMS
from arb_pipeline.storage.lake import Lake

ROOT = Path(__file__).resolve().parent.parent


def demo(home: Path, *arguments: str) -> dict[str, Any]:
    """Run ``arb demo --json`` from the project's root; what it prints."""
    # It is several processes that load the same thousands of modules: compiled once, as on a user's machine.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-m", "arb_pipeline", "demo", "--json", "--home", str(home), *arguments],
        capture_output=True,
        text=True,
        timeout=170,
        cwd=ROOT,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.slow
def test_demo_finds_what_was_planted_and_nothing_else(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    result = demo(home, "--seconds", "9", "--speed", "2")
    assert result["planted"] >= 40
    assert result["found"] == result["planted"]
    assert result["false_equivalent"] == 0
    opportunities = result["opportunities"]
    assert opportunities["planted"] >= 1
    assert opportunities["found"] == opportunities["planted"]
    assert (opportunities["unplanted"], opportunities["phantoms_accepted"]) == (0, 0)
    kinds = opportunities["phantoms_by_kind"]
    assert {"fee_eaten", "void_mismatch", "in_review", "wrong_rules"} <= set(kinds) <= set(PHANTOMS)
    assert all(counts["rejected"] == counts["planted"] for counts in kinds.values()), kinds
    assert sum(counts["planted"] for counts in kinds.values()) == opportunities["phantoms"]
    report = Path(result["report"]).read_text(encoding="utf-8")
    assert "Not real market data" in report

    lake = Lake(str(home / "lake"))
    assert {row["exchange"] for row in lake.read("capture_sessions").to_pylist()} == {result["exchange"]}
    # The throw-away key is a key all the same: it stands in nothing that the demo leaves behind.
    assert "PRIVATE" not in (home / SETTINGS_FILE).read_text(encoding="utf-8")
    for path in home.rglob("*"):
        if path.is_file():
            assert b"BEGIN RSA PRIVATE KEY" not in path.read_bytes(), path
            assert b"BEGIN PRIVATE KEY" not in path.read_bytes(), path


@pytest.mark.slow
def test_demo_on_a_real_recording(recordings: Path, tmp_path: Path) -> None:
    home = tmp_path / "demo"
    result = demo(home, "--recording", str(recordings / "crossvenue-202607"), "--seconds", "7", "--speed", "10")
    assert (result["planted"], result["found"], result["false_equivalent"]) == (14, 14, 0)
    lake = Lake(str(home / "lake"))
    markets = lake.current("markets").to_pylist()
    assert {venue: sum(row["venue"] == venue for row in markets) for venue in ("kalshi", "polymarket")} == {
        "kalshi": 17,
        "polymarket": 17,
    }
    frames = [row["frame"] for row in lake.read("raw_frames", venue="polymarket").to_pylist()]
    assert sum("price_change" in frame for frame in frames) == 24
    sessions = lake.read("capture_sessions").to_pylist()
    assert [row["anomalies"] for row in sessions] == ["{}", "{}"]
    quoted = {row["market_id"] for row in lake.read("quotes").to_pylist()}
    assert len(quoted) == 34
    spreads = lake.read("spreads").to_pylist()
    assert len({(row["kalshi_market_id"], row["polymarket_market_id"]) for row in spreads}) >= 14


def test_demo_does_not_empty_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(DemoError, match="name another folder"):
        run_demo(tmp_path, None, 5, seed=7, speed=1, console=None)  # type: ignore[arg-type]
    assert (tmp_path / "precious.txt").exists()
