from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.capture.listeners import (
    KalshiListener,
    Listener,
    ListenerError,
    PolymarketListener,
    add_listener,
    load_handlers,
    load_listeners,
    seed_listeners,
    select,
    set_active,
)
from arb_pipeline.model import Event, Market, MarketStatus
from arb_pipeline.venues import VENUES
from arb_pipeline.venues.polymarket.catalogue import parse_event

CONDITION = "0x" + "00ab" * 16


def market(market_id: str = "M", event_id: str = "E", venue: str = "kalshi", **fields: Any) -> Market:
    given: dict[str, Any] = {"title": "?", "status": MarketStatus.OPEN, "tick": 100, "min_size": 0, "size_step": 1}
    return Market(venue=venue, market_id=market_id, event_id=event_id, **{**given, **fields})


def event(event_id: str = "E", venue: str = "kalshi", **fields: Any) -> Event:
    return Event(venue=venue, event_id=event_id, **{"title": "", **fields})


def kalshi(**fields: Any) -> KalshiListener:
    return KalshiListener.model_validate({"name": "k", "venue": "kalshi", **fields})


def polymarket(**fields: Any) -> PolymarketListener:
    return PolymarketListener.model_validate({"name": "p", "venue": "polymarket", **fields})


def chosen(listener: Listener, *markets: Market, event: Event | None = None, matched: str = "") -> list[str]:
    return [one.market_id for one in select([listener], markets, [event] if event else [], {matched})]


KALSHI_MARKETS = (
    market("KXFED-26DEC-T4", "KXFED-26DEC", series_id="KXFED", volume=5_000_000, open_interest=2_000_000),
    market("KXFED-27JAN-T4", "KXFED-27JAN", series_id="KXFED", status=MarketStatus.PAUSED),
    market("KXCPI-26DEC-T3", "KXCPI-26DEC", series_id="KXCPI", title="Will CPI rise?", volume=4_999_999),
    market("NO-1", "NO", series_id="NO", yes_title="Fed hike", status=MarketStatus.CLOSED),
)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "KXFED-26DEC-T4 KXCPI-26DEC-T3"),
        ({"is_active": False}, ""),
        ({"series_tickers": "kxfed"}, "KXFED-26DEC-T4"),
        ({"series_tickers": "KXFED", "status": ["open", "paused"]}, "KXFED-26DEC-T4 KXFED-27JAN-T4"),
        ({"series_tickers": "KXCPI", "event_tickers": "KXFED-26DEC"}, "KXFED-26DEC-T4 KXCPI-26DEC-T3"),
        ({"market_tickers": "KXCPI-26DEC-T3"}, "KXCPI-26DEC-T3"),
        ({"market_tickers": "KXCPI-26DEC"}, ""),
        ({"min_volume": "5"}, "KXFED-26DEC-T4"),
        ({"min_volume": "4.999999"}, "KXFED-26DEC-T4 KXCPI-26DEC-T3"),
        ({"min_open_interest": "2.000001"}, ""),
        ({"min_open_interest": "2"}, "KXFED-26DEC-T4"),
        ({"title_contains": ["nothing", "cpi RISE"]}, "KXCPI-26DEC-T3"),
        ({"matched_only": True}, "KXCPI-26DEC-T3"),
        ({"matched_only": True, "series_tickers": "KXFED"}, ""),
    ],
)
def test_kalshi_filters(fields: Mapping[str, Any], expected: str) -> None:
    assert chosen(kalshi(**fields), *KALSHI_MARKETS, matched="KXCPI-26DEC-T3") == expected.split()


def test_a_title_may_be_the_events() -> None:
    listener = kalshi(title_contains="jerome")
    assert chosen(listener, market(), event=event(title="What will Jerome say?")) == ["M"]
    assert chosen(listener, market(), event=event("other", title="What will Jerome say?")) == []
    assert chosen(listener, market(), event=event(venue="polymarket", title="What will Jerome say?")) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, True),
        ({"series_ids": "10345"}, True),
        ({"series_ids": "Fed-Meetings"}, True),
        ({"series_ids": "1034"}, False),
        ({"tag_ids": ["7", "100"]}, True),
        ({"tag_ids": "10"}, False),
        ({"slug_patterns": "fed-*-december"}, True),
        ({"slug_patterns": "*50-bps"}, True),
        ({"slug_patterns": "fed"}, False),
        ({"condition_ids": CONDITION.upper().replace("X", "x")}, True),
        ({"condition_ids": "0x" + "11" * 32}, False),
        ({"condition_ids": "0x" + "11" * 32, "tag_ids": "100"}, True),
        ({"min_liquidity": "1000.5"}, True),
        ({"min_liquidity": "1000.51", "tag_ids": "100"}, False),
        ({"min_volume": "1"}, False),
    ],
)
def test_polymarket_filters(fields: Mapping[str, Any], expected: bool) -> None:
    told = event(
        venue="polymarket",
        slug="fed-decision-in-december",
        series_id="fed-meetings",
        series_ids=("10345",),
        tag_ids=("100", "2"),
    )
    one = market(
        CONDITION, venue="polymarket", slug="fed-cuts-50-bps", series_id="fed-meetings", liquidity=1_000_500_000
    )
    assert chosen(polymarket(**fields), one, event=told) == ([CONDITION] if expected else [])


def test_ids_of_31_bytes_are_those_of_the_catalogue() -> None:
    listener = polymarket(condition_ids="0x" + "ab" * 31)
    assert chosen(listener, market("0x" + "ab" * 31 + "00", venue="polymarket")) != []


def test_gammas_tags_and_series_are_found_by_id() -> None:
    minted = {"conditionId": CONDITION, "clobTokenIds": '["1", "2"]', "active": True}
    told = parse_event(
        {
            "id": "9",
            "tags": [{"id": "100", "label": "Fed"}, {"id": 2}, "x"],
            "series": [{"id": 10345, "slug": "fed"}],
            "markets": [{**minted, "acceptingOrders": True, "enableOrderBook": True}],
        }
    )
    for fields in ({"tag_ids": "2"}, {"tag_ids": "100"}, {"series_ids": "10345"}, {"series_ids": "fed"}):
        assert chosen(polymarket(**fields), *told.markets, event=told) == [CONDITION]
    assert chosen(polymarket(tag_ids="9"), *told.markets, event=told) == []


@given(st.lists(st.sampled_from([kalshi(), kalshi(series_tickers="KXFED"), kalshi(min_volume=5), polymarket()])))
def test_listeners_add_up_and_a_market_comes_once(listeners: list[Listener]) -> None:
    alone = {one.market_id for listener in listeners for one in select([listener], KALSHI_MARKETS, [], ())}
    together = select(listeners, KALSHI_MARKETS * 2, [], ())
    assert {one.market_id for one in together} == alone
    assert len(together) == len(alone)


def test_without_a_file_each_venue_has_one_listener_that_takes_all_that_is_open(tmp_path: Path) -> None:
    listeners = load_listeners(tmp_path / "none.yaml")
    assert [listener.venue for listener in listeners] == list(VENUES)
    listed = [*KALSHI_MARKETS, market("P", venue="polymarket")]
    assert [m.market_id for m in select(listeners, listed, [], ())] == ["KXFED-26DEC-T4", "KXCPI-26DEC-T3", "P"]


def test_the_file_that_is_seeded_captures_the_same(tmp_path: Path) -> None:
    path = tmp_path / "conf" / "listeners.yaml"
    seed_listeners(path)
    default = [(one.name, one.venue) for one in load_listeners(tmp_path / "none.yaml")]
    assert [(one.name, one.venue) for one in load_listeners(path) if one.is_active] == default
    with pytest.raises(ListenerError, match="exists and is left as it is"):
        seed_listeners(path)


def test_what_yaml_would_take_for_numbers_and_truth_stays_text(tmp_path: Path) -> None:
    path = tmp_path / "l.yaml"
    path.write_text(
        f"- name: 2026-01-01\n  venue: polymarket\n  condition_ids: {CONDITION}\n  tag_ids: [007]\n"
        "- {name: no, venue: kalshi, series_tickers: [NO, ON], matched_only: true, min_volume: 1e3}\n"
    )
    one, other = load_listeners(path)
    assert isinstance(one, PolymarketListener)
    assert isinstance(other, KalshiListener)
    assert (one.name, one.condition_ids, one.tag_ids) == ("2026-01-01", (CONDITION,), ("007",))
    assert (other.series_tickers, other.matched_only, int(other.min_volume)) == (("NO", "ON"), True, 1_000)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- name: [", "is not YAML"),
        ("name: a", "holds no list"),
        ("- fed", "listener 1: 'fed' has no fields"),
        ("- name: a", "listener 'a': venue is missing: give one of kalshi, polymarket"),
        ("- {name: a, venue: intrade}", "listener 'a': venue is 'intrade': give one of kalshi, polymarket"),
        ("- {name: a, venue: [kalshi]}", "venue is ['kalshi']"),
        ("- {venue: kalshi}", "listener 1: name is missing"),
        ("- {name: a, venue: kalshi, tag_ids: [1]}", "listener 'a': tag_ids is no field of this venue's listeners"),
        ("- {name: a, venue: kalshi, min_volume: -1}", "min_volume: Input should be greater than or equal to 0"),
        ("- {name: a, venue: kalshi, min_volume: lots}", "got 'lots'"),
        ("- {name: a, venue: kalshi, status: closed}", "status.0: Input should be 'unopened', 'open' or 'paused'"),
        ("- {name: a, venue: kalshi, discovery_interval_s: 1}", "discovery_interval_s: Input should be greater"),
        ("- {name: a, venue: polymarket, condition_ids: 0x12}", "condition_ids.0"),
        ("- {name: a, venue: kalshi}\n- {name: a, venue: polymarket}", "two listeners are named 'a'"),
    ],
)
def test_errors_name_file_listener_field_and_remedy(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "listeners.yaml"
    path.write_text(text)
    with pytest.raises(ListenerError) as error:
        load_listeners(path)
    assert str(path) in str(error.value)
    assert says in str(error.value)
    with pytest.raises(ListenerError):
        add_listener(path, {"name": "b", "venue": "kalshi"})
    assert path.read_text() == text


def test_an_empty_file_listens_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "listeners.yaml"
    path.write_text("# later\n")
    assert load_listeners(path) == ()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ListenerError, match="ARB_LISTENERS_PATH"):
        load_listeners(tmp_path)


@pytest.mark.parametrize("before", ["", "# mine\n- name: old\n  venue: kalshi", None])
def test_adding_keeps_what_the_file_holds(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "listeners.yaml"
    if before is not None:
        path.write_text(before)
    fields = {"name": "btc", "venue": "polymarket", "condition_ids": [CONDITION], "min_volume": "100", "tag_ids": "2"}
    added = add_listener(path, fields)
    assert added == polymarket(**fields)
    assert load_listeners(path)[-1] == added
    text = path.read_text()
    assert text.startswith(before or "")
    assert "min_volume: 100\n" in text
    with pytest.raises(ListenerError, match="two listeners are named 'btc'"):
        add_listener(path, fields)
    assert path.read_text() == text
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "entry",
    [
        "- name: a # first\n  venue: kalshi\n",
        "-   venue: kalshi\n    name: a\n",
        "- {name: a, venue: kalshi}\n",
        "- name: 'a'\n  is_active: true # for now\n  venue: kalshi\n",
        "- name: a\n  venue: kalshi\n  is_active: 'no'\n",
    ],
)
def test_pausing_and_resuming_change_one_word_or_line(tmp_path: Path, entry: str) -> None:
    path = tmp_path / "listeners.yaml"
    around = ("# top\n- name: z\n  venue: kalshi\n\n", "\n# end\n- {name: b, venue: polymarket}\n")
    path.write_text(around[0] + entry + around[1])
    for active in (False, True, False):
        set_active(path, "a", active=active)
        text = path.read_text()
        assert text.startswith(around[0])
        assert text.endswith(around[1])
        assert {one.name: one.is_active for one in load_listeners(path)} == {"z": True, "a": active, "b": True}
    assert [comment for comment in ("# first", "# for now") if comment in entry and comment not in text] == []
    assert len(yaml.safe_load(text)) == 3


def test_pausing_what_is_not_there_says_what_is(tmp_path: Path) -> None:
    path = tmp_path / "listeners.yaml"
    with pytest.raises(ListenerError, match="run 'arb listeners seed' first"):
        set_active(path, "a", active=False)
    path.write_text("- {name: b, venue: polymarket}\n")
    with pytest.raises(ListenerError, match="no listener 'a'; it has b"):
        set_active(path, "a", active=False)


# --- handlers ----------------------------------------------------------------------------------------------

HANDLERS = """\
# mine
listeners:
  - name: a
    venue: kalshi  # first

  - {name: b,
     venue: polymarket}  # second

handlers:
  - name: up
    use: price_alert
    venues: kalshi
    markets: [KXFED-*, NO]
    parameters: {level: 0.60}
  - {name: own, use: "not.there.is.such:thing", is_active: false}
"""


def test_a_file_may_have_handlers_beside_its_listeners(tmp_path: Path) -> None:
    path = tmp_path / "listeners.yaml"
    path.write_text(HANDLERS)
    assert [one.name for one in load_listeners(path)] == ["a", "b"]
    up, own = load_handlers(path)
    assert (up.use, up.venues, up.markets) == ("price_alert", ("kalshi",), ("KXFED-*", "NO"))
    assert up.parameters == {"level": "0.60"}
    assert not own.is_active


def test_handlers_alone_leave_capture_as_without_a_file(tmp_path: Path) -> None:
    path = tmp_path / "listeners.yaml"
    assert load_handlers(path) == ()
    path.write_text("handlers:\n  - {name: a, use: tight_spread, parameters: {spread: 0.01}}")
    assert load_listeners(path) == load_listeners(tmp_path / "none")
    assert [one.name for one in load_handlers(path)] == ["a"]
    add_listener(path, {"name": "fed", "venue": "kalshi"})
    assert [one.name for one in load_listeners(path)] == ["fed"]
    path.write_text("listeners: []\n")
    assert load_listeners(path) == ()
    assert load_handlers(path) == ()


@pytest.mark.parametrize(
    "text", [HANDLERS, HANDLERS.partition("\nhandlers")[0], "listeners:\n- name: a\n  venue: kalshi"]
)
def test_a_listener_is_added_before_the_handlers(tmp_path: Path, text: str) -> None:
    path = tmp_path / "listeners.yaml"
    path.write_text(text)
    before, handlers = load_listeners(path), load_handlers(path)
    added = add_listener(path, {"name": "c", "venue": "kalshi", "series_tickers": ["A", "B"]})
    assert load_listeners(path) == (*before, added)
    assert load_handlers(path) == handlers
    assert not set(text.splitlines()) - set(path.read_text().splitlines())
    set_active(path, "b" if len(before) > 1 else "a", active=False)
    assert [one.is_active for one in load_listeners(path)].count(False) == 1
    assert load_handlers(path) == handlers


def test_what_is_not_listed_line_by_line_is_left_to_its_author(tmp_path: Path) -> None:
    path = tmp_path / "listeners.yaml"
    path.write_text("listeners: [{name: a, venue: kalshi}]\n")
    with pytest.raises(ListenerError, match="add the entry by hand"):
        add_listener(path, {"name": "b", "venue": "kalshi"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("handlers: x", "handlers holds no list"),
        ("handler: []", "'handler' is none"),
        ("handlers: [x]", "handler 1: 'x' has no fields"),
        ("handlers: [{name: a}]", "handler 'a': use is missing: give it"),
        ("handlers: [{name: a, use: price}]", "handler 'a': use: 'price' names no handler: give price_alert, tight_"),
        ("handlers: [{name: a, use: position_monitor, on: x}]", "on is no field of handlers; there are name, use"),
        ("handlers: [{name: a, use: position_monitor, venues: x}]", "venues: 'x' is none: give kalshi, polymarket"),
        ("handlers: [{name: a, use: price_alert}]", "handler 'a': parameters.level is missing"),
        ("handlers: [{name: a, use: 'x:y'}, {name: a, use: 'x:y'}]", "two handlers are named 'a'"),
    ],
)
def test_errors_of_handlers_name_file_handler_field_and_remedy(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "listeners.yaml"
    path.write_text(text)
    with pytest.raises(ListenerError) as error:
        load_handlers(path)
    assert str(path) in str(error.value)
    assert says in str(error.value)


def test_the_examples_handlers_are_valid_and_paused(tmp_path: Path) -> None:
    path = tmp_path / "listeners.yaml"
    seed_listeners(path)
    handlers = load_handlers(path)
    assert {handler.use for handler in handlers} == {"price_alert", "tight_spread", "position_monitor"}
    assert not any(handler.is_active for handler in handlers)
    add_listener(path, {"name": "one-more", "venue": "kalshi"})
    assert load_handlers(path) == handlers
