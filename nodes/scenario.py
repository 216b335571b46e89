"""A scenario: farms, fields, climates, nodes and radio of one simulated season, read from one TOML file.

Everything random in a season is drawn from the scenario's seed and from names in this file, never from the
order in which things happen to run.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from datetime import UTC, date, datetime, time, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator, model_validator

from nodes.field.climates import CLIMATES
from nodes.field.crops import FIELD_CROPS
from nodes.field.soils import Texture
from shared_models.codes import Board, Crop
from shared_models.configuration import explain
from shared_models.messages import DevEui, Site
from shared_models.settings import SHIPPED_THRESHOLD_PERMILLE

DAY_S = 86_400
WAKE_PERIOD_S = 900
EARLIEST_YEAR = 2000
DAWN = time(6)
"""Local time at which a node's day begins."""


def spread_phase_s(dev_eui: str) -> int:
    """Offset of a node's wakes within the quarter of an hour, so that a farm does not talk at once."""
    return int.from_bytes(blake2b(dev_eui.encode(), digest_size=4).digest(), "little") % WAKE_PERIOD_S


class ScenarioError(ValueError):
    """A scenario that cannot be used; the text names the file, the key and the reason."""


class Table(BaseModel):
    """Base: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RadioChannel(Table):
    """How badly the air treats frames."""

    uplink_loss: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Probability that the gateway's antenna misses an uplink."""
    downlink_loss: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Probability that the node misses a downlink that was transmitted."""


class Fault(Table):
    """A defect of one node's hardware, for tests of how it copes."""

    part: Literal["probe_shallow", "probe_deep", "soil_temperature", "air", "valve"]
    kind: Literal["broken", "stuck"]
    """``broken``: no signal (a valve: no water). ``stuck``: the last value for ever (a valve: never closes)."""
    from_day: Annotated[int, Field(ge=0)]
    """Days after the scenario's start."""
    to_day: Annotated[int, Field(ge=1)] = 10_000

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.to_day <= self.from_day:
            raise ValueError("to_day must come after from_day")
        return self


class NodePlan(Table):
    """One node, the field it stands in, and how it was set up."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
    dev_eui: DevEui
    board: Board
    crop: Crop
    soil: Texture
    data_rate: Annotated[int, Field(ge=0, le=5)] = 3
    """EU868 data rate, 0 (SF12) to 5 (SF7)."""
    application_rate_mm_h: Annotated[float, Field(gt=0.0, le=50.0)] = 8.0
    """Nominal, as the farmer set it on the node; the emitters' true flow differs."""
    dose_mm: Annotated[float, Field(ge=1.0, le=60.0)] = 20.0
    threshold: Annotated[float, Field(ge=0.05, le=0.8)] = SHIPPED_THRESHOLD_PERMILLE / 1000
    """Fraction of TAW depleted at which the node waters."""
    season_days: Annotated[int, Field(ge=10, le=366)] | None = None
    """Planting to harvest as the farmer reckons; default: the crop's."""
    telemetry_period_h: Annotated[int, Field(ge=1, le=168)] = 24
    statistics_period_h: Annotated[int, Field(ge=1, le=1000)] = 168
    faults: Annotated[list[Fault], Field(max_length=16)] = []

    @field_validator("board", mode="before")
    @classmethod
    def _board_by_name(cls, value: object) -> object:
        return _by_name(Board, value)

    @field_validator("crop", mode="before")
    @classmethod
    def _crop_by_name(cls, value: object) -> object:
        return _by_name(Crop, value)

    @field_serializer("board", "crop", when_used="json")
    def _name(self, value: Board | Crop) -> str:
        return value.name.lower()

    @property
    def season_length_days(self) -> int:
        """Planting to harvest as the node's settings have it."""
        return self.season_days or FIELD_CROPS[self.crop].season_days

    @property
    def wake_phase_s(self) -> int:
        """Offset of this node's wakes within the quarter of an hour."""
        return spread_phase_s(self.dev_eui)


class FarmPlan(Table):
    """One farm: a gateway, its climate, its nodes."""

    site: Site
    climate: str
    application_id: UUID
    """ChirpStack application of this farm."""
    utc_offset_min: Annotated[int, Field(ge=-720, le=840)] = 0
    nodes: Annotated[list[NodePlan], Field(min_length=1, max_length=1000)]

    @field_validator("climate")
    @classmethod
    def _known_climate(cls, value: str) -> str:
        if value not in CLIMATES:
            raise ValueError(f"no such climate; there are {', '.join(sorted(CLIMATES))}")
        return value


class Scenario(Table):
    """A season on several farms."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
    seed: Annotated[int, Field(ge=0, le=0xFFFFFFFF)]
    start: date
    """The day on which nodes boot, on a soaked profile; a date of the measured climates."""
    days: Annotated[int, Field(ge=1, le=400)]
    """Length of the run, commissioning included."""
    commissioning_days: Annotated[int, Field(ge=1, le=30)] = 8
    """From boot to planting, while the soak drains."""
    improvement_days: Annotated[list[Annotated[int, Field(ge=1)]], Field(max_length=32)] = []
    """Days after the start on which the operator asks for a federated round and brings out what it releases."""
    radio: RadioChannel = RadioChannel()
    farms: Annotated[list[FarmPlan], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for key, names in (
            ("site", [farm.site for farm in self.farms]),
            ("application_id", [str(farm.application_id) for farm in self.farms]),
            ("dev_eui", [node.dev_eui for farm in self.farms for node in farm.nodes]),
            ("node name", [f"{farm.site}/{node.name}" for farm in self.farms for node in farm.nodes]),
        ):
            repeated = sorted(name for name, times in Counter(names).items() if times > 1)
            if repeated:
                raise ValueError(f"{key} {repeated[0]} occurs more than once")
        if self.start.year < EARLIEST_YEAR:
            raise ValueError(f"start {self.start}: the nodes' clock knows no year before {EARLIEST_YEAR}")
        for day in self.improvement_days:
            if day >= self.days:
                raise ValueError(f"improvement_days: day {day} is not before the end, day {self.days}")
        for farm in self.farms:
            climate = CLIMATES[farm.climate]
            # The crop may ripen after the scenario's end, and yesterday's weather shapes the first night.
            longest = self.commissioning_days + max(FIELD_CROPS[node.crop].season_days for node in farm.nodes)
            last = self.start + timedelta(days=max(self.days, longest) + 2)
            if self.start - timedelta(days=30) < climate.first or last > climate.last:
                raise ValueError(
                    f"start {self.start}: the record of {climate.name} reaches from {climate.first} to {climate.last}, "
                    f"and this season needs 30 days before it and lasts until {last}"
                )
        return self

    @property
    def start_time_s(self) -> int:
        """When the run begins, Unix seconds: 06:00 UTC of the first day."""
        return int(datetime.combine(self.start, DAWN, UTC).timestamp())

    @property
    def end_time_s(self) -> int:
        """When the run ends, Unix seconds."""
        return self.start_time_s + self.days * DAY_S

    def planting_date(self) -> date:
        """The day of planting, the same on every farm."""
        return self.start + timedelta(days=self.commissioning_days)

    def planting_time_s(self, farm: FarmPlan) -> int:
        """06:00 local of the day of planting, Unix seconds."""
        return int(datetime.combine(self.planting_date(), DAWN, UTC).timestamp()) - 60 * farm.utc_offset_min

    def with_seed(self, seed: int) -> Scenario:
        """The same scenario, differently drawn."""
        return Scenario.model_validate({**self.model_dump(), "seed": seed})


def load_scenario(path: Path) -> Scenario:
    """Read and check a scenario file.

    Raises:
        ScenarioError: the file cannot be read, is not TOML, or a key is unknown, missing or out of range.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(f"{path}: cannot read the scenario: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: not valid TOML: {error}") from error
    try:
        return Scenario.model_validate(table)
    except ValidationError as error:
        raise ScenarioError(f"{path}: {explain(error)}") from error


def _by_name(kind: type[Board | Crop], value: object) -> object:
    """TOML says ``"dry_bean"``; code says ``Crop.DRY_BEAN``."""
    if isinstance(value, kind):
        return value
    if isinstance(value, str) and value == value.lower() and value.upper() in kind.__members__:
        return kind[value.upper()]
    raise ValueError(f"must be one of {', '.join(name.lower() for name in kind.__members__)}")
