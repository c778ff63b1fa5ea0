"""Small rows for tests of storage."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa

from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.storage import Partition
from arb_pipeline.tables import table

START = ns_from_datetime(datetime(2026, 5, 13, 20, tzinfo=UTC))
HOUR = 3_600_000_000_000
SECOND = 1_000_000_000
TWENTY = Partition.parse("venue=kalshi/date=2026-05-13/hour=20")
TWENTY_ONE = Partition.parse("venue=kalshi/date=2026-05-13/hour=21")


def quotes(*rows: tuple[str, int, int], venue: str = "kalshi") -> pa.Table:
    """(market, seconds after START, ordinal), bid 0.41 at 100.25."""
    return pa.Table.from_pylist(
        [
            {
                "venue": venue,
                "market_id": market,
                "recv_ns": START + seconds * SECOND,
                "ordinal": ordinal,
                "venue_ns": None,
                "seq": ordinal,
                "connection_id": "c1",
                "bid": Decimal("0.41"),
                "bid_size": Decimal("100.25"),
                "ask": None,
                "ask_size": None,
                "in_sync": True,
                "source": "ws",
            }
            for market, seconds, ordinal in rows
        ],
        schema=table("quotes").schema,
    )


def trades(rows: Sequence[tuple[str, int, int, str]], *, connection: str = "c1") -> pa.Table:
    """(trade id, seconds after START, ordinal, price)."""
    return pa.Table.from_pylist(
        [
            {
                "venue": "kalshi",
                "market_id": "M",
                "trade_id": trade_id,
                "recv_ns": START + seconds * SECOND,
                "ordinal": ordinal,
                "venue_ns": START,
                "seq": ordinal,
                "connection_id": connection,
                "price": Decimal(price),
                "size": Decimal(1),
                "taker_side": "yes",
                "source": "ws",
            }
            for trade_id, seconds, ordinal, price in rows
        ],
        schema=table("trades").schema,
    )


def gaps(*rows: tuple[str, int, int | None]) -> pa.Table:
    """(market, from, to), both seconds after START."""
    return pa.Table.from_pylist(
        [
            {
                "venue": "kalshi",
                "market_id": market,
                "connection_id": "c1",
                "ordinal": number,
                "cause": "seq_gap",
                "from_ns": START + begin * SECOND,
                "to_ns": None if end is None else START + end * SECOND,
                "recovery": None if end is None else "snapshot",
            }
            for number, (market, begin, end) in enumerate(rows)
        ],
        schema=table("book_gaps").schema,
    )
