"""`pio test` builds a test firmware for each board and runs it on the emulated bench."""

from __future__ import annotations

from nodes.firmware.build import ENVIRONMENTS, pio


def test_the_board_layer_passes_its_own_tests(tmp_path, firmwares) -> None:
    output = pio("test", build_dir=tmp_path / "build")
    assert firmwares
    for environment in ENVIRONMENTS.values():
        assert f"{environment}:test_board [PASSED]" in output, output
    assert ":FAIL" not in output
