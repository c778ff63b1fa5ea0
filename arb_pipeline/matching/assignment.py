"""One partner a market: the assignment of greatest total weight, one connected component at a time."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

__all__ = ["assign"]

_NOT_AN_EDGE = -1e6

Pair = tuple[int, int]
"""Positions of a row and a column."""


def assign(weights: Mapping[Pair, float]) -> set[Pair]:
    """The pairs that together weigh most while no row and no column stands in two of them; only given pairs count."""
    if not weights:
        return set()
    rows = sorted({row for row, _ in weights})
    columns = sorted({column for _, column in weights})
    row_of = {value: position for position, value in enumerate(rows)}
    column_of = {value: position + len(rows) for position, value in enumerate(columns)}
    size = len(rows) + len(columns)
    first, second = np.array([(row_of[row], column_of[column]) for row, column in weights], dtype=np.intp).T
    graph = coo_matrix((np.ones(len(weights)), (first, second)), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    components: dict[int, list[Pair]] = defaultdict(list)
    for pair in weights:
        components[int(labels[row_of[pair[0]]])].append(pair)
    return {pair for component in components.values() for pair in _component(component, weights)}


def _component(pairs: Sequence[Pair], weights: Mapping[Pair, float]) -> set[Pair]:
    if len(pairs) == 1:
        return set(pairs)
    rows = sorted({row for row, _ in pairs})
    columns = sorted({column for _, column in pairs})
    row_of = {value: position for position, value in enumerate(rows)}
    column_of = {value: position for position, value in enumerate(columns)}
    # One more column a row stands for "no partner", so that nobody is forced into a pair that is not given.
    matrix = np.full((len(rows), len(columns) + len(rows)), _NOT_AN_EDGE)
    matrix[:, len(columns) :] = 0.0
    for row, column in pairs:
        matrix[row_of[row], column_of[column]] = weights[row, column]
    taken = linear_sum_assignment(matrix, maximize=True)
    return {(rows[int(row)], columns[int(column)]) for row, column in zip(*taken, strict=True) if column < len(columns)}
