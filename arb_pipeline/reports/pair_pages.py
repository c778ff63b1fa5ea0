"""The pairs that are shown in full: figures, both rules side by side, what was compared, and how it was settled."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from markupsafe import Markup
from matplotlib.figure import Figure

from arb_pipeline.arbitrage.ladders import Execution
from arb_pipeline.matching.review import Case, SlotLine, Span, compare_texts
from arb_pipeline.reports.charts import FeeAt, PriceSeries, curve_figure, prices_figure
from arb_pipeline.reports.figures import PairSeries, direction_words, gap_figure, rows_of_pair, svg
from arb_pipeline.reports.inputs import ReportInputs
from arb_pipeline.reports.views import PairNames, Views

__all__ = ["BasisFigures", "PairPage", "drawn", "pair_pages"]

PairKey = tuple[str, str]
Figures = Mapping[str, Markup]


@dataclass(frozen=True, slots=True)
class BasisFigures:
    """Hours of a pair's ``basis`` joined, dollars and shares over the time in which both books were trusted.

    Attributes:
        leads_ms: Kalshi's lead of each hour in which one could be told.
    """

    hours: int
    basis: float | None
    gap: float | None
    break_even: float | None
    paying: float | None
    leads_ms: Sequence[float]


@dataclass(frozen=True, slots=True)
class PairPage:
    """One pair in full.

    Attributes:
        curve: its best priced episode by size; None if its books are not at hand.
        rules: both texts, Kalshi's first, in stretches that say what the other has too.
        settlement: its row of ``settlement_agreement``; None before both are settled.
    """

    names: PairNames
    accepted: int
    refused: int
    gaps: Figures
    prices: Figures
    curve: Figures | None
    best: Mapping[str, Any] | None
    sizes: Sequence[tuple[str, Execution]]
    basis: BasisFigures | None
    rules: tuple[Sequence[Span], Sequence[Span]]
    slots: Sequence[SlotLine]
    terms: Sequence[SlotLine]
    void_states: Mapping[str, Mapping[str, str]]
    caveats: Sequence[str]
    settlement: Mapping[str, Any] | None
    states: tuple[str, str]


def drawn(name: str, draw: Callable[[bool], Figure]) -> Figures:
    """A figure for wide screens and for phones, as elements of the page."""
    # S704: the SVG is the figure library's own output, which escapes the texts drawn.
    return {
        width: Markup(svg(draw(width == "narrow"), f"{name}-{width}"))  # noqa: S704
        for width in ("wide", "narrow")
    }


def pair_pages(inputs: ReportInputs, views: Views, most: int) -> list[PairPage]:
    """The pairs worth a figure: those of the best episodes, then those with the widest gaps."""
    return [_page(number, key, inputs, views) for number, key in enumerate(views.plotted(most))]


def _page(number: int, key: PairKey, inputs: ReportInputs, views: Views) -> PairPage:
    spreads, episodes = rows_of_pair(inputs.spreads, key), rows_of_pair(inputs.opportunities, key)
    pair = next((one for one in inputs.pairs if one.key == key), None)
    gaps = PairSeries.of(spreads, episodes, inputs.start, inputs.end, views.break_even(key))
    fees = None
    if pair is not None and views.fees is not None:
        fees = {"kalshi": FeeAt(pair.kalshi, views.fees), "polymarket": FeeAt(pair.polymarket, views.fees)}
    prices = PriceSeries.of(spreads, episodes, (inputs.start, inputs.end), fees)
    priced = [row for row in episodes.to_pylist() if row["size"] > 0]
    best = max(priced, key=lambda row: (row["accepted"], row["net"]), default=None)
    found = None if best is None else views.optimum(best)
    sizes = views.sizes(found)
    matched = next(iter(rows_of_pair(inputs.matches, key).to_pylist()), None)
    case = None if pair is None or matched is None else Case(matched, pair.kalshi, pair.polymarket)
    return PairPage(
        names=views.names(*key),
        accepted=sum(accepted for *_, accepted in gaps.episodes),
        refused=sum(not accepted for *_, accepted in gaps.episodes),
        gaps=drawn(f"gap{number}", lambda narrow: gap_figure(gaps, narrow=narrow, words=direction_words(pair))),
        prices=drawn(f"prices{number}", lambda narrow: prices_figure(prices, narrow=narrow)),
        curve=None
        if found is None
        else drawn(f"curve{number}", lambda narrow: curve_figure(found, sizes, narrow=narrow)),
        best=None if best is None else views.spelled_out(best),
        sizes=sizes,
        basis=_basis(rows_of_pair(inputs.basis, key)),
        rules=([], []) if pair is None else compare_texts(pair.kalshi.rules, pair.polymarket.rules),
        slots=case.slots if case else (),
        terms=case.terms if case else (),
        void_states=case.void_states if case else {},
        caveats=case.told.get("caveats", ()) if case else (),
        settlement=next(iter(rows_of_pair(inputs.settlement_agreement, key).to_pylist()), None),
        states=("", "") if pair is None else (pair.kalshi.status.value, pair.polymarket.status.value),
    )


def _basis(rows: pa.Table) -> BasisFigures | None:
    known = [row for row in rows.to_pylist() if row["known_ns"]]
    if not known:
        return None

    def mean(name: str) -> float | None:
        told = [(row[name], row["known_ns"]) for row in known if row[name] is not None]
        return sum(value * time for value, time in told) / sum(time for _, time in told) if told else None

    leads = [row["lead_ms"] for row in known if row["lead_ms"] is not None]
    return BasisFigures(
        len(known), mean("basis_mean"), mean("gap_mean"), mean("break_even_mean"), mean("paying_share"), leads
    )
