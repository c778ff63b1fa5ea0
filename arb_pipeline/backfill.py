"""Filling in the past: candles from captured rows and from the venue, and trades that nobody captured.

Everything here may be run again at any time: what is there stays, what is the same is not written twice, and rows that
were captured are never replaced by fetched ones.
"""

import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow as pa

from arb_pipeline.clock import datetime_from_ns, ns_from_datetime
from arb_pipeline.errors import ArbError
from arb_pipeline.model import Anomaly, Candle, Trade
from arb_pipeline.pipeline import universe
from arb_pipeline.settings import Settings
from arb_pipeline.storage.arrow import repeated
from arb_pipeline.storage.candles import (
    DAY_S,
    INTERVALS_S,
    captured_markets,
    renewed,
    venue_candles,
    write_day_candles,
    write_hour_candles,
)
from arb_pipeline.storage.lake import HOUR_NS, Compaction, Lake, Partition
from arb_pipeline.storage.mirroring import mirror_tables
from arb_pipeline.tables import table
from arb_pipeline.units import size_decimal, trade_price_decimal
from arb_pipeline.venues import venue as registered
from arb_pipeline.venues.base import Progress

__all__ = ["Backfilled", "backfill_candles", "backfill_trades", "connection_of"]

_ROWS_AT_ONCE: Final = 100_000
"""Fetched rows in memory before they are written."""

_MICROSECOND: Final = 1_000


@dataclass
class Backfilled:
    """What a backfill came to.

    Attributes:
        added: rows that the table has more than before, by partition touched.
        captured: candles made from captured rows. fetched: records that the venue told.
        anomalies: records that could not be used, by kind; examples: the first of each.
    """

    venue: str
    table: str
    markets: int = 0
    captured: int = 0
    fetched: int = 0
    requests: int = 0
    added: dict[str, int] = field(default_factory=dict)
    anomalies: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def metadata(self) -> dict[str, Any]:
        """For machines."""
        return {
            "venue": self.venue,
            "table": self.table,
            "markets": self.markets,
            "captured": self.captured,
            "fetched": self.fetched,
            "requests": self.requests,
            "added": self.added,
            "anomalies": dict(self.anomalies),
            "examples": self.examples,
        }

    def write(self, lake: Lake, partition: Partition, change: Callable[[pa.Table], pa.Table]) -> None:
        """Change a partition of the table, and count what that added."""
        before = lake.manifest(self.table, partition).rows
        self.count(partition, lake.update(self.table, partition, change).rows - before)

    def count(self, partition: Partition, added: int) -> None:
        """Count rows that a partition has more, or fewer, than before."""
        self.added[partition.path] = self.added.get(partition.path, 0) + added

    def reject(self, anomaly: Anomaly) -> None:
        """Count a record that cannot be used."""
        self.anomalies[anomaly.kind] += 1
        self.examples.setdefault(anomaly.kind, f"{anomaly.detail}: {anomaly.example}")


def connection_of(venue: str) -> str:
    """What fetched trades bear as their connection."""
    return f"backfill-{venue}"


async def backfill_candles(
    venue: str,
    settings: Settings,
    lake: Lake,
    start: datetime,
    end: datetime,
    *,
    markets: Collection[str] = (),
    intervals_s: Collection[int] = (),
    progress: Progress | None = None,
) -> Backfilled:
    """Make the candles of every UTC day that [start, end) touches: from what was captured, and the venue's own.

    Args:
        markets: only these; by default what was captured in that time or would be captured now.
        intervals_s: only these lengths, seconds; by default seconds, minutes, hours and days.

    Raises:
        ArbError: if the time has not begun, or an interval does not exist.
        VenueError, HttpStatusError, httpx.TransportError: if the venue cannot be asked; what was written stays.
    """
    now = settings.clock.now()
    end = min(end, now)
    _check_begun(start, end)
    lengths = sorted(set(intervals_s or INTERVALS_S))
    if unknown := set(lengths) - set(INTERVALS_S):
        raise ArbError(f"no candles of {min(unknown)} seconds; there are those of {', '.join(map(str, INTERVALS_S))}")
    done = Backfilled(venue, "candles")
    step = progress or _silent
    for day in _days(venue, start, end):
        for partition, write in _captured(lake, day, lengths):
            before = lake.manifest("candles", partition).rows
            after, made = write(now=now, markets=markets or None)
            done.count(partition, after.rows - before)
            done.captured += made.num_rows
            step(f"{venue} candles from capture", done.captured)
    listed = registered(venue)
    history = listed.history
    if history is None:
        _mirror(settings, lake, done, start, end)
        return done
    chosen = sorted(markets or _wanted(settings, lake, venue, start, end))
    done.markets = len(chosen)
    async with listed.rest_client(settings) as client:
        for day in _days(venue, start, end):
            assert day.bounds is not None
            for length in (length for length in lengths if length in history.intervals_s):
                found: list[Candle] = []
                span = day.bounds[0], min(day.bounds[1], ns_from_datetime(end))
                async for answer in history.candles(client, chosen, length, *span):
                    for item in answer:
                        if isinstance(item, Anomaly):
                            done.reject(item)
                        elif item.end_ns <= ns_from_datetime(now):  # one that goes on would not stay as it is
                            found.append(item)
                    if len(found) >= _ROWS_AT_ONCE:
                        _write_candles(done, lake, venue_candles(found, venue, length, now))
                        found = []
                    step(f"{venue} candlesticks of {length} s", done.fetched + len(found))
                _write_candles(done, lake, venue_candles(found, venue, length, now))
        done.requests = client.requests
    _mirror(settings, lake, done, start, end)
    return done


async def backfill_trades(
    venue: str,
    settings: Settings,
    lake: Lake,
    start: datetime,
    end: datetime,
    *,
    markets: Collection[str] = (),
    progress: Progress | None = None,
) -> Backfilled:
    """Add the trades made in [start, end) that are in no partition yet, marked ``source = 'rest'``.

    Nobody received them when they were made, so ``recv_ns`` is the venue's time of the trade, and the connection is
    :func:`connection_of`. Only hours that are over are filled: a running capture has the others.

    Raises:
        ArbError: if the venue has no such history, no hour of the time is over, or no market is known.
        VenueError, HttpStatusError, httpx.TransportError: if the venue cannot be asked; what was written stays.
    """
    listed = registered(venue)
    history = listed.history
    if history is None:
        raise ArbError(
            f"{venue} does not tell past trades by the ids that captured ones have: nothing can be filled in"
        )
    begin_ns = ns_from_datetime(start)
    now_ns = settings.clock.now_ns()
    end_ns = min(ns_from_datetime(end), now_ns - now_ns % HOUR_NS)
    _check_begun(start, datetime_from_ns(end_ns))
    chosen = sorted(markets or _wanted(settings, lake, venue, start, end))
    if not chosen:
        raise ArbError(
            f"the lake {lake.root} knows no market of {venue}: run 'arb discover', or name one with --market"
        )
    done = Backfilled(venue, "trades", len(chosen))
    step = progress or _silent
    found: list[Trade] = []
    async with listed.rest_client(settings) as client:
        for number, market in enumerate(chosen, 1):
            async for page in history.trades(client, market, begin_ns, end_ns):
                for item in page:
                    if isinstance(item, Anomaly):
                        done.reject(item)
                    else:
                        found.append(item)
                step(f"{venue} trades", done.fetched + len(found))
                if len(found) >= _ROWS_AT_ONCE:
                    _write_trades(done, lake, found)
                    found = []
            step(f"{venue} markets", number)
        _write_trades(done, lake, found)
        done.requests = client.requests
    _mirror(settings, lake, done, start, end)
    return done


def _silent(_step: str, _count: int) -> None:
    """Progress that nobody looks at."""


def _check_begun(start: datetime, end: datetime) -> None:
    if end <= start:
        raise ArbError(f"nothing to fill in from {start.isoformat()} to {end.isoformat()}: give a time that is over")


def _mirror(settings: Settings, lake: Lake, done: Backfilled, start: datetime, end: datetime) -> None:
    """What was filled in, in Postgres, too, where Postgres is on."""
    for day in _days(done.venue, start, end):
        mirror_tables(settings, lake, done.table, day=day.date)


def _days(venue: str, start: datetime, end: datetime) -> Iterator[Partition]:
    day = start.date()
    while datetime(day.year, day.month, day.day, tzinfo=start.tzinfo) < end:
        yield Partition(venue, day)
        day += timedelta(days=1)


def _wanted(settings: Settings, lake: Lake, venue: str, start: datetime, end: datetime) -> set[str]:
    """Markets captured in the time, and those that listeners select now."""
    captured = captured_markets(lake, venue, ns_from_datetime(start), ns_from_datetime(end))
    return captured | {market.market_id for market in universe(settings, lake, [venue])[venue]}


def _captured(
    lake: Lake, day: Partition, lengths: Collection[int]
) -> Iterator[tuple[Partition, Callable[..., tuple[Compaction, pa.Table]]]]:
    """The partitions that a day's captured rows have candles for, and what makes them."""
    inputs = ("quotes", "book_events", "trades")
    captured = {hour for name in inputs for hour in lake.partitions(name, day.venue) if hour.date == day.date}
    within = [length for length in lengths if length != DAY_S]
    for hour in sorted(captured, key=lambda one: one.order) if within else ():
        yield hour, partial(write_hour_candles, lake, hour, intervals_s=within)
    if captured and DAY_S in lengths:
        yield Partition(day.venue, day.date, 0), partial(write_day_candles, lake, day)


def _write_candles(done: Backfilled, lake: Lake, rows: pa.Table) -> None:
    begins = rows["begin_at"].to_pylist()
    hours = np.array([at.hour for at in begins], dtype=np.int64)
    for hour in np.unique(hours):
        inside = rows.filter(pa.array(hours == hour))
        partition = Partition.of("candles", done.venue, begins[int(np.flatnonzero(hours == hour)[0])])
        done.write(lake, partition, partial(renewed, rows=inside))
    done.fetched += rows.num_rows


def _write_trades(done: Backfilled, lake: Lake, trades: Sequence[Trade]) -> None:
    hours: defaultdict[Partition, dict[tuple[str, str], Trade]] = defaultdict(dict)
    for trade in trades:
        hours[Partition.of("trades", done.venue, trade.recv_ns)][trade.market_id, trade.trade_id] = trade
    for partition, unique in sorted(hours.items(), key=lambda hour: hour[0].order):
        assert partition.bounds is not None
        begin, end = partition.bounds
        rows = _trade_rows(list(unique.values()), done.venue)
        ids = sorted({trade.market_id for trade in unique.values()})
        # What was made just before the hour's end was received in the next one.
        near = lake.read("trades", begin, end + HOUR_NS, done.venue, markets=ids, columns=["market_id", "trade_id"])
        rows = _missing(near, rows)
        if rows.num_rows:
            done.write(lake, partition, partial(_joined, rows=rows))
        else:
            done.added.setdefault(partition.path, 0)
    done.fetched += len(trades)


def _joined(held: pa.Table, rows: pa.Table) -> pa.Table:
    return pa.concat_tables([held, _missing(held, rows)])


def _missing(held: pa.Table, rows: pa.Table) -> pa.Table:
    """Those rows whose key is not among what is held."""
    key = list(table("trades").key)
    later, first = repeated(pa.concat_tables([held.select(key), rows.select(key)]), key)
    missing = np.ones(rows.num_rows, dtype=np.bool_)
    missing[later[first < held.num_rows] - held.num_rows] = False
    return rows.filter(pa.array(missing))


def _trade_rows(trades: Sequence[Trade], venue: str) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "venue": venue,
                "market_id": trade.market_id,
                "trade_id": trade.trade_id,
                "recv_ns": trade.recv_ns,
                # The venue tells microseconds: the rest keeps trades of one moment apart, the same in every run.
                "ordinal": trade.recv_ns - trade.recv_ns % _MICROSECOND + zlib.crc32(trade.trade_id.encode()) % 1_000,
                "venue_ns": trade.venue_ns,
                "seq": None,
                "connection_id": connection_of(venue),
                "price": trade_price_decimal(trade.price),
                "size": size_decimal(trade.size),
                "taker_side": trade.taker_side,
                "source": trade.source,
            }
            for trade in trades
        ],
        schema=table("trades").schema,
    )
