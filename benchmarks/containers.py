"""How many bytes a model costs on the air: raw, under general compressors, and in our container."""

from __future__ import annotations

import lzma
import zlib
from typing import Any

import monocypher
import numpy as np

from shared_models.codes import Board
from shared_models.container import HEADER_SIZE, SIGNATURE_SIZE, build_full, build_head, open_container, sign
from shared_models.factory import factory_image
from shared_models.network import HEAD_BYTES, head_weights, quantise_head

FRAME_BYTES = {"DR0-2": 51, "DR3": 115, "DR4-5": 222}
"""EU868 application payload limits."""


def measure() -> dict[str, Any]:
    """Sizes in bytes of the factory model and of a head that a federated round might make of it."""
    image = factory_image()
    weights = head_weights(image)
    rng = np.random.default_rng(1)
    moved = quantise_head(image, weights + rng.normal(0, 0.02, weights.shape))
    private_key, public_key = monocypher.generate_signing_key_pair()
    raw = image.pack()
    result: dict[str, Any] = {
        "full": _sizes(raw),
        "head": _sizes(image.head_bytes),
        "header": HEADER_SIZE,
        "signature": SIGNATURE_SIZE,
        "head_bytes_in_image": HEAD_BYTES,
    }
    for name, container in (("full", build_full(moved, 2)), ("head", build_head(moved, 2))):
        signed = sign(container, private_key)
        if open_container(signed, [public_key], Board.STM32L072, 1, image).pack() != moved.pack():
            raise RuntimeError(f"{name}: the container did not restore the model")
        result[name]["ours_payload"] = len(container.payload)
        result[name]["ours_signed"] = len(signed)
        result[name]["fragments"] = {rate: -(-len(signed) // (limit - 3)) for rate, limit in FRAME_BYTES.items()}
    return result


def _sizes(data: bytes) -> dict[str, Any]:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9}]
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return {
        "raw": len(data),
        "zlib_9": len(zlib.compress(data, 9)),
        "deflate_9": len(deflate.compress(data) + deflate.flush()),
        "lzma_raw_9": len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters)),
    }
