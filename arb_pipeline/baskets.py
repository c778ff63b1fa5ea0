"""Baskets of the lake: which there are in an hour, and the hour's evaluation of them."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

import pyarrow as pa

from arb_pipeline.arbitrage.basket_evaluation import BASKET_EPISODES, BASKET_FUNNEL, evaluate_baskets
from arb_pipeline.arbitrage.baskets import Basket, OutcomeSet, baskets_of
from arb_pipeline.arbitrage.opportunities import funnel
from arb_pipeline.arbitrage.pairs import Pair
from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.evaluation import ROWS_AT_ONCE, market_data, polls_of
from arb_pipeline.model import Market
from arb_pipeline.opportunities import write_opportunities
from arb_pipeline.settings import Settings
from arb_pipeline.storage.history import markets_between
from arb_pipeline.storage.lake import Lake
from arb_pipeline.storage.outcome_sets import outcome_sets_as_of
from arb_pipeline.storage.tops import row_counts
from arb_pipeline.tables import table
from arb_pipeline.venues.base import FeeModel

__all__ = ["EvaluatedBaskets", "evaluate_hour_of_baskets", "load_outcome_sets"]

_HOUR: Final = timedelta(hours=1)
_BOOKS: Final = ("quotes", "book_events")

Key = tuple[str, str]
Fees = Callable[[Iterable[Market]], Callable[[Market, datetime], FeeModel]]
"""From the markets whose fees are asked for to a source of them."""


@dataclass(frozen=True)
class EvaluatedBaskets:
    """What an hour came to.

    Attributes:
        basket_pieces, basket_opportunities: tables; of the latter those that opened in the hour.
        days: whose ``basket_opportunities`` were renewed.
        funnel: of the episodes of the hour, as the table ``rejections``.
        sets: events of several outcomes. exclusive, exhaustive: how many of them are.
        baskets: how many were looked at. gapped: how many ever left something before fees.
        crossed: by venue, tops with the bid at or above the ask: a fault of the data.
    """

    basket_pieces: pa.Table
    basket_opportunities: pa.Table
    days: tuple[date, ...]
    funnel: pa.Table
    sets: int
    exclusive: int
    exhaustive: int
    baskets: int
    gapped: int
    crossed: Mapping[str, int]


def load_outcome_sets(lake: Lake, start: datetime) -> list[OutcomeSet]:
    """The events of several outcomes as they stood in the hour that begins at ``start``.

    What is known of an event is the newest by the end of the hour; of one found later, what was found first. An outcome
    that was settled NO before the hour is no longer one of them. One that had left the listings before the hour, and
    that was not settled by then, is missing: nobody can buy it, and nothing proves that it does not happen.
    """
    rows = outcome_sets_as_of(lake, start + _HOUR, or_first=True).to_pylist()
    members = [[(row["venue"], name) for name in json.loads(row["market_ids"])] for row in rows]
    told = {key for keys in members for key in keys}
    markets = markets_between(lake, told, start, start + _HOUR)
    settled = _settled_no(lake, told, start)
    sets = []
    for row, keys in zip(rows, members, strict=True):
        left = [key for key in keys if key not in settled]
        sets.append(
            OutcomeSet(
                row["venue"],
                row["event_id"],
                tuple(markets[key] for key in left if key in markets),
                exclusive=row["exclusive"],
                exhaustive=row["exhaustive"],
                why=row["why"],
                missing=tuple(market_id for venue, market_id in left if (venue, market_id) not in markets),
            )
        )
    return sets


def evaluate_hour_of_baskets(  # noqa: PLR0917 - an hour of a lake, how far it has gone, and what it rests on
    settings: Settings, lake: Lake, start: datetime, end: datetime, pairs: Sequence[Pair], fees: Fees
) -> EvaluatedBaskets:
    """Evaluate every basket over [start, end) of an hour, and write ``basket_pieces`` and ``basket_opportunities``."""
    sets = load_outcome_sets(lake, start)
    baskets = list(baskets_of(sets, pairs))
    rows = _captured(lake, baskets, start, end)
    baskets = [basket for basket in baskets if _worth_a_look(basket, rows)]
    markets = {buy.key: buy.market for basket in baskets for options in basket.options for buy in options}
    source = fees(markets.values())
    pieces = [table(BASKET_EPISODES.pieces).schema.empty_table()]
    gapped, crossed = 0, dict[str, int]()
    batches = [(batch, {market_id for _, market_id in _keys(batch)}) for batch in _batches(baskets, rows)]
    # One that pushed to a market of any basket only asked where it resynced another.
    polls = polls_of(settings, lake, start, end, [ids for _, ids in batches])
    for batch, ids in batches:
        data = market_data(settings, lake, start, end, ids)
        found = evaluate_baskets(batch, data, start, end, settings, source, polls)
        pieces.append(found.pieces)
        gapped += found.gapped
        for venue, count in found.crossed.items():
            crossed[venue] = crossed.get(venue, 0) + count
    told = pa.concat_tables(pieces)
    written = write_opportunities(settings, lake, start, told, BASKET_EPISODES)
    return EvaluatedBaskets(
        told,
        written.opportunities,
        written.days,
        funnel(written.opportunities, start.date(), BASKET_FUNNEL),
        len(sets),
        sum(one.exclusive for one in sets),
        sum(not one.doubt for one in sets),
        len(baskets),
        gapped,
        crossed,
    )


def _settled_no(lake: Lake, keys: set[Key], at: datetime) -> set[Key]:
    """Those of the markets that were known to be settled NO at a time."""
    rows = lake.read(
        "market_history", None, at, markets={market_id for _, market_id in keys},
        columns=["venue", "market_id", "result", "valid_from"],
    )  # fmt: skip
    newest: dict[Key, str] = {}
    for row in rows.sort_by("valid_from").to_pylist():
        newest[row["venue"], row["market_id"]] = row["result"]
    return {key for key, result in newest.items() if result == "no" and key in keys}


def _captured(lake: Lake, baskets: Iterable[Basket], start: datetime, end: datetime) -> dict[Key, int]:
    """Rows of quotes and book changes by market, of markets with a book."""
    bounds = ns_from_datetime(start), ns_from_datetime(end)
    rows: dict[Key, int] = {}
    keys = _keys(baskets)
    for venue in sorted({venue for venue, _ in keys}):
        ids = {market_id for of, market_id in keys if of == venue}
        for name in _BOOKS:
            for market_id, count in row_counts(lake, name, venue, *bounds, markets=ids).items():
                rows[venue, market_id] = rows.get((venue, market_id), 0) + count
    return rows


def _worth_a_look(basket: Basket, rows: Mapping[Key, int]) -> bool:
    """Whether there are books of every outcome; of a basket that may leave some out, of several."""
    captured = [any(buy.key in rows for buy in options) for options in basket.options]
    return sum(captured) > 1 if basket.subset else all(captured)


def _batches(baskets: Sequence[Basket], rows: Mapping[Key, int]) -> Iterator[list[Basket]]:
    """So many baskets at a time as fit into memory with their books; one with more is alone."""
    batch: list[Basket] = []
    held: set[Key] = set()
    for basket in baskets:
        fresh = _keys([basket]) - held
        if batch and sum(rows.get(key, 0) for key in held | fresh) > ROWS_AT_ONCE:
            yield batch
            batch, held = [], set()
        batch.append(basket)
        held |= _keys([basket])
    if batch:
        yield batch


def _keys(baskets: Iterable[Basket]) -> set[Key]:
    return {buy.key for basket in baskets for options in basket.options for buy in options}
