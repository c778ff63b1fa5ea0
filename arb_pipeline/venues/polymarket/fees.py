"""Polymarket's taker fees, exact.

``fee = shares x rate x (p(1-p))^exponent``, cut to 5 decimals per fill, for takers only; parameters per market from its
``feeSchedule`` (docs.polymarket.com "Fees", changelog 2026-03-31). ``takerBaseFee``, ``makerBaseFee`` and the
WebSocket's ``fee_rate_bps`` are leftovers of a cap and never read. The direction of rounding is not documented: one
on-chain charge (580.677591 at 0.527058567, rate 0.07, charged 10.13209) and "smaller than 0.00001 rounds to zero" fit
a floor. Before CLOB V2 (2026-04-28) buyers paid the same amount in shares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal, localcontext
from typing import Any, Final, Literal

from arb_pipeline.model import Market
from arb_pipeline.venues.base import FeeSchedule, FeeUnknownError

__all__ = ["PolymarketFees", "fee_model"]

FIRST_FEES: Final = datetime(2026, 1, 5, tzinfo=UTC)
"""The first taker fees (15-minute crypto markets); before, nothing on the venue cost a fee."""

_STEP = Decimal("0.00001")
_SOURCE = "docs.polymarket.com, Fees; the market's feeSchedule"
# Wide enough for every product of a 9-digit price, a 6-digit size and a rate: nothing rounds before the last step.
_EXACT = Context(prec=200)
_ROUNDING = {"floor": ROUND_FLOOR, "half_up": ROUND_HALF_UP}


@dataclass(frozen=True, slots=True)
class PolymarketFees:
    """A :class:`arb_pipeline.venues.base.FeeModel`: prices dollars, sizes shares, fees dollars.

    Attributes:
        rate, exponent: of the curve; rate 0 is a market without fees.
        rounding: of a fill's fee at 5 decimals. A fee below 0.00001 is zero either way.
    """

    rate: Decimal
    exponent: int
    schedule: FeeSchedule
    rounding: Literal["floor", "half_up"] = "floor"

    def taker(self, price: Decimal, size: Decimal) -> Decimal:
        """Fee of taking ``size`` shares at one price, as one fill.

        Raises:
            ValueError: if the price is not in [0, 1] or the size is negative.
        """
        if size < 0:
            raise ValueError(f"size {size} is negative; give the shares taken")
        with localcontext(_EXACT):
            fee = size * self.marginal(price)
            return fee.quantize(_STEP, _ROUNDING[self.rounding]) if fee >= _STEP else Decimal(0)

    def order(self, fills: Sequence[tuple[Decimal, Decimal]]) -> Decimal:
        """Fee of one order: fills are charged one by one, and the order adds no rounding of its own."""
        return sum((self.taker(price, size) for price, size in fills), Decimal(0))

    def marginal(self, price: Decimal) -> Decimal:
        """Unrounded fee per share at a price.

        Raises:
            ValueError: if the price is not in [0, 1].
        """
        if not 0 <= price <= 1:
            raise ValueError(f"price {price} is not in [0, 1]; give dollars per share")
        with localcontext(_EXACT):
            return self.rate * (price * (1 - price)) ** self.exponent


def fee_model(market: Market, at: datetime, rounding: Literal["floor", "half_up"] = "floor") -> PolymarketFees:
    """The fees of a market at a time, from the parameters in its catalogue record.

    A schedule belongs to its market from creation on: rates that categories got later hold for markets made later.

    Raises:
        FeeUnknownError: if the record says that fees are on and not which, or does not say whether they are on.
    """
    if at < FIRST_FEES:
        schedule = FeeSchedule("polymarket before fees", _SOURCE, valid_to=FIRST_FEES)
        return PolymarketFees(Decimal(0), 1, schedule, rounding)
    params = market.fee_params
    created = market.created_at
    enabled = params.get("feesEnabled")
    if enabled is None and "feeSchedule" not in params and created is not None and created < FIRST_FEES:
        enabled = False
    if enabled is False:
        return PolymarketFees(Decimal(0), 1, FeeSchedule("polymarket no fees", _SOURCE, created), rounding)
    curve = params.get("feeSchedule")
    if enabled is not True or not isinstance(curve, Mapping):
        raise FeeUnknownError(
            f"market {market.market_id}: feesEnabled is {enabled!r} and feeSchedule {curve!r}; "
            "a rate is needed to price it: fetch the market again"
        )
    rate, exponent = _number(market, curve, "rate"), _number(market, curve, "exponent")
    if not 0 <= rate < 1 or exponent < 0 or exponent != int(exponent):
        raise FeeUnknownError(f"market {market.market_id}: feeSchedule {dict(curve)!r} is of no known kind")
    name = f"polymarket {params.get('feeType') or 'fees'} rate {rate} exponent {exponent}"
    return PolymarketFees(rate, int(exponent), FeeSchedule(name, _SOURCE, created), rounding)


def _number(market: Market, curve: Mapping[str, Any], name: str) -> Decimal:
    value = curve.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise FeeUnknownError(f"market {market.market_id}: feeSchedule.{name} is {value!r}, not a number")
    try:
        number = Decimal(str(value))
    except ArithmeticError:
        raise FeeUnknownError(f"market {market.market_id}: feeSchedule.{name} is {value!r}, not a number") from None
    if not number.is_finite():
        raise FeeUnknownError(f"market {market.market_id}: feeSchedule.{name} is {value!r}, not a finite number")
    return number
