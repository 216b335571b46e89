"""The node's core in C, called from Python: the same interface as ``shared_models.reference.NodeReference``."""

from __future__ import annotations

import ctypes
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
    State,
    flatten,
)

if TYPE_CHECKING:
    from shared_models.settings import Settings

Int8 = npt.NDArray[np.int8]


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
        state = self.state
        return Probation(state.probation_model_energy, state.probation_baseline_energy, state.probation_windows)

    def wake(self, reading: Reading, image: ModelImage | None = None) -> Outcome:
        """One wake."""
        if image is None:
            model = None
        else:
            if self._image is None or self._image[0] is not image:
                self._image = (image, ctypes.create_string_buffer(image.pack(), IMAGE_BYTES))
            model = self._image[1]
        packed = READING_STRUCT.pack(*flatten(reading, READING_FIELDS))
        self._library.noria_core_wake(self._core, self._settings, packed, model, self._outcome)
        numbers = iter(OUTCOME_STRUCT.unpack(self._outcome.raw))
        values = [[next(numbers) for _ in range(item.length)] for item in OUTCOME_FIELDS]
        outcome = Outcome()
        for item, value in zip(OUTCOME_FIELDS, values, strict=True):
            setattr(outcome, item.name, value if item.length > 1 else value[0])
        return outcome

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
