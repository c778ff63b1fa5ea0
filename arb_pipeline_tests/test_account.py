"""The own account from the venue to the lake: private channels over real sockets, account calls, and the command."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from typer.testing import CliRunner

from arb_pipeline import pipeline
from arb_pipeline.capture.rows import ConnectionRows, GapLedger, RowWriter
from arb_pipeline.cli import app
from arb_pipeline.clock import wall_ms
from arb_pipeline.errors import ArbError
from arb_pipeline.exchange import Exchange, start
from arb_pipeline.exchange.signing import ThrowAwayKey
from arb_pipeline.model import AccountEvent, Anomaly, AnomalyKind, Output, Reconnect, Send
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake
from arb_pipeline.tables import table
from arb_pipeline.venues import venue as registered
from arb_pipeline.venues.base import Session
from arb_pipeline_tests.exchange.conftest import Scripted

A = "KXFEDDECISION-26DEC-C25"


@pytest.fixture(scope="module")
def key() -> ThrowAwayKey:
    return ThrowAwayKey()


@pytest.fixture
async def exchange(key: ThrowAwayKey) -> AsyncIterator[Exchange]:
    """An exchange in which nothing moves but the account."""
    async with await start(Scripted(), key=key) as running:
        yield running


def settings_of(exchange: Exchange, **changes: Any) -> Settings:
    given = {name.removeprefix("ARB_").lower(): value for name, value in exchange.environment().items()}
    return Settings(**{**given, "http_requests_per_s": 1000, **changes})


class Client:
    """The smallest owner of a session: sends what it asks for, keeps what it says."""

    def __init__(self, session: Session, ws: websockets.ClientConnection, settings: Settings) -> None:
        self.session = session
        self.outputs: list[Output] = []
        self._ws = ws
        self._clock = settings.clock

    async def take(self, outputs: Sequence[Output]) -> None:
        self.outputs += outputs
        for output in outputs:
            if isinstance(output, Send):
                await self._ws.send(output.frame)

    async def until(self, wanted: Callable[[str], bool]) -> None:
        async with asyncio.timeout(10):
            while True:
                frame = await self._ws.recv()
                assert isinstance(frame, str)
                await self.take(self.session.receive(frame, self._clock.now_ns()))
                if wanted(frame):
                    return

    @property
    def events(self) -> list[AccountEvent]:
        return [output for output in self.outputs if isinstance(output, AccountEvent)]


@asynccontextmanager
async def connected(name: str, settings: Settings) -> AsyncIterator[Client]:
    """A client of a venue's private channels."""
    asked = registered(name)
    session = asked.account_session("c1", settings, asked.credentials(settings))
    assert session is not None
    request = session.connect_request(wall_ms())
    async with websockets.connect(request.url, additional_headers=dict(request.headers)) as ws:
        client = Client(session, ws, settings)
        await client.take(session.connected(settings.clock.now_ns()))
        yield client


async def control(exchange: Exchange, path: str, **given: Any) -> None:
    async with httpx.AsyncClient(base_url=exchange.announcement()["control_url"]) as http:
        answer = await http.post(path, json=given)
        assert answer.status_code == 200, answer.text


async def inject(exchange: Exchange, **given: Any) -> None:
    await control(exchange, "/account", **given)


def write(lake: Lake, venue: str, outputs: Sequence[Output]) -> None:
    rows = RowWriter("run", 1)
    ConnectionRows(rows, venue, "c1", 1).write(outputs, GapLedger())
    for (name, partition), made in rows.drain().tables().items():
        assert made.schema.equals(table(name).schema)
        lake.write_part(name, partition, made, "run")


async def test_kalshis_private_channels_become_rows_and_rest_adds_no_fill_twice(
    exchange: Exchange, tmp_path: Path
) -> None:
    settings = settings_of(exchange, account=True)
    lake = Lake(str(tmp_path / "lake"), exchange.name)
    async with connected("kalshi", settings) as client:
        await client.until(lambda frame: '"channel":"communications"' in frame)
        await inject(exchange, type="fill", market_ticker=A, outcome_side="no", count_fp="5.00")
        await inject(exchange, type="quote_accepted", market_ticker=A)
        await client.until(lambda frame: "quote_accepted" in frame)
        assert [event.kind for event in client.events] == ["order", "fill", "position", "quote"]
        assert client.session.tick(settings.clock.now_ns() + 10**12) == []
    write(lake, "kalshi", client.outputs)
    (account,) = await pipeline.account(settings, lake)
    assert account.fills[0].market_id == A
    (partition,) = lake.partitions("account_events")
    found = lake.compact("account_events", partition)
    assert (found.dropped, found.conflicts) == (1, 0)
    told = lake.read("account_events").to_pylist()
    fills = [row for row in told if row["kind"] == "fill"]
    assert sorted(row["source"] for row in fills) == ["rest", "ws"]
    (own,) = (row for row in fills if row["source"] == "ws")
    assert (own["venue"], own["market_id"], own["side"], own["connection_id"]) == ("kalshi", A, "ask", "c1")
    assert (own["price"], own["size"], own["fee"]) == (Decimal("0.5"), Decimal(5), Decimal("0.0875"))
    (balance,) = (row for row in told if row["kind"] == "balance")
    assert balance["amount"] == account.cash
    assert {row["kind"] for row in told} == {"order", "fill", "position", "quote", "balance"}


async def test_what_a_silent_socket_lost_shows_by_seq_and_is_had_over_rest(exchange: Exchange) -> None:
    settings = settings_of(exchange)
    kalshi = registered("kalshi")
    async with connected("kalshi", settings) as client:
        await client.until(lambda frame: '"channel":"communications"' in frame)
        before = settings.clock.now_ns()
        await control(exchange, "/fault", kind="silence", venue="kalshi")
        await inject(exchange, type="fill", market_ticker=A, count_fp="7.00")
        await inject(exchange, type="rfq_created", market_ticker=A)
        await control(exchange, "/fault/clear")
        await inject(exchange, type="rfq_deleted", market_ticker=A)
        await client.until(lambda frame: "rfq_deleted" in frame)
    assert [event.status for event in client.events] == ["rfq_deleted"]
    assert [output.kind for output in client.outputs if isinstance(output, Anomaly)] == [AnomalyKind.SEQ_GAP]
    assert isinstance(client.outputs[-1], Reconnect)
    async with kalshi.rest_client(settings, kalshi.credentials(settings)) as rest:
        account = await kalshi.account(rest, settings.clock.now_ns(), before)
    assert account is not None
    assert account.fills[0].size == Decimal(7)


async def test_rows_outside_the_window_are_left_to_another_run(tmp_path: Path) -> None:
    rows = RowWriter("run", 1)
    event = AccountEvent(venue="kalshi", kind="order_group", event_id="e", recv_ns=5)
    ConnectionRows(rows, "kalshi", "c1", 1).write([event], GapLedger(), keep=False)
    assert rows.drain().tables() == {}


async def test_polymarkets_user_channel_becomes_rows(exchange: Exchange, tmp_path: Path) -> None:
    settings = settings_of(exchange)
    lake = Lake(str(tmp_path / "lake"))
    async with connected("polymarket", settings) as client:
        # The channel acknowledges nothing: the answer to a ping shows that the subscription has been taken.
        await client.take(client.session.tick(settings.clock.now_ns() + 11 * 10**9))
        await client.until(lambda frame: frame == "PONG")
        await inject(exchange, venue="polymarket", type="order", side="SELL")
        await inject(exchange, venue="polymarket", type="trade", status="CONFIRMED")
        await client.until(lambda frame: '"trade"' in frame)
    write(lake, "polymarket", client.outputs)
    order, fill = lake.read("account_events").to_pylist()
    assert (order["kind"], order["status"], order["side"]) == ("order", "PLACEMENT", "ask")
    assert (fill["kind"], fill["status"], fill["price"], fill["size"]) == (
        "fill",
        "CONFIRMED",
        Decimal("0.57"),
        Decimal(10),
    )
    assert exchange.announcement()["polymarket"]["api_key"] not in json.dumps([order, fill], default=str)


async def test_only_when_asked_for_is_anything_kept(exchange: Exchange, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"), exchange.name)
    (account,) = await pipeline.account(settings_of(exchange), lake)
    assert [position.size for position in account.positions] == [Decimal(10)]
    assert lake.partitions("account_events") == []


async def test_a_wrong_key_is_the_venues_refusal(exchange: Exchange, tmp_path: Path) -> None:
    settings = settings_of(exchange, kalshi_private_key=ThrowAwayKey().pem)
    with pytest.raises(ArbError, match="portfolio/balance answered 401"):
        await pipeline.account(settings, Lake(str(tmp_path / "lake")))


async def test_the_command_prints_the_account(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in exchange.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ARB_LAKE", str(tmp_path / "lake"))
    run = CliRunner().invoke
    told = await asyncio.to_thread(run, app, ["account", "--json"])
    assert told.exit_code == 0, told.output
    kalshi = json.loads(told.stdout)["kalshi"]
    # 2,500 less 10 contracts at 0.42 and their fee.
    assert (kalshi["cash"], kalshi["portfolio_value"]) == ("2495.6294000000", "4.20")
    assert [(fill["side"], fill["price"], fill["fee"]) for fill in kalshi["fills"]] == [
        ("bid", "0.420000000", "0.1705200000")
    ]
    shown = await asyncio.to_thread(run, app, ["account", "--venue", "kalshi"])
    assert shown.exit_code == 0, shown.output
    assert "2,495.6294" in shown.stdout
    assert kalshi["positions"][0]["market_id"] in shown.stdout


@pytest.mark.parametrize("venues", [(), ("polymarket",)])
async def test_without_credentials_the_error_names_the_setting(venues: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(ArbError, match="KALSHI_API_KEY_ID"):
        await pipeline.account(Settings(), Lake(str(tmp_path / "lake")), venues)
