"""One emulated board: a Cortex-M in Unicorn, its memory map, and simulated time.

Time passes in three ways: with the cycles the core executes, by :meth:`Board.stall_until` while it polls a flag, and in
jumps while it sleeps, each to the next thing that can happen: the RTC's wake-up, a timer, a byte, a frame, the
watchdog. The firmware takes no interrupts (see ``core/hal.h``), so WFI ends when an enabled one is pending and the
core simply goes on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from unicorn import (
    UC_ARCH_ARM,
    UC_HOOK_INTR,
    UC_HOOK_MEM_UNMAPPED,
    UC_HOOK_MEM_WRITE_PROT,
    UC_MODE_THUMB,
    UC_PROT_ALL,
    UC_PROT_EXEC,
    UC_PROT_READ,
    Uc,
    UcError,
)
from unicorn.arm_const import (
    UC_ARM_REG_LR,
    UC_ARM_REG_PC,
    UC_ARM_REG_SP,
    UC_CPU_ARM_CORTEX_M0,
    UC_CPU_ARM_CORTEX_M4,
)

from nodes.emulator import stm32l072, stm32l432
from nodes.emulator.cycles import CycleCounter
from nodes.emulator.energy import CURRENTS, PROBES, SHT4X_IDLE, EnergyLedger
from nodes.emulator.firmware import FLASH_BASE, Firmware
from nodes.emulator.flash import Flash
from nodes.emulator.interfaces import DEEP, SHALLOW, Radio, SensorWorld
from nodes.emulator.modem import Modem
from nodes.emulator.peripherals import BoardError, Exti, Gpio, Nvic, Peripheral, SystemControl, Watchdog
from nodes.emulator.serial import I2c, LowPowerUart, Sht4x
from nodes.emulator.timekeeping import LowPowerTimer, Rtc
from shared_models.codes import Board as BoardCode

_RAM_BASE = 0x2000_0000
_NOWHERE = 0xFFFF_FFFE
_LONGEST_RUN_S = 60.0
"""A core that runs so long without a watchdog hangs; time goes on in such pieces."""
_WFI = b"\x30\xbf"
_WIDE_PREFIXES = (0x1D, 0x1E, 0x1F)
_SENSOR_POWER_PIN, _VALVE_PIN = 0, 1
_MODEM_RESET_PIN = 8
_SOIL_TEMP_MV_AT_0, _SOIL_TEMP_MV_PER_C = 500.0, 10.0
_LIGHT_MV_PER_W_M2 = 2.0

_FAMILIES = {BoardCode.STM32L072: stm32l072.FAMILY, BoardCode.STM32L432: stm32l432.FAMILY}
_CORES = {BoardCode.STM32L072: UC_CPU_ARM_CORTEX_M0, BoardCode.STM32L432: UC_CPU_ARM_CORTEX_M4}


@dataclass(slots=True)
class Counters:
    """What a run did."""

    wakes: int = 0
    """Times the sensors were powered."""
    resets: int = 0
    watchdog_resets: int = 0
    valve_changes: int = 0
    sleeps: int = 0
    mmio: int = 0


class Board:
    """A board from its supply on. Times inside are seconds since the emulation began."""

    def __init__(
        self,
        firmware: Firmware,
        world: SensorWorld,
        radio: Radio,
        dev_eui: str,
        start_s: int,
        data_rate: int,
        *,
        calendar_set: bool,
        joined: bool = True,
        crystal_ppm: float = 0.0,
    ) -> None:
        """Solder everything together; :meth:`reset` starts it."""
        self.firmware = firmware
        self.world = world
        self.start_s = start_s
        self.ledger = EnergyLedger()
        self.counters = Counters()
        self.currents = CURRENTS[firmware.board]
        family = _FAMILIES[firmware.board]
        self._hz = family.clock_hz
        self._period_s = 1.0 / family.clock_hz
        self._epoch = 0.0
        self._mark = 0
        self._asleep = False
        self._failure: BaseException | None = None
        self._store: tuple[int, int, int] | None = None
        self._powered_at: float | None = None
        self._valve_open = False

        self.engine = Uc(UC_ARCH_ARM, UC_MODE_THUMB, _CORES[firmware.board])
        self.engine.mem_map(FLASH_BASE, family.flash.size, UC_PROT_READ | UC_PROT_EXEC)
        self.engine.mem_map(_RAM_BASE, family.ram_size, UC_PROT_ALL)
        self.engine.mem_map(family.factory_page, 0x1000, UC_PROT_READ)
        self.engine.mem_write(family.calibration_address, family.calibration.to_bytes(2, "little"))
        self.engine.mem_write(FLASH_BASE, bytes([family.flash.erased]) * family.flash.size)
        self.engine.mem_write(FLASH_BASE, firmware.image)
        self.counter = CycleCounter(firmware.costs, self.engine)
        self.engine.hook_add(UC_HOOK_MEM_WRITE_PROT, self._on_protected_write)
        self.engine.hook_add(UC_HOOK_MEM_UNMAPPED, self._on_unmapped)
        self.engine.hook_add(UC_HOOK_INTR, self._on_exception)

        self.nvic = Nvic(self)
        self.system = SystemControl(self)
        exti = Exti(self)
        self.rtc = Rtc(self, exti, family.irq_rtc, start_s if calendar_set else None, crystal_ppm)
        self.timer = LowPowerTimer(self, family.irq_lptim)
        self.modem = Modem(self, radio, dev_eui, data_rate, joined=joined)
        self.uart = LowPowerUart(self, family.irq_lpuart, self.modem.byte)
        self.modem.say = lambda data, time: self.uart.feed(data, time)
        self.watchdog = Watchdog(self, family.lsi_hz)
        self.flash: Flash = family.flash(self, self._store_flash, self._load_flash, self.currents.flash.ua)
        converter = family.converter(self, self._supply_mv, self._input_mv, self.currents.converter.ua)
        parts = {
            "rtc": self.rtc,
            "lptim1": self.timer,
            "iwdg": self.watchdog,
            "i2c1": I2c(self, Sht4x(self, world.air)),
            "lpuart1": self.uart,
            "exti": exti,
            "flash": self.flash,
            "adc": converter,
            "gpioa": Gpio(self, {_MODEM_RESET_PIN: self.modem.reset_line}, frozenset({_MODEM_RESET_PIN})),
            "gpiob": Gpio(self, {_SENSOR_POWER_PIN: self._on_sensor_power, _VALVE_PIN: self._on_valve}),
            "syscfg": Peripheral(self),
        }
        parts |= family.clocks(self, parts)
        self._parts = parts
        self._blocks: dict[int, Peripheral] = {family.addresses[name] >> 10: part for name, part in parts.items()}
        self._blocks[0xE000E000 >> 10] = self.nvic
        self._blocks[0xE000EC00 >> 10] = self.system
        for base, size in family.windows:
            self.engine.mmio_map(base, size, self._mmio_read, base, self._mmio_write, base)
        self.reset()

    def reset(self) -> None:
        """System reset: pins, peripherals, core; the RTC domain and the modem live on."""
        self.counters.resets += 1
        self.nvic.reset()
        self.system.reset()
        for part in self._parts.values():
            part.reset()
        vectors = bytes(self.engine.mem_read(FLASH_BASE, 8))
        self.engine.reg_write(UC_ARM_REG_SP, int.from_bytes(vectors[:4], "little"))
        self.engine.reg_write(UC_ARM_REG_LR, 0xFFFF_FFFF)
        self._pc = int.from_bytes(vectors[4:], "little") | 1
        self._asleep = False

    def power_cycle(self) -> None:
        """The supply came back after a cut: RAM holds noise, flash what it held."""
        self._store = None
        self._failure = None
        noise = bytes((index * 37 + 11) & 0xFF for index in range(256))
        self.engine.mem_write(_RAM_BASE, noise * (_FAMILIES[self.firmware.board].ram_size // 256))
        self.reset()

    def now(self) -> float:
        """Simulated time, s since the emulation began."""
        return self._epoch + (self.counter.cycles - self._mark) * self._period_s

    def stall_until(self, time: float) -> None:
        """The core polls or waits on the bus until ``time``."""
        wait = time - self.now()
        if wait > 0.0:
            self.counter.stall(int(wait * self._hz) + 1)

    def pend(self, irq: int) -> None:
        """An interrupt line rose."""
        self.nvic.pending |= 1 << irq

    def run_until(self, time: float) -> None:
        """Run until simulated time reaches ``time``, s since the emulation began.

        Raises:
            BoardError: the firmware did something the hardware would not forgive.
            PowerCutError: the supply failed during the flash operation it was told to fail at.
        """
        while True:
            if self._asleep:
                if not self._sleep(time):
                    return
            elif self.now() >= time and self._failure is None:
                return
            self._execute()

    def _sleep(self, until: float) -> bool:
        """Pass time asleep; true when the core wakes before ``until``."""
        nvic, parts = self.nvic, (self.rtc, self.timer, self.uart, self.modem)
        start = now = self._epoch
        woke = False
        while True:
            if nvic.pending & nvic.enabled:
                woke = True
                break
            due = min(self.rtc.due, self.timer.due, self.uart.due, self.modem.due)
            if self.watchdog.due < due:
                due = self.watchdog.due
            if due > until:
                now = max(now, until)
                break
            now = max(now, due)
            self._epoch = now
            if self.watchdog.due <= now:
                self._book_sleep(now - start)
                self._watchdog_bites()
                return True
            for part in parts:
                if part.due <= now:
                    part.advance(now)
        self._epoch = now
        self._book_sleep(now - start)
        if woke:
            self._asleep = False
        return woke

    def _book_sleep(self, duration_s: float) -> None:
        if self.system.sleep_deep:
            self.ledger.charge("core stop", self.currents.stop.ua, duration_s)
        else:
            self.ledger.charge("core sleep", self.currents.sleep.ua, duration_s)
        self._pass(duration_s)

    def _pass(self, duration_s: float) -> None:
        """Consumers that never sleep."""
        self.ledger.elapsed_s += duration_s
        self.ledger.charge("air sensor idle", SHT4X_IDLE.ua, duration_s)
        self.ledger.charge("watchdog", self.currents.watchdog.ua, duration_s)
        self.modem.book(duration_s)

    def _watchdog_bites(self) -> None:
        self.counters.watchdog_resets += 1
        self.reset()

    def _execute(self) -> None:
        """Run the core until it sleeps, stores to flash, hangs into the watchdog, or fails."""
        engine = self.engine
        start = self.now()
        self.counter.stop_after(int(min(self.watchdog.due - start, _LONGEST_RUN_S) * self._hz) + 1)
        try:
            engine.emu_start(self._pc, _NOWHERE)
        except UcError as error:
            if self._failure is None and self._store is None:
                self._failure = BoardError(f"{error} at {engine.reg_read(UC_ARM_REG_PC):#010x}")
        pc = engine.reg_read(UC_ARM_REG_PC) & ~1
        if self._store is not None and self._failure is None:
            self.counter.stopped_at(pc)
            address, size, value = self._store
            self._store = None
            try:
                self.flash.store_word(address, size, value)
            except Exception as error:  # noqa: BLE001 (kept, and raised below with the core stopped)
                self._failure = error
            half_word = int.from_bytes(engine.mem_read(pc, 2), "little")
            self._pc = (pc + (4 if half_word >> 11 in _WIDE_PREFIXES else 2)) | 1
        elif engine.mem_read(pc - 2, 2) == _WFI:
            self._asleep = True
            self.counters.sleeps += 1
            self._pc = pc | 1
        else:  # stopped by the cycle limit
            self._pc = pc | 1
        end = self.now()
        self.ledger.charge("core run", self.currents.run.ua, end - start)
        self._pass(end - start)
        self._epoch, self._mark = end, self.counter.cycles
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if self.watchdog.due <= end:
            self._watchdog_bites()

    def _mmio_read(self, engine: Uc, offset: int, size: int, base: int) -> int:  # noqa: ARG002 (Unicorn's signature)
        address = base + offset
        self.counters.mmio += 1
        try:
            return self._blocks[address >> 10].read(address & 0x3FF) & 0xFFFF_FFFF
        except Exception as error:  # noqa: BLE001 (raised again once the core has stopped)
            self._fail(error, address)
            return 0

    def _mmio_write(self, engine: Uc, offset: int, size: int, value: int, base: int) -> None:  # noqa: ARG002
        address = base + offset
        self.counters.mmio += 1
        try:
            self._blocks[address >> 10].write(address & 0x3FF, value & 0xFFFF_FFFF)
        except Exception as error:  # noqa: BLE001
            self._fail(error, address)

    def _fail(self, error: Exception, address: int) -> None:
        if isinstance(error, KeyError):
            error = BoardError(f"bus fault: nothing at {address:#010x}")
        if self._failure is None:
            self._failure = error
        self.engine.emu_stop()

    def _on_protected_write(
        self, _engine: Uc, _access: int, address: int, size: int, value: int, _user: object
    ) -> bool:
        self._store = (address, size, value & ((1 << 8 * size) - 1))
        return False

    def _on_unmapped(self, engine: Uc, _access: int, address: int, _size: int, _value: int, _user: object) -> bool:
        self._failure = BoardError(f"bus fault at {address:#010x}, pc {engine.reg_read(UC_ARM_REG_PC):#010x}")
        return False

    def _on_exception(self, engine: Uc, number: int, _user: object) -> None:
        self._failure = BoardError(f"exception {number} at pc {engine.reg_read(UC_ARM_REG_PC):#010x}")
        engine.emu_stop()

    def _store_flash(self, address: int, data: bytes) -> None:
        self.engine.mem_write(address, data)

    def _load_flash(self, address: int, length: int) -> bytes:
        return bytes(self.engine.mem_read(address, length))

    def _on_valve(self, level: int) -> None:
        self.counters.valve_changes += 1
        self._valve_open = bool(level)
        self.world.valve(self._valve_open, self.start_s + self.now())

    def _on_sensor_power(self, level: int) -> None:
        now = self.now()
        if level:
            self.counters.wakes += 1
            self._powered_at = now
        elif self._powered_at is not None:
            self.ledger.charge("probes", PROBES.ua, now - self._powered_at)
            self._powered_at = None

    def ram(self) -> bytes:
        """The whole of RAM."""
        return bytes(self.engine.mem_read(_RAM_BASE, _FAMILIES[self.firmware.board].ram_size))

    @property
    def valve_open(self) -> bool:
        """Level of the valve's drive line."""
        return self._valve_open

    def _supply_mv(self) -> int:
        return self.world.battery_mv(self.start_s + self.now())

    def _input_mv(self, channel: int) -> float:
        """What stands on an analogue pin; the probes and the thermometer only while the rail is on."""
        time = self.start_s + self.now()
        name = _FAMILIES[self.firmware.board].inputs.get(channel)
        if self._powered_at is None or name is None:
            return 0.0
        if name == "shallow":
            return float(self.world.probe_mv(SHALLOW, time))
        if name == "deep":
            return float(self.world.probe_mv(DEEP, time))
        if name == "light":
            return self.world.light_w_m2(time) * _LIGHT_MV_PER_W_M2
        temperature_c = self.world.soil_temp_c(time)
        return 0.0 if math.isnan(temperature_c) else _SOIL_TEMP_MV_AT_0 + _SOIL_TEMP_MV_PER_C * temperature_c
