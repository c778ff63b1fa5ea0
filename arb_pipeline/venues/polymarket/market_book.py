"""One Polymarket market's book with everything that proves it: its text, the inputs of its hash, recent changes."""

from collections import deque
from collections.abc import Iterable, Iterator
from enum import Enum, auto
from itertools import chain, product
from typing import Final, NamedTuple

from arb_pipeline.model import Level, MarketFacts, OrderBook, Top
from arb_pipeline.units import ONE, UnitError, format_plain, parse_price, parse_size
from arb_pipeline.venues.polymarket import wire
from arb_pipeline.venues.polymarket.book_hash import BookText, hash_tail, mirrored

__all__ = ["Change", "Claim", "MarketBook", "Verdict", "Witness", "level_price", "level_size"]

_NS: Final = 1_000_000_000
# 2025-12-30: the clients' recipe got `last_trade_price`; older hashes follow other recipes.
_RECIPE_SINCE = 1_767_052_800 * _NS
_MAX_SIZE = 10**18
_RECENT_MOST = 512
_HASHES_MOST = 64
_PRICES_MOST = 64
"""A trade is told some 0.2 s after the change that it made, in which a hot market changes tens of times."""
_TICKS = (100, 10, 1, 1000, 50, 25)
_USUAL_MIN_SIZE = 5_000_000


class Change(NamedTuple):
    """A YES level's new absolute size: 1e-4 dollars, 1e-6 contracts."""

    is_bid: bool
    price: int
    size: int


class Claim(NamedTuple):
    """What a message says of a token's resulting book: whose, when, and its hash (empty if it tells none)."""

    is_yes: bool
    stamp: str
    stamp_ns: int
    hash: str


class Verdict(Enum):
    """What a claimed hash proves."""

    VERIFIED = auto()
    MISMATCH = auto()
    UNVERIFIABLE = auto()
    SKIPPED = auto()
    """Not in the sample, so not computed."""


class Witness(NamedTuple):
    """A REST book that the stream has to come to until ``until_ns``: it may be told a moment earlier than pushed."""

    message: wire.BookMessage
    claim: Claim
    sides: tuple[list[Level], list[Level]]
    verdict: Verdict
    until_ns: int


def level_price(text: str) -> int:
    """A level's price, 1e-4 dollars.

    Raises:
        UnitError: if it is no number on the grid, or not between 0 and 1.
    """
    price = parse_price(text)
    if not 0 < price < ONE:
        raise UnitError(f"price {text[:40]!r} is not between 0 and 1")
    return price


def level_size(text: str) -> int:
    """A level's size, 1e-6 contracts.

    Raises:
        UnitError: if it is no number on the grid, negative, or beyond what tables hold.
    """
    size = parse_size(text)
    if not 0 <= size < _MAX_SIZE:
        raise UnitError(f"size {text[:40]!r} is negative or beyond any book")
    return size


class MarketBook:
    """The state of one market on one connection.

    Attributes:
        book: in YES terms, None before the first snapshot.
        tick, min_size, neg_risk, ltps: inputs of the hash; ``ltps`` are last trade prices as text, likeliest first.
        hashed: a hash matched on this connection, so that the inputs are proven.
        trusted_ns: receive time of the last proof: a hash that matched, or best prices where none can be computed.
        since_ns: when the market was asked for.
        alive_ns: when a REST book last told of the stream. ``probe_ns``: when one was asked for, to compare;
            ``probe_wait``: for how long not to ask again without an answer.
        witness: a REST book that the stream has yet to come to.
        strikes: how often the stream did not, since it last told a change.
        probed: the market was subscribed again to see whether the stream lives: its book is no news.
        hashes: of the newest states told.
        data_ns: receive time of the last data. ``venue_ns``: the venue's time of it.
        doubt_ns: when an advisory mismatch becomes a real one; 0 if there is none.
        deadline_ns: when to ask REST for the book (again); 0 if nothing is awaited.
        asked: a REST book is awaited.
        gap_cause: cause of the open gap, empty if none is open.
        covered_ns: ``recent`` holds every change of this venue time or later.
        floor_ns: changes older than this are contained in the book (until ``floor_until``, receive time).
        trade_until: until when a mismatch may be due to a trade not yet told.
        quoted: the top last said, None if none was on this connection.
        yes_seen: the YES token is told, so that the NO token is a check only.
    """

    __slots__ = (
        "alive_ns",
        "asked",
        "book",
        "covered_ns",
        "data_ns",
        "deadline_ns",
        "doubt_ns",
        "epoch",
        "fetch_wait",
        "floor_ns",
        "floor_until",
        "gap_cause",
        "gap_from_ns",
        "hash_v2",
        "hashed",
        "hashes",
        "in_sync",
        "inputs_told",
        "last",
        "last_book_hash",
        "ltps",
        "market_id",
        "min_size",
        "neg_risk",
        "no",
        "prices",
        "probe_ns",
        "probe_wait",
        "probed",
        "quoted",
        "recent",
        "since_ns",
        "strikes",
        "text",
        "tick",
        "trade_until",
        "trusted_ns",
        "venue_ns",
        "witness",
        "yes",
        "yes_seen",
    )

    def __init__(self, facts: MarketFacts) -> None:
        self.market_id = facts.market_id
        self.epoch = 0
        self.gap_cause = ""
        self.gap_from_ns = self.since_ns = self.strikes = 0
        self.void()
        self.learn(facts)

    def void(self) -> None:
        """Forget what an earlier connection told; epoch, open gap, strikes and facts stay."""
        self.book: OrderBook | None = None
        self.text: BookText | None = None
        self.in_sync = self.hashed = self.hash_v2 = self.yes_seen = self.asked = False
        self.data_ns = self.trusted_ns = self.doubt_ns = self.deadline_ns = self.trade_until = 0
        self.floor_ns = self.floor_until = self.covered_ns = 0
        self.fetch_wait = 0
        self.alive_ns = self.probe_ns = self.probe_wait = 0
        self.probed = False
        self.witness: Witness | None = None
        self.hashes: deque[str] = deque(maxlen=_HASHES_MOST)
        self.venue_ns: int | None = None
        self.last: Claim | None = None
        self.last_book_hash = ""
        self.recent: deque[tuple[Change, int]] = deque(maxlen=_RECENT_MOST)
        self.prices: deque[int] = deque(maxlen=_PRICES_MOST)
        self.quoted: Top | None = None

    def learn(self, facts: MarketFacts) -> None:
        """Take over the catalogue's facts."""
        self.yes, self.no = facts.yes_token_id, facts.no_token_id
        self.tick, self.min_size, self.neg_risk = facts.tick, facts.min_size, facts.neg_risk
        self.ltps: list[str] = [facts.last_trade_price]
        self.inputs_told = False

    def tell_inputs(self, message: wire.BookMessage) -> None:
        """Take over what a book tells of the hash's inputs.

        Raises:
            UnitError: if one is no number.
        """
        if message.tick_size:
            self.tick = level_price(message.tick_size)
        if message.min_order_size:
            self.min_size = level_size(message.min_order_size)
        if message.neg_risk is not None:
            self.neg_risk = message.neg_risk
        if message.last_trade_price is not None:
            self.tell_last_trade(message.last_trade_price)
            self.inputs_told = self.min_size > 0
        self.hash_v2 = self.hash_v2 or message.version == "v2"

    def tell_last_trade(self, text: str) -> None:
        """Make a market-level last trade price the likeliest; the three before it stay candidates."""
        if self.ltps[0] != text:
            self.ltps = [text, *(known for known in self.ltps if known != text)][:4]

    def replace(self, bids: Iterable[Level], asks: Iterable[Level], stamp_ns: int) -> OrderBook:
        """Take over a whole book of the venue's time ``stamp_ns``."""
        if self.book is None or self.text is None:
            self.book = OrderBook()
            self.text = BookText(self.market_id, self.yes)
        self.book.replace(bids, asks)
        self.text.replace(self.book.bids.items(), self.book.asks.items())
        self.recent.clear()
        self.covered_ns = stamp_ns
        return self.book

    def change(self, change: Change) -> None:
        """Apply one change to a book that is held."""
        assert self.book is not None
        assert self.text is not None
        is_bid, price, size = change
        if is_bid:
            self.book.set_bid(price, size)
            self.text.set_bid(price, size)
        else:
            self.book.set_ask(price, size)
            self.text.set_ask(price, size)
        self.prices.append(price)

    def remember(self, change: Change, stamp_ns: int) -> None:
        """Keep a change, so that a REST book older than it can be brought up to date."""
        recent = self.recent
        # The channel keeps its order, so that a later stamp before this one was false.
        self.covered_ns = min(self.covered_ns, stamp_ns)
        if recent and recent[-1][1] > stamp_ns:
            told = [(known, min(at, stamp_ns)) for known, at in recent]
            recent.clear()
            recent.extend(told)
        if len(recent) == _RECENT_MOST:
            self.covered_ns = max(self.covered_ns, recent[0][1] + 1)
        recent.append((change, stamp_ns))

    def unchanged_by(self, changes: Iterable[Change]) -> bool:
        """Whether the book says already what these changes say."""
        book = self.book
        assert book is not None
        return all((book.bids if is_bid else book.asks).get(price, 0) == size for is_bid, price, size in changes)

    def same(self, bids: Iterable[Level], asks: Iterable[Level]) -> bool:
        """Whether the book held consists of exactly these levels."""
        book = self.book
        return (
            book is not None
            and book.bids == {price: size for price, size in bids if size}
            and book.asks == {price: size for price, size in asks if size}
        )

    def verify(self, claim: Claim, *, search: bool) -> Verdict:
        """Compare a claimed hash with that of the book held.

        Around a trade the venue's hash holds a last trade price that is told later: besides the known ones, the prices
        of the levels just changed are tried, of either token. A match is proof whichever input made it.

        Args:
            claim: what the message said.
            search: also look for unknown inputs (grid, minimum size, negRisk).
        """
        if not claim.hash:
            return Verdict.UNVERIFIABLE
        text = self.text if claim.is_yes else self._mirror_text()
        assert text is not None
        if self.min_size:
            tail = hash_tail(self.min_size, self.tick, self.neg_risk, self.ltps[0])
            if text.digest(claim.stamp, tail) == claim.hash or self._try(text, claim, self._candidates()):
                self.hashed = True
                return Verdict.VERIFIED
        if search and self._search(text, claim):
            self.hashed = True
            return Verdict.VERIFIED
        known = self.hashed or self.inputs_told
        if not known or self.hash_v2 or claim.stamp_ns < _RECIPE_SINCE:
            return Verdict.UNVERIFIABLE
        return Verdict.MISMATCH

    def _mirror_text(self) -> BookText:
        book = self.book
        assert book is not None
        text = BookText(self.market_id, self.no)
        text.replace(mirrored(book.asks.items()), mirrored(book.bids.items()))
        return text

    def _candidates(self) -> Iterator[str]:
        levels = chain.from_iterable((price, ONE - price) for price in reversed(self.prices))
        told = (wire.padded_price(format_plain(price, 4)) for price in levels)
        return chain(self.ltps[1:], told)

    def _try(self, text: BookText, claim: Claim, candidates: Iterable[str]) -> bool:
        for ltp in dict.fromkeys(candidates):
            if text.digest(claim.stamp, hash_tail(self.min_size, self.tick, self.neg_risk, ltp)) == claim.hash:
                self.tell_last_trade(ltp)
                return True
        return False

    def _search(self, text: BookText, claim: Claim) -> bool:
        known = (self.tick, self.min_size, self.neg_risk)
        sizes = dict.fromkeys((self.min_size or _USUAL_MIN_SIZE, _USUAL_MIN_SIZE))
        flags = (self.neg_risk, not self.neg_risk)
        for inputs in product(dict.fromkeys((self.tick, *_TICKS)), sizes, flags):
            self.tick, self.min_size, self.neg_risk = inputs
            if self._try(text, claim, self.ltps):
                return True
        self.tick, self.min_size, self.neg_risk = known
        return False
