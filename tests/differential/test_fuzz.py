"""Mutated inputs find nothing in the firmware's parsers: address and undefined-behaviour sanitizers watch."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from nodes.firmware.fuzz.build import FUZZ, SANITIZERS, TARGETS, build
from nodes.firmware.fuzz.seeds import corpora, write_corpora
from nodes.firmware.host.build import FLAGS, includes

SEED = 3
EXECUTIONS = {
    "settings_downlinks": 30_000,
    "fragmentation_downlinks": 20_000,
    "container_downlinks": 20_000,
    "at_lines": 60_000,
    "container": 30_000,
    "signed_container": 6_000,
    "decoder": 100_000,
    "engine": 200_000,
    "settings_page": 100_000,
    "data_region": 60_000,
}
"""About three seconds each; benchmarks/fuzz.py runs ten million."""

PLANTED = """
#include <stdlib.h>
#include "bench.h"
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *exact = malloc(4);
    if (size > 2 && data[0] == 'N' && data[2] == 0x7F) {
        exact[size + 1] = 1;
    }
    free(exact);
    return 0;
}
"""


def fuzz(executable: Path, corpus: Path, first: int, count: int, *more: str) -> subprocess.CompletedProcess[str]:
    command = [str(executable), str(corpus), str(SEED), str(first), str(count), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_corpora(tmp_path_factory.mktemp("corpora"))


def test_every_target_has_a_corpus() -> None:
    assert set(corpora()) == {target.name for target in TARGETS} == set(EXECUTIONS)


@pytest.mark.parametrize("target", [target.name for target in TARGETS])
def test_mutated_inputs_find_nothing(target: str, corpus: dict[str, Path]) -> None:
    result = fuzz(build()[target], corpus[target], 0, EXECUTIONS[target])
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout == f"{EXECUTIONS[target]} executions\n"


def test_a_planted_overrun_is_found_and_its_input_can_be_had_again(tmp_path: Path) -> None:
    source, executable, seeds = tmp_path / "planted.c", tmp_path / "planted", tmp_path / "seeds"
    source.write_text(PLANTED, encoding="ascii")
    seeds.mkdir()
    (seeds / "0").write_bytes(b"Noria")
    files = [str(source), str(FUZZ / "driver.c")]
    options = [*FLAGS, "-D_DEFAULT_SOURCE", *SANITIZERS, *includes(), f"-I{FUZZ}"]
    subprocess.run(["gcc", *options, *files, "-o", str(executable)], check=True)
    found = fuzz(executable, seeds, 0, 200_000)
    assert found.returncode != 0
    assert "planted.c:7" in found.stderr
    number = int(found.stderr.split("finding: seed 3, input ")[1].split()[0])
    kept = tmp_path / "found"
    assert fuzz(executable, seeds, number, 1, str(kept)).returncode == 0
    assert kept.read_bytes()[0:3:2] == b"N\x7f"
    assert fuzz(executable, seeds, number, 1).returncode != 0
