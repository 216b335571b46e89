"""What a dashboard needs to know: which stores to read, the calendar to compare with, and who may do what."""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from shared_models.configuration import RoleSettings, Section
from shared_models.messages import Site


class Farm(Section):
    """One farm and its gateway's store."""

    site: Site
    store: Path
    name: Annotated[str, Field(max_length=60)] = ""
    """Shown to people; the site's name where empty."""
    season_start: dt.date | None = None
    """Planting day; where absent it is read from the end of the node's commissioning."""

    @property
    def title(self) -> str:
        """The farm's name for people."""
        return self.name or self.site.replace("-", " ").title()


class Calendar(Section):
    """The watering by calendar that a season is compared with."""

    dose_mm: Annotated[float, Field(gt=0, le=200)] = 25.0
    every_days: Annotated[int, Field(ge=1, le=60)] = 5


class DashboardSettings(RoleSettings):
    """``dashboard.toml``; environment variables begin with ``NORIA_DASHBOARD_``."""

    model_config = SettingsConfigDict(env_prefix="NORIA_DASHBOARD_", env_nested_delimiter="__", extra="forbid")

    title: Annotated[str, Field(min_length=1, max_length=60)] = "Noria"
    address: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8501
    clock: Literal["system", "simulated"] = "system"
    """``simulated``: "now" is the clock in the stores, as in the demo."""
    farms: Annotated[list[Farm], Field(min_length=1, max_length=100)]
    server_store: Path | None = None
    """Without it there are no operator pages."""
    calendar: Calendar = Calendar()
    units: Literal["metric", "imperial"] = "metric"
    refresh_s: Annotated[float, Field(ge=0.5, le=3600)] = 5.0
    silent_after_h: Annotated[float, Field(gt=0, le=24 * 365)] = 54.0
    """A node not heard for longer needs a look: two daily reports and some patience."""
    farmer_password_file: Path | None = None
    operator_password_file: Path | None = None

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the dashboard."""
        if self.address == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.address).is_loopback
        except ValueError:
            return False

    @model_validator(mode="after")
    def _reachable_means_guarded(self) -> Self:
        if self.on_loopback:
            return self
        if self.farmer_password_file is None:
            raise ValueError(f"address {self.address} can be reached by others: set farmer_password_file")
        if self.server_store is not None and self.operator_password_file is None:
            raise ValueError(f"address {self.address} can be reached by others: set operator_password_file")
        return self

    @model_validator(mode="after")
    def _sites_are_distinct(self) -> Self:
        sites = [farm.site for farm in self.farms]
        if len(set(sites)) != len(sites):
            raise ValueError("farms: each site may appear once")
        return self
