"""Small synthetic input: fee models, markets, pairs, and a tape that books are played onto."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from itertools import pairwise
from typing import Literal, TypeVar

import pyarrow as pa

from arb_pipeline.arbitrage.episodes import EdgeEpisode, EdgeRules, EdgeStep, PieceFold, join
from arb_pipeline.arbitrage.fees import FeeSource
from arb_pipeline.arbitrage.opportunities import evaluate
from arb_pipeline.arbitrage.pairs import MarketData, Pair
from arb_pipeline.clock import datetime_from_ns, ns_from_datetime
from arb_pipeline.model import Market, MarketStatus, MatchStatus, OrderBook, Relation
from arb_pipeline.settings import Settings
from arb_pipeline.tables import table
from arb_pipeline.units import parse_price, parse_size, price_decimal, size_decimal
from arb_pipeline.venues.base import FeeModel, FeeSchedule, FeeUnknownError

START = datetime(2026, 7, 14, 15, tzinfo=UTC)
END = START + timedelta(hours=1)
T = TypeVar("T")
KALSHI, POLYMARKET = "KXTEST-26", "0xabc"


@dataclass(frozen=True, slots=True)
class Fees:
    """rate x size x p (1 - p), optionally rounded: up per order (``up``) or down per fill (``cut``)."""

    rate: Decimal = Decimal(0)
    up: Decimal | None = None
    cut: Decimal | None = None
    schedule: FeeSchedule = field(default=FeeSchedule("test", "test"))

    def marginal(self, price: Decimal) -> Decimal:
        return self.rate * price * (1 - price)

    def taker(self, price: Decimal, size: Decimal) -> Decimal:
        return self.order([(price, size)])

    def order(self, fills: Sequence[tuple[Decimal, Decimal]]) -> Decimal:
        parts = [self.marginal(price) * size for price, size in fills]
        if self.cut is not None:
            parts = [(part / self.cut).to_integral_value(ROUND_FLOOR) * self.cut for part in parts]
        fee = sum(parts, Decimal(0))
        return fee if self.up is None else (fee / self.up).to_integral_value(ROUND_CEILING) * self.up

    def received(self, price: Decimal, size: Decimal) -> Decimal:
        return size


def free(market: Market, at: datetime) -> FeeModel:
    """Nobody charges anything."""
    return Fees()


def quadratic(market: Market, at: datetime) -> FeeModel:
    """0.07 on Kalshi, 0.04 on Polymarket, unrounded."""
    return Fees(Decimal("0.07" if market.venue == "kalshi" else "0.04"))


def unknown(market: Market, at: datetime) -> FeeModel:
    raise FeeUnknownError(f"fee_type of {market.market_id} is 'lunar'")


def market(venue: str, market_id: str = "", **changes: object) -> Market:
    defaults: dict[str, object] = {
        "market_id": market_id or (KALSHI if venue == "kalshi" else POLYMARKET),
        "event_id": "E",
        "title": f"A question on {venue}",
        "status": MarketStatus.OPEN,
        "tick": 100,
        "min_size": 1_000_000,
        "size_step": 1_000_000,
        "close_at": START + timedelta(days=10),
        "settlement_timer_s": 0,
    }
    return Market(venue=venue, **{**defaults, **changes})  # type: ignore[arg-type]


def pair(
    *,
    inverted: bool = False,
    status: MatchStatus = MatchStatus.AUTO,
    kalshi: Market | None = None,
    polymarket: Market | None = None,
    void_states: dict[str, tuple[Decimal, Decimal]] | None = None,
) -> Pair:
    return Pair(
        kalshi or market("kalshi"),
        polymarket or market("polymarket"),
        Relation.INVERTED if inverted else Relation.EQUIVALENT,
        status,
        int(inverted),
        void_states,
    )


def settings(**changes: object) -> Settings:
    return Settings(**changes)  # type: ignore[arg-type]


def at(seconds: float) -> int:
    """ns since the epoch, seconds after START."""
    return ns_from_datetime(START) + round(seconds * 1_000_000_000)


def when(seconds: float) -> datetime:
    return datetime_from_ns(at(seconds))


def spreads_table(
    pairs: Sequence[Pair], data: MarketData, *, start: datetime, end: datetime, settings: Settings, fees: FeeSource
) -> pa.Table:
    """The table ``spreads`` of a window."""
    return evaluate(pairs, data, start, end, settings, fees).spreads


def edge_pieces(steps: Iterable[EdgeStep[T]], start_ns: int, end_ns: int, rules: EdgeRules) -> list[EdgeEpisode[T]]:
    """The pieces of one window."""
    fold: PieceFold[T] = PieceFold(start_ns, end_ns, rules)
    return [*(piece for step in steps for piece in fold.step(step)), *fold.finish()]


def edge_episodes(steps: Iterable[EdgeStep[T]], start_ns: int, end_ns: int, rules: EdgeRules) -> list[EdgeEpisode[T]]:
    """The episodes of one window."""
    return list(join(edge_pieces(steps, start_ns, end_ns, rules), end_ns, rules))


def held(steps: Sequence[EdgeStep[T]], hold_ns: int | None) -> list[EdgeStep[T]]:
    """Steps that are unknown once nothing new came for a while, as the guard on old books has it."""
    told: list[EdgeStep[T]] = []
    for step, following in pairwise([*steps, None]):
        assert step is not None
        told.append(step)
        old_ns = step.at_ns + (hold_ns or 0)
        if hold_ns is not None and (following is None or old_ns < following.at_ns):
            told.append(EdgeStep(old_ns, None, Decimal(0), Decimal(0), step.what))
    return told


Ladder = Sequence[tuple[str, str]]


class Tape:
    """Writes the tables that a recorder would: book events, the quotes that follow, sessions and gaps."""

    def __init__(self) -> None:
        self._rows: dict[str, list[dict[str, object]]] = {
            name: [] for name in ("quotes", "book_events", "book_gaps", "capture_sessions", "raw_frames")
        }
        self._books: dict[str, OrderBook] = {}
        self._tops: dict[str, object] = {}
        self._ordinal = 0

    def session(
        self, venue: str, start: float = -60, end: float | None = None, connection: str | None = None
    ) -> "Tape":
        self._rows["capture_sessions"].append(
            {
                "venue": venue,
                "connection_id": connection or f"{venue}-1",
                "run_id": "r",
                "exchange": "",
                "started_at": when(start),
                "ended_at": None if end is None else when(end),
                "markets": 1,
                "frames": 10,
                "bytes": 1000,
                "anomalies": "{}",
                "examples": "{}",
                "reconnects": 0,
                "lag_p50_ms": 12.0,
                "lag_p99_ms": 40.0,
                "stop_reason": "",
            }
        )
        return self

    def gap(self, venue: str, start: float, end: float | None, market_id: str = "", connection: str = "") -> "Tape":
        self._rows["book_gaps"].append(
            {
                "venue": venue,
                "market_id": market_id or _id(venue),
                "connection_id": connection or f"{venue}-1",
                "ordinal": self._next(),
                "cause": "seq_gap",
                "from_ns": at(start),
                "to_ns": None if end is None else at(end),
                "recovery": None if end is None else "snapshot",
            }
        )
        return self

    def snapshot(
        self,
        venue: str,
        t: float,
        bids: Ladder = (),
        asks: Ladder = (),
        *,
        market_id: str = "",
        connection: str = "",
        source: str = "ws",
        quote: bool = True,
        in_sync: bool = True,
    ) -> "Tape":
        market_id = market_id or _id(venue)
        base = self._base(venue, market_id, t, connection, source)
        self._event(base, "clear", None, None, None)
        sides: tuple[tuple[Literal["bid", "ask"], Ladder], ...] = (("bid", bids), ("ask", asks))
        for side, levels in sides:
            for price, size in levels:
                self._event(base, "snapshot", side, parse_price(price), parse_size(size))
        book = self._books[market_id] = OrderBook()
        book.replace(
            [(parse_price(p), parse_size(s)) for p, s in bids], [(parse_price(p), parse_size(s)) for p, s in asks]
        )
        if quote:
            self._quote(base, book, in_sync=in_sync)
        return self

    def change(
        self,
        venue: str,
        t: float,
        side: Literal["bid", "ask"],
        price: str,
        size: str,
        *,
        market_id: str = "",
        connection: str = "",
        source: str = "ws",
        in_sync: bool = True,
    ) -> "Tape":
        market_id = market_id or _id(venue)
        base = self._base(venue, market_id, t, connection, source)
        self._event(base, "delta", side, parse_price(price), parse_size(size))
        book = self._books[market_id]
        book.set(side, parse_price(price), parse_size(size))
        self._quote(base, book, in_sync=in_sync and not book.crossed)
        return self

    def answer(self, venue: str, t: float) -> "Tape":
        """A poll that changed nothing."""
        frame = {**self._base(venue, "", t, "", "rest"), "ordinal": self._next(), "frame": "{}"}
        self._rows["raw_frames"].append({name: frame[name] for name in table("raw_frames").column_names})
        return self

    def data(self, *, shuffled: bool = False) -> MarketData:
        tables = {name: pa.Table.from_pylist(rows, schema=table(name).schema) for name, rows in self._rows.items()}
        if shuffled:
            tables = {
                name: rows.take(pa.array(reversed(range(rows.num_rows)), pa.int64())) for name, rows in tables.items()
            }
        return MarketData(**tables)

    def _next(self) -> int:
        self._ordinal += 1
        return self._ordinal

    def _base(self, venue: str, market_id: str, t: float, connection: str, source: str) -> dict[str, object]:
        return {
            "venue": venue,
            "market_id": market_id,
            "recv_ns": at(t),
            "venue_ns": None,
            "seq": None,
            "connection_id": connection or f"{venue}-1",
            "source": source,
        }

    def _event(self, base: dict[str, object], kind: str, side: str | None, price: int | None, size: int | None) -> None:
        self._rows["book_events"].append(
            {
                **base,
                "ordinal": self._next(),
                "epoch": 1,
                "kind": kind,
                "side": side,
                "price": None if price is None else price_decimal(price),
                "size": None if size is None else size_decimal(size),
            }
        )

    def _quote(self, base: dict[str, object], book: OrderBook, *, in_sync: bool) -> None:
        top = book.top()
        key = str(base["market_id"])
        if self._tops.get(key) == (top, in_sync):
            return
        self._tops[key] = (top, in_sync)
        bid, bid_size, ask, ask_size = top
        self._rows["quotes"].append(
            {
                **base,
                "ordinal": self._next(),
                "bid": None if bid is None else price_decimal(bid),
                "bid_size": None if bid_size is None else size_decimal(bid_size),
                "ask": None if ask is None else price_decimal(ask),
                "ask_size": None if ask_size is None else size_decimal(ask_size),
                "in_sync": in_sync,
            }
        )


def _id(venue: str) -> str:
    return KALSHI if venue == "kalshi" else POLYMARKET
