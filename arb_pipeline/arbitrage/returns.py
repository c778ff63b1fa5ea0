"""Return and lock-up: what an edge is worth a year.

Rates are fractions (0.05 is 5 %). The simple annualised return is the sort key: it is stable, while the compound
one explodes over short horizons and is therefore shown for a week or more only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from arb_pipeline.model import Market

__all__ = [
    "LONGEST_LAG",
    "SETTLEMENT_LAGS",
    "Returns",
    "annualised_compound",
    "annualised_simple",
    "days_to_payout",
    "payout_at",
    "returns",
]

SETTLEMENT_LAGS: Final[Mapping[str, timedelta]] = {
    # Half an hour in the documentation's market (docs.kalshi.com, GET /markets, settlement_timer_seconds).
    "kalshi": timedelta(minutes=30),
    # A proposal's liveness at UMA's oracle (docs.polymarket.com, "How are markets resolved"); two to six days more
    # where it is disputed, which nobody knows before.
    "polymarket": timedelta(hours=2),
}
"""By venue the time from outcome to payout of a market that tells no timer of its own."""

LONGEST_LAG: Final = max(SETTLEMENT_LAGS.values())
"""What counts for a venue that stands in no list."""

SHORTEST_DAYS = Decimal(1)
"""No lock-up counts as shorter: same-day returns do not repeat daily."""

COMPOUND_FROM_DAYS = Decimal(7)

_YEAR = Decimal(365)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Returns:
    """Return of one trade held to its payout; ``compound`` is None under a week."""

    roi: Decimal
    days: Decimal
    simple: Decimal
    compound: Decimal | None

    def excess(self, hurdle: Decimal) -> Decimal:
        """What the simple return is above (below: negative) that of money that is not locked up."""
        return self.simple - hurdle


def payout_at(market: Market) -> datetime | None:
    """When a market is expected to pay: its expected expiration (else its close) plus the settlement timer.

    None if the venue tells neither time.
    """
    outcome = market.expected_expiration_at or market.close_at
    if outcome is None:
        return None
    timer = market.settlement_timer_s
    return outcome + (SETTLEMENT_LAGS.get(market.venue, LONGEST_LAG) if timer is None else timedelta(seconds=timer))


def days_to_payout(at: datetime, *markets: Market) -> Decimal | None:
    """Days from ``at`` to the payout of the last leg, at least one; None if a leg's time is unknown."""
    payouts = [payout_at(market) for market in markets]
    known = [payout for payout in payouts if payout is not None]
    if not known or len(known) < len(payouts):
        return None
    return max(
        Decimal((max(known) - at) // timedelta(microseconds=1)) / (_DAY // timedelta(microseconds=1)), SHORTEST_DAYS
    )


def annualised_simple(roi: Decimal, days: Decimal) -> Decimal:
    """``roi`` x 365 / days."""
    return roi * _YEAR / days


def annualised_compound(roi: Decimal, days: Decimal) -> Decimal:
    """(1 + ``roi``) ** (365 / days) - 1."""
    return (1 + roi) ** (_YEAR / days) - 1


def returns(net: Decimal, capital: Decimal, days: Decimal) -> Returns:
    """Return of ``net`` on ``capital`` (dollars) locked up for ``days`` (at least one)."""
    days = max(days, SHORTEST_DAYS)
    roi = net / capital
    compound = annualised_compound(roi, days) if days >= COMPOUND_FROM_DAYS else None
    return Returns(roi, days, annualised_simple(roi, days), compound)
