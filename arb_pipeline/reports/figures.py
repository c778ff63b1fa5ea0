"""Figures of the report, drawn by matplotlib into deterministic SVG."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from io import StringIO
from typing import get_args

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from arb_pipeline.arbitrage.candidates import DIRECTIONS_OF
from arb_pipeline.arbitrage.pairs import Direction, Pair, outcomes_bought
from arb_pipeline.clock import datetime_from_ns, ns_from_datetime
from arb_pipeline.reports.over_time import with_ends
from arb_pipeline.tables import table

__all__ = [
    "ACCEPTED",
    "COLOURS",
    "DIRECTION_WORDS",
    "GRID",
    "INK",
    "MUTED",
    "REFUSED",
    "BreakEven",
    "Floats",
    "Margins",
    "PairSeries",
    "direction_words",
    "funnel_figure",
    "gap_figure",
    "in_order",
    "known_span",
    "lay_out",
    "places_and_labels",
    "rows_of_pair",
    "styled",
    "svg",
    "thinned",
]

Floats = npt.NDArray[np.float64]

BreakEven = Callable[[Direction, int, Decimal, Decimal], Decimal | None]
"""(direction, recv_ns, price of the proposition, price of its opposite) to the fees per contract."""

DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
DIRECTION_WORDS: Mapping[Direction, str] = {
    "yes_kalshi": "YES on Kalshi, its hedge on Polymarket",
    "yes_polymarket": "NO on Kalshi, its hedge on Polymarket",
}
"""What a direction buys of any pair; :func:`direction_words` names the hedge."""

COLOURS = {"yes_kalshi": "#1d5fa8", "yes_polymarket": "#a8501d"}
INK, MUTED, GRID, ACCEPTED, REFUSED = "#1c2530", "#5b6673", "#e3e7ec", "#7cc48f", "#d8dce2"
_MOST_POINTS = 400
_SLICES = 80
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")

_TICK_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)


def direction_words(pair: Pair | None) -> Mapping[Direction, str]:
    """What each direction of a pair buys, in the venues' own words; :data:`DIRECTION_WORDS` of a pair not at hand."""
    if pair is None:
        return DIRECTION_WORDS
    words = {}
    for direction in DIRECTIONS:
        first, second = outcomes_bought(pair, direction)
        doubt = "" if direction in DIRECTIONS_OF.get(pair.relation, ()) else " (no hedge)"
        words[direction] = f"{first} on Kalshi, {second} on Polymarket{doubt}"
    return words


@contextmanager
def styled(salt: str = "arb") -> Iterator[None]:
    """The report's style, with ids that depend on the salt alone."""
    with mpl.rc_context(
        {
            "font.family": "sans-serif",
            "font.size": 9,
            "svg.fonttype": "none",
            "svg.hashsalt": salt,
            "axes.edgecolor": GRID,
            "axes.labelcolor": MUTED,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": GRID,
            "grid.linewidth": 0.7,
            "text.color": INK,
            "text.parse_math": False,
            "xtick.color": MUTED,
            "ytick.color": MUTED,
        }
    ):
        yield


@dataclass(frozen=True)
class PairSeries:
    """One pair's executable gaps over a window: what a gap figure draws.

    Attributes:
        recv_ns: instants at which a gap may have changed.
        gaps: cents per contract by direction, NaN where unknown.
        break_even: fees in cents per contract by direction, NaN where unknown.
        episodes: (direction, from, to, accepted), ns.
    """

    start_ns: int
    end_ns: int
    recv_ns: npt.NDArray[np.int64]
    gaps: dict[Direction, Floats]
    break_even: dict[Direction, Floats]
    episodes: tuple[tuple[Direction, int, int, bool], ...] = ()

    @classmethod
    def of(
        cls, spreads: pa.Table, opportunities: pa.Table, start: datetime, end: datetime, fees: BreakEven | None = None
    ) -> "PairSeries":
        """From one pair's rows of ``spreads`` (in time order) and ``opportunities``."""
        gaps = {name: _cents(spreads[f"gap_{name}"]) for name in DIRECTIONS}
        times = spreads["recv_ns"].to_numpy()
        keep = list(range(len(times))) if len(times) <= _MOST_POINTS else thinned(times, list(gaps.values()), _SLICES)
        drawn = spreads.take(pa.array(keep, pa.int64()))
        end_ns = ns_from_datetime(end)
        episodes = [
            (
                row["direction"],
                ns_from_datetime(row["opened_at"]),
                end_ns if row["closed_at"] is None else ns_from_datetime(row["closed_at"]),
                row["accepted"],
            )
            for row in opportunities.select(["direction", "opened_at", "closed_at", "accepted"]).to_pylist()
        ]
        lines = [*(values[keep] for values in gaps.values()), *(_break_even(drawn, name, fees) for name in DIRECTIONS)]
        drawn_ns, lines = with_ends(times[keep], lines, times, end_ns)
        kept, fees_kept = lines[: len(gaps)], lines[len(gaps) :]
        first_ns, last_ns = known_span(drawn_ns, kept, ns_from_datetime(start), end_ns)
        return cls(
            first_ns,
            last_ns,
            drawn_ns,
            dict(zip(DIRECTIONS, kept, strict=True)),
            dict(zip(DIRECTIONS, fees_kept, strict=True)),
            tuple(episodes),
        )

    @classmethod
    def widest(cls, spreads: pa.Table, opportunities: pa.Table, start: datetime, end: datetime) -> "PairSeries":
        """Of the pair whose gap was the largest at any trusted instant; of no pair if there is none."""
        spreads = in_order(spreads, "spreads")
        best = pc.max_element_wise(spreads["gap_yes_kalshi"], spreads["gap_yes_polymarket"])
        top = pc.max(best)
        if top.as_py() is None:
            empty = spreads.slice(0, 0)
            return cls.of(empty, opportunities.slice(0, 0), start, end)
        row = spreads.slice(pc.index(best, top).as_py(), 1).to_pylist()[0]
        key = row["kalshi_market_id"], row["polymarket_market_id"]
        return cls.of(rows_of_pair(spreads, key), rows_of_pair(opportunities, key), start, end)


def known_span(times: npt.NDArray[np.int64], values: Sequence[Floats], start_ns: int, end_ns: int) -> tuple[int, int]:
    """The part of a window in which any of these step lines is known: a minute in a day of nothing would be a hair."""
    known = np.flatnonzero(np.isfinite(np.array(values)).any(axis=0)) if len(times) else np.array([], dtype=np.int64)
    if not known.size:
        return start_ns, end_ns
    after = int(known[-1]) + 1
    return max(start_ns, int(times[known[0]])), min(end_ns, int(times[after])) if after < len(times) else end_ns


def in_order(rows: pa.Table, name: str) -> pa.Table:
    """The rows in their table's declared order, which hours read one after the other do not have."""
    return rows.sort_by([(column, "ascending") for column in table(name).sort])


def rows_of_pair(rows: pa.Table, key: tuple[str, str]) -> pa.Table:
    """A pair's rows of any table that names both markets."""
    mine = pc.and_(pc.equal(rows["kalshi_market_id"], key[0]), pc.equal(rows["polymarket_market_id"], key[1]))
    return rows.filter(mine)


def gap_figure(
    series: PairSeries, *, narrow: bool, title: str = "", words: Mapping[Direction, str] = DIRECTION_WORDS
) -> Figure:
    """Executable gap of both directions over time, with the fee break-even, zero, and shaded episodes."""
    with styled():
        room = Margins(top=0.55 if title else 0.28, between=0.3)
        figure = lay_out((4.3, 5.2) if narrow else (10.4, 4.6), rows=2, margins=room)
        axes: Sequence[Axes] = figure.subplots(2, 1, sharex=True)
        times = _seconds(np.append(series.recv_ns, series.end_ns), series)
        for axis, direction in zip(axes, DIRECTIONS, strict=True):
            colour = COLOURS[direction]
            for name, opened, closed, accepted in series.episodes:
                if name == direction:
                    left, right = _seconds(np.array([opened, closed]), series)
                    axis.axvspan(left, right, color=ACCEPTED if accepted else REFUSED, alpha=0.55, linewidth=0)
            axis.axhline(0, color=MUTED, linewidth=0.8)
            gaps, fees = series.gaps[direction], series.break_even[direction]
            if gaps.size:
                axis.step(times, np.append(gaps, gaps[-1]), where="post", color=colour, linewidth=1.3)
                axis.step(
                    times, np.append(fees, fees[-1]), where="post", color=INK, linewidth=0.9, linestyle=(0, (4, 2))
                )
            if not np.isfinite(gaps).any():
                axis.text(0.5, 0.5, "no trusted quotes", transform=axis.transAxes, ha="center", va="center")
                axis.set_ylim(-1, 1)
            axis.set_title(words[direction], loc="left", fontsize=9, color=colour)
            axis.set_ylabel("¢ per contract")
            axis.set_xlim(0, (series.end_ns - series.start_ns) / 1e9)
        places, labels = places_and_labels(series.start_ns, series.end_ns, 4 if narrow else 10)
        axes[-1].set_xticks(places, labels)
        axes[-1].set_xlabel("UTC")
        if title:
            figure.suptitle(title, fontsize=10, x=0.01, ha="left")
        return figure


def funnel_figure(rows: Sequence[dict[str, object]], *, narrow: bool) -> Figure:
    """Candidates left at each step of the funnel."""
    with styled():
        figure = lay_out((4.3, 3.2) if narrow else (10.4, 2.9), margins=Margins(left=0.85, right=0.1, top=0.08))
        axis: Axes = figure.subplots()
        names = [str(row["guard"]).replace("_", " ") for row in rows]
        reached = [int(str(row["candidates"])) for row in rows]
        stopped = [int(str(row["stopped"])) for row in rows]
        left = [total - lost for total, lost in zip(reached, stopped, strict=True)]
        places = np.arange(len(rows))
        axis.barh(places, left, color=[COLOURS["yes_kalshi"]] * (len(rows) - 1) + [ACCEPTED] if rows else [])
        axis.barh(places, stopped, left=left, color=REFUSED)
        for place, (total, lost) in enumerate(zip(reached, stopped, strict=True)):
            label = f"{total:,}" if not lost else f"{total:,}, {lost:,} stopped"
            axis.text(total + max(reached) / 100, place, label, va="center", fontsize=8, color=INK)
        axis.set_yticks(places, names)
        axis.set_xlim(0, max([*reached, 1]) * (1.45 if narrow else 1.2))
        axis.invert_yaxis()
        axis.grid(visible=False, axis="y")
        axis.set_xlabel("episodes with a gap between the tops")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        return figure


@dataclass(frozen=True, slots=True)
class Margins:
    """Room around the axes of a figure, and between them, inches."""

    left: float = 0.76
    right: float = 0.3
    top: float = 0.28
    bottom: float = 0.46
    between: float = 0.5


def lay_out(size: tuple[float, float], rows: int = 1, columns: int = 1, margins: Margins | None = None) -> Figure:
    """An empty figure of this size in inches, with room for so many axes and their labels.

    Matplotlib's own layouts draw every figure twice to find out what its texts take.
    """
    room = margins or Margins()
    figure, (width, height) = Figure(figsize=size), size
    wide = (width - room.left - room.right - (columns - 1) * (room.between + room.left)) / columns
    high = (height - room.top - room.bottom - (rows - 1) * room.between) / rows
    figure.subplots_adjust(
        left=room.left / width,
        right=1 - room.right / width,
        top=1 - room.top / height,
        bottom=room.bottom / height,
        wspace=(room.between + room.left) / wide,
        hspace=room.between / high,
    )
    return figure


def svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element for an HTML page: no size of its own, ids of its own, no dates, no metadata."""
    buffer = StringIO()
    with styled(name):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"(<svg)", r'\1 aria-hidden="true" focusable="false"', text, count=1)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"<[^>]+>", lambda tag: _LONG_NUMBER.sub(_shortened, tag[0]), text)
    return "\n".join(line.rstrip() for line in text.splitlines())


def _shortened(number: re.Match[str]) -> str:
    """Hundredths of a point: finer than any screen, and half the size of the page."""
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _cents(column: pa.ChunkedArray) -> Floats:
    values: Floats = pc.multiply(pc.cast(column, pa.float64()), 100.0).to_numpy(zero_copy_only=False)
    return values


def _seconds(recv_ns: npt.NDArray[np.int64], series: PairSeries) -> Floats:
    """Seconds into the window."""
    return (recv_ns - series.start_ns) / 1e9


def places_and_labels(start_ns: int, end_ns: int, most: int) -> tuple[list[float], list[str]]:
    """Round times of the day, at most so many, as seconds into the window with their labels."""
    span = (end_ns - start_ns) / 1e9
    step = next((step for step in _TICK_STEPS_S if span / step <= most), int(span / most // 86_400 + 1) * 86_400)
    first = -(-start_ns // (step * 10**9)) * step
    instants = range(first, end_ns // 10**9 + 1, step)
    pattern = "%H:%M:%S" if step < 60 else "%H:%M" if span <= 86_400 else "%d %b %H:%M" if step < 86_400 else "%d %b"
    labels = [datetime_from_ns(at * 10**9).strftime(pattern) for at in instants]
    return [at - start_ns / 1e9 for at in instants], labels


def thinned(recv_ns: npt.NDArray[np.int64], series: Sequence[Floats], slices: int) -> list[int]:
    """Rows that keep the picture: of each slice of time the first, the last, and each line's extremes and breaks."""
    if not len(recv_ns):
        return []
    edges = np.linspace(recv_ns[0], recv_ns[-1], slices)
    starts = np.unique(np.searchsorted(recv_ns, edges))
    keep: set[int] = {0, len(recv_ns) - 1}
    for begin, end in zip(starts.tolist(), [*starts[1:].tolist(), len(recv_ns)], strict=True):
        keep.update((begin, end - 1))
        for values in series:
            part = values[begin:end]
            unknown = np.isnan(part)
            keep.update((begin + np.flatnonzero(unknown)[:1]).tolist())
            if not unknown.all():
                keep.update((begin + int(np.nanargmin(part)), begin + int(np.nanargmax(part))))
    return sorted(keep)


def _break_even(spreads: pa.Table, direction: Direction, fees: BreakEven | None) -> Floats:
    found = np.full(spreads.num_rows, np.nan)
    if fees is None:
        return found
    yes, no = ("kalshi", "polymarket") if direction == "yes_kalshi" else ("polymarket", "kalshi")
    for index, row in enumerate(spreads.to_pylist()):
        ask, bid = row[f"{yes}_ask"], row[f"{no}_bid"]
        if row["trusted"] and ask is not None and bid is not None:
            fee = fees(direction, row["recv_ns"], ask, 1 - bid)
            found[index] = np.nan if fee is None else float(fee * 100)
    return found
