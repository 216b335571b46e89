"""Builds the firmware's core as a shared library for this machine.

``python -m nodes.firmware.host.build`` prints the library's path; :func:`build` returns it, compiling only when a
source or a flag has changed. Everything of ``core/`` is in it except what talks to a board; flash is an array
(``flash.c``). With ``sanitize`` the library aborts on undefined behaviour.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from nodes.firmware import monocypher
from shared_models import codegen

FIRMWARE = Path(__file__).resolve().parents[1]
CORE = FIRMWARE / "core"
OUTPUT = FIRMWARE.parents[1] / "build" / "host"
BOARD_SOURCES = frozenset({"main.c", "node.c", "report.c", "link.c", "modem.c", "sensors.c"})
"""They need a board, or the emulator."""

FLAGS = ("-std=c11", "-O2", "-g", "-fPIC", "-shared", "-fvisibility=default", "-DBLAKE2_NO_UNROLLING")
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Werror")
SANITIZERS = ("-fsanitize=undefined", "-fno-sanitize-recover=all", "-static-libubsan")


class HostBuildError(RuntimeError):
    """The compiler is missing or refused the sources; the text is its own."""


def sources() -> list[Path]:
    """Every C file of the library, in a stable order."""
    core = sorted(path for path in CORE.glob("*.c") if path.name not in BOARD_SOURCES)
    return core + sorted(Path(__file__).parent.glob("*.c"))


def build(*, sanitize: bool = False) -> Path:
    """The library's path, built when it is not there yet.

    Raises:
        HostBuildError: no compiler, or it refused.
    """
    if not codegen.is_current():
        raise HostBuildError(f"{codegen.HEADER}: stale; run python -m shared_models.codegen")
    library = monocypher.ensure()
    flags = [*FLAGS, *(SANITIZERS if sanitize else ())]
    includes = [f"-I{path}" for path in (CORE, CORE / "generated", Path(__file__).parent, library)]
    files = [*sources(), *sorted(CORE.glob("*.h")), codegen.HEADER, library / "monocypher.c"]
    digest = hashlib.blake2b(" ".join(flags).encode(), digest_size=8)
    for path in files:
        digest.update(path.name.encode() + path.read_bytes())
    target = OUTPUT / f"libnoria-{digest.hexdigest()}.so"
    if target.is_file():
        return target
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=OUTPUT) as folder:
        foreign = Path(folder) / "monocypher.o"
        _run(["gcc", *flags[:-1], flags[-1], "-c", str(library / "monocypher.c"), "-o", str(foreign)])
        result = Path(folder) / target.name
        _run(["gcc", *flags, *WARNINGS, *includes, *map(str, sources()), str(foreign), "-o", str(result)])
        result.replace(target)
    return target


def _run(command: list[str]) -> None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise HostBuildError("gcc is not installed: apt-get install gcc libc6-dev") from error
    if result.returncode:
        raise HostBuildError(result.stderr)


if __name__ == "__main__":
    sys.stdout.write(f"{build()}\n")
