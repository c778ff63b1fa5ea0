from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.defs.checks import (
    connected_share_of,
    gap_share,
    gap_share_of,
    in_order,
    keys_unique,
    not_crossed,
    not_empty,
    one_to_one,
    ordered_keys_unique,
)
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline.tables import table

KEY = dg.AssetKey(["kalshi", "quotes"])
START = datetime(2026, 7, 1, 13, tzinfo=UTC)
START_NS = ns_from_datetime(START)
SECOND = 1_000_000_000


def _quotes(*rows: dict[str, object]) -> pa.Table:
    base = {
        "venue": "kalshi",
        "market_id": "M",
        "recv_ns": START_NS,
        "ordinal": 0,
        "connection_id": "c",
        "bid": Decimal("0.4"),
        "ask": Decimal("0.5"),
        "in_sync": True,
        "source": "ws",
    }
    filled = [{**base, "ordinal": number, **row} for number, row in enumerate(rows)]
    return pa.Table.from_pylist(filled, schema=table("quotes").schema)


def _gaps(*spans: tuple[str, int, int | None]) -> pa.Table:
    rows = [
        {
            "venue": "kalshi",
            "market_id": market,
            "connection_id": "c",
            "ordinal": number,
            "cause": "seq_gap",
            "from_ns": START_NS + begin * SECOND,
            "to_ns": None if end is None else START_NS + end * SECOND,
        }
        for number, (market, begin, end) in enumerate(spans)
    ]
    return pa.Table.from_pylist(rows, schema=table("book_gaps").schema)


def test_two_rows_of_one_key_fail() -> None:
    assert keys_unique(KEY, _quotes({}, {}), "quotes").passed
    doubled = keys_unique(KEY, _quotes({"ordinal": 1}, {"ordinal": 1}), "quotes")
    assert not doubled.passed
    assert doubled.metadata["doubled"].value == 1
    assert keys_unique(KEY, _quotes(), "quotes").passed


def test_a_table_without_rows_is_empty() -> None:
    assert not not_empty(KEY, _quotes()).passed
    assert not_empty(KEY, _quotes({})).passed


def test_receipt_may_not_step_back_within_a_connection() -> None:
    later: dict[str, object] = {"recv_ns": START_NS + 5}
    earlier: dict[str, object] = {"recv_ns": START_NS}
    assert in_order(KEY, _quotes(earlier, later)).passed
    assert not in_order(KEY, _quotes(later, earlier)).passed
    assert in_order(KEY, _quotes({**later, "connection_id": "a"}, {**earlier, "connection_id": "b"})).passed
    assert in_order(KEY, _quotes()).passed


def test_many_trusted_crossed_quotes_warn_and_untrusted_ones_do_not_count() -> None:
    crossed: dict[str, object] = {"bid": Decimal("0.6"), "ask": Decimal("0.5")}
    assert not_crossed(KEY, _quotes(*([{}] * 199), crossed)).passed
    warned = not_crossed(KEY, _quotes({}, crossed))
    assert not warned.passed
    assert warned.severity is dg.AssetCheckSeverity.WARN
    assert not_crossed(KEY, _quotes({}, {**crossed, "in_sync": False})).passed
    assert not_crossed(KEY, _quotes({}, {"bid": None})).passed
    assert not_crossed(KEY, _quotes()).passed


@pytest.mark.parametrize(
    ("spans", "markets", "expected"),
    [
        ([], 2, 0.0),
        ([("A", 0, 100)], 1, 1.0),
        ([("A", 0, 100)], 4, 0.25),
        ([("A", 10, 20), ("A", 15, 30)], 1, 0.2),
        ([("A", 10, 40), ("A", 15, 30)], 1, 0.3),
        ([("A", 10, 20), ("B", 15, 25)], 2, 0.1),
        ([("A", -50, 10), ("A", 90, None)], 1, 0.2),
        ([("A", -50, -10), ("A", 100, 200)], 1, 0.0),
        ([("A", 0, 100)], 0, 0.0),
    ],
)
def test_share_of_untrusted_market_time(
    spans: list[tuple[str, int, int | None]], markets: int, expected: float
) -> None:
    assert gap_share_of(_gaps(*spans), markets, START, START + timedelta(seconds=100)) == pytest.approx(expected)


@given(st.lists(st.tuples(st.sampled_from("AB"), st.integers(-20, 120), st.integers(0, 60)), max_size=12))
def test_share_is_that_of_the_seconds_covered(raw: list[tuple[str, int, int]]) -> None:
    spans = [(market, begin, begin + length) for market, begin, length in raw]
    covered = {(market, second) for market, begin, end in spans for second in range(max(begin, 0), min(end, 100))}
    share = gap_share_of(_gaps(*spans), 2, START, START + timedelta(seconds=100))
    assert share == pytest.approx(len(covered) / 200)


def test_a_large_gap_share_warns() -> None:
    end = START + timedelta(seconds=100)
    assert gap_share(KEY, _gaps(("A", 0, 5)), 1, START, end).passed
    warned = gap_share(KEY, _gaps(("A", 0, 6)), 1, START, end)
    assert not warned.passed
    assert warned.severity is dg.AssetCheckSeverity.WARN


def _matches(*rows: tuple[str, str, str, str]) -> pa.Table:
    filled = [
        {
            "kalshi_market_id": kalshi,
            "polymarket_market_id": polymarket,
            "polymarket_yes_index": 0,
            "relation": relation,
            "status": status,
            "score": 1.0,
            "family": "",
            "vetoes": "[]",
            "explanation": "{}",
            "kalshi_rules_sha256": "",
            "polymarket_rules_sha256": "",
            "matcher_version": "1",
            "valid_from": START,
            "valid_to": None,
            "known_at": START,
        }
        for kalshi, polymarket, relation, status in rows
    ]
    return pa.Table.from_pylist(filled, schema=table("market_matches").schema)


def test_a_market_in_two_accepted_pairs_is_a_conflict() -> None:
    first = ("K1", "P1", "equivalent", "approved")
    assert one_to_one(KEY, _matches(first, ("K2", "P2", "inverted", "auto"))).passed
    assert not one_to_one(KEY, _matches(first, ("K1", "P2", "equivalent", "auto"))).passed
    assert not one_to_one(KEY, _matches(first, ("K2", "P1", "inverted", "approved"))).passed
    assert one_to_one(KEY, _matches(first, ("K1", "P2", "equivalent", "review"))).passed
    assert one_to_one(KEY, _matches(first, ("K1", "P2", "related", "approved"))).passed
    assert one_to_one(KEY, _matches()).passed


def test_the_connected_share_of_an_hour_counts_overlaps_once_and_what_is_outside_not_at_all() -> None:
    def at(minutes: float) -> datetime:
        return START + timedelta(minutes=minutes)

    spans = [(at(-5), at(15)), (at(10), at(30)), (at(45), None), (at(90), at(95))]
    sessions = pa.table({"started_at": [one for one, _ in spans], "ended_at": [other for _, other in spans]})
    assert connected_share_of(sessions, START, START + timedelta(hours=1)) == pytest.approx(0.75)
    assert connected_share_of(sessions.slice(0, 0), START, START + timedelta(hours=1)) == 0.0


@pytest.mark.parametrize("rows_at_once", [1, 2, 100])
def test_two_rows_of_one_key_fail_wherever_the_file_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    lake, partition = Lake(str(tmp_path)), Partition.of("quotes", "kalshi", START_NS)
    lake.replace("quotes", partition, _quotes({"ordinal": 1}, {"ordinal": 2}, {"ordinal": 3}))
    assert ordered_keys_unique(KEY, lake, "quotes", partition, rows_at_once).passed
    # The lake would not take them.
    monkeypatch.setattr("arb_pipeline.storage.lake.repeated", lambda rows, key: ([], []))
    lake.replace("quotes", partition, _quotes({"ordinal": 1}, {"ordinal": 1}, {"ordinal": 2}))
    doubled = ordered_keys_unique(KEY, lake, "quotes", partition, rows_at_once)
    assert not doubled.passed
    assert (doubled.metadata["rows"].value, doubled.metadata["doubled"].value) == (3, 1)
    assert ordered_keys_unique(KEY, lake, "quotes", Partition.of("quotes", "polymarket", START_NS)).passed
