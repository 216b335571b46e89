"""Simulated windows to learn a backbone from: fields of both training worlds, kept once they were run.

A season costs half a second of a processor, a refresh needs a thousand: they are kept in the state directory, in
parts, each written whole or not at all. What a killed refresh had finished, the next one reads. The key says what
they depend on: simulators, the node's reference, and the model that decided about water, which is the physics as
long as the running model leaves that to it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

import server
import shared_models
from server.training import samples
from server.training.factory import Progress, seeds
from server.training.samples import Samples
from server.training.seasons import physics_only, run_cases
from server.worlds.field import sample_case
from shared_models.moments import UPTAKE
from shared_models.network import ModelImage, head_weights

TRAINING, JUDGING = 11, 12
"""Groups of fields that nothing else draws from."""
TOGETHER = 50
"""Fields of a part."""
PARTS = ("features", "targets", "mask", "season", "world")


@cache
def world_version() -> str:
    """Digest of the sources that decide what happens in a season."""
    hashed = hashlib.blake2b(digest_size=16)
    ours, shared = Path(next(iter(server.__path__))), Path(next(iter(shared_models.__path__)))
    for folder in (ours / "worlds", ours / "training", shared):
        for path in sorted(folder.rglob("*.py")):
            hashed.update(f"{folder.name}/{path.relative_to(folder).as_posix()}".encode() + b"\0" + path.read_bytes())
    return hashed.hexdigest()


class WindowStore:
    """Windows of simulated fields under one deciding model.

    Args:
        folder: Where parts are kept.
        running: The model of the nodes.
        seed: Draws the fields.
        years: Seasons of each field.
        days: See :func:`server.training.seasons.run_cases`.
    """

    def __init__(self, folder: Path, running: ModelImage, seed: int, years: int, days: int | None) -> None:
        self._folder, self._seed, self._years, self._days = folder, seed, years, days
        # A model without a say over water lives the same seasons as the physics.
        self._deciding = running if head_weights(running)[UPTAKE].any() else physics_only()
        described = f"{world_version()} {self._deciding.model_id} {seed} {years} {days}"
        self._key = hashlib.blake2b(described.encode(), digest_size=8).hexdigest()

    def windows(self, group: int, fields: int, processes: int, progress: Progress) -> Samples:
        """All windows of the first ``fields`` fields of a group; what is missing is run and kept."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for stale in self._folder.glob("*.npz"):
            if not stale.name.startswith(self._key):
                stale.unlink(missing_ok=True)
        numbers = seeds(group, self._seed, fields)
        parts = [numbers[first : first + TOGETHER] for first in range(0, fields, TOGETHER)]
        progress.stage(f"fields, group {group}", len(parts))
        return samples.concatenate(self._each(parts, group, processes, progress))

    def _each(self, parts: list[range], group: int, processes: int, progress: Progress) -> Iterator[Samples]:
        for part in parts:
            path = self._folder / f"{self._key}-{group}-{part[0]}-{len(part)}.npz"
            found = _read(path)
            if found is None:
                cases = [sample_case(number).as_shipped() for number in part]
                seasons = run_cases(cases, self._deciding, processes, days=self._days, years=self._years)
                found = samples.concatenate(season.samples for season in seasons)
                _write(path, found)
            progress.advance()
            yield found


def _read(path: Path) -> Samples | None:
    try:
        with np.load(path) as kept:
            return Samples(**{name: kept[name] for name in PARTS})
    except (OSError, ValueError, KeyError, EOFError):
        return None  # not there, or not whole: it is run again


def _write(path: Path, windows: Samples) -> None:
    partial = path.with_suffix(".part")
    with partial.open("wb") as file:
        np.savez_compressed(file, **{name: getattr(windows, name) for name in PARTS})
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
