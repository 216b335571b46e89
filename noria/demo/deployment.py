"""Writes what an installer would write on a farm and at the fleet's office: configuration, keys, credentials."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from nodes.scenario import FarmPlan, Scenario
from noria.demo.broker import SERVER, PrivateBroker, gateway_client
from noria.demo.processes import free_port

NORIA = (sys.executable, "-m", "noria")
CALENDAR_MM = 25.0
CALENDAR_DAYS = 5
MINIMUM_CONTRIBUTORS = 2
"""Nodes behind a farm's sums before they leave it (invariant I7); the demo's farms are small."""


def minimum_contributors(scenario: Scenario) -> int:
    """As many as the smallest farm of the scenario can give, at most :data:`MINIMUM_CONTRIBUTORS`."""
    return min(MINIMUM_CONTRIBUTORS, *(len(farm.nodes) for farm in scenario.farms))


@dataclass(frozen=True)
class Deployment:
    """Where everything of one run lives."""

    directory: Path
    superlink_port: int
    dashboard_port: int

    @property
    def server_config(self) -> Path:
        """The server's TOML."""
        return self.directory / "server.toml"

    @property
    def server_state(self) -> Path:
        """The server's state directory."""
        return self.directory / "server"

    @property
    def server_store(self) -> Path:
        """The server's SQLite store."""
        return self.server_state / "server.db"

    @property
    def dashboard_config(self) -> Path:
        """The dashboard's TOML."""
        return self.directory / "dashboard.toml"

    @property
    def key_file(self) -> Path:
        """The operator's signing key."""
        return self.directory / "operator.key"

    def gateway_config(self, site: str) -> Path:
        """A gateway's TOML."""
        return self.directory / f"gateway-{site}.toml"

    def gateway_store(self, site: str) -> Path:
        """A gateway's SQLite store."""
        return self.directory / f"gateway-{site}.db"


def operator_secret(seed: int, purpose: str) -> bytes:
    """The demo's keys come from the season's seed, so that every byte on the air can be reproduced.

    A real operator's come from the operating system: ``noria server keygen``.
    """
    return blake2b(f"noria demo {purpose} {seed}".encode(), digest_size=32).digest()


def _broker_table(name: str, broker: PrivateBroker, client: str) -> str:
    return (
        f'[{name}]\nhost = "127.0.0.1"\nport = {broker.port}\n'
        f'username = "{client}"\npassword_file = "{broker.password_files[client]}"\n'
    )


def gateway_toml(deployment: Deployment, scenario: Scenario, farm: FarmPlan, broker: PrivateBroker) -> str:
    """One gateway's configuration."""
    lines = [
        f'site = "{farm.site}"',
        'clock = "simulated"',
        f"utc_offset_min = {farm.utc_offset_min}",
        f'store = "{deployment.gateway_store(farm.site)}"',
        "",
        _broker_table("broker", broker, gateway_client(farm.site)),
        "[network]",
        'kind = "chirpstack"',
        f'application = "{farm.application_id}"',
        "",
        "[federation]",
        f'superlink = "127.0.0.1:{deployment.superlink_port}"',
        "insecure = true",
        f'home = "{deployment.directory / f"flower-{farm.site}"}"',
        "",
        "[privacy]",
        f"minimum_contributors = {minimum_contributors(scenario)}",
        "minimum_windows = 1",
    ]
    for node in farm.nodes:
        lines += [
            "",
            "[[nodes]]",
            f'dev_eui = "{node.dev_eui}"',
            f'name = "{node.name}"',
            f'crop = "{node.crop.name.lower()}"',
            f'board = "{node.board.name.lower()}"',
            "area_ha = 1.0",
        ]
    return "\n".join(lines) + "\n"


def server_toml(deployment: Deployment, scenario: Scenario, broker: PrivateBroker) -> str:
    """The server's configuration."""
    return f"""state_dir = "{deployment.server_state}"
key_file = "{deployment.key_file}"
clock = "simulated"

{_broker_table("broker", broker, SERVER)}
[superlink]
port = {deployment.superlink_port}

[federation]
minimum_sites = 2
expected_sites = {len(scenario.farms)}
minimum_contributors = {minimum_contributors(scenario)}
minimum_windows = 1
"""


def dashboard_toml(deployment: Deployment, scenario: Scenario) -> str:
    """The dashboard's configuration."""
    farms = "".join(
        f'\n[[farms]]\nsite = "{farm.site}"\nstore = "{deployment.gateway_store(farm.site)}"\n'
        f"season_start = {scenario.planting_date()}\n"
        for farm in scenario.farms
    )
    return f"""title = "Noria demo season"
clock = "simulated"
port = {deployment.dashboard_port}
refresh_s = 2.0
server_store = "{deployment.server_store}"

[calendar]
dose_mm = {CALENDAR_MM}
every_days = {CALENDAR_DAYS}
{farms}"""


def write_deployment(directory: Path, scenario: Scenario, broker: PrivateBroker) -> Deployment:
    """Write every role's TOML below ``directory``."""
    deployment = Deployment(directory, free_port(), free_port())
    for farm in scenario.farms:
        deployment.gateway_config(farm.site).write_text(
            gateway_toml(deployment, scenario, farm, broker), encoding="utf-8"
        )
    deployment.server_config.write_text(server_toml(deployment, scenario, broker), encoding="utf-8")
    deployment.dashboard_config.write_text(dashboard_toml(deployment, scenario), encoding="utf-8")
    return deployment
