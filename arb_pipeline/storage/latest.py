"""The newest prices of every market: its last quote, as Postgres' ``latest_prices`` has it, and its last trade."""

from collections.abc import Collection
from typing import Final

import numpy as np
import pyarrow as pa

from arb_pipeline.storage.arrow import int_array, key_codes, sort_table
from arb_pipeline.storage.lake import HOUR_NS, Lake
from arb_pipeline.storage.reader import LakeName, Time, instant_ns, open_lake
from arb_pipeline.storage.tops import market_groups
from arb_pipeline.tables import table

__all__ = ["LATEST_SCHEMA", "latest_prices"]

_QUOTES: Final = table("quotes")
_TRADES: Final = table("trades")
_OF_TRADE: Final = {
    "last_price": "price",
    "last_size": "size",
    "last_taker_side": "taker_side",
    "last_trade_ns": "recv_ns",
}
LATEST_SCHEMA: Final = pa.schema(
    [
        *(pa.field(column.name, column.type, column.nullable) for column in _QUOTES.columns),
        *(pa.field(name, _TRADES.schema.field(source).type) for name, source in _OF_TRADE.items()),
        pa.field("age_ns", pa.int64(), nullable=False),
    ]
)
"""The columns of ``quotes``; last_price, last_size, last_taker_side, last_trade_ns (null without a trade); age_ns."""


def latest_prices(
    at: Time,
    *,
    markets: Collection[str] | None = None,
    venue: str | None = None,
    hours: int = 24,
    lake: LakeName = None,
) -> pa.Table:
    """The newest quote of each market received by ``at``, with its last trade, sorted by venue and market.

    A market without a quote in these ``hours`` has no row. ``age_ns`` is the time from the quote to ``at``: a quiet
    book is old without being wrong, so ``in_sync`` says what its newest quote said, not that it is to be traded on.

    Args:
        at: as :func:`arb_pipeline.read` takes it.
        markets: only these.
        venue: only this one.
        hours: how far back to look.
        lake: a folder, an fsspec URL or a :class:`Lake`; None: ``ARB_LAKE``.

    Raises:
        ReadError: if there is no such lake, or the time has no time zone.
    """
    opened, now = open_lake(lake), instant_ns(at, "at")
    venues = sorted({partition.venue or "" for partition in opened.partitions("quotes", venue)})
    found = [LATEST_SCHEMA.empty_table()]
    for name in venues:
        span = now - hours * HOUR_NS, now + 1
        quotes = _newest(opened, "quotes", name, span, markets)
        ids = quotes["market_id"].to_pylist()
        trades = _newest(opened, "trades", name, span, ids)
        places = {market: number for number, market in enumerate(trades["market_id"].to_pylist())}
        chosen = pa.array([places.get(market) for market in ids], pa.int64())
        columns = [quotes[column.name] for column in _QUOTES.columns]
        columns += [trades[source].take(chosen) for source in _OF_TRADE.values()]
        columns.append(pa.chunked_array([int_array(now - quotes["recv_ns"].to_numpy())]))
        found.append(pa.Table.from_arrays(columns, schema=LATEST_SCHEMA))
    return pa.concat_tables(found)


def _newest(lake: Lake, name: str, venue: str, span: tuple[int, int], markets: Collection[str] | None) -> pa.Table:
    """The last row of each market in [start, end), sorted by market; hours are read from the newest back."""
    start, until = span
    found: dict[str, pa.Table] = {}
    while until > start:
        begin = max(start, (until - 1) // HOUR_NS * HOUR_NS)
        for group in market_groups(lake, venue, begin, until, markets=markets, tables=(name,)):
            rows = lake.read(name, begin, until, venue, markets=[market for market in group if market not in found])
            names = rows["market_id"]
            last = np.flatnonzero(np.diff(key_codes(names), append=-1)) if rows.num_rows else ()
            found.update((names[int(at)].as_py(), rows.slice(int(at), 1)) for at in last)
        until = begin
    return sort_table(pa.concat_tables([table(name).schema.empty_table(), *found.values()]), ["market_id"])
