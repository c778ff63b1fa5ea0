"""What is evaluated: a pair of markets and the tables that tell their books."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from arb_pipeline.arbitrage.states import Payoff
from arb_pipeline.model import Market, MatchStatus, Relation
from arb_pipeline.tables import table

__all__ = ["Direction", "MarketData", "Pair", "outcomes_bought"]

Direction = Literal["yes_kalshi", "yes_polymarket"]
"""``yes_kalshi``: buy YES on Kalshi and the opposite on Polymarket; ``yes_polymarket``: the other way round."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A Kalshi market and a Polymarket market, and how they relate.

    The proposition of a pair is Kalshi's YES. ``polymarket_yes_index`` is the Polymarket outcome that stands for it:
    0 when the books speak of the same, 1 when Polymarket's is to be read from the other side.

    Attributes:
        void_states: exceptional settlement states that the rules allow, each with what the proposition pays on
            Kalshi and on Polymarket, dollars in [0, 1] or an interval; None while nobody has read the rules for them.

    Raises:
        ValueError: if relation and index contradict each other.
    """

    kalshi: Market
    polymarket: Market
    relation: Relation
    status: MatchStatus
    polymarket_yes_index: int = 0
    void_states: Mapping[str, tuple[Payoff, Payoff]] | None = None

    def __post_init__(self) -> None:
        wanted = {Relation.EQUIVALENT: 0, Relation.INVERTED: 1}.get(self.relation, self.polymarket_yes_index)
        if self.polymarket_yes_index not in (0, 1) or self.polymarket_yes_index != wanted:
            raise ValueError(
                f"polymarket_yes_index {self.polymarket_yes_index} of {self.kalshi.market_id} / "
                f"{self.polymarket.market_id} does not fit relation {self.relation.value!r}: "
                "equivalent goes with 0, inverted with 1"
            )

    @property
    def inverted(self) -> bool:
        """Whether Polymarket's book is to be read from the other side: of exclusive questions one implies NO."""
        return (self.polymarket_yes_index == 1) != (self.relation is Relation.EXCLUSIVE)

    @property
    def key(self) -> tuple[str, str]:
        """(Kalshi market id, Polymarket market id)."""
        return self.kalshi.market_id, self.polymarket.market_id


def outcomes_bought(pair: Pair, direction: Direction) -> tuple[str, str]:
    """What a direction buys on (Kalshi, Polymarket), each by the venue's own name: ``YES`` (outcome 0) or ``NO``.

    One of each, as long as Polymarket's book speaks of the proposition; the same on both where it is to be read from
    the other side (:attr:`Pair.inverted`).
    """
    yes_kalshi = direction == "yes_kalshi"
    return "YES" if yes_kalshi else "NO", "YES" if yes_kalshi == pair.inverted else "NO"


def _empty(name: str) -> pa.Table:
    return table(name).schema.empty_table()


@dataclass(frozen=True)
class MarketData:
    """Tables as declared in :mod:`arb_pipeline.tables`, of any markets and in any order.

    For a window [start, end): quotes and book events received in it (earlier ones carry over), the gaps and sessions
    that overlap it, and what the listings told in it (a market of which they tell nothing is itself asked). Of the raw
    frames only those of ``source`` rest count, and of them their connection and time: an answer that changed nothing
    proves a polled book all the same.
    """

    quotes: pa.Table = field(default_factory=lambda: _empty("quotes"))
    book_events: pa.Table = field(default_factory=lambda: _empty("book_events"))
    book_gaps: pa.Table = field(default_factory=lambda: _empty("book_gaps"))
    capture_sessions: pa.Table = field(default_factory=lambda: _empty("capture_sessions"))
    raw_frames: pa.Table = field(default_factory=lambda: _empty("raw_frames"))
    market_history: pa.Table = field(default_factory=lambda: _empty("market_history"))
