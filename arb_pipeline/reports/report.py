"""The daily report: one self-contained HTML page, and the tables that it shows as Parquet and CSV beside it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import jinja2
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from markupsafe import Markup
from matplotlib.figure import Figure

from arb_pipeline.arbitrage.fees import FeeSource
from arb_pipeline.arbitrage.pairs import MarketData, Pair
from arb_pipeline.model import Market
from arb_pipeline.reports import text
from arb_pipeline.reports.figures import PairSeries, funnel_figure, gap_figure, in_order, rows_of_pair, svg
from arb_pipeline.reports.views import Views
from arb_pipeline.settings import Settings
from arb_pipeline.tables import table

__all__ = ["ReportFiles", "ReportInputs", "build_report"]

_PLOTTED_PAIRS = 3


def _empty(name: str) -> pa.Table:
    return table(name).schema.empty_table()


@dataclass(frozen=True)
class ReportInputs:
    """What a report is made of: the tables of a window [start, end) and what explains them.

    Attributes:
        pairs: the pairs evaluated; their markets give titles and pages.
        markets: further markets whose titles the matches may need.
        fees: prices the break-even lines; without it they are left out.
        settings: with ``data``, sizes the best opportunity at several amounts.
        data: the books around the best opportunity.
        exchange: the local exchange's name if the data comes from one; sessions that name one count as well.
        universe: markets known per venue.
        parameters: what the figures depend on, by name.
        generated_at: stated if given; nothing else in the page depends on when it was made.
    """

    start: datetime
    end: datetime
    spreads: pa.Table = field(default_factory=lambda: _empty("spreads"))
    opportunities: pa.Table = field(default_factory=lambda: _empty("opportunities"))
    rejections: pa.Table = field(default_factory=lambda: _empty("rejections"))
    matches: pa.Table = field(default_factory=lambda: _empty("market_matches"))
    book_gaps: pa.Table = field(default_factory=lambda: _empty("book_gaps"))
    capture_sessions: pa.Table = field(default_factory=lambda: _empty("capture_sessions"))
    pairs: Sequence[Pair] = ()
    markets: Iterable[Market] = ()
    fees: FeeSource | None = None
    settings: Settings | None = None
    data: MarketData | None = None
    exchange: str = ""
    universe: Mapping[str, int] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    generated_at: datetime | None = None
    title: str = "Arbitrage report"


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """Where a report was written: the page, and each table's Parquet and CSV."""

    html: Path
    parquet: dict[str, Path]
    csv: dict[str, Path]


def build_report(inputs: ReportInputs, out_dir: Path) -> ReportFiles:
    """Write ``report.html`` and the tables that it shows into a folder, which is made if need be.

    The same inputs give the same bytes.
    """
    inputs = replace(inputs, spreads=in_order(inputs.spreads, "spreads"))
    views = Views(inputs)
    out_dir.mkdir(parents=True, exist_ok=True)
    html = out_dir / "report.html"
    html.write_text(_render(inputs, views), encoding="utf-8")
    tables = {
        "opportunities": inputs.opportunities,
        "rejections": inputs.rejections,
        "spreads_latest": views.latest,
        "market_matches": inputs.matches,
        "book_gaps": inputs.book_gaps,
        "capture_sessions": inputs.capture_sessions,
    }
    files = ReportFiles(html, {}, {})
    for name, rows in tables.items():
        files.parquet[name] = out_dir / f"{name}.parquet"
        files.csv[name] = out_dir / f"{name}.csv"
        pq.write_table(rows, files.parquet[name], compression="zstd")
        pa_csv.write_csv(rows, files.csv[name])
    return files


def _render(inputs: ReportInputs, views: Views) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("arb_pipeline.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(text, name) for name in text.__all__ if name != "DASH"}
    funnel = inputs.rejections.to_pylist()
    return environment.get_template("report.html.j2").render(
        inputs=inputs,
        views=views,
        dash=text.DASH,
        funnel=funnel,
        funnel_figures=_figures("funnel", lambda narrow: funnel_figure(funnel, narrow=narrow)) if funnel else None,
        plots=[_plot(index, key, inputs, views) for index, key in enumerate(views.plotted(_PLOTTED_PAIRS))],
    )


def _figures(name: str, draw: Callable[[bool], Figure]) -> dict[str, Markup]:
    # S704: the SVG is the figure library's own output, which escapes the texts drawn.
    return {
        width: Markup(svg(draw(width == "narrow"), f"{name}-{width}"))  # noqa: S704
        for width in ("wide", "narrow")
    }


def _plot(index: int, key: tuple[str, str], inputs: ReportInputs, views: Views) -> dict[str, object]:
    series = PairSeries.of(
        rows_of_pair(inputs.spreads, key),
        rows_of_pair(inputs.opportunities, key),
        inputs.start,
        inputs.end,
        views.break_even(key),
    )
    return {
        "pair": views.names(*key),
        "accepted": sum(accepted for *_, accepted in series.episodes),
        "refused": sum(not accepted for *_, accepted in series.episodes),
        "figures": _figures(f"gap{index}", lambda narrow: gap_figure(series, narrow=narrow)),
    }
