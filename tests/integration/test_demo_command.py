"""``noria demo`` stopped by Ctrl-C leaves neither process nor file behind."""

import os
import signal
import subprocess
import sys
import time

import psutil


def processes_in(directory) -> list[str]:
    """Command lines of every process that works with files below ``directory``."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(directory) in line:
            found.append(line)
    return found


def test_ctrl_c_in_mid_season_stops_everything_and_leaves_no_temporary_file(tmp_path):
    log = tmp_path / "demo.log"
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with log.open("wb") as output:
        demo = subprocess.Popen(
            [sys.executable, "-m", "noria", "demo", "--headless", "--seed", "3"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(temporary)},
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 120
        while "dashboard: http" not in log.read_text(errors="replace"):
            assert demo.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.1)
        assert any("mosquitto" in line for line in processes_in(temporary))
        # What a terminal does: the whole foreground process group gets it.
        os.killpg(demo.pid, signal.SIGINT)
        assert demo.wait(60) == 130
    finally:
        demo.kill()
    assert "nothing is left running" in log.read_text(errors="replace")
    assert processes_in(temporary) == []
    assert list(temporary.iterdir()) == []
