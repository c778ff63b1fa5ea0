"""What a report is made of."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa

from arb_pipeline.arbitrage.fees import FeeSource
from arb_pipeline.arbitrage.pairs import MarketData, Pair
from arb_pipeline.model import Market
from arb_pipeline.settings import Settings
from arb_pipeline.tables import table

__all__ = ["AGE_BOUNDS_S", "FILES", "QUOTE_QUALITY", "Books", "ReportInputs"]

Books = Callable[[str, str, datetime], MarketData]
"""(Kalshi market, Polymarket market, instant) to the tables that tell both books as they stood at the instant."""

AGE_BOUNDS_S = (0.1, 1.0, 5.0, 60.0)
"""Bounds of the histogram of quote ages, seconds; the last class has no upper one."""

QUOTE_QUALITY = pa.schema(
    [
        pa.field("venue", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("markets", pa.int64(), nullable=False),
        pa.field("crossed", pa.int64(), nullable=False),
        pa.field("out_of_sync", pa.int64(), nullable=False),
        *(pa.field(f"age_{number}_s", pa.float64(), nullable=False) for number in range(len(AGE_BOUNDS_S) + 1)),
    ]
)
"""Quotes of a venue by source: rows, markets, rows with bid >= ask, rows out of sync, and the time, summed over
markets, in which the newest quote was as old as each class of :data:`AGE_BOUNDS_S` says."""

FILES = pa.schema(
    [
        pa.field("table", pa.string(), nullable=False),
        pa.field("venue", pa.string(), nullable=False),
        pa.field("files", pa.int64(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
    ]
)
"""Files of the window's market data: those that may hold rows of it."""


def _empty(name: str) -> pa.Table:
    return table(name).schema.empty_table()


@dataclass(frozen=True)
class ReportInputs:
    """The tables of a window [start, end) and what explains them.

    Attributes:
        pairs: the pairs evaluated; their markets give titles, rules and pages.
        markets: further markets whose titles the matches may need.
        fees: prices the break-even lines; without it they are left out.
        settings: with ``books``, sizes opportunities at several amounts.
        books: the books of a pair at an instant.
        tops: the newest trusted quote of every market of ``outcome_sets``, rows of ``quotes``.
        settled: accepted opportunities, of any time, of the pairs in ``settlement_agreement``.
        quote_quality: see :data:`QUOTE_QUALITY`. files: see :data:`FILES`; None where it is not to be told.
        categories: the venue's category by Kalshi market id.
        exchange: the local exchange's name if the data comes from one; sessions that name one count as well.
        universe: markets known per venue.
        parameters: what the figures depend on, by name.
        as_of: everything is told as it was known then; None: as it is known now.
        generated_at: stated if given; nothing else in the page depends on when it was made.
    """

    start: datetime
    end: datetime
    spreads: pa.Table = field(default_factory=lambda: _empty("spreads"))
    opportunities: pa.Table = field(default_factory=lambda: _empty("opportunities"))
    rejections: pa.Table = field(default_factory=lambda: _empty("rejections"))
    matches: pa.Table = field(default_factory=lambda: _empty("market_matches"))
    book_gaps: pa.Table = field(default_factory=lambda: _empty("book_gaps"))
    capture_sessions: pa.Table = field(default_factory=lambda: _empty("capture_sessions"))
    execution_backtest: pa.Table = field(default_factory=lambda: _empty("execution_backtest"))
    basis: pa.Table = field(default_factory=lambda: _empty("basis"))
    outcome_sets: pa.Table = field(default_factory=lambda: _empty("outcome_sets"))
    basket_opportunities: pa.Table = field(default_factory=lambda: _empty("basket_opportunities"))
    settlement_agreement: pa.Table = field(default_factory=lambda: _empty("settlement_agreement"))
    match_evaluation: pa.Table = field(default_factory=lambda: _empty("match_evaluation"))
    tops: pa.Table = field(default_factory=lambda: _empty("quotes"))
    settled: pa.Table = field(default_factory=lambda: _empty("opportunities"))
    quote_quality: pa.Table = field(default_factory=QUOTE_QUALITY.empty_table)
    files: pa.Table | None = None
    pairs: Sequence[Pair] = ()
    markets: Iterable[Market] = ()
    fees: FeeSource | None = None
    settings: Settings | None = None
    books: Books | None = None
    categories: Mapping[str, str] = field(default_factory=dict)
    exchange: str = ""
    universe: Mapping[str, int] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    as_of: datetime | None = None
    generated_at: datetime | None = None
    title: str = "Arbitrage report"
