"""Fee models by market and time, asked for once per validity."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Final

from arb_pipeline.model import Market
from arb_pipeline.venues.base import FeeModel, FeeSchedule, FeeUnknownError

__all__ = ["FeeBook", "FeeSource"]

_HALF: Final = Decimal("0.5")
_MANY: Final = Decimal(1_000_000)
"""Enough contracts for the smallest rate to be more than rounding."""

FeeSource = Callable[[Market, datetime], FeeModel]
"""The fee model of a market at a time; raises FeeUnknownError where nobody can price it."""


class FeeBook:
    """Keeps each market's fee model for as long as its schedule says that it holds."""

    def __init__(self, source: FeeSource) -> None:
        self._source = source
        self._models: dict[tuple[str, str], FeeModel] = {}
        self._unknown: dict[tuple[str, str], FeeUnknownError] = {}

    def at(self, market: Market, at: datetime) -> FeeModel | str:
        """The model in force, or in words why there is none."""
        key = market.venue, market.market_id
        model = self._models.get(key)
        if model is not None and _holds(model.schedule, at):
            return model
        unknown = self._unknown.get(key)
        if unknown is not None and _holds(unknown, at):
            return str(unknown)
        try:
            model = _in_money(market, self._source(market, at))
        except FeeUnknownError as error:
            self._unknown[key] = error
            return str(error)
        self._models[key] = model
        return model


def _in_money(market: Market, model: FeeModel) -> FeeModel:
    """The model itself, if buyers hold all that they order.

    Raises:
        FeeUnknownError: if its fee is taken in contracts. Legs of equal orders are no hedge then, and no fee in dollars
            makes them one.
    """
    if model.received(_HALF, _MANY) == _MANY:
        return model
    schedule = model.schedule
    raise FeeUnknownError(
        f"{market.venue} {market.market_id}: buyers pay the fee in contracts ({schedule.name}), so that equal orders "
        "on both venues are no equal positions; such times are not priced",
        schedule.valid_from,
        schedule.valid_to,
    )


def _holds(answer: FeeSchedule | FeeUnknownError, at: datetime) -> bool:
    """Whether an answer still holds; one whose validity is left open holds from when it was asked for."""
    valid_from, valid_to = answer.valid_from, answer.valid_to
    return (valid_from is None or valid_from <= at) and (valid_to is None or at < valid_to)
