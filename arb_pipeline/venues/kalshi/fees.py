"""Kalshi's trading fees, exact and dated (docs.kalshi.com/getting_started/fee_rounding, fee schedule of 2026-07-07).

The model fee is ``M x rate x C x P x (1 - P)``: rate 0.07 for takers; for makers 0.0175 or, on combos, 0.035 where
the series charges them. What rounds it changed twice; every era is kept, so that history is priced as it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, InvalidOperation, localcontext
from typing import Final, Literal

from arb_pipeline.model import Market
from arb_pipeline.venues.base import FeeSchedule, FeeUnknownError

__all__ = ["FillFee", "KalshiFees", "kalshi_fees"]

Account = Literal["direct", "fcm"]
Fill = tuple[Decimal, Decimal]
"""(price in dollars, contracts)."""

_ZERO: Final = Decimal(0)
_ONE: Final = Decimal(1)
_CENT: Final = Decimal("0.01")
_CENTICENT: Final = Decimal("0.0001")
_MICRO: Final = Decimal("0.000001")
_TAKER_RATE: Final = Decimal("0.07")
_MAKER_RATES: Final[Mapping[str, Decimal]] = {
    "quadratic": _ZERO,
    "quadratic_with_maker_fees": Decimal("0.0175"),
    "quadratic_with_combo_maker_fees": Decimal("0.035"),
}
_GRIDS: Final[Mapping[Account, Decimal]] = {"direct": _CENTICENT, "fcm": _CENT}
_EXACT: Final = Context(prec=60)

_CENTICENT_FROM: Final = datetime(2026, 3, 1, tzinfo=UTC)
_MICRO_FROM: Final = datetime(2026, 8, 26, tzinfo=UTC)
_MAKER_FORMULA_FROM: Final = datetime(2025, 7, 1, tzinfo=UTC)
_OLD_MAKER_FEE: Final = Decimal("0.0025")
_SOURCE: Final = "docs.kalshi.com/getting_started/fee_rounding"


@dataclass(frozen=True, slots=True)
class FillFee:
    """How the fee of one fill comes about, dollars.

    Attributes:
        rounding_fee: what the flooring of the balance costs on top of the trade fee.
        rebate: what the order's accumulator gives back.
        net_fee: trade fee plus rounding fee less rebate, never negative.
        accumulator: rounding fees not given back yet, after this fill.
    """

    model_fee: Decimal
    trade_fee: Decimal
    rounding_fee: Decimal
    rebate: Decimal
    net_fee: Decimal
    accumulator: Decimal


@dataclass(frozen=True, slots=True)
class _Rounding:
    """One era's rounding: step of a fill's trade fee, and unit of rebates (None: the account's grid)."""

    schedule: FeeSchedule
    trade_step: Decimal
    rebate_unit: Decimal | None
    whole_order: bool = False


_ERAS: Final = (
    _Rounding(
        FeeSchedule("kalshi cent per order", "fee schedule up to February 2026", None, _CENTICENT_FROM),
        _CENT,
        None,
        whole_order=True,
    ),
    _Rounding(FeeSchedule("kalshi 1e-4 per fill", _SOURCE, _CENTICENT_FROM, _MICRO_FROM), _CENTICENT, _CENT),
    _Rounding(FeeSchedule("kalshi 1e-6 per fill", _SOURCE, _MICRO_FROM, None), _MICRO, None),
)


@dataclass(frozen=True, slots=True)
class KalshiFees:
    """The fees of one market at one time; see :class:`arb_pipeline.venues.base.FeeModel`.

    Attributes:
        schedule: the rounding rules in force.
        multiplier: the series' or the event's fee multiplier.
        taker_rate, maker_rate: before the multiplier.
        account: direct member (balance in 1e-4 dollars) or FCM-cleared (1e-2).
        waiver: the market claims a fee waiver. What that waives is not documented, so fees are charged all the same.
    """

    schedule: FeeSchedule
    multiplier: Decimal
    taker_rate: Decimal
    maker_rate: Decimal
    account: Account
    waiver: bool
    _rounding: _Rounding
    _flat_maker: bool = False

    def taker(self, price: Decimal, size: Decimal) -> Decimal:
        """Fee of an order that takes ``size`` contracts at one price."""
        return self.order([(price, size)])

    def order(self, fills: Sequence[Fill]) -> Decimal:
        """Fee of one taker order filled as (price, size) pieces: rounding is on the order, never per contract."""
        if self._rounding.whole_order:
            with localcontext(_EXACT):
                total = sum((self._model(self.taker_rate, *fill) for fill in fills), _ZERO)
                return total.quantize(_CENT, ROUND_CEILING)
        return sum((fill.net_fee for fill in self.fills(fills)), _ZERO)

    def maker(self, price: Decimal, size: Decimal) -> Decimal:
        """Fee of an order that rested and was filled whole at one price."""
        if self._flat_maker:
            return (_OLD_MAKER_FEE * size).quantize(_CENT, ROUND_CEILING)
        if self._rounding.whole_order:
            return self._model(self.maker_rate, price, size).quantize(_CENT, ROUND_CEILING)
        return self.fills([(price, size)], maker=True)[0].net_fee

    def marginal(self, price: Decimal) -> Decimal:
        """Unrounded taker fee per contract at a price."""
        return self._model(self.taker_rate, price, _ONE)

    def fills(self, fills: Sequence[Fill], *, maker: bool = False) -> list[FillFee]:
        """Each fill of one order in turn, under the per-fill rounding in force since March 2026."""
        grid = _GRIDS[self.account]
        unit = self._rounding.rebate_unit or grid
        rate = self.maker_rate if maker else self.taker_rate
        accumulator = _ZERO
        result: list[FillFee] = []
        with localcontext(_EXACT):
            for price, size in fills:
                model = self._model(rate, price, size)
                trade = model.quantize(self._rounding.trade_step, ROUND_CEILING)
                balance = -(price * size) - trade
                rounding = balance - balance.quantize(grid, ROUND_FLOOR)
                accumulator += rounding
                rebate = min(_multiples(accumulator, unit), _multiples(trade + rounding, unit))
                accumulator -= rebate
                result.append(FillFee(model, trade, rounding, rebate, trade + rounding - rebate, accumulator))
        return result

    def _model(self, rate: Decimal, price: Decimal, size: Decimal) -> Decimal:
        return self.multiplier * rate * size * price * (_ONE - price)


def kalshi_fees(market: Market, at: datetime, account: Account) -> KalshiFees:
    """The fee model of a market at a time, from the parameters that its catalogue entry carries.

    An event's override precedes the series' type and multiplier, each where it is set.

    Raises:
        FeeUnknownError: if type or multiplier is missing, or of a kind that has no published formula.
    """
    params = market.fee_params
    fee_type = params.get("fee_type_override") or params.get("fee_type")
    override = params.get("fee_multiplier_override")
    multiplier = _multiplier(market, override if override is not None else params.get("fee_multiplier"))
    maker_rate = _MAKER_RATES.get(fee_type) if isinstance(fee_type, str) else None
    if maker_rate is None:
        raise FeeUnknownError(
            f"kalshi {market.market_id}: fee_type {fee_type!r} has no known formula "
            f"(known: {', '.join(_MAKER_RATES)}); refresh the catalogue or leave the market out"
        )
    era = _ERAS[0] if at < _CENTICENT_FROM else _ERAS[1] if at < _MICRO_FROM else _ERAS[2]
    waiver = _waived(params.get("fee_waiver_expiration_time"), at)
    flat_maker = at < _MAKER_FORMULA_FROM and bool(maker_rate)
    return KalshiFees(era.schedule, multiplier, _TAKER_RATE, maker_rate, account, waiver, era, flat_maker)


def _multiples(amount: Decimal, unit: Decimal) -> Decimal:
    """The largest whole multiple of a unit within a non-negative amount."""
    return (amount / unit).to_integral_value(ROUND_FLOOR) * unit


def _multiplier(market: Market, value: object) -> Decimal:
    try:
        # By way of text: 0.5 comes out as 0.5 whether the catalogue kept it as a number or as a string.
        multiplier = Decimal(str(value))
    except InvalidOperation:
        multiplier = Decimal("NaN")
    if not multiplier.is_finite() or multiplier < 0:
        raise FeeUnknownError(
            f"kalshi {market.market_id}: fee_multiplier {value!r} is not a number of 0 or more; refresh the catalogue"
        )
    return multiplier


def _waived(until: object, at: datetime) -> bool:
    if not isinstance(until, str) or not until:
        return False
    try:
        return datetime.fromisoformat(until) > at
    except (ValueError, TypeError):
        return False
