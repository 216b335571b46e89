"""``noria doctor``: what this machine has, what is missing, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(add_completion=False, help="Explain what this machine has and what is missing.")

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ("stm32l072", "stm32l432")


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        what: the thing, in a few words.
        ok: whether it is as it should be.
        found: what is there.
        needed_for: which jobs need it.
        remedy: what to do if it is not; empty if ``ok``.
    """

    what: str
    ok: bool
    found: str
    needed_for: str
    remedy: str = ""


# command, Debian package, jobs that need it
COMMANDS = (
    ("arm-none-eabi-gcc", "gcc-arm-none-eabi", "demo, test, node build"),
    ("gcc", "gcc libc6-dev", "demo, test (cycle counter, host build of the core)"),
    ("mosquitto", "mosquitto", "demo, test (private broker)"),
    ("setpriv", "util-linux", "demo, test"),
    ("cppcheck", "cppcheck", "check"),
    ("clang-format", "clang-format", "check"),
    ("chromium", "chromium", "test (dashboard in a real browser)"),
    ("node", "nodejs", "test (payload codec)"),
    ("nginx", "nginx", "test, and servers with gateways elsewhere"),
    ("faketime", "faketime", "test (a gateway whose clock is wrong)"),
)

# distribution, extra, jobs that need it
DISTRIBUTIONS = (
    ("flwr", "gateway", "gateway, server"),
    ("aiomqtt", "gateway", "gateway, server, emulator"),
    ("tensorflow-cpu", "server", "server train"),
    ("pymonocypher", "server", "signing, demo"),
    ("streamlit", "dashboard", "dashboard"),
    ("unicorn", "emulator", "demo, test"),
    ("aquacrop", "emulator", "demo, test"),
    ("platformio", "emulator", "node build"),
)


def findings() -> Iterator[Finding]:
    """Look at everything a demo or a test run needs."""
    version = ".".join(map(str, sys.version_info[:3]))
    right = sys.version_info[:2] == (3, 11)
    yield Finding("Python 3.11", right, version, "everything", "" if right else "use Python 3.11 (Debian 12: python3)")

    search = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    for command, package, jobs in COMMANDS:
        path = shutil.which(command, path=search)
        remedy = "" if path else f"apt-get install --no-install-recommends {package}"
        yield Finding(command, path is not None, path or "missing", jobs, remedy)

    for distribution, extra, jobs in DISTRIBUTIONS:
        try:
            installed = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(distribution, False, "missing", jobs, f"pip install 'noria[{extra}]' (or `make setup`)")
        else:
            yield Finding(distribution, True, installed, jobs)

    for environment in ENVIRONMENTS:
        elf = ROOT / "nodes" / "firmware" / ".pio" / "build" / environment / "firmware.elf"
        found = f"{elf.stat().st_size} B" if elf.is_file() else "not built"
        yield Finding(
            f"firmware {environment}", elf.is_file(), found, "demo, test", "" if elf.is_file() else "make setup"
        )

    cores = os.cpu_count() or 1
    yield Finding(
        "processor cores", cores >= 2, str(cores), "demo in 6 minutes", "" if cores >= 2 else "slower, but works"
    )
    free_gb = shutil.disk_usage(ROOT).free / 1e9
    enough = free_gb > 1
    yield Finding("free disk space", enough, f"{free_gb:.0f} GB", "everything", "" if enough else "make room: 1 GB")


def report(console: Console, *, as_json: bool) -> bool:
    """Print the findings; True if nothing is missing."""
    found = list(findings())
    healthy = all(finding.ok for finding in found)
    if as_json:
        console.print_json(data={"healthy": healthy, "findings": [asdict(finding) for finding in found]})
        return healthy
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", "what", "found", "needed for", "to mend it"):
        table.add_column(heading)
    for finding in found:
        mark = "[green]✓[/]" if finding.ok else "[red]✗[/]"
        table.add_row(mark, finding.what, finding.found, finding.needed_for, finding.remedy)
    console.print(table)
    console.print("[green]Nothing is missing.[/]" if healthy else "[red]Something is missing, see the last column.[/]")
    return healthy


@app.callback(invoke_without_command=True)
def run(*, json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Look at commands, packages and firmware; exit code 1 if something is missing."""
    if not report(Console(), as_json=json):
        raise typer.Exit(1)
