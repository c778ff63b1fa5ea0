"""Polymarket's user channel: credentials that show nowhere, orders and fills in YES terms."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.model import AccountEvent, Anomaly, AnomalyKind, MarketFacts, Reconnect, Send
from arb_pipeline.settings import Settings
from arb_pipeline.venues.base import VenueError
from arb_pipeline.venues.polymarket import Polymarket, PolymarketAccountSession, PolymarketCredentials

S = 1_000_000_000
START = 1_794_302_400 * S
KEY, SECRET, PASSPHRASE = "9180014b-33c8-9240-a14b-bdca11c0a465", "c2VjcmV0LXRleHQ=", "pass-phrase-1"
MARKET = "0x" + "ab" * 32
YES, NO, TEAM = "1" * 30, "2" * 30, "3" * 30


@pytest.fixture
def session() -> PolymarketAccountSession:
    made = PolymarketAccountSession("c1", "wss://poly.test/ws/user", PolymarketCredentials(KEY, SECRET, PASSPHRASE))
    made.connected(START)
    made.subscribe([MarketFacts(venue="polymarket", market_id=MARKET, yes_token_id=YES, no_token_id=NO)], START)
    return made


def order(**more: Any) -> dict[str, Any]:
    own = {"event_type": "order", "id": "0xo1", "market": MARKET, "asset_id": YES, "side": "SELL", "price": "0.57"}
    sizes = {"original_size": "10", "size_matched": "2.5", "type": "UPDATE", "owner": KEY, "order_owner": KEY}
    return {**own, **sizes, "outcome": "YES", "timestamp": "1672290687", **more}


def trade(**more: Any) -> dict[str, Any]:
    own = {"event_type": "trade", "id": "tr1", "market": MARKET, "asset_id": YES, "side": "BUY", "price": "0.57"}
    taker = {"size": "10", "status": "MATCHED", "taker_order_id": "0xt1", "owner": KEY, "outcome": "YES"}
    return {**own, **taker, "timestamp": "1672290701123", "trader_side": "TAKER", "maker_orders": [], **more}


def maker(**more: Any) -> dict[str, Any]:
    own = {"order_id": "0xm1", "asset_id": YES, "price": "0.57", "matched_amount": "4", "owner": KEY, "outcome": "YES"}
    return {**own, **more}


def only(session: PolymarketAccountSession, message: object) -> AccountEvent:
    (event,) = session.receive(json.dumps(message), START)
    assert isinstance(event, AccountEvent)
    return event


def test_the_subscription_holds_the_credentials_and_shows_them_nowhere(session: PolymarketAccountSession) -> None:
    (send,) = session.connected(START)
    assert isinstance(send, Send)
    assert json.loads(send.frame) == {
        "auth": {"apiKey": KEY, "secret": SECRET, "passphrase": PASSPHRASE},
        "type": "user",
        "markets": [],
    }
    assert send.secret
    shown = repr(send) + repr([send]) + repr(PolymarketCredentials(KEY, SECRET, PASSPHRASE))
    assert not any(secret in shown for secret in (KEY, SECRET, PASSPHRASE))
    assert repr(Send("PING")) == "Send(frame='PING')"


def test_the_own_key_is_blotted_out_of_what_is_kept(session: PolymarketAccountSession) -> None:
    (anomaly,) = session.receive(json.dumps({"event_type": "new", "owner": KEY, "secret": SECRET}), START)
    assert isinstance(anomaly, Anomaly)
    assert KEY not in only(session, trade()).raw + anomaly.example
    assert json.loads(only(session, order()).raw) == order(owner="<key>", order_owner="<key>")
    torn = session.receive(json.dumps(trade(maker_orders=[maker()]))[:-20] + f'"owner": "{KEY}', START)
    assert KEY not in repr(torn)


def test_what_is_read_depends_on_the_frames_alone(session: PolymarketAccountSession) -> None:
    reader = Polymarket().account_session("c1", Settings(), None)
    assert reader.connected(START) == []
    reader.subscribe([MarketFacts(venue="polymarket", market_id=MARKET, yes_token_id=YES, no_token_id=NO)], START)
    for message in (order(), trade(), trade(trader_side="MAKER", maker_orders=[maker()]), {"event_type": "x"}):
        assert reader.receive(json.dumps(message), START) == session.receive(json.dumps(message), START)


def test_credentials_are_three(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Polymarket().credentials(Settings()) is None
    monkeypatch.setenv("POLY_API_KEY", KEY)
    with pytest.raises(VenueError, match="POLY_API_SECRET, POLY_PASSPHRASE not set") as caught:
        Polymarket().credentials(Settings())
    assert KEY not in str(caught.value)
    monkeypatch.setenv("POLY_API_SECRET", SECRET)
    monkeypatch.setenv("POLY_PASSPHRASE", PASSPHRASE)
    settings = Settings()
    made = Polymarket().account_session("c1", settings, Polymarket().credentials(settings))
    assert made.connect_request(0).url == "wss://ws-subscriptions-clob.polymarket.com/ws/user"
    assert not any(secret in f"{settings!r}{settings.model_dump_json()}" for secret in (KEY, SECRET, PASSPHRASE))
    with pytest.raises(VenueError, match="credentials of another venue"):
        Polymarket().account_session("c1", settings, object())


def test_it_pings_and_takes_a_silent_socket_for_dead(session: PolymarketAccountSession) -> None:
    assert session.tick(START + 9 * S) == []
    assert session.tick(START + 10 * S) == [Send("PING")]
    assert session.receive("PONG", START + 40 * S) == []
    assert session.tick(START + 99 * S) == [Send("PING")]
    assert session.tick(START + 101 * S) == [Reconnect("no frame for 60 s")]
    session.disconnected(START, "disconnect")
    assert session.tick(START + 500 * S) == []


def test_an_order_in_yes_terms(session: PolymarketAccountSession) -> None:
    event = only(session, order())
    assert (event.kind, event.status, event.side, event.price) == ("order", "UPDATE", "ask", 570_000_000)
    assert (event.size, event.filled, event.order_id) == (10_000_000, 2_500_000, "0xo1")
    assert event.venue_ns == 1_672_290_687 * S
    mirrored = only(session, order(asset_id=NO, outcome="NO"))
    assert (mirrored.side, mirrored.price) == ("bid", 430_000_000)
    assert only(session, order()).event_id == event.event_id != only(session, order(size_matched="3")).event_id


def test_a_taken_trade_is_one_fill_and_milliseconds_are_told_from_seconds(session: PolymarketAccountSession) -> None:
    event = only(session, trade())
    assert (event.kind, event.status, event.side, event.is_taker) == ("fill", "MATCHED", "bid", True)
    assert (event.price, event.size, event.order_id) == (570_000_000, 10_000_000, "0xt1")
    assert event.venue_ns == 1_672_290_701_123 * 1_000_000
    assert event.event_id == "fill:tr1:0xt1:MATCHED"
    assert only(session, trade(status="CONFIRMED")).event_id == "fill:tr1:0xt1:CONFIRMED"


def test_of_a_made_trade_only_the_own_orders_count(session: PolymarketAccountSession) -> None:
    others = maker(owner="somebody", order_id="0xm2")
    minted = maker(order_id="0xm3", asset_id=NO, price="0.43", matched_amount="1", outcome="NO")
    outputs = session.receive(json.dumps(trade(trader_side="MAKER", maker_orders=[maker(), others, minted])), START)
    told = [(e.order_id, e.side, e.price, e.size, e.is_taker) for e in outputs if isinstance(e, AccountEvent)]
    # The taker bought YES: who rested in YES sold it, who rested in NO bought that, which is selling YES too.
    assert told == [
        ("0xm1", "ask", 570_000_000, 4_000_000, False),
        ("0xm3", "ask", 570_000_000, 1_000_000, False),
    ]
    (anomaly,) = session.receive(json.dumps(trade(trader_side="MAKER", maker_orders=[others])), START)
    assert isinstance(anomaly, Anomaly)
    assert anomaly.kind is AnomalyKind.MISSING_FIELD


def test_an_unknown_token_leaves_side_and_price_open(session: PolymarketAccountSession) -> None:
    event, anomaly = session.receive(json.dumps(order(asset_id=TEAM, outcome="Lakers")), START)
    assert isinstance(event, AccountEvent)
    assert (event.side, event.price, event.size) == (None, None, 10_000_000)
    assert isinstance(anomaly, Anomaly)
    assert anomaly.kind is AnomalyKind.UNKNOWN_MARKET
    assert only(session, order(asset_id=TEAM, outcome="No")).side == "bid"


def test_messages_in_one_array(session: PolymarketAccountSession) -> None:
    outputs = session.receive(json.dumps([order(), {"event_type": "trade"}, trade()]).encode(), START)
    assert [type(output) for output in outputs] == [AccountEvent, Anomaly, AccountEvent]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{", AnomalyKind.MALFORMED_JSON),
        ("[1", AnomalyKind.MALFORMED_JSON),
        ("{}", AnomalyKind.MISSING_FIELD),
        ('{"event_type":"position"}', AnomalyKind.UNKNOWN_TYPE),
        (json.dumps(order(price="1.2")), AnomalyKind.BAD_NUMBER),
        (json.dumps(order(original_size="lots")), AnomalyKind.BAD_NUMBER),
        (json.dumps(trade(size=None)), AnomalyKind.WRONG_TYPE),
    ],
)
def test_a_bad_message_is_an_anomaly(session: PolymarketAccountSession, text: str, kind: AnomalyKind) -> None:
    (anomaly,) = session.receive(text, START)
    assert isinstance(anomaly, Anomaly)
    assert anomaly.kind is kind


@given(
    st.binary(max_size=60) | st.text(max_size=60),
    st.dictionaries(
        st.sampled_from(["price", "size", "timestamp", "maker_orders", "side", "outcome", "asset_id", "status"]),
        st.none() | st.integers() | st.text(max_size=8) | st.lists(st.integers(), max_size=2),
    ),
)
def test_nothing_raises(junk: bytes | str, fields: dict[str, Any]) -> None:
    made = PolymarketAccountSession("c1", "", PolymarketCredentials(KEY, SECRET, PASSPHRASE))
    made.receive(junk, START)
    made.receive(json.dumps(trade(**fields)), START)
    made.receive(json.dumps(order(**fields)), START)
