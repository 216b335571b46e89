"""``make check``: formatters, linters, types, C checks, and generated files that are up to date.

Each gate runs even if an earlier one failed, so that one run tells everything.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
FIRMWARE = ROOT / "nodes" / "firmware"
GENERATED = FIRMWARE / "core" / "generated"


def c_files() -> list[str]:
    """Our own C sources and headers: neither generated nor Monocypher's."""
    folders = [
        FIRMWARE / "core",
        FIRMWARE / "boards",
        FIRMWARE / "host",
        FIRMWARE / "fuzz",
        FIRMWARE / "test",
        ROOT / "nodes" / "emulator",
    ]
    found = [path for folder in folders for pattern in ("*.c", "*.h") for path in folder.rglob(pattern)]
    return sorted(str(path.relative_to(ROOT)) for path in found if GENERATED not in path.parents)


def gates(*, fix: bool) -> list[tuple[str, Sequence[str]]]:
    """Name and command of every gate, run from the repository's root."""
    python = sys.executable
    formatting = [] if fix else ["--check"]
    c_formatting = ["-i"] if fix else ["--dry-run", "--Werror"]
    c_sources = [path for path in c_files() if path.endswith(".c")]
    return [
        ("ruff format", [python, "-m", "ruff", "format", *formatting, "."]),
        ("ruff check", [python, "-m", "ruff", "check", *(["--fix"] if fix else []), "."]),
        ("mypy strict", [python, "-m", "mypy"]),
        ("clang-format", ["clang-format", *c_formatting, *c_files()]),
        (
            "cppcheck",
            [
                "cppcheck",
                "--quiet",
                "--std=c11",
                "--enable=warning,performance,portability",
                "--inline-suppr",
                "--error-exitcode=1",
                "--suppress=missingIncludeSystem",
                f"-I{FIRMWARE / 'core'}",
                *c_sources,
            ],
        ),
        *misra(),
        ("generated header", [python, "-m", "shared_models.codegen", *([] if fix else ["--check"])]),
    ]


def misra() -> list[tuple[str, Sequence[str]]]:
    """MISRA C:2012 by board, the core with the first; deviations and their reasons are in nodes/firmware/misra.txt."""
    boards = sorted(path.parent for path in (FIRMWARE / "boards").glob("*/registers.h"))
    found: list[tuple[str, Sequence[str]]] = []
    for index, board in enumerate(boards):
        common = [path for path in (FIRMWARE / "boards/common").glob("*.c") if not (board / path.name).exists()]
        sources = [*([FIRMWARE / "core"] if index == 0 else []), *sorted(common), board]
        includes = [FIRMWARE / "core", GENERATED, FIRMWARE / "boards/common", board]
        command = ["cppcheck", "--quiet", "--std=c11", "--addon=misra", "--inline-suppr", "--error-exitcode=1"]
        command += [f"--suppressions-list={FIRMWARE / 'misra.txt'}", "--suppress=missingIncludeSystem"]
        command += [f"--suppress=*:{GENERATED.relative_to(ROOT)}/*", "--max-configs=1", "--suppress=toomanyconfigs"]
        command += [f"-I{include.relative_to(ROOT)}" for include in includes]
        found.append((f"MISRA {board.name}", [*command, *(str(source.relative_to(ROOT)) for source in sources)]))
    return found


def main() -> None:
    """Run every gate; exit code 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fix", action="store_true", help="format and regenerate instead of only checking")
    fix = parser.parse_args().fix
    console = Console()
    failed = []
    for name, command in gates(fix=fix):
        try:
            result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            console.print(f"[red]✗[/] {name}: {command[0]} is not installed (`make setup-test` installs it)")
            failed.append(name)
            continue
        if result.returncode:
            failed.append(name)
            console.print(f"[red]✗[/] {name}")
            console.print(result.stdout + result.stderr, markup=False, highlight=False)
        else:
            console.print(f"[green]✓[/] {name}")
    if failed:
        console.print(f"[red]failed:[/] {', '.join(failed)}")
        sys.exit(1)


if __name__ == "__main__":
    main()
