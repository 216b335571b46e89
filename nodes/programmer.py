"""Bringing an image into a real board: OpenOCD or pyOCD through an ST-LINK or another debug probe."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nodes import intel_hex
from nodes.flash_map import FLASH_BASE, PARTS, REGION_SIZE
from nodes.inspection import load_segments
from shared_models.codes import Board

Tool = Literal["openocd", "pyocd"]
What = Literal["all", "firmware", "data"]

# The L072 has two banks of 96 KB and the data region lies in the second: target/stm32l0.cfg alone knows the first.
OPENOCD_TARGETS = {Board.STM32L072: "target/stm32l0_dual_bank.cfg", Board.STM32L432: "target/stm32l4x.cfg"}
PYOCD_TARGETS = {Board.STM32L432: "stm32l432kc"}
"""What pyOCD can program without a CMSIS pack."""
CONNECT_UNDER_RESET = "reset_config srst_only srst_nogate connect_assert_srst"
"""A node in STOP does not answer its debug port; held in reset it does."""
NO_PROBE = ("open failed", "no device found", "unable to find", "no available debug probes", "no connected debug")
NO_TARGET = ("init mode failed", "unable to connect to the target", "target voltage", "no ack", "no cores")


class ProgrammerError(RuntimeError):
    """The board could not be programmed; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image for a programmer, with the board it is for."""

    board: Board
    firmware: bytes | None
    region: bytes | None


def load_image(path: Path) -> Image:
    """Read an Intel HEX file of ``noria node provision``; the place of its data region tells the board.

    Raises:
        ProgrammerError: it has no data region at the end of a known part's flash.
        InspectionError: unreadable or damaged.
    """
    segments = dict(load_segments(path))
    for board, part in PARTS.items():
        region = segments.get(part.region)
        if region is not None and len(region) == REGION_SIZE:
            return Image(board, segments.get(FLASH_BASE), region)
    raise ProgrammerError(f"{path}: no data region at the end of a known part's flash; made by: noria node provision")


def select(image: Image, what: What) -> list[tuple[int, bytes]]:
    """The segments to write.

    Raises:
        ProgrammerError: the image does not hold them.
    """
    segments = []
    if what in ("all", "firmware"):
        if image.firmware is None:
            raise ProgrammerError("the image holds no firmware; program it with --data-only")
        segments.append((FLASH_BASE, image.firmware))
    if what in ("all", "data") and image.region is not None:
        segments.append((PARTS[image.board].region, image.region))
    return segments


def write_selection(segments: Sequence[tuple[int, bytes]], path: Path) -> None:
    """Leave ``segments`` as an Intel HEX file that only its owner may read: the data region holds the AppKey."""
    path.touch(mode=0o600)
    path.write_text(intel_hex.render(segments), encoding="ascii")


def choose_tool(board: Board, wanted: Tool | None) -> Tool:
    """The programmer to use.

    Raises:
        ProgrammerError: none is installed that can write this board.
    """
    if wanted == "pyocd" and board not in PYOCD_TARGETS:
        raise ProgrammerError(f"pyocd knows no {board.name} without a CMSIS pack; use --tool openocd")
    for tool in (wanted,) if wanted else ("openocd", "pyocd"):
        if shutil.which(tool) and (tool == "openocd" or board in PYOCD_TARGETS):
            return tool
    remedy = "pip install pyocd" if wanted == "pyocd" else "sudo apt-get install openocd"
    raise ProgrammerError(f"{wanted or 'openocd'} is not installed: {remedy}; or try the image with --emulator")


def commands(tool: Tool, board: Board, path: Path, *, option_bytes: bool) -> list[list[str]]:
    """The command lines that write, verify and restart.

    Args:
        tool: The programmer.
        board: The board on the probe.
        path: Intel HEX of what is to be written. A programmer erases the pages it names and no others.
        option_bytes: Also set the brown-out level.

    Raises:
        ProgrammerError: this programmer cannot do it.
    """
    if tool == "pyocd":
        if option_bytes:
            raise ProgrammerError("option bytes are set through OpenOCD only; use --tool openocd")
        how = ["--no-wait", "--connect", "under-reset", "--erase", "sector", "--format", "hex"]
        return [["pyocd", "load", "--target", PYOCD_TARGETS[board], *how, str(path)]]
    steps = [
        CONNECT_UNDER_RESET,
        "init",
        "reset init",
        *(["flash probe 0", "flash probe 1"] if board == Board.STM32L072 else []),
    ]
    steps += [f"flash write_image erase {{{path}}} 0 ihex", f"verify_image {{{path}}} 0 ihex"]
    if option_bytes:
        steps += OPTION_BYTE_STEPS[board]
    steps += ["reset run", "shutdown"]
    arguments = ["-f", "interface/stlink.cfg", "-f", OPENOCD_TARGETS[board]]
    return [["openocd", *arguments, *(part for step in steps for part in ("-c", step))]]


# STM32L0 (RM0376 section 3.3): unlock PECR with PEKEYR, the option bytes with OPTKEYR; the upper half of FLASH_OPTR is
# programmed as a word at 0x1FF80004 whose upper half is the complement; OBL_LAUNCH loads them and resets. BOR_LEV = 8.
_L0_STEPS = [
    "mww 0x4002200C 0x89ABCDEF; mww 0x4002200C 0x02030405",
    "mww 0x40022014 0xFBEAD9C8; mww 0x40022014 0x24252627",
    "set half [expr {([lindex [read_memory 0x4002201C 32 1] 0] >> 16 & 0xFFF0) | 0x8}]",
    "mww 0x1FF80004 [expr {((~$half & 0xFFFF) << 16) | $half}]",
    "sleep 20",
    "catch {mww 0x40022004 0x00040000}",
    "sleep 200",
]
# STM32L4 (RM0394 section 3.4): OpenOCD has commands for FLASH_OPTR at offset 0x20, BOR_LEV in bits 10:8.
_L4_STEPS = ["stm32l4x option_write 0 0x20 0x100 0x700", "catch {stm32l4x option_load 0}", "sleep 200"]

OPTION_BYTE_STEPS = {Board.STM32L072: _L0_STEPS, Board.STM32L432: _L4_STEPS}
BROWN_OUT_VOLTS = {Board.STM32L072: 1.8, Board.STM32L432: 2.0}
"""Level 1 of each part: the lowest at which its flash may still be written."""


def shell(command: Sequence[str]) -> str:
    """A command line as a person would type it."""
    return shlex.join(command)


def run(command_lines: Sequence[Sequence[str]]) -> str:
    """Run the programmer.

    Returns:
        What it said.

    Raises:
        ProgrammerError: it is not there, finds no probe or no board, or failed.
    """
    said = ""
    for command in command_lines:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise ProgrammerError(f"{command[0]} cannot be run: {error.strerror}") from error
        said += done.stdout + done.stderr
        # pyOCD leaves with 0 when it finds no probe.
        if done.returncode or any(sign in said.lower() for sign in NO_PROBE):
            raise ProgrammerError(_explain(command[0], said))
    return said


def _explain(tool: str, said: str) -> str:
    lower = said.lower()
    if any(sign in lower for sign in NO_PROBE):
        return (
            "no debug probe found: plug the board's ST-LINK in by USB; if it is, its USB device may not be yours to "
            "open: sudo usermod -aG plugdev $USER, log in again, and plug it in again"
        )
    if any(sign in lower for sign in NO_TARGET):
        return (
            "the probe is there and the board does not answer: check SWDIO, SWCLK, GND, NRST and the board's supply; "
            "without NRST, hold the reset button while starting, for a sleeping node does not answer"
        )
    return f"{tool} failed; what it said:\n{said.strip()}"
