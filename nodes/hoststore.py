"""The node's storage and update path in C, called from Python: a flash with a power switch, and a node to reboot.

The flash is the host build's (``nodes/firmware/host/flash.c``): one per process, whoever holds a :class:`Flash`.
"""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from functools import cache

from nodes import flash_map
from nodes.firmware.host.build import build
from shared_models.codes import EventCode, Refusal
from shared_models.fragmentation import Fragmenter
from shared_models.network import IMAGE_BYTES
from shared_models.settings import SETTINGS_SIZE, Settings

SETTINGS_OFFSET, BOOT_A, STAGING = flash_map.SETTINGS.offset, flash_map.BOOT[0].offset, flash_map.STAGING.offset
MODEL_A, MODEL_B = (area.offset for area in flash_map.MODELS)
CHANGES_A, CHANGES_B = (area.offset for area in flash_map.CHANGES)
STATE_A, STATE_B = (area.offset for area in flash_map.STATE)
FLASH_SIZE = flash_map.REGION_SIZE
_UNIT = 8
_REPLY_SIZE = 16


class Part(Enum):
    """Kinds of flash."""

    L0 = "erased to zeros"
    L4 = "erased to ones"
    L4_ECC = "erased to ones; what a cut left half written reads as garbage, another at each power on"

    @property
    def erased_byte(self) -> int:
        """What an erase leaves."""
        return 0x00 if self is Part.L0 else 0xFF


class _UpdateEvent(ctypes.Structure):
    """noria_update_event_t."""

    _fields_ = (("code", ctypes.c_uint8), ("refusal", ctypes.c_uint8), ("model_version", ctypes.c_uint32))


@cache
def library(*, sanitize: bool = False) -> ctypes.CDLL:
    """The host build, loaded once, with the types of what is called here.

    Raises:
        HostBuildError: it cannot be built.
    """
    loaded = ctypes.CDLL(str(build(sanitize=sanitize)))
    loaded.noria_host_flash_memory.restype = ctypes.POINTER(ctypes.c_uint8)
    loaded.noria_host_flash_lost.restype = ctypes.POINTER(ctypes.c_uint8)
    loaded.noria_settings_load.restype = ctypes.c_void_p
    loaded.noria_update_model.restype = ctypes.c_void_p
    loaded.noria_update_version.restype = loaded.noria_host_flash_operations.restype = ctypes.c_uint32
    loaded.noria_update_downlink.restype = loaded.noria_update_status.restype = ctypes.c_size_t
    for name in (
        "update_poll", "update_probation", "update_next_event", "update_active", "update_on_probation", "store_load",
        "store_save", "settings_change", "host_flash_power_on",
    ):  # fmt: skip
        getattr(loaded, f"noria_{name}").restype = ctypes.c_bool
    return loaded


class Flash:
    """The data region of a blank part; it outlives a node's reset.

    Args:
        part: Whose rules hold.
        sanitize: Use the build that aborts on undefined behaviour.
    """

    def __init__(self, part: Part, *, sanitize: bool = False) -> None:
        self.library = library(sanitize=sanitize)
        self.part = part
        self._settings: int | None = None
        self.library.noria_host_flash_reset(ctypes.c_uint8(part.erased_byte))
        if part is Part.L4_ECC:
            self.library.noria_host_flash_ecc()

    def read(self, offset: int = 0, length: int = FLASH_SIZE) -> bytes:
        """What stands there."""
        return ctypes.string_at(ctypes.addressof(self.library.noria_host_flash_memory().contents) + offset, length)

    def write(self, offset: int, data: bytes) -> None:
        """Factory programming: no rules."""
        self.library.noria_host_flash_load(ctypes.c_uint32(offset), data, ctypes.c_uint32(len(data)))

    def saved(self) -> tuple[bytes, bytes]:
        """Everything about the flash, for :meth:`restore`."""
        lost = ctypes.addressof(self.library.noria_host_flash_lost().contents)
        return self.read(), ctypes.string_at(lost, FLASH_SIZE // _UNIT)

    def restore(self, saved: tuple[bytes, bytes]) -> None:
        """Put back what :meth:`saved` gave, power on."""
        self.write(0, saved[0])
        ctypes.memmove(self.library.noria_host_flash_lost(), saved[1], len(saved[1]))
        self.library.noria_host_flash_power_on()

    @contextmanager
    def cut(self, operation: int, *, torn: bool, seed: int = 1) -> Iterator[None]:
        """Inside, the power fails at the given flash operation; afterwards it is back."""
        self.library.noria_host_flash_cut(ctypes.c_uint32(operation), ctypes.c_bool(torn), ctypes.c_uint32(seed))
        yield
        self.was_cut = bool(self.library.noria_host_flash_power_on())

    def refuse(self, *, on: bool) -> None:
        """Refuse every erase and program, as a part at the end of its life."""
        self.library.noria_host_flash_refuse(ctypes.c_bool(on))

    @property
    def operations(self) -> int:
        """Erases and programs since the power came on."""
        return int(self.library.noria_host_flash_operations())

    def save_state(self, state: bytes, version: int) -> bool:
        """Append a record of core state."""
        return bool(self.library.noria_store_save(state, ctypes.c_uint16(len(state)), ctypes.c_uint32(version)))

    def load_state(self, length: int, version: int) -> bytes | None:
        """The newest record of core state."""
        out = ctypes.create_string_buffer(max(length, 1))
        found = self.library.noria_store_load(out, ctypes.c_uint16(length), ctypes.c_uint32(version))
        return out.raw[:length] if found else None

    def load_settings(self) -> Settings | None:
        """The settings in force, or None where C refuses the page."""
        self._settings = self.library.noria_settings_load()
        return self.settings_in_force

    @property
    def settings_in_force(self) -> Settings | None:
        """What stands where :meth:`load_settings` found them, changes since then included."""
        if not self._settings:
            return None
        body = ctypes.string_at(self._settings, SETTINGS_SIZE - 4)  # the CRC is the page's as it was provisioned
        return Settings.unpack(body + zlib.crc32(body).to_bytes(4, "little"))

    def change_settings(self, payload: bytes) -> bool:
        """Carry out a payload of fPort 13 after :meth:`load_settings`."""
        return bool(self.library.noria_settings_change(payload, ctypes.c_size_t(len(payload))))


class UpdateNode:
    """The update path of one node after a reset; what is not in flash is new.

    Args:
        loaded: The library whose flash is the node's.

    Raises:
        ValueError: the settings page is not valid.
    """

    def __init__(self, loaded: ctypes.CDLL) -> None:
        self._library = loaded
        settings = self._library.noria_settings_load()
        if not settings:
            raise ValueError("the settings page is not valid")
        self._update = ctypes.create_string_buffer(8192)
        self._library.noria_update_boot(self._update, ctypes.c_void_p(settings))

    @property
    def model(self) -> bytes | None:
        """The running model's image."""
        address = self._library.noria_update_model(self._update)
        return ctypes.string_at(address, IMAGE_BYTES) if address else None

    @property
    def version(self) -> int:
        """The running model's version; 0 without one."""
        return int(self._library.noria_update_version(self._update))

    @property
    def active(self) -> bool:
        """Whether a session waits for fragments."""
        return bool(self._library.noria_update_active(self._update))

    @property
    def on_probation(self) -> bool:
        """Whether the running model is on probation."""
        return bool(self._library.noria_update_on_probation(self._update))

    def downlink(self, payload: bytes) -> bytes:
        """Carry out a payload of fPort 201; the answers."""
        reply = ctypes.create_string_buffer(_REPLY_SIZE)
        size = self._library.noria_update_downlink(self._update, payload, ctypes.c_size_t(len(payload)), reply)
        return reply.raw[:size]

    def container(self, payload: bytes) -> None:
        """Carry out a payload of fPort 14."""
        self._library.noria_update_container(self._update, payload, ctypes.c_size_t(len(payload)))

    def status(self) -> bytes:
        """The poll of one wake."""
        reply = ctypes.create_string_buffer(_REPLY_SIZE)
        size = self._library.noria_update_status(self._update, reply)
        return reply.raw[:size]

    def poll(self, now_s: int = 1_000) -> bool:
        """Open and install a complete block; whether the model changed."""
        return bool(self._library.noria_update_poll(self._update, ctypes.c_uint32(now_s)))

    def probation(self, model_energy: int, baseline_energy: int, windows: int, now_s: int = 2_000) -> bool:
        """Judge the running model; whether the model changed."""
        numbers = (ctypes.c_uint32(model_energy), ctypes.c_uint32(baseline_energy), ctypes.c_uint16(windows))
        return bool(self._library.noria_update_probation(self._update, *numbers, ctypes.c_uint32(now_s)))

    def events(self) -> list[tuple[EventCode, Refusal, int]]:
        """What happened and was not asked for yet."""
        event, events = _UpdateEvent(), []
        while self._library.noria_update_next_event(self._update, ctypes.byref(event)):
            events.append((EventCode(event.code), Refusal(event.refusal), int(event.model_version)))
        return events

    def receive(self, container: bytes, version: int, limit: int = 115, package: int = 2) -> bool:
        """Bring a container to the node in a session of TS004 version ``package``, and let it install it."""
        sender = Fragmenter(container, limit, version, package)
        self.downlink(sender.setup())
        for step in range(sender.count):
            self.downlink(sender.fragment(step))
        return self.poll()
