"""The node's core in C, called from Python: the same interface as ``shared_models.reference.NodeReference``."""

from __future__ import annotations

import ctypes
import struct
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nodes.firmware.host.build import build
from shared_models.moments import SNAPSHOT_BYTES, Snapshot
from shared_models.network import ACTIVATIONS, IMAGE_BYTES, OUTPUTS, ModelImage
from shared_models.reference import Outcome, Probation, Reading
from shared_models.state import (
    OUTCOME_FIELDS,
    OUTCOME_STRUCT,
    READING_FIELDS,
    READING_STRUCT,
    STATE_STRUCT,
    Item,
    State,
    flatten,
)

if TYPE_CHECKING:
    from shared_models.settings import Settings

Int8 = npt.NDArray[np.int8]
Records = npt.NDArray[np.void]


def _records(fields: tuple[Item, ...], record: struct.Struct) -> np.dtype[np.void]:
    """Records of C's as numpy sees them."""
    kinds = {"u32": "<u4", "i32": "<i4", "u16": "<u2", "i16": "<i2", "u8": "u1", "i8": "i1"}
    formats = [(kinds[item.type], (item.length,)) if item.length > 1 else kinds[item.type] for item in fields]
    # Without gaps between the fields, as `record_struct` has them.
    return np.dtype({"names": [item.name for item in fields], "formats": formats, "itemsize": record.size})


READINGS = _records(READING_FIELDS, READING_STRUCT)
"""Many :class:`shared_models.reference.Reading`."""
OUTCOMES = _records(OUTCOME_FIELDS, OUTCOME_STRUCT)
"""Many :class:`shared_models.reference.Outcome`."""


@cache
def library(*, sanitize: bool = False) -> ctypes.CDLL:
    """The host build, loaded once.

    Raises:
        HostBuildError: it cannot be built.
    """
    loaded = ctypes.CDLL(str(build(sanitize=sanitize)))
    loaded.noria_core_override.restype = ctypes.c_bool
    loaded.noria_core_override.argtypes = [ctypes.c_void_p, ctypes.c_uint8, ctypes.c_uint32]
    loaded.noria_core_is_valid.restype = ctypes.c_bool
    loaded.noria_engine_verify.restype = ctypes.c_bool
    loaded.noria_engine_verify.argtypes = [ctypes.c_char_p]
    loaded.noria_core_wake.argtypes = [ctypes.c_void_p] * 5
    loaded.noria_core_wake.restype = None
    loaded.noria_host_core_wakes.argtypes = [*[ctypes.c_void_p] * 3, ctypes.c_uint32, *[ctypes.c_void_p] * 2]
    loaded.noria_host_core_wakes.restype = None
    return loaded


def verify(image: bytes, *, sanitize: bool = False) -> bool:
    """Whether C accepts a model image."""
    return len(image) == IMAGE_BYTES and bool(library(sanitize=sanitize).noria_engine_verify(image))


def forward(image: ModelImage, features: Int8, *, sanitize: bool = False) -> tuple[Int8, Int8]:
    """C's activations and outputs for int8 inputs (vectors, 24)."""
    loaded, packed = library(sanitize=sanitize), image.pack()
    activations = np.zeros((len(features), ACTIVATIONS), np.int8)
    outputs = np.zeros((len(features), OUTPUTS), np.int8)
    for row, a, o in zip(np.ascontiguousarray(features), activations, outputs, strict=True):
        loaded.noria_engine_run(
            packed, row.tobytes(), a.ctypes.data_as(ctypes.c_void_p), o.ctypes.data_as(ctypes.c_void_p)
        )
    return activations, outputs


def outcome_of(record: bytes) -> Outcome:
    """An outcome as C has it in memory."""
    numbers = iter(OUTCOME_STRUCT.unpack(record))
    outcome = Outcome()
    for item in OUTCOME_FIELDS:
        value = [next(numbers) for _ in range(item.length)]
        setattr(outcome, item.name, value if item.length > 1 else value[0])
    return outcome


class HostNode:
    """One node's core, in C.

    Args:
        settings: The node's settings page.
        sanitize: Use the build that aborts on undefined behaviour.
    """

    def __init__(self, settings: Settings, *, sanitize: bool = False) -> None:
        self._library = library(sanitize=sanitize)
        self._settings = ctypes.create_string_buffer(settings.pack())
        self._core = (ctypes.c_uint64 * (STATE_STRUCT.size // 8 + 1))()
        self._outcome = ctypes.create_string_buffer(OUTCOME_STRUCT.size)
        self._image: tuple[ModelImage, ctypes.Array[ctypes.c_char]] | None = None
        self._library.noria_core_init(self._core)

    @property
    def state_bytes(self) -> bytes:
        """What the store would save."""
        return bytes(self._core)[: STATE_STRUCT.size]

    @state_bytes.setter
    def state_bytes(self, data: bytes) -> None:
        ctypes.memmove(self._core, data, STATE_STRUCT.size)

    @property
    def state(self) -> State:
        """A copy of the core's record."""
        return State.unpack(self.state_bytes)

    @property
    def probation(self) -> Probation:
        """The running model's record."""
        return Probation.of(self.state)

    def rival(self, image: ModelImage | None) -> None:
        """What the model before says at this dawn."""
        packed = None if image is None else ctypes.create_string_buffer(image.pack(), IMAGE_BYTES)
        self._library.noria_core_rival(self._core, packed)

    def wake(self, reading: Reading, image: ModelImage | None = None) -> Outcome:
        """One wake."""
        packed = READING_STRUCT.pack(*flatten(reading, READING_FIELDS))
        self._library.noria_core_wake(self._core, self._settings, packed, self._packed(image), self._outcome)
        return outcome_of(self._outcome.raw)

    def wake_many(self, readings: Records, image: ModelImage | None = None) -> Records:
        """One wake for each reading, in order, at one call.

        Args:
            readings: of :data:`READINGS`, (n,), contiguous.
            image: as for :meth:`wake`.

        Returns:
            Of :data:`OUTCOMES`, (n,).
        """
        if readings.dtype != READINGS or not readings.flags.c_contiguous:
            raise TypeError("readings must be contiguous records of READINGS")
        outcomes = np.empty(len(readings), OUTCOMES)
        self._library.noria_host_core_wakes(
            self._core, self._settings, readings.ctypes.data, len(readings), self._packed(image), outcomes.ctypes.data
        )
        return outcomes

    def _packed(self, image: ModelImage | None) -> ctypes.Array[ctypes.c_char] | None:
        """The image's bytes, which C reads in place."""
        if image is None:
            return None
        if self._image is None or self._image[0] is not image:
            self._image = (image, ctypes.create_string_buffer(image.pack(), IMAGE_BYTES))
        return self._image[1]

    def override(self, kind: int, value: int) -> bool:
        """A farmer's order."""
        return bool(self._library.noria_core_override(self._core, kind, value))

    def cut_short(self, missing_s: int) -> None:
        """The valve closed ``missing_s`` before its time."""
        self._library.noria_core_cut_short(self._core, self._settings, ctypes.c_uint32(missing_s))

    def encode_snapshot(self) -> bytes:
        """The statistics as they go on the air."""
        out = ctypes.create_string_buffer(SNAPSHOT_BYTES)
        self._library.noria_core_snapshot(self._core, out)
        return out.raw

    def snapshot(self) -> Snapshot:
        """The cumulative statistics, exact."""
        state = self.state
        return Snapshot.from_integers(state.gram, state.moment, state.energy, state.count)
