"""``python -m server.refresh``: a refresh in a process of its own, started and watched by the running server.

It reads the store, never writes there, and never sees the signing key. What it made lands in one file, whole or not
at all. Progress goes to the standard output, a JSON object per line.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
from contextlib import closing
from pathlib import Path

from server import lock, releases, store
from server.federation import site_sums
from server.refresh.making import CONFIGURATIONS, Terms, make
from server.refresh.running import LOCK_FILE, LOCK_PATIENCE_S


class _Lines:
    """Progress for the server."""

    def __init__(self) -> None:
        self._stage, self._steps, self._done = "", 0, 0

    def stage(self, name: str, steps: int) -> None:
        self._stage, self._steps, self._done = name, steps, 0
        self._tell("")

    def advance(self, remark: str = "") -> None:
        self._done += 1
        self._tell(remark)

    def _tell(self, remark: str) -> None:
        line = {"stage": self._stage, "done": self._done, "steps": self._steps, "remark": remark}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Make a refresh of release ``--base`` from the sums of ``--round``."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser = argparse.ArgumentParser(prog="python -m server.refresh", description=__doc__)
    parser.add_argument("state_dir", type=Path, help="the server's")
    parser.add_argument("outcome", type=Path, help="where to write what came of it, as JSON")
    parser.add_argument("--round", type=int, required=True)
    parser.add_argument("--base", type=int, required=True)
    parser.add_argument("--configuration", choices=sorted(CONFIGURATIONS), required=True)
    parser.add_argument("--minimum-gain", type=float, required=True)
    parser.add_argument("--least-fields", type=float, required=True)
    parser.add_argument("--payload-bytes", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--processes", type=int, required=True)
    options = parser.parse_args(arguments)
    with lock.hold(options.state_dir / LOCK_FILE, LOCK_PATIENCE_S):
        with closing(store.connect(options.state_dir / "server.db", read_only=True)) as connection:
            base = releases.find(connection, options.base)
            sites = {entry.site: entry.sums for entry in site_sums(connection, options.round)}
        terms = Terms(
            options.minimum_gain, options.least_fields, options.payload_bytes, options.seed, options.processes
        )
        folder = options.state_dir / "refresh"
        made = make(base.image, sites, CONFIGURATIONS[options.configuration], terms, folder, _Lines())
        outcome = {
            "base_version": base.version,
            "round": options.round,
            "evidence": made.evidence.model_dump(mode="json"),
            "image": None if made.image is None else base64.b64encode(made.image.pack()).decode("ascii"),
        }
        partial = options.outcome.with_suffix(".part")
        partial.write_text(json.dumps(outcome), encoding="utf-8")
        partial.replace(options.outcome)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
