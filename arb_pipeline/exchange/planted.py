"""What a generated market plants: episodes that would have paid, and phantoms that only look like it.

Every one is a single order that appears on one market, stays and goes, while the ladder on the other market stands
still. A phantom is of a kind, and every kind names the guards of the table ``opportunities`` of which at least one has
to stop it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from arb_pipeline.exchange.source import Json
from arb_pipeline.exchange.truth import MIN_CONTRACTS, Paid, best_trade, decimal_text, direction_ladders
from arb_pipeline.model import OrderBook, Side
from arb_pipeline.units import ONE, SIZE_SCALE

__all__ = ["ARBITRAGE", "PHANTOMS", "Match", "PhantomKind", "Plan", "Quoted", "Venue", "false_gap", "tiny_size"]

Venue = Literal["kalshi", "polymarket"]

ARBITRAGE = "arbitrage"
"""The kind of a plan that really pays."""

_TINY = 3
"""Contracts of an order that is too small: less than Polymarket's minimum, which twice as many would exceed."""


@dataclass(frozen=True, slots=True)
class PhantomKind:
    """Why a phantom is none, in words, and the guards of which one has to say so."""

    words: str
    guards: tuple[str, ...]


PHANTOMS: Final[Mapping[str, PhantomKind]] = {
    "fee_eaten": PhantomKind("fees exceed the gap", ("fee_eaten",)),
    "below_min_size": PhantomKind("fewer contracts than the smallest order takes", ("below_min_size",)),
    "mirrored_liquidity": PhantomKind("too small unless one order on two tokens counts twice", ("below_min_size",)),
    "burst": PhantomKind("gone within one burst of updates", ("burst",)),
    "in_review": PhantomKind("it would pay, but nobody has decided on the pair", ("match_status",)),
    "void_mismatch": PhantomKind("both legs together pay less when it is called off", ("worst_state",)),
    "post_close": PhantomKind("the Kalshi market is past its close", ("after_close",)),
    "wrong_rules": PhantomKind("not equivalent", ("match_status", "relation")),
}
"""Kinds of phantoms. A pair of ``wrong_rules`` may also be none at all to the matcher."""


class Quoted:
    """One market as the simulation sees it: its book in the terms of the proposition.

    Attributes:
        partner: the other venue's market of the same proposition.
        locked: a plan has it; nothing else touches it but ``free_side``.
    """

    def __init__(self, venue: Venue, market_id: str, proposition: str, grid: list[int], *, inverted: bool) -> None:
        self.venue = venue
        self.market_id = market_id
        self.proposition = proposition
        self.grid = grid
        self.inverted = inverted
        self.book = OrderBook()
        self.half = 50.0
        self.partner: Quoted | None = None
        self.free_side: Side | None = None
        self.locked = False

    def floor(self, price: float) -> int | None:
        """The highest quotable price at or below."""
        index = bisect_right(self.grid, price)
        return self.grid[index - 1] if index else None

    def ceil(self, price: float) -> int | None:
        """The lowest quotable price at or above."""
        index = bisect_left(self.grid, price)
        return self.grid[index] if index < len(self.grid) else None


@dataclass(frozen=True, slots=True)
class Match:
    """Two markets to plant in, and in which direction buying both legs pays (None: in either)."""

    kalshi: Quoted
    polymarket: Quoted
    relation: str
    direction: str | None = None


@dataclass(slots=True)
class Plan:
    """A planted episode, or a phantom of a kind.

    Attributes:
        first: the venue on which the order appears.
        side: the side of it, in terms of the proposition.
    """

    id: str
    kind: str
    number: int
    first: Venue
    side: Side
    opens_ns: int
    closes_ns: int
    match: Match
    multiplier: Fraction = Fraction(1)
    rate: Fraction = Fraction(0)
    price: int = 0
    size: int = 0
    planted: bool = False
    peak: Paid | None = None
    peak_ns: int = 0

    @property
    def phantom(self) -> bool:
        """Whether it only looks like arbitrage."""
        return self.kind != ARBITRAGE

    @property
    def tiny(self) -> bool:
        """Whether it is too small an order."""
        return self.kind in {"below_min_size", "mirrored_liquidity"}

    @property
    def opener(self) -> Quoted:
        """The market on which the order appears."""
        return self.match.polymarket if self.first == "polymarket" else self.match.kalshi

    @property
    def other(self) -> Quoted:
        """The market that stands still."""
        return self.match.kalshi if self.first == "polymarket" else self.match.polymarket

    @property
    def direction(self) -> str:
        """``yes_kalshi`` when YES is bought on Kalshi and the opposite on Polymarket."""
        return "yes_kalshi" if (self.first == "kalshi") == (self.side == "ask") else "yes_polymarket"

    def offered(self) -> OrderBook | None:
        """The opener's book with the order in it, and nothing in its way; None if it were one-sided."""
        bids, asks = dict(self.opener.book.bids), dict(self.opener.book.asks)
        if self.side == "ask":
            bids = {level: size for level, size in bids.items() if level < self.price}
            asks[self.price] = self.size
        else:
            asks = {level: size for level, size in asks.items() if level > self.price}
            bids[self.price] = self.size
        book = OrderBook()
        book.replace(bids.items(), asks.items())
        return book if bids and asks else None

    def measure(self, opener_book: OrderBook, least: int = MIN_CONTRACTS) -> Paid:
        """What the pair pays with this book on the opener's side, in orders of ``least`` contracts or more."""
        kalshi = opener_book if self.first == "kalshi" else self.match.kalshi.book
        polymarket = opener_book if self.first == "polymarket" else self.match.polymarket.book
        ladders = direction_ladders(kalshi, polymarket, self.direction)
        return best_trade(*ladders, self.multiplier, self.rate, least=least)

    def fits(self, book: OrderBook, edge: Fraction) -> bool:
        """Whether the order is what the kind wants: paying at least ``edge`` a contract, or failing as it should."""
        paid = self.measure(book)
        if self.kind == "fee_eaten":
            return paid.net < 0 < paid.gross
        if self.tiny:
            return paid.net < 0 < self.measure(book, _TINY).net
        return paid.net >= 2 and paid.net >= edge * paid.size

    def record(self) -> Json:
        """The truth about it."""
        paid = self.peak or Paid(Fraction(0), Fraction(0), Fraction(0))
        side, price = self.side, self.price
        if self.opener.inverted:
            side, price = ("bid" if side == "ask" else "ask"), ONE - price
        action = {"venue": self.first, "market_id": self.opener.market_id, "side": side, "price": price}
        kinds = {"inverted": "inverted", "equivalent": "two_leg"}
        return {
            "id": self.id,
            "kind": self.kind if self.phantom else kinds.get(self.match.relation, "implication"),
            "kalshi_market_id": self.match.kalshi.market_id,
            "polymarket_market_id": self.match.polymarket.market_id,
            "relation": self.match.relation,
            "polymarket_yes_index": int(self.match.relation == "inverted"),
            "direction": self.direction,
            "opened_ns": self.opens_ns,
            "closed_ns": self.closes_ns,
            "opening": {**action, "size": self.size},
            "closing": {**action, "size": 0},
            **_money(paid),
            "peak_ns": self.peak_ns,
            **(_why(self.kind) if self.phantom else {}),
        }


def false_gap(kalshi: Quoted, polymarket: Quoted, direction: str, trap: str, relation: str) -> Json | None:
    """The phantom of a near miss that would pay if the two were equivalent, by their books as they stand; else None."""
    ladders = direction_ladders(kalshi.book, polymarket.book, direction)
    paid = best_trade(*ladders, Fraction(1), Fraction(7, 100))
    if paid.net <= 1:
        return None
    return {
        "kalshi_market_id": kalshi.market_id,
        "polymarket_market_id": polymarket.market_id,
        "relation": relation,
        "direction": direction,
        "opened_ns": 0,
        "closed_ns": None,
        **_money(paid),
        **_why("wrong_rules"),
        "reason": f"{PHANTOMS['wrong_rules'].words}: {trap}",
        "kind": "wrong_rules",
    }


def tiny_size() -> int:
    """The size of an order that is too small."""
    return _TINY * SIZE_SCALE


def _money(paid: Paid) -> Json:
    return {
        "size": decimal_text(paid.size),
        "gross": decimal_text(paid.gross),
        "fees": decimal_text(paid.fees),
        "net": decimal_text(paid.net),
    }


def _why(kind: str) -> Json:
    return {"reason": PHANTOMS[kind].words, "guards": list(PHANTOMS[kind].guards)}
