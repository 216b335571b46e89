"""I4 for rounds: ServerApp, SuperLink and server killed at work, and the sums are those of the farms' stores.

A server with a schedule and two gateways, all real processes. ``python -m benchmarks kills`` does it a hundred times.
"""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.fleet import Fleet, until
from gateway.sums import load_sums
from noria.demo.processes import free_port

SITES = ("champion", "tunis")
NEW_WINDOWS = 300


def get(port: int, page: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def metric(page: str, name: str) -> float:
    (line,) = [line for line in page.splitlines() if line.startswith(f"{name} ")]
    return float(line.rsplit(" ", 1)[1])


def kill_in_round(fleet: Fleet, name: str) -> None:
    """As soon as there is one."""
    until(lambda: fleet.processes(name), name)[0].kill()


def test_rounds_killed_at_work_leave_sums_and_releases_as_they_would_have_been(tmp_path: Path) -> None:
    port = free_port()
    fleet = Fleet(
        tmp_path,
        SITES,
        server_options=f"metrics_port = {port}",
        server_tables=f"[rounds]\nevery_hours = 1\nminimum_new_windows = {NEW_WINDOWS}\n",
    )
    with fleet.running(windows=60):
        # The heartbeats speak of enough windows, so the first round begins by itself.
        until(lambda: fleet.processes("flwr-clientapp"), "a ClientApp at work")
        kill_in_round(fleet, "flwr-serverapp")
        until(lambda: fleet.meta("rounds_failures") == "1", "the schedule has seen its round fail")
        assert (fleet.meta("rounds_wait_for") or "").startswith("failed 1 times in a row")

        assert get(port, "/healthz") == (200, '{"healthy": true, "problems": []}')

        command = fleet.ask()
        until(lambda: fleet.processes("flwr-serverapp"), "the ServerApp")
        kill_in_round(fleet, "flower-superlink")
        assert fleet.answer(command)[0] == "failed"
        fleet.until_up()

        command = fleet.ask()
        until(lambda: fleet.round_state() in ("collected", "released"), "the sums are in the store")
        fleet.server.kill()
        status, text = get_health_of_nobody(port)
        fleet.server.start()
        state, result = fleet.answer(command)

        assert (status, text) == (0, "")
        assert (state, result["sites"], result["version"]) == ("done", list(SITES), 2), result
        expected = {}
        for site in SITES:
            sums = load_sums(tmp_path / f"{site}.db", fleet.backbone).sums
            expected[site] = tuple(array.tobytes() for array in (sums.gram, sums.moment, sums.energy, sums.count))
        assert fleet.sums_of_newest_round() == expected
        assert [row["state"] for row in fleet.query("SELECT state FROM rounds ORDER BY id")] == [
            "failed",
            "failed",
            "released",
        ]
        fleet.until_up()
        until(lambda: get(port, "/healthz")[0] == 200, "a healthy server")
        status, page = get(port, "/metrics")
        assert status == 200
        assert metric(page, 'noria_server_rounds_total{outcome="failed"}') == 2
        assert metric(page, 'noria_server_rounds_total{outcome="released"}') == 1
        assert metric(page, 'noria_server_replies_total{verdict="accepted"}') == 2
        assert metric(page, "noria_server_superlink_up") == 1
        assert metric(page, "noria_server_sites_silent") == 0
        assert metric(page, "noria_server_scheduled_failures") == 1
        assert get(port, "/secrets")[0] == 404

        kill_in_round(fleet, "flower-superlink")
        status, text = until(lambda: (found := get(port, "/healthz"))[0] == 503 and found, "an unhealthy server")
        assert json.loads(text) == {"healthy": False, "problems": ["the SuperLink is down"]}


def get_health_of_nobody(port: int) -> tuple[int, str]:
    with contextlib.suppress(urllib.error.URLError):
        return get(port, "/healthz")
    return 0, ""
