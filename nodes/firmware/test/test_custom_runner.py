"""`pio test` without a board on the desk: runs the ELF in the emulator and reads its report from the modem line."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click
from platformio.test.result import TestCase, TestStatus
from platformio.test.runners.base import TestRunnerBase

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from nodes.emulator.bench import run_on_bench

_LINE = re.compile(r"(?P<name>\w+):(?P<status>PASS|FAIL)")
_STATUS = {"PASS": TestStatus.PASSED, "FAIL": TestStatus.FAILED}


class CustomTestRunner(TestRunnerBase):  # type: ignore[misc]
    """Builds, emulates, and turns lines ``name:PASS`` into test cases; the last must be ``end:PASS``."""

    def stage_uploading(self) -> None:
        """Build; there is nothing to upload to."""
        if not self.options.without_building:
            self.run_project_targets(["__test", "checkprogsize"])

    def stage_testing(self) -> None:
        """Emulate and read the report."""
        if self.options.without_testing:
            return
        build = Path(self.project_config.get("platformio", "build_dir")) / self.test_suite.env_name
        report = run_on_bench(build / "firmware.elf")
        ended = False
        for line in report.splitlines():
            click.echo(line)
            match = _LINE.fullmatch(line)
            if match:
                ended = ended or match["name"] == "end"
                self.test_suite.add_case(TestCase(name=match["name"], status=_STATUS[match["status"]], stdout=line))
        if not ended:
            self.test_suite.add_case(TestCase(name="end", status=TestStatus.FAILED, message="the report stops early"))
