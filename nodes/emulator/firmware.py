"""A firmware image as the linker left it: what goes into flash, for which core, and where its code is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from elftools.elf.elffile import ELFFile

from nodes.emulator.cycles import CostTable
from shared_models.codes import Board

FLASH_BASE = 0x0800_0000
_RAM_BASE = 0x2000_0000


class FirmwareError(ValueError):
    """A file that is not one of our firmware images; the text says why."""


@dataclass(frozen=True)
class Firmware:
    """One ELF, read once and shared by every node that runs it."""

    board: Board
    core: str
    image: bytes
    """Flash from :data:`FLASH_BASE` on."""
    data_region: int
    """Address of the data region whose map is in ``core/hal.h``."""
    code: tuple[tuple[int, int], ...]
    """Address ranges that hold instructions."""
    symbols: dict[str, int]

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read an ELF.

        Raises:
            FirmwareError: missing, not an ELF, or for a core we have no board for.
        """
        path = Path(path)
        if not path.is_file():
            raise FirmwareError(f"{path}: no such firmware; build it with: python -m nodes.firmware.build")
        with path.open("rb") as file:
            try:
                elf = ELFFile(file)
            except Exception as error:
                raise FirmwareError(f"{path}: not an ELF: {error}") from error
            table = elf.get_section_by_name(".symtab")
            if table is None or elf["e_machine"] != "EM_ARM":
                raise FirmwareError(f"{path}: not an Arm firmware with symbols")
            named = [(symbol.name, int(symbol["st_value"])) for symbol in table.iter_symbols() if symbol.name]
            symbols = dict(named)
            marks = sorted((value & ~1, name[:2]) for name, value in named if name[:2] in ("$t", "$d"))
            board = _board_of(elf, path)
            image = bytearray()
            for segment in elf.iter_segments():
                if segment["p_type"] != "PT_LOAD" or not segment["p_filesz"]:
                    continue
                offset = segment["p_paddr"] - FLASH_BASE
                image.extend(bytes(max(0, offset + segment["p_filesz"] - len(image))))
                image[offset : offset + segment["p_filesz"]] = segment.data()
        try:
            data_region = symbols["noria_flash_data"]
            text_end = FLASH_BASE + len(image) - (symbols["_data_end"] - symbols["_data_start"])
        except KeyError as error:
            raise FirmwareError(f"{path}: no symbol {error}; not linked with our script") from error
        code = []
        for index, (start, kind) in enumerate(marks):
            if kind == "$t" and FLASH_BASE <= start < text_end:
                end = min(text_end, marks[index + 1][0] if index + 1 < len(marks) else text_end)
                if end > start:
                    code.append((start, end))
        return cls(board, _CORES[board], bytes(image), data_region, tuple(code), symbols)

    @cached_property
    def costs(self) -> CostTable:
        """Cycle costs of this image."""
        return CostTable(self.core, FLASH_BASE, self.image + bytes(len(self.image) % 2), self.code)


_CORES = {Board.STM32L072: "cortex-m0plus", Board.STM32L432: "cortex-m4"}
_ARCHITECTURES = {12: Board.STM32L072, 11: Board.STM32L072, 13: Board.STM32L432}
"""Tag_CPU_arch of the Arm ABI addenda: v6-M, v6S-M, v7E-M."""


def _board_of(elf: ELFFile, path: Path) -> Board:
    """The board whose core the image was compiled for."""
    section = elf.get_section_by_name(".ARM.attributes")
    if section is not None:
        for vendor in section.iter_subsections():
            for scope in vendor.iter_subsubsections():
                for attribute in scope.iter_attributes():
                    if attribute.tag == "TAG_CPU_ARCH" and attribute.value in _ARCHITECTURES:
                        return _ARCHITECTURES[attribute.value]
    raise FirmwareError(f"{path}: compiled for a core we have no board for")
