"""``noria evaluate irrigation --quick``: the whole protocol on two fields, in processes of its own."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from xml.etree import ElementTree

import psutil
import pytest

from noria.evaluation.controllers import RULES
from noria.evaluation.fleet import SCHEMES
from noria.evaluation.protocol import MODEL, PHYSICS

COMMAND = [sys.executable, "-m", "noria", "evaluate", "irrigation", "--quick", "--json", "-", "--processes", "2"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Folder and standard output of a whole evaluation."""
    output = tmp_path_factory.mktemp("undisturbed")
    answer = subprocess.run([*COMMAND, "--output", str(output)], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return output, answer.stdout


def test_the_quick_evaluation_reports_every_controller(undisturbed):
    output, answer = undisturbed
    report = json.loads(answer)
    assert report == json.loads((output / "irrigation.json").read_text())
    assert report["protocol"]["seen"]
    judged = {each["name"]: each for each in report["judge"]["controllers"]}
    assert set(judged) == {*RULES, PHYSICS, MODEL}
    settings = [row for controller in judged.values() for row in controller["settings"]]
    assert all(0 < row["scopes"]["all"]["relative_yield"][0] <= 1 for row in settings)
    assert judged["rainfed"]["settings"][0]["scopes"]["all"]["water_mm"][0] == 0
    physics = judged[PHYSICS]["settings"][judged[PHYSICS]["shipped"]]["scopes"]["all"]
    assert physics["relative_yield"][0] > 0.9
    assert physics["water_mm"][0] < judged["calendar"]["settings"][0]["scopes"]["all"]["water_mm"][0]
    second = [each["name"] for each in report["second_year"]["controllers"]]
    assert {PHYSICS, MODEL, *SCHEMES} <= set(second)
    assert report["second_year"]["round"]["verdict"] in ("passed", "refused")
    assert report["training_worlds"]["paired"][0]["candidate"] == MODEL
    ElementTree.parse(output / "irrigation.svg")


LISTENING = [
    sys.executable,
    "-c",
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])",
]
"""Tests in a shell's background inherit that Ctrl-C is ignored; what a terminal starts does not."""


@contextmanager
def begun(output):
    """An evaluation under way, three runs finished."""
    with (output / "evaluation.log").open("wb") as log:
        evaluation = subprocess.Popen(
            [*LISTENING, *COMMAND, "--output", str(output)],
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
    try:
        while finished_runs(output) < 3:
            assert evaluation.poll() is None, (output / "evaluation.log").read_text()
            time.sleep(0.05)
        yield evaluation
    finally:
        evaluation.kill()


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on_from_there(undisturbed, tmp_path):
    with begun(tmp_path) as evaluation:
        # What a terminal does: the whole foreground process group gets it.
        os.killpg(evaluation.pid, signal.SIGINT)
        assert evaluation.wait(60) == 130
    assert "goes on from there" in (tmp_path / "evaluation.log").read_text()
    assert 3 <= finished_runs(tmp_path) < finished_runs(undisturbed[0])
    kept = finished_later(tmp_path, undisturbed[0])
    resumed = subprocess.run([*COMMAND, "--output", str(tmp_path)], capture_output=True, text=True, check=True)
    assert kept < finished_runs(tmp_path) == finished_runs(undisturbed[0])
    assert resumed.stdout == undisturbed[1]


def test_an_evaluation_that_is_killed_leaves_no_process_behind(tmp_path):
    with begun(tmp_path) as evaluation:
        children = psutil.Process(evaluation.pid).children(recursive=True)
        evaluation.kill()
        assert evaluation.wait(60) == -signal.SIGKILL
    _, alive = psutil.wait_procs(children, timeout=60)
    assert children
    assert alive == []


def finished_later(folder, undisturbed) -> int:
    """Go on for most of the way without living it again: add what the undisturbed one found, less every fourth run.

    What the interrupted one has found itself stays, and must be what the undisturbed one found.
    """
    with closing(sqlite3.connect(folder / "runs.sqlite", isolation_level=None)) as connection:
        connection.execute("ATTACH ? AS whole", (str(undisturbed / "runs.sqlite"),))
        assert not connection.execute("SELECT * FROM main.runs EXCEPT SELECT * FROM whole.runs").fetchall()
        connection.execute(
            "INSERT OR IGNORE INTO main.runs SELECT key, described, result, state, snapshot FROM"
            " (SELECT *, row_number() OVER (ORDER BY key) AS place FROM whole.runs) WHERE place % 4"
        )
    return finished_runs(folder)


def finished_runs(folder) -> int:
    """How many are in the ledger; none while there is no ledger."""
    path = folder / "runs.sqlite"
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path)) as connection:
        try:
            return connection.execute("SELECT count(*) FROM runs").fetchone()[0]
        except sqlite3.OperationalError:  # not yet made
            return 0
