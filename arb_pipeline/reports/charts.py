"""Further figures of the report: prices with their fee bands, edge by size, heat map, lifetimes, quote ages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from arb_pipeline.arbitrage.episodes import Survival
from arb_pipeline.arbitrage.fees import FeeBook
from arb_pipeline.arbitrage.ladders import Execution, Optimum, edge_curve
from arb_pipeline.clock import datetime_from_ns, ns_from_datetime
from arb_pipeline.model import Market
from arb_pipeline.reports.figures import (
    ACCEPTED,
    COLOURS,
    GRID,
    INK,
    MUTED,
    REFUSED,
    Floats,
    Margins,
    known_span,
    lay_out,
    places_and_labels,
    styled,
    thinned,
)
from arb_pipeline.reports.heat import HeatCell
from arb_pipeline.reports.over_time import with_ends
from arb_pipeline.reports.realised import LatencyFigures

__all__ = [
    "AGE_WORDS",
    "PriceSeries",
    "age_figure",
    "backtest_figure",
    "curve_figure",
    "heat_figure",
    "lifetimes_figure",
    "prices_figure",
]

VENUES = ("kalshi", "polymarket")
AGE_WORDS = ("under 0.1 s", "0.1 to 1 s", "1 to 5 s", "5 to 60 s", "over 60 s")

_VENUE_COLOURS = {"kalshi": COLOURS["yes_kalshi"], "polymarket": COLOURS["yes_polymarket"]}
_ENOUGH_PAIRS = 5
"""Averages over fewer pairs are drawn grey."""
_SLICES = 50
_AGE_COLOURS = ("#1d5fa8", "#6f9fd0", "#c9d9ea", "#e0a64b", "#b5544a")


# --- prices ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PriceSeries:
    """One pair's trusted prices over a window, cents of the same proposition; NaN where unknown.

    Attributes:
        sides: (bid, ask, fee at the bid, fee at the ask) by venue.
        basis: Kalshi's mid less Polymarket's.
        episodes: (from, to, accepted), ns, of both directions.
    """

    start_ns: int
    end_ns: int
    recv_ns: npt.NDArray[np.int64]
    sides: Mapping[str, tuple[Floats, Floats, Floats, Floats]]
    basis: Floats
    episodes: Sequence[tuple[int, int, bool]]

    @classmethod
    def of(
        cls,
        spreads: pa.Table,
        opportunities: pa.Table,
        window: tuple[datetime, datetime],
        fees: "Mapping[str, FeeAt] | None" = None,
    ) -> "PriceSeries":
        """From one pair's rows of ``spreads`` (in time order) and ``opportunities``.

        Args:
            fees: by venue, the unrounded fee per contract at a price and time; without them there are no bands.
        """
        start_ns, end_ns = ns_from_datetime(window[0]), ns_from_datetime(window[1])
        trusted = spreads["trusted"].to_numpy()
        tops = {
            name: np.where(trusted, _cents(spreads[name]), np.nan)
            for name in ("kalshi_bid", "kalshi_ask", "polymarket_bid", "polymarket_ask")
        }
        known_ns = spreads["recv_ns"].to_numpy()
        keep = thinned(known_ns, list(tops.values()), _SLICES)
        times = known_ns[keep]
        kept = {name: values[keep] for name, values in tops.items()}
        sides = {}
        for venue in VENUES:
            bid, ask = kept[f"{venue}_bid"], kept[f"{venue}_ask"]
            fee = None if fees is None else fees.get(venue)
            sides[venue] = (bid, ask, _fees(times, bid, fee), _fees(times, ask, fee))
        basis = (kept["kalshi_bid"] + kept["kalshi_ask"] - kept["polymarket_bid"] - kept["polymarket_ask"]) / 2
        lines = [*(line for side in sides.values() for line in side), basis]
        times, (*drawn, basis) = with_ends(times, lines, known_ns, end_ns)
        sides = {
            venue: (drawn[at], drawn[at + 1], drawn[at + 2], drawn[at + 3])
            for venue, at in zip(VENUES, (0, 4), strict=True)
        }
        span = known_span(*with_ends(known_ns, list(tops.values()), known_ns, end_ns), start_ns, end_ns)
        episodes = [
            (
                ns_from_datetime(row["opened_at"]),
                end_ns if row["closed_at"] is None else ns_from_datetime(row["closed_at"]),
                row["accepted"],
            )
            for row in opportunities.select(["opened_at", "closed_at", "accepted"]).to_pylist()
        ]
        return cls(*span, times, sides, basis, episodes)


class FeeAt:
    """The unrounded taker fee per contract of one market by price and time, cents; NaN where it is not known."""

    def __init__(self, market: Market, book: FeeBook) -> None:
        self._market, self._book = market, book

    def __call__(self, recv_ns: int, price_cents: float) -> float:
        model = self._book.at(self._market, datetime_from_ns(recv_ns))
        if isinstance(model, str):
            return float("nan")
        return float(model.marginal(Decimal(round(price_cents * 100)) / 10_000) * 100)


def prices_figure(series: PriceSeries, *, narrow: bool) -> Figure:
    """Both venues' bid to ask, widened by the taker fee, and the basis below; episodes shaded."""
    with styled():
        figure = lay_out((4.3, 5.4) if narrow else (10.4, 4.8), rows=2, margins=Margins(between=0.15))
        prices, basis = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        times = (np.append(series.recv_ns, series.end_ns) - series.start_ns) / 1e9
        for axis in (prices, basis):
            for opened, closed, accepted in series.episodes:
                left, right = (opened - series.start_ns) / 1e9, (closed - series.start_ns) / 1e9
                axis.axvspan(left, right, color=ACCEPTED if accepted else REFUSED, alpha=0.45, linewidth=0)
        for venue in VENUES:
            bid, ask, bid_fee, ask_fee = series.sides[venue]
            if bid.size:
                colour = _VENUE_COLOURS[venue]
                _band(prices, times, (bid - bid_fee, ask + ask_fee), colour, 0.16)
                _band(prices, times, (bid, ask), colour, 0.55)
        prices.set_ylabel("¢ of Kalshi's YES")
        if series.basis.size:
            basis.step(times, np.append(series.basis, series.basis[-1]), where="post", color=INK, linewidth=1.1)
        basis.axhline(0, color=MUTED, linewidth=0.8)
        basis.set_ylabel("basis, ¢")
        for axis in (prices, basis):
            axis.set_xlim(0, (series.end_ns - series.start_ns) / 1e9)
            if not np.isfinite(series.basis).any():
                axis.text(0.5, 0.5, "no trusted quotes", transform=axis.transAxes, ha="center", va="center")
        keys = [Patch(color=_VENUE_COLOURS[venue], alpha=0.55, label=f"{venue.capitalize()}") for venue in VENUES]
        prices.legend(handles=keys, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=8, frameon=False)
        places, labels = places_and_labels(series.start_ns, series.end_ns, 4 if narrow else 10)
        basis.set_xticks(places, labels)
        basis.set_xlabel("UTC")
        return figure


def _band(axis: Axes, times: Floats, bounds: tuple[Floats, Floats], colour: str, alpha: float) -> None:
    """Between two step lines. Corner by corner: a band filled step by step would leave out the last before a break."""
    low, high = (np.repeat(bound, 2) for bound in bounds)
    axis.fill_between(np.repeat(times, 2)[1:-1], low, high, color=colour, alpha=alpha, linewidth=0)


def _fees(times: npt.NDArray[np.int64], prices: Floats, fee: "FeeAt | None") -> Floats:
    found = np.zeros(len(prices))
    if fee is not None:
        for index in np.flatnonzero(np.isfinite(prices)).tolist():
            found[index] = fee(int(times[index]), float(prices[index]))
    return found


def _cents(column: pa.ChunkedArray) -> Floats:
    values: Floats = pc.multiply(pc.cast(column, pa.float64()), 100.0).to_numpy(zero_copy_only=False)
    return values


# --- edge by size ------------------------------------------------------------------------------------------


def curve_figure(found: Optimum, marked: Sequence[tuple[str, Execution]], *, narrow: bool) -> Figure:
    """Net edge of one more contract, and net of all, by size; the best size and others marked."""
    assert found.best is not None
    largest = max([found.best.size * 2, *(done.size for _, done in marked[-1:])])
    walk = [segment for segment in edge_curve(found.legs, found.payout, whole=True) if segment.start < largest]
    with styled():
        room = Margins(top=0.1, between=0.6 if narrow else 0.1)
        figure = lay_out((4.3, 4.6) if narrow else (10.4, 2.9), rows=1 + narrow, columns=2 - narrow, margins=room)
        edge, net = figure.subplots(2, 1) if narrow else figure.subplots(1, 2)
        bounds = [float(segment.start) for segment in walk] + [float(min(walk[-1].end, largest))]
        edges = [float(segment.net_edge * 100) for segment in walk]
        edge.stairs(edges, bounds, color=COLOURS["yes_kalshi"], linewidth=1.5, baseline=None)
        edge.axhline(0, color=MUTED, linewidth=0.8)
        edge.set_ylabel("¢, one more contract")
        totals = np.concatenate(([0.0], np.cumsum(np.diff(bounds) * np.array(edges) / 100)))
        net.plot(bounds, totals, color=COLOURS["yes_kalshi"], linewidth=1.5)
        net.axhline(0, color=MUTED, linewidth=0.8)
        net.set_ylabel("$, all of them")
        shown = [(words, done) for words, done in marked if done.size <= largest]
        net.plot(
            [float(done.size) for _, done in shown],
            [float(done.net) for _, done in shown],
            linestyle="",
            marker="o",
            markersize=4.5,
            color=COLOURS["yes_polymarket"],
        )
        for axis in (edge, net):
            axis.axvline(float(found.best.size), color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
            axis.set_xlabel("contracts of each leg")
            axis.set_xlim(0, bounds[-1] * 1.01)
            axis.xaxis.set_major_locator(MaxNLocator(5))
        edge.text(float(found.best.size), 0.98, " q*", transform=edge.get_xaxis_transform(), va="top", fontsize=9)
        return figure


# --- heat map ----------------------------------------------------------------------------------------------


def heat_figure(cells: Sequence[HeatCell], *, narrow: bool) -> Figure:
    """Categories by hour in New York: mean gap, and share of time in which it paid; grey under five pairs."""
    rows = sorted({cell.category for cell in cells})
    hours = sorted({cell.hour for cell in cells})
    height = 1.5 + 0.42 * len(rows)
    with styled():
        size = (4.3, 2 * height) if narrow else (10.4, height)
        room = Margins(left=1.5, right=0.1, between=0.85 if narrow else -1.25)
        figure = lay_out(size, rows=1 + narrow, columns=2 - narrow, margins=room)
        panels: Sequence[Axes] = figure.subplots(2, 1) if narrow else figure.subplots(1, 2, sharey=True)
        for axis, (title, unit, shade) in zip(panels, _HEAT_PANELS, strict=True):
            top = max([abs(shade(cell)) for cell in cells], default=0) or 1.0
            for cell in cells:
                x, y, value = hours.index(cell.hour), rows.index(cell.category), shade(cell)
                few = cell.pairs < _ENOUGH_PAIRS
                colour = REFUSED if few else _shade(value / top)
                axis.add_patch(_square(x, y, colour))
                ink = INK if few or abs(value) / top < 0.6 else "white"
                if len(hours) <= (8 if narrow else 12):
                    label = f"{value:.{1 if unit == '¢' else 0}f}".replace("-", "\N{MINUS SIGN}")
                    axis.text(x, y, label, ha="center", va="center", fontsize=8, color=ink)
            axis.set_xlim(-0.5, len(hours) - 0.5)
            axis.set_ylim(len(rows) - 0.5, -0.5)
            axis.set_xticks(range(len(hours)), [f"{hour:02d}" for hour in hours])
            axis.set_yticks(range(len(rows)), [_cut(row) for row in rows])
            axis.set_xlabel("hour in New York")
            axis.set_title(f"{title}, {unit} (darkest: {top:.1f})", loc="left", fontsize=9)
            axis.grid(visible=False)
        return figure


def _square(x: float, y: float, colour: str) -> Rectangle:
    return Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=colour, edgecolor="none")


def _shade(share: float) -> str:
    """From white to blue; below zero from white to red."""
    share = max(-1.0, min(1.0, share))
    full = (29, 95, 168) if share >= 0 else (181, 84, 74)
    mixed = [round(255 - (255 - part) * (0.12 + 0.88 * abs(share))) for part in full]
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _gap_of(cell: HeatCell) -> float:
    return cell.gap * 100


def _share_of(cell: HeatCell) -> float:
    return cell.paying * 100


_HEAT_PANELS = (("mean gap before fees", "¢", _gap_of), ("time in which it paid", "%", _share_of))


def _cut(words: str) -> str:
    return words if len(words) <= 18 else f"{words[:17]}…"


# --- lifetimes ---------------------------------------------------------------------------------------------


def lifetimes_figure(
    episodes: Sequence[Mapping[str, Any]],
    curves: Mapping[str, Survival],
    window: tuple[datetime, datetime],
    *,
    narrow: bool,
) -> Figure:
    """Episodes by start and duration, coloured by their peak edge; beside them the share that outlives a time."""
    start_ns, end_ns = ns_from_datetime(window[0]), ns_from_datetime(window[1])
    starts = np.array([ns_from_datetime(row["opened_at"]) for row in episodes], dtype=np.int64)
    if starts.size:
        # A day's report of one captured hour would draw a column of dots.
        start_ns, end_ns = max(start_ns, int(starts.min())), min(end_ns, int(starts.max()) + 1_000_000_000)
    with styled():
        room = Margins(top=0.12, between=0.6 if narrow else 0.15)
        figure = lay_out((4.3, 6.0) if narrow else (10.4, 3.4), rows=1 + narrow, columns=2 - narrow, margins=room)
        calendar, outlive = figure.subplots(2, 1) if narrow else figure.subplots(1, 2, width_ratios=(3, 2))
        peaks = np.array([max(float(row["peak_edge"]) * 100, 0.01) for row in episodes])
        lasted = np.array([max(row["lasted"], 1e-3) for row in episodes])
        dots = None
        for accepted, marker in ((False, "x"), (True, "o")):
            mine = np.array([row["accepted"] is accepted for row in episodes], dtype=np.bool_)
            if mine.any():
                dots = calendar.scatter(
                    (starts[mine] - start_ns) / 1e9,
                    lasted[mine],
                    c=peaks[mine],
                    cmap="viridis_r",
                    norm=LogNorm(peaks.min(), max(peaks.max(), peaks.min() * 1.01)),
                    marker=marker,
                    s=26 if accepted else 18,
                    linewidths=1.0,
                )
        calendar.set_yscale("log")
        calendar.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        calendar.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: _duration(value)))
        calendar.yaxis.set_minor_formatter(FuncFormatter(lambda _value, _place: ""))
        calendar.set_ylabel("lasted")
        places, labels = places_and_labels(start_ns, end_ns, 3 if narrow else 6)
        calendar.set_xticks(places, labels)
        span = (end_ns - start_ns) / 1e9
        calendar.set_xlim(-0.03 * span, 1.03 * span)
        calendar.set_xlabel("opened, UTC")
        if dots is not None:
            bar = figure.colorbar(dots, ax=calendar, pad=0.01, aspect=30)
            bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))
            bar.ax.yaxis.set_minor_formatter(FuncFormatter(lambda _value, _place: ""))
            bar.set_label("peak edge, ¢")
        for (name, curve), colour in zip(curves.items(), (COLOURS["yes_kalshi"], MUTED), strict=False):
            longest = max([*curve.times_s, max(lasted, default=1.0)])
            x, y = [0.0, *curve.times_s, longest], [1.0, *curve.shares]
            outlive.step(x, [*y, y[-1]], where="post", color=colour, linewidth=1.5, label=f"{name} ({curve.episodes})")
        outlive.set_ylim(0, 1.05)
        outlive.set_xlim(left=0)
        outlive.set_ylabel("share that outlives it")
        outlive.set_xlabel("seconds since it opened")
        outlive.xaxis.set_major_locator(MaxNLocator(5))
        outlive.legend(loc="center right", fontsize=8, frameon=False)
        return figure


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.0f} h"
    )


# --- backtest, ages ----------------------------------------------------------------------------------------


def backtest_figure(rows: Sequence[LatencyFigures], *, narrow: bool) -> Figure:
    """Share of the orders that both legs got, and net of all, by latency."""
    with styled():
        room = Margins(top=0.1, between=0.6 if narrow else 0.1)
        figure = lay_out((4.3, 4.4) if narrow else (10.4, 2.5), rows=1 + narrow, columns=2 - narrow, margins=room)
        filled, net = figure.subplots(2, 1) if narrow else figure.subplots(1, 2)
        names = [f"{row.latency_ms:,} ms" for row in rows]
        places = np.arange(len(rows))
        filled.bar(places, [(row.fill_rate or 0) * 100 for row in rows], width=0.6, color=COLOURS["yes_kalshi"])
        filled.set_ylabel("filled on both, %")
        filled.set_ylim(0, 108)
        nets = [float(row.net) for row in rows]
        net.bar(places, nets, width=0.6, color=[ACCEPTED if value >= 0 else "#b5544a" for value in nets])
        net.axhline(0, color=MUTED, linewidth=0.8)
        net.set_ylabel("net of all, $")
        for axis in (filled, net):
            axis.set_xticks(places, names)
            axis.grid(visible=False, axis="x")
            axis.set_xlabel("latency")
        return figure


def age_figure(shares: Mapping[str, Sequence[float]], *, narrow: bool) -> Figure:
    """By venue and source, how the time divides by the age of the newest quote, per cent."""
    with styled():
        size = (4.3, 1.4 + 0.4 * len(shares)) if narrow else (10.4, 1.0 + 0.35 * len(shares))
        figure = lay_out(size, margins=Margins(left=1.1, right=0.2, top=0.75 if narrow else 0.35))
        axis: Axes = figure.subplots()
        left = np.zeros(len(shares))
        for number, words in enumerate(AGE_WORDS):
            widths = np.array([share[number] for share in shares.values()]) * 100
            axis.barh(
                np.arange(len(shares)), widths, left=left, color=_AGE_COLOURS[number], label=words, edgecolor=GRID
            )
            left += widths
        axis.set_yticks(np.arange(len(shares)), list(shares))
        axis.invert_yaxis()
        axis.set_xlim(0, 100)
        axis.grid(visible=False, axis="y")
        axis.set_xlabel("% of the time, all markets")
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2 if narrow else 5, fontsize=8, frameon=False)
        return figure
