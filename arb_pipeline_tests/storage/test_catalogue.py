from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from arb_pipeline.clock import datetime_from_ns
from arb_pipeline.model import Event, Market, MarketStatus, PriceRange, SettlementSource
from arb_pipeline.storage import Lake, Partition
from arb_pipeline.storage.catalogue import (
    events_table,
    markets_table,
    newest_markets,
    read_events,
    read_markets,
    write_catalogue,
)
from arb_pipeline.storage.query import connect
from arb_pipeline.tables import table

AT = datetime(2026, 5, 13, 20, 15, 1, 234567, tzinfo=UTC)

text = st.text(st.characters(codec="utf-8"), max_size=12)
whole = st.integers(0, 10**17)
maybe_whole = st.none() | whole
times = st.none() | st.integers(0, 10**19).map(datetime_from_ns)
json_values = st.dictionaries(text, st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text, max_size=3)
sources = st.lists(st.builds(SettlementSource, name=text, url=text), max_size=2).map(tuple)
ranges = st.lists(
    st.builds(PriceRange, start=st.integers(0, 10_000), end=st.integers(0, 10_000), step=st.integers(1, 100)),
    max_size=3,
).map(tuple)


def markets(event_id: str, market_id: str) -> st.SearchStrategy[Market]:
    return st.builds(
        Market,
        venue=st.just("kalshi"),
        market_id=st.just(market_id),
        event_id=st.just(event_id),
        title=text,
        yes_title=text,
        outcomes=st.tuples(text, text),
        status=st.sampled_from(MarketStatus),
        rules=text,
        settlement_sources=sources,
        created_at=times,
        close_at=times,
        settlement_timer_s=maybe_whole,
        tick=st.integers(1, 1_000),
        price_ranges=ranges,
        min_size=whole,
        size_step=whole,
        yes_token_id=text,
        neg_risk=st.booleans(),
        fee_params=json_values,
        strike=json_values,
        volume=maybe_whole,
        volume_24h=maybe_whole,
        open_interest=maybe_whole,
        liquidity=maybe_whole,
        last_trade_price=text,
        raw=text,
    )


def event(number: int, count: int) -> st.SearchStrategy[Event]:
    event_id = f"E{number}"
    return st.builds(
        Event,
        venue=st.just("kalshi"),
        event_id=st.just(event_id),
        title=text,
        tags=st.lists(text, max_size=3).map(tuple),
        series_ids=st.lists(text, max_size=2).map(tuple),
        tag_ids=st.lists(text, max_size=2).map(tuple),
        rules=text,
        mutually_exclusive=st.booleans(),
        settlement_sources=sources,
        start_at=times,
        end_at=times,
        markets=st.tuples(*(markets(event_id, f"E{number}-M{k}") for k in range(count))),
        raw=text,
    )


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(event(1, 2), event(2, 0), event(3, 1)).map(list))
def test_what_is_written_comes_back_equal(tmp_path: Path, events: list[Event]) -> None:
    lake = Lake(str(tmp_path / "lake"))
    counts = write_catalogue(lake, "kalshi", reversed(events), AT)
    assert counts == {"events": 3, "markets": 3}
    assert read_events(lake) == events
    assert read_events(lake, "polymarket") == []
    assert [market.market_id for market in read_markets(lake)] == ["E1-M0", "E1-M1", "E3-M0"]


def simple(event_id: str, *market_ids: str, title: str = "t", venue: str = "kalshi") -> Event:
    return Event(
        venue=venue,
        event_id=event_id,
        title=title,
        markets=tuple(
            Market(
                venue=venue,
                market_id=market_id,
                event_id=event_id,
                title="q",
                status=MarketStatus.OPEN,
                tick=100,
                min_size=5_000_000,
                size_step=10_000,
            )
            for market_id in market_ids
        ),
    )


def test_how_many_markets_are_listed_may_be_unknown(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    told, untold = replace(simple("E1", "M"), listed_markets=2), simple("E2", "N")
    write_catalogue(lake, "kalshi", [told, untold], AT)
    assert [event.listed_markets for event in read_events(lake)] == [2, None]


def test_columns_have_declared_types_and_units() -> None:
    rows = markets_table([simple("E", "M")], AT).to_pylist()
    assert str(rows[0]["tick"]) == "0.0100"
    assert str(rows[0]["min_size"]) == "5.000000"
    assert rows[0]["fetched_at"] == AT
    assert events_table([], AT).schema.equals(table("events").schema)
    assert events_table([simple("E", "M", "N")], AT)["market_count"].to_pylist() == [2]


def test_an_event_listed_twice_counts_once_by_its_later_state(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    listed = [simple("E", "M", title="old"), simple("F", "M"), simple("E", "M", title="new")]
    assert write_catalogue(lake, "kalshi", listed, AT) == {"events": 2, "markets": 1}
    assert {e.event_id: e.title for e in read_events(lake)} == {"E": "new", "F": "t"}


def test_what_left_the_listing_of_a_day_is_kept_but_not_current(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    write_catalogue(lake, "kalshi", [simple("E", "M", "N"), simple("F", "O")], AT)
    write_catalogue(lake, "kalshi", [simple("E", "M", title="new")], AT + timedelta(hours=1))
    assert [one.event_id for one in read_events(lake)] == ["E"]
    assert [one.market_id for one in read_markets(lake)] == ["M"]
    with connect(lake) as connection:
        assert connection.sql("SELECT market_id FROM markets_current").fetchall() == [("M",)]
    write_catalogue(lake, "kalshi", [simple("G", "P")], AT + timedelta(days=1))
    keys = {("kalshi", name) for name in "MNOPQ"}
    found = newest_markets(lake, keys)
    assert {key[1]: one.event_id for key, one in found.items()} == {"M": "E", "N": "E", "O": "F", "P": "G"}
    assert newest_markets(lake, {("polymarket", "M")}) == {}


def test_events_written_before_they_had_ids_are_read_without_them(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    rows = events_table([simple("E")], AT)
    for name in ("series_ids", "tag_ids"):
        rows = rows.set_column(rows.column_names.index(name), rows.schema.field(name), pa.nulls(1, pa.string()))
    lake.replace("events", Partition.of("events", "kalshi", AT), rows)
    assert read_events(lake) == [simple("E")]
    assert read_events(lake, nested=False) == [simple("E")]


def test_events_can_be_read_without_their_markets(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    write_catalogue(lake, "kalshi", [simple("E", "M")], AT)
    assert [event.markets for event in read_events(lake, nested=False)] == [()]


def test_a_second_fetch_of_the_day_replaces_the_first_and_venues_keep_apart(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    write_catalogue(lake, "kalshi", [simple("E", "M")], AT)
    write_catalogue(lake, "polymarket", [simple("P", "0x1", venue="polymarket")], AT)
    write_catalogue(lake, "kalshi", [simple("F", "N")], AT)
    assert [e.event_id for e in read_events(lake)] == ["F", "P"]
