"""Flash and its controllers, with the parts' own rules: keys, erased values, units, and what a power cut leaves.

Every erase and program operation is counted. When the count reaches ``cut_at`` the supply fails in the middle of it:
the operation is left half done and :class:`PowerCutError` ends the run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from nodes.emulator.firmware import FLASH_BASE
from nodes.emulator.peripherals import BoardError, Host, Peripheral


class PowerCutError(RuntimeError):
    """The supply failed during a flash operation."""


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
        self.cut_at: int | None = None
        """Fail in the middle of this operation, counted from 0 since the node was made; None: never."""
        self._busy_until = 0.0
        super().__init__(host)

    def reset(self) -> None:
        """Locked."""
        super().reset()
        self._errors = 0

    @abstractmethod
    def store_word(self, address: int, size: int, value: int) -> None:
        """The core stores to flash."""

    def _operate(self, address: int, data: bytes, duration_s: float) -> None:
        """Erase or program ``data`` at ``address``."""
        index = self.operations
        self.operations += 1
        if index == self.cut_at:
            half = len(data) // 2
            self._store(address, data[:half] + self._load(address + half, len(data) - half))
            raise PowerCutError(f"at flash operation {index}, address {address:#x}")
        self._store(address, data)
        self._busy_until = self.host.now() + duration_s
        self.host.ledger.charge("flash", self._current_ua, duration_s)

    def _wait(self) -> None:
        self.host.stall_until(self._busy_until)


class FlashL0(Flash):
    """STM32L0: words of 32 bits onto zeros, pages of 128 bytes (RM0376 section 3.3)."""

    size = 192 * 1024
    erased = 0x00
    PECR, PEKEYR, PRGKEYR, SR = 0x04, 0x0C, 0x10, 0x18
    PELOCK, PRGLOCK, PROG, ERASE = 1 << 0, 1 << 1, 1 << 3, 1 << 9
    EOP, WRPERR, PGAERR, SIZERR, NOTZEROERR = 1 << 1, 1 << 8, 1 << 9, 1 << 10, 1 << 16
    PAGE = 128
    OPERATION_S = 0.0032

    def reset(self) -> None:
        """Locked with both keys."""
        super().reset()
        self.values[self.PECR] = self.PELOCK | self.PRGLOCK
        self._keys: dict[int, int] = {}
        self._broken = False
        self.reads = {self.SR: self._status}
        self.writes = {
            self.PECR: self._control,
            self.PEKEYR: self._key(self.PEKEYR, (0x89ABCDEF, 0x02030405), 0, self.PELOCK),
            self.PRGKEYR: self._key(self.PRGKEYR, (0x8C9DAEBF, 0x13141516), self.PELOCK, self.PRGLOCK),
            self.SR: self._clear,
        }

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
        if control & (self.PELOCK | self.PRGLOCK):
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


class FlashL4(Flash):
    """STM32L4: double words of 64 bits with ECC, once per erase, pages of 2 KB (RM0394 section 3.3)."""

    size = 256 * 1024
    erased = 0xFF
    KEYR, SR, CR = 0x08, 0x10, 0x14
    PG, PER, STRT, LOCK = 1 << 0, 1 << 1, 1 << 16, 1 << 31
    EOP, PROGERR, WRPERR, PGAERR, SIZERR, PGSERR = 1 << 0, 1 << 3, 1 << 4, 1 << 5, 1 << 6, 1 << 7
    PAGE = 2048
    PROGRAM_S = 82e-6
    ERASE_S = 0.022

    def reset(self) -> None:
        """Locked."""
        super().reset()
        self.values[self.CR] = self.LOCK
        self._key_position = 0
        self._broken = False
        self._first_word: tuple[int, int] | None = None
        self.reads = {self.SR: self._status}
        self.writes = {self.KEYR: self._key, self.CR: self._control, self.SR: self._clear}

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
