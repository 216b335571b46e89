"""The peripheral bus: every load and store in a window of registers is answered by the block behind it.

The windows are mapped past ``Uc.mmio_map``, whose wrappers would double what an access costs; a node makes some four
hundred a wake.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from unicorn import Uc, UcError
from unicorn.unicorn_py3.unicorn import MMIO_READ_CFUNC, MMIO_WRITE_CFUNC, uclib

from nodes.emulator.peripherals import BoardError, Peripheral

_WORD_BYTES = 4
_BLOCK_SHIFT, _OFFSET = 10, 0x3FF
"""A block of registers has 1 KB."""


def _misused(address: int, size: int) -> BoardError:
    return BoardError(f"access of {size} bytes to the register at {address:#010x}; ours are words")


class Bus:
    """Maps the windows; must live as long as the engine."""

    def __init__(
        self,
        engine: Uc,
        windows: tuple[tuple[int, int], ...],
        blocks: Mapping[int, Peripheral],
        fail: Callable[[Exception], None],
    ) -> None:
        """Connect the blocks.

        Args:
            engine: whose memory.
            windows: first address and size of each range that holds registers.
            blocks: by address.
            fail: called with what is wrong with an access; the engine has no way to raise it.
        """
        self._blocks = {address >> _BLOCK_SHIFT: block for address, block in blocks.items()}
        self._fail = fail
        self._callbacks = [self._map(engine, base, size) for base, size in windows]

    def _map(self, engine: Uc, base: int, size: int) -> tuple[object, object]:
        blocks, fail = self._blocks, self._fail

        def read(_engine: int, offset: int, size: int, _user: int) -> int:
            address = base + offset
            try:
                if size != _WORD_BYTES:
                    raise _misused(address, size)
                return blocks[address >> _BLOCK_SHIFT].read(address & _OFFSET)
            except Exception as error:  # noqa: BLE001 (raised again once the core has stopped)
                fail(_named(error, address))
                return 0

        def write(_engine: int, offset: int, size: int, value: int, _user: int) -> None:
            address = base + offset
            try:
                if size != _WORD_BYTES:
                    raise _misused(address, size)
                blocks[address >> _BLOCK_SHIFT].write(address & _OFFSET, value)
            except Exception as error:  # noqa: BLE001
                fail(_named(error, address))

        callbacks = MMIO_READ_CFUNC(read), MMIO_WRITE_CFUNC(write)
        status = uclib.uc_mmio_map(engine._uch, base, size, callbacks[0], None, callbacks[1], None)
        if status:
            raise UcError(status)
        return callbacks


def _named(error: Exception, address: int) -> Exception:
    """Nothing stands at an address without a block."""
    return BoardError(f"bus fault: nothing at {address:#010x}") if isinstance(error, KeyError) else error
