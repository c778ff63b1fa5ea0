"""``arb review``: commands that machines can run, and the dialogue in a terminal."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from arb_pipeline.cli import app
from arb_pipeline.errors import ArbError
from arb_pipeline.matching.overrides import Overrides, Verdict, load_overrides
from arb_pipeline.matching.review import Case, RulesChange, cases, decide, queue
from arb_pipeline.model import Market, rules_digest
from arb_pipeline.reviewing import case_view, review_queue
from arb_pipeline.storage.catalogue import write_catalogue
from arb_pipeline.storage.lake import Lake
from arb_pipeline_tests.matching.build import event

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
STATES = ("Ohio", "Iowa")
runner = CliRunner()


def _rules(state: str, words: str) -> str:
    return f"If Jane Doe wins the {state} primary by June 30, 2026, {words} resolves to Yes. The source is {words}."


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """Two races on both venues."""
    monkeypatch.chdir(tmp_path)
    made = Lake(str(tmp_path / "lake"))
    for venue, words in (("kalshi", "the market"), ("polymarket", "this contract")):
        listed = []
        for number, state in enumerate(STATES):
            rules = _rules(state, words)
            market_id = f"KXPRIMARY-{state.upper()}" if venue == "kalshi" else f"0xabc{number}"
            title = f"Will Jane Doe win the {state} primary by June 30, 2026?"
            listed.append(event(venue, market_id, title, rules=rules, rules_sha256=rules_digest(rules)))
        write_catalogue(made, venue, listed, AT)
    return made


def arb(*arguments: str, **extra: Any) -> Result:
    return runner.invoke(app, arguments, catch_exceptions=False, **extra)


@pytest.fixture
def matched(lake: Lake) -> list[dict[str, Any]]:
    done = arb("match")
    assert done.exit_code == 0
    assert "Since the last run:" in done.stdout
    return queued()


def queued() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(arb("review", "list", "--json").stdout)
    return found


def test_the_queue_is_listed_for_machines_and_people(matched: list[dict[str, Any]]) -> None:
    assert [one["rank"] for one in matched] == [1, 2]
    assert {one["pair"] for one in matched} == {"KXPRIMARY-OHIO/0xabc0", "KXPRIMARY-IOWA/0xabc1"}
    assert all(one["relation"] == "equivalent" and one["reasons"] for one in matched)
    listed = arb("review").stdout
    assert "Waiting for a person (2)" in listed
    assert "KXPRIMARY-OHIO" in listed
    assert json.loads(arb("review", "--json").stdout) == matched


def test_a_pair_is_shown_with_both_rules(matched: list[dict[str, Any]]) -> None:
    shown = re.sub(r"[\s│]+", " ", arb("review", "show", "KXPRIMARY-OHIO").stdout)
    for words in ("Kalshi", "KXPRIMARY-OHIO", "this contract", "Polymarket", "Compared", "deadline"):
        assert words in shown
    document = json.loads(arb("review", "show", "0xabc1", "--json").stdout)
    assert document["kalshi"]["rules"] == _rules("Iowa", "the market")
    assert document["explanation"]["slots"]


def test_decisions_are_written_and_applied_by_the_next_run(matched: list[dict[str, Any]]) -> None:
    done = arb("review", "approve", "KXPRIMARY-OHIO/0xabc0", "--reason", "same race", "--author", "ann")
    assert done.exit_code == 0
    assert "KXPRIMARY-OHIO with 0xabc0 (equivalent, by ann)" in done.stdout
    assert [one["pair"] for one in queued()] == ["KXPRIMARY-IOWA/0xabc1"]
    assert arb("review", "reject", "1", "--reason", "another race").exit_code == 0
    assert queued() == []
    assert "Nothing waits" in arb("review").stdout
    statuses = {row["kalshi_market_id"]: row["status"] for row in json.loads(arb("match", "--json").stdout)
                if row["status"] in {"approved", "refused"}}  # fmt: skip
    assert statuses == {"KXPRIMARY-OHIO": "approved", "KXPRIMARY-IOWA": "refused"}
    first, second = load_overrides(Path("matches.yaml"))
    assert (first.by, first.why, second.verdict) == ("ann", "same race", Verdict.REJECTED)
    assert second.by


def test_another_relation_and_a_pair_nobody_proposed_can_be_approved(matched: list[dict[str, Any]]) -> None:
    pair = "KXPRIMARY-OHIO/0xabc1"
    arb("review", "approve", pair, "--relation", "exclusive", "--reason", "one nominee alone")
    (decision,) = load_overrides(Path("matches.yaml"))
    assert (decision.verdict, decision.pair) == (Verdict.EXCLUSIVE, ("KXPRIMARY-OHIO", "0xabc1"))
    with pytest.raises(ArbError, match="--overrule replaces that"):
        arb("review", "reject", pair, "--reason", "no")
    arb("review", "reject", pair, "--reason", "no", "--overrule")
    (decision,) = load_overrides(Path("matches.yaml"))
    assert decision.verdict is Verdict.REJECTED
    with pytest.raises(ArbError, match="--relation 'same' cannot be approved: give one of equivalent"):
        arb("review", "approve", pair, "--relation", "same", "--reason", "x")


def test_the_page_is_written(lake: Lake, matched: list[dict[str, Any]]) -> None:
    arb("review", "page", "out/review.html")
    page = Path("out/review.html").read_text(encoding="utf-8")
    assert f"arb review approve KXPRIMARY-OHIO/0xabc0 --lake {lake.root} --reason" in page


def test_a_measurement_is_printed_with_what_was_missed(tmp_path: Path) -> None:
    titles = (
        "Will Jane Doe win the Ohio primary by June 30, 2026?",
        "Will Jane Doe win the Iowa primary by June 30, 2026?",
    )
    labelled = [
        {"id": f"p{number}", "label": "equivalent", "kalshi": {"ticker": f"K{number}", "title": titles[0]},
         "polymarket": {"id": f"0x{number}", "question": title}}
        for number, title in enumerate(titles)
    ]  # fmt: skip
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(map(json.dumps, labelled)), encoding="utf-8")
    shown = arb("match", "evaluate", str(path)).stdout
    assert "overall" in shown
    assert "p1: labelled equivalent, called" in shown
    assert set(json.loads(arb("match", "evaluate", str(path), "--json").stdout)) >= {"overall", "families", "pairs"}


# --- the dialogue -------------------------------------------------------------------------------------------


@pytest.fixture
def waiting(lake: Lake, matched: list[dict[str, Any]]) -> list[Case]:
    from arb_pipeline.storage.catalogue import read_markets

    markets: dict[tuple[str, str], Market] = {(one.venue, one.market_id): one for one in read_markets(lake)}
    return queue(cases(_rows(lake), markets, Overrides()))


def _rows(lake: Lake) -> list[dict[str, Any]]:
    from arb_pipeline.matching.versions import current_matches

    rows: list[dict[str, Any]] = current_matches(lake).to_pylist()
    return rows


def _dialogue(waiting: list[Case], answers: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    given: Iterator[str] = iter(answers)

    def prompt(*_arguments: object, **_options: object) -> str:
        try:
            return next(given)
        except StopIteration:
            raise typer.Abort from None

    monkeypatch.setattr(typer, "prompt", prompt)
    console = Console(file=StringIO(), width=160)
    decided = review_queue(
        waiting,
        console,
        lambda case, verdict, reason: decide(Path("matches.yaml"), case, verdict, reason=reason, author="ann", at=AT),
        lambda _case: (),
    )
    assert isinstance(console.file, StringIO)
    return decided, console.file.getvalue()


@pytest.mark.parametrize(
    ("answers", "written"),
    [
        (["a", "same", "r", "other"], ["equivalent", "rejected"]),
        (["s", "o", "exclusive", "one alone"], ["exclusive"]),
        (["q"], []),
        (["x", "a", "same"], ["equivalent"]),
        (["a", " ", "a", "same", "q"], ["equivalent"]),
        (["o", "nonsense", "r", "other", "q"], ["rejected"]),
        ([], []),
    ],
)
def test_the_dialogue_decides_what_it_is_told(
    waiting: list[Case], answers: list[str], written: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    decided, shown = _dialogue(waiting, answers, monkeypatch)
    assert decided == len(written)
    assert [one.verdict.value for one in load_overrides(Path("matches.yaml"))] == written
    assert "1 of 2" in shown
    assert ("not written" in shown) == (" " in answers or "nonsense" in answers)


@pytest.mark.parametrize("width", [80, 160])
def test_a_view_shows_what_changed_whatever_the_width(waiting: list[Case], width: int) -> None:
    console = Console(file=StringIO(), width=width)
    changes = [RulesChange("kalshi", "by June 29", "by June 30", AT), RulesChange("polymarket", None, "x", None)]
    console.print(case_view(waiting[0], changes, width=width))
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue()
    assert "by June 29" in shown
    assert "Kalshi today" in shown
    assert "in no catalogue" in shown
    side_by_side = any("by June 29" in line and "by June 30" in line for line in shown.splitlines())
    assert side_by_side == (width == 160)


@pytest.mark.parametrize("stated", [True, False])
def test_a_view_says_which_payouts_an_approval_takes_down(waiting: list[Case], stated: bool) -> None:
    case = waiting[0]
    kalshi, polymarket = case.digests
    told = {
        "rules": {"kalshi": kalshi, "polymarket": polymarket},
        "stated_void_states": {"cancelled": {"kalshi": "0.5", "polymarket": "0.5"}} if stated else None,
    }
    console = Console(file=StringIO(), width=160)
    console.print(case_view(Case({**case.row, "explanation": json.dumps(told)}, case.kalshi, case.polymarket)))
    assert isinstance(console.file, StringIO)
    shown = " ".join(console.file.getvalue().split())
    assert ("takes down what both texts state (Kalshi / Polymarket, dollars): cancelled 0.5 / 0.5" in shown) == stated
    assert ("leaves the worst case unknown" in shown) != stated
