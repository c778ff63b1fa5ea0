"""Rules evaluated beside a capture: end to end against the local exchange, and call by call."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from arb_pipeline import pipeline
from arb_pipeline.alerting.alert import Alert
from arb_pipeline.alerting.rules import AlertError, load_alerting
from arb_pipeline.capture.handling import HandlingReport
from arb_pipeline.capture.live import RunJournal
from arb_pipeline.capture.recorder import CaptureStatus, Recorder
from arb_pipeline.errors import ArbError
from arb_pipeline.exchange import Exchange, start
from arb_pipeline.exchange.signing import ThrowAwayKey
from arb_pipeline.exchange.source import LevelChange
from arb_pipeline.handlers import HandlerContext, TimePassed, build
from arb_pipeline.live_alerts import LiveAlerts, load_plan, own_positions
from arb_pipeline.live_rules import live_handlers
from arb_pipeline.matching.versions import record_matches
from arb_pipeline.model import BookDelta, Market, MarketChange, MarketStatus, OrderBook, Quote, Side
from arb_pipeline.pipeline import discover
from arb_pipeline.settings import Settings
from arb_pipeline.storage.catalogue import read_events, read_markets, write_catalogue
from arb_pipeline.storage.lake import Lake
from arb_pipeline_tests.alerting.hook import Hook, serving, wait_until
from arb_pipeline_tests.exchange.conftest import Scripted
from arb_pipeline_tests.matching.test_versions import statement

S = 1_000_000_000
MILLION = 1_000_000
VENUES = ("kalshi", "polymarket")
EDGE = """
rules:
  - {name: paying, kind: net_edge, above: 0.05, size: 10}
"""


@pytest.fixture(scope="module")
def key() -> ThrowAwayKey:
    return ThrowAwayKey()


@pytest.fixture
def hook() -> Iterator[Hook]:
    with serving() as hook:
        yield hook


@dataclass
class Stage:
    """A lake with discovered catalogues and one accepted pair."""

    settings: Settings
    lake: Lake
    kalshi: Market
    polymarket: Market

    def rules(self, text: str) -> None:
        self.settings.alerts_file.write_text(text)


@dataclass(frozen=True)
class Discovered:
    """What discovering an exchange came to: its lake, its pair, and the settings that led there."""

    lake: Path
    environment: dict[str, str]
    pair: tuple[str, str]


def settings_for(exchange: Exchange, **changes: Any) -> Settings:
    given = {name.removeprefix("ARB_").lower(): value for name, value in exchange.environment().items()}
    return Settings(**{**given, "http_requests_per_s": 500, **changes})


async def discovered_from(exchange: Exchange, lake: Path) -> Discovered:
    settings = settings_for(exchange, lake=str(lake))
    for venue in VENUES:
        await discover(venue, settings, Lake(settings.lake, settings.exchange_name))
    pair = next(pair for pair in exchange.truth()["pairs"] if pair["relation"] == "equivalent")
    return Discovered(lake, exchange.environment(), (pair["kalshi_market_id"], pair["polymarket_market_id"]))


@pytest.fixture(scope="module")
def discovered(key: ThrowAwayKey, tmp_path_factory: pytest.TempPathFactory) -> Discovered:
    """Discovered once: the exchange is gone."""

    async def discovering() -> Discovered:
        async with await start(Scripted(), key=key) as exchange:
            return await discovered_from(exchange, tmp_path_factory.mktemp("discovered") / "lake")

    return asyncio.run(discovering())


def staged(discovered: Discovered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    for name, value in discovered.environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings(
        lake=str(tmp_path / "lake"),
        alerts_file=tmp_path / "alerts.yaml",
        listeners_path=tmp_path / "listeners.yaml",
        capture_flush_s=0.2,
    )
    shutil.copytree(discovered.lake, settings.lake)
    lake = Lake(settings.lake, settings.exchange_name)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    record_matches(lake, [statement(*discovered.pair, status="approved", valid_from=at, known_at=at)], at)
    known = {market.market_id: market for market in read_markets(lake)}
    return Stage(settings, lake, *(known[market_id] for market_id in discovered.pair))


@pytest.fixture
def stage(discovered: Discovered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return staged(discovered, tmp_path, monkeypatch)


# --- end to end --------------------------------------------------------------------------------------------


async def test_an_edge_is_told_within_a_second_of_its_quote_and_its_end_too(
    key: ThrowAwayKey, hook: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_URL", hook.url)
    async with await start(Scripted(), key=key) as exchange:
        stage = staged(await discovered_from(exchange, tmp_path / "discovered"), tmp_path, monkeypatch)
        stage.rules("channels: [{name: hook, kind: webhook, url_env: HOOK_URL}]" + EDGE)
        yes, no = stage.kalshi.market_id, stage.polymarket.market_id
        for book in (exchange.kalshi.markets[yes].book, exchange.polymarket.markets[no].book):
            book.replace([(2_000, 50 * MILLION)], [(6_000, 50 * MILLION)])
        async with capturing(stage) as handling:
            # Both books were told, and handling keeps up with the capture.
            await until(lambda: handling().handled >= 4 and handling().lag_s < 0.5)
            exchange.kalshi.change_level(LevelChange(yes, "ask", 3_000, 40 * MILLION))
            exchange.polymarket.change_level(LevelChange(no, "bid", 5_000, 40 * MILLION))
            await until(lambda: hook.states() == ["fired"])
            exchange.polymarket.change_level(LevelChange(no, "bid", 5_000, 0))
            await until(lambda: hook.states() == ["fired", "resolved"])
        await until(lambda: handling().done)
    fired, resolved = hook.got
    for told, arrived_ns in zip(hook.got, hook.arrived_ns, strict=True):
        quoted = datetime.fromisoformat(told["at"]).timestamp()
        assert 0 <= arrived_ns / 1e9 - quoted < 1.0
    assert (fired["rule"], fired["market_id"]) == ("paying", yes)
    assert fired["subject"] == f"{yes} = {no}, YES on kalshi, NO on polymarket"
    assert fired["details"]["gap"] == "0.2"
    net = Decimal(fired["details"]["net"])
    assert net == 10 * Decimal("0.2") - Decimal(fired["details"]["fees"])
    assert net > Decimal("0.5")
    assert resolved["subject"] == fired["subject"]
    assert (handling().errors, handling().undelivered) == (0, 0)


@asynccontextmanager
async def capturing(stage: Stage) -> AsyncIterator[Callable[[], HandlingReport]]:
    """A capture of the pair; how far its handlers are."""
    # By default nothing counts as late: on a busy machine the process itself takes seconds to start.
    settings = stage.settings.model_copy(update={"handler_lag_s": 600.0})
    markets = {"kalshi": [stage.kalshi], "polymarket": [stage.polymarket]}
    handlers = live_handlers(settings, stage.lake)
    recorder = Recorder(settings, stage.lake, settings.clock, "run", markets, handlers=handlers)
    stop, begun = asyncio.Event(), asyncio.Event()

    async def on_progress(_: CaptureStatus) -> None:
        begun.set()

    def handling() -> HandlingReport:
        assert isinstance(recorder.journal, RunJournal)
        return recorder.journal._handlers.report

    running = asyncio.create_task(recorder.run(stop, on_progress))
    try:
        await begun.wait()
        yield handling
    finally:
        stop.set()
        await running


async def until(there: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, there)


# --- call by call ------------------------------------------------------------------------------------------


@dataclass
class Shelf:
    """The books of one connection."""

    held: dict[str, OrderBook] = field(default_factory=dict)
    doubted: set[str] = field(default_factory=set)

    def book(self, market_id: str) -> OrderBook | None:
        return self.held.get(market_id)

    def in_sync(self, market_id: str) -> bool:
        return market_id in self.held and market_id not in self.doubted


class Desk:
    """A handler, and what it tells."""

    def __init__(self, stage: Stage, refresh_s: float = 60.0) -> None:
        [config] = live_handlers(stage.settings, stage.lake)
        given = msgspec.json.decode(msgspec.json.encode(config.model_dump(mode="json")["parameters"]))
        self.stage = stage
        self.given = given["settings"], Path(given["state"])
        self.live = LiveAlerts(*self.given, refresh_s)
        self.told: list[Alert] = []
        self.now = stage.settings.clock.now_ns()
        self.shelves = {venue: Shelf() for venue in VENUES}

    def context(self, venue: str, market_id: str) -> HandlerContext:
        return HandlerContext(
            handler="alerts",
            venue=venue,
            market_id=market_id,
            facts=None,
            at_ns=self.now,
            books=self.shelves[venue],
            notify=self.told.append,
        )

    def quote(self, venue: str, bid: int | None, ask: int | None, size: int = 50, later_s: float = 0.1) -> None:
        """A new book of the pair's market there, with one level a side."""
        self.now += int(later_s * S)
        market = self.market(venue)
        book = OrderBook()
        book.replace(*([] if price is None else [(price, size * MILLION)] for price in (bid, ask)))
        self.shelves[venue].held[market] = book
        self.again(venue)

    def again(self, venue: str) -> None:
        market = self.market(venue)
        event = Quote(market, None, None, None, None, self.shelves[venue].in_sync(market), self.now, None, None)
        self.live.look(event, self.context(venue, market))

    def market(self, venue: str) -> str:
        return (self.stage.kalshi if venue == "kalshi" else self.stage.polymarket).market_id

    def wait(self, seconds: float) -> None:
        """Time in which nothing else happens."""
        left = seconds
        while left > 0:
            step = min(1.0, left)
            left -= step
            self.now += int(step * S)
            self.live.wait(TimePassed(self.now), self.context("polymarket", ""))

    def pay(self) -> None:
        self.quote("kalshi", 2_000, 3_000)
        self.quote("polymarket", 5_000, 6_000)

    def states(self) -> list[str]:
        return [alert.state for alert in self.told]


def desk_of(stage: Stage, rules: str = EDGE, **options: Any) -> Desk:
    stage.rules(rules)
    return Desk(stage, **options)


def test_an_edge_in_doubt_is_neither_told_nor_over(stage: Stage) -> None:
    desk = desk_of(stage)
    shelf, market = desk.shelves["polymarket"], desk.market("polymarket")
    shelf.doubted.add(market)
    desk.pay()
    assert desk.told == []
    shelf.doubted.clear()
    desk.again("polymarket")
    assert desk.states() == ["fired"]
    shelf.doubted.add(market)
    desk.quote("polymarket", None, None)
    assert desk.states() == ["fired"]
    shelf.doubted.clear()
    desk.again("polymarket")
    assert desk.states() == ["fired", "resolved"], "nobody sells both any more, and that is known"


@pytest.mark.parametrize(
    "rule",
    [
        "{name: r, kind: net_edge, above: 0.19, size: 10}",  # fees eat what lies between this and the gap of 0.2
        "{name: r, kind: net_edge, above: 0.05, size: 51}",
        "{name: r, kind: net_edge, above: 0.05, size: 10, markets: OTHER*}",
        "{name: r, kind: net_edge, above: 0.05, size: 10, over: tables}",
        "{name: r, kind: net_edge, above: 0.05, size: 10, is_active: false}",
    ],
)
def test_what_a_rule_does_not_ask_for_is_not_told(stage: Stage, rule: str) -> None:
    base = "{name: base, kind: spread, at_most: 0}"
    desk = desk_of(stage, f"rules:\n  - {base}\n  - {rule}\n")
    desk.pay()
    assert desk.told == []


@pytest.mark.parametrize("status", ["review", "refused"])
def test_only_accepted_pairs_count(stage: Stage, status: str) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    ids = stage.kalshi.market_id, stage.polymarket.market_id
    record_matches(stage.lake, [statement(*ids, status=status, valid_from=at, known_at=at)], at)
    desk = desk_of(stage)
    desk.pay()
    assert desk.told == []


def test_an_inverted_pair_is_read_from_the_other_side(stage: Stage) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    ids = stage.kalshi.market_id, stage.polymarket.market_id
    turned: dict[str, Any] = {"status": "approved", "relation": "inverted", "polymarket_yes_index": 1}
    record_matches(stage.lake, [statement(*ids, valid_from=at, known_at=at, **turned)], at)
    desk = desk_of(stage)
    desk.quote("kalshi", 2_000, 3_000)
    desk.quote("polymarket", 5_000, 6_000)
    assert desk.states() == ["fired"]
    assert desk.told[0].subject.endswith(", YES on kalshi, YES on polymarket")
    assert desk.told[0].details["gap"] == "0.1", "the opposite of Kalshi's YES is Polymarket's YES, at 0.60"


def test_depth_below_the_top_counts(stage: Stage) -> None:
    desk = desk_of(stage, "rules: [{name: deep, kind: net_edge, above: 0.05, size: 80}]")
    desk.pay()
    assert desk.told == []
    desk.now += S
    changes: list[tuple[str, Side, int]] = [("kalshi", "ask", 3_100), ("polymarket", "bid", 4_900)]
    for venue, side, price in changes:
        book = desk.shelves[venue].held[desk.market(venue)]
        book.set(side, price, 40 * MILLION)
        delta = BookDelta(desk.market(venue), side, price, 40 * MILLION, desk.now, None, None, 1)
        desk.live.look_deeper(delta, desk.context(venue, desk.market(venue)))
    assert desk.states() == ["fired"]
    assert desk.told[0].details["size"] == "80"


def test_it_must_last_and_is_told_by_the_time_alone(stage: Stage) -> None:
    desk = desk_of(stage, EDGE.replace("size: 10", "size: 10, for_seconds: 3, repeat_after: 10"))
    desk.pay()
    desk.wait(2)
    assert desk.told == []
    desk.wait(2)
    assert desk.states() == ["fired"]
    desk.wait(8)
    assert desk.states() == ["fired"]
    desk.wait(2)
    assert desk.states() == ["fired", "repeated"]


def test_what_nobody_saw_does_not_count_as_lasting(stage: Stage) -> None:
    desk = desk_of(stage, EDGE.replace("size: 10", "size: 10, for_seconds: 3"))
    desk.pay()
    desk.now += 20 * S
    desk.live.wait(TimePassed(desk.now), desk.context("polymarket", ""))
    assert desk.told == []
    desk.again("kalshi")
    desk.wait(2)
    assert desk.told == []
    desk.wait(1)
    assert desk.states() == ["fired"]


def test_a_market_that_stops_trading_makes_its_edges_unknown(stage: Stage) -> None:
    desk = desk_of(stage)
    market = desk.market("kalshi")
    stopped = MarketChange(market, "", "market_lifecycle_v2", desk.now, {}, change="determined")
    desk.live.follow(stopped, desk.context("kalshi", market))
    desk.pay()
    assert desk.told == []
    begun = msgspec.structs.replace(stopped, change="activated")
    desk.live.follow(begun, desk.context("kalshi", market))
    assert desk.states() == ["fired"]


def with_hours(stage: Stage, venue: str, **changes: Any) -> None:
    """Have the catalogue tell other times or another status of the pair's market there."""
    events = [
        msgspec.structs.replace(
            event,
            markets=tuple(
                msgspec.structs.replace(market, **changes)
                if market.market_id in {stage.kalshi.market_id, stage.polymarket.market_id}
                else market
                for market in event.markets
            ),
        )
        for event in read_events(stage.lake, venue)
    ]
    write_catalogue(stage.lake, venue, events, stage.settings.clock.now())


HELD = EDGE.replace("size: 10", "size: 10, for_seconds: 5, repeat_after: 10")
TIGHT = "rules: [{name: paying, kind: spread, at_most: 0.1, venues: polymarket, for_seconds: 5, repeat_after: 10}]"


@pytest.mark.parametrize("rules", [HELD, TIGHT])
def test_what_begins_before_the_close_is_not_told_after_it(stage: Stage, rules: str) -> None:
    with_hours(stage, "polymarket", close_at=stage.settings.clock.now() + timedelta(seconds=4))
    desk = desk_of(stage, rules)
    desk.pay()
    desk.wait(30)
    assert desk.told == []


@pytest.mark.parametrize("rules", [HELD, TIGHT])
def test_what_was_told_is_not_repeated_after_the_close(stage: Stage, rules: str) -> None:
    with_hours(stage, "polymarket", close_at=stage.settings.clock.now() + timedelta(seconds=9))
    desk = desk_of(stage, rules)
    desk.pay()
    desk.wait(60)
    assert desk.states() == ["fired"]


@pytest.mark.parametrize("rules", [HELD, TIGHT])
def test_what_stands_when_trading_begins_is_told(stage: Stage, rules: str) -> None:
    with_hours(stage, "polymarket", open_at=stage.settings.clock.now() + timedelta(seconds=20))
    desk = desk_of(stage, rules)
    desk.pay()
    desk.wait(24)
    assert desk.told == []
    desk.wait(3)
    assert desk.states() == ["fired"]


@pytest.mark.parametrize("rules", [HELD, TIGHT])
def test_a_book_that_grows_too_old_without_an_event_is_in_doubt(stage: Stage, rules: str) -> None:
    desk = desk_of(stage, rules)
    desk.pay()
    desk.wait(3)
    shelf = desk.shelves["polymarket"]
    shelf.doubted.add(desk.market("polymarket"))
    desk.wait(10)
    assert desk.told == []
    shelf.doubted.clear()
    desk.wait(4)
    assert desk.told == [], "it lasts since it is known again"
    desk.wait(4)
    assert desk.states() == ["fired"]


@pytest.mark.parametrize("status", [MarketStatus.PAUSED, MarketStatus.SETTLED])
def test_a_spread_or_a_move_of_a_market_that_does_not_trade_is_unknown(stage: Stage, status: MarketStatus) -> None:
    with_hours(stage, "kalshi", status=status)
    held = stage.settings.alerts_file.with_name("held.csv")
    held.write_text(f"venue,market_id,outcome,size,entry\nkalshi,{stage.kalshi.market_id},YES,20,0.10\n")
    moved = "{name: moved, kind: price_move, by: 0.05}"
    desk = desk_of(
        stage, f"positions: held.csv\nrules: [{{name: tight, kind: spread, at_most: 0.1, venues: kalshi}}, {moved}]"
    )
    desk.pay()
    assert desk.told == []


def test_a_run_begins_with_what_the_run_before_told_up_to_its_window(stage: Stage) -> None:
    """Its process is there long before that."""
    before = desk_of(stage)
    next_run = Desk(stage)
    before.pay()
    assert before.states() == ["fired"]
    next_run.pay()
    assert next_run.told == [], "it was told before"
    after = Desk(stage)
    before.quote("polymarket", 2_000, 6_000)
    assert before.states() == ["fired", "resolved"]
    after.pay()
    assert after.states() == ["fired"]


def test_captures_of_other_venues_or_shards_keep_what_they_told_apart(stage: Stage) -> None:
    stage.rules(EDGE)
    given: list[tuple[tuple[int, int], tuple[str, ...]]] = [
        ((0, 1), ("kalshi",)),
        ((0, 1), ("polymarket",)),
        ((0, 2), ("kalshi",)),
        ((0, 1), ()),
    ]
    made = [live_handlers(stage.settings, stage.lake, *one)[0].parameters["state"] for one in given]
    assert len({*made}) == 4
    assert (
        live_handlers(stage.settings, stage.lake, (0, 1), {"polymarket": [], "kalshi": []})[0].parameters["state"]
        == made[3]
    )


def test_the_next_run_knows_what_was_told(stage: Stage) -> None:
    first = desk_of(stage)
    first.pay()
    assert first.states() == ["fired"]
    second = Desk(stage)
    second.pay()
    assert second.told == [], "it was told before"
    second.quote("polymarket", 2_000, 6_000)
    assert second.states() == ["resolved"]
    third = Desk(stage)
    third.pay()
    assert third.states() == ["fired"]


def test_pairs_that_are_decided_meanwhile_are_taken_up(stage: Stage) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    ids = stage.kalshi.market_id, stage.polymarket.market_id
    record_matches(stage.lake, [statement(*ids, status="review", valid_from=at, known_at=at)], at)
    desk = desk_of(stage, refresh_s=0.0)
    desk.pay()
    assert desk.told == []
    later = datetime(2026, 1, 3, tzinfo=UTC)
    record_matches(stage.lake, [statement(*ids, status="approved", valid_from=later, known_at=later)], later)

    def told() -> bool:
        desk.wait(0.1)
        return bool(desk.told)

    wait_until(told)
    assert desk.states() == ["fired"]


def test_a_plan_is_the_same_while_nothing_changes(stage: Stage) -> None:
    stage.rules(EDGE)
    plan = load_plan(stage.settings, stage.lake)
    assert [pair.key for pair in plan.pairs] == [(stage.kalshi.market_id, stage.polymarket.market_id)]
    assert load_plan(stage.settings, stage.lake, plan) is plan
    stage.rules(EDGE.replace("0.05", "0.06"))
    assert load_plan(stage.settings, stage.lake, plan) is not plan


def test_spreads_and_entries(stage: Stage) -> None:
    held = stage.settings.alerts_file.with_name("held.csv")
    market = stage.kalshi.market_id
    held.write_text(f"venue,market_id,outcome,size,entry\nkalshi,{market},NO,20,0.50\n")
    desk = desk_of(
        stage,
        "positions: held.csv\n"
        "rules:\n"
        "  - {name: tight, kind: spread, at_most: 0.01, min_size: 40, venues: kalshi}\n"
        "  - {name: moved, kind: price_move, by: 0.10, direction: gain}\n",
    )
    desk.quote("kalshi", 4_900, 5_000)
    assert [(alert.handler, alert.state) for alert in desk.told] == [("tight", "fired")]
    desk.quote("kalshi", 3_000, 4_000)
    assert [(alert.handler, alert.state) for alert in desk.told[1:]] == [("tight", "resolved"), ("moved", "fired")]
    assert desk.told[-1].subject == f"kalshi {market} NO"
    assert Decimal(desk.told[-1].details["value"]) == 20 * Decimal("0.10")
    desk.quote("polymarket", 4_900, 5_000)
    assert len(desk.told) == 3, "the rule is about the other venue"


def test_without_live_rules_there_is_no_handler(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    assert live_handlers(stage.settings, stage.lake) == ()
    stage.rules("rules: [{name: s, kind: capture_stalled}]")
    assert live_handlers(stage.settings, stage.lake) == ()
    stage.rules("rules: [{name: s, kind: none}]")
    assert live_handlers(stage.settings, stage.lake) == ()
    assert "rule 's'" in caplog.text


def test_the_handler_is_one_like_any_other_and_its_parameters_hold_no_secret(stage: Stage) -> None:
    stage.rules(EDGE)
    [config] = live_handlers(stage.settings, stage.lake)
    handler = build(config)
    assert {"quote", "snapshot", "delta", "gap_opened", "time_passed"} <= handler.events.keys()
    secret = stage.settings.kalshi_private_key
    assert secret is not None
    assert secret.get_secret_value()[40:80] not in json.dumps(config.model_dump(mode="json"))


def test_rules_that_break_meanwhile_leave_the_old_ones(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    desk = desk_of(stage, refresh_s=0.0)
    stage.rules("rules: [{name: s, kind: none}]")
    with pytest.raises(AlertError):
        load_alerting(stage.settings.alerts_file)

    def complained() -> bool:
        desk.wait(0.1)
        return "stay as they were" in caplog.text

    wait_until(complained)
    desk.pay()
    assert desk.states() == ["fired"]


async def test_positions_are_those_that_the_venue_tells(key: ThrowAwayKey, tmp_path: Path) -> None:
    async with await start(Scripted(), key=key) as exchange:
        settings = settings_for(exchange, lake=str(tmp_path / "lake"), alerts_file=tmp_path / "alerts.yaml")
        settings.alerts_file.write_text("positions: account\nrules: [{name: m, kind: price_move, by: 0.01}]")
        lake = Lake(settings.lake, settings.exchange_name)
        plan = await asyncio.to_thread(load_plan, settings, lake)
        [account] = await pipeline.account(settings, lake)
    [position], [held] = plan.positions, account.positions
    assert (position.market_id, position.size) == (held.market_id, abs(held.size))
    assert position.entry == held.cost / abs(held.size)


def test_an_account_that_cannot_be_read_is_told(stage: Stage) -> None:
    stage.rules("positions: account\nrules: [{name: m, kind: price_move, by: 0.01}]")
    bare = stage.settings.model_copy(update={"kalshi_api_key_id": "", "kalshi_private_key": None})
    with pytest.raises(ArbError, match="the account cannot be read"):
        own_positions(bare, stage.lake, load_alerting(bare.alerts_file))


def test_positions_that_cannot_be_read_cost_their_rules_only(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    moved = "  - {name: moved, kind: price_move, by: 0.10}\n"
    desk = desk_of(stage, f"positions: none.csv\n{EDGE.strip()}\n{moved}")
    assert "none.csv cannot be read" in caplog.text
    desk.pay()
    assert [alert.handler for alert in desk.told] == ["paying"]


def test_a_run_that_has_no_rules_at_first_still_knows_what_was_told(stage: Stage) -> None:
    first = desk_of(stage)
    first.pay()
    assert first.states() == ["fired"]
    rules = stage.settings.alerts_file.read_text()
    stage.rules("rules: [{name: s, kind: none}]")
    second = LiveAlerts(*first.given, 0.0)
    stage.rules(rules)
    first.live, first.told = second, []

    def adopted() -> bool:
        first.wait(0.1)
        return bool(second._plan.rules)

    wait_until(adopted)
    first.pay()
    assert first.told == [], "it was told before"
    first.quote("polymarket", 2_000, 6_000)
    assert first.states() == ["resolved"]
