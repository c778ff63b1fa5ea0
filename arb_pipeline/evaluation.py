"""An hour of pairs from the lake to the lake, some pairs at a time: memory does not grow with their number.

No pair's edges depend on another's. The files of an hour are in the order of their markets, so that those of a few are
read without the rest, and ``spreads`` is in the order of pairs, so that they are encoded as they are found.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.arbitrage.backtest import LATENCIES_MS, backtest
from arb_pipeline.arbitrage.fees import FeeBook, FeeSource
from arb_pipeline.arbitrage.opportunities import evaluate_each, funnel, joined, sorted_pieces
from arb_pipeline.arbitrage.pairs import MarketData, Pair
from arb_pipeline.arbitrage.streams import BOOK_COLUMNS, QUOTE_COLUMNS, Polls
from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.opportunities import Written, write_opportunities
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake, Manifest, Partition
from arb_pipeline.storage.mirroring import mirror_tables
from arb_pipeline.storage.tops import row_counts
from arb_pipeline.tables import table

__all__ = ["HourBooks", "HourEvaluation", "evaluate_pairs", "market_data", "polls_of"]

ROWS_AT_ONCE = 1_500_000
"""Rows of quotes and book changes that are evaluated at a time, while as many are read; a pair with more is alone."""

_COLUMNS = {"quotes": QUOTE_COLUMNS, "book_events": BOOK_COLUMNS}
_ANSWERS = ("connection_id", "recv_ns", "source")


@dataclass(frozen=True, slots=True)
class HourEvaluation:
    """What evaluating an hour wrote.

    Attributes:
        spreads: the partition's manifest; its rows may be millions.
        opportunity_pieces, opportunities: rows of the hour.
        rejections: the funnel of the hour's own episodes.
        execution_backtest: rows of the hour's accepted opportunities.
    """

    spreads: Manifest
    opportunity_pieces: pa.Table
    opportunities: pa.Table
    rejections: pa.Table
    execution_backtest: pa.Table


def evaluate_pairs(  # noqa: PLR0917 - what, where, when, and how much of it at once
    settings: Settings,
    lake: Lake,
    pairs: Sequence[Pair],
    source: FeeSource,
    start: datetime,
    rows_at_once: int = ROWS_AT_ONCE,
) -> HourEvaluation:
    """Evaluate pairs over the hour that begins at ``start``, as far as it has gone, and write what was found.

    Some of the pairs at a time are read, evaluated and written.

    Raises:
        ValueError: if the hour has not begun, or a pair is given twice.
    """
    end = min(start + timedelta(hours=1), settings.clock.now())
    if end <= start:
        raise ValueError(f"the hour from {start.isoformat()} has not begun: evaluate it once it has")
    fees = FeeBook(source)
    books = HourBooks(settings, lake, pairs, start, end, rows_at_once)
    parts: list[pa.Table] = []

    def spreads() -> Iterator[pa.Table]:
        for batch, data in books.batches():
            for one in evaluate_each(batch, data, start, end, settings, fees, books.polls):
                parts.append(one.opportunity_pieces)
                yield one.spreads

    manifest = lake.replace_in_order("spreads", Partition.of("spreads", None, start), spreads())
    pieces = sorted_pieces(parts)
    written = write_opportunities(settings, lake, start, pieces)
    backtested = _backtest(settings, lake, pairs, source, written)
    mirror_tables(settings, lake, "spreads", "opportunity_pieces", day=start.date())
    for day in written.days:
        mirror_tables(settings, lake, "opportunities", "rejections", "execution_backtest", day=day)
    rejections = funnel(joined(pieces, end, settings), start.date())
    own = _opened_in(backtested, start)
    return HourEvaluation(manifest, pieces, written.opportunities, rejections, own)


def _backtest(settings: Settings, lake: Lake, pairs: Sequence[Pair], source: FeeSource, written: Written) -> pa.Table:
    """Send orders for the accepted ones of the episodes that were joined anew, whenever they opened, and write them.

    Of the days of these, ``execution_backtest`` is left with rows of accepted opportunities alone: what an episode was
    before it was joined with another one has no row any more.
    """
    accepted = written.joined.filter(written.joined["accepted"])
    hours = {at.replace(minute=0, second=0, microsecond=0) for at in accepted["opened_at"].to_pylist()}
    declared = table("execution_backtest")
    parts = [declared.schema.empty_table()]
    for hour in sorted(hours):
        opened = _opened_in(accepted, hour)
        keys = set(zip(opened["kalshi_market_id"].to_pylist(), opened["polymarket_market_id"].to_pylist(), strict=True))
        # The last of them are matched after the hour.
        end = hour + timedelta(hours=1, milliseconds=max(LATENCIES_MS) + 1)
        until = min(end, settings.clock.now())
        books = HourBooks(settings, lake, [pair for pair in pairs if pair.key in keys], hour, until)
        until_ns = ns_from_datetime(until)
        parts += [
            backtest(batch, data, opened, until_ns, settings, source, books.polls) for batch, data in books.batches()
        ]
    found = pa.concat_tables(parts).sort_by([(name, "ascending") for name in declared.sort])
    rows = found.to_pylist()
    renewed = {_order_of(row) for row in rows}
    for day in written.days:
        midnight = datetime.combine(day, time(), UTC)
        told = lake.read("opportunities", midnight, midnight + timedelta(days=1)).to_pylist()
        kept = {_order_of(row) for row in told if row["accepted"]} - renewed

        def anew(held: pa.Table, day: date = day, kept: set[Order] = kept) -> pa.Table:
            others = [row for row in held.to_pylist() if _order_of(row) in kept]
            of_day = [row for row in rows if row["opened_at"].date() == day]
            return pa.Table.from_pylist([*others, *of_day], schema=declared.schema)

        lake.update("execution_backtest", Partition.of("execution_backtest", None, midnight), anew)
    return found


Order: TypeAlias = tuple[str, str, str, datetime]
"""Kalshi and Polymarket market, direction, and the opening on which an order was sent."""


def _order_of(row: Mapping[str, Any]) -> Order:
    return row["kalshi_market_id"], row["polymarket_market_id"], row["direction"], row["opened_at"]


def _opened_in(rows: pa.Table, hour: datetime) -> pa.Table:
    """Rows of what opened in the hour that begins then."""
    type_ = rows.schema.field("opened_at").type
    low, high = (pa.scalar(at, type_) for at in (hour, hour + timedelta(hours=1)))
    return rows.filter(pc.and_(pc.greater_equal(rows["opened_at"], low), pc.less(rows["opened_at"], high)))


def market_data(settings: Settings, lake: Lake, start: datetime, end: datetime, markets: Collection[str]) -> MarketData:
    """All that is known of these markets' books in [start, end)."""
    quotes, book_events = (
        lake.read(name, start, end, markets=markets, columns=columns) for name, columns in _COLUMNS.items()
    )
    answers = {}
    if any(pc.any(pc.equal(rows["source"], "rest")).as_py() for rows in (quotes, book_events)):
        answers["raw_frames"] = _answers(settings, lake, start, end)
    return MarketData(quotes=quotes, book_events=book_events, **_ledgers(lake, start, end, markets), **answers)


class HourBooks:
    """The books of pairs in [start, end).

    Attributes:
        polls: when polled connections answered, by all of the pairs' markets.
    """

    def __init__(  # noqa: PLR0917 - what, where, when, and how much of it at once
        self,
        settings: Settings,
        lake: Lake,
        pairs: Sequence[Pair],
        start: datetime,
        end: datetime,
        rows_at_once: int = ROWS_AT_ONCE,
    ) -> None:
        self._settings, self._lake, self._start, self._end = settings, lake, start, end
        self._batches = list(self._cut(sorted(pairs, key=lambda pair: pair.key), rows_at_once))
        self.polls = polls_of(settings, lake, start, end, [_ids(batch) for batch in self._batches])

    def batches(self) -> Iterator[tuple[list[Pair], MarketData]]:
        """So many pairs at a time, in the order of their keys, with the data of their markets, as fit into memory."""
        with ThreadPoolExecutor(1) as reader:
            # Files are decoded without Python's lock: the next batch is, while this one is evaluated.
            ahead: Future[MarketData] | None = None
            for number, pairs in enumerate(self._batches, 1):
                data = self._read(pairs) if ahead is None else ahead.result()
                more = number < len(self._batches)
                ahead = reader.submit(self._read, self._batches[number]) if more else None
                yield pairs, data

    def _read(self, pairs: Sequence[Pair]) -> MarketData:
        tables = {name: self._rows(name, pairs, columns) for name, columns in _COLUMNS.items()}
        return MarketData(**tables, **_ledgers(self._lake, self._start, self._end, _ids(pairs)))

    def _rows(self, name: str, pairs: Sequence[Pair], columns: Sequence[str]) -> pa.Table:
        # Venue by venue: one file's rows are in order as they are.
        by_venue: dict[str, set[str]] = {}
        for pair in pairs:
            for market in (pair.kalshi, pair.polymarket):
                by_venue.setdefault(market.venue, set()).add(market.market_id)
        return pa.concat_tables(
            self._lake.read(name, self._start, self._end, venue, markets=ids, columns=columns)
            for venue, ids in by_venue.items()
        )

    def _cut(self, pairs: Sequence[Pair], rows_at_once: int) -> Iterator[list[Pair]]:
        counts: dict[str, int] = {}
        start, end = ns_from_datetime(self._start), ns_from_datetime(self._end)
        venues = {market.venue for pair in pairs for market in (pair.kalshi, pair.polymarket)}
        for name in _COLUMNS:
            for venue in sorted(venues):
                for market, rows in row_counts(self._lake, name, venue, start, end, markets=_ids(pairs)).items():
                    counts[market] = counts.get(market, 0) + rows
        batch: list[Pair] = []
        held = 0
        for pair in pairs:
            rows = sum(counts.get(market, 0) for market in pair.key)
            if batch and held + rows > rows_at_once:
                yield batch
                batch, held = [], 0
            batch.append(pair)
            held += rows
        if batch:
            yield batch


def polls_of(
    settings: Settings, lake: Lake, start: datetime, end: datetime, batches: Sequence[Collection[str]]
) -> Polls:
    """When polled connections answered in [start, end), by the rows of all of these markets.

    Args:
        batches: ids of markets, so many at a time as fit into memory with their rows.
    """
    polls = Polls()
    every = {market_id for batch in batches for market_id in batch}
    if not every or not any(
        lake.read(name, start, end, markets=every, columns=("connection_id",), source="rest").num_rows
        for name in _COLUMNS
    ):
        return polls
    polls.add(_answers(settings, lake, start, end))
    for batch in batches:
        for name in _COLUMNS:
            polls.add(lake.read(name, start, end, markets=batch, columns=_ANSWERS))
    return polls


def _answers(settings: Settings, lake: Lake, start: datetime, end: datetime) -> pa.Table:
    """What was answered to polls, the last answers before included on which a book may still be fresh."""
    still_fresh = timedelta(seconds=settings.max_quote_age_s)
    return lake.read("raw_frames", start - still_fresh, end, columns=_ANSWERS, source="rest")


def _ids(pairs: Sequence[Pair]) -> set[str]:
    return {market_id for pair in pairs for market_id in pair.key}


def _ledgers(lake: Lake, start: datetime, end: datetime, markets: Collection[str]) -> dict[str, pa.Table]:
    return {
        "book_gaps": lake.read("book_gaps", start, end, markets=markets),
        "capture_sessions": lake.read("capture_sessions", start, end),
        "market_history": lake.read("market_history", start, end, markets=markets),
    }
