"""Every parser of the firmware under fuzzing with address and undefined-behaviour sanitizers.

libFuzzer (clang) first spends a hundredth of the executions on growing a corpus by coverage; our own driver then runs
the rest over that corpus, several times as fast because nothing counts edges. ``python -m benchmarks.fuzz --executions
1000000 at_lines`` runs one target by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from nodes.firmware.fuzz.build import TARGETS, Target, build, clang
from nodes.firmware.fuzz.seeds import write_corpora

EXECUTIONS = 10_000_000
COSTLY_SHARE = 10
GUIDED_SHARE = 100
SEED = 1
_COVERAGE = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)/")


def measure() -> dict[str, Any]:
    """Executions, seconds, edges, features and findings of every target."""
    result = campaign([target.name for target in TARGETS], EXECUTIONS)
    result["must"] = {"executions": EXECUTIONS, "findings": 0}
    return result


def campaign(names: list[str], executions: int) -> dict[str, Any]:
    """Fuzz the named targets."""
    plain = build()
    guided = build(libfuzzer=True) if clang() else None
    with tempfile.TemporaryDirectory() as folder:
        corpora = write_corpora(Path(folder))
        targets = {
            target.name: _fuzz(
                target,
                executions // COSTLY_SHARE if target.costly else executions,
                plain[target.name],
                guided[target.name] if guided else None,
                corpora[target.name],
            )
            for target in TARGETS
            if target.name in names
        }
    return {
        "engine": "libFuzzer, then driver.c" if guided else "driver.c (no clang here)",
        "sanitizers": ["address", "undefined"],
        "findings": sum(len(each["findings"]) for each in targets.values()),
        "targets": targets,
    }


def _fuzz(target: Target, executions: int, plain: Path, guided: Path | None, corpus: Path) -> dict[str, Any]:
    result: dict[str, Any] = {"executions": 0, "seconds": 0.0, "findings": []}
    started = time.monotonic()
    if guided is not None:
        result |= _grow(target, executions // GUIDED_SHARE, guided, corpus, result["findings"])
    left = executions - result["executions"]
    run = subprocess.run(
        [str(plain), str(corpus), str(SEED), "0", str(left)], capture_output=True, text=True, check=False
    )
    if run.returncode:
        result["findings"].append(run.stderr[-4000:])
    else:
        result["executions"] += left
    result["seconds"] = round(time.monotonic() - started, 1)
    return result


def _grow(target: Target, runs: int, guided: Path, corpus: Path, findings: list[str]) -> dict[str, Any]:
    """Let libFuzzer add to the corpus; what it counts as coverage includes the board and the bench."""
    with tempfile.TemporaryDirectory() as artifacts:
        options = [f"-runs={runs}", f"-seed={SEED}", f"-max_len={target.longest}", "-timeout=20", "-len_control=20"]
        run = subprocess.run(
            [str(guided), *options, f"-artifact_prefix={artifacts}/", str(corpus)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        findings += [f"input {each.read_bytes().hex()}\n{run.stderr[-4000:]}" for each in Path(artifacts).iterdir()]
    counts = _COVERAGE.findall(run.stderr)
    edges, features, inputs = map(int, counts[-1]) if counts else (0, 0, 0)
    return {"executions": runs, "guided": runs, "edges": edges, "features": features, "corpus": inputs}


def main() -> None:
    """One campaign by hand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=EXECUTIONS)
    parser.add_argument("targets", nargs="*", default=[target.name for target in TARGETS])
    arguments = parser.parse_args()
    for name in arguments.targets:
        print(json.dumps(campaign([name], arguments.executions)["targets"], indent=1), flush=True)


if __name__ == "__main__":
    main()
