"""The demo: the whole pipeline on the local exchange, and what it found beside what the exchange says is true.

The exchange runs in a process of its own, as the venues do. Everything the demo makes (lake, decisions, report,
Dagster's runs) lies in one folder, apart from the real thing, with the exchange's name in every file.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import httpx
from dotenv import load_dotenv
from rich.console import Console
from rich.table import Table

from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.console import spread_grid
from arb_pipeline.errors import ArbError
from arb_pipeline.model import MatchStatus, Relation
from arb_pipeline.recordings import Recording
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake

__all__ = [
    "SETTINGS_FILE",
    "DemoError",
    "DemoOutcome",
    "PlantedEpisode",
    "PlayedPhantom",
    "compare",
    "decide",
    "run_demo",
    "use_demo_settings",
]

SETTINGS_FILE = "settings.env"
"""Beside the demo's lake: the settings that ``arb up --home`` needs to show it. It holds no secret."""

_READY_S = 60.0
_BEAT_S = 10.0
_SAME = (Relation.EQUIVALENT.value, Relation.INVERTED.value)
_CALLED = (MatchStatus.AUTO.value, MatchStatus.REVIEW.value, MatchStatus.APPROVED.value)
_SECRET = ("KALSHI_PRIVATE_KEY", "KALSHI_API_KEY_ID", "POLY_API_KEY", "POLY_API_SECRET", "POLY_PASSPHRASE")

_MATCH_STATUS = "match_status"

Step = Callable[[str], None]
"""Told what begins."""

Pair = tuple[str, str]
"""(Kalshi ticker, Polymarket condition id)."""


class DemoError(ArbError):
    """The demo cannot run, or its exchange failed; the message says what to do."""


@dataclass(frozen=True)
class PlantedEpisode:
    """An episode that the exchange played, and the opportunity found for it, if any."""

    truth: Mapping[str, Any]
    found: Mapping[str, Any] | None


@dataclass(frozen=True)
class PlayedPhantom:
    """A phantom that the exchange played.

    Attributes:
        stopped: the guards told of it, as the table names them, and the matcher's status where it is no candidate.
        right: whether it was not accepted, and stopped for what is wrong with it.
        accepted: whether it was taken for arbitrage.
    """

    truth: Mapping[str, Any]
    stopped: tuple[str, ...]
    right: bool
    accepted: bool


@dataclass
class DemoOutcome:
    """What the demo found beside what is true.

    Attributes:
        exchange: name of the local exchange.
        planted, found: true pairs in the catalogues, and those of them that the matcher called so.
        false_equivalent: pairs called equivalent or inverted that are not.
        disputed: pairs proposed that the recording's author keeps flagged over a difference in the rules.
        episodes: planted arbitrage that was played while capturing.
        unplanted: accepted opportunities that nobody planted.
        phantoms: false opportunities that were played.
        spreads: newest row of every pair.
    """

    exchange: str
    report: Path
    home: Path
    planted: int = 0
    found: int = 0
    false_equivalent: list[Pair] = field(default_factory=list)
    disputed: list[Pair] = field(default_factory=list)
    missed: list[Pair] = field(default_factory=list)
    episodes: list[PlantedEpisode] = field(default_factory=list)
    unplanted: list[Mapping[str, Any]] = field(default_factory=list)
    phantoms: list[PlayedPhantom] = field(default_factory=list)
    spreads: Sequence[Mapping[str, Any]] = ()
    titles: Mapping[str, str] = field(default_factory=dict)
    frames: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def summary(self) -> dict[str, Any]:
        """The outcome as one JSON document."""
        return {
            "planted": self.planted,
            "found": self.found,
            "false_equivalent": len(self.false_equivalent),
            "report": str(self.report),
            "disputed": len(self.disputed),
            "opportunities": {
                "planted": len(self.episodes),
                "found": sum(episode.found is not None for episode in self.episodes),
                "unplanted": len(self.unplanted),
                "phantoms": len(self.phantoms),
                "phantoms_accepted": sum(phantom.accepted for phantom in self.phantoms),
                "phantoms_by_kind": self.phantoms_by_kind(),
            },
            "frames": dict(self.frames),
            "exchange": self.exchange,
            "home": str(self.home),
            "seconds": round(self.seconds, 1),
        }

    def phantoms_by_kind(self) -> dict[str, dict[str, int]]:
        """By kind how many were ``planted`` (and played), and of these ``rejected`` for what is wrong with them."""
        kinds: dict[str, dict[str, int]] = {}
        for phantom in self.phantoms:
            counts = kinds.setdefault(phantom.truth["kind"], {"planted": 0, "rejected": 0})
            counts["planted"] += 1
            counts["rejected"] += phantom.right
        return dict(sorted(kinds.items()))

    def print(self, out: Console) -> None:
        """The outcome for people."""
        out.print(f"\n[bold]Data of the {self.exchange}[/] — not of the real venues.")
        captured = ", ".join(f"{count:,} frames of {venue}" for venue, count in self.frames.items())
        out.print(f"Captured {captured}.")
        out.print(
            f"Pairs: {self.found} of {self.planted} true ones found, "
            f"{len(self.false_equivalent)} look-alikes called equivalent."
        )
        if self.disputed:
            out.print(f"Proposed for review and known to differ in the rules: {len(self.disputed)}.")
        if self.episodes:
            out.print(self._episode_table())
            kinds = ", ".join(
                f"{kind.replace('_', ' ')} {counts['rejected']} of {counts['planted']}"
                for kind, counts in self.phantoms_by_kind().items()
            )
            out.print(f"Phantoms rejected for what is wrong with them: {kinds}.")
            accepted = sum(phantom.accepted for phantom in self.phantoms)
            out.print(f"Phantoms accepted: {accepted}. Opportunities that nobody planted: {len(self.unplanted)}.")
        if self.spreads:
            out.print(spread_grid(self.spreads, self.titles))
        arb = Path(sys.executable).with_name("arb")
        out.print(f"\nReport:  {_short(self.report)}", soft_wrap=True)
        out.print(f"Tables:  {_short(self.home / 'lake')}", soft_wrap=True)
        out.print(
            f"Its runs in the Dagster UI:  {_short(arb)} up --home {_short(self.home)} --no-capture", soft_wrap=True
        )
        out.print(f"Finished in {self.seconds:.0f} s.")

    def _episode_table(self) -> Table:
        table = Table(
            title="Arbitrage planted and found, net dollars (A: YES on Kalshi, opposite on Polymarket; B: the reverse)",
            title_justify="left",
        )
        table.add_column("market", no_wrap=True, overflow="ellipsis")
        for name in ("way", "planted net", "found net", "contracts", "lasted", "verdict"):
            table.add_column(name, justify="right" if name in {"planted net", "found net", "contracts"} else "left")
        for episode in self.episodes:
            truth, found = episode.truth, episode.found
            title = self.titles.get(truth["kalshi_market_id"], truth["kalshi_market_id"])
            way = "A" if truth["direction"] == "yes_kalshi" else "B"
            planted = f"{Decimal(truth['net']):.4f}"
            if found is None:
                table.add_row(title, way, planted, "none", "", "", "[red]missed[/]")
                continue
            closed = found["closed_at"]
            lasted = f"{(closed - found['opened_at']).total_seconds():.1f} s" if closed else "to the end"
            net, size = f"{found['net']:.4f}", f"{found['size'].normalize():f}"
            table.add_row(title, way, planted, net, size, lasted, "[green]found[/]")
        return table


def _short(path: Path) -> str:
    """Relative to the working directory where the path lies below it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def run_demo(
    home: Path,
    recording: Path | None,
    seconds: float,
    *,
    seed: int,
    speed: float,
    console: Console,
    embedded_postgres: bool = False,
) -> DemoOutcome:
    """Run the demo in ``home``, which is made anew.

    Args:
        recording: serve this recording; None: a generated market.
        seconds: length of the capture.
        seed: seed of the generated market.
        speed: playback speed of the exchange.
        console: where progress goes.
        embedded_postgres: bring a Postgres along below ``home``, for the tables and for Dagster's storage.

    Raises:
        PostgresError: if the embedded Postgres is not installed, or does not start.
        DemoError: if ``home`` is a folder that no demo made, or the exchange does not start.
    """
    began = time.monotonic()
    home = _fresh(home)
    source = ["--recording", str(recording.resolve())] if recording else ["--seed", str(seed)]
    with (
        _own_postgres(home, wanted=embedded_postgres),
        _exchange([*source, "--speed", str(speed)], home) as announcement,
    ):
        settings = _settings(home, announcement["env"], embedded_postgres=embedded_postgres)
        console.print(f"[dim]{settings.exchange_name}, {announcement['control_url']}[/]", highlight=False)
        control = announcement["control_url"]
        truth = _truth(control)
        if recording:
            truth = {**truth, "pairs": [_labelled(pair) for pair in Recording.open(recording).pairs]}
        with _steps(console, control) as step:
            report = _run(home, settings, seconds, truth, step)
            step("comparing with the truth")
        played = _truth(control)
    outcome = compare(settings, truth, played, recorded=recording is not None)
    outcome.report = report
    outcome.home = home
    outcome.seconds = time.monotonic() - began
    return outcome


def _run(home: Path, settings: Settings, seconds: float, truth: Mapping[str, Any], step: Step) -> Path:
    """The pipeline's jobs on a Dagster instance below ``home``."""
    os.environ["DAGSTER_HOME"] = str(home / ".dagster")
    import dagster as dg

    from arb_pipeline.defs.demo import run_demo_pipeline
    from arb_pipeline.defs.home import prepare_home

    prepare_home(_project_root(), home / ".dagster")
    with dg.DagsterInstance.get() as instance:
        results = run_demo_pipeline(
            instance, settings, seconds, step, before_analysis=lambda: decide(settings, truth, step)
        )
        return results.report


def decide(settings: Settings, truth: Mapping[str, Any], step: Step = lambda _step: None) -> None:
    """Play the person who reads both rules texts: approve what was proposed and is true, by the exchange's truth.

    What the texts say about exceptional states goes into the decision. A recording's pairs are left in review: its
    author's labels measure the matcher and decide nothing.
    """
    from arb_pipeline.matching.overrides import (
        Decision,
        PolymarketSide,
        RulesHashes,
        Verdict,
        VoidState,
        save_decisions,
    )
    from arb_pipeline.pipeline import match_markets

    if not truth["episodes"]:
        return
    step("reviewing the proposed pairs")
    told = {_pair(pair): pair for pair in (*truth["pairs"], *truth["implied"])}
    lake = Lake(settings.lake, settings.exchange_name)
    decisions = [
        Decision(
            kalshi=row["kalshi_market_id"],
            polymarket=PolymarketSide(
                condition_id=row["polymarket_market_id"], yes_token_index=row["polymarket_yes_index"]
            ),
            verdict=Verdict(row["relation"]),
            rules_sha256=RulesHashes(kalshi=row["kalshi_rules_sha256"], polymarket=row["polymarket_rules_sha256"]),
            void_states={name: VoidState(**pays) for name, pays in pair.get("void_states", {}).items()},
            by="demo",
            at=settings.clock.now().date(),
            why="the local exchange planted this pair",
        )
        for row in match_markets(settings, lake).matches.to_pylist()
        if (pair := told.get(_pair(row))) is not None
        and pair["relation"] == row["relation"]
        and (row["status"] == MatchStatus.REVIEW or "void_states" in pair)
    ]
    save_decisions(settings.matches_path, decisions)


def compare(settings: Settings, truth: Mapping[str, Any], played: Mapping[str, Any], *, recorded: bool) -> DemoOutcome:
    """Hold what the lake says against the truth.

    Args:
        truth: the exchange's truth before the capture.
        played: the same after it, with the wall times of what was played.
        recorded: whether a recording was played, of which the newest spreads are told instead.
    """
    from arb_pipeline.matching.versions import current_matches
    from arb_pipeline.pipeline import newest_spreads
    from arb_pipeline.storage.catalogue import read_markets

    lake = Lake(settings.lake, settings.exchange_name)
    true = {_pair(pair): pair["relation"] for pair in truth["pairs"] if pair["relation"] in _SAME}
    flagged = {_pair(pair) for pair in truth["pairs"]} - set(true)
    matched = {_pair(row): row for row in current_matches(lake).to_pylist()}
    called = {
        pair: row["relation"] for pair, row in matched.items() if row["relation"] in _SAME and row["status"] in _CALLED
    }
    right = {pair for pair, relation in called.items() if true.get(pair) == relation}
    opportunities = lake.read("opportunities").to_pylist()
    accepted = [row for row in opportunities if row["accepted"]]
    sessions = lake.read("capture_sessions").to_pylist()
    window = (
        (min(row["started_at"] for row in sessions), max(row["ended_at"] for row in sessions)) if sessions else None
    )
    capture_end = window[1] if window else None
    episodes = [
        PlantedEpisode(planted, _found(planted, accepted)) for planted in _played(played["episodes"], capture_end)
    ]
    phantoms = [
        _judged(phantom, opportunities, matched.get(_pair(phantom)))
        for phantom in _played(played["phantoms"], capture_end)
    ]
    return DemoOutcome(
        exchange=settings.exchange_name,
        report=Path(),
        home=Path(),
        planted=len(true),
        found=len(right),
        false_equivalent=sorted(set(called) - right - flagged),
        disputed=sorted(set(called) & flagged),
        missed=sorted(set(true) - right),
        episodes=episodes,
        unplanted=[row for row in accepted if not any(_overlap(one, row) for one in played["episodes"])],
        phantoms=phantoms,
        spreads=newest_spreads(settings, lake, *window) if recorded and window else [],
        titles={market.market_id: _title(market.title, market.yes_title) for market in read_markets(lake)},
        frames=_frames(sessions),
    )


def _title(title: str, yes_title: str) -> str:
    return title if not yes_title or yes_title.casefold() in title.casefold() else f"{title} — {yes_title}"


def _frames(sessions: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for row in sessions:
        counted[row["venue"]] += row["frames"]
    return dict(counted)


def _played(planted: Sequence[Mapping[str, Any]], capture_end: datetime | None) -> list[Mapping[str, Any]]:
    """Those that opened at least a second before the capture ended."""
    if capture_end is None:
        return []
    limit = ns_from_datetime(capture_end) - 1_000_000_000
    return [one for one in planted if one["opened_wall_ns"] and one["opened_wall_ns"] < limit]


def _found(planted: Mapping[str, Any], accepted: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The accepted opportunity of a planted episode, the best if several."""
    return max((row for row in accepted if _overlap(planted, row)), key=lambda row: row["net"], default=None)


def _judged(
    phantom: Mapping[str, Any], opportunities: Sequence[Mapping[str, Any]], matched: Mapping[str, Any] | None
) -> PlayedPhantom:
    """What became of a phantom. Look-alikes that the matcher holds for no pair are no candidates at all."""
    rows = [row for row in opportunities if _overlap(phantom, row)]
    stopped = sorted({reason for row in rows for reason in json.loads(row["reasons"])})
    if not rows and (matched is None or matched["status"] not in _CALLED):
        stopped = [f"{_MATCH_STATUS}:{'none' if matched is None else matched['status']}"]
    accepted = any(row["accepted"] for row in rows)
    right = any(reason.partition(":")[0] in phantom["guards"] for reason in stopped)
    return PlayedPhantom(phantom, tuple(stopped), right and not accepted, accepted)


def _overlap(planted: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether an opportunity is of the planted pair, direction and time."""
    opened, closed = planted["opened_wall_ns"], planted["closed_wall_ns"]
    return (
        opened is not None
        and _pair(row) == _pair(planted)
        and row["direction"] == planted["direction"]
        and (closed is None or ns_from_datetime(row["opened_at"]) < closed)
        and (row["closed_at"] is None or ns_from_datetime(row["closed_at"]) > opened)
    )


def _pair(row: Mapping[str, Any]) -> Pair:
    return row["kalshi_market_id"], row["polymarket_market_id"]


def _labelled(pair: Mapping[str, Any]) -> dict[str, Any]:
    """A recording's pair in the words of the exchange's truth; what its author keeps flagged is ``related``."""
    same = Relation.INVERTED if pair.get("yes_outcome_index") else Relation.EQUIVALENT
    return {
        "kalshi_market_id": pair["kalshi_ticker"],
        "polymarket_market_id": pair["condition_id"],
        "relation": (same if pair["equivalent"] else Relation.RELATED).value,
    }


# --- surroundings ------------------------------------------------------------------------------------------


def _fresh(home: Path) -> Path:
    """The demo's folder, emptied if an earlier demo made it."""
    home = home.resolve()
    if home.exists() and any(home.iterdir()) and not (home / SETTINGS_FILE).is_file():
        raise DemoError(f"{home} holds something that no demo made: name another folder with --home")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    return home


@contextlib.contextmanager
def _own_postgres(home: Path, *, wanted: bool) -> Iterator[None]:
    """The demo's own Postgres or none: its rows belong beside its lake, not into what the environment names."""
    from arb_pipeline.storage.postgres import embedded_environment

    for name in ("ARB_POSTGRES_URL", "ARB_DAGSTER_POSTGRES_URL"):
        os.environ.pop(name, None)
    if not wanted:
        yield
        return
    with embedded_environment(home / ".dagster" / "postgres", instead=True):
        yield


def _settings(home: Path, environment: Mapping[str, str], *, embedded_postgres: bool = False) -> Settings:
    """Settings that point at the exchange and at the demo's own folder; written down for ``arb up --home``."""
    kept = {
        **{name: value for name, value in environment.items() if name not in _SECRET},
        "ARB_LAKE": str(home / "lake"),
        "ARB_MATCHES_PATH": str(home / "matches.yaml"),
        "ARB_LISTENERS_PATH": str(home / "listeners.yaml"),
        "ARB_REPORTS_PATH": str(home / "reports"),
        "ARB_EMBEDDED_POSTGRES": str(embedded_postgres),
    }
    lines = [f"{name}='{value}'" for name, value in kept.items()]
    (home / SETTINGS_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    given = {**environment, **kept}
    fields: dict[str, Any] = {name.removeprefix("ARB_").lower(): value for name, value in given.items()}
    # A URL that .env names is not the demo's either.
    postgres = {"postgres_url": os.environ.get("ARB_POSTGRES_URL")}
    return Settings(**{"kalshi_private_key_path": None, **postgres, **fields})


def _project_root() -> Path:
    """Where ``dagster.yaml`` lies: the working directory, or the checkout that the package is installed from."""
    here = Path.cwd()
    return here if (here / "dagster.yaml").is_file() else Path(__file__).resolve().parent.parent


def _truth(control: str) -> dict[str, Any]:
    answer = httpx.get(f"{control}/truth", timeout=30)
    answer.raise_for_status()
    truth: dict[str, Any] = answer.json()
    return truth


def use_demo_settings(home: Path) -> Path:
    """Point this process at what a demo made in ``home``; returns its DAGSTER_HOME.

    The demo's exchange is gone by then: its runs, tables and report can be read, and nothing is dialled. A folder that
    no demo made is taken for a DAGSTER_HOME as it is.
    """
    home = home.resolve()
    if not (home / SETTINGS_FILE).is_file():
        return home
    load_dotenv(home / SETTINGS_FILE, override=True)
    return home / ".dagster"


@contextlib.contextmanager
def _exchange(options: Sequence[str], home: Path) -> Iterator[dict[str, Any]]:
    """The local exchange as a process of its own; yields its announcement.

    Raises:
        DemoError: if it ends, or is not ready within a minute.
    """
    log = home / "exchange.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "arb_pipeline", "exchange", "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,  # Ctrl-C is the demo's to handle: it stops the exchange last
        )
    try:
        assert process.stdout is not None
        line = _line(process.stdout, _READY_S)
        if not line:
            raise DemoError(f"the local exchange did not start: {log.read_text(encoding='utf-8').strip()[-500:]}")
        announcement: dict[str, Any] = json.loads(line)
        yield announcement
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _line(stream: IO[str], timeout_s: float) -> str:
    """The first line of a stream, empty if none comes in time."""
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(stream.readline()), daemon=True)
    reader.start()
    reader.join(timeout_s)
    return read[0] if read else ""


@contextlib.contextmanager
def _steps(console: Console, control: str) -> Iterator[Step]:
    """A line for each step, and while a step lasts, how far the exchange's playback is."""
    began = time.monotonic()
    done = threading.Event()

    def beat() -> None:
        while not done.wait(_BEAT_S):
            with contextlib.suppress(httpx.HTTPError):
                status = httpx.get(f"{control}/status", timeout=5).json()
                at = status["position_ns"] / 1e9
                console.print(f"[dim]{time.monotonic() - began:5.0f} s    playback at {at:.0f} s[/]", highlight=False)

    def step(name: str) -> None:
        console.print(f"{time.monotonic() - began:5.0f} s  {name}", highlight=False)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield step
    finally:
        done.set()
        thread.join()
