"""A scenario is refused by the key that is wrong, and everything drawn follows from its names and seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodes.scenario import Scenario, ScenarioError, load_scenario
from shared_models.codes import Board, Crop

SCENARIOS = Path(__file__).parents[2] / "noria" / "scenarios"
MINIMAL = """
name = "one"
seed = 1
start = 2001-05-01
days = 20
[[farms]]
site = "champion"
climate = "champion"
application_id = "6f0d3c0e-52a1-4c7e-9d0b-0a51c7a20001"
[[farms.nodes]]
name = "a"
dev_eui = "0000000000000001"
board = "stm32l072"
crop = "dry_bean"
soil = "loam"
"""


def refused(tmp_path: Path, text: str) -> str:
    path = tmp_path / "scenario.toml"
    path.write_text(text)
    with pytest.raises(ScenarioError) as error:
        load_scenario(path)
    assert str(path) in str(error.value)
    return str(error.value)


def test_the_demo_is_eight_nodes_on_two_farms_for_one_season() -> None:
    demo = load_scenario(SCENARIOS / "demo.toml")
    nodes = [node for farm in demo.farms for node in farm.nodes]
    assert [farm.climate for farm in demo.farms] == ["champion", "tunis"]
    assert sum(node.board is Board.STM32L072 for node in nodes) == 6
    assert sum(node.board is Board.STM32L432 for node in nodes) == 2
    for node in nodes:
        assert demo.commissioning_days + node.season_length_days <= demo.days


def test_the_small_scenario_is_short() -> None:
    small = load_scenario(SCENARIOS / "small.toml")
    assert small.days <= 65
    assert [len(farm.nodes) for farm in small.farms] == [2, 1]


def test_a_minimal_scenario_reads(tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    path.write_text(MINIMAL)
    scenario = load_scenario(path)
    farm = scenario.farms[0]
    assert farm.nodes[0].crop is Crop.DRY_BEAN
    assert scenario.planting_time_s(farm) - scenario.start_time_s == 8 * 86_400
    assert scenario.with_seed(9).seed == 9
    assert scenario.with_seed(9).farms == scenario.farms


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('soil = "loam"', 'soil = "loam"\ncolour = "red"', "farms.0.nodes.0.colour: unknown key"),
        ("seed = 1", "seed = 1\nspeed = 2", "speed: unknown key"),
        ('crop = "dry_bean"', 'crop = "banana"', "farms.0.nodes.0.crop: "),
        ('soil = "loam"', 'soil = "cheese"', "farms.0.nodes.0.soil: "),
        ('soil = "loam"', 'soil = "loam"\ndata_rate = 6', "farms.0.nodes.0.data_rate: "),
        ('board = "stm32l072"', 'board = "STM32L072"', "farms.0.nodes.0.board: "),
        ('climate = "champion"', 'climate = "atlantis"', "farms.0.climate: "),
        ('dev_eui = "0000000000000001"', 'dev_eui = "xyz"', "farms.0.nodes.0.dev_eui: "),
        ("days = 20", "days = 0", "days: "),
        ("seed = 1\n", "", "seed: Field required"),
        ("start = 2001-05-01", "start = 2018-10-01", "start 2018-10-01: the record of champion"),
        ("start = 2001-05-01", "start = 1999-05-01", "no year before 2000"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in MINIMAL
    assert said in refused(tmp_path, MINIMAL.replace(old, new, 1))


def test_two_nodes_of_one_identity_are_refused(tmp_path: Path) -> None:
    node = MINIMAL[MINIMAL.index("[[farms.nodes]]") :].replace('name = "a"', 'name = "b"')
    assert "dev_eui 0000000000000001 occurs more than once" in refused(tmp_path, MINIMAL + node)


def test_text_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    assert "not valid TOML" in refused(tmp_path, "name = ")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="cannot read"):
        load_scenario(tmp_path / "nowhere.toml")


def test_wakes_of_a_farm_are_spread() -> None:
    demo = load_scenario(SCENARIOS / "demo.toml")
    phases = {node.wake_phase_s for farm in demo.farms for node in farm.nodes}
    assert len(phases) == 8
    assert all(0 <= phase < 900 for phase in phases)


def test_a_scenario_survives_a_pickle_and_a_dump() -> None:
    demo = load_scenario(SCENARIOS / "demo.toml")
    assert Scenario.model_validate_json(demo.model_dump_json()) == demo
