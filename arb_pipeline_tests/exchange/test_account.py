"""The own account on the local exchange: private channels and account calls, valid by the published specifications."""

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import jsonschema
import pytest
import websockets
import yaml

from arb_pipeline.exchange import Exchange
from arb_pipeline.exchange.kalshi_account import ACCOUNT_CHANNEL_OF_TYPE
from arb_pipeline_tests.conftest import shared_folder
from arb_pipeline_tests.exchange.client import Message, Socket, kalshi_headers, kalshi_socket
from arb_pipeline_tests.exchange.test_kalshi_rest import REST

A, B = "KXFEDDECISION-26DEC-C25", "KXFEDDECISION-26DEC-H0"
CHANNELS = ["fill", "user_orders", "market_positions", "order_group_updates", "communications"]
Validate = Callable[[str, object], list[str]]


def components(name: str) -> dict[str, Any]:
    """Components of a published specification, bare ``yes``/``no`` kept as words."""

    class Words(yaml.SafeLoader):
        pass

    Words.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Words.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))
    found: dict[str, Any] = yaml.load((shared_folder("ARB_SPECS") / "kalshi" / name).read_text(), Words)["components"]
    return found


def validator(parts: dict[str, Any]) -> Validate:
    def violations(schema: str, value: object) -> list[str]:
        checker = jsonschema.Draft7Validator(
            {"$ref": f"#/components/schemas/{schema}", "components": parts}, format_checker=jsonschema.FormatChecker()
        )
        return [error.message for error in checker.iter_errors(value)]

    return violations


@pytest.fixture(scope="module")
def asyncapi() -> tuple[dict[str, Any], Validate]:
    parts = components("asyncapi.yaml")
    return parts, validator(parts)


@pytest.fixture(scope="module")
def openapi() -> Validate:
    return validator(components("openapi.yaml"))


async def listening(exchange: Exchange, channels: list[str] = CHANNELS, **params: Any) -> Socket:
    socket = await kalshi_socket(exchange)
    await socket.send({"id": 1, "cmd": "subscribe", "params": {"channels": channels, **params}})
    acks = await socket.messages(len(channels))
    assert [ack["type"] for ack in acks] == ["subscribed"] * len(channels)
    return socket


async def inject(http: httpx.AsyncClient, **given: Any) -> list[str]:
    answer = await http.post("/_exchange/account", json=given)
    assert answer.status_code == 200, answer.text
    sent: list[str] = answer.json()["sent"]
    return sent


async def test_every_private_message_is_valid_by_the_published_asyncapi(
    still: Exchange, http: httpx.AsyncClient, asyncapi: tuple[dict[str, Any], Validate]
) -> None:
    parts, violations = asyncapi
    payload_of = {
        message["name"]: message["payload"]["$ref"].rsplit("/", 1)[1]
        for message in parts["messages"].values()
        if "$ref" in message.get("payload", {})
    }
    socket = await listening(still)
    count = 0
    for kind in ACCOUNT_CHANNEL_OF_TYPE:
        count += len(await inject(http, type=kind, market_ticker=A))
    messages = await socket.messages(count)
    assert {message["type"] for message in messages} == set(ACCOUNT_CHANNEL_OF_TYPE)
    for message in messages:
        assert violations(payload_of[message["type"]], message) == [], message["type"]
    assert violations("fillPayload", {"type": "fill", "sid": 1, "msg": {}})


async def test_a_fill_is_told_on_three_channels_and_moves_the_account(
    still: Exchange, http: httpx.AsyncClient, openapi: Validate
) -> None:
    async def read(path: str, **query: Any) -> Message:
        url = f"{REST}/portfolio/{path}"
        answer = await http.get(url, params=query, headers=kalshi_headers(still, "GET", url))
        assert answer.status_code == 200
        found: Message = answer.json()
        return found

    before = await read("balance")
    socket = await listening(still)
    sent = await inject(
        http, type="fill", market_ticker=B, outcome_side="no", yes_price_dollars="0.4000", count_fp="5.00"
    )
    assert sent == ["user_order", "fill", "market_position"]
    order, fill, position = await socket.messages(3)
    assert [message.get("seq") for message in (order, fill, position)] == [None] * 3
    assert (order["msg"]["status"], order["msg"]["order_id"]) == ("executed", fill["msg"]["order_id"])
    assert (fill["msg"]["book_side"], fill["msg"]["post_position_fp"]) == ("ask", "-5.00")
    # 0.07 x 5 x 0.4 x 0.6
    assert (fill["msg"]["fee_cost"], position["msg"]["position_cost_dollars"]) == ("0.084000", "3.000000")
    after, fills = await read("balance"), await read("fills", limit=1)
    assert (before["balance_dollars"], after["balance_dollars"]) == ("2495.6294", "2492.5454")
    assert openapi("GetBalanceResponse", after) == []
    assert openapi("GetFillsResponse", fills) == []
    assert [one["trade_id"] for one in fills["fills"]] == [fill["msg"]["trade_id"]]
    # What comes in between two pages neither repeats nor hides a fill.
    await inject(http, type="fill", market_ticker=A)
    older = await read("fills", limit=1, cursor=fills["cursor"])
    assert [one["ticker"] for one in older["fills"]] != [B]
    assert older["cursor"] == ""
    only_b = await read("fills", ticker=B)
    assert [one["ticker"] for one in only_b["fills"]] == [B]
    assert (await read("fills", max_ts=1))["fills"] == []
    positions = await read("positions", ticker=B)
    assert openapi("GetPositionsResponse", positions) == []
    assert [(one["ticker"], one["position_fp"]) for one in positions["market_positions"]] == [(B, "-5.00")]


async def test_channels_are_numbered_as_documented_and_filters_hold_where_there_are_any(
    still: Exchange, http: httpx.AsyncClient
) -> None:
    socket = await listening(still, market_tickers=[A])
    await inject(http, type="fill", market_ticker=B)
    await inject(http, type="order_group_updates", event_type="deleted", market_ticker=B)
    await inject(http, type="rfq_created", market_ticker=B)
    await inject(http, type="rfq_deleted", market_ticker=B)
    messages = await socket.messages(3)
    assert [(message["type"], message["seq"]) for message in messages] == [
        ("order_group_updates", 1),
        ("rfq_created", 1),
        ("rfq_deleted", 2),
    ]
    assert messages[0]["msg"]["event_type"] == "deleted"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"type": "trade"}, "no private message"),
        ({"type": "fill", "market_ticker": "KXNOTHING"}, "'KXNOTHING' is unknown"),
        ({"type": "fill", "count_fp": "-1"}, "count_fp must be positive"),
        ({"type": "fill", "yes_price_dollars": "half"}, "'half' is not a plain decimal"),
        ({"type": "fill", "outcome_side": "maybe"}, "neither yes nor no"),
        ({"venue": "forecastex", "type": "fill"}, "venue 'forecastex' is unknown"),
        ({"venue": "polymarket", "type": "fill"}, "there are order, trade"),
        ({"venue": "polymarket", "type": "order", "market": "0x1"}, "'0x1' is unknown"),
        ([], "give an object"),
    ],
)
async def test_what_cannot_be_made_is_refused_in_words(http: httpx.AsyncClient, body: object, words: str) -> None:
    answer = await http.post("/_exchange/account", json=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


async def user_socket(exchange: Exchange, **wrong: str) -> Socket:
    polymarket = exchange.announcement()["polymarket"]
    socket = Socket(await websockets.connect(polymarket["user_ws_url"]))
    auth = {"apiKey": polymarket["api_key"], "secret": polymarket["secret"], "passphrase": polymarket["passphrase"]}
    await socket.send({"auth": auth | wrong, "type": "user", "markets": []})
    return socket


@pytest.mark.parametrize("name", ["apiKey", "secret", "passphrase"])
async def test_wrong_credentials_close_the_user_channel(still: Exchange, name: str) -> None:
    socket = await user_socket(still, **{name: "wrong"})
    with pytest.raises(websockets.ConnectionClosed):
        await socket.text()


async def test_the_user_channel_tells_of_the_own_account_alone(still: Exchange, http: httpx.AsyncClient) -> None:
    socket = await user_socket(still)
    # Whether the first frame was taken is only seen by what follows it.
    await socket.ws.send("PING")
    assert await socket.text() == "PONG"
    assert await inject(http, venue="polymarket", type="order", price="0.40") == ["order"]
    assert await inject(http, venue="polymarket", type="trade") == ["trade"]
    order, trade = await socket.messages(2)
    assert (order["event_type"], order["type"], order["price"]) == ("order", "PLACEMENT", "0.40")
    assert (trade["event_type"], trade["status"], trade["trader_side"]) == ("trade", "MATCHED", "TAKER")
    assert json.loads(socket.frames[1])["market"] in still.polymarket.markets
