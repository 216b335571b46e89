"""Which lines and branches of ``core/`` the tests on the host reach, counted by gcov.

``main.c`` is not counted: it is the endless loop around the two functions that every test calls.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from nodes.firmware.host.build import CORE, COVERAGE_OUTPUT, COVERAGE_VARIABLE

ROOT = Path(__file__).resolve().parents[1]
MUST_PERCENT = 95.0
WITHOUT_LIBRARY = tuple(
    f"tests/differential/test_{name}.py"
    for name in ("fuzz", "core_cycles", "registers_svd", "dual_kc_pyfao56", "coverage")
)
"""Tests that run other executables, the boards' own images, no C at all, or this: they could not reach a line."""
HOSTED = ("tests/differential", "tests/emulator/test_host_equals_boards.py", "tests/emulator/test_hosted_node.py")


def measure() -> dict[str, Any]:
    """Run the tests that use the host's library, each with counters, and add up."""
    return count(HOSTED)


def count(tests: tuple[str, ...]) -> dict[str, Any]:
    """Coverage of ``core/`` by some tests.

    Raises:
        RuntimeError: a test failed, or gcov did.
    """
    for old in COVERAGE_OUTPUT.rglob("*.gcda"):
        old.unlink()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    command += [f"--ignore={path}" for path in WITHOUT_LIBRARY]
    environment = {**os.environ, COVERAGE_VARIABLE: "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"the tests must pass before their coverage counts:\n{run.stdout[-4000:]}")
    return _sum(sorted(COVERAGE_OUTPUT.rglob("*.gcda")))


def _sum(counted: list[Path]) -> dict[str, Any]:
    """Each line and branch once, whichever object it was compiled into."""
    lines: dict[str, dict[int, int]] = {}
    branches: dict[str, dict[tuple[int, int], int]] = {}
    for path in counted:
        for file in _gcov(path):
            name = Path(file["file"]).name
            if Path(file["file"]).parent.name != CORE.name:
                continue
            for line in file["lines"]:
                number = line["line_number"]
                of_file = lines.setdefault(name, {})
                of_file[number] = of_file.get(number, 0) + line["count"]
                for index, branch in enumerate(line["branches"]):
                    taken = branches.setdefault(name, {})
                    taken[number, index] = taken.get((number, index), 0) + branch["count"]
    files = {}
    for name in sorted(lines):
        missed = sorted(number for number, times in lines[name].items() if not times)
        untaken = sorted({number for (number, _), times in branches.get(name, {}).items() if not times})
        files[name] = {
            **_share("lines", lines[name].values()),
            **_share("branches", branches.get(name, {}).values()),
            "lines_missed": missed,
            "lines_with_a_branch_never_taken": untaken,
        }
    every_line = [times for each in lines.values() for times in each.values()]
    every_branch = [times for each in branches.values() for times in each.values()]
    return {
        **_share("lines", every_line),
        **_share("branches", every_branch),
        "must": {"lines_percent": MUST_PERCENT},
        "files": files,
    }


def _share(name: str, counts: Collection[int]) -> dict[str, float]:
    total, reached = len(counts), sum(1 for times in counts if times)
    return {name: total, f"{name}_percent": round(100.0 * reached / total, 2) if total else 100.0}


def _gcov(path: Path) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        command = ["gcov", "--json-format", "--branch-probabilities", "--stdout", str(path)]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"gcov {path.name}: {run.stderr.strip()}")
    files: list[dict[str, Any]] = json.loads(run.stdout)["files"]
    return files


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
