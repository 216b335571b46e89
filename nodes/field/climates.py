"""The measured climates a field can lie in, and how long their records are.

The records ship with the ``aquacrop`` package: daily minimum and maximum temperature, rain and reference
evapotranspiration of FAO's weather stations. This table is apart from the loader so that a scenario can be
checked without importing AquaCrop.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True)
class Climate:
    """One station's record."""

    name: str
    latitude_deg: float
    first: date
    last: date


CLIMATES = {
    climate.name: climate
    for climate in (
        Climate("champion", 40.4, date(1982, 1, 1), date(2018, 12, 31)),
        Climate("tunis", 36.8, date(1979, 1, 1), date(2002, 5, 31)),
    )
}
"""Champion, Nebraska, and Tunis; both have growing seasons in the same months."""
