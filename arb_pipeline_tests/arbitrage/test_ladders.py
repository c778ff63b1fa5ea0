from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arb_pipeline.arbitrage.ladders import (
    BELOW_MINIMUM,
    DepthError,
    Leg,
    edge_curve,
    execute,
    execute_notional,
    optimise,
)
from arb_pipeline_tests.arbitrage.builders import Fees


def leg(name: str, *asks: tuple[str, str], fees: Fees | None = None, lot: str = "1", min_size: str = "0") -> Leg:
    return Leg(
        name,
        "v",
        tuple((Decimal(price), Decimal(size)) for price, size in asks),
        fees or Fees(),
        Decimal(lot),
        Decimal(min_size),
    )


def test_fixed_size_by_hand() -> None:
    # 30 at 0.40 and 20 at 0.42 = 20.40; 50 at 0.55 = 27.50; fees 0.1 x p (1 - p) on the first leg:
    # 30 x 0.024 + 20 x 0.02436 = 1.2072, up to the cent 1.21.
    first = leg("a", ("0.40", "30"), ("0.42", "100"), fees=Fees(Decimal("0.1"), up=Decimal("0.01")))
    done = execute([first, leg("b", ("0.55", "60"))], Decimal(50))
    assert (done.cost, done.fees, done.capital) == (Decimal("47.90"), Decimal("1.21"), Decimal("49.11"))
    assert (done.gross, done.net) == (Decimal("2.10"), Decimal("0.89"))
    assert (done.net_edge, done.roi) == (Decimal("0.0178"), Decimal("0.89") / Decimal("49.11"))
    assert done.legs[0].vwap == Decimal("0.408")
    assert done.legs[0].vwap_all_in == Decimal("0.4322")
    assert [part.limit_price for part in done.legs] == [Decimal("0.42"), Decimal("0.55")]


def test_payout_of_a_no_basket() -> None:
    legs = [leg(name, (price, "10")) for name, price in (("a", "0.55"), ("b", "0.66"), ("c", "0.71"))]
    assert execute(legs, Decimal(10), Decimal(2)).net == Decimal("0.80")


def test_more_than_the_depth_is_refused() -> None:
    with pytest.raises(DepthError, match="leg 'a' holds 30 contracts, 31 asked for"):
        execute([leg("a", ("0.40", "30"))], Decimal(31))


@pytest.mark.parametrize(
    ("asks", "complaint"),
    [((("0.4", "1"), ("0.4", "2")), "cheapest first"), ((("0.4", "0"),), "not positive")],
)
def test_bad_ladders_are_refused(asks: tuple[tuple[str, str], ...], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        leg("a", *asks)


def test_walk_stops_where_the_marginal_net_edge_ends() -> None:
    fees = Fees(Decimal("0.08"))
    legs = [leg("a", ("0.40", "10"), ("0.50", "10"), fees=fees), leg("b", ("0.48", "15"), ("0.52", "50"))]
    curve = edge_curve(legs)
    assert [(part.start, part.end, part.prices) for part in curve] == [
        (Decimal(0), Decimal(10), (Decimal("0.40"), Decimal("0.48"))),
        (Decimal(10), Decimal(15), (Decimal("0.50"), Decimal("0.48"))),
    ]
    # 1 - 0.98 - 0.08 x 0.25 = 0: nothing is left on the second stretch.
    assert [part.net_edge for part in curve] == [Decimal("0.1008"), Decimal(0)]
    found = optimise(legs)
    assert found.best is not None
    assert (found.walk_size, found.best.size, found.profitable) == (Decimal(10), Decimal(10), True)


def test_rounding_to_the_cent_makes_small_orders_lose() -> None:
    legs = [leg("a", ("0.49", "40"), fees=Fees(Decimal("0.02"), up=Decimal("0.01"))), leg("b", ("0.505", "40"))]
    # Edge 0.005, fee 0.004998 a contract: one contract pays a whole cent, two as well.
    found = optimise(legs)
    assert found.best is not None
    smallest = found.smallest_profitable_size
    sizes = [size for size in range(1, 41) if execute(legs, Decimal(size)).net > 0]
    assert smallest == (sizes[0] if sizes else None)


def test_minimum_and_lot() -> None:
    legs = [leg("a", ("0.30", "400")), leg("b", ("0.60", "3.7"), lot="0.01", min_size="5")]
    found = optimise(legs)
    assert (found.executable, found.reason, found.best) == (False, BELOW_MINIMUM, None)
    deeper = optimise([legs[0], leg("b", ("0.60", "7.77"), lot="0.01", min_size="5")])
    assert deeper.best is not None
    assert deeper.best.size == Decimal(7), "the lot of the pair is the coarser one"


def test_a_loss_is_reported_at_its_least() -> None:
    found = optimise([leg("a", ("0.50", "9"), fees=Fees(Decimal("0.08"))), leg("b", ("0.49", "9"), min_size="3")])
    assert found.best is not None
    assert (found.best.size, found.best.net, found.profitable) == (Decimal(3), Decimal("-0.03"), False)
    assert found.smallest_profitable_size is None


def test_notional_is_the_largest_size_within_it() -> None:
    legs = [leg("a", ("0.40", "100"), fees=Fees(Decimal("0.07"), up=Decimal("0.0001"))), leg("b", ("0.50", "100"))]
    done = execute_notional(legs, Decimal(50))
    assert done is not None
    assert done.capital <= 50 < execute(legs, done.size + 1).capital
    whole = execute_notional(legs, Decimal(5000))
    assert whole is not None
    assert whole.size == 100
    assert execute_notional(legs, Decimal("0.5")) is None


prices = st.integers(1, 99).map(lambda cents: Decimal(cents) / 100)


@st.composite
def ladders(draw: st.DrawFn, name: str) -> Leg:
    levels = sorted(draw(st.sets(prices, min_size=1, max_size=4)))
    sizes = draw(st.lists(st.integers(1, 120), min_size=len(levels), max_size=len(levels)))
    fees = Fees(
        draw(st.sampled_from([Decimal(0), Decimal("0.04"), Decimal("0.07"), Decimal("0.25")])),
        up=draw(st.sampled_from([None, Decimal("0.0001"), Decimal("0.01")])),
        cut=draw(st.sampled_from([None, Decimal("0.00001")])),
    )
    scale = draw(st.sampled_from([Decimal(1), Decimal("0.1")]))
    return Leg(
        name,
        "v",
        tuple((price, size * scale) for price, size in zip(levels, sizes, strict=True)),
        fees,
        draw(st.sampled_from([Decimal(1), Decimal("0.5")])),
        Decimal(draw(st.integers(0, 6))),
    )


@settings(max_examples=150, deadline=None)
@given(ladders("a"), ladders("b"))
def test_optimum_equals_brute_force(first: Leg, second: Leg) -> None:
    lot = max(first.lot, second.lot)

    def net(size: Decimal) -> Decimal:
        """Independent of the walk: contract by contract over lists of unit prices."""
        total = Decimal(0)
        for each in (first, second):
            left, fills = size, []
            for price, available in each.asks:
                taken = min(left, available)
                if taken:
                    fills.append((price, taken))
                left -= taken
            total += sum((price * taken for price, taken in fills), Decimal(0)) + each.fees.order(fills)
        return size - total

    sizes = [lot * count for count in range(1, int(min(first.depth, second.depth) / lot) + 1)]
    sizes = [size for size in sizes if size >= max(first.min_size, second.min_size)]
    found = optimise([first, second])
    if not sizes:
        assert not found.executable
        return
    best = max(sizes, key=lambda size: (net(size), -size))
    assert found.best is not None
    assert (found.best.net, found.best.size) == (net(best), best)
    profitable = [size for size in sizes if net(size) > 0]
    assert found.smallest_profitable_size == (profitable[0] if profitable else None)
    inside = [part for part in found.curve if part.net_edge > 0]
    assert found.walk_size == (inside[-1].end if inside else 0)
