"""The Flower ServerApp: one federated round, from asking the SuperNodes to the sums in the store.

The running server opens a row in ``rounds``, starts ``flwr run`` with its number, and reads what this app, a
process of its own, has committed when the run has ended. The app never sees the signing key.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

from server import lock, store
from server.strategy import SHAPES, Collected, Conditions, SiteSums, SumStatistics, exchange
from shared_models.moments import Sums

LOCK_FILE = "round.lock"
"""Held while a run asks and waits: a run that outlived its server must end before the next one asks."""

app = ServerApp()


@app.main()  # type: ignore[untyped-decorator]  # flwr is not checked
def main(grid: Grid, context: Context) -> None:
    """Carry out the round named in the run's configuration."""
    options = context.run_config
    database = Path(str(options["state-dir"])) / "server.db"
    number = int(options["round"])
    with (
        lock.hold(database.with_name(LOCK_FILE), float(options["wait-s"])),
        closing(store.connect(database)) as connection,
    ):
        strategy = SumStatistics(
            backbone=int(options["backbone"]),
            conditions=Conditions(int(options["minimum-contributors"]), int(options["minimum-windows"])),
            expected_sites=int(options["expected-sites"]),
            wait_s=float(options["wait-s"]),
            keep=lambda _, collected: keep(connection, number, collected),
        )
        strategy.summary()
        questions = strategy.configure_train(number, ArrayRecord(), ConfigRecord(), grid)
        replies = exchange(grid, questions, float(options["reply-timeout-s"]), float(options["poll-s"]))
        strategy.aggregate_train(number, replies)


def keep(connection: sqlite3.Connection, number: int, collected: Collected) -> None:
    """Commit what a round brought, all at once; a round that is not waiting for it is left alone."""
    with store.transaction(connection):
        row = connection.execute("SELECT state FROM rounds WHERE id = ?", (number,)).fetchone()
        if row is None or row["state"] != "asking":
            raise store.StoreError(f"round {number} is not waiting for replies")
        connection.executemany(
            "INSERT INTO replies (round, node_id, site, verdict, reason) VALUES (?, ?, ?, ?, ?)",
            [(number, str(entry.node_id), entry.site, entry.verdict, entry.reason) for entry in collected.verdicts],
        )
        connection.executemany(
            "INSERT INTO site_sums (round, site, contributors, windows, gram, moment, energy, count)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (number, entry.site, entry.contributors, entry.windows, *(_bytes(entry, name) for name in SHAPES))
                for entry in collected.sites
            ],
        )
        connection.execute(
            "UPDATE rounds SET state = 'collected', asked = ?, accepted = ?, rejected = ?, silent = ?,"
            " contributors = ?, windows = ? WHERE id = ?",
            (
                len(collected.verdicts),
                len(collected.sites),
                collected.tally("rejected"),
                collected.tally("silent"),
                sum(entry.contributors for entry in collected.sites),
                sum(entry.windows for entry in collected.sites),
                number,
            ),
        )
        for verdict in ("accepted", "rejected", "silent"):
            if tally := collected.tally(verdict):
                store.count(connection, f"federation.replies_{verdict}", tally)


def site_sums(connection: sqlite3.Connection, number: int) -> list[SiteSums]:
    """The sums a round collected, sorted by site."""
    rows = connection.execute("SELECT * FROM site_sums WHERE round = ? ORDER BY site", (number,))
    return [
        SiteSums(
            row["site"],
            row["contributors"],
            row["windows"],
            Sums(
                **{
                    name: np.frombuffer(row[name], dtype="<i8").astype(np.int64).reshape(shape)
                    for name, shape in SHAPES.items()
                }
            ),
        )
        for row in rows
    ]


def _bytes(entry: SiteSums, name: str) -> bytes:
    return np.ascontiguousarray(getattr(entry.sums, name)).astype("<i8").tobytes()
