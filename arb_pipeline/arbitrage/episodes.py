"""Episodes of an edge: from a right-continuous step function of time to the stretches in which it would have paid.

An episode opens when the edge exceeds one threshold and closes when it falls to another one (hysteresis); stretches
that are separated by less than a burst of updates are one episode. An edge that is not known (a guard failed; one of
them is that a polled book is older than it may be held) is neither zero nor negative: it ends an episode with that
reason. What the window cuts off is censored, and said to be so.
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
    "PieceFold",
    "Survival",
    "join",
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
    """

    open_above: Decimal = _ZERO
    close_at_or_below: Decimal = _ZERO
    merge_ns: int = 500_000_000

    def __post_init__(self) -> None:
        if self.close_at_or_below > self.open_above:
            raise ValueError(
                f"close_at_or_below {self.close_at_or_below} exceeds open_above {self.open_above}: "
                "an episode would close where it opens"
            )


@dataclass(frozen=True, slots=True)
class EdgeStep(Generic[T]):
    """How things stand from an instant on.

    Attributes:
        edge: what opens and closes episodes, dollars per contract; None: unknown.
        figure: what peak and mean are told of, dollars per contract.
        net: what one execution would earn, dollars.
        what: anything.
    """

    at_ns: int
    edge: Decimal | None
    figure: Decimal
    net: Decimal
    what: T


@dataclass(frozen=True, slots=True)
class EdgeEpisode(Generic[T]):
    """One episode, or the piece of one that lies within a window.

    Attributes:
        opened_ns, closed_ns: its span.
        active_ns: how long the edge was known and open.
        figure_time: integral of the figure over the active time, dollars times ns.
        peak: the step with the highest figure, the first of equal ones.
        best: the step with the highest net, the first of equal ones: one execution, not the sum over updates.
        left_censored: it was open already when the window began.
        conditional: it is one only if a piece of the window before was open up to its beginning.
    """

    opened_ns: int
    closed_ns: int
    active_ns: int
    figure_time: Decimal
    peak: EdgeStep[T]
    best: EdgeStep[T]
    end_reason: EndReason
    left_censored: bool
    conditional: bool = False

    @property
    def span_ns(self) -> int:
        """From opening to close."""
        return self.closed_ns - self.opened_ns

    @property
    def time_weighted_figure(self) -> Decimal:
        """Mean figure over the active time, dollars per contract."""
        return self.figure_time / self.active_ns


def join(pieces: Iterable[EdgeEpisode[T]], end_ns: int, rules: EdgeRules) -> Iterator[EdgeEpisode[T]]:
    """Episodes of pieces: however time is cut into windows, the pieces of all of them give the same episodes.

    Args:
        pieces: of adjoining windows, in order of time.
        end_ns: end of the last window. A piece that its window cut off earlier, and that nothing follows, ended
            because no more is known.
        rules: thresholds.
    """
    waiting: EdgeEpisode[T] | None = None
    for piece in pieces:
        if waiting is None:
            waiting = None if piece.conditional else piece
            continue
        adjoins = waiting.end_reason == "right_censored" and waiting.closed_ns == piece.opened_ns
        if piece.conditional and not adjoins:
            continue
        if piece.opened_ns - waiting.closed_ns <= rules.merge_ns:
            waiting = _joined(waiting, piece)
            continue
        yield _ended(waiting, end_ns)
        waiting = piece
    if waiting is not None:
        yield _ended(waiting, end_ns)


class PieceFold(Generic[T]):
    """The stretches of one window [start, end) in which an edge is open, in order, before any are joined.

    Steps come in order of time, each until the next one; of those at one instant the last counts. The edge before the
    first one is unknown; a step before the window holds from its start on. Nothing is kept but the piece that is open.
    """

    def __init__(self, start_ns: int, end_ns: int, rules: EdgeRules) -> None:
        self._start_ns = start_ns
        self._end_ns = end_ns
        self._rules = rules
        self._newest: EdgeStep[T] | None = None
        self._piece: EdgeEpisode[T] | None = None

    def step(self, step: EdgeStep[T]) -> list[EdgeEpisode[T]]:
        """Take the next step; the pieces that are over by then."""
        before, self._newest = self._newest, step
        return [] if before is None else self._span(before, step.at_ns)

    def finish(self) -> list[EdgeEpisode[T]]:
        """The window ends; its last pieces."""
        pieces = [] if self._newest is None else self._span(self._newest, self._end_ns)
        if self._piece is not None:
            pieces.append(self._piece)
        self._newest = self._piece = None
        return pieces

    def _span(self, step: EdgeStep[T], next_ns: int) -> list[EdgeEpisode[T]]:
        """A step holds until the next one."""
        until_ns = min(next_ns, self._end_ns)
        if until_ns <= max(step.at_ns, self._start_ns):
            return []
        if step.at_ns < self._start_ns:
            step = replace(step, at_ns=self._start_ns)
        return self._take(step, until_ns)

    def _take(self, step: EdgeStep[T], until_ns: int) -> list[EdgeEpisode[T]]:
        edge, begins = step.edge, step.at_ns == self._start_ns
        opens = edge is not None and edge > self._rules.open_above
        stays = edge is not None and edge > self._rules.close_at_or_below
        pieces: list[EdgeEpisode[T]] = []
        if opens and self._piece is not None and self._piece.conditional:
            # From here on it is open whatever was before.
            pieces.append(self._piece)
            self._piece = None
        if opens or (stays and (begins or self._piece is not None)):
            piece = EdgeEpisode(
                opened_ns=step.at_ns,
                closed_ns=until_ns,
                active_ns=until_ns - step.at_ns,
                figure_time=step.figure * (until_ns - step.at_ns),
                peak=step,
                best=step,
                end_reason="right_censored",
                left_censored=begins,
                conditional=begins and not opens,
            )
            self._piece = piece if self._piece is None else _joined(self._piece, piece)
        elif self._piece is not None:
            pieces.append(replace(self._piece, end_reason="unknown" if edge is None else "edge"))
            self._piece = None
        return pieces


def _joined(one: EdgeEpisode[T], other: EdgeEpisode[T]) -> EdgeEpisode[T]:
    """Two pieces as one; the time between them is not active."""
    return replace(
        one,
        closed_ns=other.closed_ns,
        active_ns=one.active_ns + other.active_ns,
        figure_time=one.figure_time + other.figure_time,
        peak=other.peak if other.peak.figure > one.peak.figure else one.peak,
        best=other.best if other.best.net > one.best.net else one.best,
        end_reason=other.end_reason,
    )


def _ended(episode: EdgeEpisode[T], end_ns: int) -> EdgeEpisode[T]:
    cut_off = episode.end_reason == "right_censored" and episode.closed_ns < end_ns
    return replace(episode, end_reason="unknown") if cut_off else episode


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
