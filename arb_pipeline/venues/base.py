"""The venue interface: everything venue-specific hides behind it, and nothing else asks which venue it is."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from arb_pipeline.errors import ArbError
from arb_pipeline.model import (
    AccountEvent,
    Anomaly,
    BookSnapshot,
    Candle,
    Event,
    FeeChange,
    Market,
    MarketFacts,
    OrderBook,
    Output,
    Side,
    Trade,
)
from arb_pipeline.settings import Settings
from arb_pipeline.venues.fee_timeline import FeeChanges
from arb_pipeline.venues.http import RestClient

__all__ = [
    "Account",
    "ConnectRequest",
    "Credentials",
    "FeeModel",
    "FeeSchedule",
    "FeeUnknownError",
    "Fill",
    "History",
    "Polling",
    "Position",
    "Progress",
    "Session",
    "Venue",
    "VenueError",
]

Progress = Callable[[str, int], None]
"""Called with a step's name and the number of items so far."""


class VenueError(ArbError):
    """A venue answered something that no client can go on from; the message names call, status and body."""


class FeeUnknownError(VenueError):
    """The venue's fee parameters are missing or of a kind that nobody here can price; the message says which.

    Attributes:
        valid_from, valid_to: in [from, to) the answer is the same; None where it is not bounded.
    """

    def __init__(self, message: str, valid_from: datetime | None = None, valid_to: datetime | None = None) -> None:
        super().__init__(message)
        self.valid_from = valid_from
        self.valid_to = valid_to


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """Where to dial and what to send along with the upgrade request. Headers may hold signatures: never log them."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class Credentials(Protocol):
    """Whatever a venue needs to sign; its ``repr`` never shows a secret."""


@dataclass(frozen=True, slots=True)
class FeeSchedule:
    """Which rule priced a fee: a short name, where it is written, and from when it holds."""

    name: str
    source: str
    valid_from: datetime | None = None
    valid_to: datetime | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """Contracts held of one market, ``size`` negative for NO; ``cost``, ``realized_pnl`` and ``fees`` are dollars."""

    market_id: str
    size: Decimal
    cost: Decimal
    realized_pnl: Decimal
    fees: Decimal


@dataclass(frozen=True, slots=True)
class Fill:
    """Contracts that an own order got: ``side`` and ``price`` (dollars) in YES terms, ``fee`` in dollars."""

    fill_id: str
    market_id: str
    at: datetime | None
    side: Side | None
    price: Decimal
    size: Decimal
    fee: Decimal | None
    is_taker: bool | None
    order_id: str


@dataclass(frozen=True, slots=True)
class Account:
    """The own account as the venue's REST API tells it.

    Attributes:
        cash, portfolio_value: dollars.
        fills: newest first.
        events: all of it as rows of ``account_events``: the balance, the positions, the fills.
        anomalies: records that could not be used.
    """

    venue: str
    cash: Decimal
    portfolio_value: Decimal
    positions: tuple[Position, ...]
    fills: tuple[Fill, ...]
    events: tuple[AccountEvent, ...]
    anomalies: tuple[Anomaly, ...]


class FeeModel(Protocol):
    """Exact fees of one market at one time. Prices are dollars, sizes contracts, fees dollars."""

    @property
    def schedule(self) -> FeeSchedule:
        """The schedule that the figures come from."""
        ...

    def taker(self, price: Decimal, size: Decimal) -> Decimal:
        """Fee of an order that takes ``size`` contracts at a single price."""
        ...

    def order(self, fills: Sequence[tuple[Decimal, Decimal]]) -> Decimal:
        """Fee of one taker order filled as (price, size) pieces, with the venue's order-level rounding."""
        ...

    def marginal(self, price: Decimal) -> Decimal:
        """Unrounded taker fee per contract at a price: what a depth walk sorts and stops by."""
        ...

    def received(self, price: Decimal, size: Decimal) -> Decimal:
        """Contracts that a buyer holds who takes ``size`` at one price.

        Less than ``size`` where the fee is taken in contracts: ``taker`` and ``order`` then tell what those were worth
        at the price, and that is not paid on top of it.
        """
        ...


class Session(Protocol):
    """A sans-I/O state machine of one WebSocket connection: no sockets, clocks or logging inside.

    Every method that may say something returns a list of outputs: venue-neutral events in the order in which they
    happened, and commands for whoever owns the socket. ``receive`` never raises, whatever the frame.
    """

    venue: str
    connection_id: str

    def connect_request(self, wall_ms: int) -> ConnectRequest:
        """URL and freshly signed headers. ``wall_ms`` is the unshifted wall clock."""
        ...

    def connected(self, now_ns: int) -> list[Output]:
        """The socket is open: all state of an earlier connection is void. Returns what must be sent first."""
        ...

    def subscribe(self, markets: Sequence[MarketFacts], now_ns: int) -> list[Output]:
        """Ask for these markets; their books are untrusted until their snapshots arrive."""
        ...

    def unsubscribe(self, market_ids: Sequence[str], now_ns: int) -> list[Output]:
        """Drop these markets and forget their books."""
        ...

    def receive(self, frame: str | bytes, recv_ns: int) -> list[Output]:
        """Turn one frame into events and commands."""
        ...

    def rest_book(self, market_id: str, body: bytes, recv_ns: int) -> list[Output]:
        """Take the REST answer to a ``FetchBooks`` command.

        On a session that was never :meth:`connected` (a polled market) the answer is the book itself.
        """
        ...

    def tick(self, now_ns: int) -> list[Output]:
        """Let time pass: keep-alives, deadlines and liveness. Call it about once a second."""
        ...

    def disconnected(self, now_ns: int, cause: str) -> list[Output]:
        """The socket is gone: every book becomes untrusted (a gap is opened for each)."""
        ...

    def book(self, market_id: str) -> OrderBook | None:
        """The book of a market, None before its first snapshot."""
        ...

    def in_sync(self, market_id: str) -> bool:
        """Whether the book of a market may be trusted now."""
        ...

    def snapshots(self, now_ns: int) -> list[BookSnapshot]:
        """A snapshot of every book held (``reason="hour"``), for the start of a partition."""
        ...


class Polling(Protocol):
    """How a venue's market data is read over REST where its WebSocket cannot be used."""

    markets_per_call: int
    """Order books that one request of :meth:`Venue.fetch_books` brings."""

    def trade_pages(self, client: RestClient, since_ns: int) -> AsyncIterator[bytes]:
        """Pages of the venue's trades (of all its markets) since a venue time, newest first.

        Raises:
            HttpStatusError, httpx.TransportError: if a page is not to be had.
            VenueError: if a page is not of the documented form; the listing is then incomplete.
        """
        ...

    def trades(self, page: bytes, recv_ns: int) -> list[Trade | Anomaly]:
        """The trades of a page in its order; one that cannot be used becomes an anomaly with itself as the example."""
        ...


class History(Protocol):
    """What a venue tells over REST about the past."""

    intervals_s: tuple[int, ...]
    """Lengths of candlesticks that it has, seconds, shortest first."""

    def candles(
        self, client: RestClient, markets: Sequence[str], interval_s: int, start_ns: int, end_ns: int
    ) -> AsyncIterator[list[Candle | Anomaly]]:
        """The candlesticks of these markets that begin in [start, end), answer by answer; quiet intervals have none.

        Raises:
            HttpStatusError, httpx.TransportError: if an answer is not to be had.
            VenueError: if one is not of the documented form.
        """
        ...

    def trades(
        self, client: RestClient, market_id: str, start_ns: int, end_ns: int
    ) -> AsyncIterator[list[Trade | Anomaly]]:
        """The trades of a market that were made in [start, end), page by page.

        Their ``recv_ns`` is the venue's time of the trade: nobody received them when they were made.

        Raises:
            HttpStatusError, httpx.TransportError: if a page is not to be had.
            VenueError: if one is not of the documented form.
        """
        ...


class Venue(Protocol):
    """One prediction market."""

    name: str

    @property
    def history(self) -> History | None:
        """How to read its past; None where the past cannot be read exactly enough for the tables."""
        ...

    @property
    def polling(self) -> Polling | None:
        """How to do without the WebSocket; None where there is no need."""
        ...

    def credentials(self, settings: Settings) -> Credentials | None:
        """The venue's credentials from settings, None where none are set.

        Raises:
            VenueError: if they are set but unusable (no such file, not a key), saying which setting and why.
        """
        ...

    def rest_client(self, settings: Settings, credentials: Credentials | None = None) -> RestClient:
        """A polite client of the venue's REST API; use it as an async context manager."""
        ...

    def catalogue(
        self, client: RestClient, settings: Settings, progress: Progress | None = None
    ) -> AsyncIterator[Event]:
        """Page through the venue's open events with their markets."""
        ...

    def session(self, connection_id: str, settings: Settings, credentials: Credentials | None = None) -> Session:
        """A fresh session; nothing is dialled."""
        ...

    def account_session(
        self, connection_id: str, settings: Settings, credentials: Credentials | None
    ) -> Session | None:
        """A session of its own connection with the private channels only; None where the venue has none.

        It says :class:`~arb_pipeline.model.AccountEvent` and has no books. Subscribing markets tells it their tokens.
        Without credentials it cannot connect, but reads what was received, as the one with credentials does.
        """
        ...

    async def account(self, client: RestClient, recv_ns: int, since_ns: int = 0) -> Account | None:
        """Balance, positions, and fills since a venue time, by a client with credentials; None if not supported.

        Raises:
            HttpStatusError: if the venue refuses, 401 without or with wrong credentials.
            VenueError: if an answer is not of the documented form.
        """
        ...

    def replay_session(self, connection_id: str, settings: Settings, meta: Mapping[str, object]) -> Session:
        """A session for recorded frames: it takes subscriptions that nobody acknowledged and unknown markets.

        ``meta`` holds the options that the recording was subscribed with (:attr:`Recording.meta`).
        """
        ...

    def can_stream(self, credentials: Credentials | None) -> bool:
        """Whether the venue's WebSocket can be used with these credentials."""
        ...

    def maintenance(self, at: datetime) -> tuple[datetime, datetime] | None:
        """The planned pause, [start, end) in UTC, that a time falls in: sockets close and need not be dialled often."""
        ...

    def fees(self, market: Market, at: datetime, settings: Settings, changes: FeeChanges | None = None) -> FeeModel:
        """The fee model of a market at a time.

        Args:
            changes: the parameters by time, as far as they are known; without them, those of the market's catalogue
                record count as having held all along.

        Raises:
            FeeUnknownError: if the parameters are missing, not known at that time, or of an unknown kind.
        """
        ...

    async def fee_changes(
        self, client: RestClient, settings: Settings, events: Sequence[Event], at: datetime, known: Sequence[FeeChange]
    ) -> list[FeeChange]:
        """All that is known of the venue's fee parameters by time, after a listing of its catalogue.

        Args:
            events: the listing.
            at: when it was made.
            known: what was known before; of this, what the answer leaves out holds no more.
        """
        ...

    def markets_per_connection(self, settings: Settings) -> int:
        """So many markets go over one connection, by the venue's limits."""
        ...

    async def fetch_books(self, client: RestClient, markets: Sequence[MarketFacts]) -> dict[str, bytes]:
        """Order books by REST: market id to the body that ``Session.rest_book`` takes; unknown ones are left out."""
        ...

    def parse_event(self, record: Mapping[str, object]) -> Event:
        """One raw catalogue record (an event with nested markets, as recordings keep them) into an event.

        Raises:
            VenueError: if the record lacks its identity.
        """
        ...

    async def find_markets(self, client: RestClient, text: str) -> list[Market]:
        """The markets that a person means by an id, a slug or a page's address; an event stands for all of its markets.

        Raises:
            VenueError: if the venue knows nothing by that name.
            HttpStatusError: if the venue refuses for another reason.
        """
        ...

    def recording_options(self) -> Mapping[str, object]:
        """The options that live sessions subscribe with, as ``meta.json`` of a recording keeps them."""
        ...
