"""The server's configuration: one TOML file, ``NORIA_SERVER_…`` overrides, secrets from files."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_settings import SettingsConfigDict

from shared_models.configuration import Broker, RoleSettings, Section


class SuperLinkSection(Section):
    """The Flower SuperLink this server starts and watches. Its control API never leaves the loopback."""

    port: Annotated[int, Field(ge=1, le=65535)] = 8000


def _host(name: str) -> str:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        if not re.fullmatch(
            r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name
        ):
            raise ValueError(f"{name!r:.80} is neither a DNS name in lower case nor an address") from None
    return name


def _interface(address: str) -> str:
    ipaddress.ip_address(address)
    return address


class FleetApiSection(Section):
    """The fleet API as gateways elsewhere reach it; with this table every SuperNode needs a registered key.

    A TLS proxy (``noria server proxy``) publishes ``/v1/fleet/`` of the SuperLink and nothing else.
    """

    names: Annotated[list[Annotated[str, AfterValidator(_host)]], Field(min_length=1, max_length=16)]
    """DNS names or addresses gateways reach the proxy by; they are in its certificate."""
    certificates: Path
    """Folder of the CA's and the servers' certificates and keys; ``noria server fleet-ca`` makes them."""
    listen: Annotated[tuple[Annotated[str, AfterValidator(_interface)], ...], Field(min_length=1)] = (
        "0.0.0.0",  # noqa: S104  to be reached is what it is for
    )
    """Addresses the proxy listens on."""
    port: Annotated[int, Field(ge=1, le=65535)] = 9092
    requests_per_s: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Of one address, ten times as many in a burst."""
    connections: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Of one address at a time."""


ATTEMPTS = 3
"""Of a cohort in one masked round, each with those left of the one before."""
STEPS = 3
"""Of an attempt: keys, masked answers, seeds."""


class PrivacySection(Section):
    """How much of each site's sums the server gets to see; gateways may demand more (docs/security.md)."""

    masking: bool = False
    """Learn totals of cohorts only. Gateways that demand masks answer in no other round."""
    cohort_size: Annotated[int, Field(ge=3, le=4096)] = 3
    """The least sites of a new cohort."""
    patience: Annotated[float, Field(gt=0, le=100)] = 3.0
    """How many times as long as two thirds of a step's replies took to wait for the others. A step waits for a
    SuperNode that died, and a masked round has several."""
    accept_noise: bool = False
    """Take sums with noise, which cannot be validated."""


class FederationSection(Section):
    """What a round asks for and accepts."""

    minimum_sites: Annotated[int, Field(ge=2)] = 30
    """Accepted sites below which a round decides nothing. Of fewer than thirty, a fifth that lies can cost the others
    more than 2 % (docs/security.md); who knows every farm sets less, at least the two that leaving one out needs."""
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
    privacy: PrivacySection = PrivacySection()

    def too_few(self, sites: int) -> str:
        """What is missing, or an empty text."""
        if sites >= self.minimum_sites:
            return ""
        return f"{sites}, {self.minimum_sites} are needed (fewer among known farms: [federation] minimum_sites)"

    @property
    def longest_s(self) -> float:
        """How long the replies of a round may take, all its steps together."""
        steps = STEPS * ATTEMPTS if self.privacy.masking else 1
        return self.wait_s + steps * self.reply_timeout_s


class RoundsSection(Section):
    """When the server holds rounds by itself."""

    every_hours: Annotated[float, Field(ge=0.1, le=8784)] | None = None
    """Due times are this far apart; only when asked for unless given."""
    from_hour: Annotated[int, Field(ge=0, le=23)] = 0
    until_hour: Annotated[int, Field(ge=1, le=24)] = 24
    """The hours of the day, UTC, in which a round may begin; ``from_hour`` 22 and ``until_hour`` 4 span midnight."""
    minimum_new_windows: Annotated[int, Field(ge=0)] = 50
    """Dry-down windows, over all sites, that no decided round has seen."""
    retry_minutes: Annotated[float, Field(ge=1)] = 15.0
    """Pause after a failed round; it doubles with each further failure, up to ``every_hours``."""

    @model_validator(mode="after")
    def _some_hours(self) -> Self:
        if self.from_hour == self.until_hour:
            raise ValueError("from_hour and until_hour leave no time for a round")
        return self


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


class RefreshSection(Section):
    """When the backbone itself is retrained, and what that must bring (docs/federation.md)."""

    after_rounds: Annotated[int, Field(ge=1)] | None = None
    """Rounds in a row that the gate refused although they brought enough; only when asked for unless given."""
    minimum_windows: Annotated[int, Field(ge=1)] = 1_000
    """Dry-down windows that a refused round must have had to count."""
    minimum_gain: Annotated[float, Field(ge=0, lt=1)] = 0.005
    """Share of the squared error it must take off in either simulator's held-out fields: a change of backbone makes
    statistics start again, which a season's heads must earn back."""
    least_fields: Annotated[float, Field(ge=2)] = 20.0
    """Effective number of simulated fields that must be like the fleet's, in each simulator."""
    container_bytes: Annotated[int, Field(ge=100, le=1_000)] = 115
    """The most the update may have in all: one frame at DR3."""
    configuration: Literal["full", "small"] = "full"
    """How many fields are simulated and how long TensorFlow learns; small is for trying it out."""
    seed: Annotated[int, Field(ge=0, le=9999)] = 1
    processes: Annotated[int, Field(ge=1, le=256)] = 1
    """That simulate at once."""
    hours: Annotated[float, Field(gt=0)] = 4.0
    """After so long it is given up; what was simulated is kept."""


class CampaignsSection(Section):
    """Who may do what about campaigns."""

    second_operator: bool = False
    """Whoever drafted a campaign may not approve it. Off unless given: a farm with one operator could bring nothing to
    its nodes, and the rule is worth something only where every operator has an account, or a password, of their own."""


class ServerSettings(RoleSettings):
    """Everything ``noria server run`` needs to know."""

    model_config = SettingsConfigDict(env_prefix="NORIA_SERVER_", env_nested_delimiter="__", frozen=True)

    state_dir: Path
    """Store, SuperLink database, logs. One running server per directory."""
    key_file: Path
    """The operator's signing key, kept apart from the store; ``noria server keygen`` makes one."""
    signing_command: Annotated[list[str], Field(min_length=1)] | None = None
    """Signs instead of the key in ``key_file``, beside which only the public key (.pub) is then needed."""
    update_key_file: Path | None = None
    """The secret that nodes' update keys follow from; ``update.key`` beside ``key_file`` unless given."""
    factory_model: Path | None = None
    """Release 1; the packaged factory model unless given."""
    clock: Literal["system", "simulated"] = "system"
    broker: Broker = Broker()
    superlink: SuperLinkSection = SuperLinkSection()
    fleet_api: FleetApiSection | None = None
    federation: FederationSection = FederationSection()
    rounds: RoundsSection = RoundsSection()
    gate: GateSection = GateSection()
    refresh: RefreshSection = RefreshSection()
    campaigns: CampaignsSection = CampaignsSection()
    metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Prometheus metrics and ``/healthz``; none unless given."""
    metrics_address: str = "127.0.0.1"

    @property
    def update_keys_path(self) -> Path:
        """Where the secret behind the nodes' update keys lies."""
        return self.update_key_file or self.key_file.with_name("update.key")

    @property
    def database(self) -> Path:
        """The store described in ``server/schema.sql``."""
        return self.state_dir / "server.db"
