"""What a family's parser gets to see, and what it says of its family."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from arb_pipeline.matching.slots import Fact, Slots
from arb_pipeline.matching.text import deciding_sentence, fold, normalise, tokenise
from arb_pipeline.matching.vocabulary import FUNCTION_WORDS
from arb_pipeline.model import Event, Market

__all__ = ["Family", "Reading", "titled_subject"]


@dataclass(frozen=True)
class Reading:
    """One outcome of a market with its generic slots; texts are folded.

    Attributes:
        slots: the generic reading, which a parser completes.
    """

    event: Event
    market: Market
    index: int
    slots: Slots

    @cached_property
    def titles(self) -> str:
        """Title, answer and outcome."""
        parts = (self.market.title, self.market.yes_title, self.outcome)
        return normalise(" | ".join(part for part in parts if part)).text

    @cached_property
    def around(self) -> str:
        """The titles with the event's."""
        return f"{self.titles} | {normalise(self.event.title).text} | {normalise(self.event.sub_title).text}"

    @cached_property
    def rules(self) -> str:
        """The whole rules text."""
        return fold(self.market.rules)

    @cached_property
    def deciding(self) -> str:
        """The sentence that says what resolves to Yes, else the rules' beginning."""
        return fold(deciding_sentence(self.market.rules)) or self.rules[:400]

    @property
    def outcome(self) -> str:
        """The outcome's name, empty where it is Yes or No."""
        name = self.market.outcomes[self.index]
        return "" if name.lower() in {"yes", "no"} else name


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of question.

    Attributes:
        parse: the slots with what the family knows more, None where the market is not of the family.
        mandatory: slots that both sides must know, and agree on, before a pair may be accepted without a person.
        terms: terms of the rules texts that must be known and equal for that too.
        contest: whether the outcome hangs on a contest that may be cancelled, tied or postponed.
        exclusive: whether at most one answer of an occasion comes true.
        optional: slots that one side may leave out all the same; any other that one side alone tells is a question for
            a person.
    """

    name: str
    parse: Callable[[Reading], Slots | None]
    mandatory: tuple[str, ...]
    terms: tuple[str, ...] = ()
    contest: bool = False
    exclusive: bool = False
    optional: tuple[str, ...] = ()


_NAME = r"[A-Z][\w.'\u2019-]*(?: (?:(?:de|da|do|van|von|der|del|la|le|al|el|bin|ibn|of|the) )*[A-Z][\w.'\u2019-]*){0,5}"
_SUBJECT = re.compile(
    rf"^(?:Will?|Can|Does|Is) (?:the )?({_NAME}) (?:be|win|become|get|receive|take|secure|finish)s?\b"
)


def titled_subject(reading: Reading) -> Fact[tuple[str, ...]] | None:
    """Whom a title asks about ("Will Ann Lee win ..."), for families whose answers are the sentence's subject."""
    if reading.slots.subject is not None:
        return reading.slots.subject
    match = _SUBJECT.match(reading.market.title)
    if match is None:
        return None
    name = tuple(token.text for token in tokenise(match[1]) if token.text not in FUNCTION_WORDS)
    return Fact(name, "title", match[1]) if name else None
