"""One emulated board: a Cortex-M in Unicorn, its memory map, and simulated time.

Time passes in three ways: with the cycles the core executes, by :meth:`Board.stall_until` while it polls a flag, and in
jumps while it sleeps, each to the next thing that can happen: the RTC's wake-up, a timer, a byte, a frame, the
watchdog. The firmware takes no interrupts (see ``core/hal.h``), so WFI ends when an enabled one is pending and the
core simply goes on. Only NMI is ever taken, when a torn double word is read.

Below :data:`BROWN_OUT_MV` the part is held in reset, its RAM lost, until the supply has recovered. The modem keeps its
session meanwhile: it is taken to ride through on its own reservoir capacitor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from unicorn import (
    UC_ARCH_ARM,
    UC_HOOK_INTR,
    UC_HOOK_MEM_READ,
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
    UC_ARM_REG_CPSR,
    UC_ARM_REG_LR,
    UC_ARM_REG_PC,
    UC_ARM_REG_R0,
    UC_ARM_REG_R1,
    UC_ARM_REG_R2,
    UC_ARM_REG_R3,
    UC_ARM_REG_R12,
    UC_ARM_REG_SP,
    UC_CPU_ARM_CORTEX_M0,
    UC_CPU_ARM_CORTEX_M4,
)

from nodes.emulator import stm32l072, stm32l432
from nodes.emulator.bus import Bus
from nodes.emulator.coils import LatchingValve, PulseTimer
from nodes.emulator.converter import Converter
from nodes.emulator.cycles import CycleCounter
from nodes.emulator.energy import CURRENTS, MODEM_TRANSMIT, PROBES, EnergyLedger
from nodes.emulator.family import Family
from nodes.emulator.firmware import FLASH_BASE, Firmware
from nodes.emulator.flash import Flash, FlashL0, FlashL4
from nodes.emulator.interfaces import DEEP, SHALLOW, Radio, SensorWorld
from nodes.emulator.modem import Modem
from nodes.emulator.peripherals import BoardError, Exti, Gpio, Nvic, Peripheral, SystemControl, Watchdog
from nodes.emulator.serial import I2c, LowPowerUart, Sht4x
from nodes.emulator.timekeeping import LowPowerTimer, Rtc
from shared_models.codes import Board as BoardCode
from shared_models.codes import ResetCause

BROWN_OUT_MV = 1800
"""Below this the brown-out reset holds the part, as the programmer sets its level."""
_RECOVERED_MV = 1900
_RAM_BASE = 0x2000_0000
_NVIC_BASE, _SYSTEM_CONTROL_BASE = 0xE000_E000, 0xE000_EC00
_NOWHERE = 0xFFFF_FFFE
_LONGEST_RUN_S = 60.0
"""A core that runs so long without a watchdog hangs; time goes on in such pieces."""
_WFI = 0xBF30
_WIDE_PREFIXES = (0x1D, 0x1E, 0x1F)
_SENSOR_POWER_PIN, _VALVE_PIN, _AIR_POWER_PIN, _OPEN_PIN, _CLOSE_PIN = 0, 1, 5, 15, 3
_MODEM_RESET_PIN = 8
_TX_PIN, _RX_PIN, _SCL_PIN, _SDA_PIN = 2, 3, 6, 7
_NMI_VECTOR = 2
_EXCEPTION_RETURN = 0xFFFF_FFF9
_STACKED = (UC_ARM_REG_R0, UC_ARM_REG_R1, UC_ARM_REG_R2, UC_ARM_REG_R3, UC_ARM_REG_R12, UC_ARM_REG_LR)
_EXCEPTION_CYCLES = 12
"""Entry, and as many for the return (Cortex-M4 TRM section 2.3)."""
_SUPPLY_SAMPLE_S = 60.0
"""How often the supply is looked at besides changes of load."""
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
    brown_outs: int = 0
    nmis: int = 0
    valve_changes: int = 0
    sleeps: int = 0


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
        self.family = family = _FAMILIES[firmware.board]
        self._hz = family.clock_hz
        self._period_s = 1.0 / family.clock_hz
        self._epoch = 0.0
        self._mark = 0
        self._asleep = False
        self._failure: BaseException | None = None
        self._store: tuple[int, int, int] | None = None
        self._powered_at: float | None = None
        self._valve_open = False
        self._held = False
        self._loaded = False
        self._look_at = 0.0
        self._nmi_pending = False
        self._interrupted: tuple[object, int] | None = None
        self._returned = False
        self._torn_hooks: dict[int, int] = {}

        self.engine = Uc(UC_ARCH_ARM, UC_MODE_THUMB, _CORES[firmware.board])
        self.engine.mem_map(FLASH_BASE, family.flash.size, UC_PROT_READ | UC_PROT_EXEC)
        self.engine.mem_map(_RAM_BASE, family.ram_size, UC_PROT_ALL)
        self.engine.mem_map(family.factory_page, 0x1000, UC_PROT_READ)
        if family.flash is FlashL0:
            self.engine.mem_map(FlashL0.EEPROM, 0x2000, UC_PROT_READ)
        self.engine.mem_write(family.calibration_address, family.calibration.to_bytes(2, "little"))
        identity = bytes.fromhex(dev_eui) + b"LOT1"
        for index, address in enumerate(family.unique_id_addresses):
            self.engine.mem_write(address, identity[4 * index : 4 * index + 4])
        self.engine.mem_write(FLASH_BASE, bytes([family.flash.erased]) * family.flash.size)
        self.engine.mem_write(FLASH_BASE, firmware.image)
        self.counter = CycleCounter(firmware.costs, self.engine)
        self.engine.hook_add(UC_HOOK_MEM_WRITE_PROT, self._on_protected_write)
        self.engine.hook_add(UC_HOOK_MEM_UNMAPPED, self._on_unmapped)
        self.engine.hook_add(UC_HOOK_INTR, self._on_exception)

        self._exti = Exti(self)
        self.rtc = Rtc(self, self._exti, family.irq_rtc, start_s if calendar_set else None, crystal_ppm)
        self.modem = Modem(self, radio, dev_eui, data_rate, joined=joined)
        self._wire(family, world)
        self._bus = Bus(self.engine, family.windows, self._blocks(), self._fail)
        self.reset(ResetCause.POWER_ON)

    def _wire(self, family: Family, world: SensorWorld) -> None:
        """Make the parts and connect them."""
        self.nvic = Nvic(self, family.interrupt_words)
        self.system = SystemControl(self)
        exti = self._exti
        self.timer = LowPowerTimer(self, family.irq_lptim)
        self.uart = LowPowerUart(self, family.irq_lpuart, self.modem.byte)
        self.modem.say = lambda data, time: self.uart.feed(data, time)
        self.watchdog = Watchdog(self, family.lsi_hz)
        self.flash: Flash = family.flash(self, self._store_flash, self._load_flash, self.currents.flash.ua)
        if isinstance(self.flash, FlashL4):
            self.flash.on_torn = self._on_torn
        self.air_sensor = Sht4x(self, world.air)
        self.i2c = I2c(self, self.air_sensor)
        self.pulses = PulseTimer(self, family.irq_tim2)
        self.latching_valve = LatchingValve(self, self._on_latch)
        converter = family.converter(self, self._supply_mv, self._input_mv, self.currents.converter.ua)
        coils = [self.latching_valve.coil(opens=opens) for opens in (True, False)]
        self.gpioa = Gpio(
            self,
            *family.pins_at_reset["gpioa"],
            {_OPEN_PIN: coils[0], _MODEM_RESET_PIN: self.modem.reset_line},
            frozenset({_MODEM_RESET_PIN}),
        )
        self.gpiob = Gpio(
            self,
            *family.pins_at_reset["gpiob"],
            {
                _SENSOR_POWER_PIN: self._on_sensor_power,
                _VALVE_PIN: self._on_valve,
                _AIR_POWER_PIN: self.air_sensor.feed,
                _CLOSE_PIN: coils[1],
            },
        )
        parts: dict[str, Peripheral] = {
            "rtc": self.rtc,
            "lptim1": self.timer,
            "iwdg": self.watchdog,
            "i2c1": self.i2c,
            "lpuart1": self.uart,
            "tim2": self.pulses,
            "exti": exti,
            "flash": self.flash,
            "adc": converter,
            "gpioa": self.gpioa,
            "gpiob": self.gpiob,
            "syscfg": Peripheral(self),
        }
        self.clocks, self.power = family.clocks(self, parts, self.rtc, exti, self._supply_mv)
        parts |= {"rcc": self.clocks, "pwr": self.power}
        self._parts = parts
        self._stopping = [part for part in parts.values() if type(part).enter_stop is not Peripheral.enter_stop]
        self._resuming = [part for part in parts.values() if type(part).leave_stop is not Peripheral.leave_stop]
        self._timed = (self.rtc, self.timer, self.uart, self.modem, self.pulses, self.latching_valve, self.power)
        self._connect(family, converter)

    def _blocks(self) -> dict[int, Peripheral]:
        """Every block of registers, by address."""
        vendors = {self.family.addresses[name]: part for name, part in self._parts.items()}
        return vendors | {_NVIC_BASE: self.nvic, _SYSTEM_CONTROL_BASE: self.system}

    def _connect(self, family: Family, converter: Converter) -> None:
        """Pins, clocks and pulse outputs."""
        alternates = family.alternates
        self.uart.kernel = lambda: self.clocks.kernel("lpuart1")
        self.timer.kernel = lambda: self.clocks.kernel("lptim1")
        self.uart.sends = lambda: self.gpioa.alternate(_TX_PIN) == alternates["lpuart1"]
        self.uart.hears = lambda: self.gpioa.alternate(_RX_PIN) == alternates["lpuart1"]
        self.i2c.connected = lambda: all(
            self.gpiob.alternate(pin) == alternates["i2c1"] and self.gpiob.open_drain(pin)
            for pin in (_SCL_PIN, _SDA_PIN)
        )
        for part in (self.i2c, self.pulses, converter):
            part.hz = self.clocks.core_hz
        self.gpioa.sources[_OPEN_PIN, alternates["tim2 ch1"]] = lambda: self.pulses.output(1)
        self.gpiob.sources[_CLOSE_PIN, alternates["tim2 ch2"]] = lambda: self.pulses.output(2)
        self.pulses.on_change = self._on_pulse
        self.clocks.on_change = self._on_clock
        self.power.on_change = self._check_speed
        self.flash.on_change = self._check_speed

    def reset(self, cause: ResetCause) -> None:
        """System reset: pins, peripherals, core; the RTC domain and the modem live on."""
        self.counters.resets += 1
        self.nvic.reset()
        self.system.reset()
        for part in self._parts.values():
            part.reset()
        self.clocks.caused(cause)
        self._on_clock()
        vectors = bytes(self.engine.mem_read(FLASH_BASE, 8))
        self.engine.reg_write(UC_ARM_REG_SP, int.from_bytes(vectors[:4], "little"))
        self.engine.reg_write(UC_ARM_REG_LR, 0xFFFF_FFFF)
        self._pc = int.from_bytes(vectors[4:], "little") | 1
        self._asleep = False
        self._nmi_pending = False
        self._interrupted = None

    def power_cycle(self, *, calendar_kept: bool) -> None:
        """The supply came back after a cut: RAM holds noise, flash what it held."""
        self._store = None
        self._failure = None
        self._held = False
        self._lose_ram()
        if not calendar_kept:
            self._lose_domain()
        self.reset(ResetCause.POWER_ON)

    def _lose_ram(self) -> None:
        noise = bytes((index * 37 + 11) & 0xFF for index in range(256))
        self.engine.mem_write(_RAM_BASE, noise * (self.family.ram_size // 256))

    def _lose_domain(self) -> None:
        self.rtc.lose_power()
        self.clocks.lose_domain()

    @property
    def clock_hz(self) -> float:
        """The core's clock as it is set now."""
        return self._hz

    @property
    def wait_states(self) -> int:
        """Cycles that each read of flash waits, as they are set now."""
        return self.flash.wait_states

    def _on_clock(self) -> None:
        """The core's clock changed: what passed so far, passed at the old one."""
        self._epoch, self._mark = self.now(), self.counter.cycles
        self._hz = self.clocks.core_hz()
        self._period_s = 1.0 / self._hz
        self._check_speed()

    def _check_speed(self) -> None:
        voltage_range = self.power.voltage_range
        limit_hz = self.family.zero_wait_hz.get(voltage_range, 0.0) * (self.flash.wait_states + 1)
        if self._hz > limit_hz:
            speed = f"{self._hz / 1e6:.2f} MHz in voltage range {voltage_range}"
            raise BoardError(f"FLASH: {self.flash.wait_states} wait states at {speed}")
        self.counter.wait_states = self.flash.wait_states

    def now(self) -> float:
        """Simulated time, s since the emulation began."""
        cycles: int = self.counter.record.cycles
        return self._epoch + (cycles - self._mark) * self._period_s

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
            if self._held:
                if not self._hold(time):
                    return
            elif self._asleep:
                if not self._sleep(time):
                    return
            elif self.now() >= time and self._failure is None:
                return
            else:
                self._execute()

    def _look_at_supply(self, now: float) -> None:
        """Sample the supply when its load changes, and now and then; below the brown-out level the part stops."""
        if now < self._look_at and self.modem.transmitting == self._loaded:
            return
        self._loaded = self.modem.transmitting
        self._look_at = now + _SUPPLY_SAMPLE_S
        self.power.sample()
        if self._supply_mv() < BROWN_OUT_MV:
            self.counters.brown_outs += 1
            self._held = True
            self._lose_ram()
            if not self.family.domain_survives_brown_out:
                self._lose_domain()
            self.reset(ResetCause.BROWN_OUT)

    def _hold(self, until: float) -> bool:
        """Pass time in brown-out reset; true when the supply has recovered before ``until``."""
        now = self._epoch
        while now < until and self._supply_mv() < _RECOVERED_MV:
            later = min(until, now + 1.0, max(self.modem.due, now))
            self._epoch = later
            self._pass(later - now)
            now = later
            if self.modem.due <= now:
                self.modem.advance(now)
        self._held = self._supply_mv() < _RECOVERED_MV
        self._look_at = now
        return not self._held

    def _sleep(self, until: float) -> bool:
        """Pass time asleep; true when the core wakes before ``until``."""
        nvic, parts = self.nvic, self._timed
        start = now = self._epoch
        woke = False
        while True:
            self._look_at_supply(now)
            if self._held:
                self._book_sleep(now - start)
                return True
            if nvic.pending & nvic.enabled or self._nmi_pending:
                woke = True
                break
            due = min(
                self.watchdog.due,
                self.rtc.due,
                self.timer.due,
                self.uart.due,
                self.modem.due,
                self.pulses.due,
                self.latching_valve.due,
                self.power.due,
            )
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
            if self.system.sleep_deep:
                for resuming in self._resuming:
                    resuming.leave_stop()
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
        self.ledger.charge("watchdog", self.currents.watchdog.ua, duration_s)
        self.modem.book(duration_s)

    def _watchdog_bites(self) -> None:
        self.counters.watchdog_resets += 1
        self.reset(ResetCause.WATCHDOG)

    def _execute(self) -> None:
        """Run the core until it sleeps, stores to flash, hangs into the watchdog, or fails."""
        engine = self.engine
        start = self.now()
        if self._nmi_pending and self._interrupted is None:
            self._take_nmi()
        limit = min(self.watchdog.due, self.pulses.due, self.latching_valve.due) - start
        self.counter.stop_after(int(min(max(limit, 0.0), _LONGEST_RUN_S) * self._hz) + 1)
        try:
            engine.emu_start(self._pc, _NOWHERE)
        except UcError as error:
            if self._failure is None and self._store is None:
                self._failure = BoardError(f"{error} at {engine.reg_read(UC_ARM_REG_PC):#010x}")
        pc, executed = self.counter.where()
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
        elif self._returned:
            self._return_from_nmi()
        elif executed == _WFI:
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
            return
        for part in (self.pulses, self.latching_valve):
            if part.due <= end:
                part.advance(part.due)
        if self._asleep and self.system.sleep_deep:
            for stopping in self._stopping:
                stopping.enter_stop()
        self._look_at_supply(self.now())

    def _take_nmi(self) -> None:
        """Exception entry: eight words on the stack, the handler's address from the vector table."""
        engine = self.engine
        self._nmi_pending = False
        self.counters.nmis += 1
        self._interrupted = (engine.context_save(), self._pc)
        stack = engine.reg_read(UC_ARM_REG_SP) - 32 & ~7
        frame = [engine.reg_read(register) for register in _STACKED]
        frame += [self._pc & ~1, engine.reg_read(UC_ARM_REG_CPSR)]
        engine.mem_write(stack, b"".join(word.to_bytes(4, "little") for word in frame))
        engine.reg_write(UC_ARM_REG_SP, stack)
        engine.reg_write(UC_ARM_REG_LR, _EXCEPTION_RETURN)
        vector = bytes(engine.mem_read(FLASH_BASE + 4 * _NMI_VECTOR, 4))
        self._pc = int.from_bytes(vector, "little") | 1
        self.counter.stall(_EXCEPTION_CYCLES)

    def _return_from_nmi(self) -> None:
        """The handler returned: the core goes on where it was interrupted."""
        self._returned = False
        if self._interrupted is not None:
            context, self._pc = self._interrupted
            self.engine.context_restore(context)
            self._interrupted = None
            self.counter.stall(_EXCEPTION_CYCLES)

    def _fail(self, error: Exception) -> None:
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

    def _on_torn(self, address: int, torn: bool) -> None:  # noqa: FBT001 (a fact about the address)
        """A double word became unreadable, or readable again; hooks only where needed, because they cost."""
        if torn:
            self._torn_hooks[address] = self.engine.hook_add(
                UC_HOOK_MEM_READ, self._on_torn_read, address, address, address + 7
            )
        else:
            self.engine.hook_del(self._torn_hooks.pop(address))
        self.engine.ctl_flush_tb()

    def _on_torn_read(
        self, _engine: Uc, _access: int, _address: int, _size: int, _value: int, double_word: int
    ) -> None:
        if isinstance(self.flash, FlashL4):
            self.flash.read_torn(double_word)
        self._nmi_pending = True
        self.counter.stop_after(0)  # taken at the next block, where the program counter is exact

    def _on_exception(self, engine: Uc, number: int, _user: object) -> None:
        pc = engine.reg_read(UC_ARM_REG_PC)
        if self._interrupted is not None and pc == _EXCEPTION_RETURN & ~1:
            self._returned = True  # there is nothing to fetch at that address
        else:
            self._failure = BoardError(f"exception {number} at pc {pc:#010x}")
        engine.emu_stop()

    def _store_flash(self, address: int, data: bytes) -> None:
        self.engine.mem_write(address, data)

    def _load_flash(self, address: int, length: int) -> bytes:
        return bytes(self.engine.mem_read(address, length))

    def _on_valve(self, level: int) -> None:
        self.counters.valve_changes += 1
        self._valve_open = bool(level)
        self.world.valve(self._valve_open, self.start_s + self.now())

    def _on_latch(self, is_open: bool) -> None:  # noqa: FBT001 (the words of the trade)
        self.counters.valve_changes += 1
        self.world.valve(is_open, self.start_s + self.now())

    def _on_pulse(self) -> None:
        self.gpioa.refresh()
        self.gpiob.refresh()

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
        return bytes(self.engine.mem_read(_RAM_BASE, self.family.ram_size))

    @property
    def valve_open(self) -> bool:
        """Whether a valve is open: driven, or latched."""
        return self._valve_open or self.latching_valve.open

    def _supply_mv(self) -> int:
        """The battery's open-circuit voltage, less what the modem's transmitter drops over its resistance."""
        time = self.start_s + self.now()
        open_circuit_mv = self.world.battery_mv(time)
        if not self.modem.transmitting:
            return open_circuit_mv
        internal_ohm = getattr(self.world, "internal_ohm", None)
        drop_mv = internal_ohm(time) * MODEM_TRANSMIT.ua / 1000.0 if internal_ohm else 0.0
        return max(round(open_circuit_mv - drop_mv), 0)

    def _input_mv(self, channel: int) -> float:
        """What stands on an analogue pin; the probes and the thermometer only while the rail is on."""
        time = self.start_s + self.now()
        name, pin = self.family.inputs.get(channel, (None, 0))
        if name is None:
            raise BoardError(f"ADC: nothing is connected to channel {channel}")
        if self.gpioa.mode(pin) != Gpio.ANALOG:
            raise BoardError(f"ADC: conversion of PA{pin}, which is not analogue")
        if self._powered_at is None:
            return 0.0
        if name == "shallow":
            return float(self.world.probe_mv(SHALLOW, time))
        if name == "deep":
            return float(self.world.probe_mv(DEEP, time))
        if name == "light":
            return self.world.light_w_m2(time) * _LIGHT_MV_PER_W_M2
        temperature_c = self.world.soil_temp_c(time)
        return 0.0 if math.isnan(temperature_c) else _SOIL_TEMP_MV_AT_0 + _SOIL_TEMP_MV_PER_C * temperature_c
