"""For how long what a row tells holds: an hour's tables stand alone, so that nothing outlasts its hour unseen."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["HOUR_NS", "held_until", "with_ends"]

HOUR_NS: Final = timedelta(hours=1) // timedelta(microseconds=1) * 1_000

Nanos = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def held_until(times: Nanos, end_ns: int, follows: Flags | None = None) -> Nanos:
    """Until when each row holds, ns: its successor, if that came within the next hour; else the end of its own hour.

    What is known when an hour begins is told anew in its tables. An hour without a row was not captured, or not
    evaluated, and nobody knows what held in it.

    Args:
        times: receive times of rows, rising along each market or pair.
        end_ns: nothing holds for longer.
        follows: whether the next row is of the same market or pair, one fewer than there are rows; None: all are.
    """
    hours = times // HOUR_NS
    until = np.minimum((hours + 1) * HOUR_NS, end_ns)
    followed = hours[1:] <= hours[:-1] + 1
    if follows is not None:
        followed &= follows
    until[:-1] = np.where(followed, times[1:], until[:-1])
    found: Nanos = np.maximum(until, times)
    return found


def with_ends(times: Nanos, values: Sequence[Floats], known: Nanos, end_ns: int) -> tuple[Nanos, list[Floats]]:
    """Step lines of one pair that break off where nobody knows how they went on: a row of NaN at each such end.

    Args:
        times: of the rows drawn, some of the rows known. values: the lines.
        known: times of all rows.
        end_ns: until when is drawn.
    """
    until = held_until(known, end_ns)
    ends = until[until < np.append(known[1:], end_ns)]
    places = np.searchsorted(times, ends, side="right")
    return np.insert(times, places, ends), [np.insert(line, places, np.nan) for line in values]
