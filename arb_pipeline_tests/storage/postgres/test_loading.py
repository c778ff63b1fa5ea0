import threading
from decimal import Decimal

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arb_pipeline.storage import Lake
from arb_pipeline.storage.postgres import Postgres, PostgresError, PostgresUnavailableError, TickLoader, replace_run
from arb_pipeline.tables import table
from arb_pipeline_tests.storage.postgres.reading import rows_of, select
from arb_pipeline_tests.storage.rows import SECOND, START, TWENTY, gaps, quotes, trades

DAY = 24 * 3_600 * SECOND


def loader(postgres: Postgres, run_id: str = "run") -> TickLoader:
    return TickLoader(postgres, run_id, "")


def changed(rows: pa.Table, **columns: object) -> pa.Table:
    """The rows with these columns' values, one for all."""
    for name, value in columns.items():
        place = rows.column_names.index(name)
        rows = rows.set_column(place, rows.schema.field(name), pa.repeat(pa.scalar(value, rows[name].type), len(rows)))
    return rows


def test_rows_and_position_are_in_together(postgres: Postgres) -> None:
    ticks = loader(postgres)
    assert ticks.position() == 0
    one, two = quotes(("A", 1, 1), ("B", 2, 2)), trades([("t1", 3, 30, "0.123456789")])
    assert ticks.load(7, {"quotes": one, "trades": two, "raw_frames": pa.table({"frame": ["x"]})}) == 3
    assert (ticks.position(), loader(postgres, "other").position()) == (7, 0)
    assert rows_of(postgres, "quotes") == one.to_pylist()
    assert rows_of(postgres, "trades") == two.to_pylist()


def test_a_batch_that_is_in_already_changes_nothing(postgres: Postgres) -> None:
    ticks = loader(postgres)
    batch = {"quotes": quotes(("A", 1, 1))}
    assert (ticks.load(7, batch), ticks.load(7, batch), ticks.load(6, {"quotes": quotes(("A", 9, 9))})) == (1, 0, 0)
    assert len(rows_of(postgres, "quotes")) == 1


def test_what_fails_leaves_neither_rows_nor_position(postgres: Postgres, postgres_url: str) -> None:
    ticks = loader(postgres)
    ticks.load(1, {"quotes": quotes(("A", 1, 1))})
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute("REVOKE ALL ON latest_prices FROM postgres")
        other.execute("ALTER TABLE latest_prices RENAME TO hidden")
    with pytest.raises(PostgresError):
        ticks.load(2, {"quotes": quotes(("A", 2, 2))})
    assert (ticks.position(), len(rows_of(postgres, "quotes"))) == (1, 1)


def test_the_end_of_a_run_brings_its_last_rows_once(postgres: Postgres) -> None:
    ticks = loader(postgres)
    ticks.load(1, {"quotes": quotes(("A", 1, 1))})
    last = {"book_gaps": gaps(("A", 1, 5))}
    assert (ticks.finish(last), ticks.finish(last), ticks.load(9, {"quotes": quotes(("A", 2, 2))})) == (1, 0, 0)
    assert rows_of(postgres, "book_gaps") == gaps(("A", 1, 5)).to_pylist()
    assert select(postgres, "SELECT position, rows, complete FROM load_positions") == [(1, 2, True)]


def test_a_lost_connection_is_worth_trying_again_and_the_next_call_connects(
    postgres: Postgres, postgres_url: str
) -> None:
    ticks = loader(postgres)
    ticks.load(1, {"quotes": quotes(("A", 1, 1))})
    with psycopg.connect(postgres_url, autocommit=True) as other:
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'arb' AND datname = %s"
        other.execute(ended, (other.info.dbname,))
    with pytest.raises(PostgresUnavailableError):
        ticks.load(2, {"quotes": quotes(("A", 2, 2))})
    assert ticks.load(2, {"quotes": quotes(("A", 2, 2))}) == 1
    assert (ticks.position(), len(rows_of(postgres, "quotes"))) == (2, 2)


# --- what is refused -----------------------------------------------------------------------------------------


def test_of_a_batch_with_bad_rows_the_others_are_in_and_the_bad_ones_are_filed(postgres: Postgres) -> None:
    ticks = loader(postgres)
    ticks.load(1, {"quotes": quotes(("A", 1, 1))})
    good, repeated = quotes(("A", 2, 2), ("A", 3, 3)), quotes(("A", 1, 1))
    clash = changed(quotes(("A", 1, 1)), bid=Decimal("0.99"))
    unfit = changed(quotes(("A", 4, 4)), market_id="nul\0")
    empty = quotes(("A", 5, 5)).to_pylist()
    empty[0]["source"] = None
    nullable = pa.schema([field.with_nullable(True) for field in table("quotes").schema])
    missing = pa.Table.from_pylist(empty, schema=nullable)
    batch = pa.concat_tables([rows.cast(nullable) for rows in (good, repeated, clash, unfit, missing)])
    assert ticks.load(2, {"quotes": batch}) == 2
    assert ticks.position() == 2
    assert [row["ordinal"] for row in rows_of(postgres, "quotes")] == [1, 2, 3]
    filed = select(postgres, "SELECT run_id, table_name, reason, row FROM load_rejects ORDER BY id")
    assert [(run, name) for run, name, _, _ in filed] == [("run", "quotes")] * 3
    assert [row["ordinal"] for *_, row in filed] == [1, 4, 5]
    assert filed[0][2] == "another row has its recv_ns, ordinal"
    assert filed[0][3]["bid"] == "0.9900"
    assert "0x00" in filed[1][2]
    assert "source" in filed[2][2]


def test_a_refused_quote_is_no_latest_price(postgres: Postgres) -> None:
    good, bad = quotes(("A", 1, 1)), changed(quotes(("A", 2, 2)), connection_id="nul\0")
    loader(postgres).load(1, {"quotes": pa.concat_tables([good, bad])})
    assert [row["ordinal"] for row in rows_of(postgres, "latest_prices")] == [1]


# --- latest prices -------------------------------------------------------------------------------------------


def test_of_latest_prices_the_one_received_last_wins_whatever_the_order_of_loading(postgres: Postgres) -> None:
    ticks = loader(postgres)
    ticks.load(1, {"quotes": quotes(("A", 5, 1), ("A", 9, 3), ("B", 1, 2), ("A", 9, 4))})
    ticks.load(2, {"quotes": quotes(("A", 8, 9), ("B", 2, 6))})
    found = {row["market_id"]: (row["recv_ns"], row["ordinal"]) for row in rows_of(postgres, "latest_prices")}
    assert found == {"A": (START + 9 * SECOND, 4), "B": (START + 2 * SECOND, 6)}


# --- facts told twice ----------------------------------------------------------------------------------------

_TRADE = st.tuples(
    st.sampled_from(["t1", "t2"]),
    st.integers(0, 3),
    st.integers(1, 10**6),
    st.sampled_from(["0.5", "0.6"]),
    st.sampled_from(["ws", "rest"]),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_TRADE, min_size=1, max_size=8, unique_by=lambda row: row[2]), st.integers(1, 3))
def test_trades_are_kept_as_the_lake_keeps_them_however_they_are_cut_into_batches(
    postgres: Postgres,
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, int, int, str, str]],
    size: int,
) -> None:
    batches = [
        pa.concat_tables([changed(trades([row[:4]]), source=row[4]) for row in rows[start : start + size]])
        for start in range(0, len(rows), size)
    ]
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    with postgres.connected() as connection:
        connection.execute("DELETE FROM trades")
        connection.execute("DELETE FROM load_positions")
    for number, batch in enumerate(batches, 1):
        lake.write_part("trades", TWENTY, batch, f"part{number}")
        loader(postgres).load(number, {"trades": batch})
    lake.compact("trades", TWENTY)
    kept = lake.read("trades").to_pylist()
    # Where contents alternate under one id, the lake compares with the first one only and may keep a second copy.
    seen: dict[tuple[object, ...], dict[str, object]] = {}
    for row in sorted(kept, key=lambda row: (row["source"] == "rest", row["recv_ns"], row["ordinal"])):
        seen.setdefault((row["trade_id"], row["price"]), row)
    expected = sorted(seen.values(), key=lambda row: (row["recv_ns"], row["ordinal"]))
    assert rows_of(postgres, "trades") == expected


def test_one_trade_in_two_hours_is_two_rows_as_in_the_lake(postgres: Postgres) -> None:
    loader(postgres).load(1, {"trades": trades([("t1", 10, 1, "0.5"), ("t1", 3_610, 2, "0.5")])})
    assert len(rows_of(postgres, "trades")) == 2


def test_a_gap_told_again_is_one_row_and_a_session_told_again_is_its_newest(postgres: Postgres) -> None:
    ticks = loader(postgres)
    ticks.load(1, {"book_gaps": gaps(("A", 1, 5))})
    ticks.load(2, {"book_gaps": changed(gaps(("A", 1, 5)), ordinal=99)})
    assert [row["ordinal"] for row in rows_of(postgres, "book_gaps")] == [0]
    session = {
        "venue": "kalshi", "connection_id": "c1", "run_id": "run", "exchange": "", "started_at": START // 1_000,
        "ended_at": None, "markets": 1, "frames": 1, "bytes": 1, "anomalies": "{}", "examples": "{}", "reconnects": 0,
        "lag_p50_ms": None, "lag_p99_ms": None, "stop_reason": "",
    }  # fmt: skip
    for position, frames in ((3, 1), (4, 5)):
        rows = pa.Table.from_pylist([{**session, "frames": frames}], schema=table("capture_sessions").schema)
        ticks.load(position, {"capture_sessions": rows})
    assert [row["frames"] for row in rows_of(postgres, "capture_sessions")] == [5]


# --- partitions ----------------------------------------------------------------------------------------------


def test_days_are_made_on_demand_and_nothing_falls_into_a_default(postgres: Postgres) -> None:
    rows = changed(quotes(("A", 1, 1)), recv_ns=START + DAY)
    loader(postgres).load(1, {"quotes": pa.concat_tables([quotes(("A", 1, 1)), rows])})
    days = "SELECT tableoid::regclass::text, count(*) FROM quotes GROUP BY 1 ORDER BY 1"
    assert select(postgres, days) == [("quotes_20260513", 1), ("quotes_20260514", 1)]
    with pytest.raises(PostgresError, match="no partition"), postgres.connected() as connection:
        connection.execute("UPDATE quotes SET recv_ns = 0")


def test_loaders_that_need_the_same_new_days_do_not_stop_each_other(postgres_url: str, postgres: Postgres) -> None:
    errors: list[BaseException] = []

    def run(number: int) -> None:
        own = Postgres(postgres_url)
        try:
            for day in range(4):
                rows = changed(quotes(("A", 1, number)), recv_ns=START + day * DAY)
                loader(own, f"run{number}").load(day + 1, {"quotes": rows, "trades": trades([("t", 1, number, "0.5")])})
        except BaseException as error:
            errors.append(error)
        finally:
            own.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert len(rows_of(postgres, "quotes")) == 16
    assert [row["ordinal"] for row in rows_of(postgres, "trades")] == [0]


# --- origin and replay ---------------------------------------------------------------------------------------


def test_rows_of_another_origin_are_refused(postgres: Postgres) -> None:
    loader(postgres).load(1, {"quotes": quotes(("A", 1, 1))})
    with pytest.raises(PostgresError, match="holds data of the real venues, these rows come from local"):
        TickLoader(postgres, "demo", "local").load(1, {"quotes": quotes(("A", 2, 2))})
    assert len(rows_of(postgres, "quotes")) == 1


def test_replaying_twice_changes_nothing_and_leaves_other_connections_alone(postgres: Postgres) -> None:
    loader(postgres).load(1, {"quotes": changed(quotes(("A", 1, 1)), connection_id="live")})
    replayed = {"quotes": quotes(("A", 2, 2), ("A", 3, 3)), "trades": trades([("t", 3, 4, "0.5")])}
    assert replace_run(postgres, ["c1"], replayed, "") == 3
    before = rows_of(postgres, "quotes"), rows_of(postgres, "trades"), rows_of(postgres, "latest_prices")
    assert replace_run(postgres, ["c1"], replayed, "") == 3
    assert (rows_of(postgres, "quotes"), rows_of(postgres, "trades"), rows_of(postgres, "latest_prices")) == before
    assert replace_run(postgres, ["c1"], {"quotes": quotes(("A", 2, 2))}, "") == 1
    assert [row["connection_id"] for row in rows_of(postgres, "quotes")] == ["live", "c1"]
