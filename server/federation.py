"""The Flower ServerApp: one federated round, from asking the SuperNodes to the sums in the store.

The running server opens a row in ``rounds``, starts ``flwr run`` with its number, and reads what this app, a
process of its own, has committed when the run has ended. The app never sees the signing key.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.serverapp import Grid, ServerApp

from server import lock, store, supernodes
from server.masked import MaskedSums
from server.strategy import SHAPES, Collected, Conditions, SiteSums, SumStatistics, exchange, gather
from shared_models.moments import Sums

REMEMBERED_ROUNDS = 100
"""How far back :func:`earlier_sums` looks."""

LOCK_FILE = "round.lock"
"""Held while a run asks and waits: a run that outlived its server must end before the next one asks."""

app = ServerApp()


@app.main()  # type: ignore[untyped-decorator]  # flwr is not checked
def main(grid: Grid, context: Context) -> None:
    """Carry out the round named in the run's configuration."""
    options = context.run_config
    database = Path(str(options["state-dir"])) / "server.db"
    number = int(options["round"])

    def ask(messages: Iterable[Message], patience: float | None = None) -> list[Message]:
        return exchange(grid, messages, float(options["reply-timeout-s"]), float(options["poll-s"]), patience)

    with (
        lock.hold(database.with_name(LOCK_FILE), float(options["wait-s"])),
        closing(store.connect(database)) as connection,
    ):
        backbone = int(options["backbone"])
        conditions = Conditions(
            int(options["minimum-contributors"]), int(options["minimum-windows"]), bool(options["accept-noise"])
        )
        registered = supernodes.sites_by_node(connection) if bool(options["keys"]) else None
        if options["masking"]:
            masked = MaskedSums(
                backbone,
                conditions,
                int(options["cohort-size"]),
                cohorts(connection, backbone),
                partial(ask, patience=float(options["patience"])),
                registered,
            )
            nodes = gather(grid, int(options["expected-sites"]), float(options["wait-s"]))
            keep(connection, number, masked.collect(nodes))
            return
        strategy = SumStatistics(
            backbone=backbone,
            conditions=conditions,
            expected_sites=int(options["expected-sites"]),
            wait_s=float(options["wait-s"]),
            keep=lambda _, collected: keep(connection, number, collected),
            sites=registered,
        )
        strategy.summary()
        questions = strategy.configure_train(number, ArrayRecord(), ConfigRecord(), grid)
        strategy.aggregate_train(number, ask(questions))


def keep(connection: sqlite3.Connection, number: int, collected: Collected) -> None:
    """Commit what a round brought, all at once; a round that is not waiting for it is left alone."""
    with store.transaction(connection):
        row = connection.execute("SELECT state, backbone_id FROM rounds WHERE id = ?", (number,)).fetchone()
        if row is None or row["state"] != "asking":
            raise store.StoreError(f"round {number} is not waiting for replies")
        connection.executemany(
            "INSERT INTO replies (round, node_id, site, verdict, reason) VALUES (?, ?, ?, ?, ?)",
            [(number, str(entry.node_id), entry.site, entry.verdict, entry.reason) for entry in collected.verdicts],
        )
        connection.executemany(
            "INSERT INTO site_sums (round, site, contributors, windows, gram, moment, energy, count, members, noise)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    *(number, entry.site, entry.contributors, entry.windows),
                    *(_bytes(entry, name) for name in SHAPES),
                    *(entry.members, entry.noise),
                )
                for entry in collected.sites
            ],
        )
        for name, sites in collected.cohorts:
            connection.execute("DELETE FROM cohorts WHERE backbone_id = ? AND cohort = ?", (row["backbone_id"], name))
            connection.executemany(
                "INSERT INTO cohorts (backbone_id, cohort, site) VALUES (?, ?, ?)",
                [(row["backbone_id"], name, site) for site in sorted(sites)],
            )
        connection.execute(
            "UPDATE rounds SET state = 'collected', asked = ?, accepted = ?, rejected = ?, silent = ?,"
            " contributors = ?, windows = ? WHERE id = ?",
            (
                len(collected.verdicts),
                collected.tally("accepted"),
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
        for name, tally in (("given_up", collected.given_up), ("retried", collected.retried)):
            if tally:
                store.count(connection, f"federation.cohorts_{name}", tally)


def site_sums(connection: sqlite3.Connection, number: int) -> list[SiteSums]:
    """The sums a round collected, sorted by site."""
    rows = connection.execute("SELECT * FROM site_sums WHERE round = ? ORDER BY site", (number,))
    return [
        SiteSums(row["site"], row["contributors"], row["windows"], _read(row), row["members"], row["noise"])
        for row in rows
    ]


def sums_hash(sums: Sums) -> str:
    """BLAKE2b-256 over a site's sums as the store keeps them, hex: by it a release names what it was learned from."""
    whole = hashlib.blake2b(digest_size=32)
    for name in SHAPES:
        whole.update(np.ascontiguousarray(getattr(sums, name), "<i8").tobytes())
    return whole.hexdigest()


def earlier_sums(connection: sqlite3.Connection, number: int, sites: Sequence[SiteSums]) -> dict[str, Sums]:
    """What each site had sent in an earlier round for the same backbone, when it had about half its windows."""
    known = connection.execute(
        "SELECT round, site, windows FROM site_sums WHERE round IN (SELECT id FROM rounds WHERE id < ? AND"
        " backbone_id = (SELECT backbone_id FROM rounds WHERE id = ?) ORDER BY id DESC LIMIT ?) ORDER BY round",
        (number, number, REMEMBERED_ROUNDS),
    )
    wanted = {entry.site: entry.windows / 2 for entry in sites}
    nearest: dict[str, tuple[float, int]] = {}
    for row in known:
        if row["site"] in wanted:
            distance = abs(row["windows"] - wanted[row["site"]])
            nearest[row["site"]] = min(nearest.get(row["site"], (distance, row["round"])), (distance, row["round"]))
    found = {}
    for site, (_, earlier) in sorted(nearest.items()):
        row = connection.execute("SELECT * FROM site_sums WHERE round = ? AND site = ?", (earlier, site)).fetchone()
        found[site] = _read(row)
    return found


def _read(row: sqlite3.Row) -> Sums:
    return Sums(
        **{
            name: np.frombuffer(row[name], dtype="<i8").astype(np.int64).reshape(shape)
            for name, shape in SHAPES.items()
        }
    )


def cohorts(connection: sqlite3.Connection, backbone: int) -> dict[str, frozenset[str]]:
    """The cohorts whose total of a backbone has been asked for, as they last were."""
    found: dict[str, frozenset[str]] = {}
    for row in connection.execute("SELECT cohort, site FROM cohorts WHERE backbone_id = ?", (backbone,)):
        found[row["cohort"]] = found.get(row["cohort"], frozenset()) | {row["site"]}
    return found


def _bytes(entry: SiteSums, name: str) -> bytes:
    return np.ascontiguousarray(getattr(entry.sums, name)).astype("<i8").tobytes()
