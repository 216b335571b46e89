"""The boards' very firmware, its power cut in every phase of its life: always a sound node, and the work completed.

A sample; ``python -m benchmarks power_cuts`` tries every operation.
"""

from __future__ import annotations

import pytest

from benchmarks.power_cuts import BOARD_PHASES, BoardTrial


@pytest.mark.parametrize("phase", BOARD_PHASES)
def test_a_node_whose_power_is_cut_recovers_and_completes_its_work(firmware, phase: str) -> None:
    trial = BoardTrial(phase, firmware)
    last = trial.operations - 1
    assert last >= 5
    for operation in (0, last // 3, 2 * last // 3, last):
        trial.single(operation, torn=operation % 2 == 0, seed=operation + 1)


def test_a_node_whose_power_is_cut_again_while_it_recovers_completes_its_work_too(firmware) -> None:
    trial = BoardTrial("head in one frame", firmware)
    assert trial.double(trial.operations // 2, 9, torn=True, seed=3)
