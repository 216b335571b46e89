"""What one release changes in another: numbers in the layers, what the head says, and what goes on the air."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from server import releases
from server.releases import Release
from shared_models.moments import TARGET_NAMES
from shared_models.network import INPUTS, Layer, ModelImage, self_test_inputs

PROBES = 4096
"""Pseudo-random inputs by which the heads' outputs are compared, besides those of the self-test."""
LAYERS = {"first": "layer 24→16", "second": "layer 16→8", "head": "head 8→4"}
_SEED = 20_260_101


@dataclass(frozen=True)
class LayerChange:
    """How many numbers of a layer differ."""

    layer: str
    weights: int
    weights_of: int
    largest_weight_change: int
    """In steps of int8."""
    biases: int
    biases_of: int
    scales: tuple[str, ...]
    """Which of multiplier, shift and zero points differ."""

    @property
    def any(self) -> bool:
        """Whether anything does."""
        return bool(self.weights or self.biases or self.scales)


@dataclass(frozen=True)
class OutputChange:
    """How far the two models' words for one target lie apart, in output steps."""

    target: str
    largest: int
    mean: float


@dataclass(frozen=True)
class Difference:
    """Two releases compared."""

    before: int
    after: int
    same_backbone: bool
    layers: tuple[LayerChange, ...]
    outputs: tuple[OutputChange, ...]
    artefacts_bytes: dict[str, int]
    """Containers of the later one by what they apply to."""

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)

    def in_words(self) -> str:
        """One line: what somebody who brings it to nodes wants to know first."""
        changed = [change.layer for change in self.layers if change.any]
        if not changed:
            return "the same model"
        where = "the head alone" if self.same_backbone else ", ".join(changed)
        boldest = max(self.outputs, key=lambda output: output.largest)
        return f"{where} changed; furthest apart in {boldest.target}: {boldest.largest} steps at most"


def compare(connection: sqlite3.Connection, before: Release, after: Release) -> Difference:
    """Compare two releases."""
    return Difference(
        before=before.version,
        after=after.version,
        same_backbone=before.backbone_id == after.backbone_id,
        layers=tuple(
            _layer(title, getattr(before.image, name), getattr(after.image, name)) for name, title in LAYERS.items()
        ),
        outputs=_outputs(before.image, after.image),
        artefacts_bytes=releases.sizes(connection, after.version),
    )


def _layer(title: str, before: Layer, after: Layer) -> LayerChange:
    distance = np.abs(after.weights.astype(np.int64) - before.weights)
    scales = ("multiplier", "shift", "input_zero", "output_zero")
    return LayerChange(
        layer=title,
        weights=int(np.count_nonzero(distance)),
        weights_of=distance.size,
        largest_weight_change=int(distance.max()),
        biases=int(np.count_nonzero(after.bias != before.bias)),
        biases_of=after.bias.size,
        scales=tuple(name for name in scales if getattr(before, name) != getattr(after, name)),
    )


def _outputs(before: ModelImage, after: ModelImage) -> tuple[OutputChange, ...]:
    drawn = np.random.default_rng(_SEED).integers(-128, 128, (PROBES, INPUTS)).astype(np.int8)
    inputs = np.concatenate([self_test_inputs(), drawn])
    distance = np.abs(after.forward(inputs)[1].astype(np.int64) - before.forward(inputs)[1])
    return tuple(
        OutputChange(target, int(distance[:, index].max()), round(float(distance[:, index].mean()), 3))
        for index, target in enumerate(TARGET_NAMES)
    )
