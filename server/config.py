"""The server's configuration: one TOML file, ``NORIA_SERVER_…`` overrides, secrets from files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared_models.configuration import Broker, RoleSettings, Section


class SuperLinkSection(Section):
    """The Flower SuperLink this server starts and watches. Its control API never leaves the loopback."""

    port: Annotated[int, Field(ge=1, le=65535)] = 8000


class FederationSection(Section):
    """What a round asks for and accepts."""

    minimum_sites: Annotated[int, Field(ge=2)] = 2
    """Accepted sites below which a round decides nothing; leaving one out needs two."""
    minimum_contributors: Annotated[int, Field(ge=1)] = 3
    """Nodes that must stand behind a site's sums (invariant I7)."""
    minimum_windows: Annotated[int, Field(ge=1)] = 10
    """Dry-down windows that must stand behind a site's sums."""
    expected_sites: Annotated[int, Field(ge=1)] = 2
    """SuperNodes waited for before asking."""
    wait_s: Annotated[float, Field(gt=0)] = 30.0
    """How long to wait for them."""
    reply_timeout_s: Annotated[float, Field(gt=0)] = 90.0
    """How long to wait for replies; Flower reports a crashed ClientApp after 66 s."""
    poll_s: Annotated[float, Field(gt=0)] = 0.25
    app: Path = Path(__file__).parents[1] / "noria" / "federation"
    """The Flower app's folder: the one installed beside this package unless given."""


class GateSection(Section):
    """When a candidate is good enough to be released."""

    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Share by which the candidate's squared error may exceed the running release's at any one site."""
    minimum_gain: Annotated[float, Field(ge=0, lt=1)] = 0.001
    """Share by which it must undercut both the running release and the physics across sites."""
    held_back_share: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    """Share of sites that may keep what they run because the candidate would hurt them."""
    window_cap: Annotated[float, Field(ge=1)] = 3.0
    """A site's windows teach at most as this multiple of the median site's."""


class ServerSettings(RoleSettings):
    """Everything ``noria server run`` needs to know."""

    model_config = SettingsConfigDict(env_prefix="NORIA_SERVER_", env_nested_delimiter="__", frozen=True)

    state_dir: Path
    """Store, SuperLink database, logs. One running server per directory."""
    key_file: Path
    """The operator's signing key, kept apart from the store; ``noria server keygen`` makes one."""
    factory_model: Path | None = None
    """Release 1; the packaged factory model unless given."""
    clock: Literal["system", "simulated"] = "system"
    broker: Broker = Broker()
    superlink: SuperLinkSection = SuperLinkSection()
    federation: FederationSection = FederationSection()
    gate: GateSection = GateSection()

    @property
    def database(self) -> Path:
        """The store described in ``server/schema.sql``."""
        return self.state_dir / "server.db"
