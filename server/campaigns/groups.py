"""How a campaign's nodes are divided into groups: a list as operators write it, or a canary and a growth."""

from __future__ import annotations

import math
from collections.abc import Sequence

GROUP_PATTERN = r"^([1-9][0-9]{0,6}|(100|[1-9][0-9]?)(\.[0-9]{1,3})?%|0\.[0-9]{0,2}[1-9]%)$"
"""A number of nodes, or a share of the nodes left."""


class GroupError(ValueError):
    """A division that leaves nodes out; the text says so."""


def growing(nodes: int, canary: int, growth: float) -> list[int]:
    """Sizes of the groups: the canary, then each ``growth`` times the one before, until all nodes have one."""
    sizes: list[int] = []
    size = float(canary)
    while nodes > 0:
        sizes.append(min(nodes, max(1, math.floor(size))))
        nodes -= sizes[-1]
        size *= growth
    return sizes


def listed(nodes: int, groups: Sequence[str]) -> list[int]:
    """Sizes of the groups of a list such as ``["1", "10%", "100%"]``: numbers, or shares of the nodes left, rounded up.

    Groups for which no node is left do not exist.

    Raises:
        GroupError: nodes are left over.
    """
    left, sizes = nodes, []
    for group in groups:
        if left == 0:
            break
        share = group.endswith("%")
        wanted = math.ceil(left * min(float(group[:-1]), 100.0) / 100 - 1e-9) if share else int(group)
        sizes.append(min(left, max(1, wanted)))
        left -= sizes[-1]
    if left:
        raise GroupError(f"{left} of {nodes} nodes are in none of the groups; let the last be 100%")
    return sizes
