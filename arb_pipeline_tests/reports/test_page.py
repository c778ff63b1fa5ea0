"""The page of two hundred pairs: small enough, nothing loaded, nothing blank, at the widths of a desk and a phone."""

import json
import re
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib.image
import msgspec
import numpy as np
import pyarrow as pa
import pytest

from arb_pipeline.arbitrage.opportunities import evaluate
from arb_pipeline.arbitrage.pairs import Pair
from arb_pipeline.model import MatchStatus
from arb_pipeline.reports import ReportFiles, ReportInputs, build_report
from arb_pipeline.reports.inputs import QUOTE_QUALITY
from arb_pipeline.reports.views import MOST_ACCEPTED, MOST_REFUSED
from arb_pipeline.tables import table
from arb_pipeline_tests.arbitrage.builders import END, START, Tape, market, pair, quadratic, settings, when
from arb_pipeline_tests.reports.lakes import match_row
from arb_pipeline_tests.reports.test_review import _artifact, _browser

PAIRS = 200
LIMIT = 3_000_000
SECTIONS = (
    "best",
    "opportunities",
    "funnel",
    "pairs",
    "spreads",
    "heat",
    "lifetimes",
    "outcomes",
    "execution",
    "realised",
    "matches",
    "quality",
)
MARKS = """
() => Object.fromEntries([...document.querySelectorAll('figure')].map(figure => {
  const drawn = [...figure.querySelectorAll('svg')].find(one => one.getBoundingClientRect().width > 0);
  const coloured = [...drawn.querySelectorAll('path, use')].filter(one => {
    const box = one.getBoundingClientRect(), style = getComputedStyle(one);
    const inks = [style.fill, style.stroke].map(ink => (ink.match(/[0-9.]+/g) || [0, 0, 0]).slice(0, 3).map(Number));
    return Math.max(box.width, box.height) > 3 && inks.some(ink => Math.max(...ink) - Math.min(...ink) > 40);
  });
  const box = drawn.getBoundingClientRect();
  return [figure.id, {width: box.width, height: box.height, coloured: coloured.length}];
}))
"""
"""Of every figure shown: its size on the screen, and how many coloured marks it has beside its grey axes."""
RULES = "If the price of the thing is above {number},000 on Dec 31, 2026, the market resolves to Yes. " * 25


def numbered(number: int) -> Pair:
    return pair(
        status=MatchStatus.APPROVED if number % 4 else MatchStatus.REVIEW,
        void_states={} if number % 3 else None,
        kalshi=market(
            "kalshi",
            f"KXTHING-26DEC31-T{number:04d}",
            event_id=f"KXTHING-{number // 10}",
            title=f"Will the price of the thing be above {number},000 on Dec 31, 2026 at 5pm EST?",
            url=f"https://kalshi.com/markets/kxthing/{number}",
            rules=RULES.format(number=number),
        ),
        polymarket=market(
            "polymarket",
            f"0x{number:064x}",
            event_id=f"{number // 10}",
            title=f"On December 31, 2026, will the thing trade above ${number},000?",
            url=f"https://polymarket.com/event/thing/{number}",
            rules=RULES.format(number=number + 1),
        ),
    )


def explanation() -> str:
    side = {"value": "120,000", "source": "title", "text": "above 120,000"}
    slot = {"slot": "strike", "kalshi": side, "polymarket": side, "result": "equal", "weight": 4.0}
    return json.dumps({"slots": [slot] * 8, "terms": [], "caveats": ["source: not compared"], "void_states": {}})


def play(pairs: list[Pair]) -> Tape:
    tape = Tape().session("kalshi").session("polymarket", end=3_500)
    for number, one in enumerate(pairs):
        kalshi, polymarket = one.key
        tape.snapshot("kalshi", 1, [("0.38", "90")], [("0.42", "90"), ("0.45", "300")], market_id=kalshi)
        tape.snapshot("polymarket", 1, [("0.41", "200")], [("0.55", "90")], market_id=polymarket)
        for step in range(40 if number < 5 else 4):
            bid = f"0.{44 + (step * 7 + number) % 9}"
            tape.change("polymarket", 30 + 60 * step + number, "bid", bid, "120", market_id=polymarket)
            tape.change("polymarket", 55 + 60 * step + number, "bid", bid, "0", market_id=polymarket)
        if number % 50 == 0:
            tape.gap("kalshi", 3_000, 3_100, market_id=kalshi)
    return tape


def rows(name: str, told: list[dict[str, Any]]) -> pa.Table:
    """Rows of a table; texts that have to be there and are not told are empty."""
    texts = {column.name: "" for column in table(name).columns if not column.nullable and column.type == pa.string()}
    return pa.Table.from_pylist([{**texts, **row} for row in told], schema=table(name).schema)


def settled(one: Pair, number: int) -> dict[str, Any]:
    result = "yes" if number % 2 else "no"
    return {
        "kalshi_market_id": one.kalshi.market_id,
        "polymarket_market_id": one.polymarket.market_id,
        "polymarket_yes_index": 0,
        "relation": "equivalent",
        "status": "approved",
        "accepted": True,
        "family": "crypto_point",
        "kalshi_result": result,
        "polymarket_result": result if number else "0.5",
        "verdict": "agreed" if number else "void_split",
        "difference": Decimal(0),
        "known_at": END,
    }


def outcome_set(number: int) -> dict[str, Any]:
    return {
        "venue": "kalshi",
        "event_id": f"KXTHING-{number}",
        "title": f"Which price will the thing have? ({number})",
        "outcomes": 10,
        "market_ids": json.dumps([f"KXTHING-26DEC31-T{10 * number + place:04d}" for place in range(10)]),
        "exclusive": True,
        "exhaustive": number % 2 == 0,
        "why": "the brackets leave no gap" if number % 2 == 0 else "nothing says that one of them has to happen",
        "partner_event_id": f"{number}",
        "paired": 10,
        "known_at": START,
    }


def basket(number: int) -> dict[str, Any]:
    leg = {"venue": "kalshi", "market_id": f"KXTHING-26DEC31-T{number:04d}", "outcome": "yes"}
    money = {name: Decimal("1.5") for name in ("gross", "fees", "net", "capital", "peak_edge", "time_weighted_edge")}
    return {
        "kind": "yes_basket",
        "event_id": f"KXTHING-{number}",
        "venue": "kalshi",
        "legs": json.dumps([{**leg, "size": "10", "vwap": "0.09", "limit": "0.10", "fee": "0.01"}] * 10),
        "payout": Decimal(1),
        "size": Decimal(10),
        **money,
        "roi": 0.015,
        "days": 40.0,
        "annualised": 0.14,
        "worst_state_net": None,
        "opened_at": when(100 + number),
        "closed_at": None,
        "best_at": when(101 + number),
        "accepted": number % 2 == 0,
        "reasons": "[]" if number % 2 == 0 else '["not_exhaustive"]',
    }


def orders(opportunities: pa.Table) -> pa.Table:
    told = []
    for row in opportunities.filter(opportunities["accepted"]).slice(0, 40).to_pylist():
        key = {name: row[name] for name in ("kalshi_market_id", "polymarket_market_id", "direction", "opened_at")}
        for latency in (0, 100, 1_000):
            matched = row["size"] if latency < 1_000 else row["size"] / 2
            money = {"cost": Decimal(1), "fees": Decimal(1), "unwound": Decimal(0), "net": row["net"] - latency // 200}
            told.append(
                {**key, "latency_ms": latency, "size": row["size"], "matched": matched, "fill_rate": 0.5, **money}
            )
    return rows("execution_backtest", told)


def tops(pairs: list[Pair], data: Any) -> pa.Table:
    newest: dict[str, dict[str, Any]] = {}
    for row in data.quotes.to_pylist():
        newest[row["market_id"]] = row
    return rows("quotes", [newest[name] for one in pairs for name in one.key])


def basis_rows(pairs: list[Pair]) -> pa.Table:
    told = [
        {
            "kalshi_market_id": one.kalshi.market_id,
            "polymarket_market_id": one.polymarket.market_id,
            "start_at": START,
            "known_ns": 10**12,
            "basis_mean": -0.021,
            "gap_mean": 0.004,
            "break_even_mean": 0.017,
            "paying_share": 0.25,
            "lead_ms": 120.0,
            "kalshi_moves": 10,
            "polymarket_moves": 10,
        }
        for one in pairs
    ]
    return rows("basis", told)


@pytest.fixture(scope="module")
def inputs() -> ReportInputs:
    pairs = [numbered(number) for number in range(PAIRS)]
    data = play(pairs).data()
    found = evaluate(pairs, data, START, END, settings(), quadratic)
    matches = [
        match_row(
            one, family="crypto_point", explanation=explanation(), valid_from=START, valid_to=None, known_at=START
        )
        for one in pairs
    ]
    alike = [
        {
            **matches[number],
            "status": "rejected",
            "kalshi_market_id": f"KXOTHER-{number}",
            "vetoes": '["strike differs"]',
        }
        for number in range(PAIRS)
    ]
    quality = {"source": "ws", "rows": 4_000, "markets": PAIRS, "crossed": 2, "out_of_sync": 7}
    ages = {f"age_{number}_s": 100.0 * (number + 1) for number in range(5)}
    return ReportInputs(
        START,
        END,
        found.spreads,
        found.opportunities,
        found.rejections,
        rows("market_matches", [*matches, *alike]),
        data.book_gaps,
        data.capture_sessions,
        execution_backtest=orders(found.opportunities),
        basis=basis_rows(pairs),
        outcome_sets=rows("outcome_sets", [outcome_set(number) for number in range(20)]),
        basket_opportunities=rows("basket_opportunities", [basket(number) for number in range(20)]),
        settlement_agreement=rows(
            "settlement_agreement", [settled(one, number) for number, one in enumerate(pairs[:4])]
        ),
        tops=tops(pairs, data),
        settled=found.opportunities,
        quote_quality=pa.Table.from_pylist(
            [{"venue": venue, **quality, **ages} for venue in ("kalshi", "polymarket")], schema=QUOTE_QUALITY
        ),
        pairs=pairs,
        fees=quadratic,
        settings=settings(),
        books=lambda *_: data,
        categories={one.kalshi.market_id: "Crypto" if number % 2 else "Sports" for number, one in enumerate(pairs)},
        universe={"kalshi": 12_345, "polymarket": 67_890},
        generated_at=END,
    )


@pytest.fixture(scope="module")
def built(inputs: ReportInputs, tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    return build_report(inputs, tmp_path_factory.mktemp("page"))


def test_two_hundred_pairs_stay_under_three_megabytes(built: ReportFiles, inputs: ReportInputs) -> None:
    assert inputs.opportunities.num_rows > PAIRS
    assert built.html.stat().st_size < LIMIT


def test_every_figure_says_where_it_comes_from(built: ReportFiles) -> None:
    page = built.html.read_text(encoding="utf-8")
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert len(captions) == page.count("<figure ") == page.count("<svg") // 2 == 14
    for caption in captions:
        for said in ("2026-07-14 15:00:00", "12,345 Kalshi", "200 pairs", "fees: test", "matcher: matcher-7", "fill"):
            assert said in caption


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_shows_its_tables_and_plots(built: ReportFiles, inputs: ReportInputs, width: int) -> None:
    with _browser(width) as (shown, requests):
        shown.goto(built.html.as_uri())
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        for section in SECTIONS:
            assert shown.locator(f"section[aria-labelledby={section}]").bounding_box()["width"] > 300
        accepted = sum(inputs.opportunities["accepted"].to_pylist())
        assert accepted > 100
        found = shown.locator("section[aria-labelledby=opportunities] tbody > tr")
        assert found.count() == min(accepted, MOST_ACCEPTED) + min(
            inputs.opportunities.num_rows - accepted, MOST_REFUSED
        )
        for section, count in (("spreads", PAIRS), ("realised", None), ("execution", 3), ("outcomes", 40)):
            told = shown.locator(f"section[aria-labelledby={section}] tbody > tr").count()
            assert told == count if count is not None else told > 0, section
        shown.locator("section[aria-labelledby=opportunities] details > summary").first.click()
        assert shown.locator("section[aria-labelledby=opportunities] details dl").first.is_visible()
        figures = shown.locator("figure .figure:visible svg")
        assert figures.count() == 14
        for name, told in shown.evaluate(MARKS).items():
            assert told["width"] > min(width, 1_280) * 0.7, name
            assert told["height"] > 80, name
            assert told["coloured"] > 0, name
        for name in ("funnel", "prices0", "curve1", "heat", "lives"):
            picture = shown.locator(f"#figure-{name} .figure:visible svg").screenshot()
            pixels = matplotlib.image.imread(BytesIO(picture))[:, :, :3]
            assert (np.ptp(pixels, axis=2) > 0.15).mean() > 0.001, name
        shown.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        shown.evaluate("document.querySelectorAll('details').forEach(one => one.open = false)")
        shown.locator("#pairs").scroll_into_view_if_needed()
        shown.screenshot(path=_artifact(f"report-{width}.png"))
        assert requests == [built.html.as_uri()]


def test_empty_sections_say_so(tmp_path: Path) -> None:
    page = build_report(ReportInputs(START, START + timedelta(hours=1)), tmp_path).html.read_text(encoding="utf-8")
    for said in (
        "None: no pair that counts as arbitrage had two trusted books",
        "None: there was no episode",
        "None: no event of several outcomes is known",
        "No episode of a basket",
        "None: no episode was accepted",
        "None: no accepted opportunity is of a pair that is settled",
        "Precision: none",
        "Agreement at settlement: none",
    ):
        assert said in page, said
    assert "<figure" not in page


def test_changed_rules_and_suspected_inversions_stand_out(tmp_path: Path) -> None:
    one = numbered(1)
    known = msgspec.structs.replace(one.kalshi, rules_sha256="today")
    told = match_row(one, kalshi_rules_sha256="yesterday", explanation=json.dumps({"alarms": ["prices look inverted"]}))
    told |= {"valid_from": START, "valid_to": None, "known_at": START, "polymarket_rules_sha256": "x"}
    polymarket = msgspec.structs.replace(one.polymarket, rules_sha256="x")
    inputs = ReportInputs(
        START,
        END,
        matches=rows("market_matches", [told]),
        pairs=[replace(one, kalshi=known, polymarket=polymarket)],
    )
    page = build_report(inputs, tmp_path).html.read_text(encoding="utf-8")
    assert "prices look inverted" in page
    assert "the rules on Kalshi have changed since" in page
