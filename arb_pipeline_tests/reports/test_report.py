import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from arb_pipeline.arbitrage.opportunities import evaluate
from arb_pipeline.arbitrage.pairs import Pair
from arb_pipeline.model import MatchStatus, Relation
from arb_pipeline.reports import ReportFiles, ReportInputs, build_report
from arb_pipeline.tables import table
from arb_pipeline_tests.arbitrage.builders import END, START, Tape, market, pair, quadratic, settings, when

NASTY = 'Will <script>alert("x")</script> & Sons win?'


def match(one: Pair, status: str, relation: str, score: float, vetoes: list[str]) -> dict[str, object]:
    return {
        "kalshi_market_id": one.kalshi.market_id,
        "polymarket_market_id": one.polymarket.market_id,
        "polymarket_yes_index": one.polymarket_yes_index,
        "relation": relation,
        "status": status,
        "score": score,
        "family": "crypto point",
        "vetoes": json.dumps(vetoes),
        "explanation": "{}",
        "kalshi_rules_sha256": "a",
        "polymarket_rules_sha256": "b",
        "matcher_version": "matcher-7",
        "valid_from": START,
        "valid_to": None,
        "known_at": START,
    }


def example() -> ReportInputs:
    """Two pairs: one with paying and doubtful episodes, one whose gap the fees eat; and a refused look-alike."""
    first = pair(
        kalshi=market("kalshi", title="Bitcoin above $120,000 on Friday?", url="https://kalshi.com/m/btc"),
        polymarket=market("polymarket", title=NASTY, url="javascript:alert(1)", outcomes=("Up", "Down")),
    )
    second = pair(
        status=MatchStatus.REVIEW,
        kalshi=market("kalshi", "KXFED-26", title="Fed cuts in December?"),
        polymarket=market("polymarket", "0x" + "f" * 64, title="Fed decision in December: cut"),
    )
    tape = Tape().session("kalshi").session("polymarket").session("polymarket", -20, -5, connection="polymarket-0")
    tape.snapshot("kalshi", 1, [("0.40", "90")], [("0.42", "90"), ("0.44", "300")])
    tape.snapshot("polymarket", 1, [("0.41", "200"), ("0.40", "500")], [("0.55", "90")])
    for step in range(60):
        bid = 41 + (step * 7) % 11
        tape.change("polymarket", 30 + 55 * step, "bid", f"0.{bid}", "120").change(
            "polymarket", 75 + 55 * step, "bid", f"0.{bid}", "0" if bid != 41 else "200"
        )
    tape.gap("kalshi", 900, 1500)
    tape.snapshot("kalshi", 2, [("0.60", "90")], [("0.62", "90")], market_id="KXFED-26")
    tape.snapshot("polymarket", 2, [("0.63", "20")], [("0.65", "90")], market_id="0x" + "f" * 64)
    data = tape.data()
    found = evaluate([first, second], data, START, END, settings(), quadratic)
    matches = [
        match(first, "approved", "equivalent", 8.25, []),
        match(second, "review", "equivalent", 5.5, ["deadline known on one side only"]),
        match(replace(second, kalshi=first.kalshi), "rejected", "different", 4.0, [f"strike differs: {NASTY}"]),
    ]
    return ReportInputs(
        START,
        END,
        found.spreads,
        found.opportunities,
        found.rejections,
        pa.Table.from_pylist(matches, schema=table("market_matches").schema),
        data.book_gaps,
        data.capture_sessions,
        pairs=[first, second],
        fees=quadratic,
        settings=settings(),
        books=lambda *_: data,
        universe={"kalshi": 12_345, "polymarket": 67_890},
        parameters={"Oldest proof of life": "5 s"},
        generated_at=END + timedelta(minutes=3),
    )


class Page(HTMLParser):
    """Collects what the tests ask for, and checks that every element is closed."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += data

    def all(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attrs for name, attrs in self.tags if name == tag)


@pytest.fixture(scope="module")
def inputs() -> ReportInputs:
    return example()


@pytest.fixture(scope="module")
def built(inputs: ReportInputs, tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    return build_report(inputs, tmp_path_factory.mktemp("report") / "new" / "folder")


@pytest.fixture(scope="module")
def html(built: ReportFiles) -> str:
    return built.html.read_text(encoding="utf-8")


def words(html: str) -> str:
    return " ".join(Page(html).text.split())


def test_header_says_what_it_is_about(html: str) -> None:
    text = words(html)
    assert "2026-07-14 15:00:00.000 to 2026-07-14 16:00:00.000 UTC" in text
    assert "displayed depth is not a fill" in text
    for said in ("12,345", "67,890", "matcher-7", "Oldest proof of life", "5 s", "2026-07-14 16:03:00.000"):
        assert said in text
    assert "Not real market data" not in text


def test_local_exchange_is_named_loudly(tmp_path: Path) -> None:
    told = build_report(ReportInputs(START, END, exchange="local-7"), tmp_path).html.read_text(encoding="utf-8")
    assert "Not real market data. Recorded from the local exchange “local-7”" in words(told)
    session = Tape().session("kalshi").data().capture_sessions.to_pylist()[0] | {"exchange": "local-8"}
    sessions = pa.Table.from_pylist([session], schema=table("capture_sessions").schema)
    found = build_report(ReportInputs(START, END, capture_sessions=sessions), tmp_path).html.read_text(encoding="utf-8")
    assert "Recorded from the local exchange “local-8”" in words(found)


def test_rows_of_every_table_are_there(inputs: ReportInputs, html: str) -> None:
    text = words(html)
    best = max((row for row in inputs.opportunities.to_pylist() if row["accepted"]), key=lambda row: row["net"])
    assert best["net"] > 0
    assert f"${best['net']:.2f}" in text or f"${best['net']:.4f}" in text
    for said in (
        "book out of sync: kalshi",
        "fees eat the gap",
        "match not approved: review",
        "KXFED-26",
        "deadline known on one side only",
        "strike differs",
        "crypto point",
        "kalshi-1",
        "seq gap 1",
        "most profitable",
        "top of the books only",
        "buy NO (Down)",
    ):
        assert said in text, said


def test_accepted_before_refused(inputs: ReportInputs, html: str) -> None:
    section = html[html.index('id="opportunities"') : html.index('id="funnel"')]
    verdicts = [bool(accepted) for accepted in re.findall(r'<tr role="row"( class="accepted")?>\n<td', section)]
    count = sum(inputs.opportunities["accepted"].to_pylist())
    assert count > 1
    assert verdicts == [True] * count + [False] * (inputs.opportunities.num_rows - count)


def test_texts_are_escaped_and_nothing_is_loaded(html: str) -> None:
    page = Page(html)
    assert "<script" not in html
    assert NASTY in " ".join(page.text.split())
    assert "javascript:" not in html
    for tag, attrs in page.tags:
        for name in ("src", "srcset", "data", "poster", "action"):
            assert name not in attrs, tag
        target = attrs.get("href") or attrs.get("xlink:href") or ""
        assert tag == "a" or target.startswith(("#", "")), tag
        assert tag in ("a", "svg") or not target.startswith("http"), tag
    links = {str(attrs["href"]) for attrs in page.all("a")}
    assert {link for link in links if not link.startswith("#")} == {"https://kalshi.com/m/btc"}
    assert {link[1:] for link in links if link.startswith("#")} <= {attrs.get("id") for _, attrs in page.tags}
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_tables_are_accessible(html: str) -> None:
    page = Page(html)
    assert next(page.all("html"))["lang"] == "en"
    assert html.count("<table") == html.count("<caption>")
    assert all(attrs.get("scope") == "col" for attrs in page.all("th"))
    labels = [attrs["aria-label"] for tag, attrs in page.tags if attrs.get("role") == "img"]
    assert len(labels) >= 4
    assert all(labels)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_figures_show_lines_and_episodes(html: str) -> None:
    figures = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(figures) == 18, "three of each pair, funnel, heat map and lifetimes; wide and narrow"
    gaps = figures[4]
    longest = max(re.findall(r' d="([^"]*)"', gaps), key=len)
    assert longest.count("L") > 40, "the step line has its steps"
    assert gaps.count("#7cc48f") >= 1, "accepted episodes are shaded"
    assert gaps.count("#d8dce2") >= 1, "refused ones too"
    assert "YES on Kalshi" in gaps


def test_same_inputs_same_bytes_in_any_order(inputs: ReportInputs, built: ReportFiles, tmp_path: Path) -> None:
    later, earlier = inputs.spreads.slice(70), inputs.spreads.slice(0, 70)
    again = build_report(replace(inputs, spreads=pa.concat_tables([later, earlier])), tmp_path)
    assert again.html.read_bytes() == built.html.read_bytes()
    for name, path in again.csv.items():
        assert path.read_bytes() == built.csv[name].read_bytes()


def test_tables_lie_beside_the_page(inputs: ReportInputs, built: ReportFiles) -> None:
    assert pq.read_table(built.parquet["opportunities"]).equals(inputs.opportunities)
    assert pa_csv.read_csv(built.csv["opportunities"]).num_rows == inputs.opportunities.num_rows
    newest = {row["kalshi_market_id"]: row["recv_ns"] for row in inputs.spreads.to_pylist()}
    latest = pq.read_table(built.parquet["spreads_latest"])
    assert dict(zip(*latest.select(["kalshi_market_id", "recv_ns"]).to_pydict().values(), strict=True)) == newest


def test_empty_inputs_make_a_sensible_page(tmp_path: Path) -> None:
    page = build_report(ReportInputs(START, END), tmp_path).html.read_text(encoding="utf-8")
    text = words(page)
    for said in ("No pair showed a gap", "None in this window", "Nothing was evaluated", "No matches", "No connection"):
        assert said in text
    assert "<svg" not in page


def test_only_refused_candidates_are_not_sold_as_opportunities(tmp_path: Path) -> None:
    one = pair(status=MatchStatus.REVIEW)
    tape = Tape().session("kalshi").session("polymarket")
    tape.snapshot("kalshi", 1, [], [("0.42", "9")]).snapshot("polymarket", 1, [("0.55", "9")])
    found = evaluate([one], tape.data(), START, END, settings(), quadratic)
    inputs = ReportInputs(START, END, found.spreads, found.opportunities, found.rejections, pairs=[one])
    text = words(build_report(inputs, tmp_path).html.read_text(encoding="utf-8"))
    assert "Not an opportunity." in text
    assert "was refused: match not approved: review" in text


@pytest.mark.parametrize(
    ("relation", "index", "first", "second"),
    [
        (Relation.EQUIVALENT, 0, "YES", "NO (Bills)"),
        # Kalshi YES equals Bills; the hedge is Chiefs, Polymarket's own YES.
        (Relation.INVERTED, 1, "YES", "YES (Chiefs)"),
        (Relation.POLYMARKET_IMPLIES_KALSHI, 0, "YES", "NO (Bills)"),
        (Relation.POLYMARKET_IMPLIES_KALSHI, 1, "YES", "YES (Chiefs)"),
        (Relation.KALSHI_IMPLIES_POLYMARKET, 1, "NO", "NO (Bills)"),
        # At most one of both holds: NO of both pays at least once.
        (Relation.EXCLUSIVE, 0, "NO", "NO (Bills)"),
        (Relation.EXCLUSIVE, 1, "NO", "YES (Chiefs)"),
    ],
)
def test_the_outcomes_named_are_those_that_are_paid_for(
    tmp_path: Path, relation: Relation, index: int, first: str, second: str
) -> None:
    known = market("kalshi"), market("polymarket", outcomes=("Chiefs", "Bills"))
    one = Pair(*known, relation, MatchStatus.APPROVED, index)
    # Only what is bought is offered: YES by an ask, NO by a bid.
    tape = Tape().session("kalshi").session("polymarket")
    for venue, name, price in (("kalshi", first, "0.42"), ("polymarket", second, "0.45")):
        if name.startswith("YES"):
            tape.snapshot(venue, 1, [], [(price, "9")])
        else:
            tape.snapshot(venue, 1, [(str(1 - Decimal(price)), "9")], [])
    found = evaluate([one], tape.data(), START, END, settings(), quadratic)
    inputs = ReportInputs(START, when(60), found.spreads, found.opportunities, found.rejections, pairs=[one])
    html = build_report(inputs, tmp_path).html.read_text(encoding="utf-8")
    text = words(html)
    assert f"Kalshi: buy {first}, average 0.42, limit 0.42" in text
    assert f"Polymarket: buy {second}, average 0.45, limit 0.45" in text
    said = f"{first} on Kalshi, {second.partition(' ')[0]} on Polymarket"
    starts = [html.index(f'id="{name}"') for name in ("best", "opportunities", "funnel", "pairs", "spreads", "heat")]
    best, opportunities, _, figures, spreads = (html[begin:end] for begin, end in pairwise(starts))
    for section in (best, opportunities, figures):
        assert said in section
    # The head of the table of spreads tells what holds of most pairs; the others say so themselves.
    assert ("prices are those of its NO. A: YES on Kalshi, YES on Polymarket" in spreads) is one.inverted
