"""Candles from what was captured: OHLC of trusted quotes and of trades, with the share of time that was covered.

A candle's quotes count from what stood at its beginning to its end, but only while the book was in sync, its connection
was up and no gap was open. Times are receive times. As with the venues' own, an interval in which neither the top of
the book nor a trade came has no candle.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.clock import datetime_from_ns, ns_from_datetime
from arb_pipeline.model import Candle
from arb_pipeline.storage.arrow import key_codes, repeated
from arb_pipeline.storage.lake import HOUR_NS, Lake, Partition
from arb_pipeline.tables import table
from arb_pipeline.units import price_decimal, size_decimal, trade_price_decimal

__all__ = [
    "DAY_S",
    "INTERVALS_S",
    "CapturedHour",
    "captured_candles",
    "captured_markets",
    "hour_candles",
    "renewed",
    "venue_candles",
]

INTERVALS_S: Final = (60, 3_600, 86_400)
"""Lengths of the candles that are made, seconds."""

DAY_S: Final = 86_400
_HOUR_S: Final = 3_600
_SECOND: Final = 1_000_000_000
_MARKETS_AT_ONCE: Final = 200
"""Markets whose hour of quotes and book changes is in memory at a time."""

_MEAN_GRID: Final = Decimal("1e-9")

_READ: Final = {
    "quotes": ("market_id", "connection_id", "recv_ns", "ordinal", "bid", "ask", "in_sync"),
    "book_events": ("market_id", "connection_id", "recv_ns", "kind", "side", "price"),
    "trades": ("market_id", "recv_ns", "ordinal", "price", "size"),
    "book_gaps": ("market_id", "connection_id", "from_ns", "to_ns"),
    "capture_sessions": ("connection_id", "ended_at"),
}


@dataclass(frozen=True)
class CapturedHour:
    """Rows of one venue received in [start_ns, end_ns), at most an hour; gaps and sessions that overlap it."""

    start_ns: int
    end_ns: int
    quotes: pa.Table
    book_events: pa.Table
    trades: pa.Table
    book_gaps: pa.Table
    capture_sessions: pa.Table


# A snapshot is a top of the book, too: an hour's opening one is what a quiet market's hour begins with.
_TOPS = """
CREATE TEMP TABLE tops AS
WITH quoted AS (
    SELECT market_id, recv_ns AS instant, arg_max(bid, ordinal) FILTER (WHERE bid IS NOT NULL AND newest) AS bid,
           arg_max(ask, ordinal) FILTER (WHERE ask IS NOT NULL AND newest) AS ask,
           bool_or(in_sync) FILTER (WHERE newest) AS in_sync,
           arg_max(connection_id, ordinal) AS connection_id
    FROM (SELECT *, ordinal = max(ordinal) OVER (PARTITION BY market_id, recv_ns) AS newest FROM quotes)
    GROUP BY ALL
), snapshots AS (
    SELECT market_id, recv_ns AS instant, max(price) FILTER (WHERE side = 'bid') AS bid,
           min(price) FILTER (WHERE side = 'ask') AS ask, max(connection_id) AS connection_id
    FROM book_events WHERE kind IN ('clear', 'snapshot') GROUP BY ALL
)
SELECT market_id, instant, bid, ask, in_sync, connection_id, true AS moved FROM quoted
UNION ALL
SELECT market_id, instant, bid, ask, true, connection_id, false
FROM snapshots ANTI JOIN quoted USING (market_id, instant)
"""

# Between two instants of a market nothing changes: neither the top of its book nor whether it is to be trusted.
_SPANS = """
CREATE TEMP TABLE spans AS
WITH ends AS (
    SELECT connection_id, max(epoch_us(ended_at)) * 1000 AS ended_ns, bool_or(ended_at IS NULL) AS lasts
    FROM capture_sessions GROUP BY ALL
), instants AS (
    SELECT market_id, instant FROM tops
    UNION SELECT market_id, from_ns FROM book_gaps
    UNION SELECT market_id, to_ns FROM book_gaps WHERE to_ns IS NOT NULL
    UNION SELECT DISTINCT market_id, ended_ns FROM tops JOIN ends USING (connection_id) WHERE NOT lasts
), standing AS (
    SELECT i.market_id, i.instant AS begins, t.bid, t.ask, t.in_sync, t.connection_id,
           t.moved AND t.instant = i.instant AS moved,
           lead(i.instant, 1, $end) OVER (PARTITION BY i.market_id ORDER BY i.instant) AS ceases
    FROM instants i ASOF JOIN tops t ON i.market_id = t.market_id AND i.instant >= t.instant
    WHERE i.instant >= $start AND i.instant < $end
)
SELECT market_id, begins, ceases, bid, ask, moved FROM standing s LEFT JOIN ends USING (connection_id)
WHERE in_sync AND (lasts IS NULL OR lasts OR begins < ended_ns) AND NOT EXISTS (
    SELECT 1 FROM book_gaps g WHERE g.market_id = s.market_id AND g.connection_id = s.connection_id
    AND g.from_ns <= s.begins AND (g.to_ns IS NULL OR g.to_ns > s.begins)
)
"""

_CANDLES = """
WITH pieces AS (
    SELECT *, greatest(begins, cell) AS since, least(ceases, cell + $step) - greatest(begins, cell) AS lasted
    FROM (SELECT *, unnest(range(begins - begins % $step, ceases, $step)) AS cell FROM spans)
), quoted AS (
    SELECT market_id, cell,
           arg_min(bid, since) FILTER (WHERE bid IS NOT NULL) AS bid_open, max(bid) AS bid_high,
           min(bid) AS bid_low, arg_max(bid, since) FILTER (WHERE bid IS NOT NULL) AS bid_close,
           arg_min(ask, since) FILTER (WHERE ask IS NOT NULL) AS ask_open, max(ask) AS ask_high,
           min(ask) AS ask_low, arg_max(ask, since) FILTER (WHERE ask IS NOT NULL) AS ask_close,
           sum(lasted)::BIGINT AS covered, bool_or(moved AND since = begins) AS moved
    FROM pieces GROUP BY ALL
), traded AS (
    SELECT market_id, recv_ns - recv_ns % $step AS cell,
           arg_min(price, {{a: recv_ns, b: ordinal}}) AS price_open, max(price) AS price_high, min(price) AS price_low,
           arg_max(price, {{a: recv_ns, b: ordinal}}) AS price_close,
           sum(price * size) AS turnover, sum(size) AS volume, count(*) AS trades
    FROM trades GROUP BY ALL
)
SELECT market_id, cell, * EXCLUDE (market_id, cell, moved), coalesce(moved, false) OR trades IS NOT NULL AS moved
FROM quoted FULL JOIN traded USING (market_id, cell)
""".replace("{{", "{").replace("}}", "}")

_JOINED = """
SELECT market_id, cell - cell % $step AS cell,
       {points}, sum(covered)::BIGINT AS covered, bool_or(moved) AS moved, sum(turnover) AS turnover,
       sum(volume) AS volume, sum(trades)::BIGINT AS trades
FROM hours GROUP BY ALL
""".format(
    points=", ".join(
        f"arg_min({name}_open, cell) FILTER (WHERE {name}_open IS NOT NULL) AS {name}_open, "
        f"max({name}_high) AS {name}_high, min({name}_low) AS {name}_low, "
        f"arg_max({name}_close, cell) FILTER (WHERE {name}_close IS NOT NULL) AS {name}_close"
        for name in ("bid", "ask", "price")
    )
)


def hour_candles(hour: CapturedHour, intervals_s: Collection[int]) -> dict[int, pa.Table]:
    """Candles of an hour by interval; ``cell`` is a candle's start (ns), ``covered`` its trusted time (ns).

    Quiet intervals are there too; in those ``moved`` is false.

    Raises:
        ValueError: if an hour is no multiple of an interval.
    """
    for interval_s in intervals_s:
        if HOUR_NS % (interval_s * _SECOND):
            raise ValueError(f"interval {interval_s} s does not divide an hour")
    with duckdb.connect() as connection:
        for name in _READ:
            connection.register(name, getattr(hour, name))
        connection.execute(_TOPS)
        connection.execute(_SPANS, {"start": hour.start_ns, "end": hour.end_ns})
        return {
            interval_s: connection.sql(_CANDLES, params={"step": interval_s * _SECOND}).to_arrow_table()
            for interval_s in intervals_s
        }


def captured_candles(
    lake: Lake,
    venue: str,
    day: Partition,
    now: datetime,
    *,
    intervals_s: Collection[int] = INTERVALS_S,
    markets: Collection[str] | None = None,
) -> pa.Table:
    """Our own candles of a day, of all captured markets or of these, as rows of the table, known at ``now``.

    Only intervals that are over have one. Memory is bounded by an hour of a few hundred markets, and by the result.
    """
    assert day.bounds is not None
    start, end = day.bounds
    now_ns = ns_from_datetime(now)
    inputs = ("quotes", "book_events", "trades")
    hours = {hour.hour for name in inputs for hour in lake.partitions(name, venue) if hour.date == day.date}
    begins = [at for at in range(start, min(end, now_ns), HOUR_NS) if (at - start) // HOUR_NS in hours]
    moved = sorted(captured_markets(lake, venue, start, end, markets)) if begins else []
    lengths = sorted(set(intervals_s))
    made = [table("candles").schema.empty_table()]
    for first in range(0, len(moved), _MARKETS_AT_ONCE):
        hourly = []
        for begin in begins:
            until = min(begin + HOUR_NS, now_ns)
            hour = _read_hour(lake, venue, begin, until, moved[first : first + _MARKETS_AT_ONCE])
            for length, candles in hour_candles(hour, sorted({_HOUR_S, *lengths} - {DAY_S})).items():
                if length in lengths:
                    made.append(_rows(candles, venue, length, now))
                if length == _HOUR_S:
                    hourly.append(candles)
        if DAY_S in lengths:
            made.append(_rows(_joined(hourly, DAY_S), venue, DAY_S, now))
    return pa.concat_tables(made)


def venue_candles(candles: Sequence[Candle], venue: str, interval_s: int, known_at: datetime) -> pa.Table:
    """A venue's own candlesticks as rows of the table."""
    rows = []
    for candle in candles:
        row: dict[str, object] = {
            "venue": venue,
            "market_id": candle.market_id,
            "interval_s": interval_s,
            "begin_at": datetime_from_ns(candle.begin_ns),
            "end_at": datetime_from_ns(candle.end_ns),
            "price_mean": None if candle.mean is None else trade_price_decimal(candle.mean),
            "volume": None if candle.volume is None else size_decimal(candle.volume),
            "open_interest": None if candle.open_interest is None else size_decimal(candle.open_interest),
            "source": "rest",
            "known_at": known_at,
        }
        for name, points, decimal in (
            ("bid", candle.bid, price_decimal),
            ("ask", candle.ask, price_decimal),
            ("price", candle.price, trade_price_decimal),
        ):
            for point, value in zip(("open", "high", "low", "close"), points or (), strict=False):
                row[f"{name}_{point}"] = decimal(value)
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=table("candles").schema)


def renewed(held: pa.Table, rows: pa.Table) -> pa.Table:
    """What a partition holds, with these rows in place of those of their keys; one that says the same stays as it was.

    So a candle's ``known_at`` is when it was first known as it stands, however often it is fetched.
    """
    both = pa.concat_tables([rows, held])
    later, first = repeated(both, table("candles").key)
    same = np.ones(len(later), dtype=np.bool_)
    for name in both.column_names:
        if name != "known_at":
            codes = key_codes(both[name])
            same &= codes[later] == codes[first]
    keep = np.ones(both.num_rows, dtype=np.bool_)
    keep[later[~same]] = False
    keep[first[same]] = False
    return both.filter(pa.array(keep))


def captured_markets(lake: Lake, venue: str, start: int, end: int, markets: Collection[str] | None = None) -> set[str]:
    """Markets (of these) with a quote or a trade received in [start, end) ns."""
    found: set[str] = set()
    for name in ("quotes", "trades"):
        for begin in range(start, end, HOUR_NS):
            ids = lake.read(name, begin, min(begin + HOUR_NS, end), venue, markets=markets, columns=["market_id"])
            found.update(pc.unique(ids["market_id"]).to_pylist())
    return found


def _read_hour(lake: Lake, venue: str, begin: int, until: int, markets: Collection[str]) -> CapturedHour:
    rows = {
        name: lake.read(name, begin, until, venue, markets=markets if "market_id" in columns else None, columns=columns)
        for name, columns in _READ.items()
    }
    return CapturedHour(begin, until, **rows)


def _joined(hours: Sequence[pa.Table], interval_s: int) -> pa.Table:
    """Candles of :func:`hour_candles` put together to longer ones."""
    with duckdb.connect() as connection:
        connection.register("hours", pa.concat_tables(hours))
        return connection.sql(_JOINED, params={"step": interval_s * _SECOND}).to_arrow_table()


def _rows(candles: pa.Table, venue: str, interval_s: int, now: datetime) -> pa.Table:
    """Rows of the table from candles as :func:`hour_candles` gives them."""
    declared = table("candles")
    step = interval_s * _SECOND
    over = ns_from_datetime(now) - step
    made = {
        "venue": "$venue",
        "interval_s": "$interval",
        "begin_at": "make_timestamptz(cell // 1000)",
        "end_at": "make_timestamptz((cell + $step) // 1000)",
        "price_mean": "CASE WHEN volume > 0 THEN turnover END",
        "open_interest": "NULL",
        "coverage": "coalesce(covered, 0) / $step",
        "source": "'ws'",
        "known_at": "$now",
    }
    columns = ", ".join(f'{made.get(name, name)} AS "{name}"' for name in declared.column_names)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("candles", candles)
        query = f"SELECT {columns}, volume AS size FROM candles WHERE moved AND cell <= $over"  # noqa: S608 - own words
        rows = connection.sql(
            query, params={"venue": venue, "interval": interval_s, "step": step, "now": now, "over": over}
        ).to_arrow_table()
    means = [
        None if turnover is None else (turnover / size).quantize(_MEAN_GRID)
        for turnover, size in zip(rows["price_mean"].to_pylist(), rows["size"].to_pylist(), strict=True)
    ]
    rows = rows.set_column(
        rows.schema.get_field_index("price_mean"),
        "price_mean",
        pa.array(means, declared.schema.field("price_mean").type),
    )
    return rows.select(list(declared.column_names)).cast(declared.schema)
