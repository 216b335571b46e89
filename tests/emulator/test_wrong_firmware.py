"""The bench catches wrong firmware: each mutant of the board layer fails its on-target test, the original passes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from nodes.emulator.bench import run_on_bench
from nodes.emulator.peripherals import BoardError
from nodes.firmware.build import ENVIRONMENTS, PROJECT
from shared_models.codes import Board

L0, L4 = Board.STM32L072, Board.STM32L432
CPUS = {L0: "cortex-m0plus", L4: "cortex-m4"}
INCLUDES = ("core", "core/generated", "third_party/monocypher")


@dataclass(frozen=True)
class Mutant:
    """One mistake in one file."""

    name: str
    board: Board
    path: str
    right: str
    wrong: str
    verdict: str
    """What the bench says: words of a BoardError, or the on-target test that fails or is never reached."""


COMMON, L0_REGISTERS, L4_REGISTERS = "common/peripherals.h", "stm32l072/registers.h", "stm32l432/registers.h"

MUTANTS = [
    Mutant(
        "wrong register offset",
        L4,
        COMMON,
        "GPIO_BSRR(port) NORIA_REGISTER((port) + 0x18u)",
        "GPIO_BSRR(port) NORIA_REGISTER((port) + 0x2Cu)",
        "GPIO: no register at offset 0x2c",
    ),
    Mutant(
        "reserved bit",
        L0,
        COMMON,
        "LPUART_ICR_ALL 0x0012025Fu",
        "LPUART_ICR_ALL 0x00120BDFu",
        "LPUART1: reserved bits 0x980",
    ),
    Mutant("wrong unlock key", L0, L0_REGISTERS, "0x13141516u", "0x13141517u", "FLASH: wrong key"),
    Mutant(
        "unlock keys swapped",
        L4,
        "common/flash_double_word.c",
        "FLASH_KEYR = FLASH_KEY1;\n    FLASH_KEYR = FLASH_KEY2;",
        "FLASH_KEYR = FLASH_KEY2;\n    FLASH_KEYR = FLASH_KEY1;",
        "FLASH: wrong key",
    ),
    Mutant(
        "no clock for the converter",
        L0,
        "stm32l072/board.c",
        "RCC_APB2ENR_SYSCFG | RCC_APB2ENR_ADC",
        "RCC_APB2ENR_SYSCFG",
        "ADC: write of offset 0x10 without its clock",
    ),
    Mutant(
        "no clock for the timer",
        L4,
        "stm32l432/board.c",
        "RCC_APB1ENR1_RTCAPB | RCC_APB1ENR1_TIM2",
        "RCC_APB1ENR1_RTCAPB",
        "TIM2: write of offset 0x0 without its clock",
    ),
    Mutant(
        "RTC domain not opened",
        L4,
        "stm32l432/board.c",
        "PWR_CR1_VOS_RANGE2 | PWR_CR1_DBP | PWR_CR1_LPMS_STOP2",
        "PWR_CR1_VOS_RANGE2 | PWR_CR1_LPMS_STOP2",
        "RCC: write to the RTC domain while PWR protects it",
    ),
    Mutant(
        "RTC line masked",
        L0,
        "common/wakeup.h",
        "    EXTI_IMR1 |= EXTI_LINE_RTC_WAKEUP;\n",
        "",
        "sleep_ends_on_time",
    ),
    Mutant(
        "LPUART asleep in STOP",
        L4,
        "common/clock.c",
        "LPUART_CR1_UE | LPUART_CR1_UESM |",
        "LPUART_CR1_UE |",
        "the_line_wakes_the_core",
    ),
    Mutant(
        "LPUART on the bus clock",
        L0,
        L0_REGISTERS,
        "RCC_CCIPR_LPUART1_LSE (3u << 10)",
        "RCC_CCIPR_LPUART1_LSE (0u << 10)",
        "crc",
    ),
    Mutant(
        "low-power timer on the bus clock",
        L4,
        L4_REGISTERS,
        "RCC_CCIPR_LPTIM1_LSE (3u << 18)",
        "RCC_CCIPR_LPTIM1_LSE (0u << 18)",
        "silence_on_the_line_ends",
    ),
    Mutant("baud rate four per cent off", L0, COMMON, "LPUART_BRR_9600_LSE 874u", "LPUART_BRR_9600_LSE 910u", "crc"),
    Mutant("wrong alternate function", L4, L4_REGISTERS, "NORIA_AF_LPUART1 8u", "NORIA_AF_LPUART1 7u", "crc"),
    Mutant(
        "STOP while transmitting",
        L0,
        "common/clock.c",
        "    SCB_SCR = 0; // SLEEP, not STOP: the end of a transmission does not lead out of STOP\n",
        "",
        "crc",
    ),
    Mutant(
        "STOP during a pulse",
        L4,
        "common/valve.c",
        "    SCB_SCR = 0;\n    TIM2_CR1",
        "    TIM2_CR1",
        "the coil is frozen under current",
    ),
    Mutant("pulse too long", L0, "common/valve.c", "PULSE_MS 60u", "PULSE_MS 600u", "a coil burnt"),
    Mutant("pulse too short", L4, "common/valve.c", "PULSE_MS 60u", "PULSE_MS 6u", "pulses_move_the_latching_valve"),
    Mutant(
        "prescaler not loaded",
        L4,
        "common/valve.c",
        "    TIM2_EGR = TIM_EGR_UG; // loads the prescaler\n",
        "",
        "pulses_move_the_latching_valve",
    ),
    Mutant(
        "both coils",
        L0,
        "common/valve.c",
        "TIM2_CCER = open ? TIM_CCER_CC1E : TIM_CCER_CC2E;",
        "TIM2_CCER = TIM_CCER_CC1E | TIM_CCER_CC2E; pin_mode(GPIOA_BASE, 15, 2); pin_mode(GPIOB_BASE, 3, 2);",
        "both coils under current at once",
    ),
    Mutant(
        "supply line masked",
        L4,
        "common/supply.c",
        "        EXTI_IMR1 |= EXTI_LINE_PVD;\n",
        "",
        "falling_supply_ends_a_sleep",
    ),
    Mutant(
        "detector without its reference in STOP",
        L0,
        "stm32l072/board.c",
        "(on ? PWR_CR_PLS_2V3 | PWR_CR_PVDE : PWR_CR_ULP)",
        "(on ? PWR_CR_PLS_2V3 | PWR_CR_PVDE | PWR_CR_ULP : PWR_CR_ULP)",
        "falling_supply_ends_a_sleep",
    ),
    Mutant(
        "a double word programmed twice",
        L4,
        "common/flash_double_word.c",
        "        ok = flash_finish();\n    }\n    flash_lock();\n    return ok && reads_back",
        "        ok = flash_finish();\n        to[0] = words[0];\n        to[1] = words[1];\n"
        "        ok = ok && flash_finish();\n    }\n    flash_lock();\n    return ok && reads_back",
        "flash_keeps_what_was_programmed",
    ),
    Mutant(
        "a word programmed twice",
        L0,
        "stm32l072/board.c",
        "        ok = flash_finish();\n        if (at",
        "        ok = flash_finish();\n"
        "        *(volatile uint32_t *)(void *)(noria_flash_data + offset + at) = word;\n"
        "        ok = ok && flash_finish();\n        if (at",
        "flash_keeps_what_was_programmed",
    ),
    Mutant(
        "clock too fast for the flash",
        L4,
        "stm32l432/board.c",
        "    RCC_CCIPR = ",
        "    *(volatile uint32_t *)0x40021000u = 0x8Bu;\n    RCC_CCIPR = ",
        "0 wait states at 16.00 MHz in voltage range 2",
    ),
    Mutant(
        "converter started uncalibrated",
        L0,
        "stm32l072/board.c",
        "    ADC_CR = ADC_CR_ADVREGEN | ADC_CR_ADCAL;\n",
        "",
        "ADC: start without a calibration",
    ),
    Mutant(
        "reference off",
        L4,
        "stm32l432/board.c",
        "ADC_CCR = ADC_CCR_CKMODE_HCLK | ADC_CCR_VREFEN;",
        "ADC_CCR = ADC_CCR_CKMODE_HCLK;",
        "ADC: conversion of the reference, which is switched off",
    ),
    Mutant(
        "digital pin converted",
        L0,
        "common/pins.c",
        "    pin_mode(GPIOA_BASE, 4, GPIO_MODE_ANALOG);\n",
        "    pin_mode(GPIOA_BASE, 4, 0);\n",
        "ADC: conversion of PA4, which is not analogue",
    ),
    Mutant(
        "push-pull bus",
        L4,
        "common/pins.c",
        "    GPIO_OTYPER(GPIOB_BASE) |= (1u << 6) | (1u << 7);\n",
        "",
        "sensors_answer",
    ),
    Mutant(
        "bus too fast",
        L0,
        COMMON,
        "I2C_TIMINGR_100KHZ_AT_4MHZ 0x00420F13u",
        "I2C_TIMINGR_100KHZ_AT_4MHZ 0x00420307u",
        "too fast",
    ),
    Mutant(
        "watchdog locked",
        L4,
        "common/clock.c",
        "    IWDG_KR = IWDG_KEY_ACCESS;\n",
        "",
        "sleep_ends_on_time",
    ),
    Mutant(
        "watchdog configured before it runs",
        L0,
        "common/clock.c",
        "    IWDG_KR = IWDG_KEY_START;\n    IWDG_KR = IWDG_KEY_ACCESS;\n    while (IWDG_SR != 0u) {\n    }\n",
        "    IWDG_KR = IWDG_KEY_ACCESS;\n",
        "IWDG: a value is never taken over",
    ),
]


class Workshop:
    """Builds the on-target test; the core, which no mutant touches, once per board."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._core: dict[Board, list[str]] = {}

    def build(self, board: Board, boards: Path, elf: Path) -> Path:
        """Link the board layer in ``boards`` with the rest."""
        if board not in self._core:
            sources = [*(PROJECT / "core").glob("*.c"), PROJECT / "third_party/monocypher/monocypher.c"]
            sources.append(PROJECT / "test/test_board/test_main.c")
            folder = self._folder / ENVIRONMENTS[board]
            folder.mkdir()
            self._gcc(board, PROJECT / "boards", ["-c", *map(str, sources)], folder)
            self._core[board] = [str(path) for path in folder.glob("*.o")]
        own = [*(boards / "common").glob("*.c"), *(boards / ENVIRONMENTS[board]).glob("*.c")]
        script = boards / ENVIRONMENTS[board] / "link.ld"
        link = ["-nostartfiles", "--specs=nano.specs", "-Wl,--gc-sections", f"-T{script}", "-o", str(elf)]
        self._gcc(board, boards, [*map(str, own), *self._core[board], *link], self._folder)
        return elf

    def _gcc(self, board: Board, boards: Path, arguments: list[str], folder: Path) -> None:
        includes = [PROJECT / name for name in INCLUDES] + [boards / "common", boards / ENVIRONMENTS[board]]
        target = [f"-mcpu={CPUS[board]}", "-mthumb", "-mfloat-abi=soft", "-std=c11", "-Os", "-g"]
        target += [
            "-ffunction-sections",
            "-fdata-sections",
            "-fno-common",
            "-DPIO_UNIT_TESTING",
            "-DBLAKE2_NO_UNROLLING",
        ]
        command = ["arm-none-eabi-gcc", *target, *(f"-I{path}" for path in includes), *arguments]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, firmwares: object) -> Workshop:
    assert firmwares  # Monocypher and the generated header are there
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture
def report(workshop: Workshop, tmp_path: Path) -> Callable[[Board, Path], str]:
    """What the bench says of a board layer: the report on the modem line, then the BoardError that ended it."""

    def report(board: Board, boards: Path) -> str:
        said = bytearray()
        try:
            return run_on_bench(workshop.build(board, boards, tmp_path / "firmware.elf"), said)
        except BoardError as error:
            return f"{said.decode('ascii', errors='replace')}{error}"

    return report


@pytest.mark.parametrize("board", list(ENVIRONMENTS), ids=lambda board: board.name.lower())
def test_the_original_passes(report, board) -> None:
    outcome = report(board, PROJECT / "boards")
    assert "end:PASS" in outcome
    assert "FAIL" not in outcome


def test_the_timer_ends_the_pulse_of_a_core_that_hangs(report, tmp_path) -> None:
    boards = tmp_path / "boards"
    shutil.copytree(PROJECT / "boards", boards)
    source = boards / "common/valve.c"
    wait = "for (uint32_t polls = 0; polls < PULSE_POLLS && (TIM2_SR & TIM_SR_UIF) == 0u; polls++) {"
    assert source.read_text().count(wait) == 1
    source.write_text(source.read_text().replace(wait, "for (;;) {").replace("noria_board_stop();", ""))
    outcome = report(L0, boards)
    assert "burnt" not in outcome
    assert "held_valve_follows_its_line:PASS" in outcome  # then the watchdog ends each attempt
    assert "pulses_move_the_latching_valve" not in outcome


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fails(report, tmp_path, mutant) -> None:
    boards = tmp_path / "boards"
    shutil.copytree(PROJECT / "boards", boards)
    source = boards / mutant.path
    text = source.read_text()
    assert text.count(mutant.right) == 1, "the mutant no longer fits the source"
    source.write_text(text.replace(mutant.right, mutant.wrong))
    outcome = report(mutant.board, boards)
    if " " in mutant.verdict:
        assert mutant.verdict in outcome
    else:
        assert f"{mutant.verdict}:PASS" not in outcome
