"""The whole firmware of one node on this machine: core, sensors, modem driver and all, over a simulated board.

:class:`HostedNode` lives in the same world and talks through the same modem into the same air as
:class:`nodes.emulator.node.EmulatedNode`, many times faster: no instruction set, no registers, no charge. Each node
loads a copy of the library of its own, because the firmware is one program with one memory; a reset loads a new one.
"""

from __future__ import annotations

import ctypes
import math
import shutil
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nodes.emulator.converter import CALIBRATION, REFERENCE_MV
from nodes.emulator.energy import EnergyLedger
from nodes.emulator.interfaces import DEEP, SHALLOW, Radio, SensorWorld
from nodes.emulator.modem import Modem
from nodes.emulator.peripherals import NEVER
from nodes.emulator.serial import Sht4x
from nodes.firmware.host.build import build
from nodes.flash_map import MODELS, REGION_SIZE, SETTINGS
from shared_models.codes import Board, ResetCause
from shared_models.settings import Settings

_SECOND_US = 1_000_000
_NEVER_US = 2**64 - 1
_YEAR_2000_S = 946_684_800
_FULL_SCALE = 4095
_SOIL_TEMP_MV_AT_0, _SOIL_TEMP_MV_PER_C = 500.0, 10.0
_LIGHT_MV_PER_W_M2 = 2.0

_VOID, _U8, _U32, _I32 = None, ctypes.c_uint8, ctypes.c_uint32, ctypes.c_int32
_BYTES = ctypes.POINTER(_U8)


class _Sweep(ctypes.Structure):
    """noria_adc_sweep_t."""

    _fields_ = (("input_mv", _I32 * 4), ("supply_mv", _I32))


class _World(ctypes.Structure):
    """noria_host_world_t."""

    _fields_ = (
        ("sweep", ctypes.CFUNCTYPE(_VOID, ctypes.POINTER(_Sweep), ctypes.c_bool)),
        ("supply_mv", ctypes.CFUNCTYPE(_I32)),
        ("sensor_power", ctypes.CFUNCTYPE(_VOID, ctypes.c_bool)),
        ("air_power", ctypes.CFUNCTYPE(_VOID, ctypes.c_bool)),
        ("i2c_write", ctypes.CFUNCTYPE(ctypes.c_bool, _U8, _BYTES, _U32)),
        ("i2c_read", ctypes.CFUNCTYPE(ctypes.c_bool, _U8, _BYTES, _U32)),
        ("valve", ctypes.CFUNCTYPE(_VOID, ctypes.c_bool)),
        ("modem_hears", ctypes.CFUNCTYPE(_VOID, _BYTES, _U32)),
        ("modem_acts", ctypes.CFUNCTYPE(_VOID)),
        ("modem_reset", ctypes.CFUNCTYPE(_VOID)),
    )


class LineModem(Protocol):
    """A module at the far end of the UART, as :class:`nodes.emulator.modem.Modem` is one."""

    say: Callable[[bytes, float], None]
    """Where answers go: bytes and the time their transmission starts."""
    due: float
    """When it next acts by itself."""
    frames: int
    air_s: float

    def byte(self, value: int) -> None:
        """A byte arrived from the node."""
        ...

    def advance(self, now: float) -> None:
        """``due`` has come."""
        ...

    def reset_line(self, level: int) -> None:
        """The reset pin was pulled low, or let go."""
        ...


class _Library:
    """A copy of the host build, with memory of its own."""

    def __init__(self, *, sanitize: bool) -> None:
        source = build(sanitize=sanitize)
        with tempfile.TemporaryDirectory() as folder:  # the file may go once it is mapped
            self._loaded = ctypes.CDLL(str(shutil.copy(source, Path(folder) / source.name)))
        for name, result in (
            ("board_now_us", ctypes.c_uint64),
            ("board_calendar_us", ctypes.c_uint64),
            ("board_trim_ppm", _I32),
            ("board_valve_open", ctypes.c_bool),
            ("flash_memory", ctypes.c_void_p),
            ("flash_operations", _U32),
        ):
            getattr(self._loaded, f"noria_host_{name}").restype = result

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (C functions)
        return getattr(self._loaded, f"noria_host_{name}")

    @property
    def retained(self) -> int:
        """What ``noria_retain`` was given last."""
        return int(self._loaded.noria_retained())

    def retain(self, number: int) -> None:
        """What the node before the power failed had retained."""
        self._loaded.noria_retain(ctypes.c_uint16(number))

    def unload(self) -> None:
        """Give the memory back; nothing of it may be called again."""
        import _ctypes

        _ctypes.dlclose(self._loaded._handle)


@dataclass(slots=True)
class Counters:
    """What a run did."""

    wakes: int = 0
    """Times the sensors were powered."""
    resets: int = 0
    valve_changes: int = 0


class HostedNode:
    """A provisioned node, powered from ``start_time_s`` on."""

    def __init__(
        self,
        settings_page: bytes,
        model_image_slot: bytes | None,
        world: SensorWorld,
        air: Radio,
        start_time_s: int,
        data_rate: int,
        *,
        calendar_set: bool = True,
        erased_byte: int = 0x00,
        sanitize: bool = False,
        modem: Callable[[HostedNode], LineModem] | None = None,
    ) -> None:
        """Provision and switch on.

        Args:
            settings_page: packed settings, written to the provisioning page as they are.
            model_image_slot: contents of model slot A as the factory writes it; None leaves the slots empty.
            world: the field around it.
            air: the radio around it.
            start_time_s: Unix time at which the battery goes in.
            data_rate: EU868 data rate, 0 to 5.
            calendar_set: whether the factory set the RTC; False starts it in the year 2000.
            erased_byte: what erased flash reads as: 0x00 on STM32L0, 0xFF on STM32L4.
            sanitize: use the build that aborts on undefined behaviour.
            modem: makes another module than the emulator's, which has joined and talks into ``air``.
        """
        self.settings = Settings.unpack(settings_page)
        self.dev_eui = self.settings.dev_eui
        self.start_s = self.start_time_s = start_time_s
        self.ledger = EnergyLedger()
        """The modem's and the air sensor's part only: the host's core draws nothing."""
        self.counters = Counters()
        self._world, self._sanitize, self._erased = world, sanitize, erased_byte
        self._failure: BaseException | None = None
        self._switched_on_us = 0
        self._modem: LineModem = modem(self) if modem else Modem(self, air, self.dev_eui, data_rate)
        self._modem.say = self._modem_says
        self._air_sensor = Sht4x(self, world.air)
        region = bytearray([erased_byte]) * REGION_SIZE
        region[SETTINGS.offset : SETTINGS.offset + len(settings_page)] = settings_page
        if model_image_slot is not None:
            region[MODELS[0].offset : MODELS[0].offset + len(model_image_slot)] = model_image_slot
        calendar_s = start_time_s if calendar_set else _YEAR_2000_S
        self._switch_on(bytes(region), ResetCause.POWER_ON, calendar_s * _SECOND_US, calendar_set=calendar_set)

    def run_until(self, time_s: float) -> None:
        """Run until Unix time ``time_s``; what the world or the air raise comes out here."""
        self._library.board_run_until(ctypes.c_uint64(_to_us(time_s - self.start_time_s) - self._switched_on_us))
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def power_cycle(self) -> None:
        """Switch off and on again: RAM lost, valve closed, calendar kept by its backup supply.

        The cause is what the board of the settings would make of it: STM32L4 knows by the calendar that the supply
        only failed for a moment, STM32L0 does not.
        """
        if self.valve_open:
            self._on_valve(open=False)
        flash, calendar_us, old = self.flash, int(self._library.board_calendar_us()), self._library
        self._switched_on_us = _to_us(self.now())
        cause = ResetCause.BROWN_OUT if self.settings.board is Board.STM32L432 else ResetCause.POWER_ON
        self._switch_on(flash, cause, calendar_us, calendar_set=True, retained=old.retained)
        old.unload()

    @property
    def flash(self) -> bytes:
        """The data region as it is now."""
        return ctypes.string_at(self._library.flash_memory(), REGION_SIZE)

    @property
    def flash_operations(self) -> int:
        """Erase and program operations since it was last switched on."""
        return int(self._library.flash_operations())

    def provision_flash(self, region: bytes) -> None:
        """Replace the data region, as a programmer would."""
        if len(region) != REGION_SIZE:
            raise ValueError(f"the data region has {REGION_SIZE} bytes, not {len(region)}")
        self._library.flash_load(_U32(0), region, _U32(len(region)))

    def say_on_modem_line(self, data: bytes) -> None:
        """Put bytes on the modem's line to the node now, as noise or a confused module would."""
        self._modem_says(data, self.now())

    @property
    def time_s(self) -> float:
        """Unix time the node has reached."""
        return self.start_time_s + self.now()

    @property
    def wakes(self) -> int:
        """Times the node looked at its sensors."""
        return self.counters.wakes

    @property
    def frames_sent(self) -> int:
        """Frames the modem put on air."""
        return self._modem.frames

    @property
    def air_time_s(self) -> float:
        """Their time on air, s."""
        return self._modem.air_s

    @property
    def valve_open(self) -> bool:
        """Whether the valve is driven open."""
        return bool(self._library.board_valve_open())

    def fingerprint(self) -> int:
        """CRC-32 over the data region."""
        return zlib.crc32(self.flash)

    # What the peripheral models ask of their board (nodes.emulator.peripherals.Host).

    def now(self) -> float:
        """Simulated time, s since the node was made."""
        return (self._switched_on_us + int(self._library.board_now_us())) / _SECOND_US

    def stall_until(self, time: float) -> None:
        """Only a register model polls, and none runs here."""
        raise RuntimeError(f"a register model polls until {time}")

    def pend(self, irq: int) -> None:
        """Only a register model interrupts, and none runs here."""
        raise RuntimeError(f"a register model raises interrupt {irq}")

    def _switch_on(
        self, flash: bytes, cause: ResetCause, calendar_us: int, *, calendar_set: bool, retained: int = 0
    ) -> None:
        self.counters.resets += 1
        self._library = _Library(sanitize=self._sanitize)
        self._library.retain(retained)
        self._library.flash_reset(_U8(self._erased))
        self.provision_flash(flash)
        handlers: dict[str, Callable[..., Any]] = {
            "sweep": self._on_sweep,
            "supply_mv": self._on_supply_mv,
            "sensor_power": self._on_sensor_power,
            "air_power": self._air_sensor.feed,
            "i2c_write": self._on_i2c_write,
            "i2c_read": self._on_i2c_read,
            "valve": self._on_valve,
            "modem_hears": self._on_modem_hears,
            "modem_acts": self._on_modem_acts,
            "modem_reset": self._on_modem_reset,
        }
        # C keeps these pointers: they must live as long as the library.
        self._wiring = _World(*(kind(self._guarded(handlers[name])) for name, kind in _World._fields_))
        self._library.board_connect(ctypes.byref(self._wiring))
        identity = bytes.fromhex(self.dev_eui).ljust(12, b"\0")
        self._library.board_start(_U8(cause), identity, ctypes.c_uint64(calendar_us), ctypes.c_bool(calendar_set))

    def _guarded(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """C knows no exceptions: the first one is kept for :meth:`run_until`."""

        def call(*arguments: Any) -> Any:  # noqa: ANN401
            try:
                return handler(*arguments)
            except BaseException as error:  # noqa: BLE001
                self._failure = self._failure or error
                return 0

        return call

    def _on_sweep(self, sweep: Any, powered: bool) -> None:  # noqa: ANN401, FBT001
        """The converter's own arithmetic: 12 bits of the supply, corrected by the internal reference."""
        time_s = self.time_s
        supply = max(self._world.battery_mv(time_s), 1)
        inputs_mv = [0.0] * 4
        if powered:
            temperature_c = self._world.soil_temp_c(time_s)
            broken = math.isnan(temperature_c)
            inputs_mv = [
                float(self._world.probe_mv(SHALLOW, time_s)),
                float(self._world.probe_mv(DEEP, time_s)),
                0.0 if broken else _SOIL_TEMP_MV_AT_0 + _SOIL_TEMP_MV_PER_C * temperature_c,
                self._world.light_w_m2(time_s) * _LIGHT_MV_PER_W_M2,
            ]
        reference, *raw = (
            min(max(round(millivolts * _FULL_SCALE / supply), 0), _FULL_SCALE)
            for millivolts in (REFERENCE_MV, *inputs_mv)
        )
        supply_mv = 3000 * CALIBRATION // reference
        sweep[0].input_mv[:] = [(each * supply_mv + _FULL_SCALE // 2) // _FULL_SCALE for each in raw]
        sweep[0].supply_mv = supply_mv

    def _on_supply_mv(self) -> int:
        return self._world.battery_mv(self.time_s)

    def _on_sensor_power(self, on: bool) -> None:  # noqa: FBT001
        self.counters.wakes += on

    def _on_i2c_write(self, address: int, data: Any, length: int) -> bool:  # noqa: ANN401
        if address != Sht4x.ADDRESS or not self._air_sensor.answers():
            return False
        self._air_sensor.command(bytes(data[:length]))
        return True

    def _on_i2c_read(self, address: int, data: Any, length: int) -> bool:  # noqa: ANN401
        answer = self._air_sensor.result() if address == Sht4x.ADDRESS and self._air_sensor.answers() else None
        if answer is None:
            return False
        ctypes.memmove(data, answer[:length].ljust(length, b"\xff"), length)
        return True

    def _on_valve(self, open: bool) -> None:  # noqa: A002, FBT001
        self.counters.valve_changes += 1
        self._world.valve(open, self.time_s)

    def _on_modem_hears(self, data: Any, length: int) -> None:  # noqa: ANN401
        for value in data[:length]:
            self._modem.byte(value)
        self._plan_modem()

    def _on_modem_acts(self) -> None:
        self._modem.advance(self.now())
        self._plan_modem()

    def _on_modem_reset(self) -> None:
        for level in (0, 1):
            self._modem.reset_line(level)
        self._plan_modem()

    def _modem_says(self, data: bytes, time: float) -> None:
        at_us = max(_to_us(time) - self._switched_on_us, 0)
        self._library.board_modem_says(data, _U32(len(data)), ctypes.c_uint64(at_us))

    def _plan_modem(self) -> None:
        due = self._modem.due
        due_us = _NEVER_US if due == NEVER else max(_to_us(due) - self._switched_on_us, 0)
        self._library.board_modem_due(ctypes.c_uint64(due_us))


def _to_us(time_s: float) -> int:
    return round(time_s * _SECOND_US)
