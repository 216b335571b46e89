"""Which of the changed numbers are worth sending: backward elimination on the exact integers.

A number goes back to what it was as long as that costs less squared error than the bytes it takes are worth. Numbers
that only work together (a unit's weight in and its weight out) are judged with the others in place. Heads of changed
units are solved anew each time; at the end their integers face the same question.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from server.refresh.grid import BACKBONE_NUMBERS, HEAD, HEAD_BIAS, Integers, split
from server.refresh.lessons import Objective

AT_ONCE = 8
"""One number in so many goes back at a time while there are many."""

Size = Callable[[Integers], int]
"""Bytes of the update that makes the running model this row."""


def select(objective: Objective, numbers: Integers, size: Size, price: float, limit: int, most: int) -> Integers:
    """The row with the changes that pay, and the head that suits it.

    Args:
        objective: What counts.
        numbers: With all changes; only the backbone's are looked at.
        size: Of the update.
        price: Share of the squared error that one byte must take off.
        limit: Bytes that the update must not exceed.
        most: Changes that are looked at; of more, the largest.
    """
    grid = objective.grid
    row = _strongest(grid.clipped(np.where(grid.changeable, numbers, grid.numbers)), grid.numbers, most)
    row[BACKBONE_NUMBERS:] = grid.numbers[BACKBONE_NUMBERS:]

    def worth(tried: Integers) -> float:
        heads, error = objective.solve(tried)
        return error + price * size(with_heads(objective, tried, heads))

    row = _eliminate(row, grid.numbers, worth, lambda tried: fits(objective, tried, size, limit))
    row = with_heads(objective, row, objective.solve(row)[0])

    def exact(tried: Integers) -> float:
        return objective.error(tried) + price * size(tried)

    return _eliminate(row, grid.numbers, exact, lambda tried: size(tried) <= limit)


def with_heads(objective: Objective, numbers: Integers, heads: np.ndarray) -> Integers:
    """The row under heads (4, 9), rounded to its grid where they are not the running ones."""
    row, grid = numbers.copy(), objective.grid
    running = grid.head_rows(grid.numbers)
    steps = np.rint(heads / grid.base.head.scale)
    parts, old = split(row), split(grid.numbers)
    parts[HEAD][:] = np.where(heads[:, :-1] != running[:, :-1], np.clip(steps[:, :-1], -127, 127), old[HEAD])
    parts[HEAD_BIAS][:] = np.where(heads[:, -1] != running[:, -1], steps[:, -1], old[HEAD_BIAS])
    return row


def fits(objective: Objective, numbers: Integers, size: Size, limit: int) -> bool:
    """Whether the row and the head that suits it are small enough."""
    return size(with_heads(objective, numbers, objective.solve(numbers)[0])) <= limit


def _strongest(numbers: Integers, running: Integers, most: int) -> Integers:
    change = np.abs(numbers - running) / np.maximum(np.abs(running), 32)
    change[BACKBONE_NUMBERS:] = 0
    kept = np.argsort(-change, kind="stable")[:most]
    row = running.copy()
    row[kept] = numbers[kept]
    return row


def _eliminate(
    row: Integers, running: Integers, worth: Callable[[Integers], float], small: Callable[[Integers], bool]
) -> Integers:
    """Undo changes, least worth first, until none is too dear and the row is small."""
    best = worth(row)
    while (changed := np.flatnonzero(row != running)).size:
        values = np.array([worth(_undone(row, running, [int(number)])) for number in changed])
        order = np.argsort(values, kind="stable")
        dear = int((values[order] < best).sum())
        if not dear and small(row):
            break
        several = _undone(row, running, changed[order[: max(1, min(dear, len(changed) // AT_ONCE))]])
        one = _undone(row, running, changed[order[:1]])
        value = worth(several)
        # What is undone together may have carried one another; then one at a time.
        row, best = (several, value) if value <= values[order[0]] else (one, float(values[order[0]]))
    return row


def _undone(row: Integers, running: Integers, numbers: Integers | list[int]) -> Integers:
    tried = row.copy()
    tried[numbers] = running[numbers]
    return tried
