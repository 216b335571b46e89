"""What a node holds of a session's fragments, as far as its words tell, and which fragment serves it best.

A node says at each wake how many fragments it still needs. What was sent since its last word either all arrived, or
none did, or some of it: only the last leaves a doubt. So a lost fragment is usually known and sent again as it is, and
coded fragments, which help whatever was lost, are for the doubts. Nothing is sent that may already be of no use.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations, islice, product
from typing import Self

from shared_models.fragmentation import parity_row

HYPOTHESES = 64
"""Looked at where it is not known what arrived."""
LOST = 0.3
"""A guess of how often a fragment is lost, to weigh what sending one in vain tells."""
CODED = 12
"""Coded fragments to choose among, of the endless row of them."""


@dataclass
class Arrivals:
    """One session's fragments; numbers are TS004's, from 1."""

    count: int
    """Uncoded fragments."""
    package: int
    """TS004 version of the session, which says what a coded fragment combines."""
    missing: int
    """By the node's last word."""
    held: list[int] = field(default_factory=list)
    """Surely arrived."""
    unsure: list[tuple[list[int], int]] = field(default_factory=list)
    """Groups sent between two words of the node, and how many of each arrived."""
    fresh: list[int] = field(default_factory=list)
    """Sent since its last word."""
    idle: list[int] = field(default_factory=list)
    """Sent since it last needed less, and of no effect: lost, or of no use to it."""
    pending: list[int] = field(default_factory=list)
    """Sent before ``fresh``, when it said no more than that it still needed something."""

    @classmethod
    def load(cls, text: str) -> Self:
        """What :meth:`dump` wrote."""
        values = json.loads(text)
        values["unsure"] = [(numbers, arrived) for numbers, arrived in values["unsure"]]
        return cls(**values)

    def dump(self) -> str:
        """For the store."""
        return json.dumps(vars(self), separators=(",", ":"))

    def say(self, missing: int, *, under_way: bool) -> None:
        """The node has said how many it needs.

        Args:
            missing: What it said.
            under_way: The newest fragment waits at the network server, or went out as the answer to this very word:
                the word does not count it.
        """
        kept = self.fresh[-1:] if under_way else []
        told = self.pending + self.fresh[: len(self.fresh) - len(kept)]
        arrived = self.missing - missing
        if not 0 <= arrived <= len(told):
            # It knows more or less than was sent: an old word, or a reset that cost it something.
            self.held, self.unsure = [], [(list(range(1, self.count + 1)), self.count - missing)]
        elif arrived == len(told):
            self.held += told
        elif arrived:
            self.unsure.append((told, arrived))
        self.idle = [] if arrived > 0 else self.idle + told
        self.missing, self.fresh, self.pending = missing, kept, []

    def incomplete(self) -> None:
        """The node has said no more than that it needs something: not all that was sent can have arrived."""
        if not self.useful:
            self.pending, self.fresh = self.pending + self.fresh, []

    def withdraw(self) -> None:
        """The newest fragment never went out."""
        self.fresh = self.fresh[:-1]

    @property
    def useful(self) -> bool:
        """Whether one more cannot be in vain, whatever has arrived."""
        return len(self.fresh) < (1 if self.pending else self.missing)

    def choose(self) -> int:
        """The number of the fragment to send next; it counts as sent."""
        number = self._never_arrived() or self._likeliest()
        self.fresh.append(number)
        return number

    def _row(self, number: int) -> int:
        coded = number - self.count
        return 1 << (number - 1) if coded <= 0 else parity_row(coded, self.count, self.package)

    def _never_arrived(self) -> int | None:
        """An uncoded fragment that what may have arrived does not already tell."""
        doubtful = [number for numbers, _ in self.unsure for number in numbers]
        told = _Span(map(self._row, self.held + doubtful + self.pending + self.fresh))
        lacking = [number for number in range(1, self.count + 1) if 1 << (number - 1) not in told]
        return min(lacking, key=lambda number: (self.idle.count(number), number), default=None)

    def _likeliest(self) -> int:
        """What is new in most of the cases that agree with the node's words, each as likely as what was in vain."""
        groups = [*self.unsure, (self.pending, self.missing - 1)] if self.pending else self.unsure
        ways = product(*(combinations(numbers, min(k, len(numbers))) for numbers, k in groups))
        vain = [self._row(number) for number in self.idle]
        cases: list[tuple[_Span, float]] = []
        for way in islice(ways, HYPOTHESES):
            case = _Span(self._row(number) for number in (*self.held, *(n for group in way for n in group)))
            if case.rank != self.count - self.missing and not self.pending:
                continue  # Not what the node said.
            likely = LOST ** sum(row not in case for row in vain)
            for number in self.fresh:
                case.add(self._row(number))
            cases.append((case, likely))

        def promise(number: int) -> tuple[float, int]:
            row = self._row(number)
            return sum(likely for case, likely in cases if row not in case), -number

        return max(range(1, self.count + CODED + 1) if self.count > 1 else range(1, 2), key=promise)


class _Span:
    """Everything that some rows over GF(2) combine to."""

    def __init__(self, rows: Iterable[int]) -> None:
        self._pivots: dict[int, int] = {}
        for row in rows:
            self.add(row)

    def add(self, row: int) -> None:
        """One more of them."""
        rest = self._reduce(row)
        if rest:
            self._pivots[rest & -rest] = rest

    @property
    def rank(self) -> int:
        """Fragments that they restore."""
        return len(self._pivots)

    def _reduce(self, row: int) -> int:
        for pivot in sorted(self._pivots):
            if row & pivot:
                row ^= self._pivots[pivot]
        return row

    def __contains__(self, row: int) -> bool:
        return not self._reduce(row)
