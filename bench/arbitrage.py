"""An hour of pairs evaluated as the pipeline does it: ``python -m bench.arbitrage``.

A lake on disk holds an hour of 50 pairs with 10 million quotes in all, and the book changes that made them: books of
some fifty levels a side, of which every second or third change leaves the top as it was. A few times in the hour one
venue's book is five cents off for some seconds. A process of its own reads that, and writes ``spreads``,
``opportunity_pieces``, ``opportunities``, ``rejections`` and ``execution_backtest``. Exits with 1 if a floor is missed.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.arbitrage.pairs import Pair
from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.evaluation import evaluate_pairs
from arb_pipeline.model import Market, MatchStatus, Relation
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline.venues import venue as registered
from arb_pipeline.venues.base import FeeModel
from bench.storage import PAIRS, START, Figure, Ints, apart, markets, peak_gb, rows_of, sessions

MAX_SECONDS = 60.0
MAX_GB = 2.0

_HOUR_NS = 3_600 * 10**9
_SECOND = 10**9
_CENTS = 100
_AT_THE_TOP = 0.6
_EPISODES = 5
_EPISODE_S = 4
_OFF = 5


# --- made-up books -----------------------------------------------------------------------------------------


def pairs_of(count: int) -> list[Pair]:
    """Pairs of the made-up markets."""
    return [
        Pair(kalshi, polymarket, Relation.EQUIVALENT, MatchStatus.AUTO)
        for kalshi, polymarket in map(markets, range(count))
    ]


def books(venue: str, market_id: str, number: int, count: int) -> tuple[pa.Table, pa.Table]:
    """So many quotes of an hour of a market, and its book changes, the opening snapshot first."""
    own = np.random.default_rng([number, len(venue)])
    frames = round(count / _AT_THE_TOP * 1.1) + 100
    times = np.sort(own.integers(1, _HOUR_NS, frames))
    is_bid = own.random(frames) < 0.5
    middle = _middle(number, off=venue != "kalshi")[times // _SECOND]
    noise = own.integers(1, 3, frames // 20 + 1)[np.arange(frames) // 20]
    # An ask of p is a bid of 100 - p for the opposite.
    tops = np.where(is_bid, middle, _CENTS - middle) - noise
    sides = [_Side(tops[is_bid == side], own) for side in (True, False)]
    top, size, told = (np.empty(frames, dtype=np.int64) for _ in range(3))
    for side, made in zip((True, False), sides, strict=True):
        top[is_bid == side], size[is_bid == side], told[is_bid == side] = made.top, made.top_size, made.told
    end = int(np.searchsorted(np.cumsum(told), count)) + 1
    bid, ask = (np.maximum.accumulate(np.where(is_bid == side, np.arange(frames), -1)) for side in (True, False))
    quoted = np.flatnonzero(told[:end] & (bid[:end] >= 0) & (ask[:end] >= 0))
    common: dict[str, object] = {"venue": venue, "market_id": market_id, "connection_id": f"{venue}-1", "source": "ws"}
    received = ns_from_datetime(START) + times
    ordinals = (np.arange(1, frames + 1) + number * 2 * frames) * 1024
    tops_told: dict[str, object] = {
        **common,
        "recv_ns": received[quoted],
        "ordinal": ordinals[quoted] + 1023,
        "bid": top[bid[quoted]] * _CENTS,
        "bid_size": size[bid[quoted]],
        "ask": (_CENTS - top[ask[quoted]]) * _CENTS,
        "ask_size": size[ask[quoted]],
        "in_sync": np.ones(len(quoted), dtype=np.bool_),
    }
    return rows_of("quotes", tops_told), pa.concat_tables(
        _changes(common, sides, (received, ordinals, is_bid), end, number * 2 * frames * 1024)
    )


def _changes(
    common: dict[str, object],
    sides: "Sequence[_Side]",
    frames: tuple[Ints, Ints, npt.NDArray[np.bool_]],
    end: int,
    first: int,
) -> Iterator[pa.Table]:
    received, ordinals, is_bid = frames
    opened = np.array([ns_from_datetime(START)])
    clear: dict[str, object] = {
        **common,
        "epoch": np.array([1]),
        "recv_ns": opened,
        "ordinal": np.array([first]),
        "kind": "clear",
    }
    yield rows_of("book_events", clear)
    ordinal = first + 1
    for name, side in zip(("bid", "ask"), sides, strict=True):
        levels = len(side.opening)
        at = np.arange(1, levels + 1)
        yield rows_of(
            "book_events",
            {
                **common,
                "epoch": np.ones(levels, dtype=np.int64),
                "recv_ns": np.repeat(opened, levels),
                "ordinal": ordinal + np.arange(levels),
                "kind": "snapshot",
                "side": name,
                "price": (at if name == "bid" else _CENTS - at) * _CENTS,
                "size": side.opening,
            },
        )
        ordinal += levels
    places = [np.flatnonzero(is_bid == name)[side.frame] for name, side in zip((True, False), sides, strict=True)]
    frame = np.concatenate(places)
    place = np.concatenate([side.place for side in sides])
    bids = np.repeat([True, False], [len(side.frame) for side in sides])
    price = np.concatenate([sides[0].price, _CENTS - sides[1].price]) * _CENTS
    sizes = np.concatenate([side.size for side in sides])
    order = np.lexsort((place, frame))
    order = order[frame[order] < end]
    yield rows_of(
        "book_events",
        {
            **common,
            "epoch": np.ones(len(order), dtype=np.int64),
            "recv_ns": received[frame[order]],
            "ordinal": ordinals[frame[order]] + place[order],
            "kind": "delta",
            "side": np.where(bids[order], "bid", "ask"),
            "price": price[order],
            "size": sizes[order],
        },
    )


class _Side:
    """One side of a book whose best price follows a path, with a level on every cent below it.

    Where the path rises, levels are added; where it falls, they are taken away; where it stays, a level gets another
    size, and that is most often the best one.

    Attributes:
        top_size, told: at each step of the path, and whether the top changed.
        frame, place: of each change the step that it belongs to, and its place in that.
        opening: sizes from one cent up to the first best price.
    """

    def __init__(self, path: Ints, random: np.random.Generator) -> None:
        steps = len(path)
        self.top = path
        before = np.append(path[:1], path[:-1])
        moved = path - before
        deeper = np.where(random.random(steps) < _AT_THE_TOP, 0, random.integers(1, 6, steps))
        counts = np.maximum(np.abs(moved), 1)
        self.frame = np.repeat(np.arange(steps), counts)
        self.place = np.arange(len(self.frame)) - np.repeat(np.cumsum(counts) - counts, counts)
        rises, falls = moved[self.frame] > 0, moved[self.frame] < 0
        base = before[self.frame]
        stays = np.maximum(path - deeper, 1)[self.frame]
        self.price = np.where(rises, base + 1 + self.place, np.where(falls, base - self.place, stays))
        sizes = 1_000_000 * random.integers(1, 1_000, len(self.frame))
        self.size = np.where(falls, 0, sizes)
        self.opening = 1_000_000 * random.integers(1, 1_000, int(path[0]))
        self.told = (moved != 0) | (deeper == 0)
        self.top_size = self._newest(path, np.cumsum(counts))

    def _newest(self, prices: Ints, until: Ints) -> Ints:
        """The size of a level after so many changes."""
        there = np.flatnonzero(self.size)
        width = len(self.size) + 1
        keys = np.concatenate([self.price[there] * width + there + 1, np.arange(1, len(self.opening) + 1) * width])
        sizes = np.concatenate([self.size[there], self.opening])
        order = np.argsort(keys)
        found: Ints = sizes[order][np.searchsorted(keys[order], prices * width + until, side="right") - 1]
        return found


def _middle(number: int, *, off: bool) -> Ints:
    """By second a price in cents that both of a pair's markets have; ``off``: but for its episodes."""
    shared = np.random.default_rng(number)
    path: Ints = np.clip(
        50 + np.cumsum(np.where(shared.random(3_600) < 0.05, shared.choice([-1, 1], 3_600), 0)), 25, 75
    )
    for begin in shared.integers(0, 3_600 - _EPISODE_S, _EPISODES) if off else ():
        path[begin : begin + _EPISODE_S] += _OFF
    return path


def make_lake(root: str, pairs: int, quotes: int) -> list[Figure]:
    """Write the hour to a lake."""
    lake, each = Lake(root), quotes // (2 * pairs)
    written = {"quotes": 0, "book_events": 0}
    for place, venue in enumerate(("kalshi", "polymarket")):
        own = sessions().filter(pc.field("venue") == venue)
        lake.replace("capture_sessions", Partition.of("capture_sessions", venue, START), own)
        for at, name in enumerate(written):
            made = (books(venue, markets(number)[place].market_id, number, each)[at] for number in range(pairs))
            manifest = lake.replace_in_order(name, Partition.of(name, venue, START), made)
            written[name] += manifest.rows
    return [Figure(f"{name} in the lake", rows, "rows") for name, rows in written.items()]


# --- the measure -------------------------------------------------------------------------------------------


def evaluate(root: str, pairs: int) -> list[Figure]:
    """Evaluate the hour, from the lake to the lake."""
    lake, settings = Lake(root), Settings(postgres_url=None)

    def fees(market: Market, at: datetime) -> FeeModel:
        return registered(market.venue).fees(market, at, settings)

    before = peak_gb()
    began, worked = time.perf_counter(), time.process_time()
    found = evaluate_pairs(settings, lake, pairs_of(pairs), fees, START)
    took, busy = time.perf_counter() - began, time.process_time() - worked
    # That of children is the largest one's.
    peak = peak_gb() + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    nets = lake.read("spreads", START, START + timedelta(hours=1), columns=("net_yes_kalshi", "net_yes_polymarket"))
    accepted = pc.sum(found.opportunities["accepted"]).as_py() or 0
    return [
        Figure("read, evaluated and written", took, "s", at_most=MAX_SECONDS),
        Figure("processor time of that", busy, "s"),
        Figure("memory: before", before, "GB"),
        Figure("memory: peak", peak, "GB", at_most=MAX_GB),
        Figure("spreads", found.spreads.rows, "rows"),
        Figure("of which net of exact fees", sum(pc.count(column).as_py() for column in nets.columns), "figures"),
        Figure("episodes", found.opportunities.num_rows, "rows"),
        Figure("of which accepted", accepted, "rows"),
        Figure("orders simulated", found.execution_backtest.num_rows, "rows"),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the hour, evaluate it, print a table, and say whether both floors were kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--quotes", type=int, default=10_000_000, help="quotes of all pairs together")
    parser.add_argument("--lake", help="keep the lake in this folder, and use what it holds")
    options = parser.parse_args(arguments)
    missed = 0
    with tempfile.TemporaryDirectory(prefix="bench-arbitrage-") as folder:
        root = options.lake or f"{folder}/lake"
        parts = [partial(make_lake, root, options.pairs, options.quotes), partial(evaluate, root, options.pairs)]
        if options.lake and Lake(root).partitions("quotes"):
            parts = parts[1:]
        for part in parts:
            for figure in apart(part):
                print(figure.line(), flush=True)
                missed += figure.missed
    print(f"\n{missed} of the floors missed" if missed else "\nboth floors are kept")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
