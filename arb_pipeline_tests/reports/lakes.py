"""A lake as discovery, matching and capture leave it, from pairs and a tape."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from arb_pipeline.arbitrage.pairs import Pair
from arb_pipeline.matching.versions import record_matches
from arb_pipeline.model import Event, Market
from arb_pipeline.settings import Settings
from arb_pipeline.storage.catalogue import write_catalogue
from arb_pipeline.storage.history import record_changes
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline_tests.arbitrage.builders import Tape

__all__ = ["capture", "discover", "match", "match_row", "priced", "settings_in"]


def settings_in(folder: Path, **changes: object) -> Settings:
    """Settings whose files are all below a folder."""
    told: dict[str, Any] = {
        "lake": str(folder / "lake"),
        "reports_path": folder / "reports",
        "matches_path": folder / "matches.yaml",
        **changes,
    }
    return Settings(**told)


def discover(lake: Lake, markets: Sequence[Market], at: datetime, category: str = "Sports") -> None:
    """List these markets, each event with its own, and record what changed."""
    for venue in ("kalshi", "polymarket"):
        mine = [market for market in markets if market.venue == venue]
        ids = sorted({market.event_id for market in mine})
        events = [
            Event(
                venue=venue,
                event_id=event_id,
                title=f"Event {event_id}",
                category=category,
                markets=tuple(market for market in mine if market.event_id == event_id),
            )
            for event_id in ids
        ]
        write_catalogue(lake, venue, events, at)
        record_changes(lake, venue, at)


def match_row(pair: Pair, **changes: object) -> dict[str, Any]:
    """A pair as a row of ``market_matches``."""
    return {
        "kalshi_market_id": pair.kalshi.market_id,
        "polymarket_market_id": pair.polymarket.market_id,
        "polymarket_yes_index": pair.polymarket_yes_index,
        "relation": pair.relation.value,
        "status": pair.status.value,
        "score": 7.5,
        "family": "game_winner",
        "vetoes": "[]",
        "explanation": json.dumps({"caveats": ["void: not compared"], "void_states": {}}),
        "kalshi_rules_sha256": pair.kalshi.rules_sha256,
        "polymarket_rules_sha256": pair.polymarket.rules_sha256,
        "matcher_version": "matcher-7",
        **changes,
    }


def match(lake: Lake, rows: Sequence[dict[str, Any]], at: datetime) -> None:
    """Make these statements what holds from an instant on."""
    record_matches(lake, rows, at)


def capture(lake: Lake, tape: Tape) -> None:
    """Write what a tape holds, each hour to its partition."""
    data = tape.data()
    for name, column in (("quotes", "recv_ns"), ("book_events", "recv_ns"), ("book_gaps", "from_ns")):
        _by_partition(lake, name, getattr(data, name), column)
    _by_partition(lake, "capture_sessions", data.capture_sessions, "started_at")


def _by_partition(lake: Lake, name: str, rows: pa.Table, column: str) -> None:
    places: dict[Partition, list[int]] = {}
    for number, (venue, told) in enumerate(zip(rows["venue"].to_pylist(), rows[column].to_pylist(), strict=True)):
        places.setdefault(Partition.of(name, venue, told), []).append(number)
    for partition, numbers in places.items():
        lake.replace(name, partition, rows.take(pa.array(numbers, pa.int64())))


def priced(market: Market, **changes: object) -> Market:
    """A market whose fees anybody can tell."""
    params = (
        {"fee_type": "quadratic", "fee_multiplier": "1"}
        if market.venue == "kalshi"
        else {"feesEnabled": True, "feeSchedule": {"rate": 0.04, "exponent": 1, "takerOnly": True}}
    )
    return msgspec.structs.replace(market, fee_params=params, **changes)
