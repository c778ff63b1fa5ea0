import json
import tempfile
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arb_pipeline.model import Event, Market, MarketStatus, PriceRange, rules_digest
from arb_pipeline.storage import Lake
from arb_pipeline.storage.catalogue import write_catalogue
from arb_pipeline.storage.history import AS_OF_MACRO, market_state_at, markets_as_of, record_changes
from arb_pipeline.storage.query import connect
from arb_pipeline.tables import table

START = datetime(2026, 5, 13, 22, tzinfo=UTC)
PLAIN = Market(
    venue="kalshi",
    market_id="M",
    event_id="E",
    title="?",
    status=MarketStatus.OPEN,
    rules_sha256=rules_digest("old"),
    close_at=START + timedelta(days=9),
    tick=100,
    min_size=1_000_000,
    size_step=1_000_000,
    fee_params={"a": "1", "b": {"x": 1, "y": 2}},
)


def changed(market_id: str = "M", **fields: Any) -> Market:
    return msgspec.structs.replace(PLAIN, market_id=market_id, **fields)


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def discover(lake: Lake, hours: float, *markets: Market) -> int:
    """A listing so many hours after START."""
    event = Event(venue="kalshi", event_id="E", title="?", markets=markets)
    write_catalogue(lake, "kalshi", [event], at(hours))
    return record_changes(lake, "kalshi", at(hours))


def history(lake: Lake, market_id: str = "M") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = lake.read("market_history", markets=[market_id]).sort_by("valid_from").to_pylist()
    return rows


def spans(lake: Lake, market_id: str = "M") -> list[tuple[datetime, datetime | None]]:
    return [(row["valid_from"], row["valid_to"]) for row in history(lake, market_id)]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def test_a_market_seen_first_is_a_row_and_the_same_again_is_none(lake: Lake) -> None:
    assert discover(lake, 0, PLAIN, changed("N")) == 2
    files = [file.entry.sha256 for file in lake.files("market_history")]
    assert discover(lake, 0, PLAIN, changed("N")) == 0
    assert discover(lake, 1, PLAIN, changed("N")) == 0
    assert discover(lake, 30, PLAIN, changed("N")) == 0  # the next day
    assert [file.entry.sha256 for file in lake.files("market_history")] == files
    (row,) = history(lake)
    assert (row["valid_from"], row["valid_to"], row["known_at"]) == (START, None, START)
    assert json.loads(row["changed"]) == ["listed"]
    assert row["rules_sha256"] == PLAIN.rules_sha256
    assert row["close_at"] == PLAIN.close_at


@pytest.mark.parametrize(
    ("fields", "columns"),
    [
        ({"status": MarketStatus.PAUSED, "venue_status": "inactive"}, ["status", "venue_status"]),
        ({"result": "yes"}, ["result"]),
        ({"rules": "new", "rules_sha256": rules_digest("new")}, ["rules_sha256"]),
        ({"open_at": START}, ["open_at"]),
        ({"close_at": None}, ["close_at"]),
        ({"expected_expiration_at": START}, ["expected_expiration_at"]),
        ({"occurrence_at": START}, ["occurrence_at"]),
        ({"settlement_timer_s": 60}, ["settlement_timer_s"]),
        ({"tick": 10}, ["tick"]),
        ({"price_ranges": (PriceRange(start=10, end=9_990, step=10),)}, ["price_ranges"]),
        ({"min_size": 5_000_000, "size_step": 10_000}, ["min_size", "size_step"]),
        ({"fee_params": {"a": "2"}}, ["fee_params"]),
        ({"fee_params": {"b": {"y": 2, "x": 1}, "a": "1"}}, None),
        ({"volume": 9, "liquidity": 9, "updated_at": START, "last_trade_price": "0.5", "raw": "{}"}, None),
    ],
)
def test_what_counts_as_a_change(lake: Lake, fields: dict[str, Any], columns: list[str] | None) -> None:
    discover(lake, 0, PLAIN, changed("N"))
    assert discover(lake, 1, changed(**fields), changed("N")) == (columns is not None)
    rows = history(lake)
    if columns is None:
        assert len(rows) == 1
    else:
        assert spans(lake) == [(at(0), at(1)), (at(1), None)]
        assert json.loads(rows[1]["changed"]) == columns
        assert rows[1]["known_at"] == at(1)
    assert spans(lake, "N") == [(at(0), None)]


def test_rows_of_earlier_days_are_ended_where_they_lie(lake: Lake) -> None:
    discover(lake, 0, PLAIN, changed("N"))
    discover(lake, 1, changed(tick=10), changed("N"))
    discover(lake, 30, changed(tick=20), changed("N"))
    assert spans(lake) == [(at(0), at(1)), (at(1), at(30)), (at(30), None)]
    assert spans(lake, "N") == [(at(0), None)]
    assert [partition.path for partition in lake.partitions("market_history")] == [
        "venue=kalshi/date=2026-05-13",
        "venue=kalshi/date=2026-05-15",
    ]


def test_a_market_that_is_listed_no_longer_ends_and_may_come_back(lake: Lake) -> None:
    discover(lake, 0, PLAIN, changed("N"))
    assert discover(lake, 1, PLAIN) == 1
    assert discover(lake, 2, PLAIN) == 0
    assert discover(lake, 3, PLAIN, changed("N")) == 1
    assert spans(lake, "N") == [(at(0), at(1)), (at(3), None)]
    assert json.loads(history(lake, "N")[1]["changed"]) == ["listed"]


def test_the_state_at_an_instant(lake: Lake) -> None:
    discover(lake, 1, PLAIN)
    discover(lake, 2, changed(tick=10))
    discover(lake, 30)
    ticks = {}
    for hours in (0.9, 1, 1.9, 2, 29.9, 30):
        row = market_state_at(lake, "kalshi", "M", at(hours))
        ticks[hours] = None if row is None else float(row["tick"])
    assert ticks == {0.9: None, 1: 0.01, 1.9: 0.01, 2: 0.001, 29.9: 0.001, 30: None}
    assert market_state_at(lake, "polymarket", "M", at(1)) is None
    assert market_state_at(lake, "kalshi", "N", at(1)) is None


def test_a_catalogue_that_is_not_newer_adds_nothing(lake: Lake) -> None:
    discover(lake, 5, PLAIN)
    assert discover(lake, 4, changed(tick=10)) == 0
    assert discover(lake, 5, changed(tick=10)) == 0
    assert spans(lake) == [(at(5), None)]


def test_what_an_interrupted_call_left_open_is_ended_by_the_next(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    discover(lake, 0, PLAIN)
    update, calls = Lake.update, []

    def once(self: Lake, *arguments: Any) -> Any:
        if arguments[0] is table("market_history"):
            calls.append(arguments)
        if len(calls) == 2 and arguments is calls[-1]:
            raise OSError("no space left on device")
        return update(self, *arguments)

    monkeypatch.setattr(Lake, "update", once)
    with pytest.raises(OSError, match="no space"):
        discover(lake, 30, changed(tick=10))
    assert spans(lake) == [(at(0), None), (at(30), None)]
    state = market_state_at(lake, "kalshi", "M", at(30))
    assert state is not None
    assert state["valid_from"] == at(30)
    assert discover(lake, 31, changed(tick=10)) == 0
    assert spans(lake) == [(at(0), at(30)), (at(30), None)]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("ABC"), st.sampled_from([10, 20, 100])), max_size=6))
def test_at_every_instant_the_history_tells_what_was_listed_last(
    tmp_path_factory: pytest.TempPathFactory, listings: list[dict[str, int]]
) -> None:
    lake = Lake(str(tmp_path_factory.mktemp("history")))
    for number, ticks in enumerate(listings):
        discover(lake, 7 * number, *(changed(name, tick=tick) for name, tick in ticks.items()))
    for number, ticks in enumerate(listings):
        for name in "ABC":
            row = market_state_at(lake, "kalshi", name, at(7 * number + 1))
            assert (None if row is None else int(row["tick"] * 10_000)) == ticks.get(name)
    for name in "ABC":
        ends = spans(lake, name)
        assert all(end is not None and end <= begin for (_, end), (begin, _) in pairwise(ends))


# --- as of any time --------------------------------------------------------------------------------------------------


def states(rows: pa.Table) -> dict[str, tuple[Any, datetime | None]]:
    return {row["market_id"]: (row["tick"], row["valid_to"]) for row in rows.to_pylist()}


def test_every_market_as_it_stood_and_as_one_knew_it(lake: Lake) -> None:
    discover(lake, 0, PLAIN, changed("N"))
    discover(lake, 30, changed(tick=10), changed("N"))  # on the next day
    discover(lake, 31, changed(tick=10), changed("O"))
    first, second = Decimal("0.01"), Decimal("0.001")
    assert states(markets_as_of(lake, at(-1))) == {}
    assert states(markets_as_of(lake, at(29))) == {"M": (first, at(30)), "N": (first, at(31))}
    assert states(markets_as_of(lake, at(30))) == {"M": (second, None), "N": (first, at(31))}
    assert states(markets_as_of(lake, at(40))) == {"M": (second, None), "O": (first, None)}
    # Whoever looked ahead from the first listing saw no change coming.
    assert states(markets_as_of(lake, at(40), at(0))) == {"M": (first, None), "N": (first, None)}
    assert states(markets_as_of(lake, at(30), at(30))) == {"M": (second, None), "N": (first, None)}
    assert states(markets_as_of(lake, at(0), at(30))) == {"M": (first, at(30)), "N": (first, None)}
    assert markets_as_of(lake, at(40), venue="polymarket").num_rows == 0
    with connect(lake) as database:
        told = database.sql("FROM markets_as_of($at) ORDER BY market_id", params={"at": at(40)}).to_arrow_table()
    assert states(told) == states(markets_as_of(lake, at(40)))


@settings(max_examples=8, deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 60), st.dictionaries(st.sampled_from("MNO"), st.integers(1, 3), min_size=1), max_size=4
    ),
    st.integers(-1, 61),
    st.one_of(st.none(), st.integers(-1, 61)),
)
def test_nothing_listed_later_changes_what_was_known(
    told_at: dict[int, dict[str, int]], when: int, known: int | None
) -> None:
    listings = sorted(told_at.items())
    with tempfile.TemporaryDirectory() as folder:
        whole, early = Lake(f"{folder}/whole"), Lake(f"{folder}/early")
        for hours, listed in listings:
            ticks = [changed(name, tick=tick) for name, tick in listed.items()]
            discover(whole, hours, *ticks)
            if known is not None and hours <= known:
                discover(early, hours, *ticks)
        instant = None if known is None else at(known)
        found = markets_as_of(whole, at(when), instant)
        if known is not None:
            assert found.equals(markets_as_of(early, at(when)))
        with duckdb.connect() as database:
            database.execute("SET TimeZone = 'UTC'")
            database.register("market_history", whole.read("market_history"))
            database.execute(AS_OF_MACRO)
            told = database.sql(
                "SELECT * FROM markets_as_of($at, known := $known) ORDER BY venue, market_id",
                params={"at": at(when), "known": instant},
            ).to_arrow_table()
        assert states(told) == states(found)
    standing = [listed for hours, listed in listings if hours <= (when if known is None else min(when, known))][-1:]
    if when >= 0 and (known is None or known >= 0):
        expected = standing[0] if standing else {}
        assert {name: int(tick * 10_000) for name, (tick, _) in states(found).items()} == expected
