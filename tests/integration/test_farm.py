"""A farm of emulated nodes is the same however its time is cut and wherever it runs, and dies with its parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from nodes.emulator.air import QueuedDownlink
from nodes.emulator.farm import FarmSetup, FarmSimulation
from nodes.emulator.worker import FarmWorker, WorkerError
from nodes.firmware.build import build
from nodes.scenario import DAY_S, load_scenario
from shared_models.codes import Board
from shared_models.frames import Override, OverrideAction

SMALL = load_scenario(Path(__file__).parents[2] / "noria" / "scenarios" / "small.toml")
CHAMPION, TUNIS = (farm.site for farm in SMALL.farms)


@cache
def firmware() -> dict[Board, Path]:
    return build()


def setup(site: str) -> FarmSetup:
    return FarmSetup(SMALL, site, firmware(), factory_image=None)


def live(farm: FarmSimulation | FarmWorker, days: list[int]) -> str:
    start_s = SMALL.start_time_s
    for day in days:
        farm.advance(start_s + day * DAY_S)
    return farm.finish().air_digest


def test_how_time_is_cut_changes_nothing_and_neither_does_the_process() -> None:
    at_once = live(FarmSimulation(setup(CHAMPION)), [4])
    assert live(FarmSimulation(setup(CHAMPION)), list(range(1, 5))) == at_once
    with FarmWorker(setup(CHAMPION)) as worker:
        assert live(worker, [3, 4]) == at_once


def test_a_season_ends_in_a_report_of_plain_values() -> None:
    farm = FarmSimulation(setup(TUNIS))
    stop = Override(OverrideAction.STOP, SMALL.start_time_s + 20 * DAY_S).encode()
    downlinks = [
        QueuedDownlink("for-nobody", "0000000000000000", 13, b"x"),
        QueuedDownlink("stop", SMALL.farms[1].nodes[0].dev_eui, 13, stop),
    ]
    holiday = farm.advance(SMALL.start_time_s + 20 * DAY_S, downlinks)
    assert [item.id for item in holiday.air.transmitted] == ["stop"]
    advance = farm.advance(SMALL.end_time_s)
    assert [state.name for state in advance.nodes] == ["wadi"]
    assert all(a.time_s <= b.time_s for a, b in pairwise(advance.air.uplinks))
    report = farm.finish()
    (field,) = report.fields
    json.dumps(report.as_json(), allow_nan=False)
    assert report.refused_downlinks == {"unknown device": 1}
    assert field.wakes == pytest.approx(SMALL.days * 96, abs=3)
    assert field.traffic.uplinks_sent == advance.frames_sent >= SMALL.days
    assert field.traffic.duty_cycle_exceeded == 0
    # What the valve gave is a whole number of doses at the emitters' true flow.
    assert field.events["watered"] >= 1
    assert field.result.water_mm > 0.8 * 20 * field.events["watered"]
    assert 0 < field.result.yield_t_ha < 20
    assert not field.result.ripe
    assert field.projected_life_years > 1


def test_an_error_comes_home_with_its_traceback(tmp_path: Path) -> None:
    broken = tmp_path / "broken.elf"
    broken.write_bytes(b"not an ELF")
    with (
        FarmWorker(FarmSetup(SMALL, TUNIS, dict.fromkeys(Board, broken), factory_image=None)) as worker,
        pytest.raises(WorkerError, match="FirmwareError"),
    ):
        worker.advance(SMALL.start_time_s + 900)


def test_a_killed_worker_is_reported_and_not_waited_for() -> None:
    with FarmWorker(setup(TUNIS)) as worker:
        worker.wait_ready()
        assert worker.pid
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="has ended"):
            worker.advance(SMALL.end_time_s)


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    firmware()
    program = tmp_path / "parent.py"
    program.write_text(
        "import sys, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "if __name__ == '__main__':\n"
        "    from test_farm import CHAMPION, SMALL, TUNIS, Board, FarmSetup, FarmWorker\n"
        "    from nodes.firmware.build import elf_path\n"
        "    firmware = {board: elf_path(board) for board in Board}\n"
        "    workers = [FarmWorker(FarmSetup(SMALL, site, firmware, None)) for site in (CHAMPION, TUNIS)]\n"
        "    for worker in workers:\n"
        "        worker.wait_ready()\n"
        "    print(*(worker.pid for worker in workers), flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.kill()
    deadline = time.monotonic() + 10
    while any(running(pid) for pid in pids):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.02)


def running(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False
