import asyncio
import json
import os
import signal
import sys
import time

import httpx
import pytest

from arb_pipeline.exchange import Exchange, start
from arb_pipeline.exchange.signing import ThrowAwayKey
from arb_pipeline.exchange.source import LevelChange
from arb_pipeline.settings import Settings
from arb_pipeline_tests.exchange.client import kalshi_socket, polymarket_socket
from arb_pipeline_tests.exchange.conftest import Scripted

A = "KXFEDDECISION-26DEC-C25"
M = 1_000_000


async def test_the_environment_points_the_settings_at_the_exchange(
    still: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert still.name == "local exchange: generated seed 7"
    environment = still.environment()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    told = still.announcement()
    assert settings.kalshi_rest_url == told["kalshi"]["rest_url"] == f"http://127.0.0.1:{still.port}/trade-api/v2"
    assert settings.kalshi_ws_url == told["kalshi"]["ws_url"]
    assert settings.polymarket_gamma_url == told["polymarket"]["gamma_url"]
    assert settings.polymarket_clob_url == told["polymarket"]["clob_url"]
    assert settings.polymarket_ws_url == told["polymarket"]["ws_url"]
    assert settings.kalshi_private_key is not None
    assert settings.kalshi_private_key.get_secret_value() == told["kalshi"]["private_key"]
    assert settings.exchange_name == still.name
    assert "ARB_CLOCK_OFFSET" not in environment
    assert told["env"] == environment


async def test_playback_waits_for_the_first_subscription(
    scripted: Scripted, still: Exchange, http: httpx.AsyncClient
) -> None:
    scripted.script += [(0, LevelChange(A, "bid", 100, 5 * M))]
    await http.get("/trade-api/v2/events")
    status = (await http.get("/_exchange/status")).json()
    assert (status["started"], status["played"], status["connections"]) == (False, 0, [])
    polymarket = await polymarket_socket(still)
    await polymarket.send({"assets_ids": [next(iter(still.polymarket.tokens))], "type": "market"})
    await polymarket.message()
    await still.player.finished.wait()
    status = (await http.get("/_exchange/status")).json()
    assert (status["started"], status["played"], status["finished"]) == (True, 1, True)
    assert status["connections"] == ["polymarket-1"]
    assert (status["queued"], status["subscribed"]) == (0, {"kalshi": 0, "polymarket": 1})


async def test_speed_paces_the_timeline(scripted: Scripted) -> None:
    scripted.script += [(400, LevelChange(A, "bid", 100, 5 * M))]
    for speed, low, high in ((1.0, 0.39, 5.0), (20.0, 0.019, 0.35)):
        async with await start(scripted, speed=speed) as exchange:
            begun = time.monotonic()
            exchange.player.started.set()
            await exchange.player.finished.wait()
            assert low <= time.monotonic() - begun < high


async def test_control_tells_books_and_what_was_sent(
    scripted: Scripted, still: Exchange, http: httpx.AsyncClient
) -> None:
    socket = await kalshi_socket(still)
    await socket.send({"id": 1, "cmd": "subscribe", "params": {"channels": ["orderbook_delta"], "market_tickers": [A]}})
    frames = [await socket.text(), await socket.text()]
    (sent,) = (await http.get("/_exchange/sent", params={"log": 1})).json()["connections"]
    assert sent["connection"] == "kalshi-1"
    assert sent["frames"] == {"subscribed": 1, "orderbook_snapshot": 1}
    assert [(entry["number"], entry["type"]) for entry in sent["log"]] == [(1, "subscribed"), (2, "orderbook_snapshot")]
    assert [entry["frame"] for entry in sent["log"]] == frames
    assert time.time_ns() - 5 * 10**9 < sent["log"][0]["sent_ns"] <= sent["log"][1]["sent_ns"] <= time.time_ns()
    await socket.ws.close()
    for _ in range(500):
        (record,) = (await http.get("/_exchange/sent", params={"log": 1})).json()["connections"]
        if not record["open"]:
            break
        await asyncio.sleep(0.01)
    assert not record["open"]
    assert (record["sent"], record["log"]) == (2, sent["log"])
    assert record["frames"] == sent["frames"]
    book = (await http.get("/_exchange/book", params={"market": A})).json()
    assert book["bids"] == sorted(book["bids"], reverse=True)
    assert (await http.get("/_exchange/book", params={"market": "KXNOTHING"})).status_code == 404


async def test_the_sent_log_is_bounded_numbered_and_read_in_parts(
    scripted: Scripted, signing_key: ThrowAwayKey
) -> None:
    scripted.script += [(number, LevelChange(A, "bid", 100, number * M)) for number in range(1, 21)]
    async with (
        await start(scripted, log_frames=10, ticker_s=60, key=signing_key) as exchange,
        httpx.AsyncClient(base_url=exchange.announcement()["control_url"]) as control,
    ):
        socket = await kalshi_socket(exchange)
        params = {"channels": ["orderbook_delta"], "market_tickers": [A]}
        await socket.send({"id": 1, "cmd": "subscribe", "params": params})
        await socket.messages(22)

        async def log(**query: str | int) -> list[tuple[int, str]]:
            (record,) = (await control.get("/sent", params={"log": 1, **query})).json()["connections"]
            assert record["sent"] == 22
            return [(entry["number"], entry["frame"]) for entry in record["log"]]

        frames = list(enumerate(socket.frames, 1))
        assert await log() == frames[12:]
        assert await log(connection="kalshi-1", after=14, limit=3) == frames[14:17]
        assert await log(after=22) == []
        assert (await control.get("/sent", params={"connection": "kalshi-2"})).json() == {"connections": []}
        assert (await control.get("/sent", params={"after": "x"})).status_code == 400


async def test_truth_is_told_with_wall_times_of_what_was_played(scripted: Scripted, still: Exchange) -> None:
    episode = scripted.truth()["episodes"]
    assert episode == []  # one second of playback holds none
    marked = LevelChange(A, "bid", 100, M, mark="episode-1:open")
    scripted.script += [(0, marked)]
    before = time.time_ns()
    still.player.started.set()
    await still.player.finished.wait()
    assert before <= still.player.marks["episode-1:open"] <= time.time_ns()
    truth = still.truth()
    assert truth["name"] == still.name
    assert len(truth["pairs"]) >= 40
    false_gaps = [phantom for phantom in truth["phantoms"] if "id" not in phantom]
    assert false_gaps
    assert all(before <= phantom["opened_wall_ns"] <= time.time_ns() for phantom in false_gaps)


async def test_a_taken_port_and_a_still_speed_are_refused(scripted: Scripted, still: Exchange) -> None:
    with pytest.raises(OSError, match="address already in use"):
        await start(scripted, port=still.port)
    with pytest.raises(ValueError, match="speed"):
        await start(scripted, speed=0)


async def test_stopping_says_goodbye_to_every_socket(scripted: Scripted) -> None:
    exchange = await start(scripted)
    kalshi, polymarket = await kalshi_socket(exchange), await polymarket_socket(exchange)
    await exchange.stop()
    for socket in (kalshi, polymarket):
        await asyncio.wait_for(socket.ws.wait_closed(), 5)
        assert socket.ws.close_code == 1001


async def test_it_runs_alone_prints_one_line_and_stops_on_sigterm() -> None:
    code = (
        "import asyncio; from arb_pipeline.exchange import GeneratedSource, run_forever; "
        "asyncio.run(run_forever(GeneratedSource(5, duration_s=1)))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    assert process.stdout is not None
    told = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
    assert told["name"] == "local exchange: generated seed 5"
    async with httpx.AsyncClient() as client:
        status = (await client.get(told["control_url"] + "/status")).json()
    assert status["name"] == told["name"]
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 10) == 0
    assert await process.stdout.read() == b""
