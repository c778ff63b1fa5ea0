"""The live board of best net spreads, against the local exchange."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner

from arb_pipeline import pipeline
from arb_pipeline.arbitrage.ladders import execute
from arb_pipeline.arbitrage.pairs import Pair
from arb_pipeline.board import Board, BoardRow, Source, pairs_to_watch
from arb_pipeline.cli import app
from arb_pipeline.errors import ArbError
from arb_pipeline.exchange import Exchange, start
from arb_pipeline.exchange.signing import ThrowAwayKey
from arb_pipeline.exchange.source import LevelChange
from arb_pipeline.matching.versions import record_matches
from arb_pipeline.model import MatchStatus, Relation
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake
from arb_pipeline.watch import find, parse_names
from arb_pipeline_tests.arbitrage.builders import pair as made_pair
from arb_pipeline_tests.exchange.conftest import Scripted
from arb_pipeline_tests.matching.test_versions import statement

MILLION = 1_000_000
D = Decimal


@pytest.fixture(scope="module")
def key() -> ThrowAwayKey:
    return ThrowAwayKey()


@pytest.fixture
async def exchange(key: ThrowAwayKey) -> AsyncIterator[Exchange]:
    """An exchange in which nothing moves."""
    async with await start(Scripted(), key=key) as running:
        yield running


def settings_for(exchange: Exchange, **changes: Any) -> Settings:
    given = {name.removeprefix("ARB_").lower(): value for name, value in exchange.environment().items()}
    return Settings(**{**given, "http_requests_per_s": 1000, **changes})


async def pairs_of(exchange: Exchange, settings: Settings, count: int) -> list[Pair]:
    told = [pair for pair in exchange.truth()["pairs"] if pair["relation"] == "equivalent"][:count]
    pairs = []
    for one in told:
        words = ["kalshi", one["kalshi_market_id"], "poly", one["polymarket_market_id"]]
        kalshi, polymarket = await find(settings, parse_names(words))
        pairs.append(Pair(kalshi, polymarket, Relation.EQUIVALENT, MatchStatus.APPROVED))
    return pairs


def put(exchange: Exchange, pair: Pair, kalshi: tuple[int, int], polymarket: tuple[int, int], size: int = 40) -> None:
    """Books of one level a side."""
    for venue, market_id, (bid, ask) in (
        (exchange.kalshi, pair.key[0], kalshi),
        (exchange.polymarket, pair.key[1], polymarket),
    ):
        venue.markets[market_id].book.replace([(bid, size * MILLION)], [(ask, size * MILLION)])


async def test_the_best_net_comes_first_with_exact_fees(exchange: Exchange) -> None:
    settings = settings_for(exchange)
    losing, paying, eaten = await pairs_of(exchange, settings, 3)
    put(exchange, losing, (4_000, 4_200), (4_000, 4_200))
    put(exchange, paying, (5_500, 6_000), (2_000, 3_000))
    put(exchange, eaten, (4_000, 4_900), (5_000, 6_000))
    source = Source(settings, [losing, paying, eaten], pipeline.fee_source(settings, Lake(settings.lake), []))
    boards: list[Board] = []

    def show() -> bool:
        boards.append(source.board())
        return boards[-1].complete and len(boards) > 2

    async with asyncio.timeout(40):
        await source.watching.run(show, asyncio.Event(), 0.02)
    assert not boards[0].complete
    assert {row.reason for row in boards[0].rows} == {"no book of kalshi yet, no book of polymarket yet"}
    best, middle, worst = boards[-1].rows
    assert [row.pair.key for row in (best, middle, worst)] == [paying.key, eaten.key, losing.key]
    assert (best.direction, best.gap, best.top_size, best.reason) == ("yes_polymarket", D("0.25"), D(40), "")
    assert best.net is not None
    assert best.fees is not None
    assert best.net == D("0.25") - best.fees > D("0.2")
    assert best.at_notional is not None
    assert best.at_notional.capital <= 100
    assert best.at_notional.size == 40, "there is no more"
    assert (middle.direction, middle.gap) == ("yes_kalshi", D("0.01"))
    assert middle.net is not None
    assert middle.net < 0, "fees eat it"
    assert worst.gap == D("-0.02")
    document = json.loads(json.dumps(boards[-1].document()))
    assert document["exchange"] == exchange.name
    first = document["pairs"][0]
    assert D(first["gap"]) - D(first["fees"]) == D(first["net"]) == best.net
    assert (first["trusted"], first["reason"]) == (True, "")
    assert all(0 <= age < 60 for age in first["ages_s"].values())


async def test_a_change_is_seen_and_an_unchanged_pair_is_priced_once(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(exchange)
    [pair] = await pairs_of(exchange, settings, 1)
    put(exchange, pair, (4_000, 4_200), (4_000, 4_200))
    source = Source(settings, [pair], pipeline.fee_source(settings, Lake(settings.lake), []))
    priced = []

    def counted(*arguments: Any, **options: Any) -> Any:
        priced.append(arguments)
        return execute(*arguments, **options)

    monkeypatch.setattr("arb_pipeline.board.execute", counted)
    looks, changed_at = 0, 0

    def show() -> bool:
        nonlocal looks, changed_at
        [row] = source.board().rows
        looks += 1
        if row.gap is not None and not changed_at:
            changed_at = looks
        if changed_at and looks == changed_at + 5:
            assert len(priced) == 2, "each direction once"
            exchange.kalshi.change_level(LevelChange(pair.key[0], "ask", 4_100, 5 * MILLION))
        return row.gap == D("-0.01")

    async with asyncio.timeout(40):
        await source.watching.run(show, asyncio.Event(), 0.02)


def board_of(*rows: BoardRow) -> Board:
    return Board(datetime(2026, 7, 1, tzinfo=UTC), "", tuple(sorted(rows, key=lambda row: row.order)))


def test_what_is_not_to_be_trusted_comes_last_and_the_screen_is_bounded() -> None:
    plain = BoardRow(made_pair(), (1.0, 2.0), "yes_kalshi", D("0.01"), D("-0.01"), D(5))
    rich = replace(plain, gap=D("0.30"), net=D("0.29"), reason="kalshi not in sync")
    empty = BoardRow(made_pair(), (None, None), reason="no book of kalshi yet")
    board = board_of(empty, rich, plain)
    assert [row.reason for row in board.rows] == ["", "kalshi not in sync", "no book of kalshi yet"]
    assert not board.complete
    console = Console(width=200, file=io.StringIO())
    with console.capture() as captured:
        console.print(board.render(2))
    shown = captured.get()
    assert "3 pairs, 1 to be trusted" in shown
    assert "kalshi not in sync" in shown
    assert "no book" not in shown
    assert "1 more pairs" in shown


@pytest.mark.parametrize(("inverted", "words"), [(False, "NO / YES"), (True, "NO / NO")])
def test_what_is_bought_is_named_as_each_venue_names_it(inverted: bool, words: str) -> None:
    row = BoardRow(made_pair(inverted=inverted), (1.0, 2.0), "yes_polymarket", D("0.01"), D("-0.01"), D(5))
    console = Console(width=200, file=io.StringIO())
    with console.capture() as captured:
        console.print(board_of(row).render(2))
    assert words in captured.get()
    assert row.document()["bought"] == words.split(" / ")


# --- which pairs -------------------------------------------------------------------------------------------


def test_pairs_are_those_of_the_lake_or_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    held = [made_pair(status=MatchStatus.APPROVED), made_pair(inverted=True, status=MatchStatus.REVIEW)]
    monkeypatch.setattr(pipeline, "load_pairs", lambda _lake: held)
    settings, lake = Settings(), Lake(str(tmp_path / "lake"))
    assert pairs_to_watch(settings, lake) == held[:1]
    assert [pair.status for pair in pairs_to_watch(settings, lake, ["KXTEST*=0x*"])] == [MatchStatus.REVIEW]
    for wrong in ("KXTEST", "=0xabc", "KXTEST="):
        with pytest.raises(ArbError, match="KALSHI=POLYMARKET"):
            pairs_to_watch(settings, lake, [wrong])
    held.clear()
    with pytest.raises(ArbError, match="holds no accepted pair"):
        pairs_to_watch(settings, lake)


def test_a_terminal_is_drawn_on_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    row = BoardRow(made_pair(), (1.0, 2.0), "yes_kalshi", D("0.30"), D("0.29"), D(5))
    shown: list[bool] = []

    def board(*arguments: Any) -> None:
        show = arguments[-1]
        shown.extend(show(board_of(one)) for one in (row, replace(row, net=D("0.28"))))

    screen = io.StringIO()
    monkeypatch.setattr("arb_pipeline.cli.out", Console(width=160, file=screen, force_terminal=True))
    monkeypatch.setattr("arb_pipeline.board.board", board)
    monkeypatch.setattr("arb_pipeline.board.pairs_to_watch", lambda *_: [])
    assert CliRunner().invoke(app, ["watch", "--spreads"]).exit_code == 0
    assert shown == [False, False], "it goes on"
    assert "0.2900" in screen.getvalue()
    assert "0.2800" in screen.getvalue()
    for words, told in ((["kalshi", "K", "--spreads"], "--spreads shows pairs"), (["--pair", "a=b"], "goes with")):
        refused = CliRunner().invoke(app, ["watch", *words])
        assert isinstance(refused.exception, ArbError)
        assert told in str(refused.exception)


# --- the command -------------------------------------------------------------------------------------------


@pytest.fixture
def outside() -> Iterator[dict[str, Any]]:
    """A local exchange as a process of its own; its announcement."""
    process = subprocess.Popen(
        [sys.executable, "-m", "arb_pipeline", "exchange"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@pytest.mark.slow
def test_command_shows_named_pairs_without_a_lake_and_accepted_ones_with_it(
    outside: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = httpx.get(outside["control_url"] + "/truth", timeout=30).json()
    told = [pair for pair in truth["pairs"] if pair["relation"] == "equivalent"][:2]
    names = [f"{one['kalshi_market_id']}={one['polymarket_market_id']}" for one in told]
    command = [sys.executable, "-m", "arb_pipeline", "watch", "--spreads"]
    environment = {**os.environ, **outside["env"], "ARB_LAKE": str(tmp_path / "lake")}
    options: dict[str, Any] = {"cwd": tmp_path, "env": environment, "text": True}
    named = [*command, *(word for name in names for word in ("--pair", name))]

    streaming = subprocess.Popen([*named, "--json"], stdout=subprocess.PIPE, start_new_session=True, **options)
    try:
        assert streaming.stdout is not None
        while True:
            document = json.loads(streaming.stdout.readline())
            if all(row["trusted"] for row in document["pairs"]):
                break
        streaming.send_signal(signal.SIGINT)
        streaming.communicate(timeout=20)
        assert streaming.returncode == 0
    finally:
        if streaming.poll() is None:
            streaming.kill()
    assert {f"{row['kalshi_market_id']}={row['polymarket_market_id']}" for row in document["pairs"]} == set(names)
    nets = [D(row["net"]) for row in document["pairs"]]
    assert nets == sorted(nets, reverse=True)
    assert not (tmp_path / "lake").exists(), "a watch leaves nothing behind"

    for name, value in outside["env"].items():
        monkeypatch.setenv(name, value)
    settings = Settings(lake=str(tmp_path / "lake"), http_requests_per_s=1000)
    lake = Lake(settings.lake, settings.exchange_name)
    for venue in ("kalshi", "polymarket"):
        asyncio.run(pipeline.discover(venue, settings, lake))
    at = datetime(2026, 1, 1, tzinfo=UTC)
    ids = told[0]["kalshi_market_id"], told[0]["polymarket_market_id"]
    record_matches(lake, [statement(*ids, status="auto", valid_from=at, known_at=at)], at)
    monkeypatch.setenv("ARB_LAKE", settings.lake)
    done = CliRunner().invoke(app, ["watch", "--spreads", "--once"])
    assert done.exit_code == 0
    assert "1 pairs, 1 to be trusted" in done.output
    assert "not real market data" in done.output
