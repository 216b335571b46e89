"""Every address, bit and interrupt number of the boards and of the emulator against the vendors' own descriptions.

The definitions are evaluated by the compiler's preprocessor, so nothing in the headers escapes. A definition is found
in the SVD by its name, or by DIFFERENTLY_NAMED below, or it is one of NOT_DESCRIBED, each with the section of the
manual it was copied from. Nothing else passes.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cache

import pytest
import svd

import nodes.emulator.board
from nodes.emulator import stm32l072, stm32l432
from nodes.emulator.family import Family
from nodes.emulator.peripherals import Peripheral
from nodes.firmware.build import PROJECT
from shared_models.codes import Board

BOARDS = PROJECT / "boards"
SVD = {Board.STM32L072: "STM32L0x1.svd", Board.STM32L432: "STM32L4x2.svd"}
"""The L0x1 file stands in for the L0x2, which adds USB, LCD, touch, DAC and RNG: nothing that Noria uses."""
EMULATED = {Board.STM32L072: stm32l072.FAMILY, Board.STM32L432: stm32l432.FAMILY}
WITHOUT_SVD = {"lora_e5": "no description of STM32WL is at hand; its registers.h says so"}
L0, L4 = Board.STM32L072, Board.STM32L432

PERIPHERALS = {
    "ADC": ("ADC1", "ADC123_Common"),
    "FLASH": ("Flash",),
    "GPIO": ("GPIOA", "GPIOB"),
    "LPTIM": ("LPTIM1",),
    "LPTIM1": ("LPTIM",),
    "LPUART": ("LPUART1",),
    "I2C": ("I2C1",),
}
"""Ours to the SVD's, where they differ."""

CORE = "STM32L4x2.svd"
"""The L0x1 file has no system control block; the core's own registers are at the same places on both cores."""

INTERRUPTS = {
    (L0, "RTC"): "RTC",
    (L0, "LPUART1"): "AES_RNG_LPUART1",
    (L4, "RTC"): "RTC_WKUP",
    (L4, "PVD"): "PVD_PVM",
}

BOTH = (L0, L4)


@dataclass(frozen=True)
class Names:
    """What the SVD calls a definition of ours: fields of one register, whole or (``value``) holding a value."""

    register: str
    fields: tuple[str, ...]
    why: str
    boards: tuple[Board, ...] = BOTH
    value: bool = False


def _named(register: str, *names: str, why: str, boards: tuple[Board, ...] = BOTH, value: bool = False) -> Names:
    return Names(register, names, why, boards, value)


FLAG = "one bit, three registers: status, clear, enable"
TWO_BITS = "the SVD splits the field into bits"
ABBREVIATED = "the manual's name; the SVD abbreviates"
DIFFERENTLY_NAMED: dict[str, list[Names]] = {
    "GPIO_MODE_OUTPUT": [
        _named("GPIOA.MODER", "MODE0", why="one pin's field, shifted by the pin", boards=(L0,), value=True),
        _named("GPIOA.MODER", "MODER0", why="one pin's field, shifted by the pin", boards=(L4,), value=True),
    ],
    "GPIO_MODE_ALTERNATE": [
        _named("GPIOA.MODER", "MODE0", why="one pin's field, shifted by the pin", boards=(L0,), value=True),
        _named("GPIOA.MODER", "MODER0", why="one pin's field, shifted by the pin", boards=(L4,), value=True),
    ],
    "GPIO_MODE_ANALOG": [
        _named("GPIOA.MODER", "MODE0", why="one pin's field, shifted by the pin", boards=(L0,), value=True),
        _named("GPIOA.MODER", "MODER0", why="one pin's field, shifted by the pin", boards=(L4,), value=True),
    ],
    "GPIO_PULL_DOWN": [
        _named("GPIOA.PUPDR", "PUPD0", why="one pin's field, shifted by the pin", boards=(L0,), value=True),
        _named("GPIOA.PUPDR", "PUPDR0", why="one pin's field, shifted by the pin", boards=(L4,), value=True),
    ],
    "RTC_CR_WUCKSEL_1HZ": [_named("RTC.CR", "WCKSEL", why="misspelt in the SVD", boards=(L4,), value=True)],
    "LPTIM_ARRM": [
        _named("LPTIM1.ISR", "ARRM", why=FLAG),
        _named("LPTIM1.ICR", "ARRMCF", why=FLAG),
        _named("LPTIM1.IER", "ARRMIE", why=FLAG),
    ],
    "LPTIM_ARROK": [_named("LPTIM1.ISR", "ARROK", why=FLAG), _named("LPTIM1.ICR", "ARROKCF", why=FLAG)],
    "IWDG_KEY_START": [_named("IWDG.KR", "KEY", why="a value of the field KEY", value=True)],
    "IWDG_KEY_ACCESS": [_named("IWDG.KR", "KEY", why="a value of the field KEY", value=True)],
    "IWDG_KEY_RELOAD": [_named("IWDG.KR", "KEY", why="a value of the field KEY", value=True)],
    "IWDG_PR_DIV256": [_named("IWDG.PR", "PR", why="field and register share the name", value=True)],
    "I2C_TIMINGR_100KHZ_AT_4MHZ": [
        _named(
            "I2C1.TIMINGR", "SCLL", "SCLH", "SDADEL", "SCLDEL", "PRESC", why="a value of the whole register", value=True
        )
    ],
    "LPUART_ICR_ALL": [
        _named(
            "LPUART1.ICR",
            *("WUCF", "CMCF", "CTSCF", "TCCF", "IDLECF", "ORECF", "NCF", "FECF", "PECF"),
            why="every clearing bit",
        )
    ],
    "LPUART_BRR_9600_LSE": [_named("LPUART1.BRR", "BRR", why="field and register share the name", value=True)],
    "EXTI_LINE_RTC_WAKEUP": [
        _named("EXTI.IMR1", "MR20", why="lines have numbers", boards=(L4,)),
        _named("EXTI.RTSR1", "TR20", why="lines have numbers", boards=(L4,)),
        _named("EXTI.PR1", "PR20", why="lines have numbers", boards=(L4,)),
    ],
    "EXTI_LINE_PVD": [
        _named("EXTI.IMR", "MR16", why="lines have numbers", boards=(L0,)),
        _named("EXTI.RTSR", "TR16", why="lines have numbers", boards=(L0,)),
        _named("EXTI.PR", "PR16", why="lines have numbers", boards=(L0,)),
        _named("EXTI.IMR1", "MR16", why="lines have numbers", boards=(L4,)),
        _named("EXTI.RTSR1", "TR16", why="lines have numbers", boards=(L4,)),
        _named("EXTI.PR1", "PR16", why="lines have numbers", boards=(L4,)),
    ],
    "FLASH_SR_ERRORS": [
        _named(
            "Flash.SR",
            *("WRPERR", "PGAERR", "SIZERR", "OPTVERR", "RDERR", "NOTZEROERR", "FWWERR"),
            why="every error bit",
            boards=(L0,),
        ),
        _named(
            "FLASH.SR",
            *("OPERR", "PROGERR", "WRPERR", "PGAERR", "SIZERR", "PGSERR", "MISERR", "FASTERR", "RDERR", "OPTVERR"),
            why="every error bit",
            boards=(L4,),
        ),
    ],
    "FLASH_CR_STRT": [_named("FLASH.CR", "START", why="STRT in RM0394", boards=(L4,))],
    "PWR_CR_LPSDSR": [_named("PWR.CR", "LPDS", why="LPSDSR in RM0376", boards=(L0,))],
    "RCC_IOPENR_GPIOA": [_named("RCC.IOPENR", "IOPAEN", why="IOPAEN is port A", boards=(L0,))],
    "RCC_IOPENR_GPIOB": [_named("RCC.IOPENR", "IOPBEN", why="IOPBEN is port B", boards=(L0,))],
    "RCC_CCIPR_LPUART1_LSE": [
        _named("RCC.CCIPR", "LPUART1SEL0", "LPUART1SEL1", why=TWO_BITS, boards=(L0,), value=True),
        _named("RCC.CCIPR", "LPUART1SEL", why=ABBREVIATED, boards=(L4,), value=True),
    ],
    "RCC_CCIPR_LPTIM1_LSE": [
        _named("RCC.CCIPR", "LPTIM1SEL0", "LPTIM1SEL1", why=TWO_BITS, boards=(L0,), value=True),
        _named("RCC.CCIPR", "LPTIM1SEL", why=ABBREVIATED, boards=(L4,), value=True),
    ],
    "NORIA_RCC_CSR_SUPPLY": [
        _named("RCC.CSR", "PORRSTF", why="the flag of a reset by the supply", boards=(L0,)),
        _named("RCC.CSR", "BORRSTF", why="the flag of a reset by the supply", boards=(L4,)),
    ],
    "ADC_CFGR1_WAIT": [_named("ADC.CFGR1", "AUTDLY", why="WAIT in RM0376", boards=(L0,))],
    "ADC_SMPR_39_CYCLES": [
        _named("ADC.SMPR", "SMPR", why="field and register share the name", boards=(L0,), value=True)
    ],
    "ADC_SMPR_47_CYCLES": [
        _named("ADC1.SMPR1", "SMP0", why="one channel's field, shifted by the channel", boards=(L4,), value=True),
        _named("ADC1.SMPR2", "SMP10", why="one channel's field, shifted by the channel", boards=(L4,), value=True),
    ],
}
"""Our definitions that the SVD describes under another name."""

KEYS_L0, KEYS_L4 = "RM0376 section 3.3.4", "RM0394 section 3.3.5"
NOT_DESCRIBED: dict[Board, dict[str, str]] = {
    L0: {
        "EXTI_LINE_RTC_WAKEUP": "RM0376 section 13.4, line 20; the L0x1 file leaves lines 20 and 24 out",
        "NORIA_AF_LPUART1": "DS10685, table of alternate functions, port A",
        "NORIA_AF_I2C1": "DS10685, table of alternate functions, port B",
        "NORIA_AF_TIM2_PA15": "DS10685, table of alternate functions, port A",
        "NORIA_AF_TIM2_PB3": "DS10685, table of alternate functions, port B",
        "NORIA_CORE_KHZ": "RM0376 section 7.2.3, MSI range 6",
        "UID_WORD0": "RM0376, device electronic signature",
        "UID_WORD1": "RM0376, device electronic signature",
        "UID_WORD2": "RM0376, device electronic signature",
        "FLASH_PEKEY1": KEYS_L0,
        "FLASH_PEKEY2": KEYS_L0,
        "FLASH_PRGKEY1": KEYS_L0,
        "FLASH_PRGKEY2": KEYS_L0,
        "FLASH_PAGE": "RM0376 section 3.3.1",
        "EEPROM_WORD": "RM0376 section 3.3.1, memory organization",
        "VREFINT_CAL": "DS10685 section 3.12.1",
    },
    L4: {
        "NORIA_AF_LPUART1": "DS11451, table of alternate functions AF8 to AF15",
        "NORIA_AF_I2C1": "DS11451, table of alternate functions AF0 to AF7",
        "NORIA_AF_TIM2_PA15": "DS11451, table of alternate functions AF0 to AF7",
        "NORIA_AF_TIM2_PB3": "DS11451, table of alternate functions AF0 to AF7",
        "NORIA_CORE_KHZ": "RM0394 section 6.2.3, MSI range 6",
        "UID_WORD0": "RM0394, device electronic signature",
        "UID_WORD1": "RM0394, device electronic signature",
        "UID_WORD2": "RM0394, device electronic signature",
        "FLASH_KEY1": KEYS_L4,
        "FLASH_KEY2": KEYS_L4,
        "FLASH_PAGE": "RM0394 section 3.3.1",
        "VREFINT_CAL": "DS11451 section 3.15.2",
    },
}
"""Definitions that no SVD file of ours can confirm, with where they come from."""


### What our headers say ###


@dataclass(frozen=True)
class Definition:
    name: str
    value: int
    is_register: bool


class At:
    """What dereferencing an address comes to here."""

    def __init__(self, address: int = 0) -> None:
        self.address = address

    def __matmul__(self, address: int) -> At:
        return At(address)


ARGUMENTS = {"port": ("GPIOA_BASE", "GPIOB_BASE"), "word": ("0", "1", "2")}
DEREFERENCE = re.compile(r"\*\s*\((?:const )?volatile uint\d+_t \*\)\s*\(uintptr_t\)")
UNSIGNED = re.compile(r"\b(0[xX][0-9A-Fa-f]+|\d+)[uU]\b")


@cache
def definitions(board: Board) -> dict[str, list[Definition]]:
    """Each macro of a board's registers and what it comes to, once for each argument it may have."""
    calls: dict[str, tuple[str, ...]] = {}
    place = ""
    for line in preprocess(board, '#include "registers.h"\n', "-dD").splitlines():
        if marker := re.match(r'# \d+ "([^"]*)"', line):
            place = marker[1]
        elif place.startswith(str(BOARDS)) and (macro := re.match(r"#define (\w+)(?:\((\w+)\))? ?(.*)", line)):
            name, argument, body = macro.groups()
            if not body or name == "NORIA_REGISTER":
                continue
            assert argument is None or argument in ARGUMENTS, f"add what {name}({argument}) is called with to ARGUMENTS"
            calls[name] = tuple(f"{name}({value})" for value in ARGUMENTS[argument]) if argument else (name,)
    source = "".join(f'\n"{name}" {call}' for name, found in calls.items() for call in found)
    values: dict[str, list[Definition]] = {}
    for line in preprocess(board, '#include "registers.h"\n' + source + "\n").splitlines():
        if match := re.match(r'"(\w+)" (.+)', line):
            expression = UNSIGNED.sub(r"\1", DEREFERENCE.sub("AT @ ", match[2]))
            value = eval(expression, {"__builtins__": {}, "AT": At()})
            address = value.address if isinstance(value, At) else None
            values.setdefault(match[1], []).append(
                Definition(match[1], value if address is None else address, address is not None)
            )
    assert values.keys() == calls.keys()
    return values


def preprocess(board: Board, source: str, *options: str) -> str:
    include = [f"-I{BOARDS / folder}" for folder in ("common", board.name.lower())]
    command = ["arm-none-eabi-gcc", "-E", *options, *include, "-"]
    return subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout


### What the vendor says ###


CORRECTIONS = {
    # RM0376 section 3.7.7 and ST's own header: bit 13. The file has it in the next bit.
    (L0, "Flash", "SR"): {"RDERR": svd.Field("RDERR", 13, 1)},
    # RM0376 section 26.7.4, as on STM32L4; the file leaves it out.
    (L0, "RTC", "ISR"): {"RECALPF": svd.Field("RECALPF", 16, 1)},
}


@cache
def described(board: Board) -> svd.Part:
    """A part's description, corrected, with the core's own blocks."""
    part, core = svd.part(SVD[board]), svd.part(CORE)
    own = {address: known for address, known in core.registers.items() if address >= 0xE000_0000}
    bases = {name: base for name, base in core.bases.items() if base >= 0xE000_0000}
    corrected = {
        address: tuple(
            replace(register, fields=register.fields | CORRECTIONS.get((board, register.peripheral, register.name), {}))
            for register in known
        )
        for address, known in part.registers.items()
    }
    return svd.Part(bases | part.bases, own | corrected, part.interrupts)


def called(ours: str, theirs: str) -> bool:
    """Whether the SVD's name of a peripheral is ours."""
    return theirs == ours or theirs in PERIPHERALS.get(ours, ())


def same_register(ours: str, register: svd.Register) -> bool:
    """Whether PERIPHERAL_REGISTER is this one. Numbers of a first of several and readings of a capture are ignored."""
    peripheral, _, name = ours.partition("_")
    theirs = register.name.removesuffix("_Output").removesuffix("_Input")
    if not called(peripheral, register.peripheral):
        return False
    return theirs == name or theirs.rstrip("0123456789") == name or theirs == name.rstrip("0123456789")


def agrees(definition: Definition, names: tuple[str, ...], register: svd.Register, *, value: bool) -> bool:
    mask = sum(register.fields[name].mask for name in names)
    return definition.value & ~mask == 0 if value else definition.value == mask


### The comparison ###


def complaint(definition: Definition, part: svd.Part, board: Board) -> str | None:
    """Why a definition is not what the SVD says, or None."""
    name = definition.name
    if definition.is_register:
        at = part.registers.get(definition.value, ())
        if any(same_register(name, register) for register in at):
            return None
        there = ", ".join(f"{register.peripheral}.{register.name}" for register in at) or "nothing"
        return f"{name} is at {definition.value:#x}, where the SVD has {there}"
    if match := re.fullmatch(r"(\w+?)_BASE(_REGISTERS)?", name):
        known = {base for theirs, base in part.bases.items() if called(match[1], theirs)}
        return None if definition.value in known else f"{name} is {definition.value:#x}, the SVD says {_hex(known)}"
    if name == "NORIA_NVIC_WORDS":
        words = max(part.interrupts.values()) // 32 + 1
        return None if definition.value == words else f"{name} is {definition.value}, the SVD's interrupts fill {words}"
    if name.startswith("IRQ_"):
        theirs = INTERRUPTS.get((board, name[4:]), name[4:])
        number = part.interrupts.get(theirs)
        return None if definition.value == number else f"{name} is {definition.value}, {theirs} in the SVD is {number}"
    candidates = [item for item in DIFFERENTLY_NAMED.get(name, []) if board in item.boards]
    if candidates:
        for item in candidates:
            register = _register(part, item.register)
            if not agrees(definition, item.fields, register, value=item.value):
                masks = {field: hex(register.fields[field].mask) for field in item.fields}
                return f"{name} is {definition.value:#x}, the SVD has {item.register} {masks}"
        return None
    return field_complaint(definition, part, definitions(board))


def field_complaint(definition: Definition, part: svd.Part, ours: dict[str, list[Definition]]) -> str | None:
    """PERIPHERAL_REGISTER_FIELD, PERIPHERAL_REGISTER_FIELD_SHIFT or PERIPHERAL_REGISTER_FIELD_value."""
    name, value = definition.name, definition.value
    wrong = "the SVD has no such field"
    for register, rest in registers_named(name, part, ours):
        for field in register.fields.values():
            if rest == field.name or (register.peripheral == "RCC" and f"{rest}EN" == field.name):
                right = value == field.mask
            elif rest == f"{field.name}_SHIFT":
                right = value == field.offset
            elif rest.startswith(f"{field.name}_"):
                right = value & ~field.mask == 0
            else:
                continue
            if right:
                return None
            wrong = f"{register.peripheral}.{register.name}.{field.name} is {field.mask:#x}"
    return f"{name} is {value:#x}: {wrong}"


def registers_named(name: str, part: svd.Part, ours: dict[str, list[Definition]]) -> Iterator[tuple[svd.Register, str]]:
    """The registers that a field's name may begin with, as our headers place them, and the rest of the name."""
    parts = name.split("_")
    for length in range(2, len(parts)):
        peripheral, register = parts[0], "_".join(parts[1:length])
        for macro, found in ours.items():
            block, _, own = macro.partition("_")
            if own == register and found[0].is_register and peripheral in (block, block.rstrip("0123456789")):
                for described in part.registers.get(found[0].value, ()):
                    yield described, "_".join(parts[length:])


def _register(part: svd.Part, name: str) -> svd.Register:
    peripheral, _, register = name.partition(".")
    for registers in part.registers.values():
        for found in registers:
            if called(peripheral, found.peripheral) and found.name == register:
                return found
    raise AssertionError(f"DIFFERENTLY_NAMED names {name}, which the SVD does not have")


def _hex(values: set[int]) -> str:
    return " or ".join(f"{value:#x}" for value in sorted(values)) or "nothing of that name"


@pytest.mark.parametrize("board", SVD, ids=lambda board: board.name.lower())
def test_every_definition_is_the_vendors(board: Board) -> None:
    part, ours = described(board), definitions(board)
    assert len(ours) > 100
    wrong = [
        text
        for name, found in ours.items()
        if name not in NOT_DESCRIBED[board]
        for definition in found
        if not beyond_the_part(definition, part) and (text := complaint(definition, part, board))
    ]
    assert not wrong, (
        "\n".join(wrong)
        + "\ncorrect it, or name it in DIFFERENTLY_NAMED or NOT_DESCRIBED of this file, with the reason"
    )


def beyond_the_part(definition: Definition, part: svd.Part) -> bool:
    """A further word of NVIC on a part with fewer interrupts."""
    words = max(part.interrupts.values()) // 32
    return definition.name.startswith("NVIC_") and definition.value % 0x80 // 4 > words


@pytest.mark.parametrize("board", SVD, ids=lambda board: board.name.lower())
def test_what_is_not_described_is_listed_exactly(board: Board) -> None:
    """A line of NOT_DESCRIBED that the SVD does describe, or that no header defines any more, has to go."""
    part, ours = described(board), definitions(board)
    for name in NOT_DESCRIBED[board]:
        assert name in ours, f"no header defines {name} any more: remove it from NOT_DESCRIBED"
        assert all(complaint(definition, part, board) for definition in ours[name]), f"the SVD describes {name}"


def test_every_board_with_registers_is_compared() -> None:
    folders = {path.parent.name for path in BOARDS.glob("*/registers.h")}
    assert folders <= {board.name.lower() for board in SVD} | WITHOUT_SVD.keys()


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("RTC_CR_WUTE", Definition("RTC_CR_WUTE", 1 << 9, False)),
        ("RTC_WUTR", Definition("RTC_WUTR", 0x4000_2818, True)),
        ("I2C_CR2_NBYTES_SHIFT", Definition("I2C_CR2_NBYTES_SHIFT", 15, False)),
        ("IRQ_LPUART1", Definition("IRQ_LPUART1", 28, False)),
        ("LPUART1_BASE", Definition("LPUART1_BASE", 0x4000_4400, False)),
        ("FLASH_SR_ERRORS", Definition("FLASH_SR_ERRORS", 0xC37A, False)),
        ("LPTIM_CFGR_PRESC_32", Definition("LPTIM_CFGR_PRESC_32", 5 << 10, False)),
        ("RTC_CR_NOT_A_FIELD", Definition("RTC_CR_NOT_A_FIELD", 1, False)),
    ],
)
def test_a_wrong_definition_is_noticed(name: str, wrong: Definition) -> None:
    for board in SVD:
        right = definitions(board).get(name, [])
        assert all(complaint(definition, described(board), board) is None for definition in right)
        assert complaint(wrong, described(board), board)


### The emulator ###

BLOCKS = {
    "Nvic": "NVIC",
    "SystemControl": "SCB",
    "Exti": "EXTI",
    "Watchdog": "IWDG",
    "Gpio": "GPIOA",
    "I2c": "I2C1",
    "LowPowerUart": "LPUART1",
    "Rtc": "RTC",
    "LowPowerTimer": "LPTIM1",
    "FlashL0": "FLASH",
    "FlashL4": "FLASH",
    "Clocks": "RCC",
    "ClocksL0": "RCC",
    "ClocksL4": "RCC",
    "Power": "PWR",
    "PowerL0": "PWR",
    "PowerL4": "PWR",
    "PulseTimer": "TIM2",
    "Converter": "ADC",
    "ConverterL0": "ADC",
    "ConverterL4": "ADC",
}
"""The emulator's classes to the blocks they stand for."""

BASES = {"NVIC": 0xE000_E000, "SCB": 0xE000_EC00}
"""Where the emulator has a block begin, if not where the SVD does."""

EMULATOR_NAMES = {
    ("FlashL4", "STRT"): "START",  # STRT in RM0394
    ("Power", "CONTROL"): "CR",
}


def constants() -> Iterator[tuple[type[Peripheral], str, int]]:
    kinds = Peripheral.__subclasses__()
    for kind in kinds:
        kinds += kind.__subclasses__()
        if kind.__module__.startswith(nodes.emulator.__name__):
            for name, value in vars(kind).items():
                if name.isupper() and isinstance(value, int):
                    yield kind, name, value


def meanings(block: str, name: str, part: svd.Part) -> set[int]:
    """What a name may stand for in a block: the offset of a register, bits of one."""
    base = BASES.get(block) or min(base for theirs, base in part.bases.items() if called(block, theirs))
    found: set[int] = set()
    for register in (register for known in part.registers.values() for register in known):
        if called(block, register.peripheral):
            if same_register(f"{block}_{name}", register):
                found.add(register.address - base)
            if name in register.fields:
                found.add(register.fields[name].mask)
    return found


def test_the_emulators_constants_are_the_vendors() -> None:
    """Those that carry the name of a register or a field; others are the emulator's own."""
    wrong, compared = [], 0
    for kind, name, value in constants():
        assert kind.__name__ in BLOCKS, f"add {kind.__name__} to BLOCKS: which block is it?"
        theirs = EMULATOR_NAMES.get((kind.__name__, name), name)
        for board in SVD:
            other_family = kind.__name__[-2:] in {"L0", "L4"} - {board.name[5:7]}
            known = set() if other_family else meanings(BLOCKS[kind.__name__], theirs, described(board))
            compared += bool(known)
            if known and value not in known:
                wrong.append(f"{kind.__name__}.{name} is {value:#x}, on {board.name} the SVD says {_hex(known)}")
    assert not wrong, "\n".join(wrong)
    assert compared > 120


@pytest.mark.parametrize("board", SVD, ids=lambda board: board.name.lower())
def test_the_emulators_memory_map_is_the_vendors(board: Board) -> None:
    part, family = described(board), EMULATED[board]
    for name, address in family.addresses.items():
        known = {base for theirs, base in part.bases.items() if called(name.upper(), theirs)}
        assert address in known, f"{name} is at {address:#x}, the SVD says {_hex(known)}"
        assert any(begin <= address < begin + size for begin, size in family.windows), f"{name} is in no window"


@pytest.mark.parametrize("board", SVD, ids=lambda board: board.name.lower())
def test_the_emulators_interrupts_are_the_firmwares(board: Board) -> None:
    ours = definitions(board)
    numbers = [field.name for field in fields(Family) if field.name.startswith("irq_")]
    assert numbers
    for name in numbers:
        short = name.removeprefix("irq_").upper()
        firmware = ours.get(f"IRQ_{short}") or ours[f"IRQ_{short}1"]
        assert getattr(EMULATED[board], name) == firmware[0].value, name


@pytest.mark.parametrize("board", SVD, ids=lambda board: board.name.lower())
def test_the_emulators_clock_enables_are_the_vendors(board: Board) -> None:
    part = described(board)
    controller = stm32l072.ClocksL0 if board is L0 else stm32l432.ClocksL4
    for name, offset, bit in controller.ENABLES:
        (register,) = part.registers[part.bases["RCC"] + offset]
        known = {field.name.removesuffix("EN"): field.mask for field in register.fields.values()}
        theirs = name.upper().replace("GPIO", "IOP") if board is L0 else {"rtc": "RTCAPB"}.get(name, name.upper())
        assert known.get(theirs) == 1 << bit, f"{name}: {register.name} bit {bit}"


@pytest.mark.parametrize("board", SVD, ids=lambda board: board.name.lower())
def test_the_factory_calibration_is_where_the_firmware_reads_it(board: Board) -> None:
    assert EMULATED[board].calibration_address == definitions(board)["VREFINT_CAL"][0].value
