"""Live books of a few named markets of any venues, side by side, as ``arb watch`` shows them.

The sockets are the recorder's and the books its sessions'; nothing is kept. Prices are in
YES terms on every venue.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from arb_pipeline.arbitrage.ladders import Execution, Leg, optimise
from arb_pipeline.capture.recorder import Recorder
from arb_pipeline.capture.serve import run_until_signalled
from arb_pipeline.capture.summary import CaptureStatus
from arb_pipeline.errors import ArbError
from arb_pipeline.model import BookDelta, BookSnapshot, Level, Market, MarketStatus, OrderBook, Output
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake
from arb_pipeline.units import ONE, format_plain, price_decimal, size_decimal
from arb_pipeline.venues import VENUES
from arb_pipeline.venues.base import FeeModel, FeeUnknownError, Session, Venue

__all__ = ["BookView", "Gap", "HeldBook", "View", "Watching", "find", "look", "parse_names", "watch"]

_ALIASES = {"poly": "polymarket"}
_LADDERS = 6
"""So many markets are shown with their ladders; of more only the tops are."""
_FLUSH_S = 1.0
_TITLE = 44

MarketKey = tuple[str, str]
"""(venue, market id)."""


@dataclass(frozen=True, slots=True)
class BookView:
    """One market's book at one moment: levels best first; ``age_s`` since its newest change, None before a book came.

    ``message`` says why there is none, empty if nothing is known to be wrong.
    """

    market: Market
    bids: tuple[Level, ...] = ()
    asks: tuple[Level, ...] = ()
    in_sync: bool = False
    age_s: float | None = None
    message: str = ""

    def document(self, depth: int) -> dict[str, Any]:
        """Plain values; prices are dollars, sizes contracts, as exact text."""
        return {
            "venue": self.market.venue,
            "market_id": self.market.market_id,
            "title": _title(self.market),
            "status": self.market.status.value,
            "in_sync": self.in_sync,
            "age_s": None if self.age_s is None else round(self.age_s, 3),
            "bids": [[_price(price), _size(size)] for price, size in self.bids[:depth]],
            "asks": [[_price(price), _size(size)] for price, size in self.asks[:depth]],
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class Gap:
    """Buying YES of one market and NO of the other, if both ask the same question.

    Attributes:
        gap: 1 less both prices at the tops, dollars per contract; ``fees`` unrounded taker fees there.
        best: the most profitable size with exact fees; None if none earns anything.
        reason: why the figures are unknown, empty if they are known.
    """

    yes: Market
    no: Market
    gap: Decimal | None = None
    fees: Decimal | None = None
    best: Execution | None = None
    reason: str = ""

    @property
    def net(self) -> Decimal | None:
        """Gap less fees, dollars per contract."""
        return None if self.gap is None or self.fees is None else self.gap - self.fees

    def document(self) -> dict[str, Any]:
        """Plain values; money as exact text."""
        figures = {"gap": self.gap, "fees": self.fees, "net": self.net}
        return {
            "yes": {"venue": self.yes.venue, "market_id": self.yes.market_id},
            "no": {"venue": self.no.venue, "market_id": self.no.market_id},
            **{name: None if value is None else _plain(value) for name, value in figures.items()},
            "best_size": _plain(self.best.size) if self.best else None,
            "best_net": _plain(self.best.net) if self.best else None,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class View:
    """All books at one moment, and the gaps if exactly two markets of different venues are watched."""

    at: datetime
    exchange: str
    books: tuple[BookView, ...]
    gaps: tuple[Gap, ...]

    @property
    def complete(self) -> bool:
        """Whether every book is there and to be trusted."""
        return all(book.in_sync for book in self.books)

    def document(self, depth: int) -> dict[str, Any]:
        """Plain values."""
        return {
            "at": self.at.isoformat(),
            "exchange": self.exchange,
            "markets": [book.document(depth) for book in self.books],
            "gaps": [gap.document() for gap in self.gaps],
        }

    def render(self, depth: int) -> RenderableType:
        """The same for a terminal."""
        head = Text(f"{self.at:%Y-%m-%d %H:%M:%S} UTC, YES terms, dollars and contracts")
        if self.exchange:
            head.append(f"  {self.exchange}: not real market data", "bold yellow")
        parts: list[RenderableType] = [head]
        if len(self.books) <= _LADDERS:
            beside = Table.grid(padding=(1, 3))
            for pair in (self.books[start : start + 2] for start in range(0, len(self.books), 2)):
                beside.add_row(*(_ladder(book, depth) for book in pair))
            parts.append(beside)
        else:
            parts.append(_tops(self.books))
        if self.gaps:
            parts.append(_gap_table(self.gaps))
        return Group(*parts)


Show = Callable[[View], bool]
"""Shown a view; True ends the watch."""


def parse_names(words: Sequence[str], venues: Mapping[str, Venue] = VENUES) -> list[tuple[Venue, str]]:
    """``VENUE MARKET`` pairs; ``poly`` stands for ``polymarket``.

    Raises:
        ArbError: if the words are no pairs, or a venue does not exist.
    """
    if not words or len(words) % 2:
        raise ArbError("name markets as VENUE MARKET, for example: kalshi KXFED-26DEC poly fed-decision-in-december")
    named = []
    for given, text in zip(words[::2], words[1::2], strict=True):
        name = _ALIASES.get(given.lower(), given.lower())
        if name not in venues:
            raise ArbError(f"no venue {given!r}; there are {', '.join(venues)}")
        named.append((venues[name], text))
    return named


async def find(settings: Settings, named: Sequence[tuple[Venue, str]]) -> list[Market]:
    """The markets that are meant, each once: of an event those that are open, or all if none is.

    Raises:
        VenueError: if a venue knows nothing by a name.
        HttpStatusError, httpx.TransportError: if a venue cannot be asked.
    """
    found: dict[MarketKey, Market] = {}
    for venue, text in named:
        async with venue.rest_client(settings) as client:
            markets = await venue.find_markets(client, text)
        still_open = [market for market in markets if market.status is MarketStatus.OPEN]
        found.update({(market.venue, market.market_id): market for market in still_open or markets})
    return list(found.values())


async def watch(
    settings: Settings,
    markets: Sequence[Market],
    show: Show,
    stop: asyncio.Event,
    *,
    refresh_s: float = 0.25,
    venues: Mapping[str, Venue] = VENUES,
) -> None:
    """Show the books of the markets again and again until ``show`` returns True or ``stop`` is set.

    Raises:
        ArbError: if none of the venues can be streamed.
    """
    watching = Watching(settings, markets, venues)
    await watching.run(lambda: show(watching.view()), stop, refresh_s)


def look(settings: Settings, markets: Sequence[Market], wait_s: float, venues: Mapping[str, Venue] = VENUES) -> View:
    """The books once all of them are in sync, or as they are after ``wait_s`` seconds or at a signal.

    Raises:
        ArbError: if none of the venues can be streamed.
    """
    views: list[View] = []
    deadline = time.monotonic() + wait_s

    def enough(view: View) -> bool:
        views.append(view)
        del views[:-1]
        return view.complete or time.monotonic() > deadline

    run_until_signalled(lambda stop: watch(settings, markets, enough, stop, refresh_s=0.05, venues=venues))
    return views[-1]


@dataclass(frozen=True, slots=True)
class HeldBook:
    """A session's own book, which goes on changing; ``changed_ns``: receive time of its newest change."""

    book: OrderBook
    in_sync: bool
    changed_ns: int


class Watching:
    """The watched markets with the sessions that keep their books."""

    def __init__(self, settings: Settings, markets: Sequence[Market], venues: Mapping[str, Venue] = VENUES) -> None:
        self._settings = settings
        self._markets = markets
        self._venues = {market.venue: venues[market.venue] for market in markets}
        self._sessions: list[_SessionTap] = []
        self._messages: dict[str, str] = {}
        self._recorder: Recorder | None = None

    async def run(self, show: Callable[[], bool], stop: asyncio.Event, refresh_s: float) -> None:
        """Keep the books, and call ``show`` again and again until it returns True or ``stop`` is set.

        Raises:
            ArbError: if none of the venues can be streamed.
        """
        self._recorder = self._new_recorder()
        running = asyncio.create_task(self._recorder.run(stop, self._on_progress))
        try:
            while not running.done():
                await asyncio.wait({running}, timeout=refresh_s)
                if show():
                    stop.set()
                    break
            summary = await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        if summary.stop_reason == "nothing_to_capture":
            reasons = "; ".join(figures.message for figures in summary.venues.values() if figures.message)
            raise ArbError(f"nothing to watch: {reasons}")

    def _new_recorder(self) -> Recorder:
        """A recorder that keeps nothing."""
        by_venue = {name: [market for market in self._markets if market.venue == name] for name in self._venues}
        tapped = {name: cast("Venue", _VenueTap(venue, self._sessions)) for name, venue in self._venues.items()}
        settings = self._settings.model_copy(update={"capture_flush_s": _FLUSH_S, "max_seconds": None})
        lake = Lake(settings.lake, settings.exchange_name)
        return Recorder(settings, lake, settings.clock, "watch", by_venue, venues=tapped, keep=False)

    async def _on_progress(self, status: CaptureStatus) -> None:
        """Keep what the connections say about themselves."""
        self._messages = {name: figures.message for name, figures in status.venues.items()}

    def held(self, market: Market) -> "HeldBook | None":
        """A market's book as it stands; None before it came."""
        for session in self._sessions:
            changed = session.changed.get((market.venue, market.market_id))
            book = session.book(market.market_id)
            if changed is not None and book is not None:
                return HeldBook(book, session.in_sync(market.market_id) and self._polls_well(market), changed)
        return None

    def _polls_well(self, market: Market) -> bool:
        """Whether the market's book, where it is polled, has a young answer; sessions know nothing of polls."""
        polled = None if self._recorder is None else self._recorder.polled(market.venue, market.market_id)
        max_age_ns = round(self._settings.max_quote_age_s * 1e9)
        return polled is None or polled.trusts(market.market_id, self._settings.clock.now_ns(), max_age_ns)

    def message(self, market: Market) -> str:
        """What the market's venue says about its connections, empty if nothing is wrong."""
        return self._messages.get(market.venue, "")

    def view(self) -> View:
        """The books as they stand."""
        books = tuple(self._book(market) for market in self._markets)
        at = self._settings.clock.now()
        gaps: tuple[Gap, ...] = ()
        if len(books) == 2 and books[0].market.venue != books[1].market.venue:
            gaps = tuple(self._gap(yes, no, at) for yes, no in (books, books[::-1]))
        return View(at, self._settings.exchange_name, books, gaps)

    def _book(self, market: Market) -> BookView:
        held = self.held(market)
        if held is None:
            return BookView(market, message=self.message(market) or "no book yet")
        age = (self._settings.clock.now_ns() - held.changed_ns) / 1e9
        bids, asks = tuple(held.book.bid_levels()), tuple(held.book.ask_levels())
        return BookView(market, bids, asks, held.in_sync, age, "" if held.in_sync else self.message(market))

    def _gap(self, yes: BookView, no: BookView, at: datetime) -> Gap:
        unknown = Gap(yes.market, no.market)
        for book in (yes, no):
            if not book.in_sync:
                return replace(unknown, reason=f"the book of {book.market.venue} is not in sync")
        if not yes.asks or not no.bids:
            return replace(unknown, reason=f"nobody sells {'YES' if not yes.asks else 'NO'}")
        yes_price, no_price = price_decimal(yes.asks[0][0]), price_decimal(ONE - no.bids[0][0])
        priced = replace(unknown, gap=1 - yes_price - no_price)
        try:
            fees = [self._venues[book.market.venue].fees(book.market, at, self._settings) for book in (yes, no)]
        except FeeUnknownError as error:
            return replace(priced, reason=f"fees unknown: {error}")
        paid = fees[0].marginal(yes_price) + fees[1].marginal(no_price)
        no_asks = [(ONE - price, size) for price, size in no.bids]
        legs = [_leg(yes.market, yes.asks, fees[0]), _leg(no.market, no_asks, fees[1])]
        optimum = optimise(legs)
        return replace(priced, fees=paid, best=optimum.best if optimum.profitable else None)


class _SessionTap:
    """A session that remembers when each book changed last."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.changed: dict[MarketKey, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def book(self, market_id: str) -> OrderBook | None:
        """See :class:`Session`."""
        return self._session.book(market_id)

    def in_sync(self, market_id: str) -> bool:
        """See :class:`Session`."""
        return self._session.in_sync(market_id)

    def receive(self, frame: str | bytes, recv_ns: int) -> list[Output]:
        """See :class:`Session`."""
        return self._note(self._session.receive(frame, recv_ns))

    def rest_book(self, market_id: str, body: bytes, recv_ns: int) -> list[Output]:
        """See :class:`Session`."""
        return self._note(self._session.rest_book(market_id, body, recv_ns))

    def _note(self, outputs: list[Output]) -> list[Output]:
        for output in outputs:
            if isinstance(output, BookSnapshot | BookDelta):
                self.changed[self._session.venue, output.market_id] = output.recv_ns
        return outputs


class _VenueTap:
    """A venue whose new sessions are kept in a list."""

    def __init__(self, venue: Venue, sessions: list[_SessionTap]) -> None:
        self._venue = venue
        self._sessions = sessions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._venue, name)

    def session(self, *arguments: Any, **options: Any) -> _SessionTap:
        """See :class:`Venue`."""
        self._sessions.append(_SessionTap(self._venue.session(*arguments, **options)))
        return self._sessions[-1]


def _leg(market: Market, levels: Iterable[Level], fees: FeeModel) -> Leg:
    asks = tuple((price_decimal(price), size_decimal(size)) for price, size in levels if 0 < price < ONE and size > 0)
    lot, smallest = size_decimal(market.size_step), size_decimal(market.min_size)
    return Leg(market.market_id, market.venue, asks, fees, lot, smallest)


# --- for the terminal --------------------------------------------------------------------------------------


def _ladder(book: BookView, depth: int) -> Table:
    table = Table(title=book.market.venue, title_justify="left", caption_justify="left")
    for name in ("bid size", "bid", "ask", "ask size"):
        table.add_column(name, justify="right", min_width=9)
    for row in range(depth):
        bid_price, bid_size = _cells(book.bids, row)
        ask_price, ask_size = _cells(book.asks, row)
        table.add_row(bid_size, f"[green]{bid_price}[/]", f"[red]{ask_price}[/]", ask_size)
    table.caption = f"{_name(book.market)}\n{escape(_title(book.market))}\n{_state(book)}"
    return table


def _tops(books: Sequence[BookView]) -> Table:
    table = Table()
    table.add_column("market", no_wrap=True, overflow="ellipsis", max_width=_TITLE)
    for name in ("bid size", "bid", "ask", "ask size"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("book", no_wrap=True)
    for book in books:
        bid_price, bid_size = _cells(book.bids, 0)
        ask_price, ask_size = _cells(book.asks, 0)
        name = f"{book.market.venue}: {_name(book.market)}"
        table.add_row(name, bid_size, bid_price, ask_price, ask_size, _state(book))
    return table


def _gap_table(gaps: Sequence[Gap]) -> Table:
    table = Table(title="Executable gap per contract, if both ask the same question", title_justify="left")
    table.add_column("buy")
    for name in ("gap - fees = net at the tops", "best size", "net, dollars"):
        table.add_column(name, justify="right")
    for gap in gaps:
        figures = gap.reason
        if gap.gap is not None and gap.fees is not None:
            figures = f"{gap.gap:.4f} - {gap.fees:.4f} = {gap.net:.4f}"
        elif gap.gap is not None:
            figures = f"{gap.gap:.4f}, {gap.reason}"
        best = ("none pays", "") if gap.fees is not None else ("unknown", "")
        if gap.best is not None:
            best = (_plain(gap.best.size), f"{gap.best.net:.4f}")
        table.add_row(f"YES on {gap.yes.venue}, NO on {gap.no.venue}", escape(figures), *best)
    return table


def _state(book: BookView) -> str:
    if book.age_s is None:
        return escape(book.message)
    trust = "in sync" if book.in_sync else "NOT in sync"
    return f"{trust}, changed {book.age_s:.1f} s ago{', ' + escape(book.message) if book.message else ''}"


def _cells(levels: Sequence[Level], row: int) -> tuple[str, str]:
    """Price and size, empty below the last level."""
    return (_price(levels[row][0]), _size(levels[row][1])) if row < len(levels) else ("", "")


def _name(market: Market) -> str:
    """What tells the market from its neighbours: a readable slug where the id is a number."""
    name = market.slug if market.yes_token_id and market.slug else market.market_id
    return name if len(name) <= _TITLE else f"{name[: _TITLE - 1]}…"


def _title(market: Market) -> str:
    told = not market.yes_title or market.yes_title.casefold() in market.title.casefold()
    return market.title if told else f"{market.title} — {market.yes_title}"


def _price(price: int) -> str:
    return format_plain(price, 4)


def _size(size: int) -> str:
    return format_plain(size, 6)


def _plain(value: Decimal) -> str:
    return f"{value.normalize():f}"
