"""People's decisions on pairs: ``matches.yaml``, kept in git, stronger than anything computed.

A decision holds for the two rules texts that the person read. When either changes, the pair goes back to review.
"""

import fcntl
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

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
_ConditionId = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-fA-F]+$"), AfterValidator(str.lower)]

_HEADER = """\
# People's decisions on pairs. `arb review` writes here and keeps your comments; editing by hand is as good.
# A decision holds for the rules texts whose SHA-256 it names: a changed text puts the pair back into review.
"""
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class OverrideError(ArbError, ValueError):
    """The overrides file cannot be used; the message names the file, the entry, the field and the remedy."""


class Verdict(StrEnum):
    """What a person may say of a pair."""

    EQUIVALENT = "equivalent"
    INVERTED = "inverted"
    KALSHI_IMPLIES_POLYMARKET = "kalshi_implies_polymarket"
    POLYMARKET_IMPLIES_KALSHI = "polymarket_implies_kalshi"
    EXCLUSIVE = "exclusive"
    REJECTED = "rejected"

    @property
    def relation(self) -> Relation:
        """The relation that it states; a rejected pair is different."""
        return Relation.DIFFERENT if self is Verdict.REJECTED else Relation(self.value)

    @property
    def same(self) -> bool:
        """Whether it says that both markets ask the same question, which a market can do with one other only."""
        return self in {Verdict.EQUIVALENT, Verdict.INVERTED}


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PolymarketSide(_Entry):
    """The Polymarket market and which of its tokens Kalshi's YES corresponds to."""

    condition_id: _ConditionId
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
        expected = int(self.verdict is Verdict.INVERTED)
        if self.verdict is not Verdict.REJECTED and self.polymarket.yes_token_index != expected:
            raise ValueError(
                f"verdict {self.verdict.value} with yes_token_index {self.polymarket.yes_token_index}: "
                "inverted is index 1, every other one is said of Polymarket's first outcome, index 0"
            )
        return self

    @property
    def pair(self) -> tuple[str, str]:
        """(Kalshi ticker, condition id)."""
        return self.kalshi, self.polymarket.condition_id

    def changed(self, kalshi_sha256: str, polymarket_sha256: str) -> tuple[str, ...]:
        """The venues whose rules are no longer those that the person read, by the SHA-256 of today's texts."""
        if self.rules_sha256 is None:
            return ()
        today = {"kalshi": kalshi_sha256, "polymarket": polymarket_sha256}
        return tuple(venue for venue, digest in today.items() if getattr(self.rules_sha256, venue) != digest)

    def __str__(self) -> str:
        return f"{self.kalshi} with {self.polymarket.condition_id} ({self.verdict.value}, by {self.by})"


@dataclass(frozen=True)
class Overrides:
    """Decisions of a file: at most one a pair, at most one market that a market is the same as."""

    decisions: tuple[Decision, ...] = ()

    def __iter__(self) -> Iterator[Decision]:
        return iter(self.decisions)

    def __len__(self) -> int:
        return len(self.decisions)


@dataclass(frozen=True, slots=True)
class _Placed:
    """A decision and where it stands: entry number and lines, all from 1, both lines included."""

    decision: Decision
    number: int
    first_line: int
    last_line: int


def load_overrides(path: Path) -> Overrides:
    """Read ``matches.yaml``. A missing or empty file is no decision.

    Raises:
        OverrideError: on text that is not a YAML list of entries, on an unknown, missing, doubled or malformed field,
            on two entries about one pair, and on a market said to be the same as two others. The message names the
            file, the lines and the entries.
    """
    return Overrides(tuple(placed.decision for placed in _parse(_text(path), path)))


def save_decisions(path: Path, decisions: Iterable[Decision], *, replace: Collection[Decision] = ()) -> None:
    """Add decisions to the file, keeping what it holds, comments included, and the file valid at any time.

    Savers take turns, so that nobody's decision is lost.

    Args:
        replace: earlier decisions that give way; one that the file no longer holds as given does not, and is a
            conflict if the new ones are about its pair.

    Raises:
        OverrideError: if the file is not valid, or would not be with the decisions; it is left as it was.
    """
    new = list(decisions)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _turn(path.parent):
        text = _text(path)
        going = [placed for placed in _parse(text, path) if placed.decision in replace]
        lines = _without((text or _HEADER).splitlines(keepends=True), going)
        before = "".join(lines)
        if new and before and not before.endswith("\n"):
            before += "\n"
        after = before + _written(new)
        _parse(after, path)
        _put(path, after)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _written(decisions: Sequence[Decision]) -> str:
    bodies = [decision.model_dump(mode="json", exclude_defaults=True) | {"at": decision.at} for decision in decisions]
    return yaml.safe_dump(bodies, sort_keys=False, allow_unicode=True, width=110) if bodies else ""


def _without(lines: list[str], going: Sequence[_Placed]) -> list[str]:
    gone = {number for one in going for number in range(one.first_line, one.last_line + 1)}
    return [line for number, line in enumerate(lines, 1) if number not in gone]


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder: the file itself is replaced, so it cannot carry one."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _put(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        # A temporary file is its owner's alone; the decisions are the team's.
        temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


# --- reading ------------------------------------------------------------------------------------------------


def _parse(text: str, path: Path) -> tuple[_Placed, ...]:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None or (isinstance(root, yaml.ScalarNode) and root.value in {"", "null", "~"}):
            return ()
        if not isinstance(root, yaml.SequenceNode) or root.flow_style:
            raise OverrideError(
                f"{path} line {root.start_mark.line + 1} does not begin a list in block style; "
                "give a list of entries, each beginning with '- kalshi:'"
            )
        lines = text.splitlines()
        placed = tuple(_placed(loader, node, number, lines, path) for number, node in enumerate(root.value, 1))
    except yaml.YAMLError as error:
        raise OverrideError(f"{path} is not YAML: {error}") from error
    finally:
        loader.dispose()
    _refuse_conflicts(placed, path)
    return placed


def _placed(loader: yaml.SafeLoader, node: yaml.Node, number: int, lines: Sequence[str], path: Path) -> _Placed:
    first = node.start_mark.line
    while not lines[first].startswith("-", len(lines[first]) - len(lines[first].lstrip())):
        first -= 1
    where = f"{path} line {first + 1}, entry {number}"
    _refuse_doubled(node, where)
    try:
        decision = Decision.model_validate(loader.construct_document(node))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'entry'}: {problem['msg']}, got {problem['input']!r:.120}"
            for problem in error.errors(include_url=False)
        )
        raise OverrideError(f"{where}: {problems}") from error
    return _Placed(decision, number, first + 1, _last_line(node, lines))


def _refuse_doubled(node: yaml.Node, where: str) -> None:
    """YAML takes the last of two equal keys in silence; of two verdicts, nobody would know which was meant."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.value in seen:
            raise OverrideError(f"{where}: {key.value} stands on line {seen[key.value]} and on line {line}. Keep one")
        seen[key.value] = line
        _refuse_doubled(value, where)


def _last_line(node: yaml.Node, lines: Sequence[str]) -> int:
    """Last line of an entry, from 1: a block's own end mark lies before the next entry, beyond comments."""
    last = node
    while isinstance(last, yaml.CollectionNode) and not last.flow_style and last.value:
        last = last.value[-1] if isinstance(last, yaml.SequenceNode) else last.value[-1][1]
    line = last.end_mark.line + (1 if last.end_mark.column else 0)
    while line > last.start_mark.line + 1 and not lines[line - 1].strip():
        line -= 1
    return max(line, last.start_mark.line + 1)


def _refuse_conflicts(placed: Sequence[_Placed], path: Path) -> None:
    pairs: dict[tuple[str, str], _Placed] = {}
    markets: dict[str, _Placed] = {}
    for one in placed:
        decision = one.decision
        if (earlier := pairs.get(decision.pair)) is not None:
            raise _conflict(path, earlier, one, _contradiction(earlier.decision.verdict, decision.verdict))
        pairs[decision.pair] = one
        if not decision.verdict.same:
            continue
        for market in decision.pair:
            if (earlier := markets.get(market)) is not None:
                raise _conflict(path, earlier, one, f"both approve a pair of {market}, which can have one partner")
            markets[market] = one


def _contradiction(first: Verdict, second: Verdict) -> str:
    if first is second:
        return "decide the same pair twice"
    if Verdict.REJECTED in {first, second}:
        return "approve and reject the same pair"
    return "state contradictory relations of the same pair"


def _conflict(path: Path, first: _Placed, second: _Placed, what: str) -> OverrideError:
    return OverrideError(
        f"{path}: entries {first.number} and {second.number} {what} (lines {first.first_line} and "
        f"{second.first_line}): {first.decision}; {second.decision}. Keep one"
    )
