"""What the page shows, taken from the tables: every row a plain object that the template only prints."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.arbitrage.candidates import DIRECTIONS_OF
from arb_pipeline.arbitrage.fees import FeeBook
from arb_pipeline.arbitrage.ladders import Execution, LegExecution, Optimum, execute, execute_notional
from arb_pipeline.arbitrage.opportunities import ARBITRAGE, FUNNEL, funnel, optimum_at
from arb_pipeline.arbitrage.pairs import Direction, Pair, outcomes_bought
from arb_pipeline.arbitrage.spreads import break_even, latest_spreads
from arb_pipeline.clock import datetime_from_ns, ns_from_datetime
from arb_pipeline.model import Market, MatchStatus
from arb_pipeline.reports.figures import DIRECTIONS, BreakEven, direction_words
from arb_pipeline.reports.heat import HeatCell, heat_cells, pair_slices
from arb_pipeline.reports.inputs import ReportInputs
from arb_pipeline.reports.over_time import held_until
from arb_pipeline.reports.text import count, instant

__all__ = ["GUARD_WORDS", "MOST_ACCEPTED", "MOST_REFUSED", "MOST_ROWS", "Name", "PairNames", "Views", "reason_words"]

MOST_ROWS = 200
"""Rows shown of any one table; the files beside the page hold all."""

MOST_ACCEPTED, MOST_REFUSED = 120, 80
"""Episodes shown; the page has to stay small enough to be sent around."""

_MOST_ALIKE = 100
_MOST_NAMED = 2

NOTIONALS = (Decimal(100), Decimal(500), Decimal(1_000), Decimal(5_000))

GUARD_WORDS = {
    "match_status": "match not approved",
    "relation": "not the same question",
    "no_snapshot": "book not known yet",
    "not_in_sync": "book out of sync",
    "connection_down": "connection down",
    "stale_leg": "polled book too old",
    "skewed_legs": "polled books of different times",
    "market_not_open": "market not open",
    "after_close": "past the close",
    "after_event": "past the end of the event",
    "resolution_lag": "settled by its price on one venue only",
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

    def __init__(self, inputs: ReportInputs) -> None:
        self._inputs = inputs
        self._pairs: dict[tuple[str, str], Pair] = {pair.key: pair for pair in inputs.pairs}
        self.markets: dict[str, Market] = {market.market_id: market for market in inputs.markets}
        for pair in inputs.pairs:
            self.markets |= {pair.kalshi.market_id: pair.kalshi, pair.polymarket.market_id: pair.polymarket}
        self.fees = None if inputs.fees is None else FeeBook(inputs.fees)
        self._optima: dict[tuple[str, str, str, datetime], Optimum | None] = {}
        self._match_rows = {
            (row["kalshi_market_id"], row["polymarket_market_id"]): row for row in inputs.matches.to_pylist()
        }

    # --- names ---------------------------------------------------------------------------------------------

    def name(self, market_id: str) -> Name:
        """A market's title, with what YES stands for, and its page; the bare id if nobody told them."""
        market = self.markets.get(market_id)
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
        if self.fees is not None:
            models = (
                self.fees.at(leg, self._inputs.end)
                for one in self._pairs.values()
                for leg in (one.kalshi, one.polymarket)
            )
            found |= {model.schedule.name for model in models if not isinstance(model, str)}
        return sorted(found - {""})

    @cached_property
    def provenance(self) -> str:
        """What every figure says of itself: range, universe, versions, parameters, and what it is not."""
        inputs = self._inputs
        known = ", ".join(f"{count(number)} {venue.capitalize()}" for venue, number in sorted(inputs.universe.items()))
        told = [
            f"{instant(inputs.start)[:-4]} to {instant(inputs.end)[:-4]} UTC",
            f"{known} markets, {count(len(inputs.pairs))} pairs" if known else f"{count(len(inputs.pairs))} pairs",
            f"fees: {_named_or_counted(self.fee_schedules, 'schedule') or 'none priced'}",
            f"matcher: {_named_or_counted(self.matcher_versions, 'version') or 'no matches'}",
            *(f"{name} {value}" for name, value in sorted(inputs.parameters.items())),
            *(f"data of the {name}" for name in self.exchanges),
            "research output; displayed depth is not a fill",
        ]
        return " · ".join(told)

    # --- opportunities -------------------------------------------------------------------------------------

    @cached_property
    def all_episodes(self) -> list[Row]:
        """Every episode with its duration in seconds, that of one still open for as long as it was seen."""
        rows: list[Row] = self._inputs.opportunities.to_pylist()
        return [{**row, "lasted": (self._seen_until(row) - row["opened_at"]).total_seconds()} for row in rows]

    def _seen_until(self, row: Row) -> datetime:
        """When an episode closed, or how far its pair is known."""
        if row["closed_at"] is not None:
            closed: datetime = row["closed_at"]
            return closed
        begin, end = self._slices.get((row["kalshi_market_id"], row["polymarket_market_id"]), (0, 0))
        opened_ns = ns_from_datetime(row["opened_at"])
        times = np.append(opened_ns, self._inputs.spreads["recv_ns"].slice(begin, end - begin).to_numpy())
        return datetime_from_ns(int(held_until(np.sort(times), ns_from_datetime(self._inputs.end))[-1]))

    @cached_property
    def episodes(self) -> list[Row]:
        """Accepted episodes by the annual return that the worst state leaves, then refused ones by net.

        At most :data:`MOST_ACCEPTED` and :data:`MOST_REFUSED` of them. Where the worst state is not known, an episode
        comes after all those where it is.
        """
        rows = self.all_episodes
        accepted = sorted((row for row in rows if row["accepted"]), key=_by_worst_state)
        refused = sorted((row for row in rows if not row["accepted"]), key=lambda row: -row["net"])
        return [self._episode(row) for row in (*accepted[:MOST_ACCEPTED], *refused[:MOST_REFUSED])]

    def _episode(self, row: Row) -> Row:
        key = row["kalshi_market_id"], row["polymarket_market_id"]
        match = self._match_rows.get(key)
        size = row["size"]
        return {
            **row,
            "names": self._row_names(row),
            "words": direction_words(self._pairs.get(key))[row["direction"]],
            "why": [reason_words(reason) for reason in json.loads(row["reasons"])],
            "worst_annualised": _worst_annualised(row),
            "category": self._inputs.categories.get(key[0], ""),
            "family": match["family"] if match else "",
            "relation": match["relation"] if match else "",
            "caveats": json.loads(match["explanation"]).get("caveats", []) if match else [],
            "each": {name: row[name] / size if size else None for name in ("gross", "fees", "net")},
            "ages": self._ages(key, ns_from_datetime(row["best_at"]) + 999),
        }

    def _ages(self, key: tuple[str, str], at_ns: int) -> dict[str, tuple[float, bool]]:
        """By venue, for how long its top prices had stood at an instant, seconds, and whether for longer still."""
        begin, end = self._slices.get(key, (0, 0))
        times = self._inputs.spreads["recv_ns"].slice(begin, end - begin).to_numpy()
        last = int(np.searchsorted(times, at_ns, side="right")) - 1
        if last < 0:
            return {}
        ended = np.flatnonzero(held_until(times, ns_from_datetime(self._inputs.end))[:last] < times[1 : last + 1])
        first = int(ended[-1]) + 1 if ended.size else 0
        times, rows = times[first:], self._inputs.spreads.slice(begin + first, last + 1 - first)
        found = {}
        for venue in ("kalshi", "polymarket"):
            same = np.ones(rows.num_rows, dtype=np.bool_)
            for side in ("bid", "ask"):
                prices = pc.fill_null(pc.cast(rows[f"{venue}_{side}"], pa.float64()), -1.0).to_numpy()
                same &= prices == prices[-1]
            others = np.flatnonzero(~same)
            since = int(others[-1]) + 1 if others.size else 0
            found[venue] = (at_ns - int(times[since])) / 1e9, not others.size
        return found

    @cached_property
    def _slices(self) -> dict[tuple[str, str], tuple[int, int]]:
        return pair_slices(self._inputs.spreads)

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
        return self.spelled_out(max(priced, key=lambda row: (row["accepted"], row["net"])))

    def spelled_out(self, row: Row) -> Row:
        """A priced row of ``opportunities`` with its arithmetic, leg by leg."""
        size = row["size"]
        outcomes = self._outcomes((row["kalshi_market_id"], row["polymarket_market_id"]), row["direction"])
        found = self.optimum(row)
        return {
            **self._episode({"lasted": 0.0, **row}),
            "legs": [
                {
                    "venue": venue,
                    "buys": buys,
                    "vwap": row[f"{key}_vwap"],
                    "limit": row[f"{key}_limit"],
                    "cost": row[f"{key}_vwap"] * size,
                    "fills": leg.fills if leg else (),
                    "fee": leg.fee if leg else None,
                    "schedule": row[f"{key}_fee_schedule"],
                }
                for venue, key, buys, leg in zip(
                    ("Kalshi", "Polymarket"), ("kalshi", "polymarket"), outcomes, _legs(found, size), strict=True
                )
            ],
            "prices": size - row["gross"],
            "sizes": self.sizes(found),
        }

    def _outcomes(self, key: tuple[str, str], direction: Direction) -> tuple[str, str]:
        """What a direction buys on each venue, by the venue's own name."""
        pair = self._pairs.get(key)
        if pair is None:
            return "YES" if direction == "yes_kalshi" else "NO", "the hedge of it"
        first, second = outcomes_bought(pair, direction)
        return _named(pair.kalshi, first), _named(pair.polymarket, second)

    def optimum(self, row: Row) -> Optimum | None:
        """The sizing of a row of ``opportunities`` from the books as they stood; None if they are not at hand."""
        identity = row["kalshi_market_id"], row["polymarket_market_id"], row["direction"], row["best_at"]
        if identity not in self._optima:
            self._optima[identity] = self._sized(row)
        return self._optima[identity]

    def _sized(self, row: Row) -> Optimum | None:
        inputs, key = self._inputs, (row["kalshi_market_id"], row["polymarket_market_id"])
        pair = self._pairs.get(key)
        if pair is None or inputs.books is None or inputs.settings is None or inputs.fees is None:
            return None
        data = inputs.books(*key, row["best_at"])
        found = optimum_at(pair, row["direction"], data, row["best_at"], inputs.settings, inputs.fees)
        return found if found is not None and found.best is not None else None

    @staticmethod
    def sizes(found: Optimum | None) -> list[tuple[str, Execution]]:
        """An opportunity at other sizes, the smallest first."""
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

    # --- funnel --------------------------------------------------------------------------------------------

    @cached_property
    def funnel_by_family(self) -> list[Row]:
        """By kind of question: episodes, and what each step stopped of them (number and computed net)."""
        families = [self._family((row["kalshi_market_id"], row["polymarket_market_id"])) for row in self.all_episodes]
        steps = (*FUNNEL, ARBITRAGE)
        found = []
        for family in sorted(set(families)):
            mine = pa.array([one == family for one in families], pa.bool_())
            rows = funnel(self._inputs.opportunities.filter(mine), self._inputs.end.date()).to_pylist()
            stopped = {row["guard"]: (row["stopped"], row["net_stopped"]) for row in rows}
            left = rows[-1]["candidates"]
            found.append(
                {
                    "family": family,
                    "episodes": rows[0]["candidates"],
                    "stopped": [(step, *stopped[step]) for step in steps[:-1]],
                    "left": left,
                }
            )
        return sorted(found, key=lambda row: (-row["left"], -row["episodes"], row["family"]))

    def _family(self, key: tuple[str, str]) -> str:
        match = self._match_rows.get(key)
        return (match["family"] if match else "") or "other"

    # --- heat map ------------------------------------------------------------------------------------------

    @cached_property
    def heat(self) -> list[HeatCell]:
        """Categories by hour of the day in New York, of the pairs that count as arbitrage."""
        named = {
            key: self._inputs.categories.get(key[0]) or self._family(key)
            for key in self._slices
            if key in self._match_rows and self._match_rows[key]["status"] in _ACCEPTED
        }
        hedged = {key: directions for key in named if (directions := self._hedged(key))}
        named = {key: named[key] for key in hedged}
        return heat_cells(self._inputs.spreads, named, ns_from_datetime(self._inputs.end), hedged)

    def _hedged(self, key: tuple[str, str]) -> tuple[Direction, ...]:
        """The directions of a pair in which one leg hedges the other; both of a pair that is not at hand."""
        pair = self._pairs.get(key)
        return DIRECTIONS if pair is None else DIRECTIONS_OF.get(pair.relation, ())

    # --- spreads -------------------------------------------------------------------------------------------

    @cached_property
    def latest(self) -> pa.Table:
        """The newest row of every pair that tells something."""
        return latest_spreads(self._inputs.spreads)

    @cached_property
    def spread_rows(self) -> list[Row]:
        """Latest gaps of every pair, the widest first; at most :data:`MOST_ROWS`."""
        rows = [self._spread(row) for row in self.latest.to_pylist()]
        rows.sort(key=_widest_hedged, reverse=True)
        return rows[:MOST_ROWS]

    def _spread(self, row: Row) -> Row:
        key = row["kalshi_market_id"], row["polymarket_market_id"]
        pair, price_fees = self._pairs.get(key), self.break_even(key)
        sides = []
        for direction in DIRECTIONS:
            gap = row[f"gap_{direction}"]
            fee = None
            if gap is not None and price_fees is not None:
                yes, no = ("kalshi", "polymarket") if direction == "yes_kalshi" else ("polymarket", "kalshi")
                fee = price_fees(direction, row["recv_ns"], row[f"{yes}_ask"], 1 - row[f"{no}_bid"])
            net = None if gap is None or fee is None else gap - fee
            sides.append({"gap": gap, "fee": fee, "net": net, "hedged": direction in self._hedged(key)})
        return {
            **row,
            "schedules": self._schedules(key, datetime_from_ns(row["recv_ns"])),
            "names": self._row_names(row),
            "words": direction_words(pair) if pair is not None and pair.inverted else {},
            "at": datetime_from_ns(row["recv_ns"]),
            "sides": sides,
            "why": [reason_words(reason) for reason in row["reason"].split(", ") if reason],
            **self._over_time[key],
        }

    def _schedules(self, key: tuple[str, str], at: datetime) -> list[str]:
        """How each leg is charged at an instant; why it cannot be told, where it cannot."""
        pair = self._pairs.get(key)
        if pair is None or self.fees is None:
            return []
        models = [self.fees.at(leg, at) for leg in (pair.kalshi, pair.polymarket)]
        return [f"fees unknown: {model}" if isinstance(model, str) else model.schedule.name for model in models]

    @property
    def over_time(self) -> dict[tuple[str, str], Row]:
        """Per pair with quotes: ``trusted_share`` of the window, and the ``widest`` gap of each direction."""
        return self._over_time

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
        until = held_until(times, ns_from_datetime(self._inputs.end), same)
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
        pair, fees = self._pairs.get(key), self.fees
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
        return self._matches(lambda status: status not in _ACCEPTED and status not in _WAITING)[:_MOST_ALIKE]

    def _matches(self, wanted: Callable[[str], bool]) -> list[Row]:
        rows: list[Row] = [row for row in self._inputs.matches.to_pylist() if wanted(row["status"])]
        rows.sort(key=lambda row: (row["status"] not in _ACCEPTED, -row["score"], row["kalshi_market_id"]))
        return [
            {**row, "names": self._row_names(row), "why": [str(veto) for veto in json.loads(row["vetoes"])]}
            for row in rows[:MOST_ROWS]
        ]

    # --- data quality --------------------------------------------------------------------------------------

    @cached_property
    def sessions(self) -> list[Row]:
        """Connections in order of their start; at most :data:`MOST_ROWS`."""
        rows: list[Row] = self._inputs.capture_sessions.to_pylist()
        rows.sort(key=lambda row: (row["started_at"], row["connection_id"]))
        return [{**row, "anomaly_count": sum(json.loads(row["anomalies"]).values())} for row in rows[:MOST_ROWS]]


def reason_words(reason: str) -> str:
    """A guard in words, with its detail."""
    guard, _, detail = reason.partition(":")
    words = GUARD_WORDS.get(guard, guard.replace("_", " "))
    return f"{words}: {detail}" if detail else words


def _named(market: Market, outcome: str) -> str:
    """``YES`` or ``NO``, with the market's own name of it if it has one."""
    plain = market.outcomes == ("Yes", "No")
    return outcome if plain else f"{outcome} ({market.outcomes[0 if outcome == 'YES' else 1]})"


def _named_or_counted(names: Sequence[str], what: str) -> str:
    """One or two names; of more their number, the head of the page having them all."""
    return "; ".join(names) if len(names) <= _MOST_NAMED else f"{len(names)} {what}s, all named at the top"


def _worst_annualised(row: Row) -> float | None:
    """Simple return a year on what the worst settlement state leaves; None where that, or the days, are not known."""
    if row["worst_state_net"] is None or not row["capital"] or row["days"] is None:
        return None
    roi, days = float(row["worst_state_net"] / row["capital"]), float(row["days"])
    return roi * 365 / days


def _widest_hedged(row: Row) -> Decimal:
    """The better gap of a row of the table of spreads, of the directions that one leg hedges."""
    known = (side["gap"] for side in row["sides"] if side["hedged"] and side["gap"] is not None)
    return max(known, default=Decimal(-9))


def _by_worst_state(row: Row) -> tuple[bool, float, float, Decimal]:
    worst = _worst_annualised(row)
    return worst is None, -(worst or 0.0), -(row["annualised"] or 0.0), -row["net"]


def _legs(found: Optimum | None, size: Decimal) -> tuple[LegExecution | None, LegExecution | None]:
    """Both legs of the best size, if the books still say that it is this one."""
    if found is None or found.best is None or found.best.size != size:
        return None, None
    return found.best.legs[0], found.best.legs[1]
