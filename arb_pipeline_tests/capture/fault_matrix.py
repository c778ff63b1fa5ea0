"""The fault matrix: each fault of the local exchange against a real capture of it.

:func:`play` starts the exchange with a few markets, a recorder with its encoder and a temporary lake, injects a
scenario's faults, waits until each was noticed and is over, and lets the :mod:`.oracle` judge the tables. Times are the
capture's injected clock's, which in some scenarios runs faster than real time (and the exchange with it).

``python -m bench.faults`` prints the whole table; the suite runs one test per scenario.
"""

import asyncio
import contextlib
import copy
import random
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import httpx

from arb_pipeline.capture import recorder as recorder_module
from arb_pipeline.capture.journal import JournalWriter, RunFolder, journal_root
from arb_pipeline.capture.recorder import CaptureStatus, Recorder
from arb_pipeline.clock import Clock
from arb_pipeline.exchange import Exchange, GeneratedSource, start
from arb_pipeline.exchange.signing import ThrowAwayKey
from arb_pipeline.exchange.source import Action, BookRefresh, InitialBook, Json, LevelChange, TradePrint
from arb_pipeline.model import Anomaly, BookDelta, GapClosed, GapOpened, Market, Output, Reconnect, Side
from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake
from arb_pipeline.units import ONE, SIZE_SCALE
from arb_pipeline.venues import VENUES
from arb_pipeline.venues.base import Session, Venue
from arb_pipeline_tests.capture.oracle import Rows, Tape, Verdict, verdict

__all__ = ["SCENARIOS", "Captured", "Case", "Result", "Scenario", "can_mount", "capture", "play", "play_all", "table"]

_S: Final = 1_000_000_000
_PATIENCE_S: Final = 60.0
"""Real seconds to wait for anything: a loaded machine is slow, and what is measured is not this."""
_POLL_S: Final = 0.01
_AGE_S: Final = 10.0
"""Data age of both venues, the least that there is."""
_EACH: Final = 4
_PER_CONNECTION: Final = 2
_TABLES: Final = ("raw_frames", "book_events", "quotes", "trades", "book_gaps", "capture_sessions")
_STEPS: Final = 5
"""Levels from the best price on that change."""
_SLACK_NS: Final = 3 * _S
"""More than the longest that a scenario delays an answer."""


class FewMarkets(GeneratedSource):
    """A few of the generated markets of each venue, all of which move all the time and never cross.

    Args:
        each: markets per venue.
        rate: changes per second over all of them.
        trades: whether there are trades, too.

    Attributes:
        still: markets that do not move for now.
        ended: set it to end the playback.
    """

    def __init__(self, each: int = _EACH, *, rate: float = 160.0, trades: bool = True) -> None:
        super().__init__(7, 1, 1.0, rate=1.0)
        whole = super().books()
        fit = [market_id for market_id, book in whole.items() if _is_roomy(book) and market_id not in self.hidden]
        kalshi = [market_id for market_id in fit if not market_id.startswith("0x")][:each]
        polymarket = [market_id for market_id in fit if market_id.startswith("0x")][:each]
        self.chosen: dict[str, list[str]] = {"kalshi": kalshi, "polymarket": polymarket}
        self.still: set[str] = set()
        self.ended = False
        self._step_ns = round(_S / rate)
        self._trades = trades
        self._books = {market_id: whole[market_id] for market_id in [*kalshi, *polymarket]}

    @property
    def hidden(self) -> frozenset[str]:
        """None."""
        return frozenset()

    def kalshi_events(self) -> list[Json]:
        """Those of the chosen markets."""
        return _with_markets(super().kalshi_events(), "ticker", self._books)

    def polymarket_events(self) -> list[Json]:
        """Those of the chosen markets."""
        return _with_markets(super().polymarket_events(), "conditionId", self._books)

    def books(self) -> dict[str, InitialBook]:
        """Those of the chosen markets."""
        return self._books

    def timeline(self) -> Iterator[tuple[int, Action]]:
        """One change after the other, each of a market of its own; now and then a trade."""
        chance = random.Random(7)
        at, markets = 0, list(self._books)
        while not self.ended:
            for market_id in markets:
                at += self._step_ns
                if market_id in self.still:
                    continue
                yield at, self._change(chance, market_id)
                if self._trades and chance.random() < 0.02:
                    price = self._books[market_id].bids[0][0]
                    yield at, TradePrint(market_id, price, SIZE_SCALE, "no")
                    if market_id in self.chosen["polymarket"]:
                        yield at, BookRefresh(market_id)

    def _change(self, chance: random.Random, market_id: str) -> LevelChange:
        book, step = self._books[market_id], 100 * chance.randrange(_STEPS)
        side: Side = chance.choice(("bid", "ask"))
        price = book.bids[0][0] - step if side == "bid" else book.asks[0][0] + step
        size = 0 if chance.random() < 0.3 else chance.randrange(1, 500)
        return LevelChange(market_id, side, price, size * SIZE_SCALE)


def _is_roomy(book: InitialBook) -> bool:
    """Whether there is room below the best bid and above the best ask, on the whole cents of any grid."""
    if not book.bids or not book.asks:
        return False
    bid, ask = book.bids[0][0], book.asks[0][0]
    return bid % 100 == ask % 100 == 0 and 100 * (_STEPS + 1) < bid < ask < ONE - 100 * (_STEPS + 1)


def _with_markets(events: Sequence[Json], key: str, wanted: Collection[str]) -> list[Json]:
    cut = [{**event, "markets": [record for record in event["markets"] if record[key] in wanted]} for event in events]
    return [event for event in cut if event["markets"]]


class _SteppedClock:
    """The time of a capture: it runs at a pace of its own and can be set."""

    def __init__(self, pace: float) -> None:
        self._pace = pace
        self._began = time.monotonic_ns()
        self._at = time.time_ns()

    def __call__(self) -> int:
        return self._at + round((time.monotonic_ns() - self._began) * self._pace)

    def step(self, seconds: float) -> None:
        """Set it."""
        self._at += round(seconds * _S)


@dataclass(frozen=True, slots=True)
class _Sign:
    """Something that a session said: ``gap CAUSE``, ``anomaly KIND``, ``closed RECOVERY`` or ``reconnect``."""

    at_ns: int
    venue: str
    market_id: str
    what: str


@dataclass
class Case:
    """One fault on one venue.

    Attributes:
        touched: the markets that it may put in doubt.
        place: of the tape, where it was injected.
        struck_ns, detected_ns, recovered_ns: None where there was nothing to detect or recover from.
        limit_s: within which it has to be detected, injected seconds.
        lost, unaccounted: messages that it cost, and those among them that no row tells of.
    """

    fault: str
    venue: str
    touched: frozenset[str]
    place: int
    struck_ns: int
    limit_s: float
    detected_ns: int | None = None
    recovered_ns: int | None = None
    lost: int = 0
    unaccounted: int = 0

    @property
    def detected_s(self) -> float | None:
        """Seconds from the fault to its first sign."""
        return None if self.detected_ns is None else (self.detected_ns - self.struck_ns) / _S

    @property
    def recovered_s(self) -> float | None:
        """Seconds from the fault until every touched market was trusted again."""
        return None if self.recovered_ns is None else (self.recovered_ns - self.struck_ns) / _S


@dataclass
class Result:
    """A scenario that was played.

    Attributes:
        verdict: the oracle's.
        strangers: doubts about markets that no fault touched, in words.
    """

    scenario: str
    cases: list[Case]
    verdict: Verdict
    strangers: list[str]

    @property
    def findings(self) -> list[str]:
        """Whatever is not as it should be."""
        late = [
            f"{case.fault} of {case.venue} was detected after {case.detected_s:.1f} s, later than {case.limit_s:g} s"
            for case in self.cases
            if case.detected_s is not None and case.detected_s > case.limit_s
        ]
        return [*self.verdict.objections, *self.strangers, *late]


class Run:
    """A capture under way, as a scenario sees it."""

    def __init__(self, exchange: Exchange, source: FewMarkets, tape: Tape, listener: "_Listener", root: Path) -> None:
        self.exchange = exchange
        self.source = source
        self.tape = tape
        self.clock = listener.clock
        self.kalshi, self.polymarket = source.chosen["kalshi"], source.chosen["polymarket"]
        self.root = root
        self.cases: list[Case] = []
        self.status: CaptureStatus | None = None
        self.recorder: Recorder | None = None
        self.task: asyncio.Task[Any] | None = None
        self._signs = listener.signs
        self._fresh = listener.fresh
        self._sessions = listener.sessions

    def group(self, market_id: str) -> list[str]:
        """The markets that share a connection with this one."""
        listed = self.kalshi if market_id in self.kalshi else self.polymarket
        place = listed.index(market_id) // _PER_CONNECTION * _PER_CONNECTION
        return listed[place : place + _PER_CONNECTION]

    def markets(self, venue: str) -> list[str]:
        """A venue's markets."""
        return self.source.chosen[venue]

    async def strike(
        self,
        kind: str,
        venue: str,
        touched: Collection[str],
        *,
        fault: str = "",
        limit_s: float = _AGE_S + 5,
        **parameters: Any,
    ) -> Case:
        """Let the exchange do it."""
        case = self.case(fault or kind, venue, touched, limit_s)
        await self.also(kind, venue, **parameters)
        return case

    async def also(self, kind: str, venue: str, **parameters: Any) -> None:
        """Let the exchange do it as a part of something else."""
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.exchange.port}") as http:
            answer = await http.post("/_exchange/fault", json={"kind": kind, "venue": venue, **parameters})
        assert answer.status_code == 200, answer.text

    def sent_first(self, venue: str) -> int:
        """When the first connection of a venue was first sent something, 0 if none was."""
        frames = self.tape.sent.get(f"{venue}-1")
        return frames[0].at_ns if frames else 0

    def case(self, fault: str, venue: str, touched: Collection[str], limit_s: float = _AGE_S + 5) -> Case:
        """A fault that is injected now."""
        self.cases.append(Case(fault, venue, frozenset(touched), self.tape.place, self.clock(), limit_s))
        return self.cases[-1]

    async def detected(self, case: Case, *whats: str) -> None:
        """Wait for the first sign of one of these kinds, and note when it came."""
        case.detected_ns = await self.said(case, *whats)

    async def said(self, case: Case, *whats: str) -> int:
        """Wait for a sign of one of these kinds; when it came."""

        def fitting() -> list[int]:
            names = case.touched | {""}
            return [
                sign.at_ns
                for sign in self._signs
                if sign.venue == case.venue
                and sign.what in whats
                and sign.market_id in names
                and sign.at_ns >= case.struck_ns
            ]

        await self.until(lambda: bool(fitting()), f"{case.fault} of {case.venue}: no {' or '.join(whats)}")
        return fitting()[0]

    async def recovered(self, *cases: Case) -> None:
        """Wait until every market is in sync and the touched ones move on."""
        counts = Counter(self._fresh)
        for case in cases:
            await self.until(
                lambda case=case: (  # type: ignore[misc]
                    self.in_sync()
                    and all(
                        self._fresh[market_id] > counts[market_id] + 1 for market_id in case.touched - self.source.still
                    )
                ),
                f"{case.fault} of {case.venue}: no recovery",
            )
            ends = [
                sign.at_ns
                for sign in self._signs
                if sign.venue == case.venue
                and sign.market_id in case.touched
                and sign.what.startswith("closed ")
                and sign.at_ns >= case.struck_ns
            ]
            case.recovered_ns = max(ends, default=case.detected_ns)

    async def settled(self) -> None:
        """Wait until all is well and every market moves."""
        counts = Counter(self._fresh)
        ids = {*self.kalshi, *self.polymarket} - self.source.still
        await self.until(
            lambda: self.in_sync() and all(self._fresh[each] > counts[each] + 1 for each in ids), "nothing moves"
        )

    def in_sync(self) -> bool:
        """Whether every streamed market is."""
        held = {
            market_id
            for session in self._sessions
            for market_id in self.markets(session.venue)
            if session.in_sync(market_id)
        }
        return held >= {market_id for session in self._sessions for market_id in self.markets(session.venue)}

    def books_agree(self) -> bool:
        """Whether each session's book is the exchange's."""
        return all(
            session.book(market_id) is None or (dict(book.bids), dict(book.asks)) == self.tape.book(market_id)
            for session in self._sessions
            for market_id in self.markets(session.venue)
            if (book := session.book(market_id)) is not None
        )

    async def until(self, ready: Callable[[], bool], complaint: str) -> None:
        """Wait for a condition; a capture that ends before it is an error."""
        deadline = time.monotonic() + _PATIENCE_S
        while not ready():
            if self.task is not None and self.task.done():
                raise AssertionError(f"{complaint}: the capture ended: {self.task.result()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{complaint} within {_PATIENCE_S:g} s; newest signs: {self._signs[-8:]}")
            await asyncio.sleep(_POLL_S)

    @property
    def message(self) -> str:
        """What the capture says is wrong with its disks."""
        assert self.recorder is not None
        return self.recorder.journal.message


@dataclass(frozen=True)
class Scenario:
    """What happens, and under which circumstances.

    Attributes:
        body: injects the faults and waits for their end.
        before: the same before the capture begins.
        pace: injected seconds per real second, of the capture's clock and of the exchange.
        keyless: whether Kalshi is polled.
        trades: whether there are trades.
        around: a context for the whole run, given its folder.
        mounts: whether that takes the right to mount file systems.
    """

    name: str
    body: Callable[[Run], Awaitable[None]]
    before: Callable[[Run], Awaitable[None]] | None = None
    pace: float = 1.0
    keyless: bool = False
    trades: bool = True
    around: Callable[[Path], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
    mounts: bool = False


@dataclass(frozen=True)
class Captured:
    """A scenario that was played, and what was captured of it.

    Attributes:
        end: place of the tape at which the capture was told to stop.
        streamed: the markets that came over a socket.
    """

    scenario: str
    cases: list[Case]
    exchange: Exchange
    tape: Tape
    rows: Rows
    end: int
    streamed: list[str]

    def judge(self, rows: Rows | None = None) -> Verdict:
        """The oracle's verdict on the tables, or on these in their place."""
        return verdict(self.tape, rows or self.rows, self.end, streamed=self.streamed, slack_ns=_SLACK_NS)


async def play(scenario: Scenario, root: Path) -> Result:
    """Play a scenario in a folder of its own, and judge it."""
    return _result(await capture(scenario, root))


async def capture(scenario: Scenario, root: Path) -> Captured:
    """Play a scenario in a folder of its own."""
    clock = _SteppedClock(scenario.pace)
    source = FewMarkets(trades=scenario.trades, rate=160.0 / scenario.pace)
    listener = _Listener(clock)
    with scenario.around(root):
        lake = Lake(str(root / "lake"))
        async with await start(source, speed=scenario.pace, ticker_s=0.2, key=_KEY) as exchange:
            settings = _settings(exchange, root, scenario)
            venues = {name: listener.venue(name) for name in source.chosen}
            tape = Tape(exchange, Clock(source=clock), [*source.books()])
            run = Run(exchange, source, tape, listener, root)
            with tape.running(), patch.object(recorder_module, "_TICK_S", 1.0 / scenario.pace):
                if scenario.before is not None:
                    await scenario.before(run)
                recorder = Recorder(
                    settings,
                    lake.with_exchange(exchange.name),
                    Clock(source=clock),
                    "run",
                    _listed(source),
                    venues=venues,
                    backoff_s=(0.05, 0.2),
                )
                async with _capturing(run, recorder):
                    await run.until(lambda: len(listener.sessions) == _sessions(scenario), "no sessions")
                    if scenario.before is None:
                        await _begun(run, scenario)
                    await scenario.body(run)
                    await _quiet(run, scenario)
                    end = tape.place
        rows = {name: lake.read(name).to_pylist() for name in _TABLES}
    streamed = run.polymarket if scenario.keyless else [*run.kalshi, *run.polymarket]
    return Captured(scenario.name, run.cases, exchange, tape, rows, end, streamed)


_KEY: Final = ThrowAwayKey()


def _sessions(scenario: Scenario) -> int:
    streamed = _EACH // _PER_CONNECTION
    # Polled: one batch of books, and the trades.
    return streamed + (2 if scenario.keyless else streamed)


async def _begun(run: Run, scenario: Scenario) -> None:
    """The encoder is there and all books are."""
    await run.until(lambda: run.status is not None and run.status.frames > 0, "nothing is encoded")
    if scenario.keyless:
        await run.until(lambda: _is_polled(run), "no first poll")
    else:
        await run.settled()


@contextlib.asynccontextmanager
async def _capturing(run: Run, recorder: Recorder) -> AsyncIterator[None]:
    stop = asyncio.Event()

    async def note(status: CaptureStatus) -> None:
        run.status = status

    run.recorder = recorder
    run.task = asyncio.create_task(recorder.run(stop, note))
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(_PATIENCE_S):
            await run.task
    # A stop does not wait for an encoder that is slow: it ends by itself, and with it the journal.
    runs = journal_root(recorder.settings.journal, recorder.settings.lake) / "runs"
    run.task = None
    await run.until(lambda: not RunFolder.all(runs), "the journal is not finished")


async def _quiet(run: Run, scenario: Scenario) -> None:
    """End the playback, and wait until everything has come over."""
    run.source.ended = True
    await run.until(run.exchange.player.finished.is_set, "the playback does not end")
    await run.until(lambda: run.in_sync() and run.books_agree(), "the books do not become the exchange's")
    # The last tickers follow the last change by less than this; they are no condition that one can wait for.
    await asyncio.sleep(0.3)


def _settings(exchange: Exchange, root: Path, scenario: Scenario) -> Settings:
    told = {name.removeprefix("ARB_").lower(): value for name, value in exchange.environment().items()}
    if scenario.keyless:
        del told["kalshi_api_key_id"], told["kalshi_private_key"]
    values: dict[str, Any] = {
        **told,
        "lake": str(root / "lake"),
        "journal": root / "journal",
        "capture_flush_s": 0.2,
        "flush_ms": 20.0,
        "poll_interval_s": 0.2,
        "http_requests_per_s": 500.0,
        "http_timeout_s": 5.0,
        "kalshi_data_age_s": _AGE_S,
        "polymarket_data_age_s": _AGE_S,
        "polymarket_assets_per_connection": _PER_CONNECTION,
        "polymarket_witness_s": 0.0,
    }
    return Settings(**values)


def _listed(source: FewMarkets) -> dict[str, list[Market]]:
    raw = {"kalshi": source.kalshi_events(), "polymarket": source.polymarket_events()}
    found: dict[str, list[Market]] = {}
    for name, events in raw.items():
        markets = {market.market_id: market for event in events for market in VENUES[name].parse_event(event).markets}
        found[name] = [markets[market_id] for market_id in source.chosen[name]]
    return found


class _Listener:
    """Hears what the sessions of a capture say.

    Attributes:
        signs: what was said of doubts and their ends.
        fresh: changes of books by market.
    """

    def __init__(self, clock: _SteppedClock) -> None:
        self.clock = clock
        self.signs: list[_Sign] = []
        self.fresh: Counter[str] = Counter()
        self.sessions: list[Session] = []

    def venue(self, name: str) -> Venue:
        """A venue whose sessions are listened to, with two markets to a connection."""
        venue: Any = copy.copy(VENUES[name])
        make = venue.session

        def session(*arguments: Any, **options: Any) -> Session:
            made: Session = make(*arguments, **options)
            for method in ("receive", "tick", "rest_book", "disconnected"):
                setattr(made, method, self._listening(name, getattr(made, method)))
            self.sessions.append(made)
            return made

        venue.session = session
        venue.markets_per_connection = lambda _: _PER_CONNECTION
        listened: Venue = venue
        return listened

    def _listening(self, name: str, method: Callable[..., list[Output]]) -> Callable[..., list[Output]]:
        def heard(*arguments: Any) -> list[Output]:
            outputs = method(*arguments)
            for output in outputs:
                if isinstance(output, BookDelta):
                    self.fresh[output.market_id] += 1
                elif (told := _words(output)) is not None:
                    self.signs.append(_Sign(self.clock(), name, *told))
            return outputs

        return heard


def _words(output: Output) -> tuple[str, str] | None:
    if isinstance(output, GapOpened):
        return output.market_id, f"gap {output.cause}"
    if isinstance(output, GapClosed):
        return output.market_id, f"closed {output.recovery}"
    if isinstance(output, Anomaly):
        return output.market_id, f"anomaly {output.kind.value}"
    if isinstance(output, Reconnect):
        return "", "reconnect"
    return None


def _result(captured: Captured) -> Result:
    found, cases = captured.judge(), captured.cases
    for number, case in enumerate(cases):
        later = [other.place for other in cases[number + 1 :] if other.touched & case.touched]
        until = min(later, default=captured.end)
        own = [loss for loss in found.losses if loss.market_id in case.touched and case.place < loss.place <= until]
        case.lost, case.unaccounted = len(own), sum(not loss.accounted for loss in own)
    if not set(captured.tape.states).issubset(captured.streamed):
        found.objections += _missing_trades(captured)
    touched = frozenset[str]().union(*(case.touched for case in cases))
    strangers = [
        f"{row['market_id']} was in doubt ({row['cause']}) though no fault touched it"
        for row in captured.rows["book_gaps"]
        if row["market_id"] not in touched and row["cause"] != "no_snapshot"
    ]
    return Result(captured.scenario, cases, found, strangers)


def _missing_trades(captured: Captured) -> list[str]:
    """Of polls no frame can be lost, but trades can."""
    told = {trade.record["trade_id"] for trade in captured.exchange.kalshi.trades}
    kept = Counter(row["trade_id"] for row in captured.rows["trades"] if row["venue"] == "kalshi")
    wrong = [f"trade {trade_id} is there {times} times" for trade_id, times in kept.items() if times > 1]
    missing = told - kept.keys()
    return [*wrong, f"{len(missing)} of {len(told)} trades are missing"] if missing else wrong


# --- the scenarios -------------------------------------------------------------------------------------------


async def _frames(run: Run, kind: str, sign: str, *, venues: Sequence[str], count: int, **parameters: Any) -> None:
    """A fault that strikes frames of one market; the rest of its connection's markets may be touched on Kalshi."""
    cases = []
    for venue in venues:
        market_id = run.markets(venue)[0]
        touched = run.group(market_id) if venue == "kalshi" else [market_id]
        cases.append(await run.strike(kind, venue, touched, market=market_id, count=count, **parameters))
    for case in cases:
        await run.detected(case, sign)
    await run.recovered(*cases)


_BOTH: Final = ("kalshi", "polymarket")


async def _order(run: Run) -> None:
    await _drop(run)
    await _duplicate(run)
    await _sid_errors(run)


async def _drop(run: Run) -> None:
    await _frames(run, "drop_seq", "anomaly seq_gap", venues=["kalshi"], count=2)


async def _duplicate(run: Run) -> None:
    await _frames(run, "duplicate_frame", "anomaly duplicate", venues=_BOTH, count=5)


async def _wrong_hash(run: Run) -> None:
    await _frames(run, "wrong_hash", "anomaly hash_mismatch", venues=["polymarket"], count=2)


async def _malformed(run: Run) -> None:
    await _frames(run, "malformed_frame", "anomaly malformed_json", venues=_BOTH, count=2, lose=True)


async def _unknown_type(run: Run) -> None:
    await _frames(run, "unknown_type", "anomaly unknown_type", venues=_BOTH, count=2)


async def _bad_frames(run: Run) -> None:
    await _malformed(run)
    await _missing_field(run)
    await _unknown_type(run)
    await _null_list(run)


async def _missing_field(run: Run) -> None:
    await _frames(run, "missing_field", "anomaly missing_field", venues=_BOTH, count=2)


async def _null_list(run: Run) -> None:
    """Kalshi's lists can only be null where a side is empty, as after a close."""
    polymarket, kalshi = run.polymarket[0], run.kalshi[0]
    first = await run.strike("null_list", "polymarket", [polymarket], market=polymarket, count=2)
    second = await run.strike("null_list", "kalshi", [kalshi], market=kalshi, count=1)
    await run.also("close_market", "kalshi", market=kalshi)
    for case in (first, second):
        await run.detected(case, "anomaly null_list")
    await run.also("reopen_market", "kalshi", market=kalshi)
    await run.recovered(first, second)


async def _silence(run: Run) -> None:
    cases = []
    for venue in _BOTH:
        market_id = run.markets(venue)[0]
        label = run.tape.label_of(market_id)
        fault = "silence with PONG" if venue == "polymarket" else "silence with pings"
        cases.append(await run.strike("silence", venue, run.group(market_id), connection=label, fault=fault))
    for case in cases:
        await run.detected(case, "reconnect", "gap rest_ahead")
    for case in cases:
        await run.said(case, "reconnect")
    await run.recovered(*cases)


async def _silent_market(run: Run) -> None:
    """The market moves on unseen, and stands still before it is found out, since what it does when its stream begins
    again in the middle of that could not be told from the right thing."""
    cases = []
    for venue in _BOTH:
        market_id = run.markets(venue)[0]
        cases.append(await run.strike("silent_market", venue, [market_id], market=market_id, fault="one silent asset"))
    await run.until(lambda: len({frame.market_id for frame in run.tape.lost}) == len(cases), "nothing is withheld")
    tops = [len(run.tape.states[next(iter(case.touched))]) for case in cases]
    await run.until(
        lambda: all(
            len(run.tape.states[next(iter(case.touched))]) > top for case, top in zip(cases, tops, strict=True)
        ),
        "no top changes unseen",
    )
    run.source.still |= {market_id for case in cases for market_id in case.touched}
    for case in cases:
        await run.detected(case, "gap silent_market", "gap rest_ahead")
    await run.until(run.in_sync, "not in sync")
    await run.until(run.books_agree, "books differ")
    run.exchange.faults.clear()
    run.source.still.clear()
    await run.recovered(*cases)


async def _missing_before(run: Run) -> None:
    """The book of a market that stands still does not come, and where REST is asked for it, it fails at first."""
    for venue in _BOTH:
        market_id = run.markets(venue)[0]
        run.source.still.add(market_id)
        await run.strike("missing_snapshot", venue, [market_id], market=market_id, fault="missing initial snapshot")
    await run.also("http_status", "polymarket", status=502, html=True)


async def _missing(run: Run) -> None:
    for case in run.cases:
        await run.until(lambda case=case: bool(run.sent_first(case.venue)), "no connection")  # type: ignore[misc]
        case.struck_ns = run.sent_first(case.venue)
        await run.detected(case, "gap snapshot_missing", "gap missing_snapshot")
    await run.until(run.in_sync, "no snapshot")
    run.source.still.clear()
    await run.recovered(*run.cases)


async def _storm(run: Run) -> None:
    cases = [await run.strike("disconnect_storm", venue, run.markets(venue), count=4, seconds=1.5) for venue in _BOTH]
    for case in cases:
        await run.detected(case, "gap disconnect")
    await run.until(lambda: all(not fault.on for fault in run.exchange.faults.all), "the storm does not end")
    await run.recovered(*cases)


async def _sid_errors(run: Run) -> None:
    market_id = run.kalshi[0]
    for code in (25, 10):
        case = await run.strike(
            "sid_error", "kalshi", run.group(market_id), market=market_id, code=code, fault=f"error {code}"
        )
        await run.detected(case, "anomaly venue_error")
        await run.recovered(case)


async def _burst(run: Run) -> None:
    case = await run.strike("burst", "", [], factor=10, seconds=1.5, fault="10x burst")
    case.venue = "both"
    played = run.exchange.player.played
    await run.until(lambda: all(not fault.on for fault in run.exchange.faults.all), "the burst does not end")
    assert run.exchange.player.played > played + 800, "that was no burst"
    await run.settled()


async def _busy(run: Run) -> None:
    await _burst(run)
    await _close(run)


async def _clock_steps(run: Run) -> None:
    for seconds in (90.0, -120.0):
        run.clock.step(seconds)
        case = run.case(f"clock set {'forwards' if seconds > 0 else 'back'} by {abs(seconds):g} s", "both", [])
        # Two sweeps and more: whatever takes the step for a silence does so now.
        began = run.clock()
        await run.until(lambda began=began: run.clock() > began + 8 * _S, "time stands still")  # type: ignore[misc]
        await run.settled()
        assert case.detected_ns is None
    await _drop(run)
    await _wrong_hash(run)


async def _close(run: Run) -> None:
    """A close is no fault of the capture: its books empty, and come back."""
    for venue in _BOTH:
        market_id = run.markets(venue)[0]
        parameters = {"apart": 0.2} if venue == "kalshi" else {}
        await run.strike("close_market", venue, [], market=market_id, fault="market close", **parameters)
    await run.until(lambda: all(not any(run.tape.book(ids[0])) for ids in run.source.chosen.values()), "not empty")
    await run.until(run.books_agree, "the close is not seen")
    for venue in _BOTH:
        await run.strike("reopen_market", venue, [], market=run.markets(venue)[0], fault="market re-open")
    await run.settled()


async def _rest(run: Run) -> None:
    """Every answer of one kind: of books, trades and whatever else is asked for."""
    for fault, parameters in (
        ("REST 429", {"status": 429}),
        ("REST 503", {"status": 503}),
        ("REST 502 in HTML", {"status": 502, "html": True}),
    ):
        case = await run.strike("http_status", "kalshi", run.kalshi, count=4, fault=fault, **parameters)
        await _survived(run, case, fails=True)
    case = await run.strike("slow_rest", "kalshi", run.kalshi, count=3, seconds=1.0, fault="slow REST (1 s)")
    await _survived(run, case, fails=False)


async def _survived(run: Run, case: Case, *, fails: bool) -> None:
    struck = run.exchange.faults.all[-1]
    failures = _failures(run)
    await run.until(lambda: struck.struck > 0 and (not fails or _failures(run) > failures), "nothing fails")
    if fails:
        case.detected_ns = run.clock()
    await run.until(lambda: not struck.left, f"{case.fault} does not end")
    await run.until(lambda: _is_polled(run), "no answer after the fault")
    case.recovered_ns = run.clock() if fails else None


def _failures(run: Run) -> int:
    return 0 if run.status is None else run.status.venues["kalshi"].anomalies.get("venue_error", 0)


def _is_polled(run: Run) -> bool:
    assert run.status is not None
    venue = run.status.venues["kalshi"]
    return venue.connected == venue.connections


# --- full disks ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _small_disk(root: Path, name: str) -> Iterator[None]:
    """A file system of 8 MB under a folder of the run."""
    folder = root / name
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def can_mount() -> bool:
    """Whether this process may mount file systems."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with _small_disk(Path(folder), "trial"):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


@contextlib.contextmanager
def _filled(folder: Path) -> Iterator[None]:
    """A file system without a free byte."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        ballast.unlink()


async def _journal_full(run: Run) -> None:
    """What comes in waits in memory as long as there is room for it: nothing is lost."""
    case = run.case("disk of the journal full", "both", [], 5.0)
    with _filled(run.root / "journal"):
        await run.until(lambda: "No space left" in run.message, "nobody says so")
        case.detected_ns = run.clock()
        await run.settled()
    await run.until(lambda: not run.message, "it is still said")
    case.recovered_ns = run.clock()


async def _journal_long_full(run: Run) -> None:
    """Nothing more can wait: nothing is taken in any more, and the time is a gap."""
    ids = [*run.kalshi, *run.polymarket]
    case = run.case("disk of the journal full, memory too", "both", ids, 5.0)
    with patch.object(JournalWriter, "full", property(lambda writer: bool(writer.error))):
        with _filled(run.root / "journal"):
            await run.until(lambda: "No space left" in run.message, "nobody says so")
            case.detected_ns = run.clock()
            await run.until(
                lambda: not run.exchange.kalshi.clients and not run.exchange.polymarket.clients, "it goes on"
            )
        await run.until(lambda: not run.message, "it is still said")
        await run.settled()
    case.recovered_ns = run.clock()


async def _lake_full(run: Run) -> None:
    """Rows wait in the encoder, and their inputs in the journal."""
    case = run.case("disk of the lake full", "both", [], 5.0)
    with _filled(run.root / "lake"):
        await run.until(lambda: "rows wait for the lake" in run.message, "nobody says so")
        case.detected_ns = run.clock()
        await run.settled()
    await run.until(lambda: not run.message, "it is still said")
    case.recovered_ns = run.clock()


async def _disks_full(run: Run) -> None:
    await _journal_full(run)
    await _journal_long_full(run)
    await _lake_full(run)


@contextlib.contextmanager
def _small_disks(root: Path) -> Iterator[None]:
    with _small_disk(root, "journal"), _small_disk(root, "lake"):
        yield


SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        Scenario("order", _order),
        Scenario("wrong_hash", _wrong_hash, trades=False),
        Scenario("silence", _silence, pace=4.0),
        Scenario("silent_market", _silent_market, pace=4.0),
        Scenario("missing_snapshot", _missing, before=_missing_before, pace=4.0),
        Scenario("disconnect_storm", _storm),
        Scenario("rest", _rest, keyless=True),
        Scenario("bad_frames", _bad_frames),
        Scenario("burst_and_close", _busy),
        Scenario("clock_steps", _clock_steps, pace=4.0, trades=False),
        Scenario("disks_full", _disks_full, around=_small_disks, mounts=True),
    )
}
"""Every scenario by name."""


def table(results: Sequence[Result]) -> str:
    """One line per fault and venue."""
    head = f"{'fault':<38} {'venue':<11} {'detected':>9} {'recovered':>9} {'lost':>5} {'unaccounted':>11}"
    lines = [f"{head}  others untouched"]
    for result in results:
        for case in result.cases:
            untouched = "yes" if not result.strangers else "NO"
            lines.append(
                f"{case.fault:<38} {case.venue:<11} {_seconds(case.detected_s):>9} {_seconds(case.recovered_s):>9} "
                f"{case.lost:>5} {case.unaccounted:>11}  {untouched}"
            )
    quotes, changes = (sum(getattr(result.verdict, name) for result in results) for name in ("quotes", "changes"))
    frames = sum(result.verdict.captured for result in results)
    objections = [f"{result.scenario}: {finding}" for result in results for finding in result.findings]
    lines.append(
        f"oracle: {frames} frames, {quotes} quotes and {changes} changes of a top checked, {len(objections)} objections"
    )
    return "\n".join([*lines, *objections])


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def play_all(names: Sequence[str]) -> Iterator[Result]:
    """Play scenarios one after the other in temporary folders."""
    for name in names:
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            yield asyncio.run(play(SCENARIOS[name], Path(folder)))
