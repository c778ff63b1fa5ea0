"""People's decisions on pairs: ``matches.yaml``, kept in git, stronger than anything computed.

A decision holds for the two rules texts that the person read. When either changes, the pair goes back to review.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from arb_pipeline.errors import ArbError
from arb_pipeline.model import Relation

__all__ = [
    "Decision",
    "OverrideError",
    "Overrides",
    "PolymarketSide",
    "RulesHashes",
    "Verdict",
    "VoidState",
    "load_overrides",
    "save_decisions",
]

_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Payout = Annotated[Decimal, Field(ge=0, le=1)]


class OverrideError(ArbError, ValueError):
    """The overrides file cannot be used; the message names the file, the entry, the field and the remedy."""


class Verdict(StrEnum):
    """What a person may say of a pair."""

    EQUIVALENT = "equivalent"
    INVERTED = "inverted"
    KALSHI_IMPLIES_POLYMARKET = "kalshi_implies_polymarket"
    POLYMARKET_IMPLIES_KALSHI = "polymarket_implies_kalshi"
    REJECTED = "rejected"

    @property
    def relation(self) -> Relation:
        """The relation that it states; a rejected pair is different."""
        return Relation.DIFFERENT if self is Verdict.REJECTED else Relation(self.value)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PolymarketSide(_Entry):
    """The Polymarket market and which of its tokens Kalshi's YES corresponds to."""

    condition_id: Annotated[str, StringConstraints(pattern=r"^0x[0-9a-fA-F]+$")]
    yes_token_index: Annotated[int, Field(ge=0, le=1)] = 0


class RulesHashes(_Entry):
    """SHA-256 of the rules texts that the person read."""

    kalshi: _Hash
    polymarket: _Hash


class VoidState(_Entry):
    """What YES of each venue pays in an exceptional state, dollars per contract."""

    kalshi: _Payout
    polymarket: _Payout


class Decision(_Entry):
    """One entry of the file."""

    kalshi: _Text
    polymarket: PolymarketSide
    verdict: Verdict
    rules_sha256: RulesHashes | None = None
    void_states: Mapping[str, VoidState] = Field(default_factory=dict)
    by: _Text
    at: datetime | date
    why: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.verdict is not Verdict.REJECTED and self.rules_sha256 is None:
            raise ValueError("rules_sha256 is missing: give the hashes of both rules texts that were read")
        expected = {Verdict.EQUIVALENT: 0, Verdict.INVERTED: 1}.get(self.verdict)
        if expected is not None and self.polymarket.yes_token_index != expected:
            raise ValueError(
                f"verdict {self.verdict.value} with yes_token_index {self.polymarket.yes_token_index}: "
                "equivalent is index 0, inverted is index 1"
            )
        return self

    @property
    def pair(self) -> tuple[str, str]:
        """(Kalshi ticker, condition id)."""
        return self.kalshi, self.polymarket.condition_id

    def __str__(self) -> str:
        return f"{self.kalshi} with {self.polymarket.condition_id} ({self.verdict.value}, by {self.by})"


@dataclass(frozen=True)
class Overrides:
    """Decisions of a file, at most one a pair, at most one approval a market."""

    decisions: tuple[Decision, ...] = ()

    def __iter__(self) -> Iterator[Decision]:
        return iter(self.decisions)

    def __len__(self) -> int:
        return len(self.decisions)


def load_overrides(path: Path) -> Overrides:
    """Read ``matches.yaml``. A missing or empty file is no decision.

    Raises:
        OverrideError: on text that is not a YAML list of entries, on an unknown, missing or malformed field, on two
            entries about one pair, and on two approvals that touch one market.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Overrides()
    return _parse(text, path)


def save_decisions(path: Path, decisions: Iterable[Decision]) -> None:
    """Append decisions, keeping what the file holds, comments included, and the file valid at any time.

    Raises:
        OverrideError: if the file is not valid, or would not be with the decisions; it is left as it was.
    """
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    bodies = [decision.model_dump(mode="json", exclude_defaults=True) | {"at": decision.at} for decision in decisions]
    entry = yaml.safe_dump(bodies, sort_keys=False, allow_unicode=True, width=110) if bodies else ""
    separator = "" if not before or before.endswith("\n") else "\n"
    text = f"{before}{separator}{entry}"
    _parse(before, path)
    _parse(text, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _parse(text: str, path: Path) -> Overrides:
    try:
        raw: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise OverrideError(f"{path} is not YAML: {error}") from error
    if raw is None:
        return Overrides()
    if not isinstance(raw, list):
        raise OverrideError(
            f"{path} holds a {type(raw).__name__}; give a list of entries, each beginning with '- kalshi:'"
        )
    decisions = tuple(_decision(item, number, path) for number, item in enumerate(raw, 1))
    _refuse_conflicts(decisions, path)
    return Overrides(decisions)


def _decision(item: object, number: int, path: Path) -> Decision:
    try:
        return Decision.model_validate(item)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'entry'}: {problem['msg']}, got {problem['input']!r:.120}"
            for problem in error.errors(include_url=False)
        )
        raise OverrideError(f"{path} entry {number}: {problems}") from error


def _refuse_conflicts(decisions: tuple[Decision, ...], path: Path) -> None:
    pairs: dict[tuple[str, str], tuple[int, Decision]] = {}
    markets: dict[str, tuple[int, Decision]] = {}
    for number, decision in enumerate(decisions, 1):
        if (earlier := pairs.get(decision.pair)) is not None:
            raise OverrideError(
                f"{path}: entries {earlier[0]} and {number} decide the same pair: {earlier[1]}; {decision}. Keep one"
            )
        pairs[decision.pair] = number, decision
        if decision.verdict is Verdict.REJECTED:
            continue
        for market in decision.pair:
            if (earlier := markets.get(market)) is not None:
                raise OverrideError(
                    f"{path}: entries {earlier[0]} and {number} both approve a pair of {market}: "
                    f"{earlier[1]}; {decision}. Keep one"
                )
            markets[market] = number, decision
