"""Text in one shape: folded characters, tokens with their place in the original, aliases, sentences.

Everything works on whole tokens, so that ``under`` is never found in ``Thunder``.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from arb_pipeline.matching.vocabulary import ALIASES

__all__ = [
    "Normalised",
    "Token",
    "deciding_sentence",
    "fold",
    "fold_spelling",
    "normalise",
    "sentences",
    "tokenise",
    "words",
]

# Escapes, because these characters look like one another: dashes and minus signs, single and double quotes, rings.
_UNIFIED = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63\uff0d", "-"),
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u0060\u00b4\u02bc\uff07", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb\uff02", '"'),
        **dict.fromkeys("\u00ba\u02da", "\u00b0"),
        "\u2044": "/",
    }
)
_TOKEN = re.compile(r"(?:[^\W\d_]\.){2,}|\d+(?:[.,]\d+)*|[^\W\d_]+(?:'[^\W\d_]+)*")
_SENTENCE = re.compile(r"(?<=[.?!])[\"']?\s+(?=[\"'(]?[A-Z])|\n+")
_RESOLVES_YES = re.compile(r"resolves?\s+to\s+[\"']?yes\b")
_MORNING = ("a", "m")
"""After a number an hour of the morning and no university."""
_HOUR = re.compile(r"(?<=\d) a m(?= )")
_DOUBLED = re.compile(r"(.)\1+")
_VOID = re.compile(
    r"^\W*(?:if|in the event|should)\b[^,]*\b(?:no|not|cancel\w*|postpone\w*|abandon\w*|forfeit\w*|otherwise)\b"
)


@dataclass(frozen=True, slots=True)
class Normalised:
    """Folded text; ``offsets[i]`` is the index in the original of the character that ``text[i]`` came from."""

    original: str
    text: str
    offsets: Sequence[int]

    def span(self, start: int, end: int) -> str:
        """The original characters behind ``text[start:end]``."""
        return self.original[self.offsets[start] : self.offsets[end - 1] + 1] if start < end else ""

    def capital(self, index: int) -> bool:
        """Whether the character came from a capital letter."""
        return self.original[self.offsets[index]].isupper()


class Token(NamedTuple):
    """One word or number: folded text, place in the original, whether it was written with a capital."""

    text: str
    start: int
    end: int
    capital: bool


@lru_cache(maxsize=4_096)
def fold(text: str) -> str:
    """The same folding without offsets, for long texts."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.translate(_UNIFIED))
    return "".join(char for char in decomposed if not unicodedata.combining(char)).translate(_UNIFIED).casefold()


@lru_cache(maxsize=4_096)
def normalise(text: str) -> Normalised:
    """Fold a text: NFKC compatibility forms, case, accents, dashes, quotes and degree signs, one character at a time.

    Accents are dropped because venues disagree on them; the original stays reachable through the offsets.
    """
    if text.isascii():
        return Normalised(text, text.lower(), range(len(text)))
    out: list[str] = []
    offsets: list[int] = []
    for index, char in enumerate(text):
        # Unified before decomposition, because NFKD tears some quotes and degree signs into blank plus accent.
        for piece in unicodedata.normalize("NFKD", char.translate(_UNIFIED)):
            if unicodedata.combining(piece):
                continue
            for folded in piece.translate(_UNIFIED).casefold():
                out.append(folded)
                offsets.append(index)
    return Normalised(text, "".join(out), tuple(offsets))


@lru_cache(maxsize=4_096)
def tokenise(text: str) -> tuple[Token, ...]:
    """Tokens of a text in order. ``U.S.`` becomes ``us``, a possessive loses its ``'s``; hyphens separate."""
    if text.isascii():
        tokens = [
            Token(_word(match.group().lower()), match.start(), match.end(), text[match.start()].isupper())
            for match in _TOKEN.finditer(text)
        ]
        return tuple(_with_aliases(tokens))
    folded = normalise(text)
    tokens = []
    for match in _TOKEN.finditer(folded.text):
        start, end = match.span()
        tokens.append(
            Token(_word(match.group()), folded.offsets[start], folded.offsets[end - 1] + 1, folded.capital(start))
        )
    return tuple(_with_aliases(tokens))


@lru_cache(maxsize=8_192)
def words(text: str) -> frozenset[str]:
    """The distinct token texts, aliases beside the words that they stand for."""
    tokens = [_word(word) for word in _TOKEN.findall(fold(text))]
    found = set(tokens)
    joined = _HOUR.sub(" am", f" {' '.join(tokens)} ")
    for key, alias in ALIASES.items():
        if key[0] in found and (len(key) == 1 or f" {' '.join(key)} " in joined):
            found.update(alias)
    return frozenset(found)


def sentences(text: str) -> list[str]:
    """A rules text cut at full stops and line ends."""
    return [piece.strip() for piece in _SENTENCE.split(text) if piece.strip()]


@lru_cache(maxsize=4_096)
def deciding_sentence(rules: str) -> str:
    """The sentence that says what resolves to Yes, empty if none does.

    Sentences about cancellation, postponement or the lack of a winner are passed over: their dates are those of
    exceptional states.
    """
    for sentence in sentences(rules):
        folded = fold(sentence)
        if _RESOLVES_YES.search(folded) and not _VOID.match(folded):
            return sentence
    return ""


@lru_cache(maxsize=16_384)
def fold_spelling(word: str) -> str:
    """One spelling for transliterations: doubled letters become one, ``y`` becomes ``i``."""
    return _DOUBLED.sub(r"\1", word.replace("y", "i"))


@lru_cache(maxsize=65_536)
def _word(raw: str) -> str:
    """Cached, so that equal words of many texts are one string."""
    if raw[0].isdigit():
        return raw.replace(",", "")
    return raw.replace(".", "").removesuffix("'s").replace("'", "")


_ALIAS_LENGTHS = {
    first: sorted({len(key) for key in ALIASES if key[0] == first}, reverse=True) for first, *_ in ALIASES
}


def _with_aliases(tokens: Sequence[Token]) -> list[Token]:
    out: list[Token] = []
    index = 0
    while index < len(tokens):
        for length in _ALIAS_LENGTHS.get(tokens[index].text, ()):
            key = tuple(token.text for token in tokens[index : index + length])
            if key == _MORNING and index and tokens[index - 1].text[0].isdigit():
                continue
            if len(key) == length and (alias := ALIASES.get(key)) is not None:
                first, last = tokens[index], tokens[index + length - 1]
                out.extend(Token(word, first.start, last.end, capital=first.capital) for word in alias)
                index += length
                break
        else:
            out.append(tokens[index])
            index += 1
    return out
