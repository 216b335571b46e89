"""Boards that no emulator runs at least build, with what the static checks ask of every image."""

from __future__ import annotations

import pytest
from test_static_checks import floating_point, through_pointers

from nodes.emulator.firmware import FLASH_BASE, Firmware
from nodes.firmware.build import ENVIRONMENTS, PROJECT, pio

BUILDS_ONLY = {"lora_e5": 256 * 1024}
"""Environment and flash of the part, bytes."""


@pytest.mark.parametrize("environment", BUILDS_ONLY)
def test_it_builds_and_fits(environment: str, tmp_path, firmwares) -> None:
    assert firmwares, "the build makes what is generated"
    pio("run", "-e", environment, build_dir=tmp_path)
    image = Firmware.load(tmp_path / environment / "firmware.elf")
    assert floating_point(image) == []
    assert through_pointers(image) == []
    assert image.data_region + 24 * 1024 == FLASH_BASE + BUILDS_ONLY[environment]
    assert FLASH_BASE + len(image.image) <= image.data_region


def test_every_board_is_emulated_or_builds_only() -> None:
    folders = {path.parent.name for path in (PROJECT / "boards").glob("*/registers.h")}
    assert folders == set(ENVIRONMENTS.values()) | set(BUILDS_ONLY)
