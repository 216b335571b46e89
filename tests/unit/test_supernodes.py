"""Which keys may join: one per site, none twice, whatever order things are asked in; and what replies may claim."""

import json
from contextlib import closing

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from gateway import keys
from server import commands, store, supernodes
from server.config import CampaignsSection
from server.supernodes import Alignment, Node, SuperNodeError, read_public_key


@pytest.fixture
def connection(tmp_path):
    store.create(tmp_path / "server.db")
    with closing(store.connect(tmp_path / "server.db")) as opened:
        yield opened


def new_key(tmp_path, name="supernode.key"):
    return keys.generate(tmp_path / name, "noria-test")


def add(connection, site, line, now_s=100):
    return supernodes.add(connection, "ada", {"site": site, "public_key": line}, now_s)


def revoke(connection, site, now_s=200):
    return supernodes.revoke(connection, "bob", {"site": site}, now_s)


def audit(connection):
    return [tuple(row) for row in connection.execute("SELECT time_s, actor, action, subject, outcome FROM audit")]


def test_gateway_and_server_read_the_same_key_alike(tmp_path):
    line = new_key(tmp_path)
    key = keys.load(tmp_path / "supernode.key")
    found = read_public_key((tmp_path / "supernode.key.pub").read_text())
    assert found.fingerprint == keys.fingerprint(key)
    assert line == f"{found.line} noria-test"
    assert serialization.load_pem_public_key(found.pem) == key.public_key()


def test_a_site_has_one_key_and_a_key_is_used_once(tmp_path, connection):
    first, second = new_key(tmp_path, "a"), new_key(tmp_path, "b")
    added = add(connection, "champion", first)
    with pytest.raises(SuperNodeError, match="site champion has this key already"):
        add(connection, "champion", first)
    with pytest.raises(SuperNodeError, match=r"site champion has another key already .* revoke it first"):
        add(connection, "champion", second)
    with pytest.raises(SuperNodeError, match="is site champion's"):
        add(connection, "tunis", first)
    assert supernodes.wanted(connection) == {read_public_key(first).pem: "champion"}
    assert revoke(connection, "champion")["fingerprint"] == added["fingerprint"]
    assert supernodes.wanted(connection) == {}
    for site in ("champion", "tunis"):
        with pytest.raises(SuperNodeError, match="belonged to site champion and was revoked"):
            add(connection, site, first)
    with pytest.raises(SuperNodeError, match="champion has no valid key"):
        revoke(connection, "champion")
    add(connection, "champion", second, 300)
    assert audit(connection) == [
        (100, "ada", "supernode.add", "site champion", "done"),
        (200, "bob", "supernode.revoke", "site champion", "done"),
        (300, "ada", "supernode.add", "site champion", "done"),
    ]


def other_keys():
    def line(key):
        return (
            key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
        )

    p384 = ec.generate_private_key(ec.SECP384R1())
    pem = p384.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    private = p384.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return {
        "P-256": line(ec.generate_private_key(ec.SECP256R1())),
        "Ed25519": line(ed25519.Ed25519PrivateKey.generate()),
        "PEM": pem.decode(),
        "a private key": private.decode(),
        "cut short": line(p384)[:-20],
        "two lines": f"{line(p384)}\n{line(p384)}",
        "empty": "",
        "too long": "ecdsa-sha2-nistp384 " + "A" * 5000,
        "not ASCII": "ecdsa-sha2-nistp384 ÄÖÜ",
    }


@pytest.mark.parametrize("kind", other_keys())
def test_anything_but_a_p384_public_key_is_refused_in_words(connection, kind):
    with pytest.raises(SuperNodeError, match=r"not a public key|not an EC P-384|too long"):
        add(connection, "champion", other_keys()[kind])


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        ("supernode.add", {}),
        ("supernode.add", {"site": "champion"}),
        ("supernode.add", {"site": "champion", "public_key": 7}),
        ("supernode.add", {"site": "../etc", "public_key": "x"}),
        ("supernode.add", {"site": "champion", "public_key": "x", "force": True}),
        ("supernode.revoke", {"site": ["champion"]}),
        ("supernode.revoke", {"site": "Champion; DROP TABLE supernodes"}),
    ],
)
def test_a_malformed_command_changes_nothing(connection, action, arguments):
    number = commands.submit(connection, "mallory", action, arguments, 1)
    (row,) = connection.execute("SELECT * FROM commands WHERE id = ?", (number,))
    with pytest.raises(commands.CommandError):
        commands.carry_out(connection, commands.read(row), 1, CampaignsSection())
    assert not connection.execute("SELECT * FROM supernodes").fetchall()


def test_what_the_superlink_did_is_written_down_and_audited(tmp_path, connection):
    lines = {site: new_key(tmp_path, site) for site in ("champion", "tunis", "hyderabad")}
    for site, line in lines.items():
        add(connection, site, line)
    revoke(connection, "tunis")
    pems = {site: read_public_key(line).pem for site, line in lines.items()}
    stray = read_public_key(new_key(tmp_path, "stray")).pem
    done = Alignment(
        nodes={
            pems["champion"]: Node(2**64 - 3, "online"),
            pems["tunis"]: Node(5, "unregistered"),
            pems["hyderabad"]: Node(6, "unregistered"),
            stray: Node(7, "unregistered"),
        },
        registered=[pems["champion"]],
        unregistered=[pems["tunis"], stray],
        refused={pems["hyderabad"]: "was unregistered by hand"},
    )
    supernodes.record(connection, done, 500)
    supernodes.record(connection, Alignment(done.nodes, refused=done.refused), 600)
    assert [row[1:] for row in audit(connection) if row[0] >= 500] == [
        ("server", "supernode.registered", "site hyderabad", "failed"),
        ("server", "supernode.registered", "site champion", "done"),
        ("server", "supernode.unregistered", "site tunis", "done"),
        ("server", "supernode.unregistered", "a key the store does not know", "done"),
    ]
    assert supernodes.sites_by_node(connection) == {2**64 - 3: "champion", 6: "hyderabad"}


def test_a_command_reaches_the_store_through_the_row_the_cli_writes(tmp_path, connection):
    line = new_key(tmp_path)
    number = commands.submit(connection, "ada", "supernode.add", {"site": "champion", "public_key": line}, 1)
    (row,) = connection.execute("SELECT * FROM commands WHERE id = ?", (number,))
    result = commands.carry_out(connection, commands.read(row), 1, CampaignsSection())
    assert json.loads(store.dumps(result))["message"].startswith("site champion: the SuperNode with key SHA256:")
