"""Whether two quotes may be set against each other at an instant: fresh, simultaneous, in sync, of open markets.

This is the judgement of single looks (a poll of either venue, a check before an order). A captured stream is judged
by :mod:`arb_pipeline.arbitrage.streams`, where a quiet book on a live connection is fresh however old its last change.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from arb_pipeline.model import MarketStatus

__all__ = ["Judgement", "Look", "judge"]


@dataclass(frozen=True, slots=True)
class Look:
    """One venue's quote as it was last received.

    Attributes:
        recv_ns: when it was received. venue_ns: the venue's own time of it, None if it tells none.
        clock_offset_ns: how far the venue's clock was found to be behind the receiver's.
    """

    recv_ns: int
    in_sync: bool
    status: MarketStatus
    venue_ns: int | None = None
    clock_offset_ns: int = 0


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judgement rests on.

    Attributes:
        ages_ns: by venue, time since receipt. venue_ages_ns: since the venue's own time, its clock set right.
        skew_ns: time between the two receipts.
        reasons: what is wrong, in alphabetical order; empty if the quotes may be used.
    """

    ages_ns: Mapping[str, int]
    venue_ages_ns: Mapping[str, int | None]
    skew_ns: int
    reasons: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        """Whether nothing is wrong."""
        return not self.reasons


def judge(looks: Mapping[str, Look], at_ns: int, max_age: timedelta, max_skew: timedelta) -> Judgement:
    """Judge the quotes of several venues at an instant.

    Receive times decide, being of one clock; the venues' own times are told for diagnosis.
    """
    ages = {venue: at_ns - look.recv_ns for venue, look in looks.items()}
    venue_ages = {
        venue: None if look.venue_ns is None else at_ns - look.venue_ns - look.clock_offset_ns
        for venue, look in looks.items()
    }
    received = [look.recv_ns for look in looks.values()]
    skew = max(received) - min(received)
    reasons = ["skew"] if skew > _ns(max_skew) else []
    for venue, look in looks.items():
        if ages[venue] > _ns(max_age):
            reasons.append(f"stale:{venue}")
        if ages[venue] < 0:
            reasons.append(f"from_the_future:{venue}")
        if not look.in_sync:
            reasons.append(f"not_in_sync:{venue}")
        if look.status is not MarketStatus.OPEN:
            reasons.append(f"market_not_open:{venue}")
    return Judgement(ages, venue_ages, skew, tuple(sorted(reasons)))


def _ns(span: timedelta) -> int:
    return span // timedelta(microseconds=1) * 1_000
