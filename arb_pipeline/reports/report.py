"""The daily report: one self-contained HTML page, and the tables that it shows as Parquet and CSV beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from arb_pipeline.reports import matched, text
from arb_pipeline.reports.charts import age_figure, backtest_figure, heat_figure, lifetimes_figure
from arb_pipeline.reports.figures import funnel_figure, in_order
from arb_pipeline.reports.inputs import ReportInputs
from arb_pipeline.reports.lifetimes import lifetimes, median_step_s
from arb_pipeline.reports.outcomes import basket_legs, event_sums
from arb_pipeline.reports.pair_pages import drawn, pair_pages
from arb_pipeline.reports.quality import age_shares, fee_coverage, share_both_fresh, venue_quality
from arb_pipeline.reports.realised import by_latency, held_to_settlement
from arb_pipeline.reports.views import MOST_ROWS, Views, reason_words

__all__ = ["ReportFiles", "ReportInputs", "build_report"]

_FULL_PAIRS = 3
_MOST_EVENTS = 40


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
    files = ReportFiles(html, {}, {})
    for name, rows in _tables(inputs, views).items():
        files.parquet[name] = out_dir / f"{name}.parquet"
        files.csv[name] = out_dir / f"{name}.csv"
        pq.write_table(rows, files.parquet[name], compression="zstd")
        pa_csv.write_csv(rows, files.csv[name])
    return files


def _tables(inputs: ReportInputs, views: Views) -> dict[str, pa.Table]:
    """What lies beside the page, by file name."""
    return {
        "opportunities": inputs.opportunities,
        "rejections": inputs.rejections,
        "spreads_latest": views.latest,
        "basis": inputs.basis,
        "heat_map": _heat_table(views),
        "execution_backtest": inputs.execution_backtest,
        "outcome_sets": inputs.outcome_sets,
        "basket_opportunities": inputs.basket_opportunities,
        "market_matches": inputs.matches,
        "match_evaluation": inputs.match_evaluation,
        "settlement_agreement": inputs.settlement_agreement,
        "book_gaps": inputs.book_gaps,
        "capture_sessions": inputs.capture_sessions,
        "quote_quality": inputs.quote_quality,
    }


def _heat_table(views: Views) -> pa.Table:
    schema = pa.schema(
        [
            ("category", pa.string()),
            ("hour_new_york", pa.int64()),
            ("gap", pa.float64()),
            ("paying_share", pa.float64()),
            ("known_s", pa.float64()),
            ("pairs", pa.int64()),
        ]
    )
    rows = [
        {
            "category": cell.category,
            "hour_new_york": cell.hour,
            "gap": cell.gap,
            "paying_share": cell.paying,
            "known_s": cell.known_s,
            "pairs": cell.pairs,
        }
        for cell in views.heat
    ]
    return pa.Table.from_pylist(rows, schema=schema)


def _render(inputs: ReportInputs, views: Views) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("arb_pipeline.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(text, name) for name in text.__all__ if name != "DASH"}
    environment.filters["words"] = lambda name: name.replace("_", " ")
    held = held_to_settlement(inputs.settled, inputs.settlement_agreement)
    return environment.get_template("report.html.j2").render(
        inputs=inputs,
        views=views,
        dash=text.DASH,
        funnel=inputs.rejections.to_pylist(),
        funnel_heads=[(name.replace("_", " "), "num") for name in inputs.rejections["guard"].to_pylist()[:-1]],
        pages=pair_pages(inputs, views, _FULL_PAIRS),
        lives=lifetimes(views.all_episodes),
        step_s=median_step_s(inputs.spreads),
        latencies=by_latency(inputs.execution_backtest),
        held=held[:MOST_ROWS],
        held_count=len(held),
        kept_count=sum(one.kept for one in held),
        **_outcomes(inputs),
        **_matching(inputs, views),
        **_quality(inputs, views),
        figures=_figures(inputs, views),
    )


def _outcomes(inputs: ReportInputs) -> dict[str, Any]:
    sums = event_sums(inputs.outcome_sets, inputs.tops, inputs.pairs)
    titles = {row["event_id"]: row["title"] for row in inputs.outcome_sets.to_pylist()}
    baskets = sorted(inputs.basket_opportunities.to_pylist(), key=lambda row: (not row["accepted"], -row["net"]))
    return {
        "events": sums[:_MOST_EVENTS],
        "event_count": len(sums),
        "baskets": [
            {
                **row,
                "title": titles.get(row["event_id"], row["event_id"]),
                "parts": basket_legs(row),
                "why": [reason_words(reason) for reason in text.listed(row["reasons"])],
            }
            for row in baskets[:_MOST_EVENTS]
        ],
        "basket_count": len(baskets),
    }


def _matching(inputs: ReportInputs, views: Views) -> dict[str, Any]:
    rows = inputs.matches.to_pylist()
    found = {row["status"] for row in rows}
    statuses = [status for status in matched.STATUSES if status in found]
    return {
        "families": matched.by_family(rows),
        "statuses": statuses,
        "status_heads": [(status, "num") for status in statuses],
        "precision": matched.precision(inputs.match_evaluation),
        "agreement": matched.settlement_figures(inputs.settlement_agreement),
        "alarms": [
            (one, views.names(one.kalshi_market_id, one.polymarket_market_id))
            for one in (*matched.suspected_inversions(rows), *matched.changed_rules(rows, views.markets))
        ][:MOST_ROWS],
    }


def _quality(inputs: ReportInputs, views: Views) -> dict[str, Any]:
    return {
        "quality": venue_quality(inputs),
        "ages": age_shares(inputs),
        "both_fresh": share_both_fresh(views.over_time.values()),
        "coverage": fee_coverage(inputs.pairs, views.fees, inputs),
        "window_s": (inputs.end - inputs.start).total_seconds(),
    }


def _figures(inputs: ReportInputs, views: Views) -> Mapping[str, Any]:
    """The figures that are not of one pair; None where there is nothing to draw."""
    window = inputs.start, inputs.end
    funnel = inputs.rejections.to_pylist()
    lives = {one.name: one.curve for one in lifetimes(views.all_episodes)}
    latencies = [one for one in by_latency(inputs.execution_backtest) if one.known]
    shares = age_shares(inputs)
    figures: dict[str, Any] = dict.fromkeys(("funnel", "heat", "lives", "backtest", "ages"))
    if funnel:
        figures["funnel"] = drawn("funnel", lambda narrow: funnel_figure(funnel, narrow=narrow))
    if views.heat:
        figures["heat"] = drawn("heat", lambda narrow: heat_figure(views.heat, narrow=narrow))
    if lives:
        figures["lives"] = drawn(
            "lives", lambda narrow: lifetimes_figure(views.all_episodes, lives, window, narrow=narrow)
        )
    if latencies:
        figures["backtest"] = drawn("backtest", lambda narrow: backtest_figure(latencies, narrow=narrow))
    if shares:
        figures["ages"] = drawn("ages", lambda narrow: age_figure(shares, narrow=narrow))
    return figures
