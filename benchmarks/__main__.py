"""``python -m benchmarks [names]``: measure, print, and write ``benchmarks/results/<name>.json``.

Without names everything runs but the campaigns, which take many minutes or hours: name them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks import (
    campaign,
    compression,
    containers,
    coverage,
    energy,
    engine,
    federation,
    fuzz,
    hierarchy,
    judgement,
    kills,
    node,
    poisoning,
    policy,
    power_cuts,
    privacy,
    refresh,
    seasons,
)
from benchmarks.machine import machine

MEASUREMENTS = {
    "campaign": campaign.measure,
    "compression": compression.measure,
    "containers": containers.measure,
    "coverage": coverage.measure,
    "energy": energy.measure,
    "engine": engine.measure,
    "federation": federation.measure,
    "fuzz": fuzz.measure,
    "hierarchy": hierarchy.measure,
    "judgement": judgement.measure,
    "kills": kills.measure,
    "node": node.measure,
    "poisoning": poisoning.measure,
    "policy": policy.measure,
    "power_cuts": power_cuts.measure,
    "privacy": privacy.measure,
    "refresh": refresh.measure,
    "seasons": seasons.measure,
}
CAMPAIGNS = (
    "campaign",
    "compression",
    "federation",
    "fuzz",
    "hierarchy",
    "judgement",
    "kills",
    "poisoning",
    "policy",
    "power_cuts",
    "privacy",
    "refresh",
)
RESULTS = Path(__file__).parent / "results"


def main(names: list[str]) -> int:
    unknown = sorted(set(names) - set(MEASUREMENTS))
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(MEASUREMENTS)}", file=sys.stderr)
        return 2
    RESULTS.mkdir(exist_ok=True)
    for name in names or [name for name in MEASUREMENTS if name not in CAMPAIGNS]:
        result = {"benchmark": name, "machine": machine(), "result": MEASUREMENTS[name]()}
        text = json.dumps(result, indent=1) + "\n"
        (RESULTS / f"{name}.json").write_text(text, encoding="utf-8")
        print(text, end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
