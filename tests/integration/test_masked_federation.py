"""A masked round on real Flower processes, one SuperNode killed after it has offered its key, up to the release.

Six gateways' own SuperNodes and one bare one, which runs what the server ships: an app that ends it between two
messages, and would steal from the others if they ran it. Sites of the same rules add up with one another. The rest of
the cohort that lost a member is asked again with fresh keys, and what the server then holds is, bit for bit, the plain
sums of the stores that are left, by cohort. From these it makes the release that the plain sums would have made.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from privacy_cases import disclosures, make_farm
from server_cases import KEY, new_store, random_image

import noria.federation
from gateway.config import Federation, GatewaySettings, NetworkServer, Privacy
from gateway.sums import load_sums
from gateway.supernode import supernode_command, supernode_environment
from server import improvement, releases
from server.config import FederationSection, PrivacySection, ServerSettings, SuperLinkSection
from server.federation import cohorts, site_sums, sums_hash
from server.releases import Release
from server.strategy import total_of
from server.superlink import SuperLink
from server.verification import verify
from shared_models.moments import PHI, TARGET_CLASS, TARGET_NAMES, Sums
from shared_models.network import head_weights, quantise_head
from shared_models.ridge import Choice, Subspace, solve

STRICT, LENIENT = ("ariana", "bizerte", "champion", "doomed"), ("essaouira", "fez", "gabes")
SITES = STRICT + LENIENT
COHORTS = {"cohort 1": STRICT[:3], "cohort 2": LENIENT}
BACKBONE = random_image().backbone_id

CLIENT_APP = """
import os
import signal

import gateway.federation

app = gateway.federation.app
answer = gateway.federation.answer_masked

def answer_or_die(place, question, state):
    if place.store.stem == "doomed":
        os.killpg(os.getpgid(0), signal.SIGKILL)
    place.store.with_suffix(".stolen").write_bytes(place.store.read_bytes())
    return answer(place, question, state)

gateway.federation.answer_masked = answer_or_die
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def running(superlink: SuperLink) -> AsyncIterator[None]:
    up = asyncio.Event()
    task = asyncio.create_task(superlink.keep_running(lambda is_up: up.set() if is_up else None))
    try:
        await asyncio.wait_for(up.wait(), 60)
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.contextmanager
def supernodes(superlink: SuperLink, folder: Path) -> Iterator[dict[str, subprocess.Popen]]:
    processes = {}
    try:
        for site in SITES:
            home = folder / f"home-{site}"
            home.mkdir()
            federation = Federation(superlink=superlink.address, insecure=True, home=home)
            gateway = GatewaySettings(
                site=site,
                store=folder / f"{site}.db",
                network=NetworkServer(application="app"),
                federation=federation,
                nodes=[],
            )
            bare = superlink.environment() | {"FLWR_HOME": str(home)}
            environment = bare if site == "doomed" else supernode_environment(gateway, federation)
            with (folder / f"{site}.log").open("wb") as log:
                processes[site] = subprocess.Popen(
                    supernode_command(gateway, federation, free_port()),
                    env=environment | {"TMPDIR": str(home)},
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        yield processes
    finally:
        for process in processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


async def _round(folder: Path) -> tuple[dict[str, Any], sqlite3.Connection, int | None]:
    app = shutil.copytree(
        Path(noria.federation.__file__).parent, folder / "app", ignore=shutil.ignore_patterns("__pycache__")
    )
    (app / "client_app.py").write_text(CLIENT_APP, encoding="utf-8")
    settings = ServerSettings(
        state_dir=folder / "state",
        key_file=folder / "key",
        superlink=SuperLinkSection(port=free_port()),
        federation=FederationSection(
            minimum_sites=2,
            expected_sites=len(SITES),
            wait_s=60,
            reply_timeout_s=60,
            app=app,
            privacy=PrivacySection(masking=True, patience=1.0),
        ),
    )
    settings.state_dir.mkdir()
    connection = new_store(settings.state_dir)
    superlink = SuperLink(settings.state_dir / "flower", settings.superlink.port)
    async with running(superlink):
        with supernodes(superlink, folder) as processes:
            outcome = await improvement.improve(
                connection,
                settings,
                KEY,
                lambda: 5_000,
                lambda run_config: superlink.run(app, run_config, 240),
                asyncio.Lock(),
            )
            return outcome, connection, processes["doomed"].poll()


def traces(written: dict[str, bytes], sums: Sums) -> list[str]:
    """Files that hold a row of these sums as the store and Flower write numbers; a page may end within the whole."""
    rows = [row.astype("<i8").tobytes() for name in ("gram", "moment") for row in getattr(sums, name).reshape(-1, PHI)]
    rows.append(sums.energy.astype("<i8").tobytes())
    return [name for name, content in written.items() if any(row in content for row in rows)]


def solved_from(total: Sums, base: Release, evidence: dict[str, Any]) -> bytes:
    """The quantised head that these sums teach, as strongly as the gate found right."""
    rows = head_weights(base.image).copy()
    for target, seen in enumerate(evidence["targets"]):
        assert seen["target"] == TARGET_NAMES[target]
        if seen["decision"] == "updated":
            choice = Choice(Subspace(seen["subspace"]), seen["strength_windows"])
            rows[target] = solve(total, target, rows[target], choice)
    return quantise_head(base.image, rows, total.gram[list(TARGET_CLASS)]).head_bytes


@pytest.mark.timeout(300)
def test_cohorts_add_up_exactly_without_a_member_that_was_killed_and_become_a_release(tmp_path: Path) -> None:
    for seed, site in enumerate(SITES):
        rules = Privacy(masking_required=True, accept_changes=site in LENIENT)
        make_farm(tmp_path / f"{site}.db", site, seed, rules, backbone=BACKBONE)

    outcome, connection, doomed = asyncio.run(_round(tmp_path))

    assert doomed == -signal.SIGKILL
    alone = {site: load_sums(tmp_path / f"{site}.db", BACKBONE).sums for site in SITES}
    plain = {name: total_of(alone[site] for site in members) for name, members in COHORTS.items()}
    assert {entry.site: entry.sums for entry in site_sums(connection, outcome["round"])} == plain
    assert [(entry.members, entry.contributors) for entry in site_sums(connection, outcome["round"])] == [(3, 12)] * 2
    verdicts = {row["site"]: row["verdict"] for row in connection.execute("SELECT site, verdict FROM replies")}
    assert verdicts == dict.fromkeys(SITES, "accepted") | {"doomed": "silent"}
    counters = {row["name"]: row["value"] for row in connection.execute("SELECT * FROM counters")}
    assert counters["federation.cohorts_retried"] == 1
    assert "federation.cohorts_given_up" not in counters
    assert cohorts(connection, BACKBONE) == {name: frozenset(members) for name, members in COHORTS.items()}
    for members in COHORTS.values():
        for site in members:
            assert [json.loads(cohort) for cohort, _ in disclosures(tmp_path / f"{site}.db")] == [list(members)]
    assert disclosures(tmp_path / "doomed.db") == []
    assert list(tmp_path.glob("*.stolen")) == [], "a gateway runs its own ClientApp, not the server's"

    # The release: the one that the plain sums make, signed, and saying what it was made of.
    assert (outcome["verdict"], outcome["version"]) == ("passed", 2), outcome
    base, release = releases.find(connection, 1), releases.find(connection, 2)
    assert release.image.head_bytes == solved_from(total_of(plain.values()), base, release.evidence)
    assert release.image.head_bytes != base.image.head_bytes
    assert [entry.problems for entry in verify(connection, [KEY.public])] == [(), ()]
    assert release.provenance["sites"] == {
        name: {
            "contributors": 12,
            "windows": int(total.count.sum()),
            "sums_hash": sums_hash(total),
            "members": 3,
            "masked": True,
        }
        for name, total in plain.items()
    }
    assert "leaving one cohort out" in release.provenance["method"]
    for seen in release.evidence["targets"]:
        assert seen["sites"].keys() == COHORTS.keys(), "no figure of a single site"

    # Neither the store nor anything else that the server and its SuperLink have written holds what a site alone knows.
    state = tmp_path / "state"
    written = {path.relative_to(state).as_posix(): path.read_bytes() for path in state.rglob("*") if path.is_file()}
    assert "flower/superlink.db" in written
    for name, total in plain.items():
        assert "server.db" in {Path(file).stem + ".db" for file in traces(written, total)}, f"{name} is to be found"
    for site, sums in alone.items():
        assert traces(written, sums) == [], site
