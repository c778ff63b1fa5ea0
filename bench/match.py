"""Matching at full size: ``python -m bench.match --kalshi 5000 --polymarket 20000``.

Both catalogues are those of the generated market, Polymarket's filled up with the markets of further seeds. Printed are
the seconds of a whole run, of a second run with what the first remembers while a hundredth of the markets is new or
changed, the peak memory of the process, and whether the planted pairs were found and the near misses refused.
"""

import argparse
import json
import random
import resource
import time
from datetime import UTC, date, datetime

import msgspec

from arb_pipeline.exchange.drafts import Board, condition_id, kalshi_records, polymarket_records
from arb_pipeline.exchange.families import draft_board
from arb_pipeline.matching.matcher import Match, Memory, match
from arb_pipeline.matching.overrides import Overrides
from arb_pipeline.matching.relations import SAME
from arb_pipeline.model import Event, MatchStatus, Relation
from arb_pipeline.venues.kalshi import catalogue as kalshi_catalogue
from arb_pipeline.venues.polymarket import catalogue as polymarket_catalogue

_DAY = date(2026, 11, 21)
_AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
_EVENTS_PER_SEED = 6_500


def main() -> None:
    """Build, match, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kalshi", type=int, default=5_000, help="markets")
    parser.add_argument("--polymarket", type=int, default=20_000, help="markets")
    wanted = parser.parse_args()
    # The board alone: a whole generated market would keep its books in memory too.
    board = draft_board(7, _DAY, _EVENTS_PER_SEED)
    kalshi = _cut([kalshi_catalogue.parse_event(event) for event in kalshi_records(board)], wanted.kalshi)
    polymarket = _polymarket(board, wanted.polymarket)
    memory = Memory()
    started, cpu = time.perf_counter(), time.process_time()
    result = match(kalshi, polymarket, Overrides(), _AT, memory)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.perf_counter()
    match(_changed(kalshi), _changed(polymarket), Overrides(), _AT, memory)
    again = time.perf_counter() - started
    markets = {market.market_id for event in (*kalshi, *polymarket) for market in event.markets}
    planted = {pair: relation for pair, relation in _planted(board).items() if markets.issuperset(pair)}
    called = {(row.kalshi_market_id, row.polymarket_market_id): row.relation for row in result.matches if _called(row)}
    near = {(miss.kalshi, condition_id(miss.polymarket)) for miss in board.near_misses}
    print(
        json.dumps(
            {
                "kalshi": sum(len(event.markets) for event in kalshi),
                "polymarket": sum(len(event.markets) for event in polymarket),
                "seconds": round(seconds, 1),
                "cpu_seconds": round(cpu_seconds, 1),
                "seconds_incremental": round(again, 1),
                "peak_mb": round(peak),
                "planted": len(planted),
                "found": sum(called.get(pair) == relation for pair, relation in planted.items()),
                "called": len(called),
                "near_misses_accepted": len(near & called.keys()),
            }
        )
    )


def _planted(board: Board) -> dict[tuple[str, str], Relation]:
    """Markets of one proposition are a pair, and nothing else is."""
    polymarket = {market.proposition: market for event in board.polymarket for market in event.markets}
    return {
        (market.ticker, condition_id(other.slug)): Relation.INVERTED if other.inverted else Relation.EQUIVALENT
        for event in board.kalshi
        for market in event.markets
        if (other := polymarket.get(market.proposition)) is not None
    }


def _called(row: Match) -> bool:
    return row.relation in SAME and row.status in {MatchStatus.AUTO, MatchStatus.REVIEW}


def _cut(events: list[Event], markets: int) -> list[Event]:
    """The first events with so many markets in all."""
    kept: list[Event] = []
    left = markets
    for event in events:
        if left <= 0:
            break
        kept.append(event)
        left -= len(event.markets)
    return kept


def _polymarket(board: Board, markets: int) -> list[Event]:
    """The planted market's events and, behind them, games of other seeds that are not among them."""
    events = _cut([polymarket_catalogue.parse_event(event) for event in polymarket_records(board)], markets)
    seen = {_occasion(event.slug) for event in events}
    seed = 8
    while (left := markets - sum(len(event.markets) for event in events)) > 0:
        fresh = []
        for record in polymarket_records(draft_board(seed, _DAY, _EVENTS_PER_SEED)):
            event = polymarket_catalogue.parse_event(record)
            # Only games: questions of the other families are the same with every seed.
            if (
                len(event.markets) == 1
                and event.slug[:4] in {"nba-", "nfl-", "nhl-"}
                and _occasion(event.slug) not in seen
            ):
                seen.add(_occasion(event.slug))
                fresh.append(msgspec.structs.replace(event, event_id=f"{seed}-{event.event_id}"))
        events += _cut(fresh, left)
        seed += 1
    return events


def _occasion(slug: str) -> tuple[str, ...]:
    """A game by its teams and day, whoever is named first."""
    return tuple(sorted(slug.split("-")))


def _changed(events: list[Event]) -> list[Event]:
    """A hundredth of the events with another title."""
    rng = random.Random(3)
    return [
        msgspec.structs.replace(event, title=f"{event.title} ") if rng.random() < 0.01 else event for event in events
    ]


if __name__ == "__main__":
    main()
