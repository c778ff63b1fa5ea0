"""Where hours begin changes nothing: the same stream is replayed at other times of day. And real recordings."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arb_pipeline.capture.replay import replay
from arb_pipeline.recordings import Recording
from arb_pipeline.settings import Settings
from arb_pipeline.storage.candles import hour_candles
from arb_pipeline.storage.grid import grid
from arb_pipeline.storage.lake import HOUR_NS, Lake
from arb_pipeline.tables import table
from arb_pipeline_tests.capture.fakes import FakeVenue
from arb_pipeline_tests.capture.test_replay import record
from arb_pipeline_tests.storage.rows import SECOND, START

LATER = datetime(2027, 1, 1, tzinfo=UTC)
SPAN = 240
MINUTE = 60 * SECOND

prices = st.integers(40, 44).map(lambda cents: cents * 100)
books = st.lists(st.tuples(prices, st.integers(1, 9)), max_size=3, unique_by=lambda level: level[0])
frames = st.one_of(
    st.tuples(st.just("snap"), st.just("M"), books, books.map(lambda side: [(p + 300, s) for p, s in side])),
    st.tuples(st.just("delta"), st.just("M"), st.just("bid"), prices, st.integers(0, 9)),
    st.tuples(st.just("delta"), st.just("M"), st.just("ask"), prices.map(lambda p: p + 300), st.integers(0, 9)),
    st.tuples(st.just("gap"), st.just("M"), st.just("seq_gap")),
    st.tuples(st.just("trade"), st.just("M"), st.uuids().map(str), st.integers(1, 99), st.integers(1, 9)),
)
streams = st.lists(st.tuples(st.integers(1, 2 * SPAN), frames), max_size=14).map(
    lambda drawn: sorted(drawn, key=lambda frame: frame[0])
)
FIRST = (0, ("snap", "M", [(4_000, 5)], [(4_500, 6)]))


def derived(folder: Path, stream: list[tuple[int, Any]], start: int) -> tuple[pa.Table, pa.Table]:
    """Candles and grid of a stream (half seconds, frame) received from ``start`` on, with times from there."""
    lines = [(start + at * SECOND // 2, "c", list(frame)) for at, frame in stream]
    lake = Lake(str(folder / f"lake-{start}"))
    replay(record(folder / f"recording-{start}", lines), lake, Settings(), venues={"fake": FakeVenue()})
    hours = lake.partitions("book_events", "fake")
    candles = pa.concat_tables(hour_candles(lake, hour, LATER, intervals_s=(1, 60)) for hour in hours)
    base = pa.scalar(datetime.fromtimestamp(start // SECOND, UTC), pa.timestamp("us", tz="UTC"))
    for name in ("begin_at", "end_at"):
        moved = pa.compute.subtract(candles[name], base)
        candles = candles.set_column(candles.schema.get_field_index(name), name, moved)
    points = pa.Table.from_batches(
        grid("M", start, start + SPAN * SECOND, 1_500, lake=lake), table("orderbook_snapshots").schema
    )
    for name in ("recv_ns", "source_ns"):
        moved = pa.compute.subtract(points[name], start)
        points = points.set_column(points.schema.get_field_index(name), name, moved)
    return candles.sort_by([("interval_s", "ascending"), ("begin_at", "ascending")]), points


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(streams, st.integers(1, 3))
def test_where_an_hour_begins_changes_nothing(stream: list[tuple[int, Any]], minutes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        candles, points = derived(Path(folder), [FIRST, *stream], START)
        split, split_points = derived(Path(folder), [FIRST, *stream], START + HOUR_NS - minutes * MINUTE)
    assert split.equals(candles)
    assert split_points.equals(points)


# --- real recordings -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["kalshi-btc15m", "crossvenue-202607"])
def replayed(request: pytest.FixtureRequest, recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    replay(Recording.open(recordings / request.param), lake, Settings())
    return lake


def test_grids_of_real_books_show_the_quotes_as_of_each_point(replayed: Lake) -> None:
    compared = 0
    for hour in replayed.partitions("quotes"):
        assert hour.bounds is not None
        quotes = replayed.read("quotes", *hour.bounds, hour.venue)
        for market in pa.compute.unique(quotes["market_id"]).to_pylist():
            told = quotes.filter(pa.compute.equal(quotes["market_id"], market))
            times = told["recv_ns"].to_numpy()
            begin, end = int(times[0]), min(int(times[-1]) + SECOND, hour.bounds[1])
            found = pa.Table.from_batches(grid(market, begin, end, 250, lake=replayed))
            known = found.filter(found["in_sync"])
            newest = np.searchsorted(times, known["recv_ns"].to_numpy(), side="right") - 1
            seen = known.filter(pa.array(newest >= 0))
            standing = told.take(pa.array(newest[newest >= 0]))
            for name in ("bid", "bid_size", "ask", "ask_size"):
                assert seen[name].equals(standing[name]), (market, name)
            compared += seen.num_rows
            for row in seen.slice(0, 400).to_pylist():
                bids, asks = (msgspec.json.decode(row[side]) for side in ("bids", "asks"))
                assert sorted(bids, reverse=True) == bids
                assert sorted(asks) == asks
                assert [float(row["bid"]), float(row["bid_size"])] == bids[0] if bids else row["bid"] is None
                assert row["age_ns"] >= 0
            assert known.num_rows >= 0.9 * found.num_rows
    assert compared


def test_candles_of_real_quotes_lie_within_them(replayed: Lake) -> None:
    for hour in replayed.partitions("quotes"):
        assert hour.bounds is not None
        quotes = replayed.read("quotes", *hour.bounds, hour.venue).to_pandas()
        candles = hour_candles(replayed, hour, LATER).to_pandas()
        hours = candles[candles.interval_s == 3_600].set_index("market_id")
        trusted = quotes[quotes.in_sync & ~(quotes.bid >= quotes.ask)].groupby("market_id")
        assert set(hours.index) == set(trusted.groups)
        for side in ("bid", "ask"):
            assert (hours[f"{side}_high"] >= trusted[side].max()).all()
            assert (hours[f"{side}_low"] <= trusted[side].min()).all()
        for seconds, longer in ((1, 60), (60, 3_600)):
            short = candles[candles.interval_s == seconds].groupby("market_id")
            long = candles[candles.interval_s == longer].groupby("market_id")
            for point in ("bid_high", "ask_high"):
                assert short[point].max().equals(long[point].max())
            assert short.updates.sum().equals(long.updates.sum())
