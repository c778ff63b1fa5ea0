"""The questions that both venues ask in a generated market: true pairs worded differently, and traps.

Every family writes its Kalshi and its Polymarket side apart, as the two venues do: other titles, other word order,
"before January 1" against "by December 31", cities against team names, one event with strikes against single
questions. People, films and bills are invented. Dates follow from the board's day, so that all markets are open.
"""

import random
from datetime import date

from arb_pipeline.exchange.drafts import Board
from arb_pipeline.exchange.families.crypto import crypto
from arb_pipeline.exchange.families.culture import awards, loners
from arb_pipeline.exchange.families.economics import inflation, jobs, stocks
from arb_pipeline.exchange.families.fed import fed
from arb_pipeline.exchange.families.politics import bills, elections, offices
from arb_pipeline.exchange.families.sports import games
from arb_pipeline.exchange.families.weather import weather

__all__ = ["draft_board"]


def draft_board(seed: int, today: date, events: int) -> Board:
    """Draft both venues' events; ``events`` is the least number on each venue."""
    board = Board(today)
    rng = random.Random(f"{seed}:{today.isoformat()}")  # noqa: S311 - reproducible market, not a secret
    fed(board, rng)
    crypto(board, rng)
    inflation(board, rng)
    jobs(board, rng)
    stocks(board, rng)
    weather(board, rng)
    elections(board, rng)
    awards(board, rng)
    bills(board, rng)
    offices(board, rng)
    loners(board, rng)
    games(board, rng, events)
    return board
