"""One improvement: ask the fleet for its sums, solve, pass the gate, release; or say why not."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from server import releases, store
from server.config import ServerSettings
from server.federation import cohorts, earlier_sums, site_sums
from server.gate import Gate
from server.releases import Release, ReleaseError
from server.signing import SigningKey
from server.strategy import SiteSums
from shared_models.network import ModelImage

logger = logging.getLogger(__name__)

RunFlower = Callable[[Mapping[str, str | int | float]], Awaitable[None]]
"""Starts a Flower run with these run-config values and returns when it has ended."""


class RoundError(RuntimeError):
    """A round that could not be carried out; the text says why."""


async def improve(
    connection: sqlite3.Connection,
    settings: ServerSettings,
    key: SigningKey,
    now_s: Callable[[], int],
    run_flower: RunFlower,
) -> dict[str, Any]:
    """Carry out a federated round and release what passes the gate.

    Args:
        connection: The server's store.
        settings: What a round asks for, and the gate.
        key: Signs the release.
        now_s: The server's clock.
        run_flower: Runs the Flower app.

    Returns:
        The outcome: ``message`` for people, ``round``, ``verdict``, figures, and ``version`` where released.

    Raises:
        RoundError: no round took place; its row says so too.
    """
    started = time.monotonic()
    base = releases.find(connection, "latest")
    number = _open_round(connection, base, now_s())
    try:
        await run_flower(_run_config(settings, base, number))
        row = connection.execute("SELECT * FROM rounds WHERE id = ?", (number,)).fetchone()
        if row["state"] != "collected":
            raise RoundError("the Flower run ended without collecting replies; see flower.log")
        outcome = decide(connection, settings, key, base, number, now_s())
    except BaseException as error:
        cancelled = isinstance(error, asyncio.CancelledError)
        reason = "the server stopped" if cancelled else str(error) or type(error).__name__
        _close_round(connection, number, "failed", now_s(), started, reason=reason)
        raise
    _close_round(
        connection,
        number,
        "released" if "version" in outcome else "refused",
        now_s(),
        started,
        reason="" if "version" in outcome else outcome["reason"],
    )
    return outcome


def decide(
    connection: sqlite3.Connection,
    settings: ServerSettings,
    key: SigningKey,
    base: Release,
    number: int,
    now_s: int,
) -> dict[str, Any]:
    """Judge what round ``number`` collected and release what passes."""
    sites = site_sums(connection, number)
    outcome: dict[str, Any] = {
        "round": number,
        "base_version": base.version,
        "sites": [entry.site for entry in sites],
        "contributors": sum(entry.contributors for entry in sites),
        "windows": sum(entry.windows for entry in sites),
    }
    if len(sites) < settings.federation.minimum_sites:
        reason = f"{len(sites)} sites answered usably, {settings.federation.minimum_sites} are needed"
        return outcome | {"verdict": "refused", "reason": reason, "message": f"nothing released: {reason}"}
    members = cohorts(connection, base.backbone_id)
    gate = Gate(
        settings.gate.tolerance, settings.gate.minimum_gain, settings.gate.held_back_share, settings.gate.window_cap
    )
    image, evidence = gate.judge(
        base.image,
        {entry.site: entry.sums for entry in sites},
        stayed=_by_cohort(releases.stayed(connection, base), members),
        earlier=earlier_sums(connection, number, sites),
    )
    evidence = evidence.model_copy(update={"held_back": _by_site(evidence.held_back, members)})
    record = evidence.model_dump(mode="json")
    connection.execute("UPDATE rounds SET evidence = ? WHERE id = ?", (store.dumps(record), number))
    outcome |= {"verdict": evidence.verdict, "reason": evidence.reason}
    if image is None:
        return outcome | {"message": f"nothing released: {evidence.reason}"}
    try:
        with store.transaction(connection):
            release = releases.register_improvement(
                connection, key, image, base, number, now_s, provenance=_provenance(base, sites), evidence=record
            )
            connection.execute("UPDATE rounds SET version = ? WHERE id = ?", (release.version, number))
            store.audit(
                connection, now_s, "server", "release.created", f"release {release.version}", detail=evidence.reason
            )
    except ReleaseError as error:
        return outcome | {"verdict": "refused", "reason": str(error), "message": f"nothing released: {error}"}
    logger.info("round %d became release %d (%s)", number, release.version, evidence.reason)
    return outcome | {
        "version": release.version,
        "model_id": release.model_id,
        "message": f"release {release.version} from {len(sites)} sites ({evidence.reason})",
    }


def _by_site(held_back: Mapping[str, str], members: Mapping[str, frozenset[str]]) -> dict[str, str]:
    """A cohort that is held back is all of its sites: campaigns know sites only."""
    return {
        site: reason for name, reason in held_back.items() for site in sorted(members.get(name, frozenset({name})))
    }


def _by_cohort(stayed: Mapping[str, ModelImage], members: Mapping[str, frozenset[str]]) -> dict[str, ModelImage]:
    """What sites run that were held back, and under the name of a cohort what all of its sites run."""
    images = dict(stayed)
    for name, sites in members.items():
        running = {stayed[site].head_bytes: stayed[site] for site in sites if site in stayed}
        if sites <= stayed.keys() and len(running) == 1:
            images[name] = next(iter(running.values()))
    return images


def abandon_unfinished(connection: sqlite3.Connection, now_s: int) -> None:
    """Rounds a stopped server left open will not be finished."""
    connection.execute(
        "UPDATE rounds SET state = 'failed', finished_s = ?, reason = 'the server stopped' WHERE finished_s IS NULL",
        (now_s,),
    )


def _open_round(connection: sqlite3.Connection, base: Release, now_s: int) -> int:
    cursor = connection.execute(
        "INSERT INTO rounds (started_s, state, backbone_id, base_version) VALUES (?, 'asking', ?, ?)",
        (now_s, base.backbone_id, base.version),
    )
    if cursor.lastrowid is None:
        raise RoundError("the store gave the round no number")
    return cursor.lastrowid


def _close_round(
    connection: sqlite3.Connection, number: int, state: str, now_s: int, started: float, *, reason: str
) -> None:
    connection.execute(
        "UPDATE rounds SET state = ?, finished_s = ?, duration_ms = ?, reason = ? WHERE id = ?",
        (state, now_s, round(1000 * (time.monotonic() - started)), reason, number),
    )


def _run_config(settings: ServerSettings, base: Release, number: int) -> dict[str, str | int | float]:
    federation = settings.federation
    return {
        "state-dir": str(settings.state_dir.absolute()),
        "round": number,
        "backbone": base.backbone_id,
        "minimum-contributors": federation.minimum_contributors,
        "minimum-windows": federation.minimum_windows,
        "expected-sites": federation.expected_sites,
        "wait-s": federation.wait_s,
        "reply-timeout-s": federation.reply_timeout_s,
        "poll-s": federation.poll_s,
        "keys": int(settings.fleet_api is not None),
        "masking": federation.privacy.masking,
        "cohort-size": federation.privacy.cohort_size,
        "patience": federation.privacy.patience,
        "accept-noise": federation.privacy.accept_noise,
    }


def _provenance(base: Release, sites: list[SiteSums]) -> dict[str, Any]:
    return {
        "method": "ridge toward the base release's head, chosen and judged by leaving one site out",
        "base_version": base.version,
        "base_content_hash": base.content_hash,
        "sites": {entry.site: _behind(entry) for entry in sites},
    }


def _behind(entry: SiteSums) -> dict[str, int]:
    figures = {"contributors": entry.contributors, "windows": entry.windows}
    return figures if entry.members == 1 else figures | {"members": entry.members}
