"""The ClientApp releases a farm's sums and nothing else; the SuperNode's processes end with the gateway."""

import contextlib
import os
import subprocess
import sys

import numpy as np
import psutil
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.supercore.constant import TASK_TYPE_TO_COMMAND
from flwr.supercore.task_identity import TaskIdentity
from gateway_cases import BACKBONE, NODES, START_S, snapshot, until

from gateway.config import GatewaySettings, NetworkServer, Node, Privacy
from gateway.federation import DEADLINE_EXIT_CODE, app, start_watchdog
from gateway.pinned import REFUSED, write_programs
from gateway.store import Store
from gateway.sums import NotEnough
from shared_models.moments import Snapshot, Sums


@pytest.fixture(autouse=True)
def as_in_a_task(monkeypatch):
    """Flower sets this identity in each process it starts for a message."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def store_with(path, contributors):
    nodes = [Node(dev_eui=dev_eui, name="n", crop="maize", board="stm32l072") for dev_eui in NODES]
    settings = GatewaySettings(
        site="champion",
        store=path,
        network=NetworkServer(application="app"),
        privacy=Privacy(minimum_contributors=3, minimum_windows=10),
        nodes=nodes,
    )
    expected = Sums.zero()
    with Store(path) as store:
        store.configure(settings)
        with store.transaction():
            for n, dev_eui in enumerate(NODES[:contributors]):
                payload = snapshot(np.random.default_rng(n), 8).encode()
                expected = expected.add(Snapshot.decode(payload))
                store.execute(
                    "INSERT INTO snapshots VALUES (?, ?, 2025, 1, 24, ?, ?)", (dev_eui, BACKBONE, START_S, payload)
                )
    return expected


def ask(path, backbone=BACKBONE):
    context = Context(
        run_id=1,
        node_id=2,
        node_config={"store": str(path), "site": "champion", "deadline": 30.0},
        state=RecordDict(),
        run_config={},
    )
    content = RecordDict({"config": ConfigRecord({"backbone": backbone, "round": 1})})
    return app(Message(content, dst_node_id=2, message_type="train"), context).content


def test_the_reply_is_the_sums_their_counts_and_the_site(tmp_path):
    expected = store_with(tmp_path / "gateway.db", contributors=3)
    reply = ask(tmp_path / "gateway.db")
    assert set(reply) == {"sums", "counts", "site"}
    assert Sums(**{name: reply["sums"][name].numpy() for name in ("gram", "moment", "energy", "count")}) == expected
    assert {reply["sums"][name].numpy().dtype for name in reply["sums"]} == {np.dtype(np.int64)}
    assert dict(reply["counts"]) == {"contributors": 3, "windows": 72}
    assert dict(reply["site"]) == {"site": "champion", "schema": 1, "backbone": BACKBONE}


@pytest.mark.parametrize(("contributors", "backbone"), [(2, BACKBONE), (4, BACKBONE + 1)])
def test_too_few_contributors_release_nothing(tmp_path, contributors, backbone):
    store_with(tmp_path / "gateway.db", contributors)
    with pytest.raises(NotEnough):
        ask(tmp_path / "gateway.db", backbone)


def test_flower_can_start_nothing_on_a_farm_but_its_own_client_app(tmp_path):
    write_programs(tmp_path)
    assert {program.name for program in tmp_path.iterdir()} == set(TASK_TYPE_TO_COMMAND.values())
    for name in REFUSED:
        refused = subprocess.run([tmp_path / name, "--token", "x"], capture_output=True, text=True, check=False)
        assert refused.returncode == 1
        assert "its own ClientApp and nothing else" in refused.stderr


def test_a_client_app_that_hangs_is_ended():
    codes = []
    start_watchdog(0.01, codes.append)
    until(lambda: codes, "the watchdog")
    assert codes == [DEADLINE_EXIT_CODE]


def test_everything_the_supernode_started_ends_when_the_gateway_does():
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(300)'])"
    command = [sys.executable, "-m", "gateway.supernode", sys.executable, "-c", script]
    guardian = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        family = until(
            lambda: (found := psutil.Process(guardian.pid).children(recursive=True)) and len(found) == 2 and found,
            "the SuperNode and its own child",
        )
        guardian.stdin.close()  # what the kernel does when the gateway is killed
        guardian.wait(15)
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(guardian.pid, 9)
        guardian.wait()


def test_a_supernode_that_ends_is_reported_with_its_exit_code():
    command = [sys.executable, "-m", "gateway.supernode", sys.executable, "-c", "raise SystemExit(7)"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as guardian:
        assert guardian.wait(20) == 7
