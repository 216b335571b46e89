"""Compression, distillation and group-robust training against the plain small net; ``docs/model.md`` gets the table.

The study itself is :mod:`server.training.study`; cycles are added here, of the shipped engine compiled alone for each
number of hidden units, on the emulated cores. The shape on a node is fixed: a pruned network there is one with rows
of zeros and costs what the full one costs; what an engine of its own shape would cost is beside it.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.cores import CPUS, MODEL, BareCore, compile_alone
from benchmarks.engine import SHIPPED_FLAGS
from noria.pages import with_table
from server.training import study
from server.training.cli import RichProgress, bars
from shared_models.factory import factory_image
from shared_models.moments import UPTAKE
from shared_models.network import BACKBONE_OFFSET, HIDDEN, INPUTS

PAGE = Path(__file__).parent.parent / "docs" / "model.md"
SEED = 1
RUNS = 5


def measure() -> dict[str, Any]:
    """The study with cycles; the table in ``docs/model.md`` is replaced."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with bars(Console(stderr=True)) as shown:
        result = study.run(study.FULL, SEED, os.cpu_count() or 1, RichProgress(shown))
    shapes = sorted({line["hidden_units"] for line in result["lines"] if "hidden_units" in line} | {HIDDEN})
    result["cycles"] = {str(hidden): cycles(hidden) for hidden in shapes}
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), "compression", table(result)), encoding="utf-8")
    return result


def cycles(hidden: int) -> dict[str, int]:
    """Of one inference by the engine compiled for ``hidden`` units in the first layer, per core."""
    image = factory_image()
    first = replace(image.first, weights=image.first.weights[:hidden], bias=image.first.bias[:hidden]).pack()
    second = replace(image.second, weights=image.second.weights[:, :hidden]).pack()
    model = bytes(BACKBONE_OFFSET) + first + second + image.head.pack()
    inputs = np.random.default_rng(1).integers(-128, 128, (RUNS, INPUTS)).astype(np.int8)
    shape = {
        "HIDDEN": hidden,
        "MODEL_SECOND_OFFSET": BACKBONE_OFFSET + len(first),
        "MODEL_HEAD_OFFSET": BACKBONE_OFFSET + len(first) + len(second),
    }
    lines = [f"#undef NORIA_{name}\n#define NORIA_{name} {value}" for name, value in shape.items()]
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "engine_of_shape.c"
        source.write_text("\n".join(['#include "noria_shared.h"', *lines, '#include "engine.c"', ""]), encoding="utf-8")
        for board, cpu in CPUS.items():
            core = BareCore(compile_alone(source, "noria_engine_run", board, SHIPPED_FLAGS, Path(folder)))
            core.write(MODEL, model)
            result[cpu] = max(core.forward(row.tobytes())[1] for row in inputs)
    return result


def table(result: dict[str, Any]) -> str:
    """The study as Markdown for ``docs/model.md``."""
    header = [
        "method",
        "same world",
        "other world",
        "both",
        "worst group",
        "uptake, other world",
        "payload, B",
        "cycles M0+ / M4",
        "water, mm",
        "yield",
        "benefit, mm",
    ]
    rows = [header, ["---"] * len(header)]
    for line in result["lines"]:
        row = [
            line["method"],
            f"{line['same_world_mean']:.3f} ± {line['same_world_spread']:.3f}",
            f"{line['cross_world_mean']:.3f} ± {line['cross_world_spread']:.3f}",
            f"{line['both_worlds_mean']:.3f}",
            f"{line['worst_group_mean']:.3f}",
            f"{line['cross_world'][UPTAKE]:.2f}",
        ]
        if "closed_loop" not in line:
            rows.append([*row, *["–"] * 5])
            continue
        fixed, own = result["cycles"][str(HIDDEN)], result["cycles"][str(line["hidden_units"])]
        loop = line["closed_loop"]["all"]
        low, high = loop["benefit_interval_mm"]
        spent = " / ".join(f"{fixed[cpu]:,}" for cpu in fixed)
        if own != fixed:
            spent += " (own shape " + " / ".join(f"{own[cpu]:,}" for cpu in own) + ")"
        rows.append(
            [
                *row,
                f"{line['payload_bytes']:.0f}",
                spent,
                f"{loop['water_physics_mm']:.1f} → {loop['water_model_mm']:.1f}",
                f"{loop['yield_physics']:.4f} → {loop['yield_model']:.4f}",
                f"{loop['benefit_mm']:.1f} [{low:.1f}, {high:.1f}]",
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
