"""Models, sums and stores for the server's tests, all seeded."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from server import releases, store
from server.releases import Release
from server.signing import SigningKey
from shared_models.moments import CLASSES, PHI, TARGET_CLASS, TARGETS, Sums
from shared_models.network import Layer, ModelImage, quantise_head, quantise_multiplier

KEY = SigningKey.from_seed(hashlib.blake2b(b"tests", digest_size=32).digest())


def random_image(seed: int = 1) -> ModelImage:
    """A model with a random backbone and the physics for a head."""
    rng = np.random.default_rng(seed)

    def layer(inputs: int, outputs: int, input_zero: int, output_zero: int) -> Layer:
        weights = rng.integers(-127, 128, (outputs, inputs)).astype(np.int8)
        bias = rng.integers(-500, 500, outputs).astype(np.int32)
        return Layer(weights, bias, *quantise_multiplier(0.004), input_zero, output_zero)

    image = ModelImage(layer(24, 16, 0, -128), layer(16, 8, -128, -128), layer(8, 4, -128, 0))
    return quantise_head(image, np.zeros((TARGETS, PHI)))


def sums_of(seed: int, truth: np.ndarray, windows: int = 300, noise: float = 4.0) -> Sums:
    """Sums of one site whose residuals are ``truth`` (4, 9) · φ plus noise."""
    rng = np.random.default_rng(seed)
    gram = np.zeros((CLASSES, PHI, PHI), np.int64)
    moment = np.zeros((TARGETS, PHI), np.int64)
    energy = np.zeros(TARGETS, np.int64)
    count = np.array([windows, windows * 2 // 3, windows // 3], np.int64)
    base = np.linspace(20, 120, PHI - 1)
    for window_class in range(CLASSES):
        spread = rng.normal(0, 25, (count[window_class], PHI - 1))
        phi = np.clip(np.rint(base + spread), 0, 255).astype(np.int64)
        phi = np.concatenate([phi, np.ones((len(phi), 1), np.int64)], axis=1)
        gram[window_class] = phi.T @ phi
        for target in (target for target in range(TARGETS) if TARGET_CLASS[target] == window_class):
            y = np.clip(np.rint(phi @ truth[target] + rng.normal(0, noise, len(phi))), -128, 127).astype(np.int64)
            moment[target] = phi.T @ y
            energy[target] = y @ y
    return Sums(gram, moment, energy, count)


def shared_truth(seed: int = 7) -> np.ndarray:
    """A residual worth learning, the same everywhere."""
    truth = np.random.default_rng(seed).normal(0, 0.05, (TARGETS, PHI))
    truth[:, -1] = 5.0
    return truth


def new_store(folder: Path, image: ModelImage | None = None) -> sqlite3.Connection:
    """A store with release 1."""
    store.create(folder / "server.db")
    connection = store.connect(folder / "server.db")
    releases.register_factory(connection, KEY, image or random_image(), {"name": "test"}, now_s=1_000)
    return connection


def release(
    connection: sqlite3.Connection,
    image: ModelImage,
    base: Release,
    now_s: int = 5,
    *,
    provenance: Mapping[str, Any] | None = None,
    evidence: Mapping[str, Any] | None = None,
) -> Release:
    """Sign and store ``image`` as what round 1 made of ``base``."""
    signed = releases.sign(KEY, image, releases.upcoming(connection, image))
    return releases.register_improvement(
        connection, signed, image, base, 1, now_s, provenance=provenance or {}, evidence=evidence or {}
    )
