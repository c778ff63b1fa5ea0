"""Kalshi's trading fees, exact and dated (docs.kalshi.com/getting_started/fee_rounding, fee schedule of 2026-07-07).

The model fee is ``M x rate x C x P x (1 - P)``: rate 0.07 for takers; for makers 0.0175 or, on combos, 0.035 where
the series charges them. What rounds it changed twice; every era is kept, so that history is priced as it was.
Type and multiplier are the series', each overridden by the event's where that is set, and both change at announced
times (``/series/fee_changes``, ``/events/fee_changes``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, InvalidOperation, localcontext
from typing import Final, Literal

from arb_pipeline.model import Market
from arb_pipeline.venues.base import FeeSchedule, FeeUnknownError
from arb_pipeline.venues.fee_timeline import ALWAYS, FeeChanges, InForce, Timeline

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
_SOURCE_OF_TYPES: Final = "fee schedule of 2026-07-07 by fee_type"


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
        FeeSchedule("cent per order", "fee schedule up to February 2026", None, _CENTICENT_FROM),
        _CENT,
        None,
        whole_order=True,
    ),
    _Rounding(FeeSchedule("1e-4 per fill", _SOURCE, _CENTICENT_FROM, _MICRO_FROM), _CENTICENT, _CENT),
    _Rounding(FeeSchedule("1e-6 per fill", _SOURCE, _MICRO_FROM, None), _MICRO, None),
)


@dataclass(frozen=True, slots=True)
class KalshiFees:
    """The fees of one market at one time; see :class:`arb_pipeline.venues.base.FeeModel`.

    Attributes:
        schedule: type and multiplier in force with the scope that sets them, and the rounding rules.
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
        if self._flat_maker or self._rounding.whole_order:
            with localcontext(_EXACT):
                fee = _OLD_MAKER_FEE * size if self._flat_maker else self._model(self.maker_rate, price, size)
                return fee.quantize(_CENT, ROUND_CEILING)
        return self.fills([(price, size)], maker=True)[0].net_fee

    def received(self, price: Decimal, size: Decimal) -> Decimal:  # noqa: ARG002 - fees are dollars at any price
        """All that is bought: fees are paid in dollars."""
        return size

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


def kalshi_fees(market: Market, at: datetime, account: Account, changes: FeeChanges | None = None) -> KalshiFees:
    """The fee model of a market at a time.

    An event's override precedes the series' type and multiplier, each where it is set.

    Args:
        changes: type and multiplier by time. Without them, or where they know nothing of the venue, those that the
            market's catalogue record carries count as having held all along.

    Raises:
        FeeUnknownError: if type or multiplier is missing or not known at that time, or of a kind that has no published
            formula.
    """
    fee_type, multiplier = (_in_force(market, name, at, changes) for name in ("fee_type", "fee_multiplier"))
    maker_rate = _MAKER_RATES.get(fee_type.value) if fee_type.value is not None else None
    if maker_rate is None:
        formulas = ", ".join(_MAKER_RATES)
        raise _unknown(market, fee_type, f"fee_type {fee_type.value!r} has no known formula (known: {formulas})")
    number = _multiplier(market, multiplier)
    era = next(era for era in reversed(_ERAS) if era.schedule.valid_from is None or era.schedule.valid_from <= at)
    until = _waived_until(market.fee_params.get("fee_waiver_expiration_time"))
    waiver = until is not None and at < until
    flat_maker = at < _MAKER_FORMULA_FROM and bool(maker_rate)
    starts = [fee_type.valid_from, multiplier.valid_from, era.schedule.valid_from]
    ends = [fee_type.valid_to, multiplier.valid_to, era.schedule.valid_to]
    for boundary in (_MAKER_FORMULA_FROM if maker_rate else None, until):
        (starts if boundary is not None and boundary <= at else ends).append(boundary)
    schedule = FeeSchedule(
        f"kalshi {fee_type.value} x{number.normalize():f} {_origin(fee_type, multiplier)}; {era.schedule.name}"
        + ("; a fee waiver is claimed and not counted on" if waiver else ""),
        f"{era.schedule.source}; {_SOURCE_OF_TYPES}",
        max((start for start in starts if start is not None), default=None),
        min((end for end in ends if end is not None), default=None),
    )
    return KalshiFees(schedule, number, _TAKER_RATE, maker_rate, account, waiver, era, flat_maker)


def _in_force(market: Market, name: str, at: datetime, changes: FeeChanges | None) -> InForce[str]:
    if changes is not None and market.venue in changes.venues:
        return changes.timeline(market, name).at(at)
    series, override = (market.fee_params.get(key) for key in (name, f"{name}_override"))
    return Timeline(
        series=[(ALWAYS, None if series in (None, "") else str(series))],
        event=[(ALWAYS, None if override in (None, "") else str(override))],
    ).at(at)


def _origin(*values: InForce[str]) -> str:
    """By whom, and since when, the parameters are as they are."""
    scope = "event override" if any(value.scope == "event" for value in values) else "series"
    since = max((value.valid_from for value in values if value.valid_from is not None), default=ALWAYS)
    return f"by {scope}" + (f" since {since:%Y-%m-%dT%H:%MZ}" if since > ALWAYS else "")


def _unknown(market: Market, value: InForce[str], what: str) -> FeeUnknownError:
    # Without the time asked about: the text is a reason of episodes, which is the same for as long as they last.
    if value.value is None:
        what += f": series {market.series_id!r} has told nothing that holds at that time"
    message = f"kalshi {market.market_id}: {what}; refresh the catalogue or leave the market out"
    return FeeUnknownError(message, value.valid_from, value.valid_to)


def _multiples(amount: Decimal, unit: Decimal) -> Decimal:
    """The largest whole multiple of a unit within a non-negative amount."""
    return (amount / unit).to_integral_value(ROUND_FLOOR) * unit


def _multiplier(market: Market, value: InForce[str]) -> Decimal:
    try:
        multiplier = Decimal(value.value or "NaN")
    except InvalidOperation:
        multiplier = Decimal("NaN")
    if not multiplier.is_finite() or multiplier < 0:
        raise _unknown(market, value, f"fee_multiplier {value.value!r} is not a number of 0 or more")
    return multiplier


def _waived_until(until: object) -> datetime | None:
    """When the waiver that a market claims ends; None without one, and where its time cannot be read."""
    try:
        read = datetime.fromisoformat(until) if isinstance(until, str) else None
    except ValueError:
        return None
    return read if read is not None and read.tzinfo is not None else None
