"""A masked round on real Flower processes, one SuperNode killed after it has offered its key.

Three gateways' own SuperNodes and one bare one, which runs what the server ships: an app that ends it between two
messages, and would steal from the other three if they ran it. The rest of the cohort is asked again with fresh keys,
and what the server then holds is, bit for bit, the plain sum of the three stores that are left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from gateway_cases import BACKBONE
from privacy_cases import disclosures, make_farm
from server_cases import KEY, new_store

import noria.federation
from gateway.config import Federation, GatewaySettings, NetworkServer, Privacy
from gateway.sums import load_sums
from gateway.supernode import supernode_command, supernode_environment
from server import improvement
from server.config import FederationSection, PrivacySection, ServerSettings, SuperLinkSection
from server.federation import cohorts, site_sums
from server.strategy import total_of
from server.superlink import SuperLink

SITES = ("ariana", "bizerte", "champion", "doomed")

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


async def _round(folder: Path) -> tuple[dict, object, int | None]:
    app = shutil.copytree(
        Path(noria.federation.__file__).parent, folder / "app", ignore=shutil.ignore_patterns("__pycache__")
    )
    (app / "client_app.py").write_text(CLIENT_APP, encoding="utf-8")
    settings = ServerSettings(
        state_dir=folder / "state",
        key_file=folder / "key",
        superlink=SuperLinkSection(port=free_port()),
        federation=FederationSection(
            expected_sites=len(SITES),
            wait_s=40,
            reply_timeout_s=60,
            app=app,
            privacy=PrivacySection(masking=True, patience=1.0),
        ),
    )
    settings.state_dir.mkdir()
    connection = new_store(settings.state_dir)
    superlink = SuperLink(settings.state_dir / "flower", settings.superlink.port)

    def about_our_statistics(run_config: dict) -> dict:
        return run_config | {"backbone": BACKBONE}

    async with running(superlink):
        with supernodes(superlink, folder) as processes:
            outcome = await improvement.improve(
                connection,
                settings,
                KEY,
                lambda: 5_000,
                lambda run_config: superlink.run(app, about_our_statistics(run_config), 240),
                asyncio.Lock(),
            )
            return outcome, connection, processes["doomed"].poll()


@pytest.mark.timeout(300)
def test_a_cohort_adds_up_exactly_without_a_member_that_was_killed(tmp_path: Path) -> None:
    for seed, site in enumerate(SITES):
        make_farm(tmp_path / f"{site}.db", site, seed, Privacy(masking_required=True))

    outcome, connection, doomed = asyncio.run(_round(tmp_path))

    assert doomed == -signal.SIGKILL
    left = SITES[:3]
    (total,) = site_sums(connection, outcome["round"])
    assert total.site == "cohort 1"
    assert total.sums == total_of(load_sums(tmp_path / f"{site}.db", BACKBONE).sums for site in left)
    assert (total.members, total.contributors) == (3, 12)
    verdicts = {row["site"]: row["verdict"] for row in connection.execute("SELECT site, verdict FROM replies")}
    assert verdicts == dict.fromkeys(left, "accepted") | {"doomed": "silent"}
    counters = {row["name"]: row["value"] for row in connection.execute("SELECT * FROM counters")}
    assert counters["federation.cohorts_retried"] == 1
    base = connection.execute("SELECT backbone_id FROM rounds").fetchone()[0]
    assert cohorts(connection, base) == {"cohort 1": frozenset(left)}
    assert [json.loads(cohort) for cohort, _ in disclosures(tmp_path / "ariana.db")] == [list(left)]
    assert disclosures(tmp_path / "doomed.db") == []
    assert list(tmp_path.glob("*.stolen")) == [], "a gateway runs its own ClientApp, not the server's"
    assert "1 sites answered usably" in outcome["message"], "one cohort cannot be left out"
