"""The console script: every job has help, and a mistake is answered with what to do."""

import json
import subprocess
import sys

import pytest

from noria.cli import LAZY_COMMANDS
from noria.demo.broker import access_list


def noria(*arguments, timeout_s=60):
    return subprocess.run(
        [sys.executable, "-m", "noria", *arguments], capture_output=True, text=True, timeout=timeout_s, check=False
    )


@pytest.mark.parametrize("command", [[], *([name] for name in LAZY_COMMANDS)])
def test_every_command_has_help(command):
    answer = noria(*command, "--help")
    assert answer.returncode == 0
    assert "Usage" in answer.stdout


def test_doctor_says_what_it_found_and_how_to_mend_what_is_missing():
    answer = noria("doctor", "--json")
    report = json.loads(answer.stdout)
    assert report["healthy"] == (answer.returncode == 0)
    assert {"mosquitto", "arm-none-eabi-gcc", "flwr"} <= {finding["what"] for finding in report["findings"]}
    assert all(finding["remedy"] for finding in report["findings"] if not finding["ok"])


def test_a_scenario_with_an_unknown_key_is_refused_with_its_name(tmp_path):
    path = tmp_path / "scenario.toml"
    path.write_text('name = "x"\nseeed = 1\n')
    answer = noria("demo", "--headless", "--scenario", str(path))
    assert answer.returncode == 2
    assert "seeed: unknown key" in answer.stdout


def test_the_demo_does_not_write_into_an_existing_directory(tmp_path):
    answer = noria("demo", "--headless", "--keep", str(tmp_path))
    assert answer.returncode == 2
    assert "--keep needs a new directory" in " ".join(answer.stdout.split())


def test_a_gateway_sees_its_own_application_and_site_only():
    acl = access_list({"champion": "app-1", "tunis": "app-2"})
    champion = acl.split("user gateway-champion\n")[1].split("\n\n")[0]
    assert "app-1" in champion
    assert "sites/champion/" in champion
    assert "app-2" not in champion
    assert "tunis" not in champion
