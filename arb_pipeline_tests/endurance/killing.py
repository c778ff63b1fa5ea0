"""A capture that is killed again and again, and what must be in its tables all the same.

The exchange runs in a process of its own and notes every frame that it hands to a socket. A real ``arb capture`` is
killed with SIGKILL at random moments: the recorder, its encoder, or both, while it starts, while it recovers what the
kill before left, or in full swing. It is started again at once. In the end

- every connection's frames in ``raw_frames`` are, text by text and in order, the first of those that the exchange sent
  over it, and all that were sent up to two flush intervals before the kill are there;
- no row of any table is there twice, and every trade and level change has its row;
- from each kill to the first snapshot of the next connection every book is inside ``book_gaps``;
- the newest books equal the exchange's own, and every table can be read.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

from arb_pipeline.capture.journal import RunFolder
from arb_pipeline.storage import Lake
from arb_pipeline_tests.endurance.captured import Captured
from arb_pipeline_tests.endurance.capturing import VENUES, Capturing, Target
from arb_pipeline_tests.endurance.exchange import ExchangeProcess, SentFrame, until

__all__ = ["Kill", "KillResult", "Stretch", "kill_trial"]

_MS = 1_000_000
_SOON_NS = 500 * _MS
"""No capture connects so soon after the one before it was killed."""
_TARGETS: tuple[Target, ...] = ("recorder", "both", "encoder")
_TARGET_SHARES = (0.4, 0.35, 0.25)
_STARTING_SHARE = 0.25
_START_S = 5.0
"""What a capture needs at most, more or less, from its start to its first frames."""
_ROW_OF_TYPE = {"trade": "trades", "last_trade_price": "trades", "orderbook_delta": "deltas", "price_change": "deltas"}


@dataclass(frozen=True)
class Kill:
    """One kill."""

    target: Target
    phase: Literal["starting", "streaming"]
    after_s: float
    at_ns: int


@dataclass(frozen=True)
class Stretch:
    """One connection from its start to the kill (or the stop) that ended it.

    Attributes:
        sent: frames that the exchange handed to the socket.
        due: those among them that must be there.
        captured: those that are there.
        lost_ms: how long before the kill the first missing frame was sent; None if none is missing.
    """

    label: str
    killed: int | None
    sent: int
    due: int
    captured: int
    lost_ms: float | None


@dataclass
class KillResult:
    """What happened, and what is wrong."""

    kills: list[Kill] = field(default_factory=list)
    stretches: list[Stretch] = field(default_factory=list)
    outages: list[float] = field(default_factory=list)
    books: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    flush_ms: float = 0.0
    findings: list[str] = field(default_factory=list)

    def table(self) -> str:
        """The result as text."""
        numbers = "".join(f" {name:>8}" for name in ("sent", "due", "captured", "lost ms"))
        lines = [f"kill  {'target':9} {'phase':9} {'after s':>7} {numbers}"]
        for number, kill in enumerate(self.kills):
            own = [stretch for stretch in self.stretches if stretch.killed == number]
            lost = max((stretch.lost_ms for stretch in own if stretch.lost_ms is not None), default=None)
            sums = " ".join(f"{sum(getattr(one, name) for one in own):8}" for name in ("sent", "due", "captured"))
            shown = "-" if lost is None else f"{lost:.0f}"
            lines.append(f"{number + 1:4}  {kill.target:9} {kill.phase:9} {kill.after_s:7.2f}  {sums} {shown:>8}")
        sent, due, captured = (
            sum(getattr(one, name) for one in self.stretches) for name in ("sent", "due", "captured")
        )
        lost = max((stretch.lost_ms for stretch in self.stretches if stretch.lost_ms is not None), default=0.0)
        outages = sorted(self.outages) or [0.0]
        lines += [
            "",
            f"frames sent {sent:,}, due {due:,}, captured {captured:,}",
            f"oldest lost frame: {lost:.0f} ms before its kill (two flush intervals are {2 * self.flush_ms:.0f} ms)",
            f"outages: {len(outages):,}, from the kill to the first snapshot {outages[0]:.1f} to {outages[-1]:.1f} s",
            f"rows: {', '.join(f'{name} {count:,}' for name, count in sorted(self.rows.items()))}",
            f"books compared with the exchange's: {self.books}; {self.seconds:.0f} s",
            *(f"FAILED: {finding}" for finding in self.findings),
            "FAILED" if self.findings else "passed",
        ]
        return "\n".join(lines)


def kill_trial(
    folder: Path,
    *,
    kills: int = 20,
    rate: float = 2_000.0,
    seed: int = 1,
    flush_ms: float = 100.0,
    markets: int = 150,
    life_s: float = 12.0,
    grace_s: float = 0.0,
    say: Callable[[str], None] = lambda _words: None,
) -> KillResult:
    """Kill a capture so many times, let the last one end well, and check what is in the tables.

    Args:
        folder: an empty one.
        rate: frames per second over both venues, about.
        seed: chooses moments and targets.
        flush_ms: ``ARB_FLUSH_MS``.
        markets: at each venue; up to 200 go over one Polymarket socket.
        life_s: the longest time from the first frames to a kill.
        grace_s: what a frame may take from the exchange into the journal beside the two flush intervals, on a machine
            that has other things to do.
        say: told of each kill.
    """
    rng, began = random.Random(seed), time.monotonic()
    result = KillResult(flush_ms=flush_ms)
    settings = {
        "ARB_CAPTURE_MAX_MARKETS": str(markets),
        "ARB_FLUSH_MS": str(flush_ms),
        "ARB_CAPTURE_FLUSH_S": "1",
    }
    with ExchangeProcess(7, rate, log_frames=1_000_000) as exchange, Capturing(folder, exchange, settings) as capturing:
        _kill(capturing, rng, result, kills=kills, life_s=life_s, say=say)
        sent = _end(capturing, rng, 2 * flush_ms / 1e3 + grace_s)
        _Check(exchange, capturing.process.lake, result, 2 * flush_ms * _MS + grace_s * 1e9).run(sent)
    result.seconds = time.monotonic() - began
    return result


def _kill(
    capturing: Capturing,
    rng: random.Random,
    result: KillResult,
    *,
    kills: int,
    life_s: float,
    say: Callable[[str], None],
) -> None:
    """Start and kill, again and again; in the end the capture runs."""
    alive, known = False, 0
    for number in range(kills):
        if not alive:
            known = capturing.start()
        started = time.monotonic()
        starting = not alive and rng.random() < _STARTING_SHARE
        if starting:
            time.sleep(rng.uniform(0.2, _START_S))
        else:
            capturing.await_streams(known)
            started = time.monotonic()
            time.sleep(rng.uniform(0.1, life_s))
        at_ns, after_s = time.time_ns(), time.monotonic() - started
        target = capturing.process.kill(rng.choices(_TARGETS, _TARGET_SHARES)[0])
        alive = target == "encoder"
        result.kills.append(Kill(target, "starting" if starting else "streaming", after_s, at_ns))
        say(f"kill {number + 1} of {kills}: {target}")
    if not alive:
        known = capturing.start()
    capturing.await_streams(known)


def _end(capturing: Capturing, rng: random.Random, grace_s: float) -> dict[str, int]:
    """Let the last run finish what the others left, and stop it; frames sent by then, by connection."""
    journals = capturing.process.journals
    until(lambda: len(RunFolder.all(journals)) == 1, "the journals of killed runs are finished", 300)
    time.sleep(rng.uniform(0.5, 2.0))
    return capturing.stop(grace_s)


class _Check:
    """Compares tables with what the exchange sent."""

    def __init__(self, exchange: ExchangeProcess, lake: Lake, result: KillResult, allowed_ns: float) -> None:
        self._exchange = exchange
        self._captured = Captured(lake)
        self._result = result
        self._allowed_ns = allowed_ns
        self._rows: Counter[str] = Counter()

    def run(self, sent: dict[str, int]) -> None:
        """Everything; ``sent`` are the frames that must be there of connections that were stopped."""
        find = self._result.findings
        find += [f"cannot be read: {words}" for words in self._captured.unreadable()]
        find += [f"{name}: {count} rows are there twice" for name, count in self._captured.repeated().items() if count]
        for venue in VENUES:
            self._check_venue(venue, sent)
        self._check_rows()
        self._check_books()

    def _check_venue(self, venue: str, sent: dict[str, int]) -> None:
        sessions = self._captured.sessions(venue)
        waiting = {
            frames[0]: (session["connection_id"], frames)
            for session in sessions
            if (frames := self._captured.frames(session["connection_id"]))
        }
        chain: list[tuple[str, int]] = []
        for told in self._exchange.counts():
            label: str = told["connection"]
            log = self._exchange.frames(label) if label.rpartition("-")[0] == venue else []
            if not log:
                continue
            connection_id, frames = waiting.pop(log[0][2], ("", []))
            killed = self._killed(log[0][0])
            self._check_stretch(label, killed, log, frames, sent.get(label, 0))
            if connection_id and killed is not None:
                chain.append((connection_id, killed))
        self._result.findings += [f"{one}: the exchange sent no such frames" for one, _ in waiting.values()]
        reasons = Counter(session["stop_reason"] for session in sessions)
        if set(reasons) - {"killed", "stopped"} or reasons["stopped"] != 1:
            self._result.findings.append(f"{venue}: sessions ended as {dict(reasons)}")
        self._check_outages(venue, [session["connection_id"] for session in sessions], dict(chain))

    def _killed(self, first_ns: int) -> int | None:
        """The kill that ended a connection with its first frame then; None: it was stopped."""
        for number, kill in enumerate(self._result.kills):
            if kill.target != "encoder" and kill.at_ns > first_ns - _SOON_NS:
                return number
        return None

    def _check_stretch(
        self,
        label: str,
        killed: int | None,
        log: Sequence[SentFrame],
        frames: Sequence[str],
        due: int,
    ) -> None:
        """Compare what came with what was sent; ``due`` counts where the connection was stopped."""
        result, have, lost_ms = self._result, len(frames), None
        if killed is not None:
            at_ns = result.kills[killed].at_ns
            due = sum(sent_ns <= at_ns - self._allowed_ns for sent_ns, _, _ in log)
            if have < len(log) and log[have][0] < at_ns:
                lost_ms = (at_ns - log[have][0]) / _MS
        result.stretches.append(Stretch(label, killed, len(log), due, have, lost_ms))
        if have < due:
            words = f"{label}: {have} of {due} frames that were due are there ({len(log)} were sent)"
            result.findings.append(words if killed is None else f"kill {killed + 1}, {words}")
        if any(ours != theirs for ours, (_, _, theirs) in zip(frames, log, strict=False)) or have > len(log):
            result.findings.append(f"{label}: what is there is not what was sent, in its order")
        venue = label.rpartition("-")[0]
        self._rows.update(f"{venue} {_ROW_OF_TYPE.get(kind, 'other')}" for _, kind, _ in log[:have])

    def _check_outages(self, venue: str, order: Sequence[str], killed: dict[str, int]) -> None:
        """From each kill to the next first snapshot every book must be in ``book_gaps``."""
        snapshots = self._captured.snapshots()
        gaps: dict[str, list[tuple[int, int]]] = {}
        for market_id, from_ns, to_ns in self._captured.rows(
            "SELECT market_id, from_ns, to_ns FROM book_gaps WHERE venue = ?", venue
        ):
            gaps.setdefault(market_id, []).append((from_ns, to_ns))
        for before, after in pairwise(order):
            if before not in killed:
                continue
            number = killed[before]
            at_ns = self._result.kills[number].at_ns
            held = [market_id for connection_id, market_id in snapshots if connection_id == before]
            ends, holes = [], []
            for market_id in held:
                until_ns = snapshots.get((after, market_id))
                if until_ns is None:
                    continue
                ends.append(until_ns)
                if hole := _hole(gaps.get(market_id, ()), at_ns, until_ns):
                    holes.append((market_id, (hole[0] - at_ns) / _MS, (hole[1] - at_ns) / _MS))
            if holes:
                self._result.findings.append(
                    f"kill {number + 1}: no gap tells of {len(holes)} of {len(held)} {venue} markets at times before "
                    "their next snapshot, such as {} {:,.1f} to {:,.1f} ms after the kill".format(*holes[0])
                )
            if ends:
                self._result.outages.append((max(ends) - at_ns) / 1e9)

    def _check_rows(self) -> None:
        """Every trade that was received has its row, and every level change.

        A Polymarket change may be older than a book that came over REST meanwhile, and is then told by that one.
        """
        for venue in VENUES:
            rows = {
                "trades": "SELECT count(*) FROM trades WHERE source = 'ws' AND venue = ?",
                "deltas": "SELECT count(*) FROM book_events WHERE kind = 'delta' AND venue = ?",
            }
            for name, statement in rows.items():
                have, due = self._captured.rows(statement, venue)[0][0], self._rows[f"{venue} {name}"]
                self._result.rows[f"{venue} {name}"] = have
                missing = due - have
                if missing and not (venue == "polymarket" and name == "deltas" and 0 < missing < due / 1_000):
                    self._result.findings.append(f"{venue}: {have} rows of {name} for {due} frames")

    def _check_books(self) -> None:
        books = self._captured.books()
        self._result.books = len(books)
        wrong = []
        for market_id, book in books.items():
            if book != self._exchange.book(market_id):
                wrong.append(market_id)
        if wrong or not books:
            self._result.findings.append(f"{len(wrong)} of {len(books)} books are not the exchange's: {wrong[:5]}")


def _hole(gaps: Iterable[tuple[int, int]], from_ns: int, to_ns: int) -> tuple[int, int] | None:
    """The first part of [from, to) that no gap covers."""
    at = from_ns
    for begin, end in sorted(gaps):
        if begin > at:
            break
        at = max(at, end)
    if at >= to_ns:
        return None
    return at, min((begin for begin, _ in gaps if begin > at), default=to_ns)
