"""A refreshed model in the registry: a release with a backbone of its own, made of a release with another."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from server import releases
from server.releases import Release, ReleaseError, Signed
from shared_models.network import ModelImage

ORIGIN = "refresh"


def register_refresh(
    connection: sqlite3.Connection,
    signed: Signed,
    image: ModelImage,
    base: Release,
    number: int,
    now_s: int,
    evidence: Mapping[str, Any],
) -> Release:
    """Release ``image``, learned from simulated windows weighed by the sums of round ``number``.

    Raises:
        ReleaseError: its backbone is the base's, or as :func:`server.releases.register` says.
    """
    if image.backbone_id == base.backbone_id:
        raise ReleaseError("a refresh must bring a new backbone")
    provenance = {
        "method": "TensorFlow in the training worlds, windows weighed by the fleet's moments",
        "base_version": base.version,
        "base_content_hash": base.content_hash,
        "round": number,
        **{name: evidence[name] for name in ("sums", "windows", "matched", "configuration", "seed", "code")},
    }
    return releases.register(
        connection, signed, image, base, number, now_s, origin=ORIGIN, provenance=provenance, evidence=evidence
    )
