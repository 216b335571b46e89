"""Who adds up with whom under masks, round after round.

A cohort, once its total is known, stays as it is. Sums are cumulative: the totals of two cohorts that differ in one
site tell that site's sums, and cohorts drawn anew in each round tell everybody's after a few. Sites that were in no
total yet are put together at random, at least ``cohort_size`` of them; fewer wait. A cohort that lacks a member waits
for it, unless every member that is there accepts the change. So, without such members, all totals ever learned are
about disjoint sets of at least three sites.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from random import Random

from shared_models.masking import MINIMUM_COHORT, Rule

_random: Random = secrets.SystemRandom()


@dataclass(frozen=True)
class Plan:
    """What to try in a round."""

    cohorts: Mapping[str, frozenset[str]]
    """Sites by the cohort's name."""
    waiting: Mapping[str, str]
    """Why a site that is there is in none of them, by site."""


def plan(
    known: Mapping[str, frozenset[str]], present: Mapping[str, int], cohort_size: int, random: Random = _random
) -> Plan:
    """Decide who adds up with whom.

    Args:
        known: Cohorts of this backbone that had a total, by name.
        present: Sites that offered a key, and their :class:`shared_models.masking.Rule` bits.
        cohort_size: The least sites of a new cohort.
        random: Shuffles sites that were in no total yet.
    """
    cohorts: dict[str, frozenset[str]] = {}
    waiting: dict[str, str] = {}
    here = frozenset(present)
    lenient = {site for site, rules in present.items() if Rule.ACCEPTS_CHANGES in Rule(rules)}
    for name, members in known.items():
        left = members & here
        if may_go_on(members, left, lenient):
            cohorts[name] = left
        else:
            absent = ", ".join(sorted(members - here))
            waiting |= dict.fromkeys(left, f"{name} waits for {absent}: without it the total would tell its sums")
    number = 1 + max((int(name.rpartition(" ")[2]) for name in known), default=0)
    new = sorted(here.difference(*known.values()))
    for rules in sorted({present[site] for site in new}):
        alike = [site for site in new if present[site] == rules]
        random.shuffle(alike)
        groups = len(alike) // cohort_size
        for group in range(groups):
            cohorts[f"cohort {number}"] = frozenset(alike[group::groups])
            number += 1
        if not groups:
            waiting |= dict.fromkeys(
                alike, f"{len(alike)} sites with the same rules wait for a cohort of {cohort_size}"
            )
    return Plan(cohorts, waiting)


def may_go_on(members: Collection[str], left: Collection[str], lenient: Collection[str]) -> bool:
    """Whether what is left of a cohort that had a total may have another."""
    return len(left) >= MINIMUM_COHORT and (len(left) == len(members) or set(left) <= set(lenient))
