"""What the page shows, taken from the tables: every row a plain object that the template only prints."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.arbitrage.fees import FeeBook
from arb_pipeline.arbitrage.ladders import Execution, execute, execute_notional
from arb_pipeline.arbitrage.opportunities import optimum_at
from arb_pipeline.arbitrage.pairs import Direction, Pair
from arb_pipeline.arbitrage.spreads import break_even, latest_spreads
from arb_pipeline.clock import datetime_from_ns, ns_from_datetime
from arb_pipeline.model import Market, MatchStatus
from arb_pipeline.reports.figures import DIRECTION_WORDS, DIRECTIONS, BreakEven

if TYPE_CHECKING:
    from arb_pipeline.reports.report import ReportInputs

__all__ = ["GUARD_WORDS", "MOST_ROWS", "Name", "PairNames", "Views"]

MOST_ROWS = 200
"""Rows shown of any one table; the files beside the page hold all."""

NOTIONALS = (Decimal(100), Decimal(500), Decimal(1_000), Decimal(5_000))

GUARD_WORDS = {
    "match_status": "match not approved",
    "relation": "not the same question",
    "no_snapshot": "book not known yet",
    "not_in_sync": "book out of sync",
    "connection_down": "connection down",
    "stale_leg": "polled book too old",
    "market_not_open": "market not open",
    "after_close": "past the close",
    "below_min_size": "depth below the minimum order",
    "fees_unknown": "fees unknown",
    "fee_eaten": "fees eat the gap",
    "below_min_net": "net below the threshold",
    "worst_state": "loses in an exceptional state",
    "burst": "shorter than a burst of updates",
}

_ACCEPTED = (MatchStatus.AUTO.value, MatchStatus.APPROVED.value)
_WAITING = (MatchStatus.REVIEW.value,)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Name:
    """A market as people know it; ``url`` is empty unless it is a web page."""

    market_id: str
    title: str
    url: str


@dataclass(frozen=True, slots=True)
class PairNames:
    """Both markets of a pair."""

    kalshi: Name
    polymarket: Name


class Views:
    """The report's contents, section by section."""

    def __init__(self, inputs: "ReportInputs") -> None:
        self._inputs = inputs
        self._pairs: dict[tuple[str, str], Pair] = {pair.key: pair for pair in inputs.pairs}
        self._markets: dict[str, Market] = {market.market_id: market for market in inputs.markets}
        for pair in inputs.pairs:
            self._markets |= {pair.kalshi.market_id: pair.kalshi, pair.polymarket.market_id: pair.polymarket}
        self._fees = None if inputs.fees is None else FeeBook(inputs.fees)

    # --- names ---------------------------------------------------------------------------------------------

    def name(self, market_id: str) -> Name:
        """A market's title, with what YES stands for, and its page; the bare id if nobody told them."""
        market = self._markets.get(market_id)
        if market is None:
            return Name(market_id, market_id, "")
        title = market.title
        if market.yes_title and market.yes_title not in title:
            title = f"{title} [{market.yes_title}]"
        return Name(market_id, title, market.url if market.url.startswith(("https://", "http://")) else "")

    def names(self, kalshi_id: str, polymarket_id: str) -> PairNames:
        """The names of a pair."""
        return PairNames(self.name(kalshi_id), self.name(polymarket_id))

    def _row_names(self, row: Row) -> PairNames:
        return self.names(row["kalshi_market_id"], row["polymarket_market_id"])

    # --- header --------------------------------------------------------------------------------------------

    @cached_property
    def exchanges(self) -> list[str]:
        """Names of local exchanges that any of the data came from."""
        named = {name for name in self._inputs.capture_sessions["exchange"].to_pylist() if name}
        return sorted(named | ({self._inputs.exchange} if self._inputs.exchange else set()))

    @cached_property
    def matcher_versions(self) -> list[str]:
        """Versions of the matchers behind the matches."""
        return sorted(set(self._inputs.matches["matcher_version"].to_pylist()))

    @cached_property
    def fee_schedules(self) -> list[str]:
        """Fee schedules in force: of the pairs at the window's end, and of every episode."""
        found = {
            name
            for column in ("kalshi_fee_schedule", "polymarket_fee_schedule")
            for name in self._inputs.opportunities[column].to_pylist()
        }
        if self._fees is not None:
            models = (
                self._fees.at(leg, self._inputs.end)
                for one in self._pairs.values()
                for leg in (one.kalshi, one.polymarket)
            )
            found |= {model.schedule.name for model in models if not isinstance(model, str)}
        return sorted(found - {""})

    # --- opportunities -------------------------------------------------------------------------------------

    @cached_property
    def episodes(self) -> list[Row]:
        """Accepted episodes by annualised return, then refused ones by net; at most :data:`MOST_ROWS` of each."""
        rows: list[Row] = self._inputs.opportunities.to_pylist()
        accepted = sorted((row for row in rows if row["accepted"]), key=lambda row: -(row["annualised"] or 0))
        refused = sorted((row for row in rows if not row["accepted"]), key=lambda row: -row["net"])
        return [self._episode(row) for row in (*accepted[:MOST_ROWS], *refused[:MOST_ROWS])]

    def _episode(self, row: Row) -> Row:
        end = row["closed_at"] or self._inputs.end
        return {
            **row,
            "names": self._row_names(row),
            "words": DIRECTION_WORDS[row["direction"]],
            "lasted": (end - row["opened_at"]).total_seconds(),
            "why": [_reason(reason) for reason in json.loads(row["reasons"])],
        }

    @cached_property
    def accepted(self) -> list[Row]:
        """The accepted ones among the rows shown."""
        return [row for row in self.episodes if row["accepted"]]

    @cached_property
    def refused(self) -> list[Row]:
        """The refused ones among the rows shown."""
        return [row for row in self.episodes if not row["accepted"]]

    @cached_property
    def accepted_count(self) -> int:
        """How many episodes were accepted in all."""
        return int(pc.sum(self._inputs.opportunities["accepted"].cast(pa.int64())).as_py() or 0)

    @cached_property
    def best(self) -> Row | None:
        """The episode with the largest net, an accepted one if there is any; None without a priced one."""
        priced = [row for row in self._inputs.opportunities.to_pylist() if row["size"] > 0]
        if not priced:
            return None
        row = max(priced, key=lambda row: (row["accepted"], row["net"]))
        size = row["size"]
        yes_kalshi = row["direction"] == "yes_kalshi"
        outcomes = self._outcomes(row, yes_kalshi=yes_kalshi)
        return {
            **self._episode(row),
            "legs": [
                {"venue": venue, "buys": buys, "vwap": row[f"{key}_vwap"], "limit": row[f"{key}_limit"]}
                | {"cost": row[f"{key}_vwap"] * size}
                for venue, key, buys in zip(("Kalshi", "Polymarket"), ("kalshi", "polymarket"), outcomes, strict=True)
            ],
            "prices": size - row["gross"],
            "sizes": self._sizes(row),
        }

    def _outcomes(self, row: Row, *, yes_kalshi: bool) -> tuple[str, str]:
        """What is bought on each venue, in the venue's own words."""
        kalshi = self._markets.get(row["kalshi_market_id"])
        polymarket = self._markets.get(row["polymarket_market_id"])
        first = "YES" if yes_kalshi else "NO"
        # Polymarket's outcome 0 equals Kalshi YES, unless the pair is inverted.
        index = int(yes_kalshi) ^ int(row["kind"] == "inverted")
        second = ("YES", "NO")[index]
        if kalshi is not None and kalshi.outcomes != ("Yes", "No"):
            first = f"{first} ({kalshi.outcomes[0 if yes_kalshi else 1]})"
        if polymarket is not None and polymarket.outcomes != ("Yes", "No"):
            second = f"{second} ({polymarket.outcomes[index]})"
        return first, second

    def _sizes(self, row: Row) -> list[tuple[str, Execution]]:
        """The best opportunity at other sizes, from the books as they stood."""
        inputs, pair = self._inputs, self._pairs.get((row["kalshi_market_id"], row["polymarket_market_id"]))
        if pair is None or inputs.data is None or inputs.settings is None or inputs.fees is None:
            return []
        found = optimum_at(pair, row["direction"], inputs.data, row["best_at"], inputs.settings, inputs.fees)
        if found is None or found.best is None:
            return []
        sizes = [("top of the books only", execute(found.legs, min(leg.asks[0][1] for leg in found.legs)))]
        smallest = found.smallest_profitable_size
        if smallest is not None:
            sizes.append(("smallest that pays", execute(found.legs, smallest)))
        sizes.append(("most profitable", found.best))
        depth = min(leg.depth for leg in found.legs)
        for dollars in NOTIONALS:
            done = execute_notional(found.legs, dollars)
            if done is not None and not any(done.size == other.size for _, other in sizes):
                whole = depth - done.size < found.legs[0].lot
                sizes.append(
                    (f"whole depth, less than ${dollars:,}" if whole else f"for ${dollars:,} of capital", done)
                )
        return sorted(sizes, key=lambda entry: entry[1].size)

    # --- spreads -------------------------------------------------------------------------------------------

    @cached_property
    def latest(self) -> pa.Table:
        """The newest row of every pair that tells something."""
        return latest_spreads(self._inputs.spreads)

    @cached_property
    def spread_rows(self) -> list[Row]:
        """Latest gaps of every pair, the widest first; at most :data:`MOST_ROWS`."""
        rows = [self._spread(row) for row in self.latest.to_pylist()]
        rows.sort(key=lambda row: -max((side["gap"] for side in row["sides"] if side["gap"] is not None), default=-9))
        return rows[:MOST_ROWS]

    def _spread(self, row: Row) -> Row:
        key = row["kalshi_market_id"], row["polymarket_market_id"]
        price_fees = self.break_even(key)
        sides = []
        for direction in DIRECTIONS:
            gap = row[f"gap_{direction}"]
            fee = None
            if gap is not None and price_fees is not None:
                yes, no = ("kalshi", "polymarket") if direction == "yes_kalshi" else ("polymarket", "kalshi")
                fee = price_fees(direction, row["recv_ns"], row[f"{yes}_ask"], 1 - row[f"{no}_bid"])
            net = None if gap is None or fee is None else gap - fee
            sides.append({"gap": gap, "fee": fee, "net": net})
        return {
            **row,
            "names": self._row_names(row),
            "at": datetime_from_ns(row["recv_ns"]),
            "sides": sides,
            "why": [_reason(reason) for reason in row["reason"].split(", ") if reason],
            **self._over_time[key],
        }

    @cached_property
    def _over_time(self) -> dict[tuple[str, str], Row]:
        """Per pair: share of the window with both books trusted, and the widest gap of each direction."""
        spreads = self._inputs.spreads
        keys = ["kalshi_market_id", "polymarket_market_id"]
        times = spreads["recv_ns"].to_numpy()
        same = np.ones(max(len(times) - 1, 0), dtype=np.bool_)
        for name in keys:
            codes = spreads[name].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
            same &= codes[1:] == codes[:-1]
        until = np.full(len(times), ns_from_datetime(self._inputs.end), dtype=np.int64)
        until[:-1] = np.where(same, times[1:], until[:-1])
        known = np.where(spreads["trusted"].to_numpy(), until - times, 0)
        with_known = spreads.select([*keys, "gap_yes_kalshi", "gap_yes_polymarket"]).append_column(
            "known_ns", pa.array(known, pa.int64())
        )
        totals = with_known.group_by(keys).aggregate(
            [("known_ns", "sum"), ("gap_yes_kalshi", "max"), ("gap_yes_polymarket", "max")]
        )
        window = ns_from_datetime(self._inputs.end) - ns_from_datetime(self._inputs.start)
        return {
            (row["kalshi_market_id"], row["polymarket_market_id"]): {
                "trusted_share": row["known_ns_sum"] / window,
                "widest": [row["gap_yes_kalshi_max"], row["gap_yes_polymarket_max"]],
            }
            for row in totals.to_pylist()
        }

    def break_even(self, key: tuple[str, str]) -> BreakEven | None:
        """Fees per contract of a pair by prices; None if the pair or its fees are not given."""
        pair, fees = self._pairs.get(key), self._fees
        if pair is None or fees is None:
            return None

        def price_fees(direction: Direction, recv_ns: int, yes: Decimal, no: Decimal) -> Decimal | None:
            at = datetime_from_ns(recv_ns)
            return break_even(pair, direction, fees=fees, at=at, yes_price=yes, no_price=no)

        return price_fees

    def plotted(self, most: int) -> list[tuple[str, str]]:
        """The pairs worth a figure: those of the best episodes, then those with the widest gaps."""
        rows = [*self.episodes, *self.spread_rows]
        keys = dict.fromkeys((row["kalshi_market_id"], row["polymarket_market_id"]) for row in rows)
        return [key for key in keys if key in self._over_time][:most]

    # --- matches -------------------------------------------------------------------------------------------

    @cached_property
    def match_counts(self) -> list[tuple[str, int]]:
        """Pairs by status."""
        return sorted(Counter(self._inputs.matches["status"].to_pylist()).items())

    @cached_property
    def matched(self) -> list[Row]:
        """Pairs that count or wait for a person."""
        return self._matches(lambda status: status in _ACCEPTED or status in _WAITING)

    @cached_property
    def look_alikes(self) -> list[Row]:
        """Pairs that look alike and were refused, the most alike first."""
        return self._matches(lambda status: status not in _ACCEPTED and status not in _WAITING)

    def _matches(self, wanted: Callable[[str], bool]) -> list[Row]:
        rows: list[Row] = [row for row in self._inputs.matches.to_pylist() if wanted(row["status"])]
        rows.sort(key=lambda row: (row["status"] not in _ACCEPTED, -row["score"], row["kalshi_market_id"]))
        return [
            {**row, "names": self._row_names(row), "why": [str(veto) for veto in json.loads(row["vetoes"])]}
            for row in rows[:MOST_ROWS]
        ]

    # --- data quality --------------------------------------------------------------------------------------

    @cached_property
    def quality(self) -> list[Row]:
        """Per venue: connections, frames, anomalies, gaps and lags."""
        sessions = self._inputs.capture_sessions.to_pylist()
        gaps = self._inputs.book_gaps.to_pylist()
        venues = sorted({row["venue"] for row in (*sessions, *gaps)})
        return [
            self._venue_quality(
                venue,
                [row for row in sessions if row["venue"] == venue],
                [row for row in gaps if row["venue"] == venue],
            )
            for venue in venues
        ]

    def _venue_quality(self, venue: str, sessions: list[Row], gaps: list[Row]) -> Row:
        start_ns, end_ns = ns_from_datetime(self._inputs.start), ns_from_datetime(self._inputs.end)
        lasted = sum(
            max(min(end_ns if gap["to_ns"] is None else gap["to_ns"], end_ns) - max(gap["from_ns"], start_ns), 0)
            for gap in gaps
        )
        anomalies: Counter[str] = Counter()
        for session in sessions:
            anomalies.update(json.loads(session["anomalies"]))
        return {
            "venue": venue,
            "connections": len(sessions),
            "markets": max((session["markets"] for session in sessions), default=0),
            "frames": sum(session["frames"] for session in sessions),
            "bytes": sum(session["bytes"] for session in sessions),
            "anomalies": anomalies.most_common(),
            "gaps": len(gaps),
            "gap_causes": Counter(gap["cause"] for gap in gaps).most_common(),
            "gap_seconds": lasted / 1e9,
            "open_gaps": sum(gap["to_ns"] is None for gap in gaps),
            "lag_p50": max((s["lag_p50_ms"] for s in sessions if s["lag_p50_ms"] is not None), default=None),
            "lag_p99": max((s["lag_p99_ms"] for s in sessions if s["lag_p99_ms"] is not None), default=None),
        }

    @cached_property
    def sessions(self) -> list[Row]:
        """Connections in order of their start; at most :data:`MOST_ROWS`."""
        rows: list[Row] = self._inputs.capture_sessions.to_pylist()
        rows.sort(key=lambda row: (row["started_at"], row["connection_id"]))
        return [{**row, "anomaly_count": sum(json.loads(row["anomalies"]).values())} for row in rows[:MOST_ROWS]]


def _reason(reason: str) -> str:
    """A guard in words, with its detail."""
    guard, _, detail = reason.partition(":")
    words = GUARD_WORDS.get(guard, guard.replace("_", " "))
    return f"{words}: {detail}" if detail else words
