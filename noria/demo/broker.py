"""A private Mosquitto: own port on loopback, generated credentials, an access list per client."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from noria.demo.processes import ProcessError, Processes, accepts_connections, free_port
from shared_models import messages

NETWORK_SERVER = "network-server"
SERVER = "server"


@dataclass(frozen=True)
class PrivateBroker:
    """A running broker and where its clients find their passwords."""

    port: int
    password_files: Mapping[str, Path]


def gateway_client(site: str) -> str:
    """MQTT client id and user name of a site's gateway."""
    return f"gateway-{site}"


def access_list(applications: Mapping[str, str]) -> str:
    """Mosquitto's ACL file: every client sees what it works with and nothing else.

    Args:
        applications: network-server application id per site.
    """
    tick, tock = messages.tick_topic, messages.tock_topic
    lines = [
        f"user {NETWORK_SERVER}",
        "topic write application/+/device/+/event/+",
        "topic read application/+/device/+/command/down",
        f"topic write {tick('+')}",
        f"topic read {tock('+')}",
        "",
        f"user {SERVER}",
        f"topic write {messages.assignment_topic('+', '+')}",
        f"topic read {messages.progress_topic('+')}",
        f"topic read {messages.status_topic('+')}",
        f"topic read {tick(SERVER)}",
        f"topic write {tock(SERVER)}",
    ]
    for site, application in applications.items():
        client = gateway_client(site)
        lines += [
            "",
            f"user {client}",
            f"topic read application/{application}/device/+/event/+",
            f"topic write application/{application}/device/+/command/down",
            f"topic read {messages.assignment_topic(site, '+')}",
            f"topic write {messages.progress_topic(site)}",
            f"topic write {messages.status_topic(site)}",
            f"topic read {tick(client)}",
            f"topic write {tock(client)}",
        ]
    return "\n".join(lines) + "\n"


def mosquitto_binary() -> str:
    """Debian installs it in /usr/sbin, which is not on every user's PATH."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if not found:
        raise ProcessError("mosquitto is not installed: apt-get install mosquitto (or `make setup`)")
    return found


def start_broker(processes: Processes, directory: Path, applications: Mapping[str, str]) -> PrivateBroker:
    """Write configuration, credentials and ACL below ``directory`` and start Mosquitto.

    Raises:
        ProcessError: Mosquitto is missing or does not come up.
    """
    directory.mkdir(parents=True)
    clients: Sequence[str] = [NETWORK_SERVER, SERVER, *(gateway_client(site) for site in applications)]
    password_files = {}
    table = directory / "passwords"
    table.touch(mode=0o600)
    for client in clients:
        password = secrets.token_urlsafe(18)
        path = directory / f"{client}.password"
        path.touch(mode=0o600)
        path.write_text(password + "\n", encoding="utf-8")
        password_files[client] = path
    table.write_text(
        "".join(f"{client}:{password_files[client].read_text().strip()}\n" for client in clients), encoding="utf-8"
    )
    subprocess.run(["mosquitto_passwd", "-U", str(table)], check=True, capture_output=True)
    (directory / "acl").write_text(access_list(applications), encoding="utf-8")
    (directory / "acl").chmod(0o600)
    port = free_port()
    configuration = directory / "mosquitto.conf"
    # user: started as root, Mosquitto would otherwise change to a user that cannot read this directory.
    configuration.write_text(
        f"""listener {port} 127.0.0.1
allow_anonymous false
password_file {table}
acl_file {directory / "acl"}
persistence true
persistence_location {directory}/
autosave_interval 1
autosave_on_changes true
max_queued_messages 100000
max_inflight_messages 100
log_dest stdout
log_type error
log_type warning
user root
""",
        encoding="utf-8",
    )
    processes.start("mosquitto", [mosquitto_binary(), "-c", str(configuration)])
    processes.wait_until(lambda: accepts_connections(port), "mosquitto", "listening", timeout_s=15)
    return PrivateBroker(port, password_files)
