"""The measured climates a field can lie in, how long their records are, and what is grown there.

Six records ship with the ``aquacrop`` package: daily minimum and maximum temperature, rain and reference
evapotranspiration of FAO's weather stations. Three more hold measured radiation, humidity and wind as well
(:mod:`nodes.field.stations`). This table is apart from the loaders so that a scenario can be checked without
importing AquaCrop.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from shared_models.codes import Crop


@dataclass(frozen=True, slots=True)
class Planting:
    """A crop of the region and the day of the year on which it is planted there."""

    crop: Crop
    month: int
    day: int

    def on(self, year: int) -> date:
        """The day of planting in this year."""
        return date(year, self.month, self.day)


@dataclass(frozen=True, slots=True)
class Climate:
    """One station's record."""

    name: str
    latitude_deg: float
    first: date
    last: date
    plantings: tuple[Planting, ...]
    radiation_measured: bool = False
    """Whether global radiation and dew point are in the record, too, and not derived from the rest."""
    dated_years_later: int = 0
    """Added to the record's own years: a node's clock knows no year before 2000. A multiple of 28 keeps leap years."""


CLIMATES = {
    climate.name: climate
    for climate in (
        Climate(
            "bedrock",
            38.3,
            date(2015, 1, 1),
            date(2018, 12, 31),
            (Planting(Crop.MAIZE, 5, 5), Planting(Crop.DRY_BEAN, 6, 1)),
            radiation_measured=True,
        ),
        Climate(
            "brussels",
            50.8,
            date(1976, 1, 1),
            date(2005, 12, 31),
            (Planting(Crop.POTATO, 4, 25), Planting(Crop.MAIZE, 5, 1), Planting(Crop.SUGAR_BEET, 4, 10)),
        ),
        Climate(
            "cambridge",
            52.2,
            date(1991, 1, 1),
            date(2021, 12, 31),
            (Planting(Crop.POTATO, 4, 15), Planting(Crop.SUGAR_BEET, 4, 1)),
        ),
        Climate(
            "champion",
            40.4,
            date(1982, 1, 1),
            date(2018, 12, 31),
            (
                Planting(Crop.MAIZE, 5, 1),
                Planting(Crop.SOYBEAN, 5, 10),
                Planting(Crop.POTATO, 5, 1),
                Planting(Crop.DRY_BEAN, 5, 25),
            ),
        ),
        Climate(
            "cordoba",
            -31.4,
            date(1991, 1, 1),
            date(2021, 12, 31),
            (Planting(Crop.MAIZE, 10, 15), Planting(Crop.SOYBEAN, 11, 10), Planting(Crop.TOMATO, 10, 1)),
        ),
        Climate(
            "hyderabad",
            17.4,
            date(2000, 1, 1),
            date(2010, 12, 31),
            (Planting(Crop.MAIZE, 10, 15), Planting(Crop.TOMATO, 11, 10), Planting(Crop.POTATO, 10, 25)),
        ),
        Climate(
            "moab",
            38.6,
            date(2015, 3, 13),
            date(2017, 11, 30),
            (Planting(Crop.MAIZE, 5, 1), Planting(Crop.TOMATO, 5, 10)),
            radiation_measured=True,
        ),
        Climate(
            "tunis",
            36.8,
            date(1979, 1, 1),
            date(2002, 5, 31),
            (Planting(Crop.TOMATO, 4, 1), Planting(Crop.POTATO, 2, 15), Planting(Crop.MAIZE, 4, 15)),
        ),
        Climate(
            "wageningen",
            51.97,
            date(2004, 1, 1),
            date(2019, 8, 31),
            (Planting(Crop.POTATO, 4, 20), Planting(Crop.MAIZE, 5, 1), Planting(Crop.SUGAR_BEET, 4, 10)),
            radiation_measured=True,
            dated_years_later=28,
        ),
    )
}
"""Bedrock, Colorado, a desert valley; Brussels; Cambridge, England; Champion, Nebraska; Córdoba, Argentina, where
seasons span the new year; Hyderabad, where these crops grow in the dry season after the monsoon; Castle Valley near
Moab, Utah, a desert too; Tunis; Wageningen, as it was from 1976 to 1991."""
