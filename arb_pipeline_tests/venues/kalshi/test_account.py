"""Kalshi's private channels and account calls, on the published examples and on what may go wrong with them."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.model import AccountEvent, Anomaly, AnomalyKind, MarketChange, Output, Reconnect
from arb_pipeline.settings import Settings
from arb_pipeline.venues.base import VenueError
from arb_pipeline.venues.http import HttpStatusError, RestClient
from arb_pipeline.venues.kalshi import Kalshi, KalshiAccountSession, KalshiCredentials, KalshiSession
from arb_pipeline.venues.kalshi.account import fetch_account
from arb_pipeline_tests.conftest import shared_folder
from arb_pipeline_tests.venues.kalshi.frames import START, A, anomalies, facts, frame, sent

S = 1_000_000_000
FED, NY = "FED-23DEC-T3.00", "HIGHNY-22DEC23-B53.5"
DEC_1 = 1_733_047_200 * S


@pytest.fixture
def session() -> KalshiAccountSession:
    credentials = KalshiCredentials("key-1", ed25519.Ed25519PrivateKey.generate())
    made = KalshiAccountSession("c1", "wss://kalshi.test/trade-api/ws/v2", credentials)
    made.connected(START)
    return made


def fill_msg(**more: Any) -> dict[str, Any]:
    msg = {"trade_id": "t1", "order_id": "o1", "market_ticker": A, "yes_price_dollars": "0.4000", "count_fp": "2.50"}
    return {**msg, **more}


def group(seq: int, sid: int = 4) -> str:
    return frame("order_group_updates", sid, seq, msg={"event_type": "reset", "order_group_id": f"og{seq}"})


def events(outputs: list[Output]) -> list[AccountEvent]:
    return [output for output in outputs if isinstance(output, AccountEvent)]


# --- the connection ------------------------------------------------------------------------------------------


def test_it_signs_the_upgrade_and_subscribes_to_every_private_channel(session: KalshiAccountSession) -> None:
    request = session.connect_request(1_700_000_000_000)
    assert request.url == "wss://kalshi.test/trade-api/ws/v2"
    assert request.headers["KALSHI-ACCESS-KEY"] == "key-1"
    commands = sent(session.connected(START))
    assert [command["cmd"] for command in commands] == ["subscribe", "subscribe"]
    channels = [channel for command in commands for channel in command["params"]["channels"]]
    assert channels == ["fill", "user_orders", "market_positions", "order_group_updates", "communications"]
    # Without it every request for quotes of every user would come.
    assert commands[1]["params"]["user_filter"] == "self"
    assert "market_tickers" not in commands[0]["params"]


def test_without_credentials_it_reads_what_was_received_all_the_same(session: KalshiAccountSession) -> None:
    reader = Kalshi().account_session("c1", Settings(), None)
    assert reader.connect_request(0).headers == {}
    fill = frame("fill", 1, msg=fill_msg())
    assert reader.receive(fill, START) == session.receive(fill, START) != []


def test_it_has_no_books(session: KalshiAccountSession) -> None:
    assert session.subscribe(facts(A), START) == session.unsubscribe([A], START) == session.rest_book(A, b"{}", 1) == []
    assert (session.book(A), session.in_sync(A), session.snapshots(START)) == (None, False, [])


def test_unanswered_subscriptions_end_the_connection_once(session: KalshiAccountSession) -> None:
    for number, channel in enumerate(("fill", "user_orders", "market_positions", "order_group_updates"), 1):
        session.receive(frame("subscribed", id=1, msg={"channel": channel, "sid": number}), START)
    assert session.tick(START + 9 * S) == []
    assert session.tick(START + 11 * S) == [Reconnect("no answer to a subscription")]
    assert session.tick(START + 12 * S) == []


def test_a_refused_channel_is_told_and_not_asked_again(session: KalshiAccountSession) -> None:
    for number, channel in enumerate(("fill", "user_orders", "market_positions", "order_group_updates"), 1):
        session.receive(frame("subscribed", id=1, msg={"channel": channel, "sid": number}), START)
    refused = session.receive(frame("error", id=2, msg={"code": 8, "msg": "Unknown channel name"}), START)
    assert anomalies(refused) == [AnomalyKind.VENUE_ERROR]
    assert len(refused) == 1
    assert session.tick(START + 60 * S) == []


def test_a_dead_subscription_ends_the_connection(session: KalshiAccountSession) -> None:
    outputs = session.receive(frame("error", 4, 1, msg={"code": 25, "msg": "Subscription buffer overflow"}), START)
    assert anomalies(outputs) == [AnomalyKind.VENUE_ERROR]
    assert outputs[-1] == Reconnect("error 25: Subscription buffer overflow")


# --- seq -----------------------------------------------------------------------------------------------------


def test_a_hole_in_a_numbered_channel_is_an_account_gap(session: KalshiAccountSession) -> None:
    assert len(events(session.receive(group(1), START))) == 1
    outputs = session.receive(group(3), START + 1)
    assert len(events(outputs)) == 1
    assert anomalies(outputs) == [AnomalyKind.SEQ_GAP]
    assert outputs[-1] == Reconnect("account messages missing on sid 4")
    assert anomalies(session.receive(group(4), START + 2)) == []


def test_numbers_start_anew_with_the_connection_and_apart_for_each_sid(session: KalshiAccountSession) -> None:
    session.receive(group(1), START)
    assert anomalies(session.receive(group(1, sid=5), START)) == []
    session.disconnected(START, "disconnect")
    session.connected(START + S)
    assert anomalies(session.receive(group(1), START + S)) == []


def test_control_frames_count(session: KalshiAccountSession) -> None:
    session.receive(group(1), START)
    assert session.receive(frame("ok", 4, 2, id=9, msg={}), START) == []
    assert anomalies(session.receive(group(3), START)) == []


def test_a_broken_or_unknown_frame_counts_all_the_same(session: KalshiAccountSession) -> None:
    broken = frame("order_group_updates", 4, 1, msg={"event_type": "reset"})
    assert anomalies(session.receive(broken, START)) == [AnomalyKind.MISSING_FIELD]
    assert anomalies(session.receive(frame("rfq_renamed", 4, 2, msg={}), START)) == [AnomalyKind.UNKNOWN_TYPE]
    assert anomalies(session.receive(group(3), START)) == []


def test_an_old_number_is_not_told_twice_and_many_end_the_connection(session: KalshiAccountSession) -> None:
    session.receive(group(1), START)
    first = session.receive(group(1), START)
    assert anomalies(first) == [AnomalyKind.DUPLICATE]
    assert events(first) == []
    outputs = [output for _ in range(49) for output in session.receive(group(1), START)]
    assert sum(isinstance(output, Reconnect) for output in outputs) == 1


# --- messages ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def examples() -> dict[str, list[dict[str, Any]]]:
    """Example payloads of the published AsyncAPI by message type."""
    document = yaml.safe_load((shared_folder("ARB_SPECS") / "kalshi" / "asyncapi.yaml").read_text())
    found: dict[str, list[dict[str, Any]]] = {}
    for message in document["components"]["messages"].values():
        for example in message.get("examples") or ():
            payload = example.get("payload")
            if isinstance(payload, dict) and "type" in payload:
                found.setdefault(payload["type"], []).append(payload)
    return found


EXPECTED: dict[str, list[dict[str, Any]]] = {
    "fill": [
        {
            "kind": "fill",
            "event_id": "fill:d91bc706-ee49-470d-82d8-11418bda6fed:ee587a1c-8b87-4dcf-b721-9f6f790619fa",
            "market_id": NY,
            "side": "bid",
            "price": 750_000_000,
            "size": 278_000_000,
            "fee": 100_000_000,
            "is_taker": True,
            "order_id": "ee587a1c-8b87-4dcf-b721-9f6f790619fa",
            "venue_ns": 1_671_899_397 * S,
        }
    ],
    "user_order": [
        {
            "kind": "order",
            "market_id": FED,
            "status": "resting",
            "side": "bid",
            "price": 350_000_000,
            "size": 10_000_000,
            "filled": 0,
            "fee": 0,
            "venue_ns": DEC_1,
            "client_order_id": "my-order-1",
        }
    ],
    "market_position": [
        {"kind": "position", "market_id": FED, "size": 100_000_000, "fee": 10**10, "amount": 50 * 10**10}
    ],
    "order_group_updates": [
        {"kind": "order_group", "status": "limit_updated", "size": 150_000_000, "venue_ns": DEC_1, "seq": 7}
    ],
    "rfq_created": [
        {"kind": "rfq", "market_id": FED, "size": 100_000_000, "amount": None, "venue_ns": DEC_1},
        {"kind": "rfq", "market_id": "KXMVE-24DEC-COMBO", "size": None, "amount": 100 * 10**10},
    ],
    "rfq_deleted": [{"kind": "rfq", "market_id": FED, "venue_ns": DEC_1 + 300 * S}],
    "quote_created": [{"kind": "quote", "market_id": FED, "venue_ns": DEC_1 + 120 * S}],
    "quote_accepted": [{"kind": "quote", "market_id": FED, "size": 50_000_000, "venue_ns": None}],
    "quote_executed": [{"kind": "quote", "order_id": "order_789", "client_order_id": "my_client_order_123"}],
    "rfq_batch_created": [{"kind": "rfq_batch", "market_id": None, "venue_ns": DEC_1}],
    "rfq_batch_deleted": [{"kind": "rfq_batch", "venue_ns": DEC_1 + 300 * S}],
    "rfq_batch_best_quotes": [{"kind": "rfq_batch", "venue_ns": DEC_1 + 150 * S}],
    "rfq_batch_executed": [{"kind": "rfq_batch", "venue_ns": DEC_1 + 185 * S}],
    "batch_quote_created": [{"kind": "batch_quote", "venue_ns": DEC_1 + 120 * S}],
    "batch_quote_accepted": [{"kind": "batch_quote", "venue_ns": DEC_1 + 180 * S}],
    "batch_quote_executed": [{"kind": "batch_quote", "venue_ns": DEC_1 + 185 * S}],
}
COMMUNICATIONS = {kind for kind, wanted in EXPECTED.items() if wanted[0]["kind"] in {"rfq", "quote", "rfq_batch"}}


@pytest.mark.parametrize("kind", EXPECTED)
def test_every_published_example_becomes_its_event(
    session: KalshiAccountSession, examples: dict[str, list[dict[str, Any]]], kind: str
) -> None:
    assert len(examples[kind]) == len(EXPECTED[kind])
    for number, (payload, wanted) in enumerate(zip(examples[kind], EXPECTED[kind], strict=True), 1):
        given = {**payload, "seq": number} if "seq" in payload and "seq" not in wanted else payload
        outputs = session.receive(json.dumps(given), START)
        (event,) = events(outputs)
        told = {name: getattr(event, name) for name in wanted}
        assert told == wanted
        assert (event.venue, event.recv_ns, event.source) == ("kalshi", START, "ws")
        assert json.loads(event.raw) == payload["msg"]
        if kind in COMMUNICATIONS:
            assert event.status == kind


def test_the_same_message_has_the_same_id_and_another_state_another(session: KalshiAccountSession) -> None:
    def position(size: str, **more: Any) -> str:
        (event,) = events(
            session.receive(frame("market_position", 3, msg={"market_ticker": A, "position_fp": size, **more}), START)
        )
        return event.event_id

    assert position("1.00") == position("1.00") != position("2.00")
    assert position("1.00", volume_fp="1.00") != position("1.00", volume_fp="3.00")


@pytest.mark.parametrize(
    ("fields", "side"),
    [
        ({"book_side": "ask", "outcome_side": "no"}, "ask"),
        ({"outcome_side": "no"}, "ask"),
        ({"side": "no", "action": "sell"}, "bid"),
        ({"side": "yes", "action": "sell"}, "ask"),
        ({"side": "no", "action": "buy"}, "ask"),
        ({"side": "yes"}, None),
        ({"outcome_side": "maybe"}, None),
    ],
)
def test_the_side_is_in_yes_terms(session: KalshiAccountSession, fields: dict[str, str], side: str | None) -> None:
    (event,) = events(session.receive(frame("fill", 1, msg=fill_msg(**fields)), START))
    assert (event.side, event.price) == (side, 400_000_000)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{", AnomalyKind.MALFORMED_JSON),
        ("[]", AnomalyKind.WRONG_TYPE),
        ("{}", AnomalyKind.MISSING_FIELD),
        (frame("fill", 1, msg={"trade_id": "t"}), AnomalyKind.MISSING_FIELD),
        (frame("fill", 1, msg=fill_msg(count_fp="1e3")), AnomalyKind.BAD_NUMBER),
        (frame("fill", 1, msg=fill_msg(count_fp="9999999999999.00")), AnomalyKind.BAD_NUMBER),
        (frame("fill", 1, msg=fill_msg(yes_price_dollars="1.5")), AnomalyKind.BAD_NUMBER),
        (frame("fill", 1, msg=fill_msg(count_fp=2.5)), AnomalyKind.WRONG_TYPE),
        (frame("orderbook_delta", 1, 1, msg={}), AnomalyKind.UNKNOWN_TYPE),
        (frame("quote_created", 5, 1, msg={"id": "r"}), AnomalyKind.MISSING_FIELD),
    ],
)
def test_a_bad_message_is_an_anomaly_with_its_example(
    session: KalshiAccountSession, text: str, kind: AnomalyKind
) -> None:
    (anomaly,) = session.receive(text, START)
    assert isinstance(anomaly, Anomaly)
    assert (anomaly.kind, anomaly.example) == (kind, text)


@given(
    st.binary(max_size=80) | st.text(max_size=80),
    st.sampled_from(sorted(EXPECTED)),
    st.dictionaries(
        st.sampled_from(["trade_id", "count_fp", "ts_ms", "order_id", "ticker", "status", "id", "created_ts"]),
        st.none() | st.integers() | st.text(max_size=12) | st.floats(allow_nan=False),
    ),
)
def test_nothing_raises(junk: bytes | str, kind: str, msg: dict[str, Any]) -> None:
    made = KalshiAccountSession("c", "", KalshiCredentials("k", _KEY))
    made.receive(junk, START)
    made.receive(frame(kind, 1, 1, msg=fill_msg(**msg)), START)


_KEY = ed25519.Ed25519PrivateKey.generate()


def test_the_multivariate_life_cycle_is_a_market_change(examples: dict[str, list[dict[str, Any]]]) -> None:
    (payload,) = examples["multivariate_market_lifecycle"]
    outputs = KalshiSession("c1").receive(json.dumps({**payload, "seq": 1}), START)
    (change,) = (output for output in outputs if isinstance(output, MarketChange))
    assert (change.market_id, change.kind) == ("KXMVE-TEST-EVENT-M1", "created")
    assert anomalies(outputs) == []


# --- REST ----------------------------------------------------------------------------------------------------

BALANCE = {"balance": 12_345, "balance_dollars": "123.4567", "portfolio_value": 20_011, "updated_ts": 1_794_300_000}
POSITION = {
    "ticker": A,
    "exchange_index": 0,
    "position_fp": "-3.00",
    "total_traded_dollars": "4.2000",
    "market_exposure_dollars": "1.200000",
    "realized_pnl_dollars": "-0.5000",
    "fees_paid_dollars": "0.0700",
    "last_updated_ts": "2026-11-10T09:20:00.5Z",
}


def rest_fill(number: int, **more: Any) -> dict[str, Any]:
    own = {"trade_id": f"t{number}", "fill_id": f"t{number}", "ticker": A, "created_time": "2026-11-10T09:20:00.117Z"}
    return fill_msg(**own, outcome_side="no", book_side="ask", fee_cost="0.0420", is_taker=False, **more)


Answer = Callable[[httpx.Request], dict[str, Any]]


def client_of(fills: Answer, balance: object = BALANCE) -> tuple[RestClient, list[httpx.Request]]:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if request.url.path.endswith("balance"):
            return httpx.Response(200, json=balance)
        if request.url.path.endswith("positions"):
            return httpx.Response(200, json={"market_positions": [POSITION], "event_positions": None, "cursor": ""})
        return httpx.Response(200, json=fills(request))

    transport = httpx.MockTransport(answer)
    return RestClient("https://k.test/trade-api/v2", requests_per_s=1e6, transport=transport), asked


def paged(request: httpx.Request) -> dict[str, Any]:
    if request.url.params.get("cursor") == "next":
        return {"fills": [rest_fill(1), rest_fill(0)], "cursor": None}
    return {"fills": [rest_fill(2), rest_fill(1)], "cursor": "next"}


async def test_the_account_is_read_exactly_and_a_fill_told_twice_is_one() -> None:
    client, asked = client_of(paged)
    async with client:
        account = await fetch_account(client, START, since_ns=5 * S + 7)
    assert (account.cash, account.portfolio_value) == (Decimal("123.4567"), Decimal("200.11"))
    (position,) = account.positions
    assert (position.size, position.cost, position.realized_pnl) == (Decimal(-3), Decimal("1.2"), Decimal("-0.5"))
    assert [fill.fill_id for fill in account.fills] == ["t2", "t1", "t0"]
    first = account.fills[0]
    assert (first.side, first.price, first.size, first.fee) == ("ask", Decimal("0.4"), Decimal("2.5"), Decimal("0.042"))
    assert [event.kind for event in account.events] == ["balance", "position", "fill", "fill", "fill"]
    assert {event.source for event in account.events} == {"rest"}
    assert first.at is not None
    assert account.events[2].venue_ns == ns_from_datetime(first.at)
    assert [request.url.params.get("min_ts") for request in asked] == [None, None, "5", "5"]
    assert [request.url.params.get("limit") for request in asked[1:]] == ["1000"] * 3


async def test_a_fill_has_the_same_id_by_either_way(session: KalshiAccountSession) -> None:
    client, _ = client_of(lambda request: {"fills": [rest_fill(1)], "cursor": ""})
    async with client:
        account = await fetch_account(client, START)
    (event,) = events(session.receive(frame("fill", 1, msg=fill_msg(trade_id="t1")), START))
    assert account.events[-1].event_id == event.event_id


async def test_a_record_that_cannot_be_used_is_kept_as_an_anomaly() -> None:
    client, _ = client_of(lambda request: {"fills": [rest_fill(1), {"trade_id": "t9"}], "cursor": ""})
    async with client:
        account = await fetch_account(client, START)
    assert [fill.fill_id for fill in account.fills] == ["t1"]
    assert [anomaly.kind for anomaly in account.anomalies] == [AnomalyKind.MISSING_FIELD]


async def test_a_cursor_that_comes_again_is_an_error() -> None:
    client, _ = client_of(lambda request: {"fills": [], "cursor": "again"})
    async with client:
        with pytest.raises(VenueError, match="cursor 'again' came again"):
            await fetch_account(client, START)


@pytest.mark.parametrize("balance", [[], {"balance": 1}, {**BALANCE, "balance_dollars": "much"}])
async def test_a_balance_of_another_form_is_an_error_that_names_the_call(balance: object) -> None:
    client, _ = client_of(paged, balance)
    async with client:
        with pytest.raises(VenueError, match="GET /portfolio/balance"):
            await fetch_account(client, START)


async def test_cents_serve_where_there_are_no_dollars() -> None:
    client, _ = client_of(paged, {"balance": 12_345, "portfolio_value": 0})
    async with client:
        assert (await fetch_account(client, START)).cash == Decimal("123.45")


async def test_a_refusal_is_the_callers_to_explain() -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(401, json={"error": {"code": "no"}}))
    async with RestClient("https://k.test", transport=transport) as client:
        with pytest.raises(HttpStatusError) as caught:
            await Kalshi().account(client, START)
    assert caught.value.status == 401
