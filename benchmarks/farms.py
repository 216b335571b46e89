"""Farms of the training worlds with two seasons of statistics each: what the federation's benchmarks learn from.

A farm is three to five fields in one climate, all in one simulator; soils, crops, probes and the fields' own depth of
error differ as the training distribution has them. Every field has its node for two years under the shipped model and
settings; a season's snapshot is coded and decoded as on the air. The first year is what gateways answer with, the
second what a release is worth to those who run it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from server.training.samples import sums
from server.training.seasons import run_cases
from server.worlds.field import WORLDS, Case, sample_case
from shared_models.factory import factory_image
from shared_models.moments import Snapshot, Sums
from shared_models.network import ModelImage

FARMS = 100
FIRST_SEED = 700_000_000
"""A group of fields that no training, trial or test draws from."""
FIELDS = (3, 4, 5)
"""Of a farm, in turns; three nodes are the least that may answer."""
YEARS = 2
TOGETHER = 10
STORE = Path(__file__).parent / "results" / "farms.npz"


@dataclass(frozen=True)
class Farm:
    """A farm's snapshots: one list per year, a field's in the same place in both."""

    name: str
    years: tuple[list[Snapshot], ...]

    def sums(self, year: int) -> Sums:
        """What its gateway answers after that year."""
        result = Sums.zero()
        for snapshot in self.years[year]:
            result = result.add(snapshot)
        return result


def cases_of(farm: int) -> list[Case]:
    """The fields of a farm in their first year."""
    cases = [sample_case(FIRST_SEED + 10 * farm + field) for field in range(FIELDS[farm % len(FIELDS)])]
    climate = cases[0].climate
    return [
        replace(
            case.as_shipped(),
            world=WORLDS[farm // len(FIELDS) % len(WORLDS)],
            climate=climate,
            # The season straddles the farm's own peak of warmth.
            planting_day_of_year=round(climate.warmest_day - 10 - case.traits.season_days / 2) % 365 + 1,
        )
        for case in cases
    ]


def grow(count: int, processes: int | None = None) -> list[Farm]:
    """Run the first ``count`` farms; about four seconds of a processor each."""
    image, farms = factory_image(), []
    parts = [range(first, min(first + TOGETHER, count)) for first in range(0, count, TOGETHER)]
    for part in track(parts, "farms", console=Console(stderr=True)):
        cases = [case for farm in part for case in cases_of(farm)]
        seasons = run_cases(cases, image, processes or os.cpu_count() or 1, years=YEARS)
        snapshots = iter([on_the_air(sums(season.samples, image)) for season in seasons])
        for farm in part:
            fields = [[next(snapshots) for _ in range(YEARS)] for _ in cases_of(farm)]
            farms.append(Farm(f"farm-{farm:03d}", tuple(list(year) for year in zip(*fields, strict=True))))
    return farms


def on_the_air(exact: Sums) -> Snapshot:
    """A node's sums as its gateway decodes them."""
    return Snapshot.decode(Snapshot(exact.gram, exact.moment, exact.energy, exact.count).encode())


@cache
def load(path: Path = STORE) -> list[Farm]:
    """Farms that were grown before, from their coded snapshots."""
    with np.load(path) as kept:
        coded, owner = kept["snapshots"], kept["farm"]
    farms = []
    for farm in range(int(owner.max()) + 1):
        fields = coded[owner == farm]
        years = tuple([Snapshot.decode(bytes(field[year])) for field in fields] for year in range(YEARS))
        farms.append(Farm(f"farm-{farm:03d}", years))
    return farms


def save(farms: list[Farm], path: Path = STORE) -> None:
    """Keep farms' snapshots as they are on the air."""
    coded = [
        [list(snapshot.encode()) for snapshot in field] for farm in farms for field in zip(*farm.years, strict=True)
    ]
    owner = [index for index, farm in enumerate(farms) for _ in farm.years[0]]
    np.savez_compressed(path, snapshots=np.array(coded, np.uint8), farm=np.array(owner, np.uint16))


def backbone() -> ModelImage:
    """The model the farms' nodes ran."""
    return factory_image()


if __name__ == "__main__":
    save(grow(FARMS))
