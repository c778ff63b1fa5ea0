"""The live board of pairs by their best net spread, as ``arb watch --spreads`` shows it.

Pairs are those of the lake, or are named as ``KALSHI=POLYMARKET``; neither Dagster nor a lake is needed for the latter.
Nothing is kept.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from arb_pipeline import pipeline
from arb_pipeline.alerting.rules import matches
from arb_pipeline.arbitrage.fees import FeeBook, FeeSource
from arb_pipeline.arbitrage.ladders import Execution, execute, execute_notional
from arb_pipeline.arbitrage.pairs import Direction, Pair, outcomes_bought
from arb_pipeline.capture.serve import run_until_signalled
from arb_pipeline.errors import ArbError
from arb_pipeline.model import MatchStatus, Relation
from arb_pipeline.pair_prices import ACCEPTED, PairBooks, directions, not_trading, plain
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake
from arb_pipeline.units import price_decimal
from arb_pipeline.venues import VENUES
from arb_pipeline.watch import HeldBook, Watching, find

__all__ = ["Board", "BoardRow", "Source", "board", "look_at_board", "pairs_to_watch"]

_NOTIONAL: Final = Decimal(100)
_TITLE: Final = 36


@dataclass(frozen=True, slots=True)
class BoardRow:
    """A pair in its better direction at one moment. Money is dollars; edges are per contract.

    Attributes:
        direction: what is bought; None while no direction can be told.
        gap: 1 less both prices at the tops. net: what is left of it after exact fees, at ``top_size`` contracts.
        at_notional: the largest order of at most 100 dollars.
        ages_s: (Kalshi, Polymarket) since the newest change of the book; None before it came.
        reason: why the figures are not to be traded on, or missing; empty if they are.
    """

    pair: Pair
    ages_s: tuple[float | None, float | None]
    direction: Direction | None = None
    gap: Decimal | None = None
    net: Decimal | None = None
    top_size: Decimal | None = None
    at_notional: Execution | None = None
    reason: str = ""

    @property
    def fees(self) -> Decimal | None:
        """Gap less net."""
        return None if self.gap is None or self.net is None else self.gap - self.net

    @property
    def order(self) -> tuple[bool, bool, Decimal]:
        """Sorts the best first: what is to be trusted, what has a price, what is left most of."""
        net = self.net if self.net is not None else self.gap
        return bool(self.reason), net is None, -(net or Decimal(0))

    def document(self) -> dict[str, Any]:
        """Plain values; money as exact text."""
        figures = {"gap": self.gap, "fees": self.fees, "net": self.net, "top_size": self.top_size}
        done = self.at_notional
        at_notional = None
        if done is not None:
            at_notional = {"size": plain(done.size), "net": plain(done.net), "capital": plain(done.capital)}
        ages = zip(("kalshi", "polymarket"), self.ages_s, strict=True)
        return {
            "kalshi_market_id": self.pair.kalshi.market_id,
            "polymarket_market_id": self.pair.polymarket.market_id,
            "title": self.pair.kalshi.title,
            "relation": self.pair.relation.value,
            "status": self.pair.status.value,
            "direction": self.direction,
            "bought": None if self.direction is None else list(outcomes_bought(self.pair, self.direction)),
            **{name: None if value is None else plain(value) for name, value in figures.items()},
            "at_100_usd": at_notional,
            "ages_s": {name: None if age is None else round(age, 3) for name, age in ages},
            "trusted": not self.reason,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Board:
    """All pairs at one moment, best first."""

    at: datetime
    exchange: str
    rows: tuple[BoardRow, ...]

    @property
    def complete(self) -> bool:
        """Whether both books of every pair are there."""
        return all(None not in row.ages_s for row in self.rows)

    def document(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "at": self.at.isoformat(),
            "exchange": self.exchange,
            "pairs": [row.document() for row in self.rows],
        }

    def render(self, rows: int) -> RenderableType:
        """The best so many rows for a terminal."""
        known = sum(not row.reason for row in self.rows)
        head = Text(f"{self.at:%Y-%m-%d %H:%M:%S} UTC, {len(self.rows)} pairs, {known} to be trusted; dollars")
        if self.exchange:
            head.append(f"  {self.exchange}: not real market data", "bold yellow")
        grid = Table()
        grid.add_column("pair", no_wrap=True, overflow="ellipsis", max_width=_TITLE)
        grid.add_column("kalshi / poly", no_wrap=True)
        for name in ("gap", "fees", "net", "contracts", "net of $100", "ages, s"):
            grid.add_column(name, justify="right", no_wrap=True)
        grid.add_column("trust", overflow="fold")
        for row in self.rows[:rows]:
            grid.add_row(*_cells(row), style="" if not row.reason else "dim")
        left = len(self.rows) - rows
        return Group(head, grid, *([Text(f"… {left} more pairs")] if left > 0 else []))


def pairs_to_watch(settings: Settings, lake: Lake, named: Sequence[str] = ()) -> list[Pair]:
    """The accepted pairs of the lake, or those named as ``KALSHI=POLYMARKET``, ``*`` and ``?`` allowed.

    A named pair that the lake does not hold is looked up at the venues and taken to ask the same question.

    Raises:
        ArbError: if there is no such pair, or none at all.
        httpx.TransportError: if a venue cannot be asked.
    """
    held = pipeline.load_pairs(lake)
    if not named:
        accepted = [pair for pair in held if pair.status in ACCEPTED]
        if not accepted:
            raise ArbError(
                f"the lake {lake.root} holds no accepted pair: run 'arb discover' and 'arb match', or name pairs by "
                "--pair KALSHI=POLYMARKET"
            )
        return accepted
    chosen: dict[tuple[str, str], Pair] = {}
    for text in named:
        kalshi, sign, polymarket = (part.strip() for part in text.partition("="))
        if not (kalshi and sign and polymarket):
            raise ArbError(f"--pair {text!r} is no pair: name it as KALSHI=POLYMARKET, a ticker and a condition id")
        fitting = [
            pair for pair in held if matches((kalshi,), pair.key[0]) and matches((polymarket,), pair.key[1])
        ] or [_looked_up(settings, kalshi, polymarket)]
        chosen.update((pair.key, pair) for pair in fitting)
    return list(chosen.values())


def _looked_up(settings: Settings, kalshi: str, polymarket: str) -> Pair:
    named = [(VENUES["kalshi"], kalshi), (VENUES["polymarket"], polymarket)]
    markets = asyncio.run(find(settings, named))
    by_venue = {name: [market for market in markets if market.venue == name] for name in ("kalshi", "polymarket")}
    for name, found in by_venue.items():
        if len(found) != 1:
            raise ArbError(f"--pair: {len(found)} markets of {name} are meant: name one, by its ticker or condition id")
    [one], [other] = by_venue.values()
    return Pair(one, other, Relation.EQUIVALENT, MatchStatus.APPROVED)


class Source:
    """Makes boards of live books; a pair whose books have not changed is priced once."""

    def __init__(self, settings: Settings, pairs: Sequence[Pair], fees: FeeSource) -> None:
        self._settings = settings
        self._pairs = pairs
        self._fees = FeeBook(fees)
        self._priced: dict[tuple[str, str], tuple[tuple[int, int], BoardRow]] = {}
        markets = {one.market_id: one for pair in pairs for one in (pair.kalshi, pair.polymarket)}
        self.watching = Watching(settings, list(markets.values()))

    def board(self) -> Board:
        """The board of this moment."""
        now_ns, at = self._settings.clock.now_ns(), self._settings.clock.now()
        rows = sorted((self._row(pair, now_ns, at) for pair in self._pairs), key=lambda row: row.order)
        return Board(at, self._settings.exchange_name, tuple(rows))

    def _row(self, pair: Pair, now_ns: int, at: datetime) -> BoardRow:
        markets = pair.kalshi, pair.polymarket
        kalshi, polymarket = self.watching.held(pair.kalshi), self.watching.held(pair.polymarket)
        ages = _age(kalshi, now_ns), _age(polymarket, now_ns)
        if kalshi is None or polymarket is None:
            missing = [one for one, held in zip(markets, (kalshi, polymarket), strict=True) if held is None]
            told = [f"no book of {one.venue} yet {self.watching.message(one)}".strip() for one in missing]
            return BoardRow(pair, ages, reason=", ".join(told))
        bad = [one for one, held in zip(markets, (kalshi, polymarket), strict=True) if _bad(held)]
        if bad:
            return BoardRow(pair, ages, reason=", ".join(f"{one.venue} not in sync" for one in bad))
        doubts = [told for told in (not_trading(one, at) for one in markets) if told]
        changed = kalshi.changed_ns, polymarket.changed_ns
        before = self._priced.get(pair.key)
        if before is None or before[0] != changed:
            books = PairBooks.of(pair, kalshi.book, polymarket.book)
            rows = [self._priced_row(books, direction, at) for direction in directions(pair)]
            best = min(rows, key=lambda row: row.order, default=BoardRow(pair, ages, reason="no direction pays"))
            before = self._priced[pair.key] = changed, best
        row = before[1]
        return replace(row, ages_s=ages, reason=", ".join([*doubts, *([row.reason] if row.reason else [])]))

    def _priced_row(self, books: PairBooks, direction: Direction, at: datetime) -> BoardRow:
        row = BoardRow(books.pair, (None, None), direction)
        gap = books.gap(direction)
        if gap is None:
            return replace(row, reason="nobody sells both")
        row = replace(row, gap=price_decimal(gap))
        legs = books.legs(direction, self._fees, at)
        if isinstance(legs, str):
            return replace(row, reason=legs)
        top = min(leg.asks[0][1] for leg in legs)
        return replace(
            row, net=execute(legs, top).net_edge, top_size=top, at_notional=execute_notional(legs, _NOTIONAL)
        )


def board(
    settings: Settings, lake: Lake, pairs: Sequence[Pair], show: Callable[[Board], bool], refresh_s: float = 0.5
) -> None:
    """Show boards until ``show`` returns True, or until a signal. Call it in the main thread.

    Raises:
        ArbError: if none of the venues can be streamed.
    """
    source = Source(settings, pairs, pipeline.fee_source(settings, lake, pairs))
    run_until_signalled(lambda stop: source.watching.run(lambda: show(source.board()), stop, refresh_s))


def look_at_board(settings: Settings, lake: Lake, pairs: Sequence[Pair], wait_s: float) -> Board:
    """The board once all books are there, or as it is after ``wait_s`` seconds or at a signal; raises as above."""
    boards: list[Board] = []
    deadline = time.monotonic() + wait_s

    def enough(shown: Board) -> bool:
        boards.append(shown)
        del boards[:-1]
        return shown.complete or time.monotonic() > deadline

    board(settings, lake, pairs, enough, refresh_s=0.1)
    return boards[-1]


def _age(held: HeldBook | None, now_ns: int) -> float | None:
    return None if held is None else max(0.0, (now_ns - held.changed_ns) / 1e9)


def _bad(held: HeldBook) -> bool:
    return not held.in_sync or held.book.crossed or bool(held.book.negative_levels)


def _cells(row: BoardRow) -> list[str]:
    def money(value: Decimal | None, digits: int = 4) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    paying = row.net is not None and row.net > 0 and not row.reason
    net = f"[bold green]{money(row.net)}[/]" if paying else money(row.net)
    ages = " / ".join("-" if age is None else f"{age:.1f}" for age in row.ages_s)
    title = row.pair.kalshi.title
    return [
        escape(title if len(title) <= _TITLE else f"{title[: _TITLE - 1]}…"),
        "" if row.direction is None else " / ".join(outcomes_bought(row.pair, row.direction)),
        money(row.gap),
        money(row.fees),
        net,
        "" if row.top_size is None else plain(row.top_size),
        "" if row.at_notional is None else money(row.at_notional.net, 2),
        ages,
        escape(row.reason) or "ok",
    ]
