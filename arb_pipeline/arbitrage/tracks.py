"""Stretches of candidates while their states go by: those that every guard lets through, and those it does not."""

from decimal import Decimal
from typing import Final, Generic, Protocol, TypeVar

from arb_pipeline.arbitrage.episodes import EdgeEpisode, EdgeRules, EdgeStep, PieceFold
from arb_pipeline.arbitrage.ladders import Execution

__all__ = ["Judged", "Tracks"]

_PRESENT: Final = EdgeRules(Decimal("-Infinity"), Decimal("-Infinity"))
"""Of rejected candidates it only counts whether there is one."""
_ZERO: Final = Decimal(0)


class Judged(Protocol):
    """What is bought at an instant, and what speaks against it."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Guards that do not hold; empty if it is accepted."""

    @property
    def execution(self) -> Execution | None:
        """The most profitable admissible size; None if nothing could be sized or priced."""

    @property
    def top_edge(self) -> Decimal:
        """Exact net per contract at the tops, dollars."""

    @property
    def net(self) -> Decimal:
        """Net of the execution, dollars; 0 without one."""


J = TypeVar("J", bound=Judged)


class Tracks(Generic[J]):
    """The pieces of what could be bought over and over: the accepted ones, and those of each set of reasons."""

    def __init__(self, start_ns: int, end_ns: int, rules: EdgeRules) -> None:
        self._window = start_ns, end_ns
        self._accepted: PieceFold[J | None] = PieceFold(start_ns, end_ns, rules)
        self._rejected: dict[tuple[str, ...], PieceFold[J | None]] = {}
        self._active: tuple[str, ...] = ()
        self._candidate: J | None = None
        self._known: bool | None = None

    def step(self, at_ns: int, candidate: J | None, *, known: bool) -> list[EdgeEpisode[J | None]]:
        """Take the candidate of the next instant, None where there is none; the pieces that are over by then.

        An unchanged candidate has to be the same object. ``known``: whether all books are to be trusted.
        """
        if candidate is self._candidate and known is self._known:
            return []
        self._candidate, self._known = candidate, known
        reasons = () if candidate is None else candidate.reasons
        pieces = self._accepted.step(_step(at_ns, candidate, _ZERO if known else None, accepted=True))
        if self._active and reasons != self._active:
            pieces += self._rejected[self._active].step(EdgeStep(at_ns, None, _ZERO, _ZERO, None))
        if reasons:
            fold = self._rejected.setdefault(reasons, PieceFold(*self._window, _PRESENT))
            pieces += fold.step(_step(at_ns, candidate, None, accepted=False))
        self._active = reasons
        return pieces

    def finish(self) -> list[EdgeEpisode[J | None]]:
        """The last pieces."""
        return [piece for fold in (self._accepted, *self._rejected.values()) for piece in fold.finish()]


def _step(at_ns: int, candidate: J | None, otherwise: Decimal | None, *, accepted: bool) -> EdgeStep[J | None]:
    """The edge of a candidate; what it is ``otherwise`` where there is none that counts."""
    if candidate is None or (accepted and candidate.reasons):
        return EdgeStep(at_ns, otherwise, _ZERO, _ZERO, None)
    edge = candidate.execution.net_edge if accepted and candidate.execution is not None else _ZERO
    return EdgeStep(at_ns, edge, candidate.top_edge, candidate.net, candidate)
