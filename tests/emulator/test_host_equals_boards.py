"""The whole firmware on the host puts the same frames on the air as the same firmware on the boards."""

from __future__ import annotations

import pytest
from conftest import FACTORY_MODEL
from model_cases import improved, key_pair, model
from plot import START_S, Ether, Plot, settings
from test_update_on_air import Campaign

from nodes.emulator.firmware import Firmware
from nodes.emulator.interfaces import Downlink
from nodes.emulator.node import EmulatedNode
from nodes.hostnode import HostedNode
from shared_models.codes import Board, EventCode
from shared_models.container import build_head, sign
from shared_models.frames import Event, Override, OverrideAction

ERASED = {Board.STM32L072: 0x00, Board.STM32L432: 0xFF}
SOON_S = START_S + 2 * 86400 + 6 * 3600
DRY = {"threshold_permille": 30, "planting_time_s": SOON_S, "commissioning_days": 2}


class Steps(Plot):
    """A plot that changes at whole seconds: the two sample within the same second, not in the same microsecond."""

    def _advance(self, time_s: float) -> None:
        super()._advance(float(int(time_s)))

    def _sun(self, time_s: float) -> float:
        return super()._sun(float(int(time_s)))

    def soil_temp_c(self, time_s: float) -> float:
        return super().soil_temp_c(float(int(time_s)))

    def valve(self, open: bool, time_s: float) -> None:  # noqa: A002, FBT001
        super().valve(open, float(int(time_s)))


def pair(
    firmware: Firmware, ethers: tuple[Ether, Ether], image: bytes, **changes: object
) -> tuple[tuple[HostedNode, Plot], tuple[EmulatedNode, Plot]]:
    """The same node twice, each on a plot of its own."""
    page, plots = settings(firmware.board, **changes).pack(), (Steps(), Steps())
    erased = ERASED[firmware.board]
    hosted = HostedNode(page, image, plots[0], ethers[0], START_S, 3, erased_byte=erased, sanitize=True)
    emulated = EmulatedNode(firmware, page, image, plots[1], ethers[1], START_S, 3)
    return (hosted, plots[0]), (emulated, plots[1])


TICK_S, COMPUTING_S = 1.0, 0.05
"""Sleeps end at whole seconds of the RTC, so a board that needs milliseconds for its instructions, where the host needs
none, may be a tick and those milliseconds later."""


def assert_same_air(hosted: Ether, emulated: Ether) -> None:
    assert [frame[1:] for frame in hosted.uplinks] == [frame[1:] for frame in emulated.uplinks]
    assert [frame[0] for frame in hosted.uplinks] == pytest.approx(
        [frame[0] for frame in emulated.uplinks], abs=TICK_S + COMPUTING_S
    )


def test_days_of_drying_watering_and_a_farmers_orders_are_the_same_frames(firmware: Firmware) -> None:
    ethers = Ether(), Ether()
    (hosted, plot), (emulated, other) = pair(
        firmware, ethers, FACTORY_MODEL.read_bytes(), telemetry_period_h=2, statistics_period_h=24, **DRY
    )
    for hours in (60, 84, 130):
        for node in (hosted, emulated):
            node.run_until(START_S + hours * 3600)
        for ether in ethers:
            ether.queue.append(Downlink(13, Override(OverrideAction.WATER, 50 + hours).encode()))
    assert_same_air(*ethers)
    codes = {event.code for event in ethers[0].decoded(Event)}
    assert {EventCode.BOOTED, EventCode.WATERED, EventCode.SETTINGS_APPLIED} <= codes
    assert plot.doses_s() == pytest.approx(other.doses_s(), abs=TICK_S + COMPUTING_S)
    assert len(plot.doses_s()) >= 2
    assert hosted.wakes == emulated.wakes


def test_an_update_and_a_power_cycle_are_the_same_frames_and_the_same_flash(firmware: Firmware) -> None:
    secret, public = key_pair(1)
    container = sign(build_head(improved(), 2), secret)
    ethers = Campaign(container, 2, loses=3), Campaign(container, 2, loses=3)
    (hosted, _), (emulated, _) = pair(
        firmware, ethers, model().pack(), telemetry_period_h=1, public_keys=(public, bytes(32))
    )
    for node in (hosted, emulated):
        node.run_until(START_S + 8 * 3600)
        node.power_cycle()
        node.run_until(START_S + 32 * 3600)
    assert_same_air(*ethers)
    assert EventCode.MODEL_ACTIVATED in {event.code for event in ethers[0].decoded(Event)}
    assert hosted.flash[0x1800:0x3000] == emulated.flash[0x1800:0x3000]
