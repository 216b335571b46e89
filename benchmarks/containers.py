"""What an update costs on the air, in our containers and under general methods, all on the same models in one run.

A peer sends bytes that a node could be given with the same signature: a whole model as a LiteRT file or as our image,
plain or compressed, or a binary difference to what the node has. Signatures and headers are left out everywhere; what
ours are in all is in the row *signed*. ``heatshrink2`` and ``bsdiff4`` come with ``pip install 'noria[peers]'``.
"""

from __future__ import annotations

import lzma
import statistics
import zlib
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks import farms, litert
from server.signing import SigningKey
from shared_models.airtime import MAX_PAYLOAD
from shared_models.codes import Board
from shared_models.container import (
    RELEASE_KEY,
    Container,
    KeyChange,
    Receiver,
    authenticate,
    build_delta,
    build_full,
    build_head,
    build_keys,
    build_personal,
    open_container,
)
from shared_models.factory import factory_image
from shared_models.moments import TARGET_CLASS, TARGETS, Sums
from shared_models.network import ACTIVATIONS, HIDDEN, INPUTS, OUTPUTS, Layer, ModelImage, head_weights, quantise_head
from shared_models.ridge import Choice, Subspace, personal, solve

FRAME_BYTES = {"DR0-2": MAX_PAYLOAD[0], "DR3": MAX_PAYLOAD[3], "DR4-5": MAX_PAYLOAD[5]}
"""EU868 application payload limits."""
KEY = SigningKey.from_seed(bytes(32))
UPDATE_KEY, DEV_EUI = bytes(range(16)), "70b3d57ed0000001"
CHANGED = 12
"""Weights that a refresh of the backbone changes, beside the head."""


def measure() -> dict[str, Any]:
    """Sizes in bytes."""
    factory, dense, six = factory_image(), _dense(), _dense(step=4)
    fleet, sites, fields = _heads(factory)
    refreshed = _refreshed(fleet)
    one = {
        "full, factory": _entry(build_full(factory, 2), factory, None),
        "full, dense, 8 bits": _entry(build_full(dense, 2), dense, None),
        "full, dense, 6 bits": _entry(build_full(six, 2), six, None),
        "head, fleet": _entry(build_head(fleet, 2), fleet, factory),
        "delta, refreshed backbone": _entry(build_delta(refreshed, fleet, 3), refreshed, fleet),
        "keys": _entry(build_keys(KeyChange(RELEASE_KEY, bytes(range(32))), 2), None, factory),
    }
    many = {
        "head, farm": [_entry(build_head(image, 2), image, factory) for image in sites],
        "personal, farm": [_entry(build_personal(image, fleet, 3), image, fleet) for image in sites],
        "personal, field": [_entry(build_personal(image, fleet, 3), image, fleet) for image in fields],
    }
    return one | {name: _summary(entries) for name, entries in many.items()}


def _entry(container: Container, image: ModelImage | None, base: ModelImage | None) -> dict[str, Any]:
    """One container, checked by opening it, and its peers."""
    personal_head = container.kind.name == "PERSONAL"
    data = authenticate(container, UPDATE_KEY, DEV_EUI) if personal_head else KEY.sign(container)
    receiver = Receiver(Board.STM32L072, (KEY.public, bytes(32)), 1, base, 0, DEV_EUI, UPDATE_KEY)
    opened = open_container(data, receiver)
    if image is not None and not (isinstance(opened, ModelImage) and opened.pack() == image.pack()):
        raise RuntimeError(f"{container.kind.name}: the container did not restore the model")
    entry: dict[str, Any] = {
        "payload": len(container.payload),
        "signed": len(data),
        "frames": {
            rate: 1 if len(data) <= limit else -(-len(data) // (limit - 3)) for rate, limit in FRAME_BYTES.items()
        },
    }
    if image is None:
        return entry
    file, packed = _tflite(image), image.pack()
    entry["tflite"] = {"raw": len(file), **_compressed(file)}
    entry["image"] = {"raw": len(packed), **_compressed(packed)}
    entry["of_zlib_tflite"] = round(len(data) / entry["tflite"]["zlib"], 4)
    if container.kind.name in {"HEAD", "PERSONAL"}:
        entry["head_bytes"] = {"raw": len(image.head_bytes), **_compressed(image.head_bytes)}
    if base is not None:
        entry["difference"] = _difference(base.pack(), packed)
    return entry


def _summary(entries: list[dict[str, Any]]) -> dict[str, Any]:
    sizes = sorted(entry["signed"] for entry in entries)
    middle = min(entries, key=lambda entry: abs(entry["signed"] - statistics.median(sizes)))
    spread = {"least": sizes[0], "median": sizes[len(sizes) // 2], "most": sizes[-1], "of": len(sizes)}
    return middle | {"signed_spread": spread}


# Models


def _dense(step: int = 1) -> ModelImage:
    """A network whose every weight says something, as TensorFlow leaves it without pruning, in steps of its grid."""
    random = np.random.default_rng(1)

    def layer(inputs: int, outputs: int, input_zero: int, output_zero: int) -> Layer:
        weights = np.clip(step * np.rint(random.normal(0, 35, (outputs, inputs)) / step), -127, 127).astype(np.int8)
        return Layer(weights, random.normal(0, 1500, outputs).astype(np.int32), 1 << 30, -7, input_zero, output_zero)

    hidden = ModelImage(
        layer(INPUTS, HIDDEN, 0, -128), layer(HIDDEN, ACTIVATIONS, -128, -128), layer(ACTIVATIONS, OUTPUTS, -128, 0)
    )
    return quantise_head(hidden, random.normal(0, 0.1, (OUTPUTS, ACTIVATIONS + 1)))


def _heads(factory: ModelImage) -> tuple[ModelImage, list[ModelImage], list[ModelImage]]:
    """Heads that a hundred farms' statistics make of the factory's: the fleet's, each farm's, each field's."""
    grown = farms.load()
    total, prior = Sums.zero(), head_weights(factory)
    for farm in grown:
        total = total.add(farm.sums(0))

    def toward(sums: Sums, weights: np.ndarray) -> np.ndarray:
        rows = weights.copy()
        for target in range(1, TARGETS):
            if sums.windows(target):
                rows[target] = solve(sums, target, weights[target], Choice(Subspace.FULL, 100.0))
        return rows

    gram = total.gram[list(TARGET_CLASS)]
    of_fleet = toward(total, prior)
    of_sites = [toward(farm.sums(0), of_fleet) for farm in grown]
    of_fields = [
        personal(snapshot, farm.sums(0), head)
        for farm, head in zip(grown, of_sites, strict=True)
        for snapshot in farm.years[0]
    ]
    fleet = quantise_head(factory, of_fleet, gram)
    return (
        fleet,
        [quantise_head(fleet, head, gram) for head in of_sites],
        [quantise_head(fleet, head, gram) for head in of_fields],
    )


def _refreshed(base: ModelImage) -> ModelImage:
    """A dozen changed weights of the first layer and another head."""
    random, weights = np.random.default_rng(2), base.first.weights.copy()
    weights.ravel()[random.choice(weights.size, CHANGED, replace=False)] += random.integers(8, 40, CHANGED, np.int8)
    hidden = replace(base, first=replace(base.first, weights=weights))
    return quantise_head(hidden, 0.9 * head_weights(base))


def _tflite(image: ModelImage) -> bytes:
    """The same network as a LiteRT file."""
    scale, scales = float(np.float32(1 / 32)), []
    for layer in (image.first, image.second, image.head):
        scales.append((0.01, scale * 0.01 / layer.scale))
        scale = scales[-1][1]
    return litert.tflite([image.first, image.second, image.head], scales, 1 / 32)


# Peers


def _compressed(data: bytes) -> dict[str, int]:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    sizes = {"zlib": len(zlib.compress(data, 9)), "lzma": len(lzma.compress(data, lzma.FORMAT_RAW, filters=filters))}
    heatshrink = _peer("heatshrink2")
    if heatshrink is not None:
        sizes["heatshrink"] = min(
            len(heatshrink.compress(data, window_sz2=window, lookahead_sz2=look))
            for window in range(6, 12)
            for look in (3, 4, 5)
        )
    return sizes


def _difference(before: bytes, after: bytes) -> dict[str, int]:
    """Binary differences: bsdiff's patch, and what is left of a byte by byte difference."""
    bytewise = bytes((new - old) & 0xFF for old, new in zip(before, after, strict=True))
    sizes = {f"bytewise, {name}": size for name, size in _compressed(bytewise).items()}
    bsdiff = _peer("bsdiff4")
    return sizes if bsdiff is None else sizes | {"bsdiff4": len(bsdiff.diff(before, after))}


def _peer(name: str) -> Any:  # noqa: ANN401  a module without types
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def table(result: dict[str, Any]) -> str:
    """Rows for the documentation."""
    lines = [
        "| update | payload, B | signed, B | frames at DR0–2 / DR3 / DR4–5 | .tflite: raw / zlib / lzma / heatshrink, B"
        " | best binary difference, B | signed ÷ zlib'd .tflite |",
        "|---|---:|---:|---|---|---:|---:|",
    ]
    for name, entry in result.items():
        spread, peers = entry.get("signed_spread"), entry.get("tflite", {})
        signed = f"{spread['median']} ({spread['least']} to {spread['most']})" if spread else str(entry["signed"])
        files = (
            " / ".join(str(peers.get(peer, "–")) for peer in ("raw", "zlib", "lzma", "heatshrink")) if peers else "–"
        )
        best = min(entry["difference"].values()) if "difference" in entry else "–"
        share = f"{entry['of_zlib_tflite']:.0%}" if "of_zlib_tflite" in entry else "–"
        frames = " / ".join(str(count) for count in entry["frames"].values())
        lines.append(f"| {name} | {entry['payload']} | {signed} | {frames} | {files} | {best} | {share} |")
    return "\n".join(lines) + "\n"
