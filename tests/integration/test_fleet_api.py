"""The published fleet API on real parts: ``noria server run`` with its SuperLink, nginx, gateways with SuperNodes.

One deployment for the whole file, which its tests change one after the other. No broker is there; neither the
server nor the gateways need one for this.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import warnings
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto import control_pb2, fleet_pb2, node_pb2
from gateway_cases import NODES, START_S, free_port, snapshot, until

from gateway.config import GatewaySettings
from gateway.diagnosis import Finding, Standing, examine
from gateway.store import Store
from server import pki
from server.config import ServerSettings

START_TIMEOUT_S = 90.0
PROTOBUF = "application/protobuf"


class Deployment:
    """A server, its proxy, and gateways; every process in a group of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.superlink_port = free_port(), free_port()
        self.config = folder / "server.toml"
        self.config.write_text(
            f'state_dir = "{folder / "state"}"\nkey_file = "{folder / "key"}"\n[broker]\nport = {free_port()}\n'
            f"[superlink]\nport = {self.superlink_port}\n"
            f'[fleet_api]\nnames = ["localhost"]\ncertificates = "{folder / "pki"}"\nlisten = ["127.0.0.1"]\n'
            f"port = {self.port}\nrequests_per_s = 100\n"
            "[federation]\nminimum_sites = 2\nexpected_sites = 1\nwait_s = 30\nreply_timeout_s = 60\n"
        )
        self.settings = ServerSettings.from_toml(self.config)
        self.pki = pki.Pki(folder / "pki")
        self.processes: list[subprocess.Popen[bytes]] = []
        for command in ("keygen", "init", "fleet-ca"):
            self.noria("server", command)
        (folder / "proxy").mkdir()
        self.noria("server", "proxy", "--output", str(folder / "proxy" / "nginx.conf"))

    def noria(self, role: str, *arguments: str, config: Path | None = None, code: int = 0) -> str:
        """One command, in this process: what it prints."""
        from typer.testing import CliRunner

        import gateway.cli
        import server.cli

        app = server.cli.app if role == "server" else gateway.cli.app
        done = CliRunner().invoke(app, [*arguments, "--config", str(config or self.config)])
        assert done.exit_code == code, done.output
        return done.stdout

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FLWR_")}
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)
        self.processes.append(process)
        return process

    def start_nginx(self, folder: Path, port: int) -> None:
        nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
        assert nginx is not None, "nginx is missing: noria/bootstrap.sh test"
        as_root = ("-g", "user root;") if os.geteuid() == 0 else ()  # else it would drop to an account without access
        self.start(folder.name, nginx, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf"), *as_root)
        until(lambda: listens(port), "nginx listens")

    def another_proxy(self, name: str, **changes: str) -> int:
        """A second nginx, its configuration changed; its port."""
        folder, port = self.folder / name, free_port()
        folder.mkdir()
        text = (self.folder / "proxy" / "nginx.conf").read_text()
        for old, new in ({f":{self.port} ": f":{port} "} | changes).items():
            assert old in text
            text = text.replace(old, new)
        (folder / "nginx.conf").write_text(text)
        self.start_nginx(folder, port)
        return port

    def start_server(self) -> None:
        command = (sys.executable, "-m", "noria", "server", "run", "--config", str(self.config))
        self.server = self.start("server", *command)
        until(lambda: listens(self.superlink_port), "the SuperLink listens", START_TIMEOUT_S)

    def stop(self) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def rows(self, query: str, *arguments: object) -> list[dict]:
        with closing(sqlite3.connect(f"{self.settings.database.as_uri()}?mode=ro", uri=True, timeout=10)) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(query, arguments)]

    def nginx_log(self) -> str:
        return (self.folder / "proxy" / "access.log").read_text()


class Farm:
    """A gateway of this deployment."""

    def __init__(self, deployment: Deployment, name: str, site: str | None = None) -> None:
        self.deployment, self.name, self.site = deployment, name, site or name
        self.folder = deployment.folder / name
        self.folder.mkdir()
        self.key = self.folder / "supernode.key"
        self.config = self.folder / "gateway.toml"
        self.configure(deployment.port)

    def configure(self, port: int) -> None:
        nodes = "".join(
            f'[[nodes]]\ndev_eui = "{node}"\nname = "n"\ncrop = "maize"\nboard = "stm32l072"\n' for node in NODES[:3]
        )
        self.config.write_text(
            f'site = "{self.site}"\nstore = "{self.folder / "gateway.db"}"\n'
            f"[broker]\nport = {free_port()}\n"
            '[network]\napplication = "app"\n'
            f'[federation]\nsuperlink = "localhost:{port}"\nprivate_key = "{self.key}"\n'
            f'root_certificates = "{self.deployment.pki.ca.certificate}"\n' + nodes
        )

    def new_key(self) -> Path:
        self.deployment.noria("gateway", "keygen", config=self.config)
        return self.key.with_name(self.key.name + ".pub")

    def fill(self, backbone: int) -> None:
        settings = GatewaySettings.from_toml(self.config)
        with Store(settings.store) as store:
            store.configure(settings)
            for seed, dev_eui in enumerate(NODES[:3]):
                payload = snapshot(np.random.default_rng(seed), 8).encode()
                row = (dev_eui, backbone, START_S, payload)
                store.execute("INSERT INTO snapshots VALUES (?, ?, 2025, 1, 24, ?, ?)", row)

    def start(self, *wrapper: str) -> None:
        command = (sys.executable, "-m", "gateway", "run", "--config", str(self.config))
        self.process = self.deployment.start(self.name, *wrapper, *command)

    def stop(self) -> None:
        # The group: faketime is a parent of the gateway's. What the SuperNode started ends with the gateway.
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(30)

    def status(self) -> dict:
        return json.loads(self.deployment.noria("gateway", "status", "--json", config=self.config))

    def standing(self) -> str | None:
        if not (self.folder / "gateway.db").exists():
            return None
        with closing(sqlite3.connect(self.folder / "gateway.db", timeout=10)) as db, contextlib.suppress(sqlite3.Error):
            row = db.execute("SELECT value FROM meta WHERE key = 'supernode'").fetchone()
            return json.loads(row[0])["standing"] if row else None
        return None

    def until(self, standing: Standing) -> dict:
        until(lambda: self.standing() == standing, f"{self.name}: {standing}", START_TIMEOUT_S)
        return self.status()

    def log(self) -> str:
        return (self.deployment.folder / f"{self.name}.log").read_text()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    made = Deployment(tmp_path_factory.mktemp("fleet"))
    try:
        made.start_nginx(made.folder / "proxy", made.port)
        made.start_server()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def champion(deployment):
    """Registered by the operator, and connected."""
    farm = Farm(deployment, "champion")
    (backbone,) = (row["backbone_id"] for row in deployment.rows("SELECT backbone_id FROM releases"))
    farm.fill(backbone)
    public_key = farm.new_key()
    added = deployment.noria("server", "supernode", "add", "champion", "--public-key", str(public_key), "--json")
    assert json.loads(added)["superlink_knows"] is True
    farm.start()
    farm.until(Standing.CONNECTED)
    return farm


@pytest.fixture(scope="module")
def clone(deployment, champion):
    """Another machine with a copy of champion's key."""
    farm = Farm(deployment, "clone", "champion")
    shutil.copy(champion.key, farm.key)
    farm.start()
    return farm


@pytest.fixture(scope="module")
def stranger(deployment):
    """A farm whose key nobody registered."""
    farm = Farm(deployment, "tunis")
    farm.new_key()
    farm.start()
    return farm


@pytest.fixture(scope="module")
def late(deployment):
    """A registered farm whose clock is a quarter of an hour behind."""
    farm = Farm(deployment, "hyderabad")
    deployment.noria("server", "supernode", "add", "hyderabad", "--public-key", str(farm.new_key()))
    farm.start("faketime", "-f", "-900s")
    return farm


# What a stranger with the CA certificate can send


def converse(
    deployment: Deployment,
    request: bytes,
    port: int | None = None,
    *,
    alpn: list[str] | None = None,
    whole: bool = True,
) -> bytes:
    """Send bytes over TLS and read what comes back."""
    context = ssl.create_default_context(cafile=str(deployment.pki.ca.certificate))
    if alpn:
        context.set_alpn_protocols(alpn)
    address = ("127.0.0.1", port or deployment.port)
    with (
        socket.create_connection(address, 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as link,
    ):
        link.sendall(request)
        received = b""
        with contextlib.suppress(OSError):
            while chunk := link.recv(65536):
                received += chunk
                if not whole:
                    break
        return received


def request(
    target: str,
    body: bytes = b"",
    *,
    method: str = "POST",
    version: str = "HTTP/1.1",
    host: str = "localhost",
    headers: dict[str, str] | None = None,
) -> bytes:
    lines = [
        f"{method} {target} {version}",
        f"Host: {host}",
        "Connection: close",
        f"Content-Type: {PROTOBUF}",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def signed(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    timestamp = datetime.now(UTC).isoformat()
    signature = key.sign(timestamp.encode(), ec.ECDSA(hashes.SHA256()))
    return {
        "flwr-public-key": base64.b64encode(public).decode(),
        "flwr-timestamp": timestamp,
        "flwr-signature": base64.b64encode(signature).decode(),
    }


LIST_RUNS = control_pb2.ListRunsRequest().SerializeToString()
TRICKS = {
    "plain": ("/v1/control/list-runs", {}),
    "other APIs": ("/v1/runtime/acquire-task", {}),
    "documentation": ("/docs", {"method": "GET"}),
    "schema": ("/openapi.json", {"method": "GET"}),
    "register-node": ("/v1/fleet/register-node", {}),
    "unregister-node": ("/v1/fleet/unregister-node", {}),
    "two slashes": ("//v1/fleet/../control/list-runs", {}),
    "two slashes, call": ("//v1/control/list-runs", {}),
    "dots": ("/v1/fleet/../control/list-runs", {}),
    "dots after": ("/v1/control/list-runs/../../fleet/pull-messages", {}),
    "encoded dots": ("/v1/fleet/%2e%2e/control/list-runs", {}),
    "encoded dots, capitals": ("/v1/fleet/%2E%2E/control/list-runs", {}),
    "twice encoded dots": ("/v1/fleet/%252e%252e/control/list-runs", {}),
    "encoded slash": ("/v1/fleet/..%2fcontrol%2flist-runs", {}),
    "encoded slash after": ("/v1/control/list-runs%2f..%2f..%2ffleet%2fpull-messages", {}),
    "backslash": ("/v1/fleet/..\\control\\list-runs", {}),
    "encoded letters": ("/v1/%63ontrol/list-runs", {}),
    "encoded fleet letters": ("/v1/f%6ceet/pull-messages", {}),
    "dot segment": ("/v1/fleet/./pull-messages", {}),
    "path parameter": ("/v1/fleet/..;/control/list-runs", {}),
    "question mark": ("/v1/control/list-runs?/v1/fleet/pull-messages", {}),
    "encoded question mark": ("/v1/control/list-runs%3f/../../fleet/pull-messages", {}),
    "query": ("/v1/fleet/pull-messages?x=/v1/control/list-runs", {}),
    "fragment": ("/v1/control/list-runs#/../../fleet/pull-messages", {}),
    "zero byte": ("/v1/control/list-runs%00/../../fleet/pull-messages", {}),
    "capitals": ("/v1/Fleet/pull-messages", {}),
    "capital call": ("/v1/fleet/Pull-Messages", {}),
    "GET": ("/v1/fleet/pull-messages", {"method": "GET"}),
    "PUT": ("/v1/fleet/pull-messages", {"method": "PUT"}),
    "PATCH": ("/v1/control/list-runs", {"method": "PATCH"}),
    "OPTIONS": ("*", {"method": "OPTIONS"}),
    "CONNECT": ("127.0.0.1:8000", {"method": "CONNECT"}),
    "TRACE": ("/v1/fleet/pull-messages", {"method": "TRACE"}),
    "HTTP/1.0": ("/v1/control/list-runs", {"version": "HTTP/1.0"}),
    "HTTP/2 in plain": ("/v1/control/list-runs", {"version": "HTTP/2.0"}),
    "absolute": ("https://localhost/v1/control/list-runs", {}),
    "absolute, other host": ("http://127.0.0.1:8000/v1/control/list-runs", {}),
    "absolute, fleet in the host": ("https://localhost/v1/fleet/../control/list-runs", {}),
    "host names the SuperLink": ("/v1/control/list-runs", {"host": "127.0.0.1"}),
    "host holds a path": ("/v1/control/list-runs", {"host": "localhost/v1/fleet/"}),
    "empty host": ("/v1/control/list-runs", {"host": ""}),
    "method override": ("/v1/control/list-runs", {"headers": {"X-Original-URL": "/v1/fleet/pull-messages"}}),
    "rewritten": (
        "/v1/fleet/x",
        {"headers": {"X-Original-URL": "/v1/control/list-runs", "X-Rewrite-URL": "/v1/control"}},
    ),
    "two lengths": ("/v1/control/list-runs", {"headers": {"Transfer-Encoding": "chunked"}}),
}


def test_a_stranger_with_the_ca_certificate_reaches_the_control_api_by_no_path(deployment):
    """On the loopback the control API answers anyone; through the proxy not even its existence shows."""
    hole = converse(deployment, request("/v1/control/list-runs", LIST_RUNS), deployment.superlink_port)
    assert status_of(hole) == 200, "the control API asks nobody for anything: it must not be reachable"
    status = json.loads(deployment.noria("server", "status", "--json"))
    assert status["fleet_certificates_end"] == f"{pki.ends(deployment.pki):%Y-%m-%d}"
    flower_log = deployment.folder / "state" / "flower" / "flower.log"
    before = flower_log.stat().st_size
    for name, (target, changes) in TRICKS.items():
        answer = converse(deployment, request(target, LIST_RUNS, **changes))
        assert answer == b"" or status_of(answer) in (400, 404, 405, 505), (name, answer[:200])
    with flower_log.open("rb") as log:
        log.seek(before)
        heard = log.read().decode()
    assert "list-runs" not in heard, "none of it reached the SuperLink"
    # The proof that the same bytes would arrive if the path were allowed: the SuperLink itself answers, and refuses.
    allowed = converse(deployment, request("/v1/fleet/pull-messages"))
    assert status_of(allowed) == 401
    assert b"Invalid SuperNode authentication" in allowed


def test_a_stranger_cannot_smuggle_a_second_request(deployment):
    inner = request("/v1/control/list-runs", LIST_RUNS)
    for outer in (
        b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nContent-Length: %d\r\n\r\n"
        % len(inner),
        b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Length: 5\r\n\r\n0\r\n\r\n",
        b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
    ):
        statuses = [
            int(line.split()[1]) for line in converse(deployment, outer + inner).splitlines() if line[:5] == b"HTTP/"
        ]
        assert statuses, outer
        assert set(statuses) <= {400, 404, 415}, outer  # 415: the outer one alone, sent without a type


def test_http_2_is_not_spoken(deployment):
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    answer = converse(deployment, preface, alpn=["h2", "http/1.1"])
    assert answer == b"" or status_of(answer) in (400, 505)
    context = ssl.create_default_context(cafile=str(deployment.pki.ca.certificate))
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", deployment.port), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as link,
    ):
        assert link.selected_alpn_protocol() == "http/1.1"


def test_old_tls_and_large_bodies_are_refused(deployment):
    old = ssl.create_default_context(cafile=str(deployment.pki.ca.certificate))
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", deployment.port), 10) as plain, pytest.raises(ssl.SSLError):
        old.wrap_socket(plain, server_hostname="localhost")
    large = b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n"
    assert status_of(converse(deployment, large, whole=False)) == 413


def test_a_stranger_pulls_no_task_without_a_registered_key(deployment, champion):
    node_id = int(deployment.rows("SELECT node_id FROM supernodes WHERE site = 'champion'")[0]["node_id"])
    pull = fleet_pb2.PullMessagesRequest(node=node_pb2.Node(node_id=node_id)).SerializeToString()
    own = ec.generate_private_key(ec.SECP384R1())
    theirs = {**signed(own), "flwr-public-key": signed(_key(champion))["flwr-public-key"]}
    for name, headers in {"no key": {}, "an own key": signed(own), "their public key": theirs}.items():
        answer = converse(deployment, request("/v1/fleet/pull-messages", pull, headers=headers))
        assert status_of(answer) == 401, name
    public = own.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    joining = fleet_pb2.ActivateNodeRequest(public_key=public, heartbeat_interval=30.0).SerializeToString()
    answer = converse(deployment, request("/v1/fleet/activate-node", joining, headers=signed(own)))
    assert (status_of(answer), b'"code":2004' in answer) == (412, True)


def _key(farm: Farm) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_ssh_private_key(farm.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def test_nothing_of_the_server_listens_beyond_the_loopback(deployment, champion):
    server = psutil.Process(deployment.server.pid)
    family = [server, *server.children(recursive=True)]
    listening = [
        connection.laddr
        for process in family
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert deployment.superlink_port in {address.port for address in listening}
    assert {address.ip for address in listening} == {"127.0.0.1"}


# Those who may join, and those who must stay outside


def test_a_copied_key_is_noticed_and_a_round_counts_its_farm_once(deployment, champion, clone):
    status = clone.until(Standing.KEY_IN_USE)
    assert "another SuperNode is connected with this gateway's key" in status["federation"]["words"]
    outcome = json.loads(deployment.noria("server", "improve", "--json"))
    replies = deployment.rows("SELECT site, verdict, reason FROM replies WHERE round = ?", outcome["round"])
    assert replies == [{"site": "champion", "verdict": "accepted", "reason": ""}]
    (row,) = deployment.rows("SELECT * FROM rounds WHERE id = ?", outcome["round"])
    assert (row["asked"], row["accepted"], row["contributors"], row["windows"]) == (1, 1, 3, 72)
    assert "POST /v1/fleet/push-messages" in deployment.nginx_log()
    assert (champion.standing(), clone.standing()) == (Standing.CONNECTED, Standing.KEY_IN_USE)
    assert json.loads(deployment.noria("server", "supernode", "list", "--json"))["supernodes"][0]["site"] == "champion"
    clone.stop()


def test_a_wrong_clock_is_said_in_words(stranger, late):
    status = late.until(Standing.CLOCK)
    words = status["federation"]["words"]
    assert int(words.removeprefix("this gateway's clock is ").split()[0]) in range(895, 906)
    assert " s behind the server's (" in words
    assert status["counters"]["supernode.clock"] >= 1
    # The very reason for this: Flower called it a success.
    until(lambda: "the SuperNode ended with exit code 0" in late.log(), "Flower's own verdict")


def test_an_unregistered_supernode_is_refused_joins_when_registered_and_is_cut_off_when_revoked(deployment, stranger):
    status = stranger.until(Standing.NOT_REGISTERED)
    assert "the server does not know this gateway's key" in status["federation"]["words"]
    assert status["counters"]["supernode.not_registered"] >= 1
    assert "federation: not_registered: the server does not know this gateway's key" in stranger.log()

    public_key = str(stranger.key.with_name("supernode.key.pub"))
    deployment.noria("server", "supernode", "add", "tunis", "--public-key", public_key)
    stranger.until(Standing.CONNECTED)

    revoked = json.loads(deployment.noria("server", "supernode", "revoke", "tunis", "--json"))
    assert revoked["superlink_knows"] is True
    status = stranger.until(Standing.REVOKED)
    assert "revoked" in status["federation"]["words"]
    audit = deployment.rows("SELECT action, outcome FROM audit WHERE subject = 'site tunis' ORDER BY id")
    assert [row["action"] for row in audit] == [
        *("supernode.add", "supernode.registered"),
        *("supernode.revoke", "supernode.unregistered"),
    ]
    again = deployment.noria("server", "supernode", "add", "tunis", "--public-key", public_key, "--json", code=1)
    assert "was revoked; make a new one" in json.loads(again)["message"]
    stranger.stop()


# What goes wrong on the way


def test_a_flood_from_one_address_is_held_back(deployment, champion):
    port = deployment.another_proxy("narrow", **{"rate=100r/s": "rate=1r/s", "burst=1000 ": "burst=10 "})
    statuses = [status_of(converse(deployment, request("/v1/fleet/pull-messages"), port)) for _ in range(30)]
    assert statuses[:11] == [401] * 11
    assert statuses.count(503) >= 10
    federation = GatewaySettings.from_toml(champion.config).federation.model_copy(
        update={"superlink": f"localhost:{port}"}
    )
    assert examine(federation, admitted=True, refused=False).standing is Standing.BUSY


def test_each_obstacle_on_the_way_is_named(deployment, champion, tmp_path):
    good = GatewaySettings.from_toml(champion.config).federation
    other_ca = pki.create(tmp_path / "pki", ["localhost"])

    def found(**changes) -> Finding:
        return examine(good.model_copy(update=changes), admitted=True, refused=False)

    assert found().standing is Standing.ENDED
    assert found(superlink=f"localhost:{free_port()}").standing is Standing.UNREACHABLE
    assert "cannot be resolved" in found(superlink="nowhere.invalid:443").words
    wrong = found(root_certificates=other_ca.ca.certificate)
    assert wrong.standing is Standing.CERTIFICATE
    assert "self-signed" in wrong.words or "issuer" in wrong.words
    named = found(superlink=f"127.0.0.1:{deployment.port}")
    assert named.standing is Standing.CERTIFICATE
    assert "127.0.0.1" in named.words
    assert found(root_certificates=tmp_path / "none.pem").standing is Standing.CERTIFICATE
    assert found(private_key=tmp_path / "none.key").standing is Standing.KEY_FILE
    assert champion.standing() == Standing.CONNECTED, "asking changed nothing"


def test_a_supernode_that_only_half_lives_is_noticed_and_started_again(deployment, late):
    """An unexpected answer to a heartbeat ends Flower's heartbeat thread for good: no round would ask it again."""
    late.stop()
    spoiled = "location = /v1/fleet/send-node-heartbeat { return 500; }\nlocation / {"
    port = deployment.another_proxy("spoiled", **{"location / {": spoiled})
    late.configure(port)
    late.start()
    status = late.until(Standing.ENDED)
    assert "the SuperNode broke down (" in status["federation"]["words"]
    assert "500 Internal Server Error" in status["federation"]["words"]
    until(lambda: late.log().count("SuperNode ID: ") == 2, "started again", START_TIMEOUT_S)
    late.stop()


def test_a_superlink_that_lost_everything_is_told_the_keys_again_and_farms_come_back(deployment, champion):
    before = deployment.rows("SELECT node_id FROM supernodes WHERE site = 'champion'")[0]["node_id"]
    flower = deployment.folder / "state" / "flower"
    for path in flower.glob("superlink.db*"):
        path.unlink()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "flower-superlink" in " ".join(process.cmdline()) and str(flower) in " ".join(process.cmdline()):
                process.kill()

    def known_anew():
        (row,) = deployment.rows("SELECT node_id FROM supernodes WHERE site = 'champion'")
        return row["node_id"] not in (None, before)

    until(known_anew, "registered again", START_TIMEOUT_S)
    until(lambda: champion.log().count("SuperNode ID: ") == 2, "joined again", START_TIMEOUT_S)
    champion.until(Standing.CONNECTED)
    brought = deployment.rows(
        "SELECT actor FROM audit WHERE action = 'supernode.registered' AND subject = 'site champion'"
    )
    assert brought == [{"actor": "server"}, {"actor": "server"}]
    assert deployment.rows("SELECT node_id FROM supernodes WHERE site = 'tunis'") == [{"node_id": None}], (
        "stays revoked"
    )


def test_a_superlink_that_is_down_behind_the_proxy_is_told_from_an_unreachable_one(deployment, champion):
    deployment.server.send_signal(signal.SIGTERM)
    deployment.server.wait(30)
    federation = GatewaySettings.from_toml(champion.config).federation
    assert examine(federation, admitted=True, refused=False).standing is Standing.SUPERLINK_DOWN
    champion.until(Standing.SUPERLINK_DOWN)
