"""One node as the rest of the house uses it: a firmware, its pages in flash, a world and an air to live in."""

from __future__ import annotations

import zlib

from nodes.emulator.board import Board, Counters
from nodes.emulator.energy import EnergyLedger
from nodes.emulator.firmware import Firmware
from nodes.emulator.flash import Cut
from nodes.emulator.interfaces import Radio, SensorWorld
from nodes.emulator.modem import Modem
from nodes.emulator.serial import I2c, Sht4x
from nodes.flash_map import MODELS, REGION_SIZE, SETTINGS
from shared_models.settings import Settings

_STACK_PAINT = 0xA5


class EmulatedNode:
    """A provisioned node, powered from ``start_time_s`` on."""

    def __init__(
        self,
        firmware: Firmware,
        settings_page: bytes,
        model_image_slot: bytes | None,
        world: SensorWorld,
        air: Radio,
        start_time_s: int,
        data_rate: int,
        *,
        calendar_set: bool = True,
        joined: bool = True,
        crystal_ppm: float = 0.0,
    ) -> None:
        """Provision and switch on.

        Args:
            firmware: the ELF to run.
            settings_page: packed settings, written to the provisioning page as they are.
            model_image_slot: contents of model slot A as the factory writes it; None leaves the slots empty.
            world: the field around it.
            air: the radio around it.
            start_time_s: Unix time at which the battery goes in.
            data_rate: EU868 data rate, 0 to 5.
            calendar_set: whether the factory set the RTC; False starts it in the year 2000.
            joined: whether its modem has been provisioned and has a session; else it is as its maker shipped it.
            crystal_ppm: how much faster than it should the RTC's crystal swings.
        """
        self.settings = Settings.unpack(settings_page)
        self.dev_eui = self.settings.dev_eui
        self.start_time_s = start_time_s
        self._board = Board(
            firmware,
            world,
            air,
            self.dev_eui,
            start_time_s,
            data_rate,
            calendar_set=calendar_set,
            joined=joined,
            crystal_ppm=crystal_ppm,
        )
        self._write(SETTINGS.offset, settings_page)
        if model_image_slot is not None:
            self._write(MODELS[0].offset, model_image_slot)

    def run_until(self, time_s: float) -> None:
        """Run until Unix time ``time_s``.

        Raises:
            BoardError: the firmware did something the hardware would not forgive.
            PowerCutError: the supply failed during the flash operation :meth:`cut_power_at` named.
        """
        self._board.run_until(time_s - self.start_time_s)

    def cut_power_at(self, operation: int | None, *, torn: bool = True, seed: int = 1) -> None:
        """Let the supply fail at a flash operation.

        Args:
            operation: erase or program operation, counted from :attr:`flash_operations` = 0; None: never.
            torn: in the middle of it, some of its bits changed; otherwise right after it.
            seed: which bits a torn operation has changed; 0: all of its first half.
        """
        self._board.flash.cut = None if operation is None else Cut(operation, torn, seed)

    def power_cycle(self, *, calendar_kept: bool = True) -> None:
        """Switch on again after a power cut, RAM lost.

        Args:
            calendar_kept: whether something backed up the RTC domain meanwhile.
        """
        self._board.flash.cut = None
        self._board.power_cycle(calendar_kept=calendar_kept)

    @property
    def air_sensor(self) -> Sht4x:
        """The sensor on the I2C bus, for faults that a test makes."""
        return self._board.air_sensor

    @property
    def i2c_bus(self) -> I2c:
        """The bus, for faults that a test makes."""
        return self._board.i2c

    @property
    def flash_operations(self) -> int:
        """Erase and program operations so far."""
        return self._board.flash.operations

    @property
    def flash(self) -> bytes:
        """The data region as it is now."""
        return bytes(self._board.engine.mem_read(self._board.firmware.data_region, REGION_SIZE))

    def provision_flash(self, region: bytes) -> None:
        """Replace the data region, as a programmer would."""
        if len(region) != REGION_SIZE:
            raise ValueError(f"the data region has {REGION_SIZE} bytes, not {len(region)}")
        self._write(0, region)

    def say_on_modem_line(self, data: bytes) -> None:
        """Put bytes on the modem's line to the node now, as noise or a confused module would."""
        self._board.uart.feed(data, self._board.now())

    @property
    def modem(self) -> Modem:
        """Its modem, to be broken and looked into."""
        return self._board.modem

    @property
    def calendar_s(self) -> float:
        """Unix time by its RTC."""
        return self._board.rtc.calendar_s()

    @property
    def time_s(self) -> float:
        """Unix time the node has reached."""
        return self.start_time_s + self._board.now()

    @property
    def energy(self) -> EnergyLedger:
        """Charge drawn so far."""
        return self._board.ledger

    @property
    def cycles(self) -> int:
        """Core cycles so far, waits included."""
        return self._board.counter.cycles

    @property
    def stalled_cycles(self) -> int:
        """Of them, those in which the core only waited: for a bus, a conversion, the flash."""
        return self._board.counter.stalled

    def paint_stack(self) -> None:
        """Fill what the stack may grow into, to read :attr:`stack_bytes` later; before the first run only."""
        bottom, top = self._stack_room
        self._board.engine.mem_write(bottom, bytes([_STACK_PAINT]) * (top - bottom))

    @property
    def stack_bytes(self) -> int:
        """The deepest the stack has been since it was painted."""
        bottom, top = self._stack_room
        room = bytes(self._board.engine.mem_read(bottom, top - bottom))
        return len(room.lstrip(bytes([_STACK_PAINT])))

    @property
    def _stack_room(self) -> tuple[int, int]:
        symbols = self._board.firmware.symbols
        return symbols["_bss_end"], symbols["_stack_top"]

    @property
    def counters(self) -> Counters:
        """What the board did: wakes, resets, valve changes."""
        return self._board.counters

    @property
    def wakes(self) -> int:
        """Times the node looked at its sensors."""
        return self._board.counters.wakes

    @property
    def frames_sent(self) -> int:
        """Frames the modem put on air."""
        return self._board.modem.frames

    @property
    def air_time_s(self) -> float:
        """Their time on air, s."""
        return self._board.modem.air_s

    @property
    def valve_open(self) -> bool:
        """Whether a valve is open: driven, or latched."""
        return self._board.valve_open

    def fingerprint(self) -> int:
        """CRC-32 over RAM and the data region: equal fingerprints mean equal nodes."""
        return zlib.crc32(self.flash, zlib.crc32(self._board.ram()))

    def _write(self, offset: int, data: bytes) -> None:
        if offset + len(data) > REGION_SIZE:
            raise ValueError(f"{len(data)} bytes do not fit at offset {offset:#x}")
        self._board.engine.mem_write(self._board.firmware.data_region + offset, data)
