"""The one source of time.

Receive stamps, partitions, freshness and "is it open" all read the same injected clock, so that a recording of
July is July for the whole pipeline. Request signatures alone use the wall clock, because the venue checks them
against its own.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

__all__ = ["Clock", "datetime_from_ns", "ns_from_datetime", "wall_ms"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Clock:
    """Nanoseconds since the Unix epoch, shifted by a constant offset.

    Attributes:
        offset_ns: added to every reading; negative moves the pipeline into the past.
        source: where the unshifted time comes from; tests inject their own.
    """

    offset_ns: int = 0
    source: Callable[[], int] = field(default=time.time_ns)

    @classmethod
    def from_offset(cls, seconds: float) -> "Clock":
        """A clock ``seconds`` ahead (negative: behind) of the machine's."""
        return cls(offset_ns=round(seconds * 1_000_000_000))

    def now_ns(self) -> int:
        """Nanoseconds since the epoch."""
        return self.source() + self.offset_ns

    def now(self) -> datetime:
        """The same instant as an aware UTC datetime, cut to microseconds."""
        return datetime_from_ns(self.now_ns())


def datetime_from_ns(ns: int) -> datetime:
    """An aware UTC datetime, cut to microseconds (exact: no float in between)."""
    return _EPOCH + timedelta(microseconds=ns // 1_000)


def ns_from_datetime(at: datetime) -> int:
    """Nanoseconds since the epoch of an aware datetime.

    Raises:
        ValueError: if the datetime is naive.
    """
    if at.tzinfo is None:
        raise ValueError(f"datetime {at!r} has no time zone; give an aware one")
    delta = at - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000_000 + delta.microseconds * 1_000


def wall_ms() -> int:
    """Unshifted wall time in milliseconds, for request signatures only."""
    return time.time_ns() // 1_000_000
