import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from arb_pipeline.capture.handling import HandlerProcess, Handling, HandlingReport
from arb_pipeline.capture.journal import (
    Begun,
    Ended,
    FeedAdded,
    Frame,
    JournalWriter,
    Lost,
    Opened,
    PollAnswer,
    PollBegun,
    PollFailed,
    Record,
    RunFolder,
    Subscribed,
    Tick,
    TradesPage,
)
from arb_pipeline.capture.live import RunJournal, begun_settings
from arb_pipeline.capture.recorder import Recorder
from arb_pipeline.clock import Clock
from arb_pipeline.handlers import Alert, Handler, HandlerConfig, HandlerContext, TimePassed, build, on
from arb_pipeline.handlers.api import Books
from arb_pipeline.model import MarketFacts, Quote
from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake
from arb_pipeline.venues.kalshi import Kalshi
from arb_pipeline_tests.capture.fakes import FakePolling, FakeVenue, every, fake_exchange, markets
from arb_pipeline_tests.handlers.samples import lines

S = 1_000_000_000
MARKETS = (MarketFacts(venue="fake", market_id="M"), MarketFacts(venue="fake", market_id="N"))
SAMPLES = "arb_pipeline_tests.handlers.samples"


def now() -> int:
    return time.time_ns()


def frame(*content: object, at_ns: int | None = None) -> Frame:
    return Frame(0, now() if at_ns is None else at_ns, json.dumps(content))


def trade(trade_id: str, market: str = "M") -> Frame:
    return frame("trade", market, trade_id, 410_000_000, 1_000_000)


def begun(at_ns: int | None = None, window: tuple[int | None, int | None] = (None, None)) -> list[Record]:
    at = now() if at_ns is None else at_ns
    return [
        Begun("run", (0, 1), at, window, "an exchange", begun_settings(Settings())),
        FeedAdded(0, "fake", "run/fake/0"),
        Opened(0, at, "run/fake/0.1", MARKETS),
    ]


def snap(market: str = "M", at_ns: int | None = None) -> Frame:
    return frame("snap", market, [[4000, 5_000_000]], [[4200, 2_000_000]], at_ns=at_ns)


def config(use: str, **fields: Any) -> HandlerConfig:
    return HandlerConfig.model_validate({"name": use, "use": f"{SAMPLES}:{use}", **fields})


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "journal" / "runs" / "run-1")
    folder.path.mkdir(parents=True)
    return folder


@pytest.fixture
def writer(folder: RunFolder) -> Iterator[JournalWriter]:
    writer = JournalWriter(folder.path, 0.02)
    yield writer
    writer.close()


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


def write(writer: JournalWriter, *records: Record) -> None:
    for record in records:
        writer.append(record)
    writer.sync()


# --- events ------------------------------------------------------------------------------------------------


def handle(folder: RunFolder, *configs: HandlerConfig, **options: Any) -> Handling:
    """Handle what the journal holds, in this process."""
    alerts: list[Alert] = options.pop("alerts", [])
    venues = options.pop("venues", {"fake": FakeVenue()})
    handling = Handling(folder, [build(one) for one in configs], alerts.append, venues=venues, **options)
    while handling.step():
        pass
    return handling


def test_handlers_are_told_what_sessions_say(folder: RunFolder, writer: JournalWriter, notes: Path) -> None:
    tick, lost = Tick(0, now()), Lost(0, now(), "reset")
    write(writer, *begun(), snap(), trade("t1"), frame("gap", "M", "silence"), snap("N"), tick, lost)
    handling = handle(folder, config("Note", parameters={"path": str(notes)}))
    assert lines(notes) == [
        ["BookSnapshot", "M", True],
        ["Quote", "M", True],
        ["t1", "M", True],
        ["GapOpened", "M", False],
        ["BookSnapshot", "N", True],
        ["Quote", "N", True],
        ["time_passed", "fake", True],
        ["GapOpened", "M", False],
        ["GapOpened", "N", False],
    ]
    assert (handling.handled, handling.errors, handling.skipped, handling.ended) == (9, 0, 0, False)
    write(writer, Ended(now(), "stopped"))
    handling.step()
    assert handling.ended


def test_markets_and_venues_choose(folder: RunFolder, writer: JournalWriter, notes: Path) -> None:
    write(writer, *begun(), snap(), snap("N"), Subscribed(0, now(), (MARKETS[0],)), trade("t1", "NO"))
    note = {"parameters": {"path": str(notes)}}
    handling = handle(folder, config("Note", markets="n*", **note), config("Note", venues="other", **note))
    assert lines(notes) == [["BookSnapshot", "N", True], ["Quote", "N", True], ["t1", "NO", False]]
    assert handling.handled == 3


def test_frames_are_told_by_the_venues_type(folder: RunFolder, writer: JournalWriter, notes: Path) -> None:
    messages = [
        {"type": "orderbook_delta", "sid": 3, "seq": 1, "msg": {}},
        {"type": "ticker", "sid": 4, "msg": {"title": 'an "orderbook_delta"'}},
        {"type": "trade", "sid": 5, "msg": {}},
    ]
    opened = [
        begun()[0],
        FeedAdded(0, "kalshi", "run/kalshi/0"),
        Opened(0, now(), "run/kalshi/0.1", (MarketFacts(venue="kalshi", market_id="K"),)),
    ]
    write(writer, *opened, Frame(0, now(), "{"), *(Frame(0, now(), json.dumps(one)) for one in messages))
    handling = handle(
        folder, config("frames", parameters={"path": str(notes)}), venues={"kalshi": Kalshi(), "fake": FakeVenue()}
    )
    assert lines(notes) == [["orderbook_delta", "kalshi", 3], ["trade", "kalshi", 5]]
    assert handling.message == ""


def test_polled_books_and_trades_are_told(folder: RunFolder, writer: JournalWriter, notes: Path) -> None:
    at = now()
    write(
        writer,
        begun()[0],
        FeedAdded(0, "fake", "run/fake/poll-0", "books"),
        FeedAdded(1, "fake", "run/fake/poll-trades", "trades"),
        PollBegun(0, at, "run/fake/poll-0", MARKETS),
        PollBegun(1, at, "run/fake/poll-trades", MARKETS),
        PollAnswer(0, at, {"M": b"[[[4000, 1000000]], []]", "N": None}),
        TradesPage(1, at, json.dumps([["t1", "M", 1], ["t2", "other", 1]]).encode()),
        PollFailed(0, at, "HTTP 500"),
    )
    note = config("Note", parameters={"path": str(notes)})
    handling = handle(folder, note, venues={"fake": FakeVenue(polling=FakePolling())})
    assert lines(notes) == [
        ["BookSnapshot", "M", True],
        ["Quote", "M", True],
        ["GapOpened", "N", False],
        ["t1", "M", False],
        ["GapOpened", "M", False],
    ]
    assert handling.message == ""


def test_a_polled_book_is_trusted_while_polls_bring_it(folder: RunFolder, writer: JournalWriter) -> None:
    at = now() - 60 * S
    body: dict[str, bytes | None] = {"M": b"[[[4000, 1000000]], []]"}
    write(
        writer,
        begun(at)[0],
        FeedAdded(0, "fake", "run/fake/poll-0", "books"),
        FeedAdded(1, "fake", "run/fake/1"),
        PollBegun(0, at, "run/fake/poll-0", MARKETS[:1]),
        Opened(1, at, "run/fake/1.1", MARKETS[1:]),
        PollAnswer(0, at, body),
    )
    seen: list[bool] = []

    class See:
        @on("time_passed")
        def see(self, event: TimePassed, context: HandlerContext) -> None:
            seen.append(books[0].in_sync("M"))

        @on("snapshot", "gap_opened", "gap_closed")
        def keep(self, event: object, context: HandlerContext) -> None:
            books.append(context.books)
            seen.append(context.in_sync)

    books: list[Books] = []
    see, handler = See(), Handler(HandlerConfig(name="see", use="x:See"))
    for method in (see.see, see.keep):
        handler.add(method, method)
    handling = Handling(folder, [handler], print, venues={"fake": FakeVenue(polling=FakePolling())}, lag_s=600)

    def after(*records: Record) -> list[bool]:
        write(writer, *records)
        seen.clear()
        while handling.step():
            pass
        return seen

    assert after() == [True]
    assert after(PollFailed(0, at + S, "HTTP 500")) == [False], "a gap opened"
    assert after(Tick(1, at + S)) == [False]
    assert after(PollAnswer(0, at + 2 * S, body)) == [True], "the gap closed: the book is as it was"
    assert after(Tick(1, at + 7 * S)) == [True]
    assert after(Tick(1, at + 8 * S)) == [False], "the last answer is older than max_quote_age_s"
    assert after(PollAnswer(0, at + 9 * S, body), Tick(1, at + 9 * S)) == [True]


def test_a_polled_book_that_is_told_again_after_a_skip_is_in_doubt_like_before(
    folder: RunFolder, writer: JournalWriter, notes: Path
) -> None:
    late, at = now() - 60 * S, now()
    write(
        writer,
        begun(late)[0],
        FeedAdded(0, "fake", "run/fake/poll-0", "books"),
        PollBegun(0, late, "run/fake/poll-0", MARKETS[:1]),
        PollAnswer(0, late, {"M": b"[[[4000, 1000000]], []]"}),
        PollFailed(0, late + S, "HTTP 500"),
        PollFailed(0, at, "HTTP 500"),
    )
    quotes: list[bool] = []

    def look(event: Quote, context: HandlerContext) -> None:
        quotes.append(event.in_sync)

    handler = Handler(HandlerConfig(name="see", use="x:look"))
    handler.add(look, on("quote")(look))
    handling = Handling(folder, [handler], print, venues={"fake": FakeVenue(polling=FakePolling())})
    while handling.step():
        pass
    assert quotes == [False]


def test_a_handler_begins_with_the_books_where_its_window_begins(
    folder: RunFolder, writer: JournalWriter, notes: Path
) -> None:
    start = now() - S
    before = [*begun(start - S, (start, None)), snap(at_ns=start - 500_000_000)]
    write(writer, *before, trade("t1"))
    handling = handle(folder, config("Note", parameters={"path": str(notes)}))
    assert [line[0] for line in lines(notes)] == ["BookSnapshot", "Quote", "t1"]
    assert handling.skipped == 0


def test_what_is_late_is_skipped_and_counted_and_the_books_are_told_again(
    folder: RunFolder, writer: JournalWriter, notes: Path
) -> None:
    old = now() - 60 * S
    late = [*begun(old), snap(at_ns=old), frame("trade", "M", "late", 1, 1, at_ns=old)]
    write(writer, *late, trade("fresh"))
    handling = handle(folder, config("Note", parameters={"path": str(notes)}), lag_s=5.0)
    assert [line[0] for line in lines(notes)] == ["BookSnapshot", "Quote", "fresh"]
    assert handling.skipped == 3
    write(writer, Frame(0, now(), snap().frame))
    assert handling.step()
    assert [line[0] for line in lines(notes)][3:] == ["BookSnapshot"], "the top is as it was"


def test_after_another_process_only_what_comes_now_is_told(
    folder: RunFolder, writer: JournalWriter, notes: Path
) -> None:
    at = now() - S
    write(writer, *begun(at), snap(at_ns=at), frame("trade", "M", "missed", 1, 1, at_ns=at + 1))
    handling = handle(folder, config("Note", parameters={"path": str(notes)}), after_ns=at)
    assert lines(notes) == []
    assert handling.skipped == 1, "the snapshot was taken by the process before"
    write(writer, trade("t1"))
    handling.step()
    assert [line[0] for line in lines(notes)] == ["BookSnapshot", "Quote", "t1"]


@pytest.mark.parametrize("order", ["raise", "exit"])
def test_a_handler_that_raises_is_counted_and_logged_once_a_kind(
    folder: RunFolder, writer: JournalWriter, notes: Path, caplog: pytest.LogCaptureFixture, order: str
) -> None:
    write(writer, *begun(), trade(order), trade(order), trade("t3"))
    with caplog.at_level(logging.ERROR):
        handling = handle(folder, config("Obey"), config("Note", parameters={"path": str(notes)}))
    assert handling.errors == 2
    assert [line[0] for line in lines(notes)] == [order, order, "t3"], "others are told all the same"
    assert "'Obey' raised" in handling.message
    [logged] = [record for record in caplog.records if record.exc_info]
    assert "told so" in logged.getMessage()


def test_alerts_name_handler_market_and_time(folder: RunFolder, writer: JournalWriter) -> None:
    alerts: list[Alert] = []
    one = trade("alert")
    write(writer, *begun(), one)
    handle(folder, config("Obey"), alerts=alerts)
    assert alerts == [
        Alert(
            handler="Obey",
            venue="fake",
            market_id="M",
            at_ns=one.at_ns,
            message="M traded",
            details={"price": 410_000_000},
        )
    ]


def test_a_journal_that_is_deleted_ends_the_handling(folder: RunFolder, writer: JournalWriter) -> None:
    write(writer, *begun(), trade("t1"))
    writer.close()
    handling = handle(folder, config("Obey"))
    assert handling.message == ""
    folder.remove()
    assert not handling.step()
    assert handling.ended
    assert "deleted before its end was read" in handling.message


# --- the process -------------------------------------------------------------------------------------------


@pytest.fixture
def processes() -> Iterator[list[HandlerProcess]]:
    started: list[HandlerProcess] = []
    yield started
    for process in started:
        process.leave()
    wait_until(lambda: all(process.pid is None for process in started), 20)


def start(
    processes: list[HandlerProcess], folder: RunFolder, *configs: HandlerConfig, **settings: Any
) -> HandlerProcess:
    # By default nothing counts as late: on a busy machine the process itself takes seconds to start.
    given = Settings(**{"handler_lag_s": 600.0, **settings})
    process = HandlerProcess(folder, {"fake": FakeVenue()}, configs, given, backoff_s=(0.01, 0.1))
    processes.append(process)
    process.start()
    return process


def wait_until(there: Callable[[], bool], wait_s: float = 40) -> None:
    deadline = time.monotonic() + wait_s
    while not there():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def told(notes: Path) -> list[object]:
    return [line[0] for line in lines(notes)]


def test_the_process_follows_the_journal_to_its_end(
    folder: RunFolder, writer: JournalWriter, notes: Path, processes: list[HandlerProcess]
) -> None:
    process = start(processes, folder, config("Note", parameters={"path": str(notes)}), config("Obey"))
    write(writer, *begun(), snap())
    wait_until(lambda: told(notes) == ["BookSnapshot", "Quote"])
    write(writer, trade("print"))
    wait_until(lambda: "print" in told(notes))
    wait_until(lambda: process.report.handled >= 4)
    write(writer, Ended(now(), "stopped"))
    wait_until(lambda: process.report.done)
    wait_until(lambda: process.pid is None)
    report = process.report
    assert (report.handled, report.errors, report.restarts, report.message) == (4, 0, 0, "")


def test_a_process_that_is_left_takes_the_rest_and_ends(
    folder: RunFolder, writer: JournalWriter, notes: Path, processes: list[HandlerProcess]
) -> None:
    process = start(processes, folder, config("Note", parameters={"path": str(notes)}))
    write(writer, *begun(), trade("t1"))
    wait_until(lambda: process.pid is not None)
    process.leave()
    wait_until(lambda: process.report.done)
    wait_until(lambda: process.pid is None)
    assert told(notes) == ["t1"]


def test_a_handler_that_hangs_costs_capture_nothing_and_is_begun_anew(
    folder: RunFolder, writer: JournalWriter, notes: Path, processes: list[HandlerProcess]
) -> None:
    handlers = config("Note", parameters={"path": str(notes)}), config("Obey")
    process = start(processes, folder, *handlers, handler_hang_s=4.0)
    write(writer, *begun(), snap(), trade("hang"))
    wait_until(lambda: "hang" in told(notes))
    numbers = iter(range(1_000_000))
    slowest = 0.0
    while process.report.restarts < 1 or told(notes).count("BookSnapshot") < 2:
        began = time.perf_counter()
        writer.append(trade(f"t{next(numbers)}"))
        slowest = max(slowest, time.perf_counter() - began)
        assert not writer.error
        time.sleep(0.01)
    assert slowest < 1.0
    report = process.report
    assert "exit code 1" in report.message
    wait_until(lambda: process.report.skipped > 0)
    assert report.errors == 0
    assert told(notes).count("hang") == 1, "it is not told again"


def test_slow_handlers_skip_until_they_have_caught_up(
    folder: RunFolder, writer: JournalWriter, notes: Path, processes: list[HandlerProcess]
) -> None:
    note = config("Note", parameters={"path": str(notes), "slow_s": "0.2"})
    process = start(processes, folder, note, handler_lag_s=0.4)
    write(writer, *begun())
    wait_until(lambda: process.report.at_ns > 0)
    at_start = process.report.skipped
    written = 0

    def late() -> bool:
        nonlocal written
        for _ in range(5):
            write(writer, trade(str(written)))
            written += 1
        return process.report.skipped > at_start

    wait_until(late)
    write(writer, Ended(now(), "stopped"))
    wait_until(lambda: process.report.done)
    report = process.report
    assert report.restarts == 0
    assert len(told(notes)) == report.handled > 0
    assert at_start + written == report.handled + report.skipped


@pytest.mark.parametrize("how", ["itself", "killed"])
def test_a_process_that_dies_is_started_again(
    folder: RunFolder, writer: JournalWriter, notes: Path, processes: list[HandlerProcess], how: str
) -> None:
    handlers = config("Note", parameters={"path": str(notes)}), config("Obey")
    process = start(processes, folder, *handlers)
    write(writer, *begun(), snap())
    wait_until(lambda: len(told(notes)) == 2)
    first = process.pid
    assert first is not None
    if how == "killed":
        os.kill(first, signal.SIGKILL)
    else:
        write(writer, trade("die"))

    def again() -> bool:
        write(writer, trade("t"))
        return told(notes)[-3:] != ["t"] and "t" in told(notes) and process.pid not in {None, first}

    wait_until(again)
    assert process.report.restarts == 1
    assert told(notes).count("BookSnapshot") == 2, "a new process begins with the books"
    assert told(notes).count("die") == (how == "itself")


def test_without_an_active_handler_there_is_no_process(folder: RunFolder) -> None:
    process = HandlerProcess(folder, {}, [config("Obey", is_active=False)], Settings())
    process.start()
    process.leave()
    assert process.pid is None
    assert process.report == HandlingReport()


def test_a_handler_that_cannot_be_used_is_left_out(
    folder: RunFolder, writer: JournalWriter, notes: Path, processes: list[HandlerProcess]
) -> None:
    write(writer, *begun(), trade("t1"), Ended(now(), "stopped"))
    bad = config("Note", parameters={"path": str(notes), "slow_s": "x"}, name="bad")
    process = start(processes, folder, bad, config("Note", parameters={"path": str(notes)}))
    wait_until(lambda: process.report.done)
    assert told(notes) == ["t1"]
    assert "handler 'bad': parameters.slow_s" in process.report.message


def test_a_file_that_cannot_be_used_costs_no_capture(folder: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "listeners.yaml"
    path.write_text("handlers:\n  - {name: a, use: price_alert}\n")
    process = HandlerProcess.of(folder, {}, Settings(listeners_path=path))
    process.start()
    assert "parameters.level is missing" in process.report.message
    assert process.pid is None


def test_the_webhook_is_neither_shown_nor_on_the_command_line(
    folder: RunFolder, writer: JournalWriter, processes: list[HandlerProcess]
) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("command lines are read from /proc")
    process = start(processes, folder, config("Obey"), alert_webhook_url="http://127.0.0.1:9/hook-4711")
    wait_until(lambda: process.pid is not None)
    assert "4711" not in repr(vars(process))
    proc = Path(f"/proc/{process.pid}")
    assert b"capture.handling" in (proc / "cmdline").read_bytes()
    assert b"4711" not in (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()


async def test_a_recorder_runs_the_handlers_of_the_listeners_file(
    tmp_path: Path, notes: Path, processes: list[HandlerProcess]
) -> None:
    path, lake = tmp_path / "listeners.yaml", Lake(str(tmp_path / "lake"))
    path.write_text(f"handlers: [{{name: n, use: '{SAMPLES}:Note', parameters: {{path: '{notes}'}}}}]")
    settings = Settings(capture_flush_s=0.05, listeners_path=path, handler_lag_s=600)
    async with fake_exchange() as exchange:
        venue = FakeVenue(exchange.url)
        recorder = Recorder(settings, lake, Clock(), "run", {"fake": markets("M")}, venues={"fake": venue})
        stop = asyncio.Event()
        running = asyncio.create_task(recorder.run(stop))
        ws = await exchange.subscribed()
        assert isinstance(recorder.journal, RunJournal)
        process = recorder.journal._handlers
        processes.append(process)
        await ws.send(snap().frame)
        await asyncio.to_thread(wait_until, lambda: told(notes)[:2] == ["BookSnapshot", "Quote"])
        await ws.send(trade("t1").frame)
        await asyncio.to_thread(wait_until, lambda: "t1" in told(notes))
        stop.set()
        summary = await running
    await asyncio.to_thread(wait_until, lambda: process.report.done)
    assert summary.stop_reason == "stopped"
    assert len(every(lake, "trades")) == 1
    assert (process.report.errors, process.report.restarts, process.report.skipped) == (0, 0, 0)
