"""A seeded market on both venues whose answer is known.

Every proposition has a fair price that wanders around its start, and both venues quote around it, so the books of a
true pair move together. Two rules make the truth exact: a quote of one venue never comes closer than one cent to
crossing the other venue's book of the same proposition, except in a *planted* episode, where one order at a price
that pays after all fees appears, stays and goes. Around an episode the pair is locked: nothing else touches the
two ladders that it is made of. Same seed and same day give the same texts, ids, books and timeline.
"""

import heapq
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import partial
from itertools import count

from arb_pipeline.exchange.drafts import (
    FEES,
    PRICE_RANGES,
    Board,
    condition_id,
    instant,
    kalshi_event_fee_changes,
    kalshi_records,
    kalshi_series_fee_changes,
    kalshi_series_records,
    kalshi_structure,
    polymarket_records,
    polymarket_tick,
)
from arb_pipeline.exchange.families import draft_board
from arb_pipeline.exchange.planted import ARBITRAGE, Match, Plan, Quoted, Venue, false_gap, tiny_size
from arb_pipeline.exchange.source import (
    Action,
    BookRefresh,
    InitialBook,
    Json,
    LevelChange,
    Listed,
    TradePrint,
)
from arb_pipeline.model import Side
from arb_pipeline.units import ONE, SIZE_SCALE, parse_price

__all__ = ["GeneratedSource"]

_SECOND = 1_000_000_000
_MARGIN = 100
"""How far (1e-4 dollars) the two venues' quotes of one proposition stay from crossing: one cent, before fees."""

_MIN_LEVELS, _MAX_LEVELS = 5, 30
_WANDER, _PULL, _BAND = 35.0, 0.08, 200.0
_TRADE_LAG_NS = 230_000_000
_PREVIEW_NS = 60 * _SECOND
_LOCK_NS = 1_200_000_000
_EPISODES_S = ((6.0, 4.0), (11.0, 2.5), (16.0, 9.0), (22.0, 3.5), (28.0, 6.0), (33.0, 2.2), (38.0, 5.0))
_PHANTOMS_S = ((8.5, 5.0), (25.0, 6.0), (35.5, 4.0))
_OF_A_KIND_S: tuple[tuple[str, Venue, float, float], ...] = (
    ("void_mismatch", "kalshi", 7.5, 5.0),
    ("in_review", "polymarket", 9.5, 5.0),
    ("implied", "kalshi", 12.5, 6.0),
    ("below_min_size", "kalshi", 14.5, 4.0),
    ("burst", "polymarket", 15.4, 0.1),
    ("mirrored_liquidity", "polymarket", 18.5, 4.0),
    ("implied", "polymarket", 29.5, 5.0),
    ("post_close", "kalshi", 31.0, 5.0),
)
"""What else is planted once: the kind, the venue of the order, and its time."""
_OTHER: dict[Venue, Venue] = {"kalshi": "polymarket", "polymarket": "kalshi"}
_IMPLIED_TRAPS = frozenset({"other deadline", "other threshold", "other year"})
"""Near misses that the words of both markets alone show to imply one another."""
_CLOSES_AFTER = timedelta(seconds=28)
_VOID = {"called off": {"kalshi": "0.4", "polymarket": "0.5"}}
"""What YES of the pair ``void_mismatch`` pays on either venue when the event is called off, dollars."""
_LATER_S = 18.0


class GeneratedSource:
    """Both venues' markets, invented from a seed and a day.

    Args:
        seed: everything random follows from it and from the day.
        events: the least number of events on each venue.
        duration_s: when playback ends, seconds; None never ends.
        today: the day that all dates derive from; None is today in UTC.
        rate: frames per second over all markets, about.
        starts_at: when playback will start, if that is known. One Kalshi market then closes while it is played, on
            paper: its orders stay.
    """

    live_quotes = True
    has_clock = True

    def __init__(
        self,
        seed: int = 7,
        events: int = 64,
        duration_s: float | None = None,
        *,
        today: date | None = None,
        rate: float = 60.0,
        starts_at: datetime | None = None,
    ) -> None:
        if rate <= 0:
            raise ValueError(f"rate {rate} is not a number of frames per second; give one above 0")
        self.seed = seed
        self.board = draft_board(seed, today or datetime.now(UTC).date(), events)
        self._rate = rate
        self._starts_at = starts_at
        self._end_ns = None if duration_s is None else round(duration_s * _SECOND)
        self._latest = self._simulation()
        self._false_gaps = self._latest.false_gaps()
        self._previewed = False

    @property
    def name(self) -> str:
        """``generated seed 7``."""
        return f"generated seed {self.seed}"

    @property
    def hidden(self) -> frozenset[str]:
        """Markets that are listed only during playback."""
        return self._latest.hidden

    def clock_offset_ns(self, now_ns: int) -> int:  # noqa: ARG002 - a generated market always lives now
        """0: the market lives in the present."""
        return 0

    def kalshi_events(self) -> list[Json]:
        """Raw Kalshi events."""
        events = kalshi_records(self.board)
        if self._starts_at is not None:
            closing = self._latest.post_close.kalshi.market_id
            for market in (market for event in events for market in event["markets"] if market["ticker"] == closing):
                market["close_time"] = instant(self._starts_at + _CLOSES_AFTER)
        return events

    def kalshi_series(self) -> list[Json]:
        """Raw Kalshi series."""
        return kalshi_series_records(self.board)

    def kalshi_fee_changes(self) -> tuple[list[Json], list[Json]]:
        """Raw changes of fees, past and announced."""
        return kalshi_series_fee_changes(self.board), kalshi_event_fee_changes(self.board)

    def polymarket_events(self) -> list[Json]:
        """Raw Gamma events."""
        return polymarket_records(self.board)

    def books(self) -> dict[str, InitialBook]:
        """Books before playback."""
        return self._simulation().initial_books()

    def timeline(self) -> Iterator[tuple[int, Action]]:
        """The whole timeline from its start; each call begins anew with the same actions."""
        simulation = self._simulation()
        for at, action in simulation.run(self._end_ns):
            if simulation.now_ns > self._latest.now_ns:
                self._latest = simulation
            yield at, action

    def truth(self) -> Json:
        """Pairs, near misses, and all episodes and phantoms planned so far (at least the first minute).

        ``implied`` are the near misses that a person would approve as implications. Of a pair with ``void_states`` both
        venues' terms tell what YES pays in them. Phantoms tell their kind and the ``guards`` of which one must stop
        them, see :data:`~arb_pipeline.exchange.planted.PHANTOMS`.

        Prices are 1e-4 dollars, sizes of actions 1e-6 contracts, ``size`` of an episode contracts and its money dollars
        as text, times nanoseconds of playback.
        """
        self._preview()
        planted = [plan for plan in self._latest.plans if plan.planted]
        return {
            "seed": self.seed,
            "today": self.board.today.isoformat(),
            "pairs": self._pairs(),
            "near_misses": [
                {
                    "kalshi_market_id": miss.kalshi,
                    "polymarket_market_id": condition_id(miss.polymarket),
                    "trap": miss.trap,
                    "relation": miss.relation,
                }
                for miss in self.board.near_misses
            ],
            "implied": [
                {
                    "kalshi_market_id": match.kalshi.market_id,
                    "polymarket_market_id": match.polymarket.market_id,
                    "relation": match.relation,
                    "polymarket_yes_index": 0,
                }
                for match in self._latest.implied
            ],
            "episodes": [plan.record() for plan in planted if not plan.phantom],
            "phantoms": [plan.record() for plan in planted if plan.phantom] + self._false_gaps,
        }

    def _preview(self) -> None:
        """Know the first minute, once anybody asks; at a high rate that takes seconds."""
        if self._previewed:
            return
        self._previewed = True
        preview = self._simulation()
        for _ in preview.run(min(_PREVIEW_NS, self._end_ns or _PREVIEW_NS)):
            pass
        if preview.now_ns > self._latest.now_ns:
            self._latest = preview

    def _pairs(self) -> list[Json]:
        polymarket = {market.proposition: market for event in self.board.polymarket for market in event.markets}
        broken = self._latest.void_mismatch.kalshi.market_id
        return [
            {
                "kalshi_market_id": market.ticker,
                "polymarket_market_id": condition_id(other.slug),
                "relation": "inverted" if other.inverted else "equivalent",
                "polymarket_yes_index": int(other.inverted),
                "family": market.ticker.partition("-")[0],
                **({"void_states": _VOID} if market.ticker == broken else {}),
            }
            for event in self.board.kalshi
            for market in event.markets
            if (other := polymarket.get(market.proposition)) is not None
        ]

    def _simulation(self) -> "_Simulation":
        return _Simulation(self.board, self.seed, self._rate, closes=self._starts_at is not None)


class _Simulation:
    """The moving books of one playback."""

    def __init__(self, board: Board, seed: int, rate: float, *, closes: bool) -> None:
        self.now_ns = 0
        self.plans: list[Plan] = []
        self._board = board
        self._rate = rate
        self._closes = closes
        self._rng = random.Random(f"{seed}:{board.today}:play")  # noqa: S311 - reproducible market, not a secret
        self._fair = {key: float(price) for key, price in board.fair.items()}
        self._moved = dict.fromkeys(board.fair, 0)
        self._out: list[tuple[int, Action]] = []
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._kalshi = self._kalshi_markets()
        self._polymarket = self._polymarket_markets()
        self.hidden = self._hidden_markets()
        self._link()
        self._multipliers, self._rates = self._fee_parameters()
        for market in self._markets():
            self._fill(market)
        self._active = [market for market in self._markets() if market.market_id not in self.hidden]
        self._rng.shuffle(self._active)
        self._plan_all()
        self._schedule(0, self._tick)
        for number, market_id in enumerate(sorted(self.hidden)):
            self._schedule((15 + 3 * number) * _SECOND, partial(self._list, market_id))

    def run(self, until_ns: int | None) -> Iterator[tuple[int, Action]]:
        """Actions in order of time, up to a time of playback."""
        while until_ns is None or self._agenda[0][0] <= until_ns:
            at, _, step = heapq.heappop(self._agenda)
            self.now_ns = at
            step()
            yield from self._out
            self._out.clear()

    def initial_books(self) -> dict[str, InitialBook]:
        """Every market's book in its own YES terms; only true before the first step."""
        books: dict[str, InitialBook] = {}
        for market in self._markets():
            bids, asks = market.book.bid_levels(), market.book.ask_levels()
            if market.inverted:
                bids, asks = (
                    [(ONE - price, size) for price, size in asks],
                    [(ONE - price, size) for price, size in bids],
                )
            last = market.book.best_bid or 100
            price = ONE - last if market.inverted else last
            text = f"{price // 10 / 1000:.3f}"
            books[market.market_id] = InitialBook(tuple(bids), tuple(asks), last_trade_price=text, clock=0)
        return books

    # --- set-up --------------------------------------------------------------------------------------------

    def _markets(self) -> Iterator[Quoted]:
        yield from self._kalshi.values()
        yield from self._polymarket.values()

    def _kalshi_markets(self) -> dict[str, Quoted]:
        markets = (market for event in self._board.kalshi for market in event.markets)
        return {
            market.proposition: Quoted(
                "kalshi",
                market.ticker,
                market.proposition,
                _kalshi_grid(kalshi_structure(self._board.fair[market.proposition], market.ticker)),
                inverted=False,
            )
            for market in markets
        }

    def _polymarket_markets(self) -> dict[str, Quoted]:
        markets = (market for event in self._board.polymarket for market in event.markets)
        quoted: dict[str, Quoted] = {}
        for market in markets:
            tick = polymarket_tick(self._board.fair[market.proposition], market.slug)
            quoted[market.proposition] = Quoted(
                "polymarket",
                condition_id(market.slug),
                market.proposition,
                list(range(tick, ONE, tick)),
                inverted=market.inverted,
            )
        return quoted

    def _hidden_markets(self) -> frozenset[str]:
        kalshi = (market.ticker for event in self._board.kalshi if event.listed_later for market in event.markets)
        polymarket = (
            condition_id(market.slug)
            for event in self._board.polymarket
            if event.listed_later
            for market in event.markets
        )
        return frozenset((*kalshi, *polymarket))

    def _link(self) -> None:
        for key, kalshi in self._kalshi.items():
            polymarket = self._polymarket.get(key)
            if polymarket is not None:
                kalshi.partner, polymarket.partner = polymarket, kalshi

    def _fee_parameters(self) -> tuple[dict[str, Fraction], dict[str, Fraction]]:
        """Kalshi's multipliers and Polymarket's rates by market."""
        multipliers = {
            market.ticker: Fraction(self._board.series[event.series].multiplier)
            for event in self._board.kalshi
            for market in event.markets
        }
        rates = {
            condition_id(market.slug): FEES[event.category][1]
            for event in self._board.polymarket
            for market in event.markets
        }
        return multipliers, rates

    def _fill(self, market: Quoted) -> None:
        rng = self._rng
        market.half = rng.uniform(50, 110)
        bid, ask = self._targets(market)
        sides: tuple[tuple[Side, int | None, int], ...] = (("bid", bid, -1), ("ask", ask, 1))
        for side, best, step in sides:
            if best is None:
                continue
            index = market.grid.index(best)
            reach = 12 if market.grid[1] - market.grid[0] == 10 else 3
            for _ in range(rng.randint(_MIN_LEVELS + 2, _MAX_LEVELS)):
                if not 0 <= index < len(market.grid):
                    break
                market.book.set(side, market.grid[index], self._size(market))
                index += step * rng.randint(1, reach)

    def _plan_all(self) -> None:
        rng = self._rng
        eligible = [
            Match(kalshi, kalshi.partner, "inverted" if kalshi.partner.inverted else "equivalent")
            for kalshi in self._kalshi.values()
            if kalshi.partner is not None
            and not self.hidden.intersection((kalshi.market_id, kalshi.partner.market_id))
            and 2_500 <= self._board.fair[kalshi.proposition] <= 7_500
        ]
        rng.shuffle(eligible)
        # An inverted pair comes early: whoever stops after half a minute has seen one.
        eligible.sort(key=lambda match: match.relation != "inverted")
        # What is special about a pair holds as long as the market is played: nothing else is planted in it.
        self.post_close = eligible.pop()
        self.void_mismatch = replace(eligible.pop(), direction="yes_kalshi")
        self._picks = [eligible[3], *eligible[:1], *eligible[8:], *eligible[4:8], *eligible[1:3]]
        pools = self._implied()
        self.implied, undecided = pools[::2], pools[1::2]
        for number, (start, length) in enumerate((*_EPISODES_S, *_PHANTOMS_S)):
            kind = ARBITRAGE if number < len(_EPISODES_S) else "fee_eaten"
            self._plan(start + rng.uniform(-0.3, 0.3), length, kind, number)
        for kind, first, start, length in _OF_A_KIND_S:
            pool = {
                "void_mismatch": [self.void_mismatch],
                "post_close": [self.post_close] if self._closes else [],
                "in_review": undecided,
                "implied": self.implied,
            }.get(kind, self._picks)
            if pool:
                self._plan(start, length, ARBITRAGE if kind == "implied" else kind, len(self.plans), pool, first)
        self._schedule(round(45 * _SECOND), self._plan_later)

    def _implied(self) -> list[Match]:
        """Near misses of which one market implies the other, neither of them with a partner that would be crossed.

        The closer they are the fewer orders have to make way: those come first.
        """
        kalshi = {market.market_id: market for market in self._kalshi.values()}
        polymarket = {market.market_id: market for market in self._polymarket.values()}
        directions = {"kalshi_implies_polymarket": "yes_polymarket", "polymarket_implies_kalshi": "yes_kalshi"}
        found = [
            Match(kalshi[miss.kalshi], polymarket[condition_id(miss.polymarket)], miss.relation, direction)
            for miss in self._board.near_misses
            if miss.trap in _IMPLIED_TRAPS and (direction := directions.get(miss.relation)) is not None
        ]
        fair = self._board.fair
        found.sort(key=lambda match: abs(fair[match.kalshi.proposition] - fair[match.polymarket.proposition]))
        return [
            match
            for match in found
            if match.kalshi.partner is match.polymarket.partner is None and not match.polymarket.inverted
        ]

    def _plan_later(self) -> None:
        number = len(self.plans)
        start = self.now_ns / _SECOND + self._rng.uniform(2.0, 6.0)
        self._plan(start, self._rng.uniform(2.0, 12.0), "fee_eaten" if number % 3 == 2 else ARBITRAGE, number)
        self._schedule(self.now_ns + round(self._rng.uniform(0.7, 1.3) * _LATER_S * _SECOND), self._plan_later)

    def _plan(  # noqa: PLR0917 - when, what and where
        self,
        start_s: float,
        length_s: float,
        kind: str,
        number: int,
        pool: Sequence[Match] = (),
        first: Venue | None = None,
    ) -> None:
        """Plan an order; unless told otherwise in any true pair, the venues and sides taking turns."""
        opens = round(start_s * _SECOND)
        pool = pool or self._picks
        plan = Plan(
            id=f"{'episode' if kind == ARBITRAGE else 'phantom'}-{number + 1}",
            kind=kind,
            number=number,
            first=first or ("polymarket" if number % 2 else "kalshi"),
            side=("ask", "ask", "bid", "bid")[number % 4],
            opens_ns=opens,
            closes_ns=opens + round(length_s * _SECOND),
            match=pool[0],
        )
        self.plans.append(plan)
        self._schedule(opens - _LOCK_NS, lambda: self._prepare(plan, pool))

    def false_gaps(self) -> list[Json]:
        """Near misses that would pay if they were equivalent, by the books as they stand now."""
        kalshi = {market.market_id: market for market in self._kalshi.values()}
        polymarket = {market.market_id: market for market in self._polymarket.values()}
        gaps = (
            false_gap(kalshi[miss.kalshi], polymarket[condition_id(miss.polymarket)], way, miss.trap, miss.relation)
            for miss in self._board.near_misses
            for way in ("yes_kalshi", "yes_polymarket")
        )
        return [gap for gap in gaps if gap is not None]

    # --- moving books --------------------------------------------------------------------------------------

    def _schedule(self, at_ns: int, step: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (max(at_ns, self.now_ns), next(self._order), step))

    def _tick(self) -> None:
        # Squaring favours the head of the shuffled list: few markets are hot, most are calm.
        market = self._active[int(self._rng.random() ** 2 * len(self._active))]
        if market.locked:
            if market.free_side is not None:
                self._resize(market, market.free_side)
        else:
            self._wander(market.proposition)
            self._requote(market)
        self._schedule(self.now_ns + round(self._rng.expovariate(self._rate) * _SECOND), self._tick)

    def _wander(self, key: str) -> None:
        start = self._board.fair[key]
        elapsed = min((self.now_ns - self._moved[key]) / _SECOND, 5.0)
        self._moved[key] = self.now_ns
        scale = 4 * start * (ONE - start) / ONE**2
        price = self._fair[key]
        price += _PULL * elapsed * (start - price) + self._rng.gauss(0, _WANDER * scale) * elapsed**0.5
        self._fair[key] = min(max(price, start - _BAND * scale), start + _BAND * scale)

    def _targets(self, market: Quoted) -> tuple[int | None, int | None]:
        """Where the market's best bid and ask want to be, kept off the partner's book."""
        low, high = self._fair[market.proposition] - market.half, self._fair[market.proposition] + market.half
        if market.partner is not None:
            book = market.partner.book
            if book.best_ask is not None:
                low = min(low, book.best_ask - _MARGIN)
            if book.best_bid is not None:
                high = max(high, book.best_bid + _MARGIN)
        bid, ask = market.floor(low), market.ceil(high)
        if bid is not None and bid == ask:
            ask = market.ceil(bid + 1)
        return bid, ask

    def _requote(self, market: Quoted) -> None:
        book = market.book
        bid, ask = self._targets(market)
        if book.best_bid is not None and bid is not None and book.best_bid > bid and len(book.bids) > 1:
            self._set(market, "bid", book.best_bid, 0)
        elif book.best_ask is not None and ask is not None and book.best_ask < ask and len(book.asks) > 1:
            self._set(market, "ask", book.best_ask, 0)
        elif bid is not None and (book.best_bid or 0) < bid < (book.best_ask or ONE):
            self._set(market, "bid", bid, self._size(market))
        elif ask is not None and (book.best_bid or 0) < ask < (book.best_ask or ONE):
            self._set(market, "ask", ask, self._size(market))
        elif self._rng.random() < 0.12:
            self._take(market, "bid" if self._rng.random() < 0.5 else "ask")
        else:
            self._resize(market, "bid" if self._rng.random() < 0.5 else "ask")

    def _resize(self, market: Quoted, side: Side) -> None:
        """Change one level's size, mostly near the top; keep the depth between its bounds."""
        levels = market.book.bid_levels() if side == "bid" else market.book.ask_levels()
        if not levels:
            return
        worst = levels[-1][0]
        deeper = market.floor(worst - 1) if side == "bid" else market.ceil(worst + 1)
        if len(levels) < _MIN_LEVELS and deeper is not None:
            self._set(market, side, deeper, self._size(market))
        elif len(levels) > _MAX_LEVELS:
            self._set(market, side, worst, 0)
        else:
            price, _ = levels[int(self._rng.random() ** 2 * len(levels))]
            self._set(market, side, price, self._size(market))

    def _take(self, market: Quoted, side: Side) -> None:
        """Someone takes from the best level of a side."""
        book = market.book
        price, resting = (book.best_bid, book.bids) if side == "bid" else (book.best_ask, book.asks)
        if price is None or len(resting) < 2:
            return
        standing = resting[price]
        unit = SIZE_SCALE if self._rng.random() < 0.7 else SIZE_SCALE // 100
        size = standing if self._rng.random() < 0.2 else max(unit, round(standing * self._rng.random()) // unit * unit)
        self._trade(market, side, price, min(size, standing))

    def _trade(self, market: Quoted, side: Side, price: int, size: int) -> None:
        resting = market.book.bids if side == "bid" else market.book.asks
        self._set(market, side, price, resting[price] - size)
        yes_taken = (side == "ask") != market.inverted
        print_ = TradePrint(
            market.market_id,
            ONE - price if market.inverted else price,
            size,
            "yes" if yes_taken else "no",
            outcome=int(self._rng.random() < 0.3),
        )
        if market.venue == "kalshi":
            self._emit(print_)
            return
        self._emit(BookRefresh(market.market_id))
        self._schedule(self.now_ns + _TRADE_LAG_NS, lambda: self._emit(print_))

    def _size(self, market: Quoted) -> int:
        contracts = min(max(self._rng.lognormvariate(4.8, 1.0), 6.0), 20_000.0)
        if self._rng.random() < (0.25 if market.venue == "kalshi" else 0.4):
            return round(contracts * 100) * (SIZE_SCALE // 100)
        return round(contracts) * SIZE_SCALE

    def _set(self, market: Quoted, side: Side, price: int, size: int, mark: str = "") -> None:
        market.book.set(side, price, size)
        if market.inverted:
            self._emit(LevelChange(market.market_id, "ask" if side == "bid" else "bid", ONE - price, size, mark))
        else:
            self._emit(LevelChange(market.market_id, side, price, size, mark))

    def _emit(self, action: Action) -> None:
        self._out.append((self.now_ns, action))

    def _list(self, market_id: str) -> None:
        self._active.append(next(market for market in self._markets() if market.market_id == market_id))
        self._emit(Listed(market_id))

    # --- planted episodes ----------------------------------------------------------------------------------

    def _prepare(self, plan: Plan, pool: Sequence[Match]) -> None:
        """Lock the pair, choose price and size, and clear the opener's way: opposite orders are pulled one by one."""
        turn = plan.number % len(pool)
        # Where a pair is special, either market will do for the order.
        venues = [plan.first] if pool is self._picks else [plan.first, _OTHER[plan.first]]
        turns = ((match, venue) for match in (*pool[turn:], *pool[:turn]) for venue in venues)
        if not any(self._choose(plan, match, first) for match, first in turns):
            return
        plan.planted = True
        opener, book = plan.opener, plan.opener.book
        for market in (plan.opener, plan.other):
            market.locked = True
            market.free_side = None
        in_way = (
            [price for price, _ in book.bid_levels() if price >= plan.price]
            if plan.side == "ask"
            else [price for price, _ in book.ask_levels() if price <= plan.price]
        )
        pulled: Side = "bid" if plan.side == "ask" else "ask"
        pause = _LOCK_NS // (len(in_way) + 1)
        for number, price in enumerate(in_way):
            self._schedule(self.now_ns + number * pause, partial(self._set, opener, pulled, price, 0))
        self._schedule(plan.opens_ns, lambda: self._open(plan))

    def _choose(self, plan: Plan, match: Match, first: Venue) -> bool:
        """Find the price nearest to the other book at which the order is what its kind wants."""
        rng = self._rng
        if match.kalshi.locked or match.polymarket.locked:
            return False
        plan.match, plan.first = match, first
        plan.multiplier = self._multipliers[match.kalshi.market_id]
        plan.rate = self._rates[match.polymarket.market_id]
        plan.size = tiny_size() if plan.tiny else rng.randint(60, 400) * SIZE_SCALE
        edge = Fraction(rng.randint(10, 28), 1000)
        if match.direction is not None and plan.direction != match.direction:
            plan.side = "bid" if plan.side == "ask" else "ask"
        other = plan.other.book
        if plan.side == "ask":
            best = other.best_bid
            prices = [price for price in reversed(plan.opener.grid) if best is not None and price < best]
        else:
            best = other.best_ask
            prices = [price for price in plan.opener.grid if best is not None and price > best]
        for price in prices:
            plan.price = price
            book = plan.offered()
            if book is None:
                return False
            if plan.fits(book, edge):
                return True
            if plan.kind == "fee_eaten":
                return False
        return False

    def _open(self, plan: Plan) -> None:
        self._set(plan.opener, plan.side, plan.price, plan.size, f"{plan.id}:open")
        plan.peak, plan.peak_ns = plan.measure(plan.opener.book), self.now_ns
        plan.opener.free_side = "bid" if plan.side == "ask" else "ask"
        plan.other.free_side = plan.side
        self._schedule((plan.opens_ns + plan.closes_ns) // 2, lambda: self._nibble(plan))
        self._schedule(plan.closes_ns, lambda: self._close(plan))

    def _nibble(self, plan: Plan) -> None:
        """In the middle someone else takes a part of it."""
        self._trade(plan.opener, plan.side, plan.price, max(plan.size // (4 * SIZE_SCALE), 1) * SIZE_SCALE)

    def _close(self, plan: Plan) -> None:
        self._set(plan.opener, plan.side, plan.price, 0, f"{plan.id}:close")
        for market in (plan.opener, plan.other):
            market.locked = False
            market.free_side = None


def _kalshi_grid(structure: str) -> list[int]:
    prices: set[int] = set()
    for band in PRICE_RANGES[structure]:
        start, end, step = (parse_price(band[key]) for key in ("start", "end", "step"))
        prices.update(range(start, end + 1, step))
    return sorted(prices - {0, ONE})
