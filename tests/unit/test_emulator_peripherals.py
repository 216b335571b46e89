"""The emulated parts keep their reference manuals' promises, also towards firmware that breaks them."""

from __future__ import annotations

import pytest

from nodes.emulator.coils import LatchingValve, PulseTimer
from nodes.emulator.energy import CR2032_UAH, RESERVOIR, EnergyLedger
from nodes.emulator.flash import Cut, FlashL0, FlashL4, PowerCutError
from nodes.emulator.peripherals import BoardError, Exti, Gpio, KernelClock, Peripheral, Watchdog
from nodes.emulator.serial import LowPowerUart, crc8
from nodes.emulator.stm32l072 import PowerL0
from nodes.emulator.timekeeping import LowPowerTimer, Rtc

BASE = 0x0800_0000


class Bench:
    """A board without a core."""

    def __init__(self) -> None:
        self.ledger = EnergyLedger()
        self.start_s = 0
        self.time = 0.0
        self.pended: list[int] = []
        self.memory = bytearray()

    def now(self) -> float:
        return self.time

    def stall_until(self, time: float) -> None:
        self.time = max(self.time, time)

    def pend(self, irq: int) -> None:
        self.pended.append(irq)

    def flash(self, part: type[FlashL0 | FlashL4]) -> FlashL0 | FlashL4:
        self.memory = bytearray([part.erased]) * 4096

        def store(address: int, data: bytes) -> None:
            self.memory[address - BASE : address - BASE + len(data)] = data

        return part(self, store, lambda at, n: bytes(self.memory[at - BASE : at - BASE + n]), 500.0)


def unlocked_l0(bench: Bench) -> FlashL0:
    flash = bench.flash(FlashL0)
    for register, key in ((0x0C, 0x89ABCDEF), (0x0C, 0x02030405), (0x10, 0x8C9DAEBF), (0x10, 0x13141516)):
        flash.write(register, key)
    return flash


def unlocked_l4(bench: Bench) -> FlashL4:
    flash = bench.flash(FlashL4)
    flash.write(0x08, 0x45670123)
    flash.write(0x08, 0xCDEF89AB)
    return flash


def test_l0_flash_programs_words_once_and_erases_pages_to_zero() -> None:
    bench = Bench()
    flash = unlocked_l0(bench)
    flash.write(0x04, 0)
    flash.store_word(BASE + 128, 4, 0x11223344)
    assert bench.memory[128:132] == bytes.fromhex("44332211")
    flash.store_word(BASE + 128, 4, 0x55667788)
    assert flash.read(0x18) & FlashL0.NOTZEROERR
    assert bench.memory[128:132] == bytes.fromhex("44332211")
    flash.write(0x04, FlashL0.PROG | FlashL0.ERASE)
    flash.store_word(BASE + 130 - 2, 4, 0)
    assert not any(bench.memory[128:256])
    assert flash.operations == 2
    assert flash.read(0x18) is not None
    assert bench.time >= 2 * FlashL0.OPERATION_S


def test_l4_flash_programs_double_words_once() -> None:
    bench = Bench()
    flash = unlocked_l4(bench)
    flash.write(0x14, FlashL4.PG)
    flash.store_word(BASE + 8, 4, 1)
    assert bench.memory[8:16] == b"\xff" * 8
    flash.store_word(BASE + 12, 4, 2)
    assert bench.memory[8:16] == bytes.fromhex("0100000002000000")
    flash.store_word(BASE + 8, 4, 3)
    flash.store_word(BASE + 12, 4, 3)
    assert flash.read(0x10) & FlashL4.PROGERR
    assert bench.memory[8:16] == bytes.fromhex("0100000002000000")
    flash.write(0x10, 0xC3FB)
    flash.write(0x14, FlashL4.PER | 1 << 3)
    flash.write(0x14, FlashL4.PER | 1 << 3 | FlashL4.STRT)
    assert bench.memory[2048:4096] == b"\xff" * 2048


@pytest.mark.parametrize(("part", "register", "key"), [(FlashL0, 0x0C, 0x89ABCDEE), (FlashL4, 0x08, 0xCDEF89AB)])
def test_a_wrong_key_locks_flash_until_reset(part, register, key) -> None:
    flash = Bench().flash(part)
    with pytest.raises(BoardError, match="wrong key"):
        flash.write(register, key)
    with pytest.raises(BoardError, match="wrong key"):
        flash.write(register, 0x45670123 if part is FlashL4 else 0x89ABCDEF)
    flash.reset()
    flash.write(register, 0x45670123 if part is FlashL4 else 0x89ABCDEF)


def test_a_locked_flash_takes_no_store() -> None:
    bench = Bench()
    flash = bench.flash(FlashL0)
    flash.store_word(BASE, 4, 1)
    assert flash.read(0x18) & FlashL0.WRPERR
    assert not any(bench.memory)


def program_l4(flash: FlashL4, address: int, low: int, high: int) -> None:
    flash.write(0x14, FlashL4.PG)
    flash.store_word(address, 4, low)
    flash.store_word(address + 4, 4, high)


def test_power_fails_in_the_middle_of_the_operation_it_was_told_to() -> None:
    bench = Bench()
    flash = unlocked_l4(bench)
    flash.cut = Cut(1, torn=True, seed=0)
    program_l4(flash, BASE, 0x01010101, 0x01010101)
    with pytest.raises(PowerCutError):
        program_l4(flash, BASE + 8, 0x02020202, 0x03030303)
    assert bench.memory[8:16] == bytes.fromhex("02020202ffffffff")
    assert flash.torn == {BASE + 8}


def test_power_fails_right_after_an_operation() -> None:
    bench = Bench()
    flash = unlocked_l4(bench)
    flash.cut = Cut(0, torn=False, seed=1)
    with pytest.raises(PowerCutError):
        program_l4(flash, BASE, 0x02020202, 0x03030303)
    assert bench.memory[:8] == bytes.fromhex("0202020203030303")
    assert not flash.torn


def test_a_torn_program_changes_only_bits_it_was_to_change() -> None:
    seen = set()
    for seed in range(1, 20):
        bench = Bench()
        flash = unlocked_l0(bench)
        flash.write(0x04, 0)
        flash.cut = Cut(0, torn=True, seed=seed)
        with pytest.raises(PowerCutError):
            flash.store_word(BASE, 4, 0x0F0F0F0F)
        word = int.from_bytes(bench.memory[:4], "little")
        assert word & ~0x0F0F0F0F == 0
        seen.add(word)
    assert len(seen) > 10


def test_a_torn_erase_leaves_old_erased_and_mixed_words() -> None:
    bench = Bench()
    flash = unlocked_l0(bench)
    bench.memory[:128] = b"\xff" * 128
    flash.write(0x04, FlashL0.PROG | FlashL0.ERASE)
    flash.cut = Cut(0, torn=True, seed=3)
    with pytest.raises(PowerCutError):
        flash.store_word(BASE, 4, 0)
    words = [bytes(bench.memory[at : at + 8]) for at in range(0, 128, 8)]
    assert bytes(8) in words
    assert b"\xff" * 8 in words
    assert any(word not in (bytes(8), b"\xff" * 8) for word in words)


def test_only_an_erase_makes_a_torn_double_word_readable() -> None:
    bench = Bench()
    flash = unlocked_l4(bench)
    marks: list[tuple[int, bool]] = []
    flash.on_torn = lambda address, torn: marks.append((address, torn))
    flash.cut = Cut(0, torn=True, seed=1)
    with pytest.raises(PowerCutError):
        program_l4(flash, BASE, 0x12345678, 0x9ABCDEF0)
    flash.reset()
    flash.read_torn(BASE)
    assert flash.read(FlashL4.ECCR) & FlashL4.ECCD
    flash.write(FlashL4.ECCR, FlashL4.ECCD)
    assert flash.read(FlashL4.ECCR) == 0
    flash.write(0x08, 0x45670123)
    flash.write(0x08, 0xCDEF89AB)
    flash.write(0x14, FlashL4.PER)
    flash.write(0x14, FlashL4.PER | FlashL4.STRT)
    assert marks == [(BASE, True), (BASE, False)]


def test_a_register_that_does_not_exist_is_a_fault_not_memory() -> None:
    flash = Bench().flash(FlashL0)
    with pytest.raises(BoardError, match="no register at offset 0x24"):
        flash.write(0x24, 0)
    with pytest.raises(BoardError, match="nothing to read at offset 0x24"):
        flash.read(0x24)
    with pytest.raises(BoardError, match="nothing to read"):
        flash.read(FlashL0.PEKEYR)
    with pytest.raises(BoardError, match="reserved bits 0x80000000"):
        flash.write(FlashL0.ACR, 1 << 31)


def test_flash_is_not_left_alone_in_the_middle_of_an_operation() -> None:
    bench = Bench()
    flash = unlocked_l0(bench)
    flash.write(0x04, 0)
    flash.store_word(BASE, 4, 1)
    with pytest.raises(BoardError, match="STOP while an operation"):
        flash.enter_stop()
    flash.read(FlashL0.SR)
    flash.enter_stop()


def test_a_block_without_its_clock_is_a_fault_not_silence() -> None:
    block = Peripheral(Bench())
    block.clocked = False
    with pytest.raises(BoardError, match="without its clock"):
        block.read(0)
    with pytest.raises(BoardError, match="without its clock"):
        block.write(0, 1)


def rtc(bench: Bench, calendar_s: int | None) -> tuple[Rtc, Exti]:
    exti = Exti(bench)
    exti.write(0x00, 1 << 20)
    exti.write(0x08, 1 << 20)
    return Rtc(bench, exti, 2, calendar_s), exti


def test_the_rtc_takes_no_write_while_protected() -> None:
    clock, _ = rtc(Bench(), 0)
    with pytest.raises(BoardError, match="protected"):
        clock.write(Rtc.CR, 0)
    clock.writable = True
    with pytest.raises(BoardError, match="protected"):
        clock.write(Rtc.CR, 0)
    clock.write(Rtc.WPR, 0xCA)
    clock.write(Rtc.WPR, 0x53)
    clock.write(Rtc.CR, 0)


def test_the_wake_up_timer_comes_back_every_period_and_pends_once_per_acknowledgement() -> None:
    bench = Bench()
    clock, exti = rtc(bench, 1_777_593_600)
    clock.writable = True
    clock.write(Rtc.WPR, 0xCA)
    clock.write(Rtc.WPR, 0x53)
    clock.write(Rtc.WUTR, 17)
    clock.write(Rtc.CR, 4 | Rtc.WUTE | Rtc.WUTIE)
    for wake in (18.0, 36.0, 54.0):
        assert clock.due == wake
        bench.time = wake
        clock.advance(wake)
        if wake == 36.0:
            continue  # not acknowledged: the next event makes no new edge
        exti.write(0x14, 1 << 20)
        clock.write(Rtc.ISR, 0xFFFF_FFFF & ~(Rtc.WUTF | Rtc.INIT))
    assert bench.pended == [2, 2]
    assert clock.read(Rtc.TR) == 0x000054


def test_the_low_power_timer_asks_for_its_order_of_writes() -> None:
    bench = Bench()
    timer = LowPowerTimer(bench, 13)
    with pytest.raises(BoardError, match="ARR"):
        timer.write(LowPowerTimer.ARR, 10)
    timer.write(LowPowerTimer.IER, 2)
    timer.write(LowPowerTimer.CR, 1)
    with pytest.raises(BoardError, match="IER"):
        timer.write(LowPowerTimer.IER, 0)
    timer.write(LowPowerTimer.ARR, 32767)
    timer.write(LowPowerTimer.CR, 3)
    assert timer.due == pytest.approx(1.0)


def test_the_watchdog_cannot_be_stopped() -> None:
    bench = Bench()
    dog = Watchdog(bench, 37_000.0)
    dog.write(0x00, 0xCCCC)
    dog.write(0x00, 0x5555)
    dog.write(0x04, 6)
    dog.write(0x08, 0xFFF)
    with pytest.raises(BoardError, match="not taken over yet"):
        dog.write(0x04, 6)
    assert dog.read(0x0C) == 0
    dog.write(0x00, 0xAAAA)
    assert dog.due == pytest.approx(bench.time + 4096 * 256 / 37_000)
    dog.write(0x04, 0)
    assert dog.values[0x04] == 6


def line(bench: Bench) -> tuple[LowPowerUart, list[int]]:
    heard: list[int] = []
    uart = LowPowerUart(bench, 29, heard.append)
    uart.write(LowPowerUart.BRR, 874)
    uart.write(LowPowerUart.CR3, LowPowerUart.WUS_RXNE | LowPowerUart.WUFIE)
    uart.write(LowPowerUart.CR1, 0x2F)
    return uart, heard


def pass_time(bench: Bench, part: Peripheral) -> None:
    bench.time = max(bench.time, part.due)
    part.advance(bench.time)


def test_the_line_carries_bytes_only_at_its_baud_rate() -> None:
    bench = Bench()
    uart, heard = line(bench)
    uart.write(LowPowerUart.TDR, 0x41)
    pass_time(bench, uart)
    uart.kernel = lambda: KernelClock(32768.0 * 1.04, in_stop=True)
    uart.write(LowPowerUart.TDR, 0x41)
    pass_time(bench, uart)
    assert heard[0] == 0x41
    assert heard[1] != 0x41


@pytest.mark.parametrize(
    ("control", "in_stop", "wakes"), [(0x2F, True, True), (0x2D, True, False), (0x2F, False, False)]
)
def test_the_line_hears_in_stop_only_with_uesm_and_a_clock_that_runs(control, in_stop, wakes) -> None:
    bench = Bench()
    uart, _ = line(bench)
    uart.write(LowPowerUart.CR1, control)
    uart.kernel = lambda: KernelClock(32768.0, in_stop=in_stop)
    uart.enter_stop()
    uart.feed(b"x", 1.0)
    pass_time(bench, uart)
    assert bool(bench.pended) == wakes
    assert bool(uart.read(LowPowerUart.ISR) & LowPowerUart.RXNE) == wakes


def test_a_byte_on_its_way_out_breaks_off_in_stop() -> None:
    bench = Bench()
    uart, heard = line(bench)
    uart.write(LowPowerUart.TDR, 0x41)
    uart.enter_stop()
    assert uart.due == float("inf")
    assert not uart.read(LowPowerUart.ISR) & LowPowerUart.TC
    assert not heard


def pulse(bench: Bench, *, ticks: int, one_pulse: bool = True) -> tuple[PulseTimer, list[tuple[float, int]]]:
    timer = PulseTimer(bench, 15)
    levels: list[tuple[float, int]] = []
    timer.on_change = lambda: levels.append((round(bench.time, 6), timer.output(1)))
    timer.write(PulseTimer.PSC, 3999)
    timer.write(PulseTimer.ARR, ticks)
    timer.write(PulseTimer.CCR[0], 1)
    timer.write(PulseTimer.CCMR1, PulseTimer.PWM2 << 4)
    timer.write(PulseTimer.CR1, PulseTimer.URS)
    timer.write(PulseTimer.EGR, 1)
    timer.write(PulseTimer.DIER, 1)
    timer.write(PulseTimer.CCER, 1)
    levels.clear()
    timer.write(PulseTimer.CR1, PulseTimer.CEN | PulseTimer.URS | (PulseTimer.OPM if one_pulse else 0))
    return timer, levels


def test_one_pulse_ends_by_itself() -> None:
    bench = Bench()
    timer, levels = pulse(bench, ticks=60)
    with pytest.raises(BoardError, match="frozen"):
        timer.enter_stop()
    while timer.due != float("inf"):
        pass_time(bench, timer)
    assert (0.0, 0) in levels
    assert (0.001, 1) in levels
    assert levels[-1] == (0.061, 0)
    assert bench.pended == [15]
    timer.enter_stop()


def test_without_one_pulse_mode_they_go_on() -> None:
    bench = Bench()
    timer, levels = pulse(bench, ticks=9, one_pulse=False)
    for _ in range(6):
        pass_time(bench, timer)
    assert [time for time, level in levels if level] == [0.001, 0.011, 0.021]


def test_a_latching_valve_moves_on_a_long_enough_pulse_and_stays() -> None:
    bench = Bench()
    moves: list[bool] = []
    valve = LatchingValve(bench, moves.append)
    opening, closing = valve.coil(opens=True), valve.coil(opens=False)
    for coil, duration_s in ((opening, 0.019), (opening, 0.021), (opening, 0.06), (closing, 0.01), (closing, 0.06)):
        coil(1)
        bench.time += duration_s
        coil(0)
    assert moves == [True, False]
    opening(1)
    with pytest.raises(BoardError, match="both coils"):
        closing(1)
    with pytest.raises(BoardError, match="burnt"):
        valve.advance(valve.due)


def test_a_pin_carries_its_peripheral_only_in_the_right_function() -> None:
    levels: list[int] = []
    port = Gpio(Bench(), 0xFFFF_FFFF, 0, {3: levels.append})
    port.sources[3, 2] = lambda: 1
    port.write(Gpio.MODER, 0xFFFF_FFFF & ~(1 << 6))
    port.write(Gpio.AFRL, 1 << 12)
    assert levels == []
    port.write(Gpio.AFRL, 2 << 12)
    port.write(Gpio.MODER, 0xFFFF_FFFF)
    assert levels == [1, 0]


def test_the_supply_detector_tells_once_per_fall() -> None:
    bench = Bench()
    clock, exti = rtc(bench, 0)
    exti.write(Exti.IMR, 1 << 16)
    exti.write(Exti.RTSR, 1 << 16)
    supply = [3000]
    power = PowerL0(bench, clock, exti, lambda: supply[0])
    power.write(0, 2 << 11 | 2 << 5 | 1 << 4)
    told = []
    for millivolts in (2300, 2200, 2100, 2300, 2200, 2400, 2200):
        supply[0] = millivolts
        pass_time(bench, power)
        told.append((len(bench.pended), bool(power.read(4) & PowerL0.PVDO)))
        exti.write(Exti.PR, 1 << 16)
    assert told == [(0, False), (1, True), (1, True), (1, True), (1, True), (1, False), (2, True)]


def test_the_l0_detector_is_blind_in_stop_without_its_reference() -> None:
    bench = Bench()
    clock, exti = rtc(bench, 0)
    exti.write(Exti.IMR, 1 << 16)
    exti.write(Exti.RTSR, 1 << 16)
    supply = [3000]
    power = PowerL0(bench, clock, exti, lambda: supply[0])
    power.write(0, 2 << 11 | 2 << 5 | 1 << 4 | PowerL0.ULP)
    power.enter_stop()
    supply[0] = 2000
    pass_time(bench, power)
    assert not bench.pended


def test_the_sht4x_checksum_is_sensirions_example() -> None:
    assert crc8(b"\xbe\xef") == 0x92


def test_a_ledger_projects_what_it_booked() -> None:
    ledger = EnergyLedger()
    ledger.charge("core stop", 9.74, 3600.0)
    ledger.elapsed_s = 3600.0
    per_year = (9.74 + RESERVOIR.ua + CR2032_UAH * 0.01 / 8766) * 8766
    assert ledger.projected_life_years == pytest.approx(CR2032_UAH / per_year)


def test_the_rtc_runs_at_its_crystals_rate_and_as_it_is_calibrated() -> None:
    bench = Bench()
    clock = Rtc(bench, Exti(bench), 2, 1_000_000, crystal_ppm=100.0)
    clock.writable = True
    clock.write(Rtc.WPR, 0xCA)
    clock.write(Rtc.WPR, 0x53)
    bench.time = 100_000.0
    assert clock.calendar_s() == pytest.approx(1_100_010.0, abs=1e-3)
    clock.write(Rtc.CALR, 105)  # 105 pulses of 2^20 less
    assert clock.calendar_s() == pytest.approx(1_100_010.0, abs=1e-3)
    assert clock.read(Rtc.ISR) & Rtc.RECALPF
    with pytest.raises(BoardError, match="RECALPF"):
        clock.write(Rtc.CALR, 0)
    bench.time = 200_000.0
    assert not clock.read(Rtc.ISR) & Rtc.RECALPF
    assert clock.calendar_s() == pytest.approx(1_200_010.0, abs=0.02)
    clock.write(Rtc.CALR, Rtc.CALP)  # 512 pulses more
    bench.time = 300_000.0
    assert clock.calendar_s() == pytest.approx(1_300_020.0 + 48.8, abs=0.1)
    clock.reset()
    with pytest.raises(BoardError, match="protected"):
        clock.write(Rtc.CALR, 0)


def test_l0_eeprom_needs_one_key_erases_by_itself_and_takes_as_long_again() -> None:
    bench, memory = Bench(), bytearray(4)

    def store(address: int, data: bytes) -> None:
        memory[address - FlashL0.EEPROM :] = data

    flash = FlashL0(bench, store, lambda address, length: bytes(memory), 0.0)
    flash.store_word(FlashL0.EEPROM, 4, 7)
    assert flash.read(FlashL0.SR) & FlashL0.WRPERR
    assert memory == bytes(4)
    flash.write(FlashL0.PEKEYR, 0x89ABCDEF)
    flash.write(FlashL0.PEKEYR, 0x02030405)
    flash.write(FlashL0.SR, FlashL0.WRPERR)
    lasted = []
    for value in (7, 9):
        before = bench.time
        flash.store_word(FlashL0.EEPROM, 4, value)
        assert flash.read(FlashL0.SR) == FlashL0.EOP
        assert int.from_bytes(memory, "little") == value
        lasted.append(bench.time - before)
    assert lasted == [pytest.approx(FlashL0.OPERATION_S), pytest.approx(2 * FlashL0.OPERATION_S)]
    flash.store_word(FlashL0.EEPROM + 2, 2, 1)
    assert flash.read(FlashL0.SR) & FlashL0.SIZERR
