"""One improvement: ask the fleet for its sums, solve, pass the gate, release; or say why not.

Judging takes seconds in a large fleet and signing up to a minute per container where a command signs. Both happen in
other threads, on values read before, while the store is free and the caller's event loop goes on. One transaction then
checks that what they went on from still holds, and stores the release or nothing.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server import farm_heads, lock, releases, store
from server.backbones import running_release
from server.code_version import code_version
from server.config import GateSection, ServerSettings
from server.federation import LOCK_FILE, cohorts, earlier_sums, site_sums, sums_hash
from server.gate import Evidence, Gate
from server.releases import Release, ReleaseError
from server.signing import Signer, SigningError
from server.strategy import SiteSums
from server.superlink import FlowerError
from shared_models.moments import Sums
from shared_models.network import ModelImage

logger = logging.getLogger(__name__)

WATCH_S = 0.5

RunFlower = Callable[[Mapping[str, str | int | float]], Awaitable[None]]
"""Starts a Flower run with these run-config values and returns when it has ended."""


class RoundError(RuntimeError):
    """A round that could not be carried out; the text says why."""


async def improve(
    connection: sqlite3.Connection,
    settings: ServerSettings,
    key: Signer,
    now_s: Callable[[], int],
    run_flower: RunFlower,
    releasing: asyncio.Lock,
) -> dict[str, Any]:
    """Carry out a federated round and release what passes the gate.

    Args:
        connection: The server's store.
        settings: What a round asks for, and the gate.
        key: Signs the release.
        now_s: The server's clock.
        run_flower: Runs the Flower app.
        releasing: Held while a release is signed and stored: one at a time.

    Returns:
        The outcome: ``message`` for people, ``round``, ``verdict``, figures, and ``version`` where released.

    Raises:
        RoundError: no round took place; its row says so too.
    """
    started = time.monotonic()
    base = running_release(connection)
    number = _open_round(connection, base, now_s())
    try:
        watch = _watch(connection, settings.state_dir / LOCK_FILE, number)
        await _collect(connection, number, run_flower(_run_config(settings, base, number)), watch)
        outcome = await decide(connection, settings, key, base, number, now_s(), releasing)
    except asyncio.CancelledError:
        if not _is_collected(connection, number):  # what is collected is decided at the next start: see resume
            _close_round(connection, number, "failed", now_s(), started, reason="the server stopped")
        raise
    except BaseException as error:
        _close_round(connection, number, "failed", now_s(), started, reason=str(error) or type(error).__name__)
        raise
    _conclude(connection, number, outcome, now_s(), started)
    return outcome


async def _collect(
    connection: sqlite3.Connection, number: int, run: Awaitable[None], watch: Coroutine[None, None, None]
) -> None:
    """Wait for the Flower run until the round's sums are in the store; one that dies after that has done its work.

    Raises:
        RoundError: it ended without them.
        FlowerError: it failed without them.
    """
    watching, running = asyncio.create_task(watch), asyncio.ensure_future(run)
    try:
        await asyncio.wait((running, watching), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (running, watching):
            task.cancel()
        await asyncio.wait((running, watching))
    for task in (running, watching):
        error = None if task.cancelled() else task.exception()
        if error is not None and not (isinstance(error, FlowerError) and _is_collected(connection, number)):
            raise error
    if not _is_collected(connection, number):
        raise RoundError("the Flower run ended without collecting replies; see flower.log")


async def _watch(connection: sqlite3.Connection, lock_file: Path, number: int) -> None:
    """Return when the ServerApp has ended without collecting anything; Flower notices that a minute later."""
    seen = False
    while True:
        held = lock.is_held(lock_file)
        if seen and not held and not _is_collected(connection, number):
            return
        seen = seen or held
        await asyncio.sleep(WATCH_S)


def _is_collected(connection: sqlite3.Connection, number: int) -> bool:
    row = connection.execute("SELECT state FROM rounds WHERE id = ?", (number,)).fetchone()
    return bool(row["state"] == "collected")


@dataclass(frozen=True)
class _Collected:
    """What a round brought, and what its sites run: all that a judgement needs of the store."""

    sites: list[SiteSums]
    earlier: dict[str, Sums]
    stayed: dict[str, ModelImage]
    """Under the names of sites and of cohorts, where these run anything else than the base."""
    members: Mapping[str, frozenset[str]]
    """The sites of each cohort."""


def _read(connection: sqlite3.Connection, base: Release, number: int) -> _Collected:
    sites, members = site_sums(connection, number), cohorts(connection, base.backbone_id)
    stayed = releases.stayed(connection, base) | farm_heads.running(connection, base.backbone_id)
    return _Collected(sites, earlier_sums(connection, number, sites), _by_cohort(stayed, members), members)


async def decide(
    connection: sqlite3.Connection,
    settings: ServerSettings,
    key: Signer,
    base: Release,
    number: int,
    now_s: int,
    releasing: asyncio.Lock,
) -> dict[str, Any]:
    """Judge what round ``number`` collected and release what passes."""
    collected = _read(connection, base, number)
    sites = collected.sites
    outcome: dict[str, Any] = {
        "round": number,
        "base_version": base.version,
        "sites": [entry.site for entry in sites],
        "contributors": sum(entry.contributors for entry in sites),
        "windows": sum(entry.windows for entry in sites),
    }
    if missing := settings.federation.too_few(len(sites)):
        reason = f"sites that answered usably: {missing}"
        return outcome | {"verdict": "refused", "reason": reason, "message": f"nothing released: {reason}"}
    try:
        _refuse_withdrawn(connection, base)
        image, evidence = await asyncio.to_thread(_judge, settings.gate, base, collected)
        record = evidence.model_dump(mode="json")
        connection.execute("UPDATE rounds SET evidence = ? WHERE id = ?", (store.dumps(record), number))
        outcome |= {"verdict": evidence.verdict, "reason": evidence.reason}
        if image is None:
            return outcome | {"message": f"nothing released: {evidence.reason}"}
        provenance = _provenance(base, sites, collected.members.keys())
        async with releasing:
            signed = await asyncio.to_thread(releases.sign, key, image, releases.upcoming(connection, image))
            with store.transaction(connection):
                _refuse_withdrawn(connection, base)
                release = releases.register_improvement(
                    connection, signed, image, base, number, now_s, provenance=provenance, evidence=record
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


def _refuse_withdrawn(connection: sqlite3.Connection, base: Release) -> None:
    if withdrawal := releases.withdrawn(connection, base.version):
        raise ReleaseError(f"release {base.version}, from which it would go on, was withdrawn meanwhile: {withdrawal}")


def _judge(terms: GateSection, base: Release, collected: _Collected) -> tuple[ModelImage | None, Evidence]:
    """Solve and pass the gate; in any thread."""
    image, evidence = Gate(terms.tolerance, terms.minimum_gain, terms.held_back_share, terms.window_cap).judge(
        base.image,
        {entry.site: entry.sums for entry in collected.sites},
        stayed=collected.stayed,
        earlier=collected.earlier,
    )
    return image, evidence.model_copy(update={"held_back": _by_site(evidence.held_back, collected.members)})


def _by_site(held_back: Mapping[str, str], members: Mapping[str, frozenset[str]]) -> dict[str, str]:
    """A cohort that is held back is all of its sites: campaigns know sites only."""
    return {site: reason for name, reason in held_back.items() for site in sorted(members.get(name, frozenset({name})))}


def _by_cohort(stayed: Mapping[str, ModelImage], members: Mapping[str, frozenset[str]]) -> dict[str, ModelImage]:
    """What sites run that were held back, and under the name of a cohort what all of its sites run."""
    images = dict(stayed)
    for name, sites in members.items():
        running = {stayed[site].head_bytes: stayed[site] for site in sites if site in stayed}
        if sites <= stayed.keys() and len(running) == 1:
            images[name] = next(iter(running.values()))
    return images


def is_open(connection: sqlite3.Connection) -> bool:
    """Whether a round waits to be finished by :func:`resume`."""
    return connection.execute("SELECT 1 FROM rounds WHERE finished_s IS NULL").fetchone() is not None


async def resume(
    connection: sqlite3.Connection,
    settings: ServerSettings,
    key: Signer,
    now_s: Callable[[], int],
    releasing: asyncio.Lock,
) -> dict[str, Any] | None:
    """Finish what a stopped server left open: decide a round whose sums are in the store, give up any other.

    Returns:
        The outcome of the round that was decided, as :func:`improve` returns it; None where there was none.
    """
    outcome = None
    for row in connection.execute("SELECT * FROM rounds WHERE finished_s IS NULL ORDER BY id").fetchall():
        number = row["id"]
        if row["state"] != "collected":
            _close_round(connection, number, "failed", now_s(), None, reason="the server stopped")
            continue
        try:
            if row["version"] is None:
                base = releases.find(connection, row["base_version"])
                outcome = await decide(connection, settings, key, base, number, now_s(), releasing)
            else:
                outcome = _already_released(connection, row)
        except (ReleaseError, SigningError, ValueError, ArithmeticError) as error:
            _close_round(connection, number, "failed", now_s(), None, reason=str(error) or type(error).__name__)
            continue
        _conclude(connection, number, outcome, now_s(), None)
        logger.info("round %d, left open when the server stopped: %s", number, outcome["message"])
    return outcome


def _already_released(connection: sqlite3.Connection, row: sqlite3.Row) -> dict[str, Any]:
    """The outcome of a round whose release was committed just before the server was killed."""
    sites = [entry.site for entry in site_sums(connection, row["id"])]
    return {
        "round": row["id"],
        "base_version": row["base_version"],
        "sites": sites,
        "contributors": row["contributors"],
        "windows": row["windows"],
        "verdict": "passed",
        "version": row["version"],
        "message": f"release {row['version']} from {len(sites)} sites",
    }


def _open_round(connection: sqlite3.Connection, base: Release, now_s: int) -> int:
    cursor = connection.execute(
        "INSERT INTO rounds (started_s, state, backbone_id, base_version) VALUES (?, 'asking', ?, ?)",
        (now_s, base.backbone_id, base.version),
    )
    if cursor.lastrowid is None:
        raise RoundError("the store gave the round no number")
    return cursor.lastrowid


def _conclude(
    connection: sqlite3.Connection, number: int, outcome: Mapping[str, Any], now_s: int, started: float | None
) -> None:
    released = "version" in outcome
    state = "released" if released else "refused"
    _close_round(connection, number, state, now_s, started, reason="" if released else outcome["reason"])


def _close_round(
    connection: sqlite3.Connection, number: int, state: str, now_s: int, started: float | None, *, reason: str
) -> None:
    duration_ms = None if started is None else round(1000 * (time.monotonic() - started))
    connection.execute(
        "UPDATE rounds SET state = ?, finished_s = ?, duration_ms = ?, reason = ? WHERE id = ?",
        (state, now_s, duration_ms, reason, number),
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


def _provenance(base: Release, sites: list[SiteSums], masked: Collection[str]) -> dict[str, Any]:
    """Where a release comes from; ``masked`` names totals of which the server saw no part."""
    under_masks = any(entry.site in masked for entry in sites)
    return {
        "method": "ridge toward the base release's head, chosen and judged by leaving one"
        f" {'cohort' if under_masks else 'site'} out",
        "code": code_version(),
        "base_version": base.version,
        "base_content_hash": base.content_hash,
        "sites": {entry.site: _behind(entry, masked=entry.site in masked) for entry in sites},
    }


def _behind(entry: SiteSums, *, masked: bool) -> dict[str, int | str]:
    figures: dict[str, int | str] = {
        "contributors": entry.contributors,
        "windows": entry.windows,
        "sums_hash": sums_hash(entry.sums),
    }
    if entry.members > 1:
        figures["members"] = entry.members
    if masked:
        figures["masked"] = True
    return figures
