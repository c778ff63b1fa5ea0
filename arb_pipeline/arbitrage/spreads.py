"""Executable gaps of pairs: both directions at every instant at which a top of book or the trust in one changed."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.arbitrage.fees import FeeBook
from arb_pipeline.arbitrage.intervals import Nanos, union
from arb_pipeline.arbitrage.pairs import Direction, Pair
from arb_pipeline.arbitrage.streams import AFTER_CLOSE, AFTER_EVENT, MARKET_NOT_OPEN, NULL, PairStream
from arb_pipeline.clock import datetime_from_ns
from arb_pipeline.tables import table
from arb_pipeline.units import ONE, price_decimal, size_decimal

__all__ = ["MONEY_STEP", "break_even", "concat_spreads", "latest_spreads", "pair_spreads"]

MONEY_STEP = Decimal("1e-10")
"""Grid of the tables' money columns; quotients are rounded to it, sums never need to be."""

_TRADING_GUARDS = (MARKET_NOT_OPEN, AFTER_CLOSE, AFTER_EVENT)
_MOST_KNOWN = 65_536
"""Nets remembered at a time: tops come back again and again."""
_PRICE_STEP = 4
_SIZE_STEP = 6
_MONEY_STEP = 10


def concat_spreads(parts: Iterable[pa.Table]) -> pa.Table:
    """One table of the parts, with the declared schema even if there are none."""
    return pa.concat_tables([table("spreads").schema.empty_table(), *parts])


def latest_spreads(spreads: pa.Table) -> pa.Table:
    """Of every pair the newest row that tells a gap; its newest row at all if none does.

    A capture ends with connections down, so that the very last row of a pair rarely says anything.
    """
    if not spreads.num_rows:
        return spreads
    keys = ["kalshi_market_id", "polymarket_market_id"]
    told = pc.or_(pc.is_valid(spreads["gap_yes_kalshi"]), pc.is_valid(spreads["gap_yes_polymarket"]))
    places = spreads.select([*keys, "recv_ns"]).append_column("told", told)
    places = places.append_column("place", pa.array(range(spreads.num_rows), pa.int64()))
    places = places.sort_by([("told", "ascending"), ("recv_ns", "ascending"), ("place", "ascending")])
    newest = places.group_by(keys, use_threads=False).aggregate([("place", "last")])["place_last"]
    return spreads.take(newest.combine_chunks().sort())


def pair_spreads(stream: PairStream, start_ns: int, end_ns: int, fees: FeeBook) -> pa.Table:
    """The rows of the table ``spreads`` of one pair in a window [start, end), in time order.

    Gaps and net figures are null where a side is empty and where a book is not to be trusted: an edge of an
    untrusted book is unknown, not zero. Such instants keep the tops as received. The books of a market that does not
    trade are known: their gaps are told, and ``trusted`` is false.
    """
    kalshi, polymarket = stream.kalshi.quotes, stream.polymarket.quotes
    known_from = min([*kalshi.recv_ns[:1].tolist(), *polymarket.recv_ns[:1].tolist()], default=end_ns)
    first = max(start_ns, known_from)
    instants = union(kalshi.recv_ns, polymarket.recv_ns, stream.trust_edges, np.array([first]))
    instants = instants[(instants >= first) & (instants < end_ns)]
    k, p = kalshi.as_of(instants), polymarket.as_of(instants)
    codes, meaning = stream.distrust(instants)
    trusted = codes == 0
    place = np.zeros(max(meaning, default=0) + 1, dtype=np.int64)
    place[list(meaning)] = np.arange(len(meaning))
    sound = np.array([not _book_doubts(reasons) for reasons in meaning.values()], dtype=np.bool_)[place[codes]]
    yes_kalshi = _Gap(k.ask, k.ask_size, p.bid, p.bid_size, sound)
    yes_polymarket = _Gap(p.ask, p.ask_size, k.bid, k.bid_size, sound)
    net_yes_kalshi = _nets(stream.pair, "yes_kalshi", instants, yes_kalshi, fees)
    net_yes_polymarket = _nets(stream.pair, "yes_polymarket", instants, yes_polymarket, fees)
    schema = table("spreads").schema
    count = len(instants)
    return pa.table(
        {
            "kalshi_market_id": pa.repeat(pa.scalar(stream.pair.kalshi.market_id, pa.string()), count),
            "polymarket_market_id": pa.repeat(pa.scalar(stream.pair.polymarket.market_id, pa.string()), count),
            "recv_ns": instants,
            "kalshi_bid": _decimals(k.bid, _PRICE_STEP, 9),
            "kalshi_ask": _decimals(k.ask, _PRICE_STEP, 9),
            "polymarket_bid": _decimals(p.bid, _PRICE_STEP, 9),
            "polymarket_ask": _decimals(p.ask, _PRICE_STEP, 9),
            "gap_yes_kalshi": _decimals(yes_kalshi.gap, _PRICE_STEP, 9),
            "gap_yes_polymarket": _decimals(yes_polymarket.gap, _PRICE_STEP, 9),
            "net_yes_kalshi": _decimals(net_yes_kalshi, _MONEY_STEP, 24),
            "net_yes_polymarket": _decimals(net_yes_polymarket, _MONEY_STEP, 24),
            "top_size_yes_kalshi": _decimals(yes_kalshi.size, _SIZE_STEP, 18),
            "top_size_yes_polymarket": _decimals(yes_polymarket.size, _SIZE_STEP, 18),
            "trusted": trusted,
            "reason": pa.array([", ".join(names) for names in meaning.values()], pa.string()).take(
                pa.array(place[codes])
            ),
        },
        schema=schema,
    )


def break_even(
    pair: Pair, direction: Direction, *, fees: FeeBook, at: datetime, yes_price: Decimal, no_price: Decimal
) -> Decimal | None:
    """Unrounded fees of both legs per contract at these prices: the gap has to exceed it. None if fees are unknown.

    ``yes_price`` is paid for the proposition, ``no_price`` for its opposite.
    """
    kalshi, polymarket = fees.at(pair.kalshi, at), fees.at(pair.polymarket, at)
    if isinstance(kalshi, str) or isinstance(polymarket, str):
        return None
    yes, no = (kalshi, polymarket) if direction == "yes_kalshi" else (polymarket, kalshi)
    return yes.marginal(yes_price) + no.marginal(no_price)


def _book_doubts(reasons: Sequence[str]) -> bool:
    """Whether any of the guards that failed concerns what the books are, and not only whether they trade."""
    return any(reason.partition(":")[0] not in _TRADING_GUARDS for reason in reasons)


class _Gap:
    """What buying the proposition at ``ask`` on one venue and its opposite at ``1 - bid`` on the other leaves."""

    def __init__(self, ask: Nanos, ask_size: Nanos, bid: Nanos, bid_size: Nanos, sound: npt.NDArray[np.bool_]) -> None:
        known = sound & (ask != NULL) & (bid != NULL)
        self.ask, self.bid = ask, bid
        self.gap = np.where(known, bid - ask, NULL)
        self.size = np.where(known, np.minimum(ask_size, bid_size), NULL)
        self.positive = np.flatnonzero(known & (self.gap > 0) & (self.size > 0))


def _nets(pair: Pair, direction: Direction, instants: Nanos, gap: _Gap, fees: FeeBook) -> Nanos:
    """Net per contract, 1e-10 dollars, at the top size where the gap is positive and the fees are known.

    Net never exceeds gross, so that no other instant needs exact arithmetic.
    """
    found = np.full(len(instants), NULL, dtype=np.int64)
    known: dict[tuple[int, int, int, int, int], int] = {}
    rows = zip(
        gap.positive.tolist(),
        *(column[gap.positive].tolist() for column in (instants, gap.ask, gap.bid, gap.size)),
        strict=True,
    )
    for index, instant, ask, bid, size in rows:
        at = datetime_from_ns(instant)
        kalshi, polymarket = fees.at(pair.kalshi, at), fees.at(pair.polymarket, at)
        if isinstance(kalshi, str) or isinstance(polymarket, str):
            continue
        key = (ask, bid, size, id(kalshi), id(polymarket))
        net = known.get(key)
        if net is None:
            yes, no = (kalshi, polymarket) if direction == "yes_kalshi" else (polymarket, kalshi)
            contracts = size_decimal(size)
            paid = yes.taker(price_decimal(ask), contracts) + no.taker(price_decimal(ONE - bid), contracts)
            edge = (price_decimal(bid - ask) - paid / contracts).quantize(MONEY_STEP, ROUND_HALF_EVEN)
            net = int(edge.scaleb(_MONEY_STEP))
            if len(known) == _MOST_KNOWN:
                known.clear()
            known[key] = net
        found[index] = net
    return found


def _decimals(values: Nanos, scale: int, precision: int) -> pa.Array:
    """Integers as DECIMAL(precision, scale) with :data:`NULL` as null, by Arrow's own 16-byte layout."""
    words = np.empty((len(values), 2), dtype="<i8")
    words[:, 0] = values
    missing = values == NULL
    valid = None
    if missing.any():
        words[missing, 0] = 0
        valid = pa.py_buffer(np.packbits(~missing, bitorder="little"))
    np.right_shift(words[:, 0], 63, out=words[:, 1])
    return pa.Array.from_buffers(pa.decimal128(precision, scale), len(values), [valid, pa.py_buffer(words)])
