"""Episodes of an edge: from a right-continuous step function of time to the stretches in which it would have paid.

An episode opens when the edge exceeds one threshold and closes when it falls to another one (hysteresis); stretches
that are separated by less than a burst of updates are one episode. An edge that is not known (a guard failed, or the
value is older than it may be held) is neither zero nor negative: it ends an episode with that reason. What the window
cuts off is censored, and said to be so.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Generic, Literal, TypeAlias, TypeVar

import numpy as np

__all__ = [
    "EdgeEpisode",
    "EdgeRules",
    "EdgeStep",
    "EndReason",
    "Survival",
    "edge_episodes",
    "kaplan_meier",
]

T = TypeVar("T")

EndReason: TypeAlias = Literal["edge", "unknown", "right_censored"]
"""Why an episode ended: the edge fell, it became unknown, or the window ended first."""

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class EdgeRules:
    """When an episode begins and ends.

    Attributes:
        open_above: it opens when the edge exceeds this, dollars per contract.
        close_at_or_below: it closes when the edge is no more than this.
        merge_ns: stretches with no more than this between them are one episode.
        hold_ns: so long is an edge taken to hold without a new one; None: until the next.
    """

    open_above: Decimal = _ZERO
    close_at_or_below: Decimal = _ZERO
    merge_ns: int = 500_000_000
    hold_ns: int | None = None

    def __post_init__(self) -> None:
        if self.close_at_or_below > self.open_above:
            raise ValueError(
                f"close_at_or_below {self.close_at_or_below} exceeds open_above {self.open_above}: "
                "an episode would close where it opens"
            )


@dataclass(frozen=True, slots=True)
class EdgeStep(Generic[T]):
    """From ``at_ns`` on the edge is this; None: unknown. ``net`` is what one execution there earns, ``what`` anything.

    An ``edge`` is dollars per contract, ``net`` dollars.
    """

    at_ns: int
    edge: Decimal | None
    net: Decimal
    what: T


@dataclass(frozen=True, slots=True)
class EdgeEpisode(Generic[T]):
    """One episode.

    Attributes:
        opened_ns, closed_ns: its span.
        active_ns: how long the edge was known and above the closing threshold.
        edge_time: integral of the edge over the active time, dollars times ns.
        peak: the step with the highest edge, the first of equal ones.
        best: the step with the highest net, the first of equal ones: one execution, not the sum over updates.
        left_censored: it was open already when the window began.
    """

    opened_ns: int
    closed_ns: int
    active_ns: int
    edge_time: Decimal
    peak: EdgeStep[T]
    best: EdgeStep[T]
    end_reason: EndReason
    left_censored: bool

    @property
    def span_ns(self) -> int:
        """From opening to close."""
        return self.closed_ns - self.opened_ns

    @property
    def time_weighted_edge(self) -> Decimal:
        """Mean edge over the active time, dollars per contract."""
        return self.edge_time / self.active_ns


def edge_episodes(
    steps: Iterable[EdgeStep[T]], start_ns: int, end_ns: int, rules: EdgeRules
) -> Iterator[EdgeEpisode[T]]:
    """The episodes of an edge within [start, end), in order.

    Args:
        steps: in order of time, each until the next one; of those at one instant the last counts. The edge before the
            first one is unknown.
        start_ns, end_ns: the window. A step before it holds from its start on.
        rules: thresholds.
    """
    waiting: EdgeEpisode[T] | None = None
    for stretch in _stretches(steps, start_ns, end_ns, rules):
        if waiting is not None and stretch.opened_ns - waiting.closed_ns <= rules.merge_ns:
            waiting = _joined(waiting, stretch)
            continue
        if waiting is not None:
            yield waiting
        waiting = stretch
    if waiting is not None:
        yield waiting


def _stretches(steps: Iterable[EdgeStep[T]], start_ns: int, end_ns: int, rules: EdgeRules) -> Iterator[EdgeEpisode[T]]:
    """Episodes before any are merged."""
    episode: EdgeEpisode[T] | None = None
    for step, until_ns, expired in _pieces(steps, start_ns, end_ns, rules.hold_ns):
        edge = step.edge
        is_open = edge is not None and (
            edge > rules.open_above or (episode is not None and edge > rules.close_at_or_below)
        )
        if is_open:
            assert edge is not None
            stretch = EdgeEpisode(
                step.at_ns,
                until_ns,
                until_ns - step.at_ns,
                edge * (until_ns - step.at_ns),
                step,
                step,
                "unknown" if expired else "right_censored",
                step.at_ns == start_ns,
            )
            episode = stretch if episode is None else _joined(episode, stretch)
        elif episode is not None:
            yield replace(episode, end_reason="unknown" if edge is None else "edge")
            episode = None
        if episode is not None and expired:
            yield episode
            episode = None
    if episode is not None:
        yield episode


def _pieces(
    steps: Iterable[EdgeStep[T]], start_ns: int, end_ns: int, hold_ns: int | None
) -> Iterator[tuple[EdgeStep[T], int, bool]]:
    """Each step within the window, until when it holds, and whether it then is too old rather than followed."""
    before: EdgeStep[T] | None = None
    for step in steps:
        if step.at_ns >= end_ns:
            break
        if before is not None and before.at_ns < step.at_ns:
            yield from _piece(before, step.at_ns, start_ns, hold_ns)
        before = step
    if before is not None:
        yield from _piece(before, end_ns, start_ns, hold_ns)


def _piece(
    step: EdgeStep[T], next_ns: int, start_ns: int, hold_ns: int | None
) -> Iterator[tuple[EdgeStep[T], int, bool]]:
    until_ns = next_ns if hold_ns is None else min(next_ns, step.at_ns + hold_ns)
    if until_ns > start_ns:
        begins = step if step.at_ns >= start_ns else replace(step, at_ns=start_ns)
        yield begins, until_ns, until_ns < next_ns


def _joined(one: EdgeEpisode[T], other: EdgeEpisode[T]) -> EdgeEpisode[T]:
    """Two stretches as one; the time between them is not active."""
    assert one.peak.edge is not None
    assert other.peak.edge is not None
    return replace(
        one,
        closed_ns=other.closed_ns,
        active_ns=one.active_ns + other.active_ns,
        edge_time=one.edge_time + other.edge_time,
        peak=other.peak if other.peak.edge > one.peak.edge else one.peak,
        best=other.best if other.best.net > one.best.net else one.best,
        end_reason=other.end_reason,
    )


# --- lifetimes -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Survival:
    """Kaplan-Meier estimate of how long episodes live.

    Attributes:
        times_s: lifetimes at which episodes ended, rising, seconds.
        shares: the share that outlives each of them.
        episodes, censored: how many there were, and how many of them were cut off.
    """

    times_s: tuple[float, ...]
    shares: tuple[float, ...]
    episodes: int
    censored: int

    def quantile(self, share: float) -> float | None:
        """The lifetime that this share of episodes does not outlive, seconds; None if the data do not reach it."""
        return next(
            (time for time, left in zip(self.times_s, self.shares, strict=True) if left <= 1 - share + 1e-12), None
        )


def kaplan_meier(lifetimes_s: Sequence[float], ended: Sequence[bool]) -> Survival:
    """Estimate the lifetimes of episodes, of which some were still going on when last seen (Kaplan and Meier 1958).

    Args:
        lifetimes_s: seconds that each was seen to last.
        ended: whether it ended then, rather than being cut off.
    """
    times = np.asarray(lifetimes_s, dtype=np.float64)
    deaths = np.asarray(ended, dtype=np.bool_)
    told: list[float] = []
    shares: list[float] = []
    left = 1.0
    for time in np.unique(times[deaths]).tolist():
        left *= 1 - int((deaths & (times == time)).sum()) / int((times >= time).sum())
        told.append(time)
        shares.append(left)
    return Survival(tuple(told), tuple(shares), len(times), int((~deaths).sum()))
