"""The command line as a user meets it: output, exit codes, and errors in one line."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from arb_pipeline import __version__
from arb_pipeline.cli import app
from arb_pipeline.errors import ArbError
from arb_pipeline.model import Event, Market, MarketStatus
from arb_pipeline.pipeline import universe
from arb_pipeline.settings import Settings
from arb_pipeline.storage.catalogue import write_catalogue
from arb_pipeline.storage.lake import Lake

runner = CliRunner()


def write_recording(path: Path) -> Path:
    """One Kalshi market: a snapshot and a delta."""
    head = {"sid": 1, "type": "orderbook_snapshot", "seq": 1}
    book = {"market_ticker": "KXRAIN-1", "market_id": "m", "yes_dollars_fp": [["0.3700", "112.00"]]}
    change = {"market_ticker": "KXRAIN-1", "market_id": "m", "price_dollars": "0.6000", "delta_fp": "5.00"}
    frames = [
        {"type": "orderbook_snapshot", **head, "msg": book},
        {"type": "orderbook_delta", "sid": 1, "seq": 2, "msg": {**change, "side": "no"}},
    ]
    (path / "kalshi").mkdir(parents=True)
    with gzip.open(path / "kalshi" / "frames.jsonl.gz", "wt", encoding="utf-8") as lines:
        for number, frame in enumerate(frames):
            line = {"recv_ns": 1_780_000_000_000_000_000 + number, "conn": "a", "frame": json.dumps(frame)}
            lines.write(json.dumps(line) + "\n")
    return path


def arb(*arguments: str, lake: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, in an empty folder."""
    return subprocess.run(
        [sys.executable, "-m", "arb_pipeline", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=lake.parent,
        env={**os.environ, "ARB_LAKE": str(lake), **environment},
        check=False,
    )


def test_version() -> None:
    result = runner.invoke(app, ["--version"])
    assert (result.exit_code, result.stdout.strip()) == (0, __version__)


def test_every_verb_explains_itself() -> None:
    for command in app.registered_commands:
        assert command.callback is not None
        assert command.callback.__doc__, f"{command.callback.__name__} has no help"


def test_replay_then_sql(tmp_path: Path) -> None:
    recording = write_recording(tmp_path / "small")
    lake = str(tmp_path / "lake")
    replayed = runner.invoke(app, ["replay", str(recording), "--lake", lake, "--json"])
    assert replayed.exit_code == 0
    summary = json.loads(replayed.stdout)
    assert summary["stop_reason"] == "end_of_recording"
    counted = runner.invoke(app, ["sql", "select count(*) as n from raw_frames", "--lake", lake, "--json"])
    frames = sum(venue["frames"] for venue in summary["venues"].values())
    assert frames > 0
    assert json.loads(counted.stdout) == [{"n": frames}]
    csv = runner.invoke(app, ["sql", "select 1 as one", "--lake", lake, "--csv"])
    assert csv.stdout == "one\n1\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("replay", "nowhere"), "no recording at nowhere"),
        (("sql", "selec"), "the query failed"),
        (("discover", "--venue", "intrade"), "no venue 'intrade'"),
        (("capture", "--max-seconds", "1"), "run 'arb discover' first"),
        (("capture", "--shard", "2/2"), "one is 0/2 and the other 1/2"),
        (("capture", "--shard", "first"), "--shard 'first'"),
        (("match",), "run 'arb discover' first"),
        (("up", "--no-capture"), "dagster.yaml"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_code_1(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = arb(*arguments, lake=tmp_path / "lake")
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_listeners_are_listed_added_paused_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lake = Lake(str(tmp_path / "lake"))
    listed = [
        Market(
            venue="kalshi",
            market_id=name,
            event_id=f"{name}-E",
            series_id=name,
            title="?",
            status=MarketStatus.OPEN,
            tick=100,
            min_size=0,
            size_step=1,
        )
        for name in ("KXFED", "KXCPI", "KXBTC")
    ]
    events = [Event(venue="kalshi", event_id=one.event_id, title="?", markets=(one,)) for one in listed]
    write_catalogue(lake, "kalshi", events, datetime(2026, 5, 13, tzinfo=UTC))

    def call(*arguments: str) -> str:
        result = runner.invoke(app, ["listeners", *arguments], catch_exceptions=False)
        assert result.exit_code == 0
        return result.stdout

    def counts() -> dict[str, tuple[bool, int]]:
        return {one["name"]: (one["is_active"], one["markets"]) for one in json.loads(call("list", "--json"))}

    assert counts() == {"all-kalshi": (True, 3), "all-polymarket": (True, 0)}
    assert "There is no such file" in call("list")
    assert "only what it lists is captured" in call("add", "macro", "kalshi", "series_tickers=KXFED")
    call("add", "both", "kalshi", "series_tickers=KXCPI", "series_tickers=KXBTC", "matched_only=false")
    call("pause", "both")
    assert counts() == {"macro": (True, 1), "both": (False, 2)}
    assert [one.market_id for one in universe(Settings(), lake)["kalshi"]] == ["KXFED"]
    call("resume", "both")
    shown = call("list")
    assert "series_tickers: KXCPI, KXBTC" in shown
    assert "paused" not in shown
    assert len(universe(Settings(), lake)["kalshi"]) == 3
    Path("listeners.yaml").unlink()
    call("seed")
    assert counts()["all-kalshi"] == (True, 3)
    for arguments, says in {
        ("add", "x", "kalshi", "fast"): "'fast' is no filter",
        ("add", "x", "kalshi", "tag_ids=2"): "listener 'x': tag_ids is no field",
        ("pause", "nobody"): "no listener 'nobody'",
        ("seed",): "exists and is left as it is",
    }.items():
        with pytest.raises(ArbError, match=says):
            runner.invoke(app, ["listeners", *arguments], catch_exceptions=False)


def test_handlers_are_listed_and_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("listeners.yaml").write_text(
        "handlers:\n- {name: up, use: price_alert, venues: kalshi, parameters: {level: 0.6}}\n"
        "- {name: mine, use: 'not_there_at_all:x', is_active: false}\n"
    )
    shown = runner.invoke(app, ["listeners", "list"], catch_exceptions=False).stdout
    up, mine = (next(line for line in shown.splitlines() if name in line) for name in ("price_alert", "not_there"))
    assert "kalshi" in up
    assert "ok" in up
    assert "paused" in mine
    assert "handler 'mine': use: not_there_at_all cannot be" in mine


def test_wrong_usage_is_exit_code_2(tmp_path: Path) -> None:
    assert arb("replay", lake=tmp_path / "lake").returncode == 2


def test_settings_that_make_no_sense_are_named_without_their_values(tmp_path: Path) -> None:
    done = arb("sql", "select 1", lake=tmp_path / "lake", ARB_HTTP_TIMEOUT_S="soon", KALSHI_PRIVATE_KEY="hunter2")
    assert done.returncode == 1
    assert "http_timeout_s" in done.stderr
    assert "hunter2" not in done.stderr


def test_silent_venue_is_an_error_that_says_so(tmp_path: Path) -> None:
    done = arb(
        *("discover", "--venue", "kalshi"),
        lake=tmp_path / "lake",
        ARB_KALSHI_REST_URL="http://127.0.0.1:9/trade-api/v2",
        ARB_HTTP_RETRIES="0",
    )
    assert done.returncode == 1
    assert "no answer from the venue" in done.stderr


def _ignore_interrupts() -> None:
    """What a shell does to `command &`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.slow
def test_up_shows_the_ui_and_ends_with_ctrl_c_even_in_the_background_of_a_shell(tmp_path: Path) -> None:
    log, home = tmp_path / "up.log", str(tmp_path / "home")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "arb_pipeline",
                "up",
                "--no-capture",
                "--port",
                "0",
                "--home",
                home,
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).resolve().parent.parent,
            env={**os.environ, "ARB_LAKE": str(tmp_path / "lake")},
            preexec_fn=_ignore_interrupts,  # noqa: PLW1509 - one plain system call
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 120
        while (found := re.search(r"ready: (http://\S+)", log.read_text(encoding="utf-8"))) is None:
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.1)
        assert httpx.get(f"{found[1]}/server_info", timeout=30).json()["dagster_webserver_version"]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            process.kill()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{found[1]}/server_info", timeout=5)
