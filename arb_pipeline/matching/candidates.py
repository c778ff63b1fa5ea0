"""Pairs worth comparing: the most similar texts, and pairs that share an exact key.

Similarity only proposes here. TF-IDF over character 3-grams inside words finds paraphrases at a fraction of what
sentence embeddings cost; exact keys catch what is worded differently but names the same game, person or strike.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import sparse_dot_topn
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from arb_pipeline.matching.slots import Proposition, Slots
from arb_pipeline.matching.text import fold, tokenise
from arb_pipeline.matching.vocabulary import FUNCTION_WORDS
from arb_pipeline.model import Event, Market

__all__ = ["Candidate", "Document", "document", "find_candidates"]

_TOP = 20
_MIN_COSINE = 0.15
_WINDOW = timedelta(days=200)
_MOST_PER_KEY = 400
_KEY_BONUS = 0.3
_RULES_READ = 600
_CAPITALISED_PAIR = re.compile(r"\b([A-Z][^\W\d_]+) (?=([A-Z][^\W\d_]+))")
_THREADS = 2


Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """What candidates are found by: the text, the times at which the market may end, exact keys, pairs of names."""

    text: str
    times: tuple[datetime, ...]
    keys: frozenset[Key]
    names: frozenset[Key] = frozenset()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pair by position; ``rank`` is its place among the Kalshi market's candidates, 1 the most promising."""

    kalshi: int
    polymarket: int
    cosine: float
    rank: int


def document(event: Event, market: Market, propositions: Sequence[Proposition]) -> Document:
    """The document of one market."""
    parts = (event.title, market.title, market.yes_title, *(set(market.outcomes) - {"Yes", "No"}))
    text = " ".join(token.text for part in dict.fromkeys(sorted(filter(None, parts))) for token in tokenise(part))
    times = (market.expected_expiration_at, market.close_at, market.occurrence_at, event.end_at)
    keys = frozenset(key for proposition in propositions for key in _keys(proposition))
    names = frozenset(_name_pairs(f"{market.title} {market.rules[:_RULES_READ]}"))
    return Document(text, tuple(at for at in times if at is not None), keys, names)


def find_candidates(
    kalshi: Sequence[Document], polymarket: Sequence[Document], top: int = _TOP
) -> tuple[Candidate, ...]:
    """Candidates in the order of the Kalshi documents, each market's by falling similarity, shared keys first."""
    if not kalshi or not polymarket:
        return ()
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), lowercase=False, dtype=np.float32)
    try:
        vectorizer.fit([item.text for item in (*kalshi, *polymarket)])
    except ValueError:
        return ()  # nothing but empty texts
    left = sparse.csr_matrix(vectorizer.transform([item.text for item in kalshi]))
    right = sparse.csr_matrix(vectorizer.transform([item.text for item in polymarket]))
    similar = sparse_dot_topn.sp_matmul_topn(
        left, right.T.tocsr(), top_n=top, threshold=_MIN_COSINE, sort=True, n_threads=_THREADS
    )
    found = _pairs(similar)
    strong = _by_key(kalshi, polymarket, strong=True)
    by_key = sorted((strong | _by_key(kalshi, polymarket, strong=False)) - found.keys())
    if by_key:
        rows, columns = (list(column) for column in zip(*by_key, strict=True))
        cosines = np.asarray(left[rows].multiply(right[columns]).sum(axis=1)).ravel()
        found.update(zip(by_key, (float(value) for value in cosines), strict=True))
    by_market: dict[int, list[tuple[float, int, float]]] = defaultdict(list)
    for (row, column), value in found.items():
        if _compatible(kalshi[row].times, polymarket[column].times):
            cosine = round(value, 6)
            order = cosine + (_KEY_BONUS if (row, column) in strong else 0.0)
            by_market[row].append((-order, column, cosine))
    return tuple(
        Candidate(row, column, cosine, rank)
        for row in sorted(by_market)
        for rank, (_, column, cosine) in enumerate(sorted(by_market[row]), 1)
    )


def _pairs(similar: "sparse.csr_matrix[np.float32]") -> dict[tuple[int, int], float]:
    coordinates = similar.tocoo()
    return {
        (int(row), int(column)): float(value)
        for row, column, value in zip(coordinates.row, coordinates.col, coordinates.data, strict=True)
    }


def _by_key(kalshi: Sequence[Document], polymarket: Sequence[Document], *, strong: bool) -> set[tuple[int, int]]:
    """Pairs that share a key, but for keys so common that they say nothing."""
    left, right = _index(kalshi, strong=strong), _index(polymarket, strong=strong)
    return {
        (row, column)
        for key, rows in left.items()
        if key in right and len(rows) * len(right[key]) <= _MOST_PER_KEY
        for row in rows
        for column in right[key]
    }


def _index(documents: Iterable[Document], *, strong: bool) -> dict[Key, list[int]]:
    index: dict[Key, list[int]] = defaultdict(list)
    for position, item in enumerate(documents):
        for key in item.keys if strong else item.names:
            index[key].append(position)
    return index


def _keys(proposition: Proposition) -> Iterable[Key]:
    """Exact keys of a family: the sides of a contest and its day, whom or what and when, the strike and when."""
    slots = proposition.slots
    when = next(
        (str(fact.value) for fact in (slots.on, slots.meeting, slots.deadline, slots.editions) if fact is not None), ""
    )
    if slots.game is not None:
        yield from _game_keys(slots)
    if slots.subject is not None:
        yield "subject", slots.subject.value[-1], when
        if slots.action is not None:
            yield "action", slots.subject.value[-1], slots.action.value
    measured = slots.asset or slots.metric or slots.direction
    if slots.interval is not None and measured is not None:
        yield "strike", str(measured.value), str(slots.interval.value.low), str(slots.interval.value.high), when


def _game_keys(slots: Slots) -> Iterable[Key]:
    """Both sides' names, with the days around the start where it is known: one side of a pair tells it roughly."""
    assert slots.game is not None
    first, second = slots.game.value
    for one in first:
        for other in second:
            pair = sorted((one, other))
            # Without a day too, for a partner whose start is not told; a common pair of names says nothing then.
            yield "game", *pair
            if slots.start is None:
                continue
            day = slots.start.value.date()
            for shift in (-1, 0, 1):
                yield "game", *pair, str(day + timedelta(days=shift))


def _name_pairs(text: str) -> Iterable[Key]:
    """Neighbouring capitalised words: a bill's or a person's name that one venue keeps in its rules."""
    for match in _CAPITALISED_PAIR.finditer(text):
        first, second = fold(match[1]), fold(match[2])
        if first not in FUNCTION_WORDS and second not in FUNCTION_WORDS:
            yield first, second


def _compatible(first: tuple[datetime, ...], second: tuple[datetime, ...]) -> bool:
    """Whether any two end times are near enough. Listed times are rough, so the window is wide; unknown passes."""
    return not first or not second or any(abs(one - other) <= _WINDOW for one in first for other in second)
