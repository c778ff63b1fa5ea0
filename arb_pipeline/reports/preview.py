"""Small previews of tables: Markdown and PNG for an orchestrator's pages."""

from datetime import datetime
from decimal import Decimal
from io import BytesIO

import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from arb_pipeline.reports.figures import PairSeries, funnel_figure, gap_figure, styled
from arb_pipeline.reports.text import trimmed

__all__ = ["funnel_png", "markdown_preview", "png_preview", "top_rows"]

_LONGEST_CELL = 80
_TOP_COLUMNS = (
    "kalshi_market_id",
    "polymarket_market_id",
    "direction",
    "accepted",
    "opened_at",
    "size",
    "net",
    "worst_state_net",
    "roi",
    "annualised",
    "reasons",
)


def markdown_preview(table: pa.Table, rows: int = 10) -> str:
    """The first rows as a Markdown table, long texts cut, with the number of rows below if there are more."""
    if not table.num_columns:
        return "*no columns*"
    lines = [
        "| " + " | ".join(_cell(name) for name in table.column_names) + " |",
        "|" + " --- |" * table.num_columns,
    ]
    shown = table.slice(0, rows).to_pylist()
    lines += ["| " + " | ".join(_cell(row[name]) for name in table.column_names) + " |" for row in shown]
    if not shown:
        lines += ["", "*no rows*"]
    elif table.num_rows > len(shown):
        lines += ["", f"*{len(shown)} of {table.num_rows:,} rows*"]
    return "\n".join(lines) + "\n"


def png_preview(
    spreads: pa.Table, opportunities: pa.Table, start: datetime, end: datetime, *, title: str = ""
) -> bytes:
    """The executable gap of the pair with the widest one, as a PNG of less than 100 kB."""
    series = PairSeries.widest(spreads, opportunities, start, end)
    return _png(gap_figure(series, narrow=False, title=title))


def funnel_png(rejections: pa.Table) -> bytes:
    """Where candidates end, rows of ``rejections`` of one evaluation, as a PNG of less than 100 kB."""
    return _png(funnel_figure(rejections.to_pylist(), narrow=False))


def top_rows(opportunities: pa.Table) -> pa.Table:
    """What a person looks at first: accepted episodes by annual return, then refused ones by net."""
    ranked = opportunities.append_column(
        "first", pc.if_else(opportunities["accepted"], opportunities["annualised"], None)
    )
    order = [("accepted", "descending"), ("first", "descending"), ("net", "descending")]
    return ranked.sort_by(order).select(_TOP_COLUMNS)


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    with styled():
        figure.savefig(buffer, format="png", dpi=80, metadata={"Software": None})
    return buffer.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        text = trimmed(value)
    elif isinstance(value, datetime):
        text = value.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    elif isinstance(value, float):
        text = f"{value:.6g}"
    else:
        text = str(value)
    text = " ".join(text.split())
    if len(text) > _LONGEST_CELL:
        text = f"{text[: _LONGEST_CELL - 1]}…"
    for sign in "\\|`*_<>[]":
        text = text.replace(sign, {"<": "&lt;", ">": "&gt;"}.get(sign, f"\\{sign}"))
    return text
