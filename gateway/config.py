"""A gateway's configuration: one TOML file, ``NORIA_GATEWAY_…`` in the environment above it."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from shared_models.codes import Board, Crop
from shared_models.configuration import Broker, RoleSettings, Section
from shared_models.messages import DevEui, Site

TOPIC_LEVEL = r"^[^/+#\s]{1,64}$"


class NetworkServer(Section):
    """Where uplinks come from."""

    kind: Literal["chirpstack", "thethingsstack"] = "chirpstack"
    """ChirpStack v4 or The Things Stack v3."""
    application: Annotated[str, Field(pattern=TOPIC_LEVEL)]
    """ChirpStack's application id; for The Things Stack ``application@tenant``."""


class Node(Section):
    """One known node; uplinks of any other devEUI are refused."""

    dev_eui: DevEui
    name: Annotated[str, Field(min_length=1, max_length=64)]
    """The field's name."""
    crop: Literal["maize", "soybean", "potato", "dry_bean", "tomato", "sugar_beet", "sorghum", "wheat"]
    board: Literal["stm32l072", "stm32l432"]
    area_ha: Annotated[float, Field(gt=0, le=10_000)] = 1.0

    @field_validator("dev_eui", mode="before")
    @classmethod
    def _lower_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @property
    def crop_code(self) -> Crop:
        """The crop as a number."""
        return Crop[self.crop.upper()]

    @property
    def board_code(self) -> Board:
        """The board as a number."""
        return Board[self.board.upper()]


class DownlinkSection(Section):
    """How much may be said to the nodes."""

    window: Literal["rx1", "rx2"] = "rx1"
    """Where the network server sends first: RX1, on the uplink's own channel (1 % of the time), or RX2 on 869.525 MHz
    (10 %)."""
    airtime_s_per_hour: Annotated[float, Field(gt=0, le=3600)] | None = None
    """For this site's downlinks; left out, what the window's duty cycle allows one gateway: 36 s or 360 s. Less where
    others send through the same gateway."""
    queued: Annotated[int, Field(ge=1, le=10_000)] = 200
    """Downlinks of updates at the network server at once, one per node at most."""


class Federation(Section):
    """The Flower SuperNode this gateway runs as its child; leave the table out to take no part."""

    superlink: Annotated[str, Field(pattern=r"^[^\s:]+:\d{1,5}$|^\[[0-9a-fA-F:]+\]:\d{1,5}$")]
    """``host:port`` of the fleet API."""
    insecure: bool = False
    """No TLS; allowed on loopback only."""
    root_certificates: Path | None = None
    """The CA that signed the SuperLink's certificate."""
    private_key: Path | None = None
    """EC P-384 in OpenSSH format; ``noria gateway keygen`` makes one. The server must know its public half."""
    home: Path | None = None
    """``FLWR_HOME``; beside the store when left out."""
    deadline_s: Annotated[float, Field(ge=1, le=3600)] = 60.0
    """A ClientApp that has not answered by then ends itself; one that hung would block its SuperNode for good."""

    @model_validator(mode="after")
    def _encrypted_off_loopback(self) -> Self:
        host = self.superlink.rsplit(":", 1)[0].strip("[]")
        try:
            loopback = ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = host == "localhost"
        if self.insecure and not loopback:
            raise ValueError(f"insecure is allowed on loopback only, not towards {host}")
        if not self.insecure and self.root_certificates is None:
            raise ValueError("root_certificates is needed unless insecure = true on loopback")
        if not self.insecure and self.private_key is None:
            raise ValueError("private_key is needed unless insecure = true on loopback: noria gateway keygen")
        if self.insecure and (self.private_key is not None or self.root_certificates is not None):
            raise ValueError("insecure = true leaves no use for root_certificates and private_key")
        return self


class NoiseSection(Section):
    """Differential privacy of what leaves this farm; leave the table out to answer exactly."""

    epsilon: Annotated[float, Field(gt=0, le=1000)]
    """ε of all answers together, for one node with everything it ever sent."""
    delta: Annotated[float, Field(gt=0, lt=0.01)] = 1e-6
    answers: Annotated[int, Field(ge=1, le=100_000)] = 20
    """How many answers ε is for; when they are given, this farm answers no more."""
    clip_windows: Annotated[int, Field(ge=1, le=100_000)] = 20
    """Reference windows (:mod:`gateway.noise`) up to which a node counts fully."""
    honest_members: Annotated[int, Field(ge=1, le=1000)] = 1
    """Members of a cohort that surely add their noise and tell nobody; the noise is shared among so many. Sums sent in
    the clear always get all of it."""


class Privacy(Section):
    """When this farm's sums may leave it (invariant I7), and how well hidden."""

    minimum_contributors: Annotated[int, Field(ge=1)] = 3
    minimum_windows: Annotated[int, Field(ge=1)] = 10
    masking_required: bool = False
    """Answer under masks or not at all, whatever the server asks for."""
    minimum_cohort: Annotated[int, Field(ge=3, le=4096)] = 3
    """Sites, this one included, that must add up with this farm's sums before anybody sees a total."""
    peers_file: Path | None = None
    """SuperNode keys of other farms this one trusts to be farms: per line an OpenSSH public key (EC P-384) and the
    site. At least ``minimum_cohort`` members of a cohort, this farm included, must then have signed their keys. Without
    it a server that lies can make up the other members."""
    accept_changes: bool = False
    """Answer in a cohort that one or two sites have left or joined since this farm's last answers. The difference of
    the two totals then tells those sites' sums, as far as the others' have not changed meanwhile."""
    noise: NoiseSection | None = None

    @model_validator(mode="after")
    def _hidden_shares(self) -> Self:
        if self.noise is not None and self.noise.honest_members > self.minimum_cohort:
            raise ValueError("noise.honest_members: a cohort of minimum_cohort sites has no more members than that")
        return self


class GatewaySettings(RoleSettings):
    """Everything a gateway needs to know."""

    model_config = SettingsConfigDict(env_prefix="NORIA_GATEWAY_", env_nested_delimiter="__", extra="forbid")

    site: Site
    clock: Literal["system", "simulated"] = "system"
    utc_offset_min: Annotated[int, Field(ge=-720, le=840)] = 0
    """Local time, for days that run dawn to dawn."""
    store: Path
    broker: Broker = Broker()
    """The network server's broker."""
    server_broker: Broker | None = None
    """The Noria server's broker; the same as ``broker`` when left out."""
    network: NetworkServer
    downlinks: DownlinkSection = DownlinkSection()
    federation: Federation | None = None
    privacy: Privacy = Privacy()
    metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Prometheus metrics on loopback."""
    metrics_address: str = "127.0.0.1"
    retention_days: Annotated[int, Field(ge=7, le=36_500)] = 400
    """How long telemetry, events and uplink identities are kept; snapshots and daily roll-ups stay."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    nodes: Annotated[list[Node], Field(max_length=10_000)]

    @model_validator(mode="after")
    def _unique_nodes(self) -> Self:
        seen: set[str] = set()
        for node in self.nodes:
            if node.dev_eui in seen:
                raise ValueError(f"nodes: {node.dev_eui} is listed twice")
            seen.add(node.dev_eui)
        return self

    @model_validator(mode="after")
    def _one_order(self) -> Self:
        if self.clock == "simulated" and self.server_broker not in {None, self.broker}:
            raise ValueError("server_broker: a simulated clock needs one broker, for the order of its messages")
        return self

    @model_validator(mode="after")
    def _key_for_peers(self) -> Self:
        if self.privacy.peers_file is not None and (self.federation is None or self.federation.private_key is None):
            raise ValueError("privacy.peers_file: federation.private_key is needed, for others must know this farm too")
        return self

    @property
    def client_id(self) -> str:
        """The MQTT client id, and this service's name for the simulated clock."""
        return f"gateway-{self.site}"
