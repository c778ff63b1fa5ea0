"""The review page: what waits for a person, both rules side by side, and the command that decides."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from arb_pipeline.matching.overrides import Verdict
from arb_pipeline.matching.review import Case, RulesChange, Span, changed_text, compare_texts, full_title
from arb_pipeline.model import Market, MatchStatus, Relation
from arb_pipeline.reports import text
from arb_pipeline.reports.figures import styled

__all__ = ["MOST_CASES", "ReviewInputs", "build_review", "commands", "funnel_rows", "matches_png"]

MOST_CASES = 100
"""Cases shown in full; ``match_review`` holds all."""

_OPEN_CASES = 10
_STATUS_COLOURS = {
    MatchStatus.APPROVED: "#1b6b38",
    MatchStatus.AUTO: "#7cc48f",
    MatchStatus.REVIEW: "#e0a64b",
    MatchStatus.REFUSED: "#b5544a",
    MatchStatus.REJECTED: "#c9cfd6",
    MatchStatus.EXPIRED: "#8fa3b8",
}


@dataclass(frozen=True)
class ReviewInputs:
    """What the page is made of.

    Attributes:
        waiting: the queue, what is worth looking at first.
        matches: rows of ``market_matches`` that hold now; counted only.
        changes: of re-opened pairs, what became of their rules.
        options: options that every command needs, such as the lake.
        matches_path: the file that decisions go to.
        exchange: the local exchange's name if the data comes from one.
        generated_at: stated if given; nothing else in the page depends on when it was made.
    """

    waiting: Sequence[Case]
    matches: pa.Table
    changes: Mapping[tuple[str, str], Sequence[RulesChange]] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    matches_path: Path = Path("matches.yaml")
    exchange: str = ""
    generated_at: datetime | None = None


@dataclass(frozen=True)
class _Side:
    """One market of a case as the page shows it."""

    venue: str
    market: Market
    spans: Sequence[Span]

    @property
    def title(self) -> str:
        return full_title(self.market)

    @property
    def url(self) -> str:
        return self.market.url if self.market.url.startswith(("https://", "http://")) else ""


@dataclass(frozen=True)
class _Entry:
    """A case with its place and its texts compared."""

    rank: int
    case: Case
    sides: tuple[_Side, _Side]
    changes: Sequence[Mapping[str, Any]]
    commands: Mapping[str, str]

    @property
    def is_open(self) -> bool:
        return self.rank <= _OPEN_CASES


def build_review(inputs: ReviewInputs, path: Path) -> Path:
    """Write the page, one file that needs nothing else. The same inputs give the same bytes."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("arb_pipeline.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": text.count, "words": lambda name: name.replace("_", " ")}
    entries = [_entry(rank, case, inputs) for rank, case in enumerate(inputs.waiting[:MOST_CASES], 1)]
    page = environment.get_template("review.html.j2").render(
        inputs=inputs, entries=entries, funnel=funnel_rows(inputs.matches), dash=text.DASH
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def commands(case: Case, options: Sequence[str] = ()) -> dict[str, str]:
    """The commands that approve and reject a case, to be completed by a reason."""
    approve = ["approve", case.name, *options]
    if case.relation not in list(Verdict):
        approve += ["--relation", "RELATION"]
    reason = '--reason "…"'
    return {
        "approve": f"arb review {shlex.join(approve)} {reason}",
        "reject": f"arb review {shlex.join(['reject', case.name, *options])} {reason}",
    }


def funnel_rows(matches: pa.Table) -> list[dict[str, Any]]:
    """Pairs by relation and status, the closest relation first, of those that occur."""
    counted = Counter(zip(matches["relation"].to_pylist(), matches["status"].to_pylist(), strict=True))
    return [
        {"relation": relation.value, "status": status.value, "pairs": counted[relation, status]}
        for relation in Relation
        for status in MatchStatus
        if counted[relation, status]
    ]


def matches_png(matches: pa.Table) -> bytes:
    """Pairs by relation and status as a PNG of less than 100 kB."""
    figure = _matches_figure(funnel_rows(matches))
    buffer = BytesIO()
    with styled():
        figure.savefig(buffer, format="png", dpi=80, metadata={"Software": None})
    return buffer.getvalue()


def _matches_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    with styled():
        figure = Figure(figsize=(10.4, 3.2), layout="constrained")
        axis: Axes = figure.subplots()
        relations = list(dict.fromkeys(row["relation"] for row in rows))
        reached = dict.fromkeys(relations, 0)
        for status, colour in _STATUS_COLOURS.items():
            mine = [row for row in rows if row["status"] == status]
            places = [relations.index(row["relation"]) for row in mine]
            widths = [row["pairs"] for row in mine]
            bars = axis.barh(places, widths, left=[reached[row["relation"]] for row in mine], color=colour)
            if mine:
                bars.set_label(f"{status.value} ({sum(widths):,})")
            for row in mine:
                reached[row["relation"]] += row["pairs"]
        axis.set_yticks(range(len(relations)), [name.replace("_", " ") for name in relations])
        axis.invert_yaxis()
        axis.grid(visible=False, axis="y")
        # Look-alikes that were ruled out outnumber what matters a hundredfold.
        axis.set_xscale("symlog", linthresh=10)
        axis.set_xlabel("pairs (logarithmic beyond 10)")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda pairs, _place: f"{pairs:,.0f}"))
        if rows:
            axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=6, fontsize=8, frameon=False)
        return figure


def _entry(rank: int, case: Case, inputs: ReviewInputs) -> _Entry:
    kalshi, polymarket = compare_texts(case.kalshi.rules, case.polymarket.rules)
    sides = _Side("Kalshi", case.kalshi, kalshi), _Side("Polymarket", case.polymarket, polymarket)
    changes = [_change(change) for change in inputs.changes.get(case.pair, ())]
    return _Entry(rank, case, sides, changes, commands(case, inputs.options))


def _change(change: RulesChange) -> dict[str, Any]:
    before, after = changed_text(change.before or "", change.after) if change.before is not None else ([], [])
    return {
        "venue": change.venue.capitalize(),
        "known": change.before is not None,
        "before": before,
        "after": after,
        "changed_at": change.changed_at,
    }
