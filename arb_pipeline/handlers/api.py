"""What a handler is written with: the decorators that say what it is told, and what it is told along with it."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar

import msgspec

from arb_pipeline.alerting.alert import Alert
from arb_pipeline.clock import datetime_from_ns
from arb_pipeline.model import (
    AccountEvent,
    Anomaly,
    BookDelta,
    BookSnapshot,
    GapClosed,
    GapOpened,
    MarketChange,
    MarketFacts,
    OrderBook,
    Quote,
    Ticker,
    Trade,
)

__all__ = [
    "KINDS",
    "Alert",
    "Books",
    "HandlerContext",
    "Message",
    "TimePassed",
    "kinds_of",
    "message_types_of",
    "on",
    "on_frame",
]

F = TypeVar("F", bound=Callable[..., object])

_EVENTS: Final = "__handled_events__"
_FRAMES: Final = "__handled_frames__"


class TimePassed(msgspec.Struct, frozen=True, gc=False):
    """About a second went by on a connection; ``at_ns`` is the time now."""

    at_ns: int


class Message(msgspec.Struct, frozen=True):
    """One message of a frame, as the venue sent it.

    Attributes:
        type: the venue's own name of its type (``orderbook_delta``, ``price_change``, ...).
        content: the message, decoded from JSON.
    """

    venue: str
    type: str
    recv_ns: int
    content: Mapping[str, Any]


KINDS: Final[Mapping[str, type]] = {
    "snapshot": BookSnapshot,
    "delta": BookDelta,
    "quote": Quote,
    "trade": Trade,
    "ticker": Ticker,
    "gap_opened": GapOpened,
    "gap_closed": GapClosed,
    "market_change": MarketChange,
    "account": AccountEvent,
    "anomaly": Anomaly,
    "time_passed": TimePassed,
}
"""What :func:`on` can name: the venue-neutral events of :mod:`arb_pipeline.model`, and the time."""


def on(*kinds: str) -> Callable[[F], F]:
    """Have a function or method called with every event of these kinds (see :data:`KINDS`) and a context.

    Raises:
        ValueError: if there is no such kind.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"@on({kind!r}): there is no such event; there are {', '.join(KINDS)}")
    return _marking(_EVENTS, kinds)


def on_frame(venue: str, *types: str) -> Callable[[F], F]:
    """Have a function or method called with every :class:`Message` of these types of a venue, and a context.

    A message's type is what its field ``event_type`` says, or ``type`` where there is none.
    """
    return _marking(_FRAMES, tuple((venue, kind) for kind in types))


def kinds_of(function: object) -> tuple[str, ...]:
    """The kinds of events that a function is to be told."""
    kinds: tuple[str, ...] = getattr(function, _EVENTS, ())
    return kinds


def message_types_of(function: object) -> tuple[tuple[str, str], ...]:
    """The (venue, message type) pairs that a function is to be told."""
    types: tuple[tuple[str, str], ...] = getattr(function, _FRAMES, ())
    return types


def _marking(attribute: str, what: tuple[object, ...]) -> Callable[[F], F]:
    if not what:
        raise ValueError("the decorator names nothing: say what the function is to be told")

    def mark(function: F) -> F:
        setattr(function, attribute, (*getattr(function, attribute, ()), *what))
        return function

    return mark


class Books(Protocol):
    """The books of one connection, as they stand after the newest input."""

    def book(self, market_id: str) -> OrderBook | None:
        """The book of a market, None before its first snapshot."""
        ...

    def in_sync(self, market_id: str) -> bool:
        """Whether the book of a market may be trusted."""
        ...


class HandlerContext:
    """Where an event belongs.

    Attributes:
        handler: the name that the configuration gives the handler.
        venue, market_id: of the event; no market: an empty text.
        facts: what the capture knows of the market, None if this connection does not capture it.
        at_ns: when the event was received, in the capture's time.
        books: the books of its connection.
    """

    __slots__ = ("_notify", "at_ns", "books", "facts", "handler", "market_id", "venue")

    def __init__(
        self,
        *,
        handler: str,
        venue: str,
        market_id: str,
        facts: MarketFacts | None,
        at_ns: int,
        books: Books,
        notify: Callable[[Alert], None],
    ) -> None:
        self.handler = handler
        self.venue = venue
        self.market_id = market_id
        self.facts = facts
        self.at_ns = at_ns
        self.books = books
        self._notify = notify

    @property
    def at(self) -> datetime:
        """The time of :attr:`at_ns`, aware UTC."""
        return datetime_from_ns(self.at_ns)

    @property
    def book(self) -> OrderBook | None:
        """The market's book after the input that the event came with, None before its first snapshot."""
        return self.books.book(self.market_id)

    @property
    def in_sync(self) -> bool:
        """Whether that book may be trusted."""
        return self.books.in_sync(self.market_id)

    def send(self, alert: Alert) -> None:
        """Tell people an alert that was made elsewhere."""
        self._notify(alert)

    def alert(self, message: str, market_id: str | None = None, **details: object) -> None:
        """Tell people: a line of the log, and every channel. Details must be fit for JSON or text."""
        self._notify(
            Alert(
                handler=self.handler,
                venue=self.venue,
                market_id=self.market_id if market_id is None else market_id,
                at_ns=self.at_ns,
                message=message,
                details=details,
            )
        )
