"""Ten thousand random ladders: the walk's optima, fees and sizes against a search of every admissible size.

The search shares no code with the package. It reckons in whole numbers of 1e-6 dollars and 1e-2 contracts, by the
venues' published rules: Kalshi's 0.07 x M x C x P (1 - P), up to 1e-6 a fill, the balance down to the account's grid,
and the order's rounding given back in its units (docs.kalshi.com/getting_started/fee_rounding); Polymarket's
C x rate x P (1 - P), down to 1e-5 a fill.
"""

import random
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Literal

import pytest

from arb_pipeline.arbitrage.candidates import candidate_legs
from arb_pipeline.arbitrage.ladders import Execution, execute_balances, execute_notional, optimise
from arb_pipeline.arbitrage.pairs import Direction
from arb_pipeline.model import OrderBook
from arb_pipeline.venues.base import FeeModel
from arb_pipeline.venues.kalshi.fees import kalshi_fees
from arb_pipeline.venues.polymarket.fees import fee_model
from arb_pipeline_tests.arbitrage.builders import market, pair
from arb_pipeline_tests.golden import NOW

LADDERS = 10_000
ROUNDS = 10

Levels = list[tuple[int, int]]
"""(price in 1e-4 dollars, size in 1e-2 contracts), cheapest first."""


@dataclass(frozen=True)
class Rules:
    """What both venues demand: fee parameters in hundredths, and sizes in 1e-2 contracts."""

    multiplier: int
    account: Literal["direct", "fcm"]
    rate: int
    lots: tuple[int, int]
    minimum: int


@dataclass(frozen=True)
class Found:
    """A size in 1e-2 contracts, and what it costs and earns in 1e-6 dollars."""

    size: int
    net: int
    costs: tuple[int, int]
    fees: tuple[int, int]

    @property
    def capital(self) -> int:
        return sum(self.costs) + sum(self.fees)


# --- the search --------------------------------------------------------------------------------------------


def taken(levels: Levels, size: int) -> Levels:
    fills = []
    for price, available in levels:
        if size > 0:
            fills.append((price, min(size, available)))
            size -= available
    return fills


def kalshi_fee(fills: Levels, rules: Rules) -> int:
    grid = 100 if rules.account == "direct" else 10_000
    paid = kept = 0
    for price, size in fills:
        # 0.07 x M x C x P (1 - P) in 1e-14 dollars, up to 1e-6.
        trade = -(-7 * rules.multiplier * size * price * (10_000 - price) // 10**8)
        rounding = -(price * size + trade) % grid
        kept += rounding
        back = min(kept // grid, (trade + rounding) // grid) * grid
        kept -= back
        paid += trade + rounding - back
    return paid


def polymarket_fee(fills: Levels, rules: Rules) -> int:
    # C x rate x P (1 - P) in 1e-12 dollars, down to 1e-5.
    return sum(rules.rate * size * price * (10_000 - price) // 10**7 * 10 for price, size in fills)


def every_size(kalshi: Levels, polymarket: Levels, rules: Rules) -> list[Found]:
    # One of the lots divides the other.
    lot = max(rules.lots)
    depth = min(sum(size for _, size in levels) for levels in (kalshi, polymarket))
    found = []
    for size in range(lot, depth + 1, lot):
        if size < rules.minimum:
            continue
        fills = taken(kalshi, size), taken(polymarket, size)
        costs = [sum(price * part for price, part in each) for each in fills]
        fees = kalshi_fee(fills[0], rules), polymarket_fee(fills[1], rules)
        found.append(Found(size, 10_000 * size - sum(costs) - sum(fees), (costs[0], costs[1]), fees))
    return found


# --- made-up books -----------------------------------------------------------------------------------------


def rules_of(draw: random.Random) -> Rules:
    fine = draw.random() < 0.3
    lots = (1, 1) if fine else draw.choice([(100, 100), (100, 1)])
    minimum = draw.choice([1, 5, 20]) if fine else draw.choice([100, 200, 500])
    account: Literal["direct", "fcm"] = "direct" if draw.random() < 0.5 else "fcm"
    return Rules(draw.choice([100, 100, 50, 0]), account, draw.choice([0, 4, 5, 7, 25]), lots, minimum)


def ladder(draw: random.Random, best: int, step: int, most: int) -> Levels:
    """Three levels at most, from ``best`` on upwards (``step`` 1) or downwards (-1)."""
    grid = draw.choice([100, 10])
    prices = [best + step * grid * away for away in sorted(draw.sample(range(6), draw.randint(1, 3)))]
    return [(price, draw.randint(1, most)) for price in prices if 0 < price < 10_000]


def book_of(draw: random.Random, middle: int, most: int) -> tuple[Levels, Levels]:
    """Bids and asks, neither of them empty."""
    half = draw.choice([10, 50, 100])
    return ladder(draw, middle - half, -1, most), ladder(draw, middle + half, 1, most)


def order_book(book: tuple[Levels, Levels]) -> OrderBook:
    made = OrderBook()
    made.replace(*([(price, size * 10_000) for price, size in side] for side in book))
    return made


@cache
def models(multiplier: int, account: Literal["direct", "fcm"], rate: int) -> tuple[FeeModel, FeeModel]:
    params = {"fee_type": "quadratic", "fee_multiplier": str(Decimal(multiplier) / 100)}
    schedule = {"feesEnabled": True, "feeSchedule": {"rate": str(Decimal(rate) / 100), "exponent": 1}}
    return (
        kalshi_fees(market("kalshi", fee_params=params), NOW, account),
        fee_model(market("polymarket", fee_params=schedule), NOW),
    )


# --- both side by side -------------------------------------------------------------------------------------


def opposite(levels: Levels) -> Levels:
    return [(10_000 - price, size) for price, size in levels]


def same(done: Execution, found: Found) -> None:
    assert (done.size, done.net) == (Decimal(found.size) / 100, Decimal(found.net) / 10**6)
    assert [int(leg.cost * 10**6) for leg in done.legs] == list(found.costs)
    assert [leg.fee * 10**6 for leg in done.legs] == list(found.fees)


def check(draw: random.Random) -> int:
    """One pair of books in both directions; how many of these pay."""
    rules, price = rules_of(draw), draw.randint(1_000, 9_000)
    most = 12 if max(rules.lots) == 1 else 900
    kalshi, polymarket = (book_of(draw, price + draw.randint(-900, 900), most) for _ in range(2))
    one = pair(
        kalshi=market("kalshi", size_step=rules.lots[0] * 10_000, min_size=rules.lots[0] * 10_000),
        polymarket=market("polymarket", size_step=rules.lots[1] * 10_000, min_size=rules.minimum * 10_000),
    )
    directions: dict[Direction, tuple[Levels, Levels]] = {
        "yes_kalshi": (kalshi[1], opposite(polymarket[0])),
        "yes_polymarket": (opposite(kalshi[0]), polymarket[1]),
    }
    books = order_book(kalshi), order_book(polymarket)
    paying = 0
    for direction, sides in directions.items():
        legs = candidate_legs(one, direction, *books, models(rules.multiplier, rules.account, rules.rate))
        sizes = every_size(*sides, rules)
        optimum = optimise(legs)
        assert optimum.executable is bool(sizes)
        if optimum.best is None:
            continue
        best = max(sizes, key=lambda each: (each.net, -each.size))
        same(optimum.best, best)
        paid = [each.size for each in sizes if each.net > 0]
        assert optimum.smallest_profitable_size == (Decimal(paid[0]) / 100 if paid else None)
        paying += bool(paid)
        dollars = draw.randint(1, 2 * sizes[-1].capital)
        told = execute_notional(legs, Decimal(dollars) / 10**6)
        within = [each for each in sizes if each.capital <= dollars]
        assert (told is None) is (not within)
        if told is not None:
            same(told, within[-1])
        balances = [draw.randint(1, 2 * cost + 1) for cost in sizes[-1].costs]
        told = execute_balances(legs, [Decimal(balance) / 10**6 for balance in balances])
        within = [
            each
            for each in sizes
            if all(cost + fee <= held for cost, fee, held in zip(each.costs, each.fees, balances, strict=True))
        ]
        assert (told is None) is (not within)
        if told is not None:
            same(told, within[-1])
    return paying


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_every_admissible_size_was_looked_at(seed: int) -> None:
    draw = random.Random(seed)
    pairs = LADDERS // ROUNDS // 2
    paying = sum(check(draw) for _ in range(pairs))
    assert pairs // 5 < paying < 2 * pairs, "both kinds are met"
