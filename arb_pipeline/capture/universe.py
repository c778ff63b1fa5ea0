"""Which markets to capture: when there are more than a capture should hold, and as time goes on."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from arb_pipeline.model import Market, MarketChange, MarketStatus

__all__ = ["Revision", "Universe", "select"]


@dataclass(frozen=True, slots=True)
class Revision:
    """What is to change about the markets of a venue's capture: those to take, and ids of those to let go of."""

    add: Sequence[Market] = ()
    retire: Collection[str] = ()


class Universe(Protocol):
    """Says what to capture while a capture runs.

    Attributes:
        interval_s: seconds after which to ask again, also when no life-cycle message came.
    """

    interval_s: float

    async def revise(self, changes: Mapping[str, Sequence[MarketChange]]) -> Mapping[str, Revision]:
        """What is to change now, by venue; it must not raise.

        Args:
            changes: life-cycle messages since the last call, by venue.
        """
        ...

    async def close(self) -> None:
        """The capture ends. It must not raise, and not take longer than a few seconds."""
        ...


def select(
    markets: Iterable[Market],
    limit: int,
    prefer: Collection[str] = (),
    statuses: Collection[MarketStatus] = (MarketStatus.OPEN,),
) -> list[Market]:
    """The ``limit`` markets most worth capturing: preferred (matched) ones first, then by volume.

    Only markets of these statuses that can be traded count; where a venue trades by token, that means minted tokens.
    The choice and its order depend on nothing but the arguments.
    """
    listed = {(market.venue, market.market_id): market for market in markets}
    by_token = {market.venue for market in listed.values() if market.yes_token_id}
    wanted = frozenset(prefer)
    tradable = [
        market
        for market in listed.values()
        if market.status in statuses and (market.venue not in by_token or (market.yes_token_id and market.no_token_id))
    ]
    tradable.sort(
        key=lambda market: (
            market.market_id not in wanted,
            -(market.volume_24h or 0),
            -(market.volume or 0),
            market.venue,
            market.market_id,
        )
    )
    return tradable[:limit]
