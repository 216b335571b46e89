"""The running server's side of a refresh: start the process, pass on its progress, register what passed.

The server stays free for gateways and operators meanwhile. Until the one transaction that registers the release
nothing in the store has changed but the progress shown; a refresh that is killed, or whose server is, leaves simulated
windows behind, which the next one reads, and nothing else.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from server import lock, releases, store
from server.backbones import running_release
from server.config import ServerSettings
from server.refresh.need import need
from server.refresh.registry import register_refresh
from server.releases import Release, ReleaseError
from server.signing import Signer
from server.superlink import end_group, end_with_parent
from shared_models.container import HEADER_SIZE, SIGNATURE_SIZE
from shared_models.network import ModelImage

logger = logging.getLogger(__name__)

LOCK_FILE = "refresh.lock"
LOCK_PATIENCE_S = 5.0
PROGRESS = "refresh_progress"
"""The fact in the store that says how far a refresh is; empty where none runs."""
OUTCOME = "outcome.json"
LOG = "refresh.log"
SHOWN_CHARACTERS = 400


class RefreshError(RuntimeError):
    """A refresh that could not be carried out; the text says why."""


async def refresh(
    connection: sqlite3.Connection,
    settings: ServerSettings,
    key: Signer,
    now_s: Callable[[], int],
    releasing: asyncio.Lock,
    actor: str = "server",
) -> dict[str, Any]:
    """Make a refresh of the newest release and register it where it passed its gate.

    Args:
        connection: The server's store.
        settings: What it must bring.
        key: Signs the release.
        now_s: The server's clock.
        releasing: Held while a release is signed and stored: one at a time.
        actor: Who asked, for the audit log.

    Returns:
        The outcome: ``message`` for people, ``verdict``, ``reason``, ``evidence``, and ``version`` where released.

    Raises:
        RefreshError: there is nothing to go on from, or the process failed; its log says how.
    """
    base = running_release(connection)
    found = need(connection, settings.refresh, base.backbone_id)
    if found is None:
        raise RefreshError(
            "no round about the running backbone has been decided yet, so nothing is known of the fleet's windows"
        )
    if lock.is_held(settings.state_dir / LOCK_FILE):
        raise RefreshError("another refresh runs on this state directory")
    folder = settings.state_dir / "refresh"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / OUTCOME).unlink(missing_ok=True)
    try:
        await _run(connection, _command(settings, base, found.round, folder / OUTCOME), folder, settings.refresh.hours)
    finally:
        store.set_meta(connection, PROGRESS, "")
    async with releasing:
        return await _conclude(connection, key, base, found.round, folder / OUTCOME, now_s(), actor)


def in_words(connection: sqlite3.Connection) -> str:
    """How far a refresh is; empty where none runs."""
    text = store.get_meta(connection, PROGRESS)
    if not text:
        return ""
    told = json.loads(text)
    return f"{told['stage']}, {told['done']} of {told['steps']} {told['remark']}".strip()


def _command(settings: ServerSettings, base: Release, number: int, outcome: Path) -> list[str]:
    terms = settings.refresh
    return [
        *(sys.executable, "-m", "server.refresh", str(settings.state_dir.absolute()), str(outcome.absolute())),
        *("--round", str(number), "--base", str(base.version), "--configuration", terms.configuration),
        *("--minimum-gain", str(terms.minimum_gain), "--least-fields", str(terms.least_fields)),
        *("--payload-bytes", str(terms.container_bytes - HEADER_SIZE - SIGNATURE_SIZE)),
        *("--seed", str(terms.seed), "--processes", str(terms.processes)),
    ]


async def _run(connection: sqlite3.Connection, command: list[str], folder: Path, hours: float) -> None:
    """Run the process to its end, its progress into the store; end it with everything it started when cancelled.

    Raises:
        RefreshError: it failed, or did not end in time.
    """
    with (folder / LOG).open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
    try:
        async with asyncio.timeout(3600 * hours):
            assert process.stdout is not None  # noqa: S101
            async for line in process.stdout:
                store.set_meta(connection, PROGRESS, _shown(line))
            code = await process.wait()
    except TimeoutError:
        raise RefreshError(f"the refresh did not end within {hours:g} h; what it simulated is kept") from None
    finally:
        await end_group(process)
    if code != 0:
        raise RefreshError(f"the refresh ended with code {code}; see {folder / LOG}")


def _shown(line: bytes) -> str:
    """A line of progress as the store keeps it; anything else a library prints is none."""
    try:
        told = json.loads(line)
        stage, done, steps, remark = (told[name] for name in ("stage", "done", "steps", "remark"))
    except (ValueError, KeyError, TypeError):
        return ""
    return store.dumps({"stage": str(stage)[:SHOWN_CHARACTERS], "done": done, "steps": steps, "remark": str(remark)})


async def _conclude(
    connection: sqlite3.Connection,
    key: Signer,
    base: Release,
    number: int,
    path: Path,
    now_s: int,
    actor: str,
) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        evidence = dict(told["evidence"])
        image = None if told["image"] is None else ModelImage.unpack(base64.b64decode(told["image"], validate=True))
        if (told["base_version"], told["round"]) != (base.version, number):
            raise RefreshError("the refresh wrote the outcome of another one")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RefreshError(f"the refresh left no usable outcome: {error}") from error
    outcome: dict[str, Any] = {
        "base_version": base.version,
        "round": number,
        "verdict": evidence["verdict"],
        "reason": evidence["reason"],
        "evidence": evidence,
    }
    if image is None:
        logger.info("refresh of release %d: %s", base.version, evidence["reason"])
        return outcome | {"message": f"nothing released: {evidence['reason']}"}
    try:
        signed = await asyncio.to_thread(releases.sign, key, image, releases.upcoming(connection, image))
        with store.transaction(connection):
            if running_release(connection).version != base.version:
                raise RefreshError("a newer release was made meanwhile; ask again")
            release = register_refresh(connection, signed, image, base, number, now_s, evidence)
            store.audit(
                connection, now_s, actor, "release.created", f"release {release.version}", detail=evidence["reason"]
            )
    except ReleaseError as error:
        raise RefreshError(str(error)) from error
    size = HEADER_SIZE + evidence["payload_bytes"] + SIGNATURE_SIZE
    return outcome | {
        "version": release.version,
        "model_id": release.model_id,
        "backbone_id": release.backbone_id,
        "message": f"release {release.version}, a new backbone as a change of {evidence['changed_numbers']} numbers"
        f" ({size} bytes on the air) from release {base.version}",
    }
