"""Fee parameters by time: which value was in force, who set it, and from when to when.

Pure: entries in, values out. A narrower scope precedes a wider one (market, event, series, default); an entry holds
from its time on, the time included, until the next one of its scope. An entry without a value clears the scope, which
then is as the wider ones have it. So an entry of the future never applies early.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Generic, TypeVar

from arb_pipeline.model import FeeChange, FeeScope, Market

__all__ = ["ALWAYS", "FeeChanges", "InForce", "Timeline"]

T = TypeVar("T")

ALWAYS: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""The time of an entry that has held since before anything was traded."""


@dataclass(frozen=True, slots=True)
class InForce(Generic[T]):
    """The value at a time, and the scope that sets it; both None where no scope does.

    Attributes:
        valid_from, valid_to: in [from, to) the answer is the same; None where it is not bounded.
    """

    value: T | None
    scope: FeeScope | None
    valid_from: datetime | None
    valid_to: datetime | None


class Timeline(Generic[T]):
    """The values of one parameter by time.

    Args:
        default: the value where no entry holds.
        series, event, market: (from, value or None) in any order; of two with the same time, the later given one holds.
    """

    def __init__(
        self,
        default: T | None = None,
        *,
        series: Iterable[tuple[datetime, T | None]] = (),
        event: Iterable[tuple[datetime, T | None]] = (),
        market: Iterable[tuple[datetime, T | None]] = (),
    ) -> None:
        scopes: dict[FeeScope, list[tuple[datetime, T | None]]] = {
            "market": sorted(market, key=_time),
            "event": sorted(event, key=_time),
            "series": sorted(series, key=_time),
        }
        self._starts = sorted({at for entries in scopes.values() for at, _ in entries})
        before: tuple[T | None, FeeScope | None] = (default, None if default is None else "default")
        self._steps = [before, *(_value(default, scopes, at) for at in self._starts)]

    def at(self, when: datetime) -> InForce[T]:
        """The value in force at a time."""
        step = first = bisect_right(self._starts, when)
        last = step
        while first > 0 and self._steps[first - 1] == self._steps[step]:
            first -= 1
        while last + 1 < len(self._steps) and self._steps[last + 1] == self._steps[step]:
            last += 1
        value, scope = self._steps[step]
        valid_from = self._starts[first - 1] if first else None
        return InForce(value, scope, valid_from, self._starts[last] if last < len(self._starts) else None)


def _time(entry: tuple[datetime, object]) -> datetime:
    return entry[0]


def _value(
    default: T | None, scopes: dict[FeeScope, list[tuple[datetime, T | None]]], at: datetime
) -> tuple[T | None, FeeScope | None]:
    """The value and its scope from an instant on."""
    for scope, entries in scopes.items():
        begun = bisect_right(entries, at, key=_time)
        value = entries[begun - 1][1] if begun else None
        if value is not None:
            return value, scope
    return default, None if default is None else "default"


class FeeChanges:
    """What is known of fee parameters by time, to be asked by market.

    Args:
        changes: in any order; of two of the same scope and time, the later one holds.
        venues: those that have been listed, also where none of these changes is theirs; None: those of the changes.
    """

    def __init__(self, changes: Iterable[FeeChange], venues: Collection[str] | None = None) -> None:
        self._changes: defaultdict[tuple[str, FeeScope, str], list[FeeChange]] = defaultdict(list)
        for change in changes:
            self._changes[change.venue, change.scope, change.scope_id].append(change)
        for found in self._changes.values():
            found.sort(key=lambda change: change.valid_from)
        self.venues = frozenset(venue for venue, _, _ in self._changes) if venues is None else frozenset(venues)

    def of(self, venue: str, scope: FeeScope, scope_id: str) -> Sequence[FeeChange]:
        """The changes of one scope, by time."""
        return self._changes.get((venue, scope, scope_id), ())

    def timeline(self, market: Market, name: str) -> Timeline[str]:
        """The values of one parameter of a market."""
        return Timeline(
            series=self._entries(market.venue, "series", market.series_id, name),
            event=self._entries(market.venue, "event", market.event_id, name),
            market=self._entries(market.venue, "market", market.market_id, name),
        )

    def _entries(self, venue: str, scope: FeeScope, scope_id: str, name: str) -> list[tuple[datetime, str | None]]:
        return [(change.valid_from, change.params.get(name)) for change in self.of(venue, scope, scope_id)]
