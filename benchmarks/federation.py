"""What a round costs: 10, 100 and 1,000 gateways in Flower's simulation, a million nodes' statistics, real processes.

The simulation runs the very ServerApp and ClientApp of noria/federation on Ray (pip install 'noria[simulation]'),
each gateway with a SQLite store of its own. Without Ray that part is left out and says so.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import resource
import shutil
import sqlite3
import statistics as figures
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks.fleet import Fleet, statistics, truth, until
from gateway.config import GatewaySettings, NetworkServer
from gateway.store import Store
from gateway.sums import load_sums
from server import improvement, releases, signing, store
from server.config import FederationSection, ServerSettings
from server.service import initialise

GATEWAYS = (10, 100, 1000)
ROUNDS = 4
NODES = 8
"""Per gateway, a season each."""
POOL = 64
"""Different statistics among them."""
WINDOWS = 60
ALL_NODES = 1_000_000
REAL_ROUNDS = 5
SAMPLE_S = 0.5
RUN_TIMEOUT_S = 900
STAGES = {"ServerApp starts": "flwr-serverapp", "ClientApps start": "flwr-clientapp"}
ROOT = Path(__file__).parents[1]


def measure() -> dict[str, Any]:
    """Everything, each part in processes of its own."""
    with tempfile.TemporaryDirectory(prefix="federation-") as name:
        folder = Path(name)
        simulated = [simulate(folder / str(size), size) for size in GATEWAYS] if has_ray() else "Ray is not installed"
        return {
            "simulation": simulated,
            "million_nodes": [_in_own_process("sum", folder / f"nodes-{nodes}", nodes) for nodes in (1000, ALL_NODES)],
            "two_supernodes": real_rounds(folder / "real"),
        }


def has_ray() -> bool:
    return importlib.util.find_spec("ray") is not None


def _in_own_process(what: str, folder: Path, size: int) -> dict[str, Any]:
    folder.mkdir()
    command = [sys.executable, "-m", "benchmarks.federation", what, str(folder), str(size)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "FLWR_HOME": str(folder),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with (folder / "log").open("wb") as log:
        done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, cwd=ROOT)
        with peak_of(done.pid) as peak:
            out, _ = done.communicate(timeout=RUN_TIMEOUT_S)
    if done.returncode:
        raise RuntimeError((folder / "log").read_text(errors="replace")[-2000:])
    result: dict[str, Any] = json.loads(out.decode().splitlines()[-1])
    shutil.rmtree(folder)
    return result | {"peak_memory_mb": round(max(peak) / 1e6)}


@contextlib.contextmanager
def peak_of(pid: int) -> Iterator[list[int]]:
    """Samples of the proportional memory of a process and all below it."""
    samples, stop = [0], threading.Event()

    def sample() -> None:
        while not stop.wait(SAMPLE_S):
            with contextlib.suppress(psutil.Error):
                root = psutil.Process(pid)
                samples.append(sum(_pss(process) for process in (root, *root.children(recursive=True))))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


# Gateways' stores


def make_store(path: Path, site: str, nodes: int) -> None:
    """A gateway's store with the snapshots of so many nodes."""
    settings = GatewaySettings(site=site, store=path, network=NetworkServer(application="app"), nodes=[])
    with Store(path) as made:
        made.configure(settings)
    pool = [statistics(seed, WINDOWS, truth()) for seed in range(POOL)]
    rows = [(snapshot.encode(), int(snapshot.count.sum())) for snapshot in pool]
    backbone = releases_backbone(path.parent)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO snapshots VALUES (?, ?, 2026, 1, ?, 1, ?)",
            ((f"{node:016x}", backbone, rows[node % POOL][1], rows[node % POOL][0]) for node in range(nodes)),
        )
        db.execute("COMMIT")


def releases_backbone(folder: Path) -> int:
    """The backbone of the server beside these stores; one is made where there is none."""
    settings = server_settings(folder, 2)
    if not settings.database.is_file():
        signing.generate(settings.key_file, seed=bytes(range(32)))
        return initialise(settings, 1).backbone_id
    with contextlib.closing(store.connect(settings.database)) as connection:
        return releases.find(connection, "latest").backbone_id


def server_settings(folder: Path, sites: int) -> ServerSettings:
    return ServerSettings(
        state_dir=folder / "server",
        key_file=folder / "operator.key",
        federation=FederationSection(minimum_sites=2, expected_sites=sites, wait_s=60, reply_timeout_s=300),
    )


# The simulation


def simulate(folder: Path, gateways: int) -> dict[str, Any]:
    """Rounds with so many gateways, from the question to the sums in the store; what the gate costs is its own."""
    return _in_own_process("simulate", folder, gateways)


def run_simulated(folder: Path, gateways: int) -> dict[str, Any]:
    """The body of a simulation, in a process that ends after it."""
    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.simulation import run_simulation

    from gateway.federation import train
    from server.federation import main as hold_round

    made = time.monotonic()
    make_store(folder / "template.db", "template", NODES)
    for number in range(gateways):
        path = folder / f"{number}.db"
        shutil.copy(folder / "template.db", path)
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.execute("PRAGMA synchronous = OFF")
            db.execute("UPDATE meta SET value = ? WHERE key = 'site'", (f"site-{number}",))
    made = time.monotonic() - made
    settings = server_settings(folder, gateways)
    connection = store.connect(settings.database)
    seconds: list[float] = []

    def place(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        """Tell each simulated SuperNode where its gateway's store is, as ``--node-config`` does."""
        context.node_config["store"] = str(folder / f"{context.node_config['partition-id']}.db")
        return call_next(message, context)

    client_app = ClientApp(mods=[place])
    client_app.train()(train)
    server_app = ServerApp()

    @server_app.main()  # type: ignore[untyped-decorator]
    def main(grid: Grid, context: Context) -> None:
        with contextlib.closing(store.connect(settings.database)) as own:  # this runs in a thread
            base = releases.find(own, "latest")
            for _ in range(ROUNDS):
                started = time.monotonic()
                number = improvement._open_round(own, base, 1)
                context.run_config = improvement._run_config(settings, base, number)
                hold_round(grid, context)
                seconds.append(time.monotonic() - started)

    started = time.monotonic()
    cores = os.cpu_count() or 1
    run_simulation(
        server_app,
        client_app,
        num_supernodes=gateways,
        backend_config={
            "init_args": {"num_cpus": cores, "include_dashboard": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    whole_s = time.monotonic() - started
    rows = connection.execute("SELECT * FROM rounds ORDER BY id").fetchall()
    assert [row["accepted"] for row in rows] == [gateways] * ROUNDS, [dict(row) for row in rows]
    return {
        "gateways": gateways,
        "nodes": gateways * NODES,
        "first_round_s": round(seconds[0], 2),
        "later_rounds_s": round(figures.median(seconds[1:]), 2),
        "ms_per_gateway": round(1000 * figures.median(seconds[1:]) / gateways, 2),
        "start_of_ray_s": round(whole_s - sum(seconds), 1),
        "stores_made_s": round(made, 1),
    }


# A million nodes


def sum_nodes(folder: Path, nodes: int) -> dict[str, Any]:
    """One store with so many nodes' snapshots, added up as a ClientApp does."""
    path = folder / "gateway.db"
    make_store(path, "champion", nodes)
    backbone = releases_backbone(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, spent = time.monotonic(), time.process_time()
    farm = load_sums(path, backbone)
    seconds, cpu_s = time.monotonic() - started, time.process_time() - spent
    assert farm.contributors == nodes
    return {
        "nodes": nodes,
        "store_mb": round(path.stat().st_size / 1e6),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_s, 2),
        "us_per_node": round(1e6 * cpu_s / nodes, 1),
        "memory_grew_mb": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1),
    }


# Real processes


def real_rounds(folder: Path) -> dict[str, Any]:
    """Where the time of a round with two SuperNodes goes."""
    folder.mkdir()
    fleet = Fleet(folder, ("champion", "tunis"))
    stages: dict[str, list[float]] = {name: [] for name in (*STAGES, "collected", "decided")}
    with fleet.running():
        fleet.feed(0, WINDOWS)
        until(lambda: len(fleet.processes("flower-superexec")) == 3, "the SuperNodes are ready")
        for _ in range(REAL_ROUNDS):
            known = {process.pid for name in STAGES.values() for process in fleet.processes(name)}
            started = time.monotonic()
            command = fleet.ask()
            for stage, program in STAGES.items():
                until(lambda program=program, known=known: {p.pid for p in fleet.processes(program)} - known, stage)
                stages[stage].append(time.monotonic() - started)
            until(lambda: fleet.round_state() in ("collected", "released", "refused"), "collected")
            stages["collected"].append(time.monotonic() - started)
            state, result = fleet.answer(command)
            stages["decided"].append(time.monotonic() - started)
            assert state == "done", result
    return {
        "rounds": REAL_ROUNDS,
        "seconds_since_asked": {name: round(figures.median(times), 1) for name, times in stages.items()},
        "slowest_s": round(max(stages["decided"]), 1),
    }


if __name__ == "__main__":
    part = {"simulate": run_simulated, "sum": sum_nodes}[sys.argv[1]]
    print(json.dumps(part(Path(sys.argv[2]), int(sys.argv[3]))))
