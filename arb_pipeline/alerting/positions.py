"""Own positions with their entries: from a YAML or CSV file, or from what a venue tells of the account.

A YAML file is a list of entries, a CSV file has a header; both name ``venue``, ``market_id``, ``outcome`` (``yes`` or
``no``), ``size`` (contracts) and ``entry`` (dollars paid per contract of that outcome).
"""

import csv
import functools
import io
import logging
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from arb_pipeline.alerting.rules import AlertError, VenueName
from arb_pipeline.venues.base import Position as Held

__all__ = ["Outcome", "Position", "load_positions", "positions_of_account"]

_log = logging.getLogger(__name__)

Outcome: TypeAlias = Literal["yes", "no"]


def _canonical(market_id: str) -> str:
    """The id as the venues write it: a condition id small and of 32 bytes, a ticker in capitals.

    A condition id may be written without its trailing zero byte, as rules take it, too.
    """
    if not market_id.lower().startswith("0x"):
        return market_id.upper()
    small = market_id.lower()
    return small.ljust(66, "0") if len(small) == 64 else small


class Position(BaseModel):
    """Contracts of one outcome of a market, bought at ``entry`` dollars each on average.

    Attributes:
        market_id: as the venue writes it, however it was given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    venue: VenueName
    market_id: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(_canonical)]
    outcome: Annotated[Outcome, BeforeValidator(lambda value: str(value).lower())]
    size: Annotated[Decimal, Field(gt=0, allow_inf_nan=False)]
    entry: Annotated[Decimal, Field(ge=0, le=1)]

    @property
    def subject(self) -> str:
        """The position in words."""
        return f"{self.venue} {self.market_id} {self.outcome.upper()}"


def load_positions(path: Path) -> tuple[Position, ...]:
    """Read a file of positions.

    Raises:
        AlertError: if it cannot be read, or at the first entry that is none, with its place, field and value.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AlertError(
            f"positions: {path} cannot be read ({type(error).__name__}): name a YAML or CSV file, or 'account'"
        ) from error
    entries = _csv(text) if path.suffix.lower() == ".csv" else _yaml(text, path)
    found = []
    for number, entry in enumerate(entries, 1):
        try:
            found.append(Position.model_validate(entry))
        except ValidationError as error:
            told = "; ".join(
                f"{'.'.join(map(str, one['loc'])) or 'entry'}: {one['msg']}, got {one['input']!r:.80}"
                for one in error.errors(include_url=False)
            )
            raise AlertError(f"{path}: position {number}: {told}: correct it") from error
        if found[-1].subject in [one.subject for one in found[:-1]]:
            twice = found[-1].subject
            raise AlertError(f"{path}: position {number}: {twice} stands there twice: give one, with the average entry")
    return tuple(found)


def positions_of_account(venue: str, held: Iterable[Held]) -> list[Position]:
    """What an account holds; the entry is what it cost, by contract, without fees.

    A position without an entry in [0, 1] is left out, and logged once.
    """
    found = []
    for one in held:
        size = abs(one.size)
        if size and 0 <= one.cost <= size:
            outcome: Outcome = "yes" if one.size > 0 else "no"
            found.append(
                Position(venue=venue, market_id=one.market_id, outcome=outcome, size=size, entry=one.cost / size)
            )
        elif size:
            _leave_out(venue, one.market_id, f"{size} contracts that cost {one.cost}")
    return found


@functools.cache
def _leave_out(venue: str, market_id: str, what: str) -> None:
    """Say it once of each: accounts are read every minute."""
    _log.warning("no rule looks at the position in %s %s: %s dollars have no entry in [0, 1]", venue, market_id, what)


def _csv(text: str) -> list[dict[str, Any]]:
    return [
        {str(name).strip(): value.strip() if isinstance(value, str) else value for name, value in row.items()}
        for row in csv.DictReader(io.StringIO(text))
    ]


def _yaml(text: str, path: Path) -> list[Any]:
    try:
        raw = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - it makes lists, mappings and text only
    except yaml.YAMLError as error:
        raise AlertError(f"{path} is not YAML: {error}") from error
    if raw is None or raw == "":
        return []
    if not isinstance(raw, list):
        raise AlertError(f"{path} holds no list: give each position an entry that begins with '- venue:'")
    return raw
