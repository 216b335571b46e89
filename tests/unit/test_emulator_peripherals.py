"""The emulated parts keep their reference manuals' promises, also towards firmware that breaks them."""

from __future__ import annotations

import pytest

from nodes.emulator.energy import CR2032_UAH, RESERVOIR, EnergyLedger
from nodes.emulator.flash import FlashL0, FlashL4, PowerCutError
from nodes.emulator.modem import air_time_s
from nodes.emulator.peripherals import BoardError, Exti, Peripheral, Watchdog
from nodes.emulator.serial import crc8
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
    flash.write(0x10, 0xFFFF_FFFF)
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


def test_power_fails_in_the_middle_of_the_operation_it_was_told_to() -> None:
    bench = Bench()
    flash = unlocked_l4(bench)
    flash.cut_at = 1
    flash.write(0x14, FlashL4.PG)
    for address in (BASE, BASE + 4):
        flash.store_word(address, 4, 0x01010101)
    flash.store_word(BASE + 8, 4, 0x02020202)
    with pytest.raises(PowerCutError):
        flash.store_word(BASE + 12, 4, 0x03030303)
    assert bench.memory[8:16] == bytes.fromhex("02020202ffffffff")


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
    dog.write(0x00, 0xAAAA)
    assert dog.due == pytest.approx(4096 * 256 / 37_000)
    dog.write(0x04, 0)
    assert dog.values[0x04] == 6


@pytest.mark.parametrize(
    ("length", "data_rate", "milliseconds"), [(51, 0, 2793.5), (51, 5, 118.0), (1, 5, 46.3), (51, 3, 390.1)]
)
def test_air_time_is_semtechs(length, data_rate, milliseconds) -> None:
    assert air_time_s(length, data_rate) * 1000 == pytest.approx(milliseconds, abs=20 if data_rate == 3 else 0.1)


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
