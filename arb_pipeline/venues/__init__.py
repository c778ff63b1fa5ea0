"""Venues as plugins: a new one is a folder beside these and a line in ``VENUES``."""

from arb_pipeline.venues.base import Venue
from arb_pipeline.venues.kalshi import Kalshi
from arb_pipeline.venues.polymarket import Polymarket

__all__ = ["VENUES", "venue"]

VENUES: dict[str, Venue] = {v.name: v for v in (Kalshi(), Polymarket())}
"""Every venue by its name."""


def venue(name: str) -> Venue:
    """A venue by its name.

    Raises:
        KeyError: if there is none; the message lists those that there are.
    """
    try:
        return VENUES[name]
    except KeyError:
        raise KeyError(f"no venue {name!r}; there are {', '.join(VENUES)}") from None
