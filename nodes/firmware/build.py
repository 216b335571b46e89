"""Builds the firmware of every board: Monocypher fetched, header generated, ``pio run`` without PlatformIO's registry.

``python -m nodes.firmware.build`` is idempotent and returns at once when no source has changed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nodes.firmware import monocypher
from shared_models import codegen
from shared_models.codes import Board

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ROOT / "nodes/firmware"
WORK = ROOT / "build/firmware"
ENVIRONMENTS = {Board.STM32L072: "stm32l072", Board.STM32L432: "stm32l432"}
TOOLS = ("arm-none-eabi-gcc", "arm-none-eabi-objcopy", "arm-none-eabi-size")
_SOURCES = ("core", "boards", "platform", "third_party")


class FirmwareBuildError(RuntimeError):
    """The firmware could not be built; the text says what is missing or holds the compiler's output."""


def elf_path(board: Board) -> Path:
    """Where a board's firmware is once built."""
    return PROJECT / ".pio/build" / ENVIRONMENTS[board] / "firmware.elf"


def build() -> dict[Board, Path]:
    """Build every board's firmware if anything changed.

    Returns:
        The ELF of each board.

    Raises:
        FirmwareBuildError: a tool is missing or the sources do not build.
        monocypher.MonocypherError: Monocypher's source could not be had.
    """
    WORK.mkdir(parents=True, exist_ok=True)
    with _lock(WORK / "lock"):
        monocypher.ensure()
        if not codegen.is_current():
            codegen.HEADER.parent.mkdir(parents=True, exist_ok=True)
            codegen.HEADER.write_text(codegen.render(), encoding="utf-8")
        stamp, digest = WORK / "digest", _digest()
        elves = {board: elf_path(board) for board in ENVIRONMENTS}
        fresh = stamp.is_file() and stamp.read_text(encoding="ascii") == digest
        if not fresh or not all(path.is_file() for path in elves.values()):
            stamp.unlink(missing_ok=True)
            pio("run")
            stamp.write_text(digest, encoding="ascii")
        return elves


def pio(*arguments: str, build_dir: Path | None = None) -> str:
    """Run PlatformIO on the project, offline, with its state under ``build/``.

    Args:
        *arguments: its command line, without the project.
        build_dir: where objects go; ``.pio/build`` by default.

    Returns:
        What it printed.

    Raises:
        FirmwareBuildError: it failed, or the toolchain is not there.
    """
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise FirmwareBuildError(
            f"{', '.join(missing)} not found: apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi"
        )
    environment = {
        **os.environ,
        "PLATFORMIO_CORE_DIR": str(ROOT / "build/platformio"),
        "PLATFORMIO_DISABLE_UPGRADE_CHECK": "true",
        "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "no",
        "PLATFORMIO_SETTING_CHECK_PLATFORMIO_INTERVAL": "9999",
    }
    if build_dir is not None:
        environment["PLATFORMIO_BUILD_DIR"] = str(build_dir)
    run = subprocess.run(
        [sys.executable, "-m", "platformio", *arguments, "--project-dir", str(PROJECT)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    output = run.stdout + run.stderr
    if run.returncode:
        raise FirmwareBuildError(f"platformio {' '.join(arguments)} failed:\n{output}")
    return output


def sizes(board: Board) -> dict[str, int]:
    """Bytes of flash and of static RAM that a board's firmware takes.

    Raises:
        FirmwareBuildError: it has not been built.
    """
    elf = elf_path(board)
    if not elf.is_file():
        raise FirmwareBuildError(f"{elf} is not built; run: python -m nodes.firmware.build")
    run = subprocess.run(["arm-none-eabi-size", str(elf)], capture_output=True, text=True, check=True)
    text, data, bss = (int(field) for field in run.stdout.splitlines()[1].split()[:3])
    return {"flash": text + data, "ram": data + bss}


def _digest() -> str:
    """A fingerprint of every source, by name and content."""
    digest = hashlib.blake2b(sys.executable.encode())
    files = [PROJECT / "platformio.ini"]
    for folder in _SOURCES:
        files += sorted(path for path in (PROJECT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc")
    for path in files:
        digest.update(str(path.relative_to(PROJECT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One build at a time, also across processes."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Build and print sizes."""
    parser = argparse.ArgumentParser(description="Build the node firmware for every board.")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    as_json = parser.parse_args().json
    try:
        elves = build()
        report = {ENVIRONMENTS[board]: {"elf": str(path), **sizes(board)} for board, path in elves.items()}
    except (FirmwareBuildError, monocypher.MonocypherError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if as_json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    else:
        for name, entry in report.items():
            sys.stdout.write(f"{name}: {entry['flash']} B flash, {entry['ram']} B static RAM, {entry['elf']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
