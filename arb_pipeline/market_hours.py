"""When single markets trade, by the newest catalogue, without the rest of what that tells of them."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.lake_rows import chosen_rows
from arb_pipeline.model import MarketStatus
from arb_pipeline.storage.lake import Lake

__all__ = ["MarketHours", "listed_markets", "open_markets"]


@dataclass(frozen=True, slots=True)
class MarketHours:
    """An open market's times; None where the catalogue has none."""

    venue: str
    open_at: datetime | None
    close_at: datetime | None
    status: MarketStatus = MarketStatus.OPEN


def listed_markets(lake: Lake, market_ids: Collection[str]) -> set[tuple[str, str]]:
    """The (venue, market id) of those markets that the newest catalogue knows, whatever their status."""
    named = pc.field("market_id").isin(pa.array(sorted(market_ids), pa.string()))
    columns = ("venue", "market_id")
    rows = chosen_rows(lake, "markets", lambda: lake.current_files("markets"), columns, named)
    return {*zip(rows["venue"].to_pylist(), rows["market_id"].to_pylist(), strict=True)}


def open_markets(lake: Lake, wanted: Callable[[str, str], bool]) -> dict[tuple[str, str], MarketHours]:
    """By (venue, market id) the wanted ones of the markets that the newest catalogue calls open."""
    is_open = pc.field("status") == MarketStatus.OPEN.value
    columns = ("venue", "market_id", "open_at", "close_at")
    rows = chosen_rows(lake, "markets", lambda: lake.current_files("markets"), columns, is_open)
    keys = zip(rows["venue"].to_pylist(), rows["market_id"].to_pylist(), strict=True)
    chosen = [number for number, key in enumerate(keys) if wanted(*key)]
    return {
        (row["venue"], row["market_id"]): MarketHours(row["venue"], row["open_at"], row["close_at"])
        for row in rows.take(pa.array(chosen, pa.int64())).to_pylist()
    }
