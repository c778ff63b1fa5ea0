"""The review page, as text and in a browser."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from arb_pipeline.matching.overrides import Decision, Overrides
from arb_pipeline.matching.review import Case, RulesChange, cases
from arb_pipeline.model import Market
from arb_pipeline.reports.review import MOST_CASES, ReviewInputs, build_review, commands, funnel_rows, matches_png
from arb_pipeline.tables import table
from arb_pipeline_tests.matching.build import market

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOSTILE = "</script><img src=x onerror=alert(1)>"
RULES = (
    "If the upper bound of the federal funds target range is above 4.25% following the July meeting, resolves to Yes.",
    f"This market resolves to Yes if the upper bound is above 4.50% after the July meeting. {HOSTILE} " + "word " * 300,
)
TOLD = {
    "slots": [
        {"slot": "interval", "kalshi": {"value": "(4.25, inf) %", "source": "title", "text": ""},
         "polymarket": {"value": "(4.5, inf) %", "source": "rules", "text": ""}, "result": "veto", "weight": -9.0,
         "reason": "4.25 against 4.5"},
        {"slot": "meeting", "kalshi": {"value": "2026 7", "source": "title", "text": ""}, "polymarket": None,
         "result": "unknown", "weight": 0.0},
        {"slot": "topic", "kalshi": None, "polymarket": None, "result": "equal", "weight": 3.0},
    ],
    "terms": [{"field": "source", "kalshi": "the Fed", "polymarket": "", "result": "unknown"}],
    "open": ["interval: not known to be equal"],
    "void_states": {"cancelled": {"kalshi": "0.5", "polymarket": "0"}},
    "rivals": [{"kalshi": "KXFED-26JUL-T4.50", "polymarket": "0xfed1", "score": 4.5}],
    "margin": 2.25,
}  # fmt: skip


def _row(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "kalshi_market_id": f"KXFED-26JUL-T{number}",
        "polymarket_market_id": f"0x{number:064x}",
        "polymarket_yes_index": 0,
        "relation": "equivalent",
        "status": "review",
        "score": 7.25,
        "family": "fed_decision",
        "vetoes": "[]",
        "explanation": json.dumps(TOLD),
        "kalshi_rules_sha256": "",
        "polymarket_rules_sha256": "",
        "matcher_version": "1",
        "valid_from": AT,
        "valid_to": None,
        "known_at": AT,
    } | changes


def _cases(count: int, *decisions: Decision) -> list[Case]:
    rows = [_row(number) for number in range(1, count + 1)]
    markets: dict[tuple[str, str], Market] = {}
    for row in rows:
        kalshi, polymarket = row["kalshi_market_id"], row["polymarket_market_id"]
        title = f"Fed above {kalshi[-1]}?"
        url = "https://kalshi.com/markets/kxfed"
        markets["kalshi", kalshi] = market("kalshi", kalshi, title, rules=RULES[0], url=url, close_at=AT)
        markets["polymarket", polymarket] = market(
            "polymarket", polymarket, f"{title} {HOSTILE}", rules=RULES[1], url="javascript:alert(1)"
        )
    return cases(rows, markets, Overrides(decisions))


def _matches() -> pa.Table:
    rows = [_row(1), _row(2, status="approved"), _row(3, relation="different", status="rejected")]
    return pa.Table.from_pylist(rows, table("market_matches").schema)


FELL = Decision.model_validate(
    {
        "kalshi": "KXFED-26JUL-T1",
        "polymarket": {"condition_id": f"0x{1:064x}"},
        "verdict": "equivalent",
        "rules_sha256": {"kalshi": "a" * 64, "polymarket": "b" * 64},
        "by": "ann",
        "at": AT,
        "why": "read both",
    }
)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    found = _cases(3, FELL)
    changes = [
        RulesChange("kalshi", RULES[0].replace("4.25", "4.24"), RULES[0], AT),
        RulesChange("polymarket", None, RULES[1], None),
    ]
    inputs = ReviewInputs(
        found,
        _matches(),
        changes={found[0].pair: changes},
        options=("--lake", "/tmp/a lake"),
        exchange="local exchange (generated, seed 7)",
        generated_at=AT,
    )
    return build_review(inputs, tmp_path / "made" / "review.html")


class _Page(HTMLParser):
    """Elements that load something, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in {"src", "srcset", "action", "poster"} or (name == "href" and tag == "link"):
                self.loads.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_else_and_runs_nothing(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    parsed = _Page(html)
    assert parsed.loads == []
    assert not {"script", "iframe", "object", "img"} & set(parsed.tags)
    assert "url(" not in html
    assert "@import" not in html
    assert 'href="javascript' not in html
    assert HOSTILE in parsed.text


def test_both_texts_stand_in_full_with_their_differences_marked(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    text = _Page(html).text
    assert text.count(RULES[0]) >= 3
    assert text.count(RULES[1]) >= 3
    assert '<mark class="figure">4.25</mark>' in html
    assert '<mark class="figure">4.50</mark>' in html


def test_why_it_waits_and_what_was_compared_is_told(page: Path) -> None:
    text = re.sub(r"\s+", " ", _Page(page.read_text(encoding="utf-8")).text)
    for words in (
        "3 pairs wait for a person, as of 2026-06-01 12:00 UTC",
        "local exchange (generated, seed 7)",
        "1 equivalent, approved",
        "interval: not known to be equal",
        "4.25 against 4.5",
        "cancelled: Kalshi $0.5, Polymarket $0",
        "ahead of the best one by 2.25",
        "KXFED-26JUL-T4.50 with 0xfed1, score 4.5",
        "equivalent, by ann on 2026-06-01: read both",
        "Kalshi's rules have changed since; today's text was first seen on 2026-06-01 12:00 UTC",
        "The text that was read is in no catalogue that the lake keeps.",
    ):
        assert words in text, words


def test_the_commands_are_whole(page: Path) -> None:
    text = _Page(page.read_text(encoding="utf-8")).text
    pair = f"KXFED-26JUL-T2/0x{2:064x}"
    assert f"""arb review approve {pair} --lake '/tmp/a lake' --reason "…\"""" in text
    assert f"""arb review reject {pair} --lake '/tmp/a lake' --reason "…\"""" in text
    (case,) = _cases(1)
    related = replace(case, row=_row(1, relation="related"))
    assert "--relation RELATION" in commands(related)["approve"]


def test_the_same_queue_gives_the_same_bytes_and_a_long_one_is_cut(tmp_path: Path) -> None:
    inputs = ReviewInputs(_cases(MOST_CASES + 5), _matches())
    first, second = (build_review(inputs, tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second
    assert first.count(b'<details class="case"') == MOST_CASES
    assert f"The first {MOST_CASES} of {MOST_CASES + 5}".encode() in first


def test_an_empty_queue_says_so(tmp_path: Path) -> None:
    page = build_review(ReviewInputs((), table("market_matches").schema.empty_table()), tmp_path / "review.html")
    assert "Nothing waits for a person" in page.read_text(encoding="utf-8")


def test_the_funnel_counts_by_relation_and_status() -> None:
    assert [(row["relation"], row["status"], row["pairs"]) for row in funnel_rows(_matches())] == [
        ("equivalent", "review", 1),
        ("equivalent", "approved", 1),
        ("different", "rejected", 1),
    ]


@pytest.mark.parametrize("matches", [_matches(), _matches().slice(0, 0)])
def test_the_picture_is_small(matches: pa.Table) -> None:
    made = matches_png(matches)
    assert len(made) < 100_000
    assert made.startswith(b"\x89PNG")
    assert int.from_bytes(made[16:20]) > 600


@pytest.mark.browser
@pytest.mark.parametrize("width", [1400, 390])
def test_the_page_reads_on_a_desk_and_on_a_telephone(page: Path, width: int) -> None:
    with _browser(width) as (shown, requests):
        shown.goto(page.as_uri())
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        first = shown.locator("#case-1")
        left, right = (first.locator("> .body > .sides > .side").nth(place).bounding_box() for place in (0, 1))
        if width > 1000:
            assert left["y"] == right["y"]
            assert right["x"] > left["x"] + 400
        else:
            assert left["x"] == right["x"]
            assert right["y"] > left["y"]
        assert first.locator("mark.figure", has_text="4.25").first.is_visible()
        assert first.locator("tr.differs").first.is_visible()
        assert first.locator(".before mark", has_text="24").is_visible()
        assert first.locator("pre.approve").inner_text().startswith("arb review approve KXFED-26JUL-T1/0x")
        shown.locator("#case-2 > summary").click()
        assert not shown.locator("#case-2 .body").is_visible()
        shown.screenshot(path=_artifact(f"review-{width}.png"), full_page=True)
        assert requests == [page.as_uri()]


def _artifact(name: str) -> Path:
    folder = Path(os.environ.get("ARB_ARTIFACTS") or Path(__file__).parents[2] / "artifacts")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


@contextmanager
def _browser(width: int) -> Iterator[tuple[Any, list[str]]]:
    from playwright.sync_api import sync_playwright

    executable = os.environ.get("ARB_CHROMIUM") or "/usr/bin/chromium"
    if not Path(executable).exists():
        reason = f"no Chromium at {executable}: install it, or set ARB_CHROMIUM"
        if os.environ.get("ARB_REQUIRE_SHARED"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        try:
            shown = browser.new_page(viewport={"width": width, "height": 1000})
            requests: list[str] = []
            shown.on("request", lambda request: requests.append(request.url))
            yield shown, requests
        finally:
            browser.close()
