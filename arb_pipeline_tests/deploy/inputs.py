"""What a capture of some hours and a matching leave in a lake, made up: the input of the partitioned assets."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from random import Random

import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.model import Event, MarketStatus
from arb_pipeline.storage.catalogue import write_catalogue
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline.tables import table
from arb_pipeline_tests.arbitrage.builders import START, Tape, market

PAIRS = 3
DAYS = (date(2026, 7, 14), date(2026, 7, 15))
HOURS = tuple(datetime(day.year, day.month, day.day, hour, tzinfo=UTC) for day in DAYS for hour in (9, 10))
_FEES: dict[str, dict[str, object]] = {
    "kalshi": {"fee_type": "quadratic", "fee_multiplier": 1},
    "polymarket": {"feesEnabled": False},
}
_CHANGES = 120
_SHIFTED = ("recv_ns", "from_ns", "to_ns")
_SHIFTED_TIMES = ("started_at", "ended_at")


def fill(lake: Lake) -> None:
    """Catalogues, pairs, and every hour of :data:`HOURS` of both venues."""
    seen = datetime(2026, 7, 14, 8, tzinfo=UTC)
    for venue in ("kalshi", "polymarket"):
        markets = [
            market(
                venue,
                _id(venue, number),
                fee_params=_FEES[venue],
                status=MarketStatus.OPEN,
                close_at=START + timedelta(days=30),
            )
            for number in range(PAIRS)
        ]
        write_catalogue(lake, venue, [Event(venue=venue, event_id="E", title="E", markets=tuple(markets))], seen)
    lake.replace("market_matches", Partition.of("market_matches", None, seen), _matches(seen))
    for number, hour in enumerate(HOURS):
        tables = _hour(Random(number), number)
        shift = ns_from_datetime(hour) - ns_from_datetime(START)
        for name, rows in tables.items():
            moved = _moved(rows, shift)
            for venue in ("kalshi", "polymarket"):
                of_venue = moved.filter(pc.equal(moved["venue"], venue))
                lake.write_part(name, Partition.of(name, venue, hour), of_venue, f"hour-{number}")


def _id(venue: str, number: int) -> str:
    return f"KX{number}" if venue == "kalshi" else f"0x{number}"


def _hour(random: Random, number: int) -> dict[str, pa.Table]:
    """Both books of every pair around one price that wanders, so that now and then they cross each other."""
    tape = Tape()
    connections = {venue: f"{venue}-{number}" for venue in ("kalshi", "polymarket")}
    for venue, connection in connections.items():
        tape.session(venue, 0, 3_599, connection)
    for pair in range(PAIRS):
        price = random.randint(30, 70)
        for venue, connection in connections.items():
            tape.snapshot(
                venue,
                1 + pair,
                _levels(price - 2, -1),
                _levels(price + 2, 1),
                market_id=_id(venue, pair),
                connection=connection,
            )
        for step in range(_CHANGES):
            venue = random.choice(("kalshi", "polymarket"))
            side, direction = random.choice((("bid", -1), ("ask", 1)))
            cents = price + direction * random.randint(1, 6)
            tape.change(
                venue,
                10 + step * 29 + pair,
                side,  # type: ignore[arg-type]
                f"{cents / 100:.2f}",
                str(random.choice((0, 0, 5, 20, 75))),
                market_id=_id(venue, pair),
                connection=connections[venue],
            )
            if step % 10 == 9:
                price = min(90, max(10, price + random.choice((-4, 0, 4))))
    data = tape.data()
    return {name: getattr(data, name) for name in ("quotes", "book_events", "capture_sessions")}


def _levels(cents: int, step: int) -> list[tuple[str, str]]:
    return [(f"{(cents + step * level) / 100:.2f}", "50") for level in range(3)]


def _moved(rows: pa.Table, shift: int) -> pa.Table:
    for name in rows.column_names:
        column = rows[name]
        if name in _SHIFTED:
            column = pc.add(column, shift)
        elif name in _SHIFTED_TIMES:
            column = pc.add(column, pa.scalar(shift // 1_000, pa.duration("us"))).cast(column.type)
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), column)
    return rows


def _matches(at: datetime) -> pa.Table:
    declared = table("market_matches")
    rows: Sequence[dict[str, object]] = [
        {
            "kalshi_market_id": _id("kalshi", number),
            "polymarket_market_id": _id("polymarket", number),
            "polymarket_yes_index": 0,
            "relation": "equivalent",
            "status": "auto",
            "score": 1.0,
            "family": "made up",
            "vetoes": "[]",
            "explanation": "{}",
            "kalshi_rules_sha256": "",
            "polymarket_rules_sha256": "",
            "matcher_version": "test",
            "valid_from": at,
            "valid_to": None,
            "known_at": at,
        }
        for number in range(PAIRS)
    ]
    return pa.Table.from_pylist(list(rows), schema=declared.schema)
