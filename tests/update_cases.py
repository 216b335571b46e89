"""The C update path for tests: sanitized, with parts by short names and a factory's provisioning."""

from __future__ import annotations

from nodes.hoststore import (
    BOOT_A,
    CHANGES_A,
    FLASH_SIZE,
    MODEL_A,
    MODEL_B,
    SETTINGS_OFFSET,
    STAGING,
    STATE_A,
    STATE_B,
    Part,
    UpdateNode,
    library,
)
from nodes.hoststore import Flash as HostFlash
from shared_models.codes import Board, Crop
from shared_models.settings import Settings

__all__ = [
    "BOOT_A", "CHANGES_A", "FLASH_SIZE", "LIBRARY", "MODEL_A", "MODEL_B", "SETTINGS_OFFSET", "STAGING", "STATE_A",
    "STATE_B", "UPDATE_KEY", "Flash", "Node", "provision",
]  # fmt: skip

LIBRARY = library(sanitize=True)
UPDATE_KEY = bytes(range(16))


class Flash(HostFlash):
    """A sanitized one."""

    def __init__(self, part: str) -> None:
        super().__init__(Part[part], sanitize=True)


class Node(UpdateNode):
    """On the one flash there is."""

    def __init__(self) -> None:
        super().__init__(LIBRARY)


def provision(
    flash: Flash,
    public_key: bytes,
    factory: bytes | None,
    board: Board = Board.STM32L072,
    recovery_key: bytes = bytes(32),
) -> None:
    """What the factory writes: the settings page, and a model in slot A."""
    page = Settings(
        dev_eui="70b3d57ed0000001",
        board=board,
        crop=Crop.MAIZE,
        planting_time_s=1_714_543_200,
        season_days=130,
        season=2024,
        public_keys=(public_key, recovery_key),
        update_key=UPDATE_KEY,
    ).pack()
    flash.write(SETTINGS_OFFSET, page)
    if factory is not None:
        flash.write(MODEL_A, factory)
