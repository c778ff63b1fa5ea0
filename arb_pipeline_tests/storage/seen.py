"""What one knows of a market at an instant, by looking at every row: the reference for candles and grids."""

from collections.abc import Sequence
from typing import TypeAlias

Top: TypeAlias = tuple[int, int | None, int | None, bool, str]
"""Instant, bid, ask, in sync, connection."""
Gap: TypeAlias = tuple[int, int | None, str]
Session: TypeAlias = tuple[str, int | None]

NEVER = 2**62


def seen(tops: Sequence[Top], gaps: Sequence[Gap], sessions: Sequence[Session], at: int) -> Top | None:
    """The top that stands at an instant, if it is to be trusted; tops are given in the order of time."""
    standing = [top for top in tops if top[0] <= at][-1:]
    if not standing:
        return None
    said, bid, ask, in_sync, connection = standing[0]
    doubts = [(begin, min(NEVER if end is None else end, _taken_over(tops, begin, of))) for begin, end, of in gaps]
    if any(begin <= at < end for begin, end in doubts):
        return None
    if bid is not None and ask is not None and bid >= ask:
        return None
    if not in_sync and not any(said < end <= at for _, end in doubts):
        return None
    if any(name == connection and end is not None and end <= at for name, end in sessions):
        return None
    return standing[0]


def _taken_over(tops: Sequence[Top], begin: int, of: str) -> int:
    before = None
    for at, connection in newest_of_each(tops):
        if connection not in (before, of) and at > begin:
            return at
        before = connection
    return NEVER


def newest_of_each(tops: Sequence[Top]) -> list[tuple[int, str]]:
    """Instants, and the connection that spoke last at each."""
    return sorted({top[0]: top[4] for top in tops}.items())
