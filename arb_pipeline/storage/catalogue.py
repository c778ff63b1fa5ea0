"""The catalogue in the lake: tables ``events`` and ``markets``, written from and read back into model objects."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.model import Event, Market, MarketStatus, PriceRange, SettlementSource
from arb_pipeline.storage.arrow import decimal_array
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline.tables import Table, table

__all__ = [
    "events_of",
    "events_table",
    "markets_of",
    "markets_table",
    "newest_markets",
    "read_events",
    "read_markets",
    "write_catalogue",
]

Value: TypeAlias = str | int | bool | datetime | None

_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    "tags": msgspec.json.Decoder(tuple[str, ...]),
    "series_ids": msgspec.json.Decoder(tuple[str, ...]),
    "tag_ids": msgspec.json.Decoder(tuple[str, ...]),
    "settlement_sources": msgspec.json.Decoder(tuple[SettlementSource, ...]),
    "outcomes": msgspec.json.Decoder(tuple[str, str]),
    "price_ranges": msgspec.json.Decoder(tuple[PriceRange, ...]),
    "fee_params": msgspec.json.Decoder(dict[str, Any]),
    "strike": msgspec.json.Decoder(dict[str, Any]),
}
_NOT_IN_MODEL = frozenset({"market_count", "fetched_at"})


def write_catalogue(lake: Lake, venue: str, events: Iterable[Event], fetched_at: datetime) -> dict[str, int]:
    """Make these events, with their markets, the venue's catalogue of the day of ``fetched_at``.

    What an earlier listing of the day told and this one does not (a listing asks for what is open) stays with the time
    at which it was last told: an hour in which it was traded may be evaluated again. An empty listing clears the day.

    An event listed twice (pages shift while they are read) counts once, the later one; a market listed under two
    events counts once, under the first.

    Returns:
        Rows written by table.

    Raises:
        LakeError: if an event is of another venue.
    """
    unique = {event.event_id: event for event in events}
    tables = {
        "markets": markets_table(unique.values(), fetched_at),
        "events": events_table(unique.values(), fetched_at),
    }
    for name, rows in tables.items():
        if not rows.num_rows:
            lake.replace(name, Partition.of(name, venue, fetched_at), rows)
            continue
        lake.update(name, Partition.of(name, venue, fetched_at), partial(_with_left, rows, table(name).key[-1]))
    return {name: rows.num_rows for name, rows in tables.items()}


def _with_left(rows: pa.Table, key: str, held: pa.Table) -> pa.Table:
    """A listing with those rows of the day's earlier ones of which it tells nothing."""
    earlier = pc.less(held["fetched_at"], rows["fetched_at"][0])
    gone = pc.invert(pc.is_in(held[key], value_set=rows[key].combine_chunks()))
    return pa.concat_tables([rows, held.filter(pc.and_(earlier, gone)).select(rows.column_names)])


def events_table(events: Iterable[Event], fetched_at: datetime) -> pa.Table:
    """Rows of table ``events``."""
    listed = list(events)
    extra: dict[str, list[Value]] = {
        "market_count": [len(event.markets) for event in listed],
        "fetched_at": [fetched_at] * len(listed),
    }
    return _rows(table("events"), listed, extra)


def markets_table(events: Iterable[Event], fetched_at: datetime) -> pa.Table:
    """Rows of table ``markets``: the markets of these events, each once."""
    unique: dict[str, Market] = {}
    for event in events:
        for market in event.markets:
            unique.setdefault(market.market_id, market)
    markets = list(unique.values())
    return _rows(table("markets"), markets, {"fetched_at": [fetched_at] * len(markets)})


def read_events(lake: Lake, venue: str | None = None, *, nested: bool = True) -> list[Event]:
    """The newest catalogue, by venue and event id; the markets of an event by market id.

    What was written comes back equal, but for the order of an event's markets, which the table does not keep.

    Args:
        nested: read the events' markets too.
    """
    by_event: defaultdict[tuple[str, str], list[Market]] = defaultdict(list)
    for market in read_markets(lake, venue) if nested else ():
        by_event[market.venue, market.event_id].append(market)
    events = events_of(lake.current("events", venue))
    return [msgspec.structs.replace(event, markets=tuple(by_event[event.venue, event.event_id])) for event in events]


def read_markets(lake: Lake, venue: str | None = None) -> list[Market]:
    """The markets of the newest catalogue, by venue and market id."""
    return markets_of(lake.current("markets", venue))


def newest_markets(lake: Lake, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Market]:
    """These markets by (venue, market id), each as the newest catalogue tells it that has it, however old.

    Listings ask for what is open, so that a market that has settled stands in older ones only.
    """
    found: dict[tuple[str, str], Market] = {}
    for venue in sorted({venue for venue, _ in keys}):
        left = {market_id for of, market_id in keys if of == venue}
        for partition in reversed(lake.partitions("markets", venue)):
            if not left:
                break
            bounds = partition.bounds
            assert bounds is not None, "catalogues are kept by day"
            told = markets_of(lake.read("markets", *bounds, venue, markets=left))
            found |= {(venue, market.market_id): market for market in told}
            left -= {market.market_id for market in told}
    return found


def events_of(rows: pa.Table) -> list[Event]:
    """Rows of table ``events`` as events without their markets."""
    return [msgspec.convert(record, Event) for record in _records(table("events"), rows)]


def markets_of(rows: pa.Table) -> list[Market]:
    """Rows of table ``markets`` as markets."""
    return [Market(**record) for record in _records(table("markets"), rows)]


def _rows(declared: Table, items: Sequence[Event | Market], extra: Mapping[str, list[Value]]) -> pa.Table:
    columns = []
    for column in declared.columns:
        values = extra.get(column.name)
        if values is None:
            values = [getattr(item, column.name) for item in items]
        columns.append(_column(column.name, column.type, values))
    return pa.Table.from_arrays(columns, schema=declared.schema)


def _column(name: str, type_: pa.DataType, values: Sequence[Any]) -> pa.Array:
    if pa.types.is_decimal(type_):
        valid = np.array([value is not None for value in values], dtype=np.bool_)
        return decimal_array(np.array([value or 0 for value in values], dtype=np.int64), type_, valid)
    if name in _DECODERS:
        values = [msgspec.json.encode(value).decode() for value in values]
    elif pa.types.is_timestamp(type_):
        values = [None if value is None else ns_from_datetime(value) // 1_000 for value in values]
    return pa.array(values, type_)


def _records(declared: Table, rows: pa.Table) -> list[dict[str, Any]]:
    """Rows as keyword arguments of the model class."""
    records: list[dict[str, Any]] = rows.select(
        [name for name in declared.column_names if name not in _NOT_IN_MODEL]
    ).to_pylist()
    decimals = [(column.name, column.type.scale) for column in declared.columns if pa.types.is_decimal(column.type)]
    structured = {name: _DECODERS[name] for name in declared.column_names if name in _DECODERS}
    for record in records:
        for name, scale in decimals:
            if record[name] is not None:
                record[name] = int(record[name].scaleb(scale))
        for name, decoder in structured.items():
            # A file from before the column was there has nulls: the model's default stands for them.
            text = record.pop(name)
            if text is not None:
                record[name] = decoder.decode(text)
        if "status" in record:
            record["status"] = MarketStatus(record["status"])
    return records
