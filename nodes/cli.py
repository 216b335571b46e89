"""``noria node``: build the firmware and look at what it costs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from shared_models.codes import Board

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Build, provision and inspect nodes.")
console = Console()


@app.callback()
def node() -> None:
    """Build, provision and inspect nodes."""


@app.command()
def build() -> None:
    """Build both boards' firmware with PlatformIO, offline."""
    from nodes.firmware.build import FirmwareBuildError
    from nodes.firmware.build import build as build_firmware

    try:
        build_firmware()
    except FirmwareBuildError as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from error


@app.command()
def size(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Flash and RAM of each board's image, from its ELF file."""
    figures = {board.name.lower(): _sizes(board) for board in Board}
    if as_json:
        console.print_json(data=figures)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("board", "flash, B", "static RAM, B"):
        table.add_column(heading, justify="right" if heading != "board" else "left")
    for board, figure in figures.items():
        table.add_row(board, f"{figure['flash_bytes']:,}", f"{figure['ram_bytes']:,}")
    console.print(table)


def _sizes(board: Board) -> dict[str, int]:
    from elftools.elf.elffile import ELFFile

    from nodes.firmware.build import elf_path

    path: Path = elf_path(board)
    if not path.is_file():
        console.print(f"{path}: not built; run: noria node build", style="red", markup=False)
        sys.exit(1)
    flash = ram = 0
    with path.open("rb") as file:
        for segment in ELFFile(file).iter_segments():
            if segment["p_type"] != "PT_LOAD":
                continue
            flash += segment["p_filesz"]
            if segment["p_vaddr"] >= 0x2000_0000:
                ram += segment["p_memsz"]
    return {"flash_bytes": flash, "ram_bytes": ram}
