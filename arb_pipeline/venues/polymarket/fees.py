"""Polymarket's taker fees, exact and dated.

``fee = shares x rate x (p(1-p))^exponent``, cut to 5 decimals per fill, for takers only; parameters per market from its
``feeSchedule`` (docs.polymarket.com "Fees", changelog 2026-03-31), which stays when the rates of its category change.
``takerBaseFee``, ``makerBaseFee`` and the WebSocket's ``fee_rate_bps`` are leftovers of a cap and never read. The
direction of rounding is not documented: one on-chain charge (580.677591 at 0.527058567, rate 0.07, charged 10.13209)
and "smaller than 0.00001 rounds to zero" fit a floor.

Two things were otherwise. Of markets made before 2026-03-30 the curve is a share of the price: the fee is p times as
much. And before CLOB V2 (2026-04-28) a buyer paid the same amount in shares, fee / p of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal, localcontext
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from arb_pipeline.model import Event, FeeChange, Market
from arb_pipeline.venues.base import FeeSchedule, FeeUnknownError
from arb_pipeline.venues.fee_timeline import ALWAYS, FeeChanges, InForce, Timeline

__all__ = ["CATEGORY_RATES", "CLOB_V2", "FIRST_FEES", "PolymarketFees", "fee_changes", "fee_model"]

Rounding: TypeAlias = Literal["floor", "half_up"]

FIRST_FEES: Final = datetime(2026, 1, 5, tzinfo=UTC)
"""The first taker fees (15-minute crypto markets); before, nothing on the venue cost a fee."""
PER_SHARE: Final = datetime(2026, 3, 30, tzinfo=UTC)
"""Markets made from now on pay per share, older ones per dollar ("fee structure V2")."""
CLOB_V2: Final = datetime(2026, 4, 28, 11, tzinfo=UTC)
"""Fees are collateral from now on, on top of the price; before, buyers got fewer shares."""

_STEP = Decimal("0.00001")
_SHARE_STEP = Decimal("0.000001")
_HALF = Decimal("0.5")
_SOURCE = "docs.polymarket.com, Fees; the market's feeSchedule"
_CATEGORY_SOURCE = "docs.polymarket.com, Fees and changelog"
_LISTED = "catalogue: GET /events/keyset"
# Wide enough for every product of a 9-digit price, a 6-digit size and a rate: nothing rounds before the last step.
_EXACT = Context(prec=200)
_ROUNDING = {"floor": ROUND_FLOOR, "half_up": ROUND_HALF_UP}


class _Curve(NamedTuple):
    rate: Decimal
    exponent: int


_FREE: Final = _Curve(Decimal(0), 1)


def _rates(category: str, *windows: tuple[str, str, int]) -> list[FeeChange]:
    return [
        FeeChange(
            venue="polymarket",
            scope="series",
            scope_id=category,
            params={"rate": rate, "exponent": str(exponent)},
            valid_from=datetime.fromisoformat(day).replace(tzinfo=UTC),
            source=_CATEGORY_SOURCE,
        )
        for day, rate, exponent in windows
    ]


_CRYPTO: Final = (("2026-03-30", "0.072", 1), ("2026-06-01", "0.07", 1))
"""The rate went from 0.072 to 0.07 in the course of May 2026: the dearer one counts for all of that month."""
_SPORTS: Final = (("2026-03-30", "0.03", 1), ("2026-07-10", "0.05", 1))

CATEGORY_RATES: Final = (
    FeeChange(
        venue="polymarket",
        scope="default",
        params={"rate": "0", "exponent": "1"},
        valid_from=ALWAYS,
        source=_CATEGORY_SOURCE,
    ),
    *_rates("crypto 15m", ("2026-01-05", "0.25", 2), *_CRYPTO),
    *_rates("crypto 5m", ("2026-02-12", "0.25", 2), *_CRYPTO),
    *_rates("crypto", ("2026-03-06", "0.25", 2), *_CRYPTO),
    *_rates("ncaab", ("2026-02-18", "0.0175", 1), *_SPORTS),
    *_rates("serie a", ("2026-02-18", "0.0175", 1), *_SPORTS),
    *_rates("sports", *_SPORTS),
    *_rates("finance", ("2026-03-30", "0.04", 1)),
    *_rates("politics", ("2026-03-30", "0.04", 1)),
    *_rates("mentions", ("2026-03-30", "0.04", 1)),
    *_rates("tech", ("2026-03-30", "0.04", 1)),
    *_rates("economics", ("2026-03-30", "0.05", 1)),
    *_rates("culture", ("2026-03-30", "0.05", 1)),
    *_rates("weather", ("2026-03-30", "0.05", 1)),
    *_rates("other", ("2026-03-30", "0.05", 1)),
    *_rates("geopolitics", ("2026-03-30", "0", 1)),
)
"""Rates of markets made from a day on, by category: for markets that do not tell their own."""

_CATEGORIES: Final = FeeChanges(CATEGORY_RATES)
_TAGS: Final = {
    name: frozenset(name.split() if name.startswith("crypto") else [name])
    for name in dict.fromkeys(change.scope_id for change in CATEGORY_RATES if change.scope == "series")
}
"""The tags that a market of each category bears, in lower case."""
_ALIASES: Final = {"economy": "economics", "pop culture": "culture", "15 min": "15m", "5 min": "5m"}


@dataclass(frozen=True, slots=True)
class PolymarketFees:
    """A :class:`arb_pipeline.venues.base.FeeModel`: prices dollars, sizes shares, fees dollars.

    Attributes:
        rate, exponent: of the curve; rate 0 is a market without fees.
        rounding: of a fill's fee at 5 decimals. A fee below 0.00001 is zero either way.
        of_value: the curve is per dollar paid, not per share.
        in_shares: buyers pay in shares: see :meth:`received`.
    """

    rate: Decimal
    exponent: int
    schedule: FeeSchedule
    rounding: Rounding = "floor"
    of_value: bool = False
    in_shares: bool = False

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

    def maker(self, price: Decimal, size: Decimal) -> Decimal:  # noqa: ARG002 - at any price
        """Fee of an order that rested: none. Rebates are paid later and pro rata, so that none is counted."""
        return Decimal(0)

    def marginal(self, price: Decimal) -> Decimal:
        """Unrounded fee per share at a price.

        Raises:
            ValueError: if the price is not in [0, 1].
        """
        if not 0 <= price <= 1:
            raise ValueError(f"price {price} is not in [0, 1]; give dollars per share")
        with localcontext(_EXACT):
            fee = self.rate * (price * (1 - price)) ** self.exponent
            return fee * price if self.of_value else fee

    def received(self, price: Decimal, size: Decimal) -> Decimal:
        """Shares that a buyer of ``size`` holds; before CLOB V2 fee / price less, cut to the grid of 1e-6 shares."""
        fee = self.taker(price, size) if self.in_shares else Decimal(0)
        if not fee:
            return size
        with localcontext(_EXACT):
            return (size - fee / price).quantize(_SHARE_STEP, ROUND_FLOOR)


def fee_model(
    market: Market, at: datetime, rounding: Rounding = "floor", changes: FeeChanges | None = None
) -> PolymarketFees:
    """The fees of a market at a time.

    A schedule belongs to its market from creation on: rates that categories got later hold for markets made later. A
    market that does not tell its own has the one of its category on the day on which it was made; of several categories
    the dearest.

    Args:
        changes: the schedules that the market had by time. Without them, or where they do not know it, that of its
            catalogue record counts as having held all along.

    Raises:
        FeeUnknownError: if nothing tells the schedule, or it is of no known kind.
    """
    if at < FIRST_FEES:
        schedule = FeeSchedule("polymarket before fees", _SOURCE, valid_to=FIRST_FEES)
        return PolymarketFees(Decimal(0), 1, schedule, rounding)
    own = _own(market, at, changes)
    curve, name = (own.value, _name_of_own(market)) if own.value is not None else _by_category(market, own)
    of_value = market.created_at is not None and market.created_at < PER_SHARE
    in_shares = at < CLOB_V2
    starts = [FIRST_FEES, own.valid_from, None if in_shares else CLOB_V2]
    ends = [own.valid_to, CLOB_V2 if in_shares else None]
    words = f"polymarket {name} rate {curve.rate:f} exponent {curve.exponent}"
    words += (" of the price" if of_value else "") + (" in shares" if in_shares else "")
    schedule = FeeSchedule(
        words if curve.rate else "polymarket no fees",
        _SOURCE if own.value is not None else _CATEGORY_SOURCE,
        max(start for start in starts if start is not None),
        min((end for end in ends if end is not None), default=None),
    )
    return PolymarketFees(curve.rate, curve.exponent, schedule, rounding, of_value, in_shares)


def fee_changes(events: Iterable[Event], at: datetime, known: Sequence[FeeChange]) -> list[FeeChange]:
    """All that is known of fees after a listing: the rates of categories, and the schedules of markets.

    What a market's first listing shows has held since it was made. A market that is listed no more is left out unless
    its schedule ever changed: its catalogue record tells the same.
    """
    held: dict[str, list[FeeChange]] = {}
    for change in known:
        if change.scope == "market":
            held.setdefault(change.scope_id, []).append(change)
    found = {name: sorted(own, key=_start) for name, own in held.items() if len(own) > 1}
    for event in events:
        for market in event.markets:
            params = _told(market)
            own = sorted(held.get(market.market_id, ()), key=_start)
            if not own or own[-1].params != params:
                start = at if own else min(market.created_at or ALWAYS, at)
                own = [change for change in own if change.valid_from != start]
                own.append(
                    FeeChange(
                        venue="polymarket",
                        scope="market",
                        scope_id=market.market_id,
                        params=params,
                        valid_from=start,
                        source=_LISTED,
                    )
                )
            found[market.market_id] = own
    return [*CATEGORY_RATES, *(change for own in found.values() for change in own)]


def _start(change: FeeChange) -> datetime:
    return change.valid_from


def _told(market: Market) -> dict[str, str]:
    """The schedule that a market's record tells, as parameters: {} where it tells none, raw where unusable."""
    params = market.fee_params
    if params.get("feesEnabled") is False:
        return _params_of(_FREE)
    schedule = params.get("feeSchedule")
    if params.get("feesEnabled") is not True or not isinstance(schedule, Mapping):
        return {}
    try:
        return _params_of(_curve(market, schedule))
    except FeeUnknownError:
        return {name: str(schedule.get(name)) for name in ("rate", "exponent")}


def _params_of(curve: _Curve) -> dict[str, str]:
    return {"rate": f"{curve.rate:f}", "exponent": str(curve.exponent)}


def _own(market: Market, at: datetime, changes: FeeChanges | None) -> InForce[_Curve]:
    """The schedule of the market itself; what nothing tells by time has held since it was made."""
    known = changes.of("polymarket", "market", market.market_id) if changes is not None else ()
    entries = [(change.valid_from, change.params or None) for change in known] or [(ALWAYS, _told(market) or None)]
    in_force = Timeline(market=entries).at(at)
    try:
        curve = None if in_force.value is None else _curve(market, in_force.value)
    except FeeUnknownError as error:
        raise FeeUnknownError(str(error), in_force.valid_from, in_force.valid_to) from None
    valid_from = in_force.valid_from
    if valid_from == ALWAYS:
        valid_from = market.created_at if market.created_at is not None and market.created_at <= at else None
    return InForce(curve, in_force.scope, valid_from, in_force.valid_to)


def _name_of_own(market: Market) -> str:
    return str(market.fee_params.get("feeType") or "fees")


def _by_category(market: Market, own: InForce[_Curve]) -> tuple[_Curve, str]:
    """The dearest curve of the market's categories on the day on which it was made, and the category's name."""
    params, created = market.fee_params, market.created_at
    enabled, tags = params.get("feesEnabled"), params.get("tags")
    if enabled is not True and "feeSchedule" not in params and created is not None and created < FIRST_FEES:
        return _FREE, "fees"
    if created is not None and isinstance(tags, list) and tags and params.get("feeSchedule") is None:
        dearest, category = max(_curves(tags, created), key=_peak)
        if dearest.rate or not enabled:
            return dearest, f"{category} by category"
    raise FeeUnknownError(
        f"market {market.market_id}: feesEnabled is {enabled!r} and feeSchedule {params.get('feeSchedule')!r}; "
        "a rate is needed to price it: fetch the market again",
        own.valid_from,
        own.valid_to,
    )


def _curves(tags: Sequence[object], created: datetime) -> list[tuple[_Curve, str]]:
    words = {str(tag).lower() for tag in tags}
    words |= {_ALIASES[word] for word in words if word in _ALIASES}
    names = [name for name, needed in _TAGS.items() if needed <= words] or ["other"]
    found = []
    for name in names:
        windows = _CATEGORIES.of("polymarket", "series", name)
        curves = [(one.valid_from, _Curve(Decimal(one.params["rate"]), int(one.params["exponent"]))) for one in windows]
        found.append((Timeline(_FREE, series=curves).at(created).value or _FREE, name))
    return found


def _peak(one: tuple[_Curve, str]) -> Decimal:
    """What a share costs at most."""
    curve, _ = one
    return curve.rate * (_HALF * _HALF) ** curve.exponent


def _curve(market: Market, schedule: Mapping[str, Any]) -> _Curve:
    rate, exponent = _number(market, schedule, "rate"), _number(market, schedule, "exponent")
    if not 0 <= rate < 1 or exponent < 0 or exponent != int(exponent):
        raise FeeUnknownError(f"market {market.market_id}: feeSchedule {dict(schedule)!r} is of no known kind")
    return _Curve(rate, int(exponent))


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
