"""``arb review`` in a terminal: a pair as text, and the dialogue that decides the queue one by one."""

from collections.abc import Callable, Sequence
from typing import Any

import typer
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from arb_pipeline.matching.explanation import explain
from arb_pipeline.matching.overrides import OverrideError, Verdict
from arb_pipeline.matching.review import (
    Case,
    Kind,
    RulesChange,
    SlotLine,
    Span,
    changed_text,
    compare_texts,
    full_title,
)
from arb_pipeline.model import Market

__all__ = ["case_document", "case_view", "queue_grid", "review_queue"]

_STYLES = {Kind.SAME: "", Kind.MOVED: "dim underline", Kind.ONLY: "black on yellow", Kind.FIGURE: "bold white on red"}
_TONES = {"equal": "green", "differs": "bold red", "caveat": "yellow", "unknown": "yellow"}
_ANSWERS = {"a": "approve", "o": "approve as another relation", "r": "reject", "s": "skip", "q": "quit"}
_NARROW = 100
"""Columns below which two texts do not fit side by side."""

Decide = Callable[[Case, Verdict | None, str], object]
"""Writes a decision: the case, the verdict (None: as proposed), the reason."""


def queue_grid(waiting: Sequence[Case], most: int = 50) -> Table:
    """The queue, one line a pair; the number is what the commands take."""
    grid = Table(title=f"Waiting for a person ({len(waiting):,})", title_justify="left")
    for name in ("#", "Kalshi", "Polymarket", "proposed", "score", "why"):
        grid.add_column(name, overflow="fold", justify="right" if name in {"#", "score"} else "left")
    for rank, case in enumerate(waiting[:most], 1):
        more = f" (+{len(case.reasons) - 1})" if len(case.reasons) > 1 else ""
        grid.add_row(
            str(rank),
            Text(f"{full_title(case.kalshi)}\n{case.pair[0]}"),
            Text(f"{full_title(case.polymarket)}\n{case.pair[1][:12]}"),
            case.relation,
            f"{case.score:.1f}",
            Text(case.reasons[0] + more),
        )
    return grid


def case_document(case: Case, rank: int | None = None) -> dict[str, Any]:
    """A case for JSON."""
    decision = case.decision
    return {
        "pair": case.name,
        "rank": rank,
        "kalshi_market_id": case.pair[0],
        "polymarket_market_id": case.pair[1],
        "polymarket_yes_index": case.row["polymarket_yes_index"],
        "relation": case.relation,
        "status": case.status,
        "score": case.score,
        "family": case.row["family"],
        "reasons": case.reasons,
        "vetoes": case.vetoes,
        "reopened": case.reopened,
        "decision": None if decision is None else decision.model_dump(mode="json", exclude_defaults=True),
        "margin": case.margin,
        "kalshi": _market_document(case.kalshi),
        "polymarket": _market_document(case.polymarket),
        "explanation": case.told,
        "text": explain(case.relation, case.status, case.told, case.vetoes) if case.relation else "",
    }


def case_view(case: Case, changes: Sequence[RulesChange] = (), *, width: int = 140) -> RenderableType:
    """Everything about a case: why it waits, both rules, slots, rivals."""
    heading = Text(f"{case.relation.replace('_', ' ') or 'never compared'}", style="bold")
    heading.append(f"  {case.status}  score {case.score:.1f}  {case.row['family']}".rstrip(), style="dim")
    parts: list[RenderableType] = [heading, Text("\n".join(f"- {reason}" for reason in case.reasons))]
    if case.decision is not None:
        stands = "stands" if case.decided else "no longer stands"
        parts.append(Text(f"{case.decision}: {case.decision.why} - {stands}", style="yellow"))
    parts += [_change_view(change, width) for change in changes]
    kalshi, polymarket = compare_texts(case.kalshi.rules, case.polymarket.rules)
    parts.append(
        _side_by_side(
            _market_view("Kalshi", case.kalshi, kalshi), _market_view("Polymarket", case.polymarket, polymarket), width
        )
    )
    parts += [
        _compared(title, lines)
        for title, lines in (("Compared", case.slots), ("The rules, term by term", case.terms))
        if lines
    ]
    if case.void_states:
        paid = [
            f"- {name}: Kalshi {pays['kalshi']}, Polymarket {pays['polymarket']} dollars"
            for name, pays in case.void_states.items()
        ]
        parts.append(Text("If it is not decided as usual, YES pays\n" + "\n".join(paid)))
    parts.append(Text(_approved_states(case), style="dim"))
    if case.rivals:
        margin = "" if case.margin is None else f", the best {case.margin:.2f} behind"
        lines = [f"- {rival.kalshi} with {rival.polymarket}, score {rival.score:.1f}" for rival in case.rivals]
        parts.append(Text(f"Rivals{margin}\n" + "\n".join(lines), style="dim"))
    return Group(*(Padding(part, (0, 0, 1, 0)) for part in parts))


def _approved_states(case: Case) -> str:
    if not case.stated_void_states:
        return (
            "The two texts do not both state what YES pays in every exceptional state: an approval leaves the worst "
            "case unknown, unless you write void_states into the file"
        )
    paid = (f"{name} {pays['kalshi']} / {pays['polymarket']}" for name, pays in case.stated_void_states.items())
    return f"An approval takes down what both texts state (Kalshi / Polymarket, dollars): {', '.join(paid)}"


def review_queue(
    waiting: Sequence[Case],
    console: Console,
    decide: Decide,
    changes_of: Callable[[Case], Sequence[RulesChange]],
) -> int:
    """Show the cases one by one and take a decision on each; returns how many were decided.

    What cannot be written is told, and asked again. Ending the input ends the review.
    """
    decided = 0
    for rank, case in enumerate(waiting, 1):
        console.rule(f"{rank} of {len(waiting)}: {case.name}")
        console.print(case_view(case, changes_of(case), width=console.width))
        try:
            answer = _answer(case, console, decide)
        except (EOFError, typer.Abort):
            answer = "q"
        if answer == "q":
            break
        decided += answer in {"a", "o", "r"}
    return decided


def _answer(case: Case, console: Console, decide: Decide) -> str:
    keys = ", ".join(f"[{key}]{word.removeprefix(key)}" for key, word in _ANSWERS.items())
    while True:
        answer = str(typer.prompt(keys, default="s")).strip().lower()[:1]
        if answer in {"s", "q"}:
            return answer
        if answer not in _ANSWERS:
            console.print("one of a, o, r, s, q")
            continue
        try:
            verdict = _verdict(answer)
            decide(case, verdict, typer.prompt("reason"))
        except (OverrideError, ValueError) as error:
            console.print(f"not written: {error}", style="bold red", markup=False)
            continue
        return answer


def _verdict(answer: str) -> Verdict | None:
    if answer == "r":
        return Verdict.REJECTED
    if answer == "a":
        return None
    others = [verdict.value for verdict in Verdict if verdict is not Verdict.REJECTED]
    return Verdict(typer.prompt(f"relation ({', '.join(others)})").strip())


def _market_document(market: Market) -> dict[str, Any]:
    return {
        "title": market.title,
        "yes_title": market.yes_title,
        "url": market.url,
        "close_at": market.close_at,
        "rules": market.rules,
        "rules_sha256": market.rules_sha256,
    }


def _market_view(venue: str, market: Market, spans: Sequence[Span]) -> RenderableType:
    closes = f"closes {market.close_at:%Y-%m-%d %H:%M} UTC" if market.close_at else ""
    head = Text(f"{full_title(market)}\n", style="bold")
    head.append(f"{market.market_id}\n{market.url}\n{closes}\n\n", style="dim not bold")
    return Panel(Text.assemble(head, _marked(spans)), title=venue, title_align="left")


def _change_view(change: RulesChange, width: int) -> RenderableType:
    venue = change.venue.capitalize()
    when = f", first seen {change.changed_at:%Y-%m-%d %H:%M} UTC" if change.changed_at else ""
    if change.before is None:
        return Text(f"{venue}'s rules changed{when}; the text that was read is in no catalogue that the lake keeps.")
    before, after = changed_text(change.before, change.after)
    return _side_by_side(
        Panel(_marked(before), title=f"{venue} as it was read", title_align="left"),
        Panel(_marked(after), title=f"{venue} today{when}", title_align="left"),
        width,
    )


def _side_by_side(left: RenderableType, right: RenderableType, width: int) -> RenderableType:
    if width < _NARROW:
        return Group(left, right)
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    grid.add_row(left, right)
    return grid


def _marked(spans: Sequence[Span]) -> Text:
    return Text.assemble(*((span.text, _STYLES[span.kind]) for span in spans))


def _compared(title: str, lines: Sequence[SlotLine]) -> Table:
    grid = Table(title=title, title_justify="left")
    for name in ("what", "Kalshi", "Polymarket", "outcome"):
        grid.add_column(name, overflow="fold")
    for line in lines:
        outcome = Text(line.result.replace("_", " "), style=_TONES[line.tone])
        outcome.append(f" {line.reason}" if line.reason else "", style="not bold")
        grid.add_row(line.slot.replace("_", " "), Text(line.kalshi or "-"), Text(line.polymarket or "-"), outcome)
    return grid
