"""A federated round on real Flower processes: a SuperLink, SuperNodes, and ``flwr run``.

Four SuperNodes answer: two farms with sums that agree, one that sends NaN, one that sends a wrong shape. The two bad
ones are refused, counted and named; the good ones become a signed release.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import psutil
from server_cases import KEY, new_store, random_image, shared_truth, sums_of

import noria.federation
from server import improvement, releases
from server.config import FederationSection, ServerSettings, SuperLinkSection
from server.superlink import SuperLink
from shared_models.codes import Board
from shared_models.container import Receiver, open_container
from shared_models.network import ModelImage

# The real app with another ClientApp: sums from a file, spoiled as the node's configuration says.
CLIENT_APP = """
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(message, context):
    with np.load(str(context.node_config["sums"])) as stored:
        arrays = {name: stored[name] for name in ("gram", "moment", "energy", "count")}
    fault = str(context.node_config.get("fault", ""))
    if fault == "nan":
        arrays["gram"] = arrays["gram"].astype(np.float64)
        arrays["gram"][0, 0, 0] = np.nan
    elif fault == "shape":
        arrays["moment"] = arrays["moment"][:, :-1].copy()
    assert message.content["config"]["backbone"] > 0
    return Message(RecordDict({
        "sums": ArrayRecord({name: Array(array) for name, array in arrays.items()}),
        "counts": MetricRecord({"contributors": 4, "windows": int(arrays["count"].sum())}),
        "site": ConfigRecord({"site": str(context.node_config["site"]), "schema": 1}),
    }), reply_to=message)
"""
SITES = {"champion": "", "tunis": "", "broken-sensor": "nan", "old-version": "shape"}
START_TIMEOUT_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def app_folder(folder: Path) -> Path:
    """The project's Flower app, its ServerApp untouched."""
    app = shutil.copytree(
        Path(noria.federation.__file__).parent, folder / "app", ignore=shutil.ignore_patterns("__pycache__")
    )
    (app / "client_app.py").write_text(CLIENT_APP, encoding="utf-8")
    return app


@contextlib.asynccontextmanager
async def running(superlink: SuperLink) -> AsyncIterator[None]:
    up = asyncio.Event()
    task = asyncio.create_task(superlink.keep_running(lambda is_up: up.set() if is_up else None))
    try:
        await asyncio.wait_for(up.wait(), START_TIMEOUT_S)
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.contextmanager
def supernodes(superlink: SuperLink, folder: Path) -> Iterator[None]:
    processes = []
    try:
        for seed, (site, fault) in enumerate(SITES.items()):
            sums = sums_of(seed, shared_truth())
            path = folder / f"{site}.npz"
            np.savez(path, gram=sums.gram, moment=sums.moment, energy=sums.energy, count=sums.count)
            home = folder / f"home-{site}"
            home.mkdir()
            with (folder / f"{site}.log").open("wb") as log:
                processes.append(
                    subprocess.Popen(
                        [
                            *("flower-supernode", "--insecure", "--superlink", superlink.address),
                            *("--port", str(free_port())),
                            *("--node-config", f'sums="{path}" site="{site}" fault="{fault}"'),
                        ],
                        env=superlink.environment() | {"FLWR_HOME": str(home), "TMPDIR": str(home)},
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            # A SuperNode does not always wait for what it started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


async def _round(folder: Path) -> tuple[dict, object, list[dict]]:
    settings = ServerSettings(
        state_dir=folder / "state",
        key_file=folder / "key",
        superlink=SuperLinkSection(port=free_port()),
        federation=FederationSection(
            minimum_sites=2, expected_sites=len(SITES), wait_s=40, reply_timeout_s=60, app=app_folder(folder)
        ),
    )
    settings.state_dir.mkdir()
    connection = new_store(settings.state_dir)
    superlink = SuperLink(settings.state_dir / "flower", settings.superlink.port)
    async with running(superlink):
        with supernodes(superlink, folder):
            outcome = await improvement.improve(
                connection,
                settings,
                KEY,
                lambda: 5_000,
                lambda run_config: superlink.run(settings.federation.app, run_config, 120),
                asyncio.Lock(),
            )
    replies = [dict(row) for row in connection.execute("SELECT * FROM replies ORDER BY site")]
    return outcome, connection, replies


def test_a_round_refuses_nan_and_wrong_shapes_and_releases_what_the_others_agree_on(tmp_path: Path) -> None:
    outcome, connection, replies = asyncio.run(_round(tmp_path))

    assert outcome["verdict"] == "passed", outcome
    assert outcome["version"] == 2
    assert outcome["sites"] == ["champion", "tunis"]

    verdicts = {row["site"]: (row["verdict"], row["reason"]) for row in replies}
    assert verdicts["champion"] == verdicts["tunis"] == ("accepted", "")
    assert verdicts["broken-sensor"] == ("rejected", "gram: float64[3, 9, 9] instead of int64[3, 9, 9]")
    assert verdicts["old-version"] == ("rejected", "moment: int64[4, 8] instead of int64[4, 9]")
    row = connection.execute("SELECT * FROM rounds").fetchone()
    assert (row["state"], row["asked"], row["accepted"], row["rejected"], row["silent"]) == ("released", 4, 2, 2, 0)
    counters = {row["name"]: row["value"] for row in connection.execute("SELECT * FROM counters")}
    assert counters["federation.replies_rejected"] == 2

    release = releases.find(connection, 2)
    for artefact in connection.execute("SELECT container FROM artefacts WHERE version = 2"):
        image = open_container(artefact["container"], Receiver(Board.STM32L072, [KEY.public], 1, random_image()))
        assert isinstance(image, ModelImage)
        assert image.pack() == release.image.pack()

    assert left_over(tmp_path) == [], "no process outlives the round"
    assert not (tmp_path / "state" / "flower" / "tmp").exists()


def left_over(folder: Path) -> list[str]:
    """Processes that know of ``folder``; one just killed may take a moment to go."""
    deadline = time.monotonic() + 5
    while (found := [entry.name() for entry in psutil.process_iter() if _knows(entry, folder)]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.1)
    return found


def _knows(process: psutil.Process, folder: Path) -> bool:
    try:
        return str(folder) in " ".join([*process.cmdline(), *process.environ().values()])
    except psutil.Error:
        return False
