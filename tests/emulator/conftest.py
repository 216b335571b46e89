"""Firmware built once for all emulator tests, and a node standing on a plot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from plot import START_S, Ether, Plot, settings

from nodes.emulator.firmware import Firmware
from nodes.emulator.node import EmulatedNode
from nodes.firmware.build import build
from shared_models.codes import Board

FACTORY_MODEL = Path(__file__).resolve().parents[2] / "shared_models/factory/model-1.bin"


@pytest.fixture(scope="session")
def firmwares() -> dict[Board, Firmware]:
    return {board: Firmware.load(path) for board, path in build().items()}


@pytest.fixture(params=list(Board), ids=lambda board: board.name.lower())
def firmware(request: pytest.FixtureRequest, firmwares: dict[Board, Firmware]) -> Firmware:
    return firmwares[request.param]


@pytest.fixture
def start(firmware: Firmware) -> Callable[..., tuple[EmulatedNode, Plot, Ether]]:
    """Switch on a node; unnamed keywords change its settings."""

    def start(
        plot: Plot | None = None,
        ether: Ether | None = None,
        model: bytes | None = None,
        data_rate: int = 3,
        **changes: object,
    ) -> tuple[EmulatedNode, Plot, Ether]:
        plot, ether = plot or Plot(), ether or Ether()
        page = settings(firmware.board, **changes).pack()
        image = FACTORY_MODEL.read_bytes() if model is None else model
        return EmulatedNode(firmware, page, image, plot, ether, START_S, data_rate), plot, ether

    return start
