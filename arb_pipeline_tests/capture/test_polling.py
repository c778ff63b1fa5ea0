import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from arb_pipeline.capture.polling import PolledBooks, PolledTrades
from arb_pipeline.capture.recorder import CaptureStatus, CaptureSummary, Recorder
from arb_pipeline.capture.rows import RowWriter
from arb_pipeline.clock import Clock
from arb_pipeline.exchange import Exchange, GeneratedSource, start
from arb_pipeline.exchange.signing import ThrowAwayKey
from arb_pipeline.model import Anomaly, AnomalyKind, Market, MarketFacts, Trade
from arb_pipeline.pipeline import discover, evaluate_hours, match_markets, universe
from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake
from arb_pipeline.venues import VENUES
from arb_pipeline.venues.base import Venue, VenueError
from arb_pipeline.venues.http import TransientHttpError
from arb_pipeline_tests.capture.fakes import (
    FakePolling,
    FakeSession,
    FakeVenue,
    PolledVenue,
    every,
    fake_exchange,
    fold,
    markets,
)

HOUR = 3_600_000_000_000
S = 1_000_000_000
T0 = 490_000 * HOUR
A, B = b"[[[4000, 5]], [[4200, 6]]]", b"[[[4000, 5], [3900, 1]], [[4200, 6]]]"


# --- books ---------------------------------------------------------------------------------------------------


def polled(*ids: str, window: tuple[int | None, int | None] = (None, None)) -> tuple[PolledBooks, RowWriter]:
    rows = RowWriter("run", T0, window=window)
    feed = PolledBooks(FakeSession("poll"), rows)
    feed.begin("c1", T0, [MarketFacts(venue="fake", market_id=market_id) for market_id in ids or ("M",)])
    return feed, rows


def tables(rows: RowWriter) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for (name, _), table in rows.drain().tables().items():
        found.setdefault(name, []).extend(table.to_pylist())
    return found


def doubts(found: Mapping[str, Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Gaps but for those before a market's first book."""
    return [gap for gap in found["book_gaps"] if gap["cause"] != "no_snapshot"]


def test_an_unchanged_answer_writes_one_raw_frame_for_the_whole_batch() -> None:
    feed, rows = polled("M", "N")
    feed.answer({"M": A, "N": A}, T0 + S)
    first = tables(rows)
    assert {name: len(found) for name, found in first.items()} == {
        "raw_frames": 2,
        "book_events": 6,
        "quotes": 2,
        "book_gaps": 2,
    }
    assert {row["source"] for name in ("raw_frames", "quotes") for row in first[name]} == {"rest"}
    feed.answer({"M": A, "N": A}, T0 + 2 * S)
    assert [(r["frame"], r["recv_ns"], r["source"]) for r in tables(rows)["raw_frames"]] == [
        (A.decode(), T0 + 2 * S, "rest")
    ]


def test_a_change_below_the_top_is_a_snapshot_without_a_quote() -> None:
    feed, rows = polled("M", "N")
    feed.answer({"M": A, "N": A}, T0 + S)
    tables(rows)
    feed.answer({"M": A, "N": B}, T0 + 2 * S)
    found = tables(rows)
    assert "quotes" not in found
    assert [row["frame"] for row in found["raw_frames"]] == [B.decode()]
    assert {row["market_id"] for row in found["book_events"]} == {"N"}


def test_a_failure_is_a_gap_from_the_last_proof_to_the_next_good_answer() -> None:
    feed, rows = polled("M", "N")
    feed.answer({"M": A, "N": A}, T0 + S)
    feed.answer({"M": A, "N": A}, T0 + 2 * S)
    for second in (3, 4):
        feed.failed("no answer", T0 + second * S)
    feed.answer({"M": A, "N": B}, T0 + 5 * S)
    feed.finish(T0 + 7 * S, "stopped")
    found = tables(rows)
    gaps = [(g["market_id"], g["cause"], g["from_ns"] - T0, g["to_ns"] - T0, g["recovery"]) for g in doubts(found)]
    assert sorted(gaps) == [(market, "poll_failed", 2 * S, 5 * S, "rest_book") for market in ("M", "N")]
    [session] = found["capture_sessions"]
    assert json.loads(session["anomalies"]) == {"venue_error": 2}
    assert json.loads(session["examples"])["venue_error"]["detail"] == "no answer"
    assert feed.live_ns == 4 * S, "seven seconds less the three in doubt"


def test_a_failure_at_the_end_lasts_to_the_end() -> None:
    feed, rows = polled()
    feed.answer({"M": A}, T0 + S)
    feed.failed("no answer", T0 + 2 * S)
    assert feed.live_until(T0 + 3 * S) == S
    feed.finish(T0 + 4 * S, "stopped")
    [gap] = doubts(tables(rows))
    assert (gap["from_ns"], gap["to_ns"], gap["recovery"]) == (T0 + S, T0 + 4 * S, "end_of_capture")
    assert feed.live_ns == S


@pytest.mark.parametrize("bad", [{}, {"M": b"<html>"}])
def test_a_market_without_a_usable_answer_is_in_doubt_and_no_other(bad: Mapping[str, bytes]) -> None:
    feed, rows = polled("M", "N")
    feed.answer({"M": A, "N": A}, T0 + S)
    for second in (2, 3):
        feed.answer({"M": None, "N": A, **bad}, T0 + second * S)
    feed.answer({"N": A, "M": A}, T0 + 4 * S)
    found = tables(rows)
    [gap] = doubts(found)
    assert (gap["market_id"], gap["cause"], gap["from_ns"], gap["to_ns"]) == ("M", "bad_answer", T0 + S, T0 + 4 * S)
    assert len(found["quotes"]) == 2


def test_a_market_that_is_never_answered_is_in_doubt_from_the_beginning() -> None:
    feed, rows = polled("M")
    feed.answer({"M": None}, T0 + S)
    feed.finish(T0 + 2 * S, "stopped")
    found = tables(rows)
    assert {(gap["cause"], gap["from_ns"], gap["to_ns"]) for gap in found["book_gaps"]} == {
        ("no_snapshot", T0, T0 + 2 * S),
        ("bad_answer", T0, T0 + 2 * S),
    }
    assert "raw_frames" not in found


def test_an_hour_opens_with_the_books_that_the_one_before_left() -> None:
    feed, rows = polled(window=(T0 + HOUR, T0 + 2 * HOUR))
    feed.answer({"M": A}, T0 + S)
    assert tables(rows) == {}
    feed.answer({"M": A}, T0 + HOUR + S)
    found = tables(rows)
    assert [(row["kind"], row["recv_ns"]) for row in found["book_events"]] == [("clear", T0 + HOUR)] + [
        ("snapshot", T0 + HOUR)
    ] * 2
    assert [row["recv_ns"] for row in found["raw_frames"]] == [T0 + HOUR + S]


# --- trades --------------------------------------------------------------------------------------------------


def trade(number: int, at_ns: int, market: str = "M") -> Trade:
    return Trade(market, f"t{number}", 400_000_000, 1_000_000, "yes", at_ns, at_ns, None, "rest")


class Told(FakePolling):
    """Finds on a page what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Trade | Anomaly] = []

    def trades(self, page: bytes, recv_ns: int) -> list[Trade | Anomaly]:
        return self.found


class Listing(PolledTrades):
    """Takes pages with what stands on them."""

    def __init__(self, rows: RowWriter) -> None:
        self.told = Told()
        super().__init__(FakeSession("trades"), rows, self.told, T0)

    def tell(self, body: bytes, found: Sequence[Trade | Anomaly], at_ns: int) -> None:
        self.told.found = list(found)
        self.page(body, at_ns)


def listed() -> tuple[Listing, RowWriter]:
    rows = RowWriter("run", T0)
    feed = Listing(rows)
    feed.begin("c1", T0, [MarketFacts(venue="fake", market_id="M")])
    return feed, rows


def test_each_trade_of_a_captured_market_is_kept_once_and_pages_only_with_news() -> None:
    feed, rows = listed()
    feed.tell(b"p1", [trade(2, T0 + 2 * S), trade(1, T0 + S), trade(9, T0 + S, "other")], T0 + 3 * S)
    feed.complete(T0 + 3 * S)
    feed.tell(b"p2", [trade(2, T0 + 2 * S), trade(1, T0 + S)], T0 + 4 * S)
    feed.complete(T0 + 4 * S)
    feed.tell(b"p3", [trade(3, T0 + 4 * S), trade(2, T0 + 2 * S)], T0 + 5 * S)
    found = tables(rows)
    assert [row["trade_id"] for row in sorted(found["trades"], key=lambda row: row["ordinal"])] == ["t1", "t2", "t3"]
    assert {row["source"] for row in found["trades"]} == {"rest"}
    assert [row["frame"] for row in found["raw_frames"]] == ["p1", "p3"]


def test_what_is_asked_for_and_remembered_follows_complete_listings_only() -> None:
    feed, rows = listed()
    feed.tell(b"p", [trade(2, T0 + 60 * S), trade(1, T0 + 59 * S)], T0 + 61 * S)
    feed.failed("the rest is missing", T0 + 61 * S)
    assert feed.since_ns == T0, "older trades of the broken listing are still wanted"
    feed.tell(b"p", [trade(2, T0 + 60 * S), trade(1, T0 + 59 * S)], T0 + 62 * S)
    feed.tell(b"q", [trade(0, T0 + 5 * S)], T0 + 62 * S)
    feed.complete(T0 + 62 * S)
    assert feed.since_ns == T0 + 50 * S, "ten seconds before the newest"
    assert sorted(row["trade_id"] for row in tables(rows)["trades"]) == ["t0", "t1", "t2"]
    for number in range(100, 5_000):
        at = T0 + number * S
        feed.tell(b"p", [trade(number, at)], at)
        feed.complete(at)
    assert len(feed._taken) <= 12


def test_a_trade_from_the_future_does_not_hide_those_that_follow() -> None:
    feed, _ = listed()
    feed.tell(b"p", [trade(1, T0 + HOUR)], T0 + 60 * S)
    feed.complete(T0 + 60 * S)
    assert feed.since_ns <= T0 + 60 * S


def test_an_unusable_trade_is_counted_once_with_itself_as_the_example() -> None:
    feed, rows = listed()
    for second in (1, 2):
        bad = Anomaly(AnomalyKind.MISSING_FIELD, "no trade_id", T0 + second * S, "", '{"ticker":"M"}')
        feed.tell(b"p", [bad], T0 + second * S)
        feed.complete(T0 + second * S)
    feed.finish(T0 + 3 * S, "stopped")
    [session] = tables(rows)["capture_sessions"]
    assert json.loads(session["anomalies"]) == {"missing_field": 1}


# --- the recorder with the fake venue ------------------------------------------------------------------------


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@asynccontextmanager
async def recording(recorder: Recorder) -> AsyncIterator["Running"]:
    running = Running(recorder)
    try:
        yield running
    finally:
        running.stop.set()
        async with asyncio.timeout(10):
            running.summary = await running.task


class Running:
    """A capture under way; its summary once it ended."""

    summary: CaptureSummary

    def __init__(self, recorder: Recorder) -> None:
        self.stop = asyncio.Event()
        self._statuses: asyncio.Queue[CaptureStatus] = asyncio.Queue()
        self.task = asyncio.create_task(recorder.run(self.stop, self._statuses.put))

    async def until(self, ready: Callable[[CaptureStatus], bool]) -> CaptureStatus:
        async with asyncio.timeout(30):
            while True:
                status = asyncio.create_task(self._statuses.get())
                await asyncio.wait({status, self.task}, return_when=asyncio.FIRST_COMPLETED)
                if self.task.done():
                    status.cancel()
                    raise AssertionError(f"the capture ended: {self.task.result()}")
                if ready(status.result() if status.done() else await status):
                    return status.result()


def fake_recorder(lake: Lake, venue: Venue, *ids: str) -> Recorder:
    settings = Settings(capture_flush_s=0.05, poll_interval_s=0.03)
    return Recorder(settings, lake, Clock(), "run", {"fake": markets(*ids)}, venues={"fake": venue})


def rows_of(name: str, count: int) -> Callable[[CaptureStatus], bool]:
    return lambda status: status.venues["fake"].rows.get(name, 0) >= count


async def test_without_a_websocket_the_venue_is_polled_in_batches(lake: Lake) -> None:
    polling = FakePolling()
    polling.answers = dict.fromkeys("LMN", A)
    now = int(time.time())
    polling.pages = [[["t2", "M", now], None], [["t1", "N", now], ["t0", "foreign", now]]]
    venue = PolledVenue(polling)
    async with recording(fake_recorder(lake, venue, "L", "M", "N")) as running:
        await running.until(rows_of("quotes", 3))
        polling.answers["M"] = B
        await running.until(rows_of("book_events", 13))
        polling.error = VenueError("maintenance")
        status = await running.until(lambda status: status.venues["fake"].anomalies.get("venue_error", 0) >= 4)
        assert status.venues["fake"].message == "maintenance"
        polling.error = None
        await running.until(rows_of("book_gaps", 6))
    venue_summary = running.summary.venues["fake"]
    assert {tuple(call) for call in polling.calls} == {("L", "M"), ("N",)}
    assert (venue_summary.markets, venue_summary.connections, venue_summary.reconnects) == (3, 3, 0)
    assert 0 < venue_summary.coverage < 1
    assert venue_summary.anomalies["missing_field"] == 1
    assert sorted(row["trade_id"] for row in every(lake, "trades")) == ["t1", "t2"]
    assert {
        row["source"] for name in ("quotes", "book_events", "trades", "raw_frames") for row in every(lake, name)
    } == {"rest"}
    assert {(gap["cause"], gap["recovery"]) for gap in every(lake, "book_gaps")} == {
        ("no_snapshot", "snapshot"),
        ("poll_failed", "rest_book"),
    }
    sessions = every(lake, "capture_sessions")
    assert sorted(row["markets"] for row in sessions) == [1, 2, 3]
    assert {row["stop_reason"] for row in sessions} == {"stopped"}
    assert {len(side) for side in fold(every(lake, "book_events"))["M"]} == {2, 1}


async def test_trades_are_asked_for_again_until_the_listing_is_complete(lake: Lake) -> None:
    polling = FakePolling()
    now = int(time.time())
    polling.pages = [[["t2", "M", now]], ["broken"]]
    began = time.time_ns()
    async with recording(fake_recorder(lake, PolledVenue(polling), "M")) as running:
        await running.until(rows_of("trades", 1))
        polling.pages = [[["t2", "M", now]], [["t1", "M", now - 1]]]
        await running.until(rows_of("trades", 2))
    assert sorted(row["trade_id"] for row in every(lake, "trades")) == ["t1", "t2"]
    assert abs(polling.asked[0] - began) < 5 * S


async def test_failures_in_a_row_and_retry_after_make_the_pauses_longer(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    real = asyncio.sleep

    async def sleep(delay: float) -> None:
        pauses.append(delay)
        await real(0.001)

    polling = FakePolling()
    polling.error = TransientHttpError("GET", "/books", 429, "too many requests", None)
    async with recording(fake_recorder(lake, PolledVenue(polling), "M")) as running:
        monkeypatch.setattr("arb_pipeline.capture.polling.asyncio.sleep", sleep)
        await running.until(lambda status: status.venues["fake"].anomalies.get("venue_error", 0) >= 15)
        assert 20 < max(pauses) < 40
        polling.error = TransientHttpError("GET", "/books", 429, "too many requests", 55.0)
        await running.until(lambda _: max(pauses) > 54)
        monkeypatch.undo()


async def test_the_websocket_is_used_where_it_can_be(lake: Lake) -> None:
    polling = FakePolling()
    venue = FakeVenue(polling=polling)
    async with fake_exchange() as exchange, recording(fake_recorder(lake, venue, "M")):
        venue.url = exchange.url
        await exchange.subscribed()
    assert polling.calls == []
    assert polling.asked == []


async def test_nothing_to_poll_is_said(lake: Lake) -> None:
    recorder = fake_recorder(lake, PolledVenue())
    summary = await recorder.run(asyncio.Event())
    assert summary.stop_reason == "nothing_to_capture"
    assert "no market" in summary.venues["fake"].message


# --- the local exchange, without a key -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def key() -> ThrowAwayKey:
    return ThrowAwayKey()


def keyless(exchange: Exchange, **changes: Any) -> Settings:
    hosts = exchange.announcement()
    return Settings(
        kalshi_rest_url=hosts["kalshi"]["rest_url"],
        kalshi_ws_url=hosts["kalshi"]["ws_url"],
        polymarket_gamma_url=hosts["polymarket"]["gamma_url"],
        polymarket_clob_url=hosts["polymarket"]["clob_url"],
        polymarket_ws_url=hosts["polymarket"]["ws_url"],
        **{"capture_flush_s": 0.2, "poll_interval_s": 0.2, "http_requests_per_s": 500.0, **changes},
    )


async def listing(settings: Settings, *venues: str) -> dict[str, list[Market]]:
    found: dict[str, list[Market]] = {}
    for name in venues:
        async with VENUES[name].rest_client(settings) as client:
            events = [event async for event in VENUES[name].catalogue(client, settings)]
        found[name] = [market for event in events for market in event.markets]
    return found


async def books_of(exchange: Exchange, ids: Sequence[str]) -> dict[str, tuple[dict[int, int], dict[int, int]]]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{exchange.port}") as http:
        answers = [(await http.get("/_exchange/book", params={"market": each})).json() for each in ids]
    return {book["market_id"]: (dict(book["bids"]), dict(book["asks"])) for book in answers}


async def trades_of(exchange: Exchange, ids: Sequence[str]) -> set[str]:
    """Ids of the trades that the exchange lists of these markets."""
    found: set[str] = set()
    cursor: str | None = ""
    async with httpx.AsyncClient(base_url=exchange.announcement()["kalshi"]["rest_url"]) as http:
        while cursor is not None:
            page = (await http.get("/markets/trades", params={"limit": 1000, "cursor": cursor})).json()
            found |= {trade["trade_id"] for trade in page["trades"] if trade["ticker"] in set(ids)}
            cursor = page["cursor"] or None
    return found


def captured(lake: Lake) -> dict[str, tuple[dict[int, int], dict[int, int]]]:
    books = fold(lake.read("book_events").to_pylist())
    return {
        market_id: tuple({int(p * 10_000): int(s * 1_000_000) for p, s in side.items()} for side in sides)  # type: ignore[misc]
        for market_id, sides in books.items()
    }


async def same_books(running: Running, lake: Lake, exchange: Exchange, ids: Sequence[str]) -> None:
    """Wait until playback is over and the captured books are the exchange's."""
    async with asyncio.timeout(30):
        await exchange.player.finished.wait()
        expected = await books_of(exchange, ids)
        await running.until(lambda _: captured(lake) == expected)


def recorder_of(settings: Settings, lake: Lake, chosen: Mapping[str, Sequence[Market]]) -> Recorder:
    return Recorder(settings, lake, settings.clock, "run", chosen, backoff_s=(0.05, 0.2))


async def test_kalshi_without_a_key_ends_with_the_exchanges_books_and_trades(lake: Lake, key: ThrowAwayKey) -> None:
    async with await start(GeneratedSource(7, duration_s=3, rate=400), key=key) as exchange:
        settings = keyless(exchange)
        chosen = await listing(settings, "kalshi")
        ids = [market.market_id for market in chosen["kalshi"]]
        async with recording(recorder_of(settings, lake, chosen)) as running:
            await running.until(lambda status: status.venues["kalshi"].rows.get("quotes", 0) >= len(ids))
            exchange.player.started.set()
            await same_books(running, lake, exchange, ids)
            traded = await trades_of(exchange, ids)
            await running.until(lambda status: status.venues["kalshi"].rows.get("trades", 0) >= len(traded))
    trades = every(lake, "trades")
    assert len(traded) > 10
    assert Counter(row["trade_id"] for row in trades) == Counter(traded)
    assert all(row["venue_ns"] is not None for row in trades)
    kalshi = running.summary.venues["kalshi"]
    assert (kalshi.anomalies, kalshi.coverage > 0.9) == ({}, True)
    assert {row["cause"] for row in every(lake, "book_gaps")} == {"no_snapshot"}
    assert kalshi.message.startswith("polled over REST")
    quotes = sorted(every(lake, "quotes"), key=lambda row: (row["market_id"], row["recv_ns"]))
    tops = [(row["market_id"], row["bid"], row["bid_size"], row["ask"], row["ask_size"]) for row in quotes]
    assert all(one != other for one, other in pairwise(tops)), "a quote only where it changed"


FAULTS = [
    ({"kind": "http_status", "status": 429, "count": 4}, True),
    ({"kind": "http_status", "status": 503, "count": 4}, True),
    ({"kind": "http_status", "status": 502, "html": True, "count": 4}, True),
    ({"kind": "slow_rest", "seconds": 0.7, "count": 4}, False),
]


@pytest.mark.parametrize(("fault", "fails"), FAULTS)
async def test_faults_of_rest_are_survived(lake: Lake, key: ThrowAwayKey, fault: dict[str, Any], fails: bool) -> None:
    async with await start(GeneratedSource(7, 16, duration_s=1.5, rate=300), key=key) as exchange:
        settings = keyless(exchange)
        chosen = await listing(settings, "kalshi")
        ids = [market.market_id for market in chosen["kalshi"]]
        async with recording(recorder_of(settings, lake, chosen)) as running:
            await running.until(lambda status: status.venues["kalshi"].rows.get("quotes", 0) >= len(ids))
            struck = exchange.faults.add({"venue": "kalshi", **fault})
            exchange.player.started.set()
            await running.until(lambda _: struck.struck == 4)
            await same_books(running, lake, exchange, ids)
            traded = await trades_of(exchange, ids)
            await running.until(lambda status: status.venues["kalshi"].rows.get("trades", 0) >= len(traded))
    kalshi = running.summary.venues["kalshi"]
    assert Counter(row["trade_id"] for row in every(lake, "trades")) == Counter(traded)
    assert (kalshi.anomalies.get("venue_error", 0) > 0) == fails
    gaps = [gap for gap in every(lake, "book_gaps") if gap["cause"] != "no_snapshot"]
    assert bool(gaps) == fails
    assert {(gap["cause"], gap["recovery"]) for gap in gaps} <= {("poll_failed", "rest_book")}


async def test_a_stop_does_not_wait_for_a_slow_answer(lake: Lake, key: ThrowAwayKey) -> None:
    async with await start(GeneratedSource(7, 16, duration_s=1), key=key) as exchange:
        settings = keyless(exchange)
        chosen = await listing(settings, "kalshi")
        struck = exchange.faults.add({"kind": "slow_rest", "seconds": 30, "count": 100})
        async with recording(recorder_of(settings, lake, chosen)) as running:
            await running.until(lambda _: struck.struck > 0)
            began = time.monotonic()
        assert time.monotonic() - began < 4
    assert running.summary.stop_reason == "stopped"


@pytest.mark.slow
async def test_a_polled_book_that_nothing_changes_stays_fresh_for_arbitrage(
    lake: Lake, key: ThrowAwayKey, tmp_path: Path
) -> None:
    async with await start(GeneratedSource(7, 2, duration_s=0.5), key=key) as exchange:
        settings = keyless(exchange, max_quote_age_s=1.2, matches_path=tmp_path / "matches.yaml")
        for venue in ("kalshi", "polymarket"):
            await discover(venue, settings, lake)
        match_markets(settings, lake)
        began = settings.clock.now()
        async with recording(recorder_of(settings, lake, universe(settings, lake))) as running:
            await exchange.player.finished.wait()
            quiet_from = time.time_ns()
            await running.until(lambda _: time.time_ns() - quiet_from > 3 * S)
            quiet_to = time.time_ns()
        evaluate_hours(settings, lake, began, settings.clock.now())
    found = [row for row in every(lake, "spreads") if row["recv_ns"] < quiet_to]
    assert any(row["trusted"] for row in found)
    assert not any("stale_leg" in row["reason"] for row in found)
    late = [row["recv_ns"] for row in every(lake, "book_events") if row["venue"] == "kalshi"]
    assert max(late) < quiet_from + S, "nothing was written of books that stood still"


async def test_both_venues_one_polled_and_one_streamed(lake: Lake, key: ThrowAwayKey) -> None:
    async with await start(GeneratedSource(7, 16, duration_s=2, rate=300), key=key) as exchange:
        settings = keyless(exchange)
        chosen = await listing(settings, "kalshi", "polymarket")
        ids = [market.market_id for listed in chosen.values() for market in listed]
        async with recording(recorder_of(settings, lake, chosen)) as running:
            await same_books(running, lake, exchange, ids)
    sources = {(row["venue"], row["source"]) for row in every(lake, "book_events")}
    assert sources == {("kalshi", "rest"), ("polymarket", "ws")}
    for venue in running.summary.venues.values():
        assert venue.anomalies == {}
    assert {row["cause"] for row in every(lake, "book_gaps")} == {"no_snapshot"}
