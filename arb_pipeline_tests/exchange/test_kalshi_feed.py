import json
from typing import Any

import httpx
import jsonschema
import pytest
import yaml

from arb_pipeline.exchange import Exchange, GeneratedSource, start
from arb_pipeline.exchange.source import LevelChange, Listed, TradePrint
from arb_pipeline_tests.conftest import shared_folder
from arb_pipeline_tests.exchange.client import KalshiFold, Message, Socket, kalshi_socket
from arb_pipeline_tests.exchange.conftest import TODAY, Scripted

A, B, C = "KXFEDDECISION-26DEC-C25", "KXFEDDECISION-26DEC-H0", "KXFEDDECISION-26DEC-H25"
M = 1_000_000


def subscribe(number: int, channels: list[str], tickers: list[str], **more: Any) -> Message:
    return {"id": number, "cmd": "subscribe", "params": {"channels": channels, "market_tickers": tickers, **more}}


def update(number: int, action: str, tickers: list[str], sid: int = 1) -> Message:
    return {
        "id": number,
        "cmd": "update_subscription",
        "params": {"sids": [sid], "action": action, "market_tickers": tickers},
    }


async def test_acks_come_first_then_one_snapshot_per_market_numbered_from_one(still: Exchange) -> None:
    socket = await kalshi_socket(still)
    await socket.send(subscribe(1, ["orderbook_delta", "trade"], [A, B]))
    book, first, second, trade = await socket.messages(4)
    assert (book["type"], book["id"], book["msg"]) == ("subscribed", 1, {"channel": "orderbook_delta", "sid": 1})
    assert (trade["type"], trade["id"], trade["msg"]) == ("subscribed", 1, {"channel": "trade", "sid": 2})
    assert "seq" not in book
    assert [(m["type"], m["sid"], m["seq"]) for m in (first, second)] == [
        ("orderbook_snapshot", 1, 1),
        ("orderbook_snapshot", 1, 2),
    ]
    assert {first["msg"]["market_ticker"], second["msg"]["market_ticker"]} == {A, B}
    prices = [price for price, _ in first["msg"]["yes_dollars_fp"]]
    assert prices == sorted(prices)


async def test_control_frames_use_seq_and_snapshots_on_demand_carry_the_command_id(still: Exchange) -> None:
    socket = await kalshi_socket(still)
    await socket.send(subscribe(1, ["orderbook_delta"], [A]))
    await socket.messages(2)
    await socket.send(update(2, "add_markets", [B]))
    ok, snapshot = await socket.messages(2)
    assert (ok["id"], ok["sid"], ok["seq"], ok["type"], ok["msg"]) == (2, 1, 2, "ok", {"market_tickers": [A, B]})
    assert (snapshot["seq"], snapshot["msg"]["market_ticker"], "id" in snapshot) == (3, B, False)
    await socket.send(update(3, "get_snapshot", [B, A]))
    again = await socket.messages(2)
    assert [(m["id"], m["seq"], m["msg"]["market_ticker"]) for m in again] == [(3, 4, B), (3, 5, A)]
    await socket.send(update(4, "delete_markets", [A]))
    assert (await socket.message())["msg"] == {"market_tickers": [B]}
    await socket.send(update(5, "dance", [A]))
    error = await socket.message()
    assert (error["type"], error["sid"], error["seq"], error["msg"]["code"]) == ("error", 1, 7, 13)
    await socket.send({"id": 6, "cmd": "list_subscriptions"})
    assert (await socket.message())["msg"] == [{"channel": "orderbook_delta", "sid": 1}]
    await socket.send({"id": 7, "cmd": "unsubscribe", "params": {"sids": [1]}})
    gone = await socket.message()
    assert (gone["id"], gone["type"], gone["sid"], gone["seq"]) == (7, "unsubscribed", 1, 8)
    await socket.send(subscribe(8, ["orderbook_delta"], [A]))
    ack, snapshot = await socket.messages(2)
    assert (ack["msg"]["sid"], snapshot["sid"], snapshot["seq"]) == (2, 2, 1)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"id": 1, "cmd": "subscribe"}, 2),
        ({"id": 1, "cmd": "subscribe", "params": {"market_tickers": [A]}}, 3),
        ({"id": 1, "cmd": "subscribe", "params": {"channels": ["ticker_v2"]}}, 8),
        ({"id": 1, "cmd": "subscribe", "params": {"channels": ["orderbook_delta"]}}, 14),
        (subscribe(1, ["ticker"], [A], market_ticker=A), 11),
        (subscribe(1, ["ticker"], A), 11),  # type: ignore[arg-type]
        ({"id": 1, "cmd": "unsubscribe", "params": {}}, 4),
        ({"id": 1, "cmd": "unsubscribe", "params": {"sids": [9]}}, 7),
        ({"id": 1, "cmd": "shout", "params": {}}, 5),
        (update(1, "add_markets", [A], sid=9), 7),
        ({"id": 1, "cmd": "update_subscription", "params": {"sids": [1, 2], "action": "add_markets"}}, 12),
    ],
)
async def test_errors_by_code(still: Exchange, command: Message, code: int) -> None:
    socket = await kalshi_socket(still)
    await socket.send(command)
    error = await socket.message()
    assert (error["id"], error["type"], error["msg"]["code"]) == (1, "error", code)


async def test_errors_of_a_subscription(still: Exchange) -> None:
    socket = await kalshi_socket(still)
    await socket.send(subscribe(1, ["orderbook_delta"], [A]))
    await socket.messages(2)
    for command, code in (
        ({"id": 2, "cmd": "update_subscription", "params": {"sid": 1, "market_tickers": [A]}}, 15),
        (update(2, "get_snapshot", []), 14),
        (update(2, "get_snapshot", ["KXNOTHING-1"]), 11),
    ):
        await socket.send(command)
        error = await socket.message()
        assert (error["sid"], error["msg"]["code"]) == (1, code)
    await socket.ws.send("{broken")
    assert (await socket.message())["msg"]["code"] == 1


async def test_an_unknown_ticker_gets_no_snapshot_and_harms_nobody(still: Exchange) -> None:
    socket = await kalshi_socket(still)
    await socket.send(subscribe(1, ["orderbook_delta"], ["KXNOTHING-1", A]))
    await socket.send({"id": 2, "cmd": "list_subscriptions"})
    got = await socket.until(lambda message: message.get("id") == 2)
    assert [message["type"] for message in got] == ["subscribed", "orderbook_snapshot", "ok"]
    assert got[1]["msg"]["market_ticker"] == A


async def test_subscribing_again_adds_to_the_same_sid(still: Exchange) -> None:
    socket = await kalshi_socket(still)
    await socket.send(subscribe(1, ["orderbook_delta"], [A]))
    await socket.messages(2)
    await socket.send(subscribe(2, ["orderbook_delta"], [A, B]))
    ack, snapshot = await socket.messages(2)
    assert (ack["id"], ack["msg"]["sid"]) == (2, 1)
    assert (snapshot["seq"], snapshot["msg"]["market_ticker"]) == (2, B)


async def test_each_connection_counts_its_own_sids_and_seq(scripted: Scripted, still: Exchange) -> None:
    scripted.script += [(50, LevelChange(A, "bid", 100, M)), (60, LevelChange(B, "bid", 100, M))]
    one, two = await kalshi_socket(still), await kalshi_socket(still)
    await two.send(subscribe(1, ["trade"], []))
    await two.send(subscribe(2, ["orderbook_delta"], [B]))
    await one.send(subscribe(1, ["orderbook_delta"], [A, B]))
    first = (await one.until(lambda message: message["type"] == "orderbook_delta"))[-1]
    second = (await two.until(lambda message: message["type"] == "orderbook_delta"))[-1]
    assert (first["sid"], first["seq"], first["msg"]["market_ticker"]) == (1, 3, A)
    assert (second["sid"], second["seq"], second["msg"]["market_ticker"]) == (2, 2, B)


async def test_a_trade_follows_its_delta_with_its_own_sid(scripted: Scripted, still: Exchange) -> None:
    book = scripted.books()[A]
    (price, size), taken = min(book.asks), 2_500_000
    scripted.script += [(40, LevelChange(A, "ask", price, size - taken)), (40, TradePrint(A, price, taken, "yes"))]
    socket = await kalshi_socket(still)
    await socket.send(subscribe(1, ["orderbook_delta", "trade"], [A]))
    delta, trade = (await socket.until(lambda message: message["type"] == "trade"))[-2:]
    assert delta["msg"]["side"] == "no"
    assert delta["msg"]["delta_fp"] == "-2.50"
    assert delta["msg"]["price_dollars"] == f"{1 - price / 10_000:.4f}"
    assert trade["msg"]["yes_price_dollars"] == f"{price / 10_000:.4f}"
    assert (trade["msg"]["count_fp"], trade["msg"]["taker_outcome_side"]) == ("2.50", "yes")
    assert (trade["sid"], trade["seq"]) == (2, 1)


async def test_use_yes_price_puts_no_levels_on_the_yes_scale(scripted: Scripted, still: Exchange) -> None:
    scripted.script += [(60, LevelChange(A, "ask", 9_900, 7 * M))]
    plain, turned = await kalshi_socket(still), await kalshi_socket(still)
    await plain.send(subscribe(1, ["orderbook_delta"], [A], use_yes_price=False))
    await turned.send(subscribe(1, ["orderbook_delta"], [A], use_yes_price=True))
    folds = KalshiFold(), KalshiFold(yes_scale=True)
    prices = []
    for socket, fold in zip((plain, turned), folds, strict=True):
        got = await socket.until(lambda message: message["type"] == "orderbook_delta")
        for message in got:
            fold.take(message)
        prices.append(got[-1]["msg"]["price_dollars"])
    assert folds[0].books == folds[1].books
    assert prices == ["0.0100", "0.9900"]


async def test_an_empty_side_has_no_key(scripted: Scripted, still: Exchange) -> None:
    scripted.script += [(0, LevelChange(A, "bid", price, 0)) for price, _ in scripted.books()[A].bids]
    socket = await kalshi_socket(still)
    await socket.send(subscribe(1, ["orderbook_delta"], [A]))
    gone = len(scripted.script)
    await socket.messages(2 + gone)
    await socket.send(update(2, "get_snapshot", [A]))
    snapshot = await socket.message()
    assert "yes_dollars_fp" not in snapshot["msg"]
    assert snapshot["msg"]["no_dollars_fp"]
    assert snapshot["msg"]["clock"] == gone


async def test_tickers_are_conflated_and_an_initial_one_comes_when_asked_for(
    scripted: Scripted, still: Exchange
) -> None:
    scripted.script += [(10 + number, LevelChange(A, "bid", 100, number * M)) for number in range(1, 30)]
    socket = await kalshi_socket(still)
    await socket.send(subscribe(1, ["ticker"], [A], send_initial_snapshot=True))
    ack, first, second = await socket.messages(3)
    assert [ack["type"], first["type"], second["type"]] == ["subscribed", "ticker", "ticker"]
    assert "seq" not in first
    assert first["msg"]["market_ticker"] == A
    await still.player.finished.wait()
    assert still.kalshi.markets[A].book.bids[100] == 29 * M


async def test_a_new_market_is_announced_and_hidden_until_then(
    scripted: Scripted, still: Exchange, http: httpx.AsyncClient
) -> None:
    ticker = next(market for market in scripted.hidden if market.startswith("KX"))
    assert (await http.get(f"/trade-api/v2/markets/{ticker}")).status_code == 404
    scripted.script += [(20, Listed(ticker))]
    socket = await kalshi_socket(still)
    await socket.send({"id": 1, "cmd": "subscribe", "params": {"channels": ["market_lifecycle_v2"]}})
    await socket.send(subscribe(2, ["orderbook_delta"], [A]))
    created = (await socket.until(lambda message: message["type"] == "market_lifecycle_v2"))[-1]
    assert (created["msg"]["market_ticker"], created["msg"]["event_type"]) == (ticker, "created")
    assert (await http.get(f"/trade-api/v2/markets/{ticker}")).status_code == 200


async def test_the_server_pings_with_heartbeat(monkeypatch: pytest.MonkeyPatch, scripted: Scripted) -> None:
    monkeypatch.setattr("arb_pipeline.exchange.server.HEARTBEAT_S", 0.02)
    async with await start(scripted) as exchange:
        socket = await kalshi_socket(exchange)
        seen: list[bytes] = []
        protocol = socket.ws.protocol
        original = protocol.recv_frame

        def recv_frame(frame: Any) -> None:
            seen.append(bytes(frame.data))
            original(frame)

        monkeypatch.setattr(protocol, "recv_frame", recv_frame)
        while b"heartbeat" not in seen:
            await socket.send({"id": 1, "cmd": "list_subscriptions"})
            await socket.message()


@pytest.fixture(scope="module")
def schemas() -> dict[str, jsonschema.Draft7Validator]:
    """Validators by message type from the published AsyncAPI, bare ``yes``/``no`` kept as words."""
    text = (shared_folder("ARB_SPECS") / "kalshi" / "asyncapi.yaml").read_text()

    class Words(yaml.SafeLoader):
        pass

    Words.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Words.add_implicit_resolver("tag:yaml.org,2002:bool", __import__("re").compile("^(true|false)$"), list("tf"))
    components = yaml.load(text, Words)["components"]
    names = {
        "subscribed": "subscribedResponsePayload",
        "unsubscribed": "unsubscribedResponsePayload",
        "error": "errorResponsePayload",
        "orderbook_snapshot": "orderbookSnapshotPayload",
        "orderbook_delta": "orderbookDeltaPayload",
        "ticker": "tickerPayload",
        "trade": "tradePayload",
        "market_lifecycle_v2": "marketLifecycleV2Payload",
        "ok": "okResponsePayload",
        "list": "listSubscriptionsResponsePayload",
    }
    return {
        kind: jsonschema.Draft7Validator(
            {"$ref": f"#/components/schemas/{name}", "components": components},
            format_checker=jsonschema.FormatChecker(),
        )
        for kind, name in names.items()
    }


def violations(schemas: dict[str, jsonschema.Draft7Validator], message: Message) -> list[str]:
    kind = "list" if message["type"] == "ok" and isinstance(message.get("msg"), list) else message["type"]
    return [f"{kind}: {error.message}" for error in schemas[kind].iter_errors(message)]


def test_the_schemas_can_refuse(schemas: dict[str, jsonschema.Draft7Validator]) -> None:
    delta = {"type": "orderbook_delta", "sid": 1, "seq": 1, "msg": {"market_ticker": "A", "side": "maybe"}}
    assert len(violations(schemas, delta)) >= 4


async def test_every_frame_is_valid_by_the_published_asyncapi_and_folds_to_the_book(
    schemas: dict[str, jsonschema.Draft7Validator],
) -> None:
    source = GeneratedSource(7, duration_s=30, today=TODAY)
    async with (
        await start(source, speed=float("inf"), ticker_s=0.05) as exchange,
        httpx.AsyncClient(base_url=exchange.announcement()["control_url"]) as control,
    ):
        socket = await kalshi_socket(exchange)
        tickers = list(exchange.kalshi.markets)
        await socket.send({"id": 1, "cmd": "subscribe", "params": {"channels": ["market_lifecycle_v2"]}})
        await socket.send(subscribe(2, ["orderbook_delta", "trade", "ticker"], tickers, send_initial_snapshot=True))
        await exchange.player.finished.wait()
        await socket.send(update(3, "get_snapshot", [A], sid=2))
        await socket.send(update(4, "dance", [A], sid=2))
        await socket.send(update(5, "delete_markets", [B], sid=2))
        await socket.send({"id": 6, "cmd": "unsubscribe", "params": {"sids": [3]}})
        await socket.send({"id": 7, "cmd": "list_subscriptions"})
        got = await socket.until(lambda message: message.get("id") == 7)
        fold = KalshiFold()
        bad: list[str] = []
        for message in got:
            bad += violations(schemas, message)
            fold.take(message)
        assert bad == []
        assert fold.gaps == 0
        assert {"orderbook_delta", "trade", "ticker", "market_lifecycle_v2", "error", "unsubscribed"} <= set(fold.kinds)
        assert all("sending_ts_ms" in message for message in got)
        for ticker in fold.books:
            book = (await control.get("/book", params={"market": ticker})).json()
            assert fold.books[ticker] == (dict(book["bids"]), dict(book["asks"])), ticker


async def test_a_late_subscriber_gets_the_book_as_of_now(scripted: Scripted, still: Exchange) -> None:
    scripted.script += [(0, LevelChange(A, "bid", 100, 123 * M)), (1, LevelChange(A, "ask", 9_900, 0))]
    early = await kalshi_socket(still)
    await early.send(subscribe(1, ["orderbook_delta"], [A]))
    await still.player.finished.wait()
    late = await kalshi_socket(still)
    await late.send(subscribe(1, ["orderbook_delta"], [A]))
    _, snapshot = await late.messages(2)
    assert ["0.0100", "123.00"] in snapshot["msg"]["yes_dollars_fp"]
    await _same_books(early, snapshot)


async def _same_books(early: Socket, snapshot: Message) -> None:
    await early.send({"id": 9, "cmd": "list_subscriptions"})
    fold, fresh = KalshiFold(), KalshiFold()
    for message in await early.until(lambda message: message.get("id") == 9):
        fold.take(message)
    fresh.take(snapshot)
    assert fold.books == fresh.books


async def test_without_sending_ts_frames_are_of_the_older_form(scripted: Scripted) -> None:
    async with await start(scripted, sending_ts=False) as exchange:
        socket = await kalshi_socket(exchange)
        await socket.send(subscribe(1, ["orderbook_delta"], [A]))
        assert all("sending_ts_ms" not in message for message in await socket.messages(2))
        assert json.loads(socket.frames[0])["msg"]["sid"] == 1
