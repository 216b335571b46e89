"""The operator at the command line: the very commands a person would type."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from noria.demo.deployment import NORIA, Deployment


class OperatorError(RuntimeError):
    """A ``noria`` command failed; the text holds the command and what it said."""


async def noria(*arguments: str) -> dict[str, Any]:
    """Run ``noria ARGUMENTS --json`` and parse its answer; a refusal is an answer too.

    Raises:
        OperatorError: the output is not one JSON object.
    """
    process = await asyncio.create_subprocess_exec(
        *NORIA,
        *arguments,
        "--json",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await process.communicate()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    command = " ".join(["noria", *arguments])
    try:
        parsed = json.loads(output)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        said = (errors or output).decode(errors="replace").strip()[-2000:]
        raise OperatorError(f"{command}: exit code {process.returncode}: {said}")
    return parsed


class Operator:
    """What an operator does during the demo's season.

    Args:
        deployment: whose server is asked.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._config: Sequence[str] = ("--config", str(deployment.server_config))

    async def improve(self) -> dict[str, Any]:
        """One federated round: sums, head, gate, and a release if the gate lets it pass."""
        return await noria("server", "improve", "--wait", *self._config)

    async def start_campaign(self, version: int) -> dict[str, Any]:
        """Create, approve and start a campaign for a release: a canary of two nodes, then all others.

        A node that does worse with the new head goes back to its old one by itself; the campaign goes on as long
        as at least half of a group is better off.
        """
        plan = ("--canary", "2", "--growth", "100", "--success", "0.5", "--error", "0.5")
        return await noria("ota", "start", "--release", str(version), *plan, *self._config)
