"""Where things lie in a part's flash: the data region of ``core/hal.h`` and how each part holds it."""

from __future__ import annotations

from dataclasses import dataclass

from shared_models.codes import Board

FLASH_BASE = 0x0800_0000
REGION_SIZE = 0x6000


@dataclass(frozen=True, slots=True)
class Area:
    """A stretch of the data region."""

    offset: int
    size: int


SETTINGS = Area(0x0000, 0x0800)
BOOT = (Area(0x0800, 0x0800), Area(0x1000, 0x0800))
MODELS = (Area(0x1800, 0x0800), Area(0x2000, 0x0800))
STAGING = Area(0x2800, 0x0800)
CHANGES = (Area(0x3000, 0x0800), Area(0x3800, 0x0800))
STATE = (Area(0x4000, 0x1000), Area(0x5000, 0x1000))


@dataclass(frozen=True, slots=True)
class Part:
    """What a programmer must know of a microcontroller."""

    flash_size: int
    erased: int
    """What an erased byte reads as."""

    @property
    def region(self) -> int:
        """Address of the data region: the end of flash."""
        return FLASH_BASE + self.flash_size - REGION_SIZE


PARTS = {
    Board.STM32L072: Part(192 * 1024, 0x00),
    Board.STM32L432: Part(256 * 1024, 0xFF),
}
