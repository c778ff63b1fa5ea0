"""What the tables cost, side by side in one run: ``python -m bench.storage``.

Rows per second and bytes per row of Parquet, against pyarrow's own defaults; COPY against executemany, into a Postgres
of our own; the edges of 50 pairs over 10 million quotes in all; and, with ``--kills``, Postgres killed under load. Each
part runs in a process of its own, whose peak of memory is told. Rows are made up, but for the bytes per level change,
which are those of the real recordings in ``ARB_RECORDINGS``. Exits with 1 if a floor is missed.
"""

import argparse
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from arb_pipeline.arbitrage.fees import FeeBook
from arb_pipeline.arbitrage.pairs import MarketData, Pair
from arb_pipeline.arbitrage.spreads import pair_spreads
from arb_pipeline.arbitrage.streams import PairStream, load_streams
from arb_pipeline.capture.replay import replay
from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.model import Market, MarketStatus, MatchStatus, Relation
from arb_pipeline.recordings import Recording
from arb_pipeline.settings import Settings
from arb_pipeline.storage.arrow import decimal_array
from arb_pipeline.storage.lake import HOUR_NS, Lake, Partition
from arb_pipeline.storage.postgres import EmbeddedPostgres, Postgres, TickLoader, copy_rows, index_days
from arb_pipeline.storage.postgres.copying import binary_copy
from arb_pipeline.storage.postgres.loading import ensure_days
from arb_pipeline.tables import table
from arb_pipeline.venues import venue as registered
from arb_pipeline.venues.base import FeeModel

Ints = npt.NDArray[np.int64]

START = datetime(2026, 7, 14, 15, tzinfo=UTC)
HOUR = timedelta(hours=1)
PAIRS = 50
BATCH = 10_000

MAX_BYTES_PER_CHANGE = 12.0
MIN_ROWS = 10_000
MIN_COPIED_PER_S = 200_000.0
MAX_AS_OF_S = 5.0


@dataclass(frozen=True)
class Figure:
    """One measured thing, and the floor that it must keep (``at_least``, ``at_most``)."""

    what: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def missed(self) -> bool:
        """Whether it does not keep its floor."""
        return (self.at_least is not None and self.value < self.at_least) or (
            self.at_most is not None and self.value > self.at_most
        )

    def line(self) -> str:
        """A row of the printed table."""
        floor = ""
        if self.at_least is not None:
            floor = f"at least {self.at_least:,.0f}"
        elif self.at_most is not None:
            floor = f"at most {self.at_most:,.0f}"
        verdict = "" if not floor else "MISSED" if self.missed else "ok"
        value = f"{self.value:,.0f}" if self.value >= 1_000 else f"{self.value:,.2f}"
        return f"{self.what:<75} {value:>14} {self.unit:<11} {floor:<18} {verdict}"


# --- made-up rows ------------------------------------------------------------------------------------------


def markets(number: int) -> tuple[Market, Market]:
    """A pair's markets, with ids as long as real ones."""
    kalshi, polymarket = (
        Market(
            venue=venue,
            market_id=market_id,
            event_id="E",
            title="A question",
            status=MarketStatus.OPEN,
            tick=100,
            min_size=1_000_000,
            size_step=1_000_000,
            close_at=START + timedelta(days=10),
            fee_params=fees,
        )
        for venue, market_id, fees in (
            ("kalshi", f"KXBTCD-26JUL1415-T{117_000 + number}.99", {"fee_type": "quadratic", "fee_multiplier": 1}),
            ("polymarket", f"0x{number:064x}", {"feesEnabled": False}),
        )
    )
    return kalshi, polymarket


def quotes(venue: str, market_id: str, number: int, count: int) -> pa.Table:
    """A market's quotes of an hour around a price that both of a pair's markets have, rarely off it by five cents."""
    shared, own = np.random.default_rng(number), np.random.default_rng([number, len(venue)])
    seconds = np.clip(5_000 + 10 * np.cumsum(shared.integers(-1, 2, 3_600)), 1_500, 8_500)
    times = np.sort(own.integers(0, 3_600 * 10**9, count))
    middle = seconds[times // 10**9] + np.where(own.random(count) < 0.003, 500, 0)
    columns = {
        **_common(venue, market_id, times, number, own),
        "bid": middle - 100 * own.integers(1, 4, count),
        "bid_size": 1_000_000 * own.integers(1, 1_000, count),
        "ask": middle + 100 * own.integers(1, 4, count),
        "ask_size": 1_000_000 * own.integers(1, 1_000, count),
        "in_sync": np.ones(count, dtype=np.bool_),
    }
    return rows_of("quotes", columns)


def changes(venue: str, market_id: str, number: int, count: int) -> pa.Table:
    """A market's level changes of an hour."""
    own = np.random.default_rng([number, len(venue)])
    times = np.sort(own.integers(0, 3_600 * 10**9, count))
    sides = own.integers(0, 2, count)
    steps = np.where(sides, 1, -1) * own.integers(1, 15, count)
    columns = {
        **_common(venue, market_id, times, number, own),
        "epoch": np.ones(count, dtype=np.int64),
        "kind": "delta",
        "side": np.where(sides, "ask", "bid"),
        "price": 5_000 + 100 * steps,
        "size": 1_000_000 * own.integers(0, 500, count),
    }
    return rows_of("book_events", columns)


def _common(venue: str, market_id: str, times: Ints, number: int, random: np.random.Generator) -> dict[str, object]:
    received = ns_from_datetime(START) + times
    return {
        "venue": venue,
        "market_id": market_id,
        "recv_ns": received,
        "ordinal": (np.arange(len(times)) + number * len(times)) * 1024,
        "venue_ns": received - 1_000_000 * random.integers(5, 80, len(times)),
        "seq": np.arange(len(times)),
        "connection_id": f"{venue}-1",
        "source": "ws",
    }


def rows_of(name: str, columns: dict[str, object]) -> pa.Table:
    """A table's rows from arrays (prices 1e-4 dollars, sizes 1e-6 contracts) and words that all rows have."""
    schema, count = table(name).schema, len(np.asarray(columns["recv_ns"]))
    made: dict[str, pa.Array] = {}
    for field in schema:
        value = columns.get(field.name)
        if value is None:
            made[field.name] = pa.nulls(count, field.type)
        elif isinstance(value, str):
            made[field.name] = pa.repeat(value, count)
        elif pa.types.is_decimal128(field.type):
            made[field.name] = decimal_array(np.asarray(value), field.type)
        else:
            made[field.name] = pa.array(value, field.type)
    return pa.table(made, schema=schema)


def _many(make: Callable[[str, str, int, int], pa.Table], venue: str, rows: int) -> pa.Table:
    """An hour of a venue's markets in as many equal parts, in the lake's order."""
    place = 0 if venue == "kalshi" else 1
    return pa.concat_tables(
        make(venue, markets(number)[place].market_id, number, rows // PAIRS) for number in range(PAIRS)
    )


# --- the parts ---------------------------------------------------------------------------------------------


def parquet(rows: int) -> list[Figure]:
    """An hour written to a local lake, sorted, checked for duplicates, encoded and fsynced; and by pyarrow alone."""
    found = []
    for name, make in (("book_events", changes), ("quotes", quotes)):
        hour = _many(make, "kalshi", rows)
        partition = Partition.of(name, "kalshi", START)
        with tempfile.TemporaryDirectory(prefix="bench-storage-") as folder:
            lake = Lake(f"{folder}/lake")
            took = _seconds(partial(lake.replace, name, partition, hour))
            size = _size(Path(folder, "lake"))
            plain = Path(folder, "plain.parquet")
            plain_took = _seconds(partial(pq.write_table, hour, plain))
            found += [
                Figure(f"{name}: rows written to the lake", hour.num_rows / took, "rows/s"),
                Figure(f"{name}: the same by pyarrow's defaults", hour.num_rows / plain_took, "rows/s"),
                Figure(f"{name}: bytes in the lake (made up: sizes are noise)", size / hour.num_rows, "bytes/row"),
                Figure(f"{name}: bytes by pyarrow's defaults", plain.stat().st_size / hour.num_rows, "bytes/row"),
            ]
    return found


def recorded(folder: Path) -> list[Figure]:
    """Bytes that the level changes of each real recording take in the lake, but for those of a few rows only."""
    found, settings = [], Settings()
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        with tempfile.TemporaryDirectory(prefix="bench-storage-") as target:
            lake = Lake(f"{target}/lake")
            replay(Recording.open(path), lake, settings)
            for name, floor in (("book_events", MAX_BYTES_PER_CHANGE), ("quotes", None)):
                rows = sum(lake.manifest(name, partition).rows for partition in lake.partitions(name))
                if rows >= MIN_ROWS:
                    size = _size(Path(target, "lake", name))
                    found.append(Figure(f"{path.name}: {name}, {rows:,} rows", size / rows, "bytes/row", at_most=floor))
    return found


def postgres(rows: int) -> list[Figure]:
    """Quotes into a server of our own, in transactions of :data:`BATCH` rows, with its indexes and constraints.

    COPY, executemany and the loader write to the same table: the running day, which has the primary key. Beside them
    stands what the server does with bytes that were encoded beforehand, and a day that is over, with its second index.
    """
    batches = _batches(_many(quotes, "kalshi", rows))
    some = batches[: max(1, len(batches) // 10)]
    listed = [[tuple(row.values()) for row in batch.to_pylist()] for batch in some]
    encoded = [b"".join(binary_copy(batch)) for batch in batches]
    names = batches[0].column_names
    insert = f"INSERT INTO quotes ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))})"
    with tempfile.TemporaryDirectory(prefix="bench-storage-") as folder, EmbeddedPostgres(folder) as server:
        database = Postgres(server.url)
        database.migrate()
        ensure_days(database, [("quotes", batches[0])])

        def copy() -> None:
            for batch in batches:
                with database.connected() as connection, connection.cursor() as cursor:
                    copy_rows(cursor, "quotes", batch)

        def execute_many() -> None:
            for values in listed:
                with database.connected() as connection, connection.cursor() as cursor:
                    cursor.executemany(insert, values)

        def copy_encoded() -> None:
            statement = f"COPY quotes ({', '.join(names)}) FROM STDIN (FORMAT binary)"
            for content in encoded:
                with database.connected() as connection, connection.cursor() as cursor, cursor.copy(statement) as into:
                    into.write(content)

        def load() -> None:
            loader = TickLoader(database, "bench", "")
            for position, batch in enumerate(batches, 1):
                loader.load(position, {"quotes": batch})

        def emptied(measured: Callable[[], None]) -> float:
            with database.connected() as connection:
                connection.execute("TRUNCATE quotes")
            return _seconds(measured)

        def index() -> None:
            assert index_days(database, START + timedelta(days=2))

        def size() -> float:
            with database.connected() as connection:
                row = connection.execute(
                    "SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('quotes')"
                ).fetchone()
            return int(str(row[0])) / rows if row else 0.0

        found = ", ".join(_indexes(database))
        before = _processor_seconds(database)
        figures = [
            Figure(f"quotes ({found}): by COPY", rows / emptied(copy), "rows/s", at_least=MIN_COPIED_PER_S),
            Figure(
                "  rows a second of processor, client and server",
                rows / (_processor_seconds(database) - before),
                "rows/s",
            ),
            Figure("  bytes in Postgres, indexes included", size(), "bytes/row"),
            Figure("  by executemany", sum(map(len, listed)) / emptied(execute_many), "rows/s"),
            Figure("  by COPY of bytes encoded beforehand", rows / emptied(copy_encoded), "rows/s"),
            Figure("  by the loader (COPY, latest prices, position)", rows / emptied(load), "rows/s"),
            Figure("quotes of a day that is over: indexed", rows / _seconds(index), "rows/s"),
        ]
        found = ", ".join(_indexes(database))
        figures += [
            Figure("  bytes in Postgres, indexes included", size(), "bytes/row"),
            Figure(f"quotes ({found}): by COPY", rows / emptied(copy), "rows/s"),
        ]
        database.close()
    return figures


def _processor_seconds(database: Postgres) -> float:
    """What this process and the server's process of its connection have taken so far."""
    with database.connected() as connection:
        told = Path(f"/proc/{connection.info.backend_pid}/stat").read_text()
    user, system = told.rpartition(")")[2].split()[11:13]
    return time.process_time() + (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _indexes(database: Postgres) -> list[str]:
    """What the day's quotes are indexed by."""
    with database.connected() as connection:
        rows = connection.execute(
            "SELECT substring(indexdef FROM '\\(.*\\)') FROM pg_indexes WHERE tablename LIKE 'quotes\\__%' "
            "ORDER BY indexname DESC"
        ).fetchall()
    return [f"key {columns}" for (columns,) in rows]


def as_of(rows: int, rounds: int = 3) -> list[Figure]:
    """Both directions of every pair at every change of either top, net of fees, with the trust in them: ``spreads``.

    A pair's rows are dropped before the next one's are made, as in the pipeline.
    """
    pairs = [
        Pair(kalshi, polymarket, Relation.EQUIVALENT, MatchStatus.AUTO)
        for kalshi, polymarket in map(markets, range(PAIRS))
    ]
    tops = pa.concat_tables([_many(quotes, "kalshi", rows // 2), _many(quotes, "polymarket", rows // 2)])
    data = MarketData(quotes=tops, capture_sessions=sessions())
    settings, end_ns = Settings(), ns_from_datetime(START + HOUR)

    def fees(market: Market, at: datetime) -> FeeModel:
        return registered(market.venue).fees(market, at, settings)

    took, busy = [], []
    before = peak_gb()
    for _ in range(rounds):
        began, worked = time.perf_counter(), time.process_time()
        told = instants = 0
        streams, book = load_streams(pairs, data, end_ns, settings), FeeBook(fees)
        for pair in pairs:
            made = pair_spreads(PairStream.of(pair, streams), end_ns - HOUR_NS, end_ns, book)
            told += sum(made.num_rows - made[name].null_count for name in ("net_yes_kalshi", "net_yes_polymarket"))
            instants += made.num_rows
        del streams, made
        took.append(time.perf_counter() - began)
        busy.append(time.process_time() - worked)
    return [
        Figure(f"{PAIRS} pairs, {tops.num_rows:,} quotes: best of {rounds}", min(took), "s", at_most=MAX_AS_OF_S),
        Figure("its processor time", min(busy), "s"),
        Figure("the first of them, in memory that no process has touched", took[0], "s"),
        Figure("instants", instants, "rows"),
        Figure("of which priced net of fees, for their gap is positive", told, "rows"),
        Figure("memory: quotes alone", before, "GB"),
        Figure("memory: peak", peak_gb(), "GB"),
    ]


def sessions() -> pa.Table:
    """A connection of each venue that goes on."""
    rows = [
        {
            "venue": venue,
            "connection_id": f"{venue}-1",
            "run_id": "bench",
            "exchange": "",
            "started_at": START - timedelta(minutes=1),
            "markets": PAIRS,
            "frames": 1,
            "bytes": 1,
            "anomalies": "{}",
            "examples": "{}",
            "reconnects": 0,
            "stop_reason": "",
        }
        for venue in ("kalshi", "polymarket")
    ]
    return pa.Table.from_pylist(rows, schema=table("capture_sessions").schema)


def _batches(rows: pa.Table) -> list[pa.Table]:
    """The rows as a capture would bring them: by time, so many at once."""
    ordered = rows.sort_by("recv_ns").combine_chunks()
    return [ordered.slice(start, BATCH) for start in range(0, ordered.num_rows, BATCH)]


def _seconds(measured: Callable[[], object]) -> float:
    began = time.perf_counter()
    measured()
    return time.perf_counter() - began


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.parquet"))


def peak_gb() -> float:
    """Most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


# --- all of it ---------------------------------------------------------------------------------------------


def apart(part: Callable[[], list[Figure]]) -> list[Figure]:
    """Run a part in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(part).result()


def _share_of_a_core(seconds: float = 0.5) -> float:
    """What share of a core a busy process gets now; 1 on a machine that has nothing else to do."""
    began, worked = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        pass
    return (time.process_time() - worked) / (time.perf_counter() - began)


def _parts(options: argparse.Namespace) -> Iterator[tuple[str, Callable[[], list[Figure]]]]:
    yield "Parquet", partial(parquet, options.rows)
    if folder := os.environ.get("ARB_RECORDINGS"):
        yield "Parquet, real recordings", partial(recorded, Path(folder))
    yield "Postgres", partial(postgres, options.rows // 2)
    yield "As-of", partial(as_of, options.quotes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each part, print a table, and say whether every floor was kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=2_000_000, help="rows of an hour written to Parquet")
    parser.add_argument("--quotes", type=int, default=10_000_000, help="quotes of all pairs together")
    parser.add_argument("--kills", type=int, default=0, help="also kill Postgres so often under load")
    options = parser.parse_args(arguments)
    missed = 0
    for title, part in _parts(options):
        print(f"\n{title} (a process gets {_share_of_a_core():.0%} of a core)")
        for figure in apart(part):
            print(figure.line(), flush=True)
            missed += figure.missed
    if "ARB_RECORDINGS" not in os.environ:
        print("\nARB_RECORDINGS is not set: bytes per level change of real recordings were not measured")
    if options.kills:
        print(f"\nPostgres killed {options.kills} times under load", flush=True)
        command = [sys.executable, "-m", "bench.postgres_kill", "--stops", str(options.kills)]
        missed += subprocess.run(command, check=False).returncode != 0
    print(f"\n{missed} of the floors missed" if missed else "\nevery floor is kept")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
