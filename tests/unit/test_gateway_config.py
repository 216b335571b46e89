"""A gateway's configuration says what is wrong with it, by name."""

import json
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from gateway.cli import app
from gateway.config import GatewaySettings, NetworkServer, NoiseSection, Privacy
from gateway.store import Store
from gateway.supernode import supernode_command, supernode_environment
from shared_models.codes import Crop
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


def test_settings_are_asked_for_in_the_fields_own_words(tmp_path):
    runner, path, eui = CliRunner(), write(tmp_path), "00000000000000a1"
    options = ["--config", str(path), "--json", "--planting", "2026-05-01", "--dose-mm", "15", "--crop", "potato"]
    assert runner.invoke(app, ["settings", eui, *options]).exit_code == 2, "no store yet"
    with Store(tmp_path / "gateway.db") as store:
        store.configure(GatewaySettings.from_toml(path))
        answer = json.loads(runner.invoke(app, ["settings", eui.upper(), *options, "--utc-offset-min", "60"]).stdout)
        assert answer["settings"] == {
            "planting_time_s": int(datetime(2026, 5, 1, 5, tzinfo=UTC).timestamp()),
            "season": 2026,
            "dose_e1_mm": 150,
            "crop": Crop.POTATO,
            "utc_offset_min": 60,
        }
        row = store.one("SELECT * FROM commands WHERE id = ?", (answer["command"],))
        assert (row["action"], row["state"], row["actor"]) == ("settings.change", "new", "cli")
        assert json.loads(row["arguments"]) == {"dev_eui": eui, "settings": answer["settings"]}
        given = ["settings", eui, *options]
        elsewhere, nothing = ["settings", "00000000000000ff", *options], ["settings", eui, "--config", str(path)]
        for wrong in (elsewhere, nothing, [*given, "--dose-mm", "500"], [*given, "--crop", "weed"]):
            assert runner.invoke(app, wrong).exit_code == 2
        assert store.one("SELECT count(*) AS n FROM commands")["n"] == 1


def test_a_farm_that_knows_its_peers_has_a_key_they_can_know(tmp_path):
    base = {"site": "a", "store": tmp_path / "a.db", "network": NetworkServer(application="app"), "nodes": []}
    with pytest.raises(ValidationError, match=r"federation\.private_key is needed"):
        GatewaySettings(**base, privacy=Privacy(peers_file=tmp_path / "peers"))


def test_noise_is_shared_by_no_more_than_the_smallest_cohort():
    with pytest.raises(ValidationError, match="honest_members"):
        Privacy(noise=NoiseSection(epsilon=1.0, honest_members=4))
    assert Privacy(noise=NoiseSection(epsilon=1.0, honest_members=4), minimum_cohort=4).noise is not None
