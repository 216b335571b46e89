"""What has left this farm under masks or with noise, and whether more may.

A row is on disk before what it is about leaves. One transaction reads all earlier rows and adds the new one: two
answers at once cannot spend the same budget, and a kill leaves either a row for an answer nobody got, or neither.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from gateway.store import StoreError

MINIMUM_DIFFERENCE = 3
"""Sites that must have left, or joined, where any have: the difference of two totals tells the sum of theirs."""
ROUNDING = 1e-9
"""By so much of a budget equal parts of it may add up to more."""


class Withheld(RuntimeError):  # noqa: N818 - a verdict
    """An answer that would tell too much; the text says why."""


def check_budget(db: sqlite3.Connection, rho: float, budget_rho: float) -> None:
    """Refuse what would cost more than is left.

    Raises:
        Withheld: saying how many answers have been given.
    """
    spent, answers = db.execute("SELECT coalesce(sum(rho), 0), count(*) FROM disclosures WHERE rho > 0").fetchone()
    if spent + rho > budget_rho * (1 + ROUNDING):
        raise Withheld(f"the privacy budget is spent: {answers} answers cost {spent:.3g} of {budget_rho:.3g} zCDP")


def check_difference(db: sqlite3.Connection, backbone_id: int, cohort: Iterable[str]) -> None:
    """Refuse a cohort whose total, with an earlier one, would tell the sums of one or two sites.

    Raises:
        Withheld: naming the sites.
    """
    now = frozenset(cohort)
    rows = db.execute(
        "SELECT DISTINCT cohort FROM disclosures WHERE backbone_id = ? AND cohort IS NOT NULL", (backbone_id,)
    )
    for row in rows:
        before = frozenset(json.loads(row[0]))
        for sites, what in ((before - now, "left"), (now - before, "joined")):
            if 0 < len(sites) < MINIMUM_DIFFERENCE:
                raise Withheld(
                    f"{', '.join(sorted(sites))} {what} the cohort: the difference would tell"
                    f" the sums of fewer than {MINIMUM_DIFFERENCE} sites"
                )


@contextmanager
def disclosing(path: Path) -> Iterator[sqlite3.Connection]:
    """A transaction of its own beside the running gateway; committed, and on disk, when the context ends well.

    Raises:
        StoreError: the store is missing, locked for long, or cannot be written: then nothing may leave.
    """
    try:
        with closing(
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=30, isolation_level=None)
        ) as db:
            db.execute("PRAGMA synchronous=FULL")
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")
    except sqlite3.Error as error:
        raise StoreError(f"{path}: the disclosure could not be written down: {error}") from error


def record(
    db: sqlite3.Connection, time_s: int, backbone_id: int, *, cohort: Iterable[str] | None = None, rho: float = 0.0
) -> None:
    """Write a disclosure down."""
    names = None if cohort is None else json.dumps(sorted(cohort))
    db.execute(
        "INSERT INTO disclosures (time_s, backbone_id, cohort, rho) VALUES (?, ?, ?, ?)",
        (time_s, backbone_id, names, rho),
    )
