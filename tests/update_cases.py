"""The C update path as Python objects: flash with a power switch, a node that can be rebooted, containers."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from nodes.firmware.host.build import build
from shared_models.codes import Board, Crop, EventCode, Refusal
from shared_models.fragmentation import Fragmenter
from shared_models.network import IMAGE_BYTES
from shared_models.settings import Settings

SETTINGS_OFFSET, BOOT_A, MODEL_A, MODEL_B, STATE_A, STATE_B = 0x0000, 0x0800, 0x1800, 0x2000, 0x4000, 0x5000
FLASH_SIZE = 0x6000
ERASED = {"L0": 0x00, "L4": 0xFF}

LIBRARY = ctypes.CDLL(str(build(sanitize=True)))
LIBRARY.noria_host_flash_memory.restype = ctypes.POINTER(ctypes.c_uint8)
LIBRARY.noria_store_settings.restype = ctypes.c_void_p
LIBRARY.noria_update_model.restype = ctypes.c_void_p
LIBRARY.noria_update_version.restype = ctypes.c_uint32
LIBRARY.noria_update_downlink.restype = ctypes.c_size_t
LIBRARY.noria_update_status.restype = ctypes.c_size_t
for _name in ("poll", "probation", "next_event", "active", "on_probation"):
    getattr(LIBRARY, f"noria_update_{_name}").restype = ctypes.c_bool
LIBRARY.noria_store_load.restype = LIBRARY.noria_store_save.restype = ctypes.c_bool
LIBRARY.noria_host_flash_power_on.restype = ctypes.c_bool
LIBRARY.noria_host_flash_operations.restype = ctypes.c_uint32


class UpdateEvent(ctypes.Structure):
    """noria_update_event_t."""

    _fields_ = (("code", ctypes.c_uint8), ("refusal", ctypes.c_uint8), ("model_version", ctypes.c_uint32))


class Flash:
    """The data region of one part; it outlives a node's reset."""

    def __init__(self, part: str) -> None:
        LIBRARY.noria_host_flash_reset(ctypes.c_uint8(ERASED[part]))

    @staticmethod
    def read(offset: int = 0, length: int = FLASH_SIZE) -> bytes:
        return ctypes.string_at(ctypes.addressof(LIBRARY.noria_host_flash_memory().contents) + offset, length)

    @staticmethod
    def write(offset: int, data: bytes) -> None:
        """Factory programming: no rules."""
        LIBRARY.noria_host_flash_load(ctypes.c_uint32(offset), data, ctypes.c_uint32(len(data)))

    @contextmanager
    def cut(self, operation: int, *, torn: bool, seed: int = 1) -> Iterator[None]:
        """Inside, the power fails at the given flash operation; afterwards it is back."""
        LIBRARY.noria_host_flash_cut(ctypes.c_uint32(operation), ctypes.c_bool(torn), ctypes.c_uint32(seed))
        yield
        self.was_cut = bool(LIBRARY.noria_host_flash_power_on())


class Node:
    """The update path of one node after a reset; what is not in flash is new."""

    def __init__(self) -> None:
        settings = LIBRARY.noria_store_settings()
        assert settings, "the settings page is not valid"
        self._update = ctypes.create_string_buffer(8192)
        LIBRARY.noria_update_boot(self._update, ctypes.c_void_p(settings))

    @property
    def model(self) -> bytes | None:
        address = LIBRARY.noria_update_model(self._update)
        return ctypes.string_at(address, IMAGE_BYTES) if address else None

    @property
    def version(self) -> int:
        return int(LIBRARY.noria_update_version(self._update))

    @property
    def active(self) -> bool:
        return bool(LIBRARY.noria_update_active(self._update))

    @property
    def on_probation(self) -> bool:
        return bool(LIBRARY.noria_update_on_probation(self._update))

    def downlink(self, payload: bytes) -> bytes:
        reply = ctypes.create_string_buffer(16)
        size = LIBRARY.noria_update_downlink(self._update, payload, ctypes.c_size_t(len(payload)), reply)
        return reply.raw[:size]

    def status(self) -> bytes:
        reply = ctypes.create_string_buffer(16)
        size = LIBRARY.noria_update_status(self._update, reply)
        return reply.raw[:size]

    def poll(self, now_s: int = 1_000) -> bool:
        return bool(LIBRARY.noria_update_poll(self._update, ctypes.c_uint32(now_s)))

    def probation(self, model_energy: int, baseline_energy: int, windows: int, now_s: int = 2_000) -> bool:
        numbers = (ctypes.c_uint32(model_energy), ctypes.c_uint32(baseline_energy), ctypes.c_uint16(windows))
        return bool(LIBRARY.noria_update_probation(self._update, *numbers, ctypes.c_uint32(now_s)))

    def events(self) -> list[tuple[EventCode, Refusal, int]]:
        event, events = UpdateEvent(), []
        while LIBRARY.noria_update_next_event(self._update, ctypes.byref(event)):
            events.append((EventCode(event.code), Refusal(event.refusal), int(event.model_version)))
        return events

    def receive(self, container: bytes, version: int, limit: int = 115) -> bool:
        """Bring a container to the node over its port, and let it install it."""
        sender = Fragmenter(container, limit, version)
        self.downlink(sender.setup())
        for step in range(sender.count):
            self.downlink(sender.fragment(step))
        return self.poll()


def provision(flash: Flash, public_key: bytes, factory: bytes | None, board: Board = Board.STM32L072) -> None:
    """What the factory writes: the settings page, and a model in slot A."""
    page = Settings(
        dev_eui="70b3d57ed0000001",
        board=board,
        crop=Crop.MAIZE,
        planting_time_s=1_714_543_200,
        season_days=130,
        season=2024,
        public_keys=(public_key, bytes(32)),
    ).pack()
    flash.write(SETTINGS_OFFSET, page)
    if factory is not None:
        flash.write(MODEL_A, factory)
