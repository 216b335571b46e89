"""Flash and its controllers, with the parts' own rules: keys, erased values, units, and what a power cut leaves.

Every erase and program operation is counted. When the count reaches the one of :attr:`Flash.cut` the supply fails in
the middle of it, or right after it, and :class:`PowerCutError` ends the run.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from nodes.emulator.firmware import FLASH_BASE
from nodes.emulator.peripherals import WORD, BoardError, Host, Peripheral


class PowerCutError(RuntimeError):
    """The supply failed during a flash operation."""


@dataclass(frozen=True, slots=True)
class Cut:
    """When the supply fails, and what it leaves."""

    operation: int
    """Erase or program operation, counted from 0 since the node was made."""
    torn: bool
    """Whether it fails in the middle of the operation; otherwise right after it."""
    seed: int
    """Which bits a torn operation has changed already; 0: all of the first half, none of the second."""


class Flash(Peripheral, ABC):
    """What both controllers share: the memory, the operation counter, and the time operations take."""

    name = "FLASH"
    size = 0
    erased = 0xFF

    def __init__(
        self, host: Host, store: Callable[[int, bytes], None], load: Callable[[int, int], bytes], current_ua: float
    ) -> None:
        """Take the memory.

        Args:
            host: the board.
            store: writes bytes at an address, past all rules.
            load: reads bytes at an address.
            current_ua: drawn while an operation runs, µA.
        """
        self._store, self._load, self._current_ua = store, load, current_ua
        self.operations = 0
        self.cut: Cut | None = None
        self.on_change: Callable[[], None] = lambda: None
        """Called when the number of wait states may have changed."""
        self._busy_until = 0.0
        super().__init__(host)

    def reset(self) -> None:
        """Locked."""
        super().reset()
        self._errors = 0

    @abstractmethod
    def store_word(self, address: int, size: int, value: int) -> None:
        """The core stores to flash."""

    @property
    @abstractmethod
    def wait_states(self) -> int:
        """Cycles added to each read of flash."""

    def _operate(self, address: int, data: bytes, duration_s: float) -> None:
        """Erase or program ``data`` at ``address``."""
        index = self.operations
        self.operations += 1
        cut = self.cut if self.cut and self.cut.operation == index else None
        if cut and cut.torn:
            self._tear(address, data, cut.seed)
        else:
            self._put(address, data)
        if cut:
            raise PowerCutError(f"at flash operation {index}, address {address:#x}")
        self._busy_until = self.host.now() + duration_s
        self.host.ledger.charge("flash", self._current_ua, duration_s)

    def _put(self, address: int, data: bytes) -> None:
        """An operation came to its end."""
        self._store(address, data)

    def _tear(self, address: int, data: bytes, seed: int) -> None:
        """Leave part of an operation's bits changed."""
        before = self._load(address, len(data))
        if seed == 0:
            half = len(data) // 2
            self._leave(address, data[:half] + before[half:], before, data)
            return
        bits = random.Random(seed)  # noqa: S311 (not for secrets)
        for at in range(0, len(data), 8):
            old, new = before[at : at + 8], data[at : at + 8]
            fate = bits.choice(("old", "new", "mixed")) if len(data) > 8 else "mixed"
            moved = {"old": bytes(len(old)), "new": b"\xff" * len(old), "mixed": bits.randbytes(len(old))}[fate]
            torn = bytes(o ^ ((o ^ n) & m) for o, n, m in zip(old, new, moved, strict=True))
            self._leave(address + at, torn, old, new)

    def _leave(self, address: int, torn: bytes, before: bytes, after: bytes) -> None:
        """Store what a torn operation left."""
        del before, after
        self._store(address, torn)

    def enter_stop(self) -> None:
        """Its clock stops."""
        if self.host.now() < self._busy_until:
            raise BoardError("FLASH: STOP while an operation is under way")

    def _wait(self) -> None:
        self.host.stall_until(self._busy_until)


class FlashL0(Flash):
    """STM32L0: words of 32 bits onto zeros, pages of 128 bytes (RM0376 section 3.3)."""

    size = 192 * 1024
    erased = 0x00
    ACR, PECR, PEKEYR, PRGKEYR, SR = 0x00, 0x04, 0x0C, 0x10, 0x18
    PELOCK, PRGLOCK, PROG, ERASE = 1 << 0, 1 << 1, 1 << 3, 1 << 9
    EOP, WRPERR, PGAERR, SIZERR, NOTZEROERR = 1 << 1, 1 << 8, 1 << 9, 1 << 10, 1 << 16
    PAGE = 128
    OPERATION_S = 0.0032
    EEPROM, EEPROM_SIZE = 0x0808_0000, 6 * 1024
    registers: ClassVar = {ACR: 0x7B, PECR: 0x0007_871F, PEKEYR: WORD, PRGKEYR: WORD, SR: 0x0003_6F02}
    write_only = frozenset({PEKEYR, PRGKEYR})

    @property
    def wait_states(self) -> int:
        """None or one."""
        return self.values.get(self.ACR, 0) & 1

    def reset(self) -> None:
        """Locked with both keys."""
        super().reset()
        self.values[self.PECR] = self.PELOCK | self.PRGLOCK
        self._keys: dict[int, int] = {}
        self._broken = False
        self.reads = {self.SR: self._status}
        self.writes = {
            self.ACR: self._access,
            self.PECR: self._control,
            self.PEKEYR: self._key(self.PEKEYR, (0x89ABCDEF, 0x02030405), 0, self.PELOCK),
            self.PRGKEYR: self._key(self.PRGKEYR, (0x8C9DAEBF, 0x13141516), self.PELOCK, self.PRGLOCK),
            self.SR: self._clear,
        }

    def _access(self, value: int) -> None:
        self.values[self.ACR] = value
        self.on_change()

    def _key(self, register: int, keys: tuple[int, int], needs_clear: int, opens: int) -> Callable[[int], None]:
        def write(value: int) -> None:
            position = self._keys.get(register, 0)
            if self._broken or self.values[self.PECR] & needs_clear or value != keys[position]:
                self._broken = True  # a wrong key locks until the next reset
                raise BoardError(f"FLASH: wrong key {value:#x} in the unlock sequence; locked until reset")
            self._keys[register] = (position + 1) % 2
            if position == 1:
                self.values[self.PECR] &= ~opens

        return write

    def _control(self, value: int) -> None:
        locks = self.PELOCK | self.PRGLOCK
        if self.values[self.PECR] & self.PELOCK:
            raise BoardError("FLASH: PECR written while locked")
        self.values[self.PECR] = value & ~locks | (self.values[self.PECR] | value) & locks
        if value & self.PELOCK:
            self.values[self.PECR] |= self.PRGLOCK

    def _status(self) -> int:
        self._wait()
        return self._errors

    def _clear(self, value: int) -> None:
        self._errors &= ~value

    def store_word(self, address: int, size: int, value: int) -> None:
        """Erase a page or program a word, as PECR says."""
        control = self.values[self.PECR]
        self._wait()
        if self.EEPROM <= address < self.EEPROM + self.EEPROM_SIZE:
            self._store_eeprom(address, size, value)
        elif control & (self.PELOCK | self.PRGLOCK):
            self._errors |= self.WRPERR
        elif size != 4:
            self._errors |= self.SIZERR
        elif address % 4:
            self._errors |= self.PGAERR
        elif control & self.ERASE and control & self.PROG:
            self._operate(address - address % self.PAGE, bytes(self.PAGE), self.OPERATION_S)
            self._errors |= self.EOP
        elif any(self._load(address, 4)):
            self._errors |= self.NOTZEROERR
        else:
            self._operate(address, value.to_bytes(4, "little"), self.OPERATION_S)
            self._errors |= self.EOP

    def _store_eeprom(self, address: int, size: int, value: int) -> None:
        """The part erases what is not erased by itself, which takes as long again (RM0376 section 3.3.4)."""
        if self.values[self.PECR] & self.PELOCK:
            self._errors |= self.WRPERR
        elif size != 4 or address % 4:
            self._errors |= self.SIZERR
        else:
            passes = 2 if any(self._load(address, 4)) else 1
            self._operate(address, value.to_bytes(4, "little"), passes * self.OPERATION_S)
            self._errors |= self.EOP


class FlashL4(Flash):
    """STM32L4: double words of 64 bits with ECC, once per erase, pages of 2 KB (RM0394 section 3.3)."""

    size = 256 * 1024
    erased = 0xFF
    ACR, KEYR, SR, CR, ECCR = 0x00, 0x08, 0x10, 0x14, 0x18
    PG, PER, STRT, LOCK = 1 << 0, 1 << 1, 1 << 16, 1 << 31
    EOP, PROGERR, WRPERR, PGAERR, SIZERR, PGSERR = 1 << 0, 1 << 3, 1 << 4, 1 << 5, 1 << 6, 1 << 7
    PAGE = 2048
    PROGRAM_S = 82e-6
    ERASE_S = 0.022
    ECCC, ECCD = 1 << 30, 1 << 31
    registers: ClassVar = {ACR: 0x7F07, KEYR: WORD, SR: 0x0000_C3FB, CR: 0xCF07_8FFF, ECCR: WORD}
    write_only = frozenset({KEYR})

    def __init__(
        self, host: Host, store: Callable[[int, bytes], None], load: Callable[[int, int], bytes], current_ua: float
    ) -> None:
        self.torn: set[int] = set()
        """Addresses of double words whose check bits contradict their data; reading one raises NMI."""
        self.on_torn: Callable[[int, bool], None] = lambda _address, _torn: None
        """Called with an address when it joins or leaves :attr:`torn`."""
        super().__init__(host, store, load, current_ua)

    @property
    def wait_states(self) -> int:
        """None to four."""
        return self.values.get(self.ACR, 0) & 7

    def reset(self) -> None:
        """Locked."""
        super().reset()
        self.values[self.CR] = self.LOCK
        self._key_position = 0
        self._broken = False
        self._first_word: tuple[int, int] | None = None
        self.reads = {self.SR: self._status}
        self.values[self.ACR] = 0x600
        self.writes = {
            self.ACR: self._access,
            self.KEYR: self._key,
            self.CR: self._control,
            self.SR: self._clear,
            self.ECCR: self._acknowledge,
        }

    def _access(self, value: int) -> None:
        self.values[self.ACR] = value
        self.on_change()

    def _acknowledge(self, value: int) -> None:
        status = self.values.get(self.ECCR, 0) & ~(value & (self.ECCC | self.ECCD))
        self.values[self.ECCR] = status if status >> 30 else 0

    def read_torn(self, address: int) -> None:
        """The core read a torn double word: remember the first since the flag was cleared."""
        if not self.values.get(self.ECCR, 0) & self.ECCD:
            self.values[self.ECCR] = self.ECCD | (address - FLASH_BASE) >> 3 & 0x7FFFF

    def _mark(self, address: int, *, torn: bool) -> None:
        if torn != (address in self.torn):
            (self.torn.add if torn else self.torn.remove)(address)
            self.on_torn(address, torn)

    def _put(self, address: int, data: bytes) -> None:
        """An erase, or zeros over whatever there was, makes a double word whole again."""
        super()._put(address, data)
        if len(data) == self.PAGE or not any(data):
            for at in range(0, len(data), 8):
                self._mark(address + at, torn=False)

    def _leave(self, address: int, torn: bytes, before: bytes, after: bytes) -> None:
        """Check bits change on their own: half of what looks finished, or untouched, contradicts them as well."""
        super()._leave(address, torn, before, after)
        for at in range(0, len(torn), 8):
            settled = torn[at : at + 8] in (before[at : at + 8], after[at : at + 8])
            whole = settled and (len(torn) > 8 or sum(torn) % 2 == 0)
            self._mark(address + at, torn=not whole)

    def _key(self, value: int) -> None:
        if self._broken or value != (0x45670123, 0xCDEF89AB)[self._key_position]:
            self._broken = True
            raise BoardError(f"FLASH: wrong key {value:#x} in the unlock sequence; locked until reset")
        self._key_position = (self._key_position + 1) % 2
        if self._key_position == 0:
            self.values[self.CR] &= ~self.LOCK

    def _control(self, value: int) -> None:
        if self.values[self.CR] & self.LOCK:
            raise BoardError("FLASH: CR written while locked")
        self._wait()
        self.values[self.CR] = value & ~self.STRT
        if not value & self.STRT:
            return
        if self._errors & ~self.EOP or not value & self.PER or value & self.PG:
            self._errors |= self.PGSERR
            return
        page = value >> 3 & 0xFF
        self._operate(FLASH_BASE + page * self.PAGE, b"\xff" * self.PAGE, self.ERASE_S)
        self._errors |= self.EOP

    def _status(self) -> int:
        self._wait()
        return self._errors

    def _clear(self, value: int) -> None:
        self._errors &= ~value

    def store_word(self, address: int, size: int, value: int) -> None:
        """Two words, the lower first, make one double word."""
        self._wait()
        if not self.values[self.CR] & self.PG or self._errors & ~self.EOP:
            self._errors |= self.PGSERR
            return
        if size != 4:
            self._errors |= self.SIZERR
            return
        if self._first_word is None:
            if address % 8:
                self._errors |= self.PGAERR
            else:
                self._first_word = (address, value)
            return
        start, low = self._first_word
        self._first_word = None
        if address != start + 4:
            self._errors |= self.PGAERR
            return
        data = low.to_bytes(4, "little") + value.to_bytes(4, "little")
        if self._load(start, 8) != b"\xff" * 8 and any(data):
            self._errors |= self.PROGERR  # only all-zero may follow on a programmed double word
            return
        self._operate(start, data, self.PROGRAM_S)
        self._errors |= self.EOP
