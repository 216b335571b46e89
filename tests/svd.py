"""A vendor's description of a part's registers (CMSIS-SVD), as far as addresses, fields and interrupts go."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pyocd

ARCHIVE = Path(pyocd.__file__).parent / "debug/svd/svd_data.zip"


@dataclass(frozen=True)
class Field:
    name: str
    offset: int
    width: int

    @property
    def mask(self) -> int:
        return ((1 << self.width) - 1) << self.offset


@dataclass(frozen=True)
class Register:
    peripheral: str
    name: str
    address: int
    fields: dict[str, Field]


@dataclass(frozen=True)
class Part:
    bases: dict[str, int]
    registers: dict[int, tuple[Register, ...]]
    """By address; two where a register has two readings."""
    interrupts: dict[str, int]


@cache
def part(member: str) -> Part:
    """Parse one member of pyocd's archive."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        root = ElementTree.fromstring(archive.read(member))
    elements = {text(element, "name"): element for element in root.iter("peripheral")}
    registers: dict[int, tuple[Register, ...]] = {}
    bases, interrupts = {}, {}
    for name, element in elements.items():
        bases[name] = number(text(element, "baseAddress"))
        parent = elements.get(element.get("derivedFrom", ""), element)
        for register in registers_of(name, bases[name], element if element.find("registers") is not None else parent):
            registers[register.address] = (*registers.get(register.address, ()), register)
        for interrupt in element.iter("interrupt"):
            interrupts[text(interrupt, "name")] = number(text(interrupt, "value"))
    return Part(bases, registers, interrupts)


def registers_of(peripheral: str, base: int, element: ElementTree.Element) -> Iterator[Register]:
    for register in element.iter("register"):
        fields = {
            text(field, "name"): Field(
                text(field, "name"), number(text(field, "bitOffset")), number(text(field, "bitWidth"))
            )
            for field in register.iter("field")
        }
        yield Register(peripheral, text(register, "name"), base + number(text(register, "addressOffset")), fields)


def text(element: ElementTree.Element, tag: str) -> str:
    found = element.findtext(tag)
    assert found is not None, f"<{element.tag}> without <{tag}>"
    return found


def number(literal: str) -> int:
    return int(literal, 0)
