"""Fields on which controllers are judged: which climate, soil, crop and year, all drawn from a world seed.

A field is known by its seed and its name. What is its own (soil, probes, light sensor, emitters) stays from year to
year; weather, drift and noise are the year's. No draw depends on how many fields or climates are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b

from nodes.field.character import Character, generator
from nodes.field.climates import CLIMATES, Climate, Planting
from nodes.field.crops import FIELD_CROPS
from nodes.field.soils import Texture
from nodes.scenario import DAWN, spread_phase_s
from shared_models.codes import Crop

COMMISSIONING_DAYS = 8
"""From the soak to planting, d."""
SPIN_UP_DAYS = 30
"""Weather before the soak: the running means of light and soil need a month to forget where they began."""
SPARE_DAYS = 5
"""Weather after the harvest: today's curves lean on tomorrow's, and an oracle looks days ahead."""
PLANTING_SPREAD_DAYS = 8
"""A field is planted so many days before or after its region's usual date, at most."""
FIRST_SEASON = 2024
"""What a node's calendar says in its field's first year. The record's years are drawn in any order, and a node's
clock neither goes back nor knows a year before 2000."""


@dataclass(frozen=True, slots=True)
class FieldYear:
    """One field in one year of its station's record, under one world seed."""

    name: str
    """The climate and the field's number there: ``champion-2``, the same in every year."""
    climate: str
    """Key of :data:`nodes.field.climates.CLIMATES`."""
    seed: int
    """Of the world: soil, probes, years, noise."""
    year: int
    """Of planting, in the record."""
    crop: Crop
    texture: Texture
    """What a soil map would say; the true soil varies about it."""
    planting: date
    turn: int = 0
    """How many years the node has stood in this field."""

    @property
    def following(self) -> FieldYear:
        """The same field and node in the next year drawn for it.

        Raises:
            ValueError: every year of the record has been used.
        """
        return _draw(self.seed, CLIMATES[self.climate], int(self.name.rpartition("-")[2]), self.turn + 1)

    @property
    def dev_eui(self) -> str:
        """Identity of the node in this field, which is also the name of its random streams."""
        return blake2b(self.name.encode(), digest_size=8).hexdigest()

    @property
    def character(self) -> Character:
        """The field's true soil and flow, and the node's errors: the same in every year."""
        return Character.draw(self.seed, self.dev_eui, self.texture)

    @property
    def season_days(self) -> int:
        """Planting to harvest as the farmer reckons."""
        return FIELD_CROPS[self.crop].season_days

    @property
    def season(self) -> int:
        """Year of planting by the node's calendar."""
        return FIRST_SEASON + self.turn

    @property
    def planting_time_s(self) -> int:
        """06:00 of the day of planting in the record, Unix seconds; local time is taken as UTC."""
        return int(datetime.combine(self.planting, DAWN, UTC).timestamp())

    @property
    def node_planting_time_s(self) -> int:
        """The same day and hour by the node's calendar, Unix seconds."""
        return int(datetime.combine(self.planting.replace(year=self.season), DAWN, UTC).timestamp())

    @property
    def start_time_s(self) -> int:
        """When the node boots on its soaked profile, Unix seconds of the record."""
        return self.planting_time_s - COMMISSIONING_DAYS * 86_400

    @property
    def wake_phase_s(self) -> int:
        """Offset of the node's wakes within the quarter of an hour, s."""
        return spread_phase_s(self.dev_eui)


def sample_fields(
    seed: int, climates: Sequence[str] | None = None, per_climate: int = 3, years: int = 2
) -> list[FieldYear]:
    """Fields of some climates, a field's years one after the other.

    Args:
        seed: of the world; under another seed the same names are other fields.
        climates: keys of :data:`nodes.field.climates.CLIMATES`; None takes all of them.
        per_climate: fields in each; the region's crops take turns.
        years: seasons of each field, drawn from the record without replacement.

    Raises:
        KeyError: no such climate.
        ValueError: the record of a climate has fewer seasons.
    """
    return [
        _draw(seed, CLIMATES[climate], number, turn)
        for climate in (sorted(CLIMATES) if climates is None else climates)
        for number in range(1, per_climate + 1)
        for turn in range(years)
    ]


def _draw(seed: int, climate: Climate, number: int, turn: int) -> FieldYear:
    name = f"{climate.name}-{number}"
    usual = climate.plantings[(number - 1) % len(climate.plantings)]
    rng = generator(seed, name, "field")
    texture = list(Texture)[int(rng.integers(len(Texture)))]
    shift = timedelta(days=int(rng.integers(-PLANTING_SPREAD_DAYS, PLANTING_SPREAD_DAYS + 1)))
    years = _seasons(climate, usual, shift)
    if turn >= len(years):
        raise ValueError(f"{name}: the record has {len(years)} seasons; ask for fewer years")
    year = years[int(rng.permutation(len(years))[turn])]
    return FieldYear(
        name=name,
        climate=climate.name,
        seed=seed,
        year=year,
        crop=usual.crop,
        texture=texture,
        planting=usual.on(year) + shift,
        turn=turn,
    )


def _seasons(climate: Climate, usual: Planting, shift: timedelta) -> list[int]:
    """Years of planting for whose whole season the record has the weather."""
    before = timedelta(days=COMMISSIONING_DAYS + SPIN_UP_DAYS)
    after = timedelta(days=FIELD_CROPS[usual.crop].season_days + SPARE_DAYS)
    plantings = {year: usual.on(year) + shift for year in range(climate.first.year, climate.last.year + 1)}
    return [
        year
        for year, planting in plantings.items()
        if planting - before >= climate.first and planting + after <= climate.last
    ]
