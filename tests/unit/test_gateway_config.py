"""A gateway's configuration says what is wrong with it, by name."""

import json

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.config import GatewaySettings
from gateway.supernode import supernode_command, supernode_environment
from shared_models.configuration import ConfigurationError

GOOD = """
site = "champion"
store = "{store}"
[broker]
port = 1884
[network]
application = "5f1c1f6e-0000-4000-8000-000000000001"
[federation]
superlink = "127.0.0.1:9092"
insecure = true
[[nodes]]
dev_eui = "00000000000000A1"
name = "north"
crop = "maize"
board = "stm32l072"
"""


def write(tmp_path, text=GOOD, **replace):
    for old, new in replace.items():
        text = text.replace(old, new)
    path = tmp_path / "gateway.toml"
    path.write_text(text.format(store=tmp_path / "gateway.db"))
    return path


def test_a_good_file_is_read_and_the_environment_goes_above_it(tmp_path, monkeypatch):
    monkeypatch.setenv("NORIA_GATEWAY_BROKER__PORT", "1999")
    settings = GatewaySettings.from_toml(write(tmp_path))
    assert settings.broker.port == 1999
    assert settings.nodes[0].dev_eui == "00000000000000a1"
    assert settings.client_id == "gateway-champion"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({'crop = "maize"': 'crop = "weed"'}, "nodes.0.crop"),
        ({"port = 1884": "prot = 1884"}, "broker.prot: unknown key"),
        ({'site = "champion"': 'site = "Champion!"'}, "site"),
        ({"127.0.0.1:9092": "farm.example:9092"}, "insecure is allowed on loopback only"),
        ({"insecure = true": ""}, "root_certificates is needed"),
        ({'application = "5f1c1f6e': 'application = "+/5f1c1f6e'}, "network.application"),
        ({'site = "champion"': 'site = "champion"\nclock = "simulated"\nserver_broker = {{port = 1}}'}, "one broker"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, change, named):
    with pytest.raises(ConfigurationError, match=named.replace(".", r"\.")):
        GatewaySettings.from_toml(write(tmp_path, **change))


def test_a_node_listed_twice_is_refused(tmp_path):
    node = GOOD[GOOD.index("[[nodes]]") :]
    with pytest.raises(ConfigurationError, match="listed twice"):
        GatewaySettings.from_toml(write(tmp_path, GOOD + node))


def test_the_supernode_is_told_where_the_store_is_and_nothing_of_the_callers_flower(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", "/somewhere/else")
    settings = GatewaySettings.from_toml(write(tmp_path))
    command = supernode_command(settings, settings.federation, 9999)
    assert f'store="{tmp_path / "gateway.db"}" site="champion"' in command[command.index("--node-config") + 1]
    assert "--insecure" in command
    environment = supernode_environment(settings, settings.federation)
    assert environment["FLWR_HOME"] == str(tmp_path / "flower")
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"


def test_the_command_line_checks_and_reports(tmp_path):
    runner, path = CliRunner(), write(tmp_path)
    checked = runner.invoke(app, ["check-config", "--config", str(path), "--json"])
    assert json.loads(checked.stdout)["nodes"] == 1
    missing = runner.invoke(app, ["status", "--config", str(path)])
    assert missing.exit_code == 2
    wrong = runner.invoke(app, ["check-config", "--config", str(write(tmp_path, **{"port = 1884": 'port = "x"'}))])
    assert wrong.exit_code == 2
