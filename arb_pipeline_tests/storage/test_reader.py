import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import arb_pipeline
from arb_pipeline.errors import ArbError
from arb_pipeline.storage import Lake, Partition
from arb_pipeline.storage.books import book_at
from arb_pipeline.storage.query import run
from arb_pipeline.storage.reader import ReadError, frame, instant_ns, read
from arb_pipeline.tables import TABLES
from arb_pipeline_tests.conftest import ObjectStore
from arb_pipeline_tests.storage.rows import HOUR, SECOND, START, TWENTY, TWENTY_ONE, gaps, quotes, trades
from arb_pipeline_tests.storage.test_books import OPENING, events, session
from arb_pipeline_tests.storage.test_query import spoil

AT = datetime(2026, 5, 13, 20, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1), ("B", 2, 2)), "run")
    lake.write_part("quotes", TWENTY_ONE, quotes(("A", 3_600, 3)), "run")
    lake.write_part("trades", TWENTY, trades([("t1", 1, 1, "0.123456789")]), "run")
    lake.write_part("book_gaps", Partition.of("book_gaps", "kalshi", START), gaps(("A", 0, 10)), "run")
    return lake


# --- what comes back -----------------------------------------------------------------------------------------


def test_pandas_has_floats_and_loses_no_nanosecond(lake: Lake) -> None:
    rows = read("quotes", lake=lake)
    assert rows["bid"].dtype == "float64"
    assert rows["bid"].tolist() == [0.41, 0.41, 0.41]
    assert rows["ask"].isna().all()
    assert rows["recv_ns"].dtype == "int64"
    assert rows["seq"].dtype == rows["venue_ns"].dtype == "Int64"
    assert rows["in_sync"].dtype == "bool"
    assert list(rows.columns) == list(TABLES["quotes"].column_names)


def test_exact_gives_decimals_and_arrow_its_own(lake: Lake) -> None:
    assert read("trades", lake=lake, exact=True)["price"].tolist() == [Decimal("0.123456789")]
    table = read("trades", lake=lake, as_="arrow")
    assert table.schema.field("price").type == pa.decimal128(12, 9)
    assert table["price"].to_pylist() == [Decimal("0.123456789")]


@given(st.lists(st.none() | st.integers(-(10**18) + 1, 10**18 - 1)))
def test_a_float_is_the_nearest_to_its_decimal(counts: list[int | None]) -> None:
    type_ = pa.decimal128(24, 10)
    exact = [None if count is None else Decimal(count).scaleb(-10) for count in counts]
    rows = frame(pa.table({"net": pa.array(exact, type_)}))
    assert [None if np.isnan(x) else x for x in rows["net"].tolist()] == [
        None if x is None else float(x) for x in exact
    ]


def test_an_empty_answer_has_its_columns_and_types(lake: Lake) -> None:
    for name, table in TABLES.items():
        rows = read(name, lake=lake, start=AT + timedelta(days=9), end=AT + timedelta(days=10))
        assert (len(rows), list(rows.columns)) == (0, list(table.column_names))
    assert read("quotes", AT, AT, lake=lake)["bid"].dtype == "float64"


# --- what is chosen ------------------------------------------------------------------------------------------


def test_time_market_venue_source_and_columns_choose(lake: Lake) -> None:
    def ordinals(*arguments: Any, **options: Any) -> list[int]:
        chosen: list[int] = read("quotes", *arguments, lake=lake, **options)["ordinal"].tolist()
        return chosen

    assert ordinals(AT + timedelta(seconds=2)) == [3, 2]
    assert ordinals(AT, AT + timedelta(seconds=2)) == [1]
    assert ordinals(markets="A") == [1, 3]
    assert ordinals(markets=("B", "C")) == [2]
    assert ordinals(venue="polymarket") == []
    assert ordinals(source="rest") == []
    assert list(read("quotes", columns=["bid", "ordinal"], lake=lake).columns) == ["bid", "ordinal"]
    assert read("book_gaps", AT + timedelta(seconds=5), AT + timedelta(seconds=6), lake=lake)["market_id"].tolist() == [
        "A"
    ]


def test_only_files_of_partitions_that_are_asked_for_are_opened(lake: Lake) -> None:
    spoil(lake, TWENTY)
    assert read("quotes", AT + timedelta(hours=1), lake=lake)["ordinal"].tolist() == [3]
    assert read("quotes", AT + timedelta(hours=1), AT + timedelta(hours=2), lake=lake)["ordinal"].tolist() == [3]
    assert len(read("quotes", venue="polymarket", lake=lake)) == 0
    for start, end in ((None, None), (AT, AT + timedelta(hours=1))):
        with pytest.raises(Exception, match=r"Parquet|magic|too small"):
            read("quotes", start, end, lake=lake)


EXACT = START + 36_508_753_152


@pytest.mark.parametrize(
    ("given_", "ns"),
    [
        (AT, START),
        (datetime(2026, 5, 13, 22, tzinfo=timezone(timedelta(hours=2))), START),
        (pd.Timestamp(AT), START),
        (pd.Timestamp(EXACT, tz="UTC"), EXACT),
        (pd.Timestamp(EXACT, tz="America/New_York"), EXACT),
        ("2026-05-13T20:00Z", START),
        ("2026-05-13 20:00:00Z", START),
        ("2026-05-13T16:00:00-04:00", START),
        ("2026-05-13T20:00:36.508753152Z", EXACT),
        ("2026-05-13Z", START - 20 * HOUR),
        (START, START),
        (np.int64(START), START),
    ],
)
def test_times_are_taken_in_every_unambiguous_form(given_: Any, ns: int) -> None:
    assert instant_ns(given_) == ns


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        (datetime(2026, 5, 13, 20), "replace.tzinfo=datetime.UTC"),  # noqa: DTZ001 - that is the point
        (pd.Timestamp("2026-05-13 20:00"), "tz_localize"),
        ("2026-05-13T20:00", "add Z for UTC"),
        ("2026-05-13", "add Z for UTC"),
        ("yesterday", "is no time"),
        ("2026-13-01T00:00Z", "is no time"),
        (1_778_702_400, "nanoseconds since the epoch"),
        (1.8e18, "is a float"),
        (True, "is a bool"),
    ],
)
def test_a_time_that_could_mean_two_things_is_refused(lake: Lake, given_: Any, says: str) -> None:
    with pytest.raises(ReadError, match=says):
        read("quotes", given_, lake=lake)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"table": "qoutes"}, "no table 'qoutes'; there are events"),
        ({"columns": ["bidd"]}, "quotes has no column 'bidd'; it has venue"),
        ({"columns": "bid"}, r"give a list, columns=\['bid'\]"),
        ({"table": "capture_sessions", "markets": ["A"]}, "has no market to filter by"),
        ({"table": "spreads", "venue": "kalshi"}, "spreads has no column venue"),
        ({"table": "spreads", "source": "ws"}, "spreads has no column source"),
        ({"source": "websocket"}, "give 'ws'"),
        ({"as_": "polars"}, "give 'pandas' or 'arrow'"),
        ({"start": AT, "end": AT - timedelta(seconds=1)}, "lies after"),
        ({"lake": "nowhere"}, "no lake at .*nowhere"),
    ],
)
def test_a_wrong_question_is_refused_with_what_there_is(lake: Lake, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ReadError, match=says) as told:
        read(**{"table": "quotes", "lake": lake, **arguments})
    assert isinstance(told.value, ArbError | ValueError)


# --- where from ----------------------------------------------------------------------------------------------


def test_without_a_lake_the_settings_name_it(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARB_LAKE", lake.root)
    assert len(arb_pipeline.read("quotes")) == 3
    assert len(arb_pipeline.read("quotes", lake=Path(lake.root))) == 3
    with arb_pipeline.connect() as connection:
        assert connection.execute("select count(*) from quotes").fetchone() == (3,)


def test_a_lake_on_an_object_store_is_read_like_a_local_one(s3_lake: ObjectStore) -> None:
    lake = Lake(s3_lake.url)
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
    lake.write_part("book_events", TWENTY, events(OPENING), "run")
    lake.write_part("capture_sessions", Partition.of("capture_sessions", "kalshi", START), session(), "run")
    assert arb_pipeline.read("quotes", lake=s3_lake.url)["bid"].tolist() == [0.41]
    assert run(lake, "select bid from quotes where hour = 20").table()["bid"].to_pylist() == [Decimal("0.4100")]
    assert book_at("M", START + SECOND, lake=s3_lake.url).best_bid == (Decimal("0.4"), Decimal(10))
    lake.write_part("quotes", TWENTY, quotes(("A", 2, 2)), "run")
    lake.compact("quotes", TWENTY)
    assert run(lake, "select count(*) as n from quotes").table()["n"].to_pylist() == [2]


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = (
        "import sys, arb_pipeline\n"
        "heavy = {'pandas', 'pyarrow', 'duckdb', 'numpy', 'dagster', 'pydantic', 'msgspec'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert set(arb_pipeline.__all__) <= set(dir(arb_pipeline))\n"
        "arb_pipeline.read\n"
        "assert 'pyarrow' in sys.modules and 'pandas' not in sys.modules and 'duckdb' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_what_the_package_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'raed'"):
        arb_pipeline.raed  # noqa: B018 - looked up for its error
    for name in arb_pipeline.__all__:
        assert getattr(arb_pipeline, name)
