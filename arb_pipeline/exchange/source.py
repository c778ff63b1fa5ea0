"""What the exchange plays: a catalogue, initial books and a timeline of actions, whatever they come from.

Books are in YES terms (Polymarket: outcome 0), prices 1e-4 dollars, sizes 1e-6 contracts. Times of a timeline are
nanoseconds since playback start and never fall.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from arb_pipeline.model import Level, Side

__all__ = [
    "Action",
    "BookRefresh",
    "Closed",
    "InitialBook",
    "Json",
    "KalshiFrame",
    "LevelChange",
    "Listed",
    "PolymarketFrame",
    "Reopened",
    "Source",
    "TradePrint",
]

Json = dict[str, Any]


class InitialBook(msgspec.Struct, frozen=True):
    """A market's book before playback.

    Attributes:
        timestamp_ms: time of its last change by the venue's clock (Polymarket shows it, it enters the hash);
            None means "when the exchange starts".
        last_trade_price: Polymarket's market-level text such as ``"0.430"``, empty if never traded.
        clock: Kalshi's per-market exchange clock, None where the source's era had none.
    """

    bids: tuple[Level, ...] = ()
    asks: tuple[Level, ...] = ()
    timestamp_ms: int | None = None
    last_trade_price: str = ""
    clock: int | None = None


class LevelChange(msgspec.Struct, frozen=True):
    """One level gets a new absolute size; 0 removes it.

    Attributes:
        mark: ``ID:open`` or ``ID:close`` when this very change opens or closes a planted episode or phantom.
    """

    market_id: str
    side: Side
    price: int
    size: int
    mark: str = ""


class TradePrint(msgspec.Struct, frozen=True):
    """A public trade at a YES price; ``outcome`` is the Polymarket token that it is reported for."""

    market_id: str
    price: int
    size: int
    taker: Literal["yes", "no"]
    outcome: int = 0


class BookRefresh(msgspec.Struct, frozen=True):
    """Polymarket sends a market's whole book again, as it does after each trade."""

    market_id: str


class Listed(msgspec.Struct, frozen=True):
    """A market that was hidden so far appears in the catalogue."""

    market_id: str


class Closed(msgspec.Struct, frozen=True):
    """A market stops trading: its book is emptied, and it is settled if there is a result.

    What happens to it while it is closed shows when it opens again, and not before.
    """

    market_id: str
    result: Literal["yes", "no", ""] = ""


class Reopened(msgspec.Struct, frozen=True):
    """A closed market without a result trades again."""

    market_id: str


class KalshiFrame(msgspec.Struct, frozen=True):
    """A recorded Kalshi message, to be sent with its ``msg`` untouched in a new envelope.

    Attributes:
        yes_scale: whether NO prices inside are on the YES scale (``use_yes_price``).
        snapshot: the book that it carries, None if it is no snapshot.
        change: (side of the YES book, price, signed change of size) of a delta, else None.
    """

    market_id: str
    type: str
    msg: str
    yes_scale: bool
    snapshot: InitialBook | None = None
    change: tuple[Side, int, int] | None = None
    clock: int | None = None


class PolymarketFrame(msgspec.Struct, frozen=True):
    """A recorded Polymarket frame, to be sent as it is, with what it does to the books."""

    text: str
    events: tuple[Json, ...]


Action = LevelChange | TradePrint | BookRefresh | Listed | Closed | Reopened | KalshiFrame | PolymarketFrame


class Source(Protocol):
    """A market to be played.

    Attributes:
        name: what it is, for run names, tables and reports (``generated seed 7``).
        live_quotes: whether catalogue answers show the books' current quotes (a recording's stay as recorded).
        has_clock: whether Kalshi order-book messages carry the exchange clock.
        hidden: market ids not listed before their :class:`Listed` action.
    """

    @property
    def name(self) -> str:
        """See the class."""
        ...

    @property
    def live_quotes(self) -> bool:
        """See the class."""
        ...

    @property
    def has_clock(self) -> bool:
        """See the class."""
        ...

    @property
    def hidden(self) -> frozenset[str]:
        """See the class."""
        ...

    def clock_offset_ns(self, now_ns: int) -> int:
        """What to add to the machine's clock so that it reads the time of the source; 0 for the present."""
        ...

    def kalshi_events(self) -> Sequence[Json]:
        """Raw Kalshi events with nested markets, as ``GET /events?with_nested_markets=true`` gives them."""
        ...

    def kalshi_series(self) -> Sequence[Json]:
        """Raw Kalshi series."""
        ...

    def kalshi_fee_changes(self) -> tuple[Sequence[Json], Sequence[Json]]:
        """Raw changes of the fees of series, and of the overrides of events."""
        ...

    def polymarket_events(self) -> Sequence[Json]:
        """Raw Gamma events with nested markets."""
        ...

    def books(self) -> Mapping[str, InitialBook]:
        """Books before playback by market id; a market without one has no book on the venue."""
        ...

    def timeline(self) -> Iterator[tuple[int, Action]]:
        """(nanoseconds since playback start, action), in order; may be endless."""
        ...

    def truth(self) -> Json:
        """What is known to be true: ``pairs``, ``near_misses``, ``implied``, ``episodes``, ``phantoms``."""
        ...
