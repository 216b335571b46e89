"""Flower's processes on this machine: the SuperLink that stays, and ``flwr run`` for each round.

The SuperLink listens on the loopback only: whoever reaches its control API can run code on every SuperNode. For
gateways elsewhere, a TLS proxy publishes ``/v1/fleet/`` and nothing else (:mod:`server.proxy`); the SuperLink then
asks every SuperNode for a registered key, and Flower wants TLS for that even on the loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from server.pki import Pki

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
CONNECTION = "noria"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
GROUP_TIMEOUT_S = 3.0
"""For what a process started to end after it; then it is killed."""
RESTART_DELAYS_S = (1.0, 2.0, 5.0, 10.0, 30.0)

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class FlowerError(RuntimeError):
    """A Flower process that did not do what it should; the text says what."""


class SuperLink:
    """Starts, watches and stops the SuperLink, and runs Flower apps on it.

    Args:
        home: Everything Flower writes: database, configuration, installed apps, logs, temporary files.
        port: Its one HTTP port on the loopback.
        pki: Certificates, where SuperNodes must have registered keys; without, anyone on this machine may join.
    """

    def __init__(self, home: Path, port: int, pki: Pki | None = None) -> None:
        self.home = home.absolute()
        self.port = port
        self.pki = pki
        self._process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        """Where SuperNodes on this machine find it."""
        return f"{HOST}:{self.port}"

    def environment(self) -> dict[str, str]:
        """What every Flower process gets: nothing leaves this machine, nothing is installed at run time."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FLWR_")}
        return kept | {
            "FLWR_HOME": str(self.home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.25",  # seconds until a ServerApp starts; 1 unless given
            "NO_COLOR": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self.home / "tmp"),
        }

    def prepare(self) -> None:
        """Write Flower's configuration and empty its temporary folder."""
        shutil.rmtree(self.home / "tmp", ignore_errors=True)
        (self.home / "tmp").mkdir(parents=True)
        trust = "insecure = true"
        if self.pki is not None:
            trust = f"root-certificates = {json.dumps(str(self.pki.ca.certificate.absolute()), ensure_ascii=False)}"
        (self.home / "config.toml").write_text(
            f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\naddress = "{self.address}"\n{trust}\n',
            encoding="utf-8",
        )

    async def keep_running(self, changed: Callable[[bool], None]) -> None:
        """Run the SuperLink until cancelled, starting it again whenever it ends by itself.

        Args:
            changed: Told whenever it has come up (True) or gone down (False).
        """
        self.prepare()
        failures = 0
        try:
            while True:
                try:
                    await self._start()
                except FlowerError as error:
                    logger.error("%s", error)
                else:
                    changed(True)
                    failures = 0
                    assert self._process is not None  # noqa: S101
                    code = await self._process.wait()
                    logger.error("the SuperLink ended by itself with code %d", code)
                    await self._stop()
                changed(False)
                await asyncio.sleep(RESTART_DELAYS_S[min(failures, len(RESTART_DELAYS_S) - 1)])
                failures += 1
        finally:
            await self._stop()
            shutil.rmtree(self.home / "tmp", ignore_errors=True)

    async def _spawn(self, *command: str) -> asyncio.subprocess.Process:
        """Start one of Flower's programs in a process group of its own, its output going to the log."""
        with (self.home / "flower.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                cwd=self.home,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    async def _start(self) -> None:
        if await self._answers():
            raise FlowerError(f"port {self.port} is taken; stop what uses it or set superlink.port")
        self._process = await self._spawn(
            "flower-superlink",
            *self._security(),
            *("--host", HOST, "--port", str(self.port)),
            *("--database", str(self.home / "superlink.db")),
        )
        try:
            await self._until_it_answers(self._process)
        except FlowerError:
            await self._stop()
            raise
        logger.info("the SuperLink listens on %s", self.address)

    def _security(self) -> list[str]:
        if self.pki is None:
            return ["--insecure"]
        pair = self.pki.superlink
        return [
            "--enable-supernode-auth",
            *("--ssl-certfile", str(pair.certificate.absolute()), "--ssl-keyfile", str(pair.key.absolute())),
            *("--ssl-ca-certfile", str(self.pki.ca.certificate.absolute())),
        ]

    async def _until_it_answers(self, process: asyncio.subprocess.Process | None) -> None:
        """Wait for the SuperLink; ``process`` is the one just started, if any.

        Raises:
            FlowerError: it has ended, or does not answer in time.
        """
        deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
        while not await self._answers():
            ended = process is not None and process.returncode is not None
            if ended or asyncio.get_running_loop().time() > deadline:
                raise FlowerError(f"the SuperLink does not answer; see {self.home / 'flower.log'}")
            await asyncio.sleep(0.1)

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(HOST, self.port)
        except OSError:
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await end_group(process)

    async def run(self, app: Path, run_config: Mapping[str, str | int | float], timeout_s: float) -> None:
        """``flwr run`` an app and wait until the run has ended.

        Args:
            app: The app's folder.
            run_config: Overrides of the app's own configuration.
            timeout_s: After this long the run is given up.

        Raises:
            FlowerError: the run could not be started, failed to end in time, or the SuperLink is not there.
        """
        await self._until_it_answers(None)
        overrides = " ".join(f"{name}={_toml(value)}" for name, value in run_config.items())
        process = await self._spawn("flwr", "run", str(app), CONNECTION, "--stream", "--run-config", overrides)
        try:
            code = await asyncio.wait_for(process.wait(), timeout_s)
        except TimeoutError:
            raise FlowerError(f"the Flower run did not end within {timeout_s:.0f} s") from None
        finally:
            await end_group(process)
        if code != 0:
            raise FlowerError(f"flwr run ended with code {code}; see {self.home / 'flower.log'}")


def _toml(value: str | float) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else str(value)


def end_with_parent() -> None:
    """In the child, before exec: be told to end when the server is killed without a chance to say so."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def end_group(process: asyncio.subprocess.Process) -> None:
    """End a process and everything it started: ask, wait, insist. Its group id is its own pid."""
    _signal_group(process.pid, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
    deadline = asyncio.get_running_loop().time() + GROUP_TIMEOUT_S
    # The kernel tells nobody when a group is empty.
    while _group_exists(process.pid) and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    _signal_group(process.pid, signal.SIGKILL)
    await process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
