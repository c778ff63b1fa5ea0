"""Fee models by market and time, asked for once per validity."""

from collections.abc import Callable
from datetime import datetime

from arb_pipeline.model import Market
from arb_pipeline.venues.base import FeeModel, FeeSchedule, FeeUnknownError

__all__ = ["FeeBook", "FeeSource"]

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
            model = self._source(market, at)
        except FeeUnknownError as error:
            self._unknown[key] = error
            return str(error)
        self._models[key] = model
        return model


def _holds(answer: FeeSchedule | FeeUnknownError, at: datetime) -> bool:
    """Whether an answer still holds; one whose validity is left open holds from when it was asked for."""
    valid_from, valid_to = answer.valid_from, answer.valid_to
    return (valid_from is None or valid_from <= at) and (valid_to is None or at < valid_to)
