"""The SuperNode's key file, and what is remembered and shown of the gateway's place in the federation."""

import json
import stat
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from test_gateway_config import GOOD, write
from typer.testing import CliRunner

from gateway import diagnosis, keys
from gateway.cli import app
from gateway.clock import Clock
from gateway.config import GatewaySettings
from gateway.diagnosis import Finding, Standing
from gateway.membership import Journal, read
from gateway.metrics import StoreCollector
from gateway.store import Store, open_read_only
from shared_models.configuration import ConfigurationError

CA = 'root_certificates = "/etc/noria/ca.pem"'


def keyed(tmp_path) -> Path:
    return write(tmp_path, GOOD.replace("insecure = true", f'{CA}\nprivate_key = "{tmp_path}/supernode.key"'))


def test_keygen_makes_what_flower_reads_once(tmp_path):
    from cryptography.hazmat.primitives.serialization.ssh import load_ssh_private_key

    config, runner = keyed(tmp_path), CliRunner()
    made = runner.invoke(app, ["keygen", "--config", str(config), "--json"])
    facts = json.loads(made.stdout)
    path = tmp_path / "supernode.key"
    assert isinstance(load_ssh_private_key(path.read_bytes(), None), ec.EllipticCurvePrivateKey)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.with_name("supernode.key.pub").read_text() == facts["public_key"] + "\n"
    assert facts["public_key"].startswith("ecdsa-sha2-nistp384 ")
    assert facts["public_key"].endswith(" noria-champion")
    again = runner.invoke(app, ["keygen", "--config", str(config)])
    assert again.exit_code == 2
    assert "exists" in again.output
    assert runner.invoke(app, ["check-config", "--config", str(config)]).exit_code == 0
    path.chmod(0o640)
    refused = runner.invoke(app, ["check-config", "--config", str(config)])
    assert (refused.exit_code, "must not be readable by others" in refused.output) == (2, True)


def test_keygen_without_a_place_for_the_key_says_what_is_missing(tmp_path):
    done = CliRunner().invoke(app, ["keygen", "--config", str(write(tmp_path))])
    assert (done.exit_code, "federation.private_key" in done.output) == (2, True)


@pytest.mark.parametrize(
    ("table", "named"),
    [
        (CA, "private_key is needed unless insecure"),
        ('private_key = "/etc/noria/key"', "root_certificates is needed unless insecure"),
        (f"insecure = true\n{CA}", "insecure = true leaves no use"),
    ],
)
def test_half_a_configuration_is_refused(tmp_path, table, named):
    with pytest.raises(ConfigurationError, match=named):
        GatewaySettings.from_toml(write(tmp_path, GOOD.replace("insecure = true", table)))


def write_key(path, key, form):
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    path.chmod(0o600)


def test_keys_flower_refuses_are_refused_first(tmp_path):
    path = tmp_path / "key"
    write_key(path, ec.generate_private_key(ec.SECP384R1()), serialization.PrivateFormat.PKCS8)
    with pytest.raises(keys.KeyFileError, match="OpenSSH"):
        keys.load(path)
    write_key(path, ec.generate_private_key(ec.SECP256R1()), serialization.PrivateFormat.OpenSSH)
    with pytest.raises(keys.KeyFileError, match="P-384"):
        keys.load(path)
    with pytest.raises(keys.KeyFileError, match="noria gateway keygen"):
        keys.load(tmp_path / "none")


def test_our_own_question_is_what_flower_would_send():
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE
    from flwr.proto.fleet_pb2 import ActivateNodeRequest
    from flwr.supercore.error import ApiErrorCode

    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert diagnosis.activation(pem) == ActivateNodeRequest(public_key=pem, heartbeat_interval=0).SerializeToString()
    assert diagnosis.AHEAD_LIMIT_S == SYSTEM_TIME_TOLERANCE
    assert diagnosis.BEHIND_LIMIT_S == TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE
    assert diagnosis.INVALID_HEARTBEAT_INTERVAL == ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL
    assert diagnosis.ACTIVATION_FAILED == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED


def test_how_it_stands_is_kept_counted_and_shown_everywhere(tmp_path):
    settings = GatewaySettings.from_toml(write(tmp_path))
    with Store(settings.store) as store:
        store.configure(settings)
        journal = Journal(store, Clock("simulated", 1_748_736_000))
        assert not journal.was_admitted("SHA256:one")
        journal.note(Finding(Standing.STARTING, "starts"))
        journal.note(Finding(Standing.CONNECTED, "connected"))
        journal.admitted("SHA256:one")
        assert journal.was_admitted("SHA256:one")
        assert not journal.was_admitted("SHA256:two"), "a new key was never let in"
        for _ in range(3):
            journal.note(Finding(Standing.CLOCK, "this gateway's clock is 900 s behind"))
    with closing(open_read_only(settings.store)) as db:
        assert read(db) == {
            "standing": "clock",
            "words": "this gateway's clock is 900 s behind",
            "since_s": 1_748_736_000,
        }
    runner = CliRunner()
    shown = runner.invoke(app, ["status", "--config", str(tmp_path / "gateway.toml")])
    assert "clock: this gateway's clock is 900 s behind" in " ".join(shown.stdout.split())
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in StoreCollector(settings.store).collect()
        for sample in metric.samples
    }
    assert found["noria_gateway_supernode_connected",] == 0
    assert found["noria_gateway_supernode_problems_total", "clock"] == 3
    assert ("noria_gateway_messages_total", "supernode.clock") not in found


def test_a_gateway_that_takes_no_part_shows_nothing_of_it(tmp_path):
    settings = GatewaySettings.from_toml(write(tmp_path))
    with Store(settings.store) as store:
        store.configure(settings)
    names = {metric.name for metric in StoreCollector(settings.store).collect()}
    assert "noria_gateway_supernode_connected" not in names
