"""Builds the firmware's core as a shared library for this machine.

``python -m nodes.firmware.host.build`` prints the library's path; :func:`build` returns it, compiling only when a
source or a flag has changed. Everything of ``core/`` but ``main.c`` is in it; flash is an array (``flash.c``) and the
board a simulated clock with functions around it (``board.c``). With ``sanitize`` the library aborts on undefined
behaviour. With ``NORIA_COVERAGE=1`` in the environment every library counts which lines and branches ran.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nodes.firmware import monocypher
from shared_models import codegen

FIRMWARE = Path(__file__).resolve().parents[1]
CORE = FIRMWARE / "core"
HOST = Path(__file__).parent
OUTPUT = FIRMWARE.parents[1] / "build" / "host"
COVERAGE_OUTPUT = OUTPUT / "coverage"
"""Objects of the coverage build, with gcov's notes and counts beside them."""
COVERAGE_VARIABLE = "NORIA_COVERAGE"

FLAGS = ("-std=c11", "-g", "-fPIC", "-fvisibility=default", "-DBLAKE2_NO_UNROLLING")
OPTIMISED = ("-O2",)
COUNTING = ("-O0", "--coverage")
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
SANITIZERS = ("-fsanitize=undefined", "-fno-sanitize-recover=all", "-static-libubsan")


class HostBuildError(RuntimeError):
    """The compiler is missing or refused the sources; the text is its own."""


def core_sources() -> list[Path]:
    """Every C file of ``core/`` that is in the library, in a stable order."""
    return sorted(path for path in CORE.glob("*.c") if path.name != "main.c")


def sources() -> list[Path]:
    """Every C file of the library, in a stable order."""
    return core_sources() + sorted(HOST.glob("*.c"))


def includes() -> list[str]:
    """Compiler options that find every header, Monocypher's included."""
    return [f"-I{path}" for path in (CORE, CORE / "generated", HOST, monocypher.ensure())]


def digest(flags: Sequence[str], extra: Sequence[Path] = ()) -> str:
    """Names one state of the sources and of how they are compiled.

    Raises:
        HostBuildError: the generated header is stale.
    """
    if not codegen.is_current():
        raise HostBuildError(f"{codegen.HEADER}: stale; run python -m shared_models.codegen")
    hashed = hashlib.blake2b(" ".join(flags).encode(), digest_size=8)
    headers = [*sorted(CORE.glob("*.h")), *sorted(HOST.glob("*.h")), codegen.HEADER]
    for path in (*sources(), *headers, monocypher.ensure() / "monocypher.c", *extra):
        hashed.update(path.name.encode() + path.read_bytes())
    return hashed.hexdigest()


def build(*, sanitize: bool = False) -> Path:
    """The library's path, built when it is not there yet.

    Raises:
        HostBuildError: no compiler, or it refused.
    """
    if os.environ.get(COVERAGE_VARIABLE):
        return _build_counting()
    flags = [*FLAGS, *OPTIMISED, *(SANITIZERS if sanitize else ())]
    target = OUTPUT / f"libnoria-{digest(flags)}.so"
    if target.is_file():
        return target
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=OUTPUT) as folder:
        foreign = Path(folder) / "monocypher.o"
        run(["gcc", *flags, "-c", str(monocypher.ensure() / "monocypher.c"), "-o", str(foreign)])
        result = Path(folder) / target.name
        run(["gcc", *flags, "-shared", *WARNINGS, *includes(), *map(str, sources()), str(foreign), "-o", str(result)])
        result.replace(target)
    return target


def _build_counting() -> Path:
    """Object by object, because gcov keeps its notes and counts where each object was written."""
    flags = [*FLAGS, *COUNTING]
    folder = COVERAGE_OUTPUT / digest(flags)
    target = folder / "libnoria.so"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    foreign = folder / "monocypher.o"
    run(["gcc", *FLAGS, *OPTIMISED, "-c", str(monocypher.ensure() / "monocypher.c"), "-o", str(foreign)])
    objects = [foreign]
    for source in sources():
        objects.append(folder / f"{source.stem}.o")
        counted = flags if source.parent == CORE else [*FLAGS, *OPTIMISED]
        run(["gcc", *counted, *WARNINGS, *includes(), "-c", str(source), "-o", str(objects[-1])])
    run(["gcc", "-shared", "--coverage", *map(str, objects), "-o", str(target)])
    return target


def run(command: list[str]) -> None:
    """Run a compiler.

    Raises:
        HostBuildError: it is missing, or it refused; the text is its own.
    """
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise HostBuildError(f"{command[0]} is not installed: apt-get install {command[0]} libc6-dev") from error
    if result.returncode:
        raise HostBuildError(result.stderr)


if __name__ == "__main__":
    sys.stdout.write(f"{build()}\n")
