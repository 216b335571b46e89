"""The Flower SuperNode that runs as the gateway's child, and dies with it.

``flower-supernode`` starts processes of its own, so it lives in a session of its own under a guardian (this
module run as a program) whose standard input is a pipe from the gateway. When the gateway ends, even by
``kill -9``, the pipe closes and the guardian ends the whole session: never two SuperNodes for one site.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from gateway.config import Federation, GatewaySettings
from gateway.diagnosis import Finding, Standing, examine
from gateway.keys import KeyFileError, fingerprint, load
from gateway.membership import Journal
from gateway.pinned import write_programs

log = logging.getLogger(__name__)
flower_log = logging.getLogger("flower")

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 300.0
STEADY_S = 60.0
"""A SuperNode that lived so long starts the back-off again."""
GRACE_S = 10.0
OUTPUT_PATIENCE_S = 2.0
"""For the last lines of output after the end."""
BROKEN_PATIENCE_S = 3.0
"""For a SuperNode that broke down to end by itself."""
LOOK_PERIOD_S = 60.0
"""Between questions of our own while Flower retries."""
READ_BYTES = 8192

# Flower 1.41's own words (flwr/supernode/start_client_internal.py, flwr/supercore/retry/http_retry.py).
_ADMITTED = re.compile(r"SuperNode ID: \d+")
_RETRYING = re.compile(r"Connection attempt failed, retrying")
_BACK = re.compile(r"Connection successful after")
_BROKEN = re.compile(r"error '\d{3} [^']*' for url '[^']*/v1/fleet/|Heartbeat failed unexpectedly")
"""What kills the worker or the heartbeat, but not the process: an HTTP status other than 401 and 502 to 504."""
_MENDED = re.compile(r"Failed to (receive|send) message")
"""One message was lost, the SuperNode goes on."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


async def keep_supernode(settings: GatewaySettings, federation: Federation, journal: Journal) -> None:
    """Start the SuperNode, and again whenever it ends, until cancelled; say why it is not connected.

    Flower ends it silently with exit code 0 when its key or its signature is refused, and retries without a word of
    the reason while nobody answers: see :mod:`gateway.diagnosis`. An answer it did not expect ends only one of its
    threads, and what is left never takes part in a round again, so it is ended here.
    """
    delay_s = FIRST_DELAY_S
    loop = asyncio.get_running_loop()
    journal.note(Finding(Standing.STARTING, f"SuperNode for {federation.superlink} starts"))
    while True:
        started_s = loop.time()
        try:
            code = await _Attempt(settings, federation, journal).run()
        except KeyFileError as error:
            journal.note(Finding(Standing.KEY_FILE, str(error)))
            code = None
        if loop.time() - started_s > STEADY_S:
            delay_s = FIRST_DELAY_S
        log.warning("the SuperNode ended with exit code %s; again in %.0f s", code, delay_s)
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, LONGEST_DELAY_S)


class _Attempt:
    """One SuperNode from start to end, and what its output tells."""

    def __init__(self, settings: GatewaySettings, federation: Federation, journal: Journal) -> None:
        self._settings = settings
        self._federation = federation
        self._journal = journal
        self._key = fingerprint(load(federation.private_key)) if federation.private_key is not None else ""
        self._connected = False
        self._broken = ""
        self._broke = asyncio.Event()
        self._next_look_s = 0.0
        self._looking: asyncio.Task[None] | None = None

    async def run(self) -> int | None:
        """Its exit code."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway.supernode",
            *supernode_command(self._settings, self._federation, free_port()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=supernode_environment(self._settings, self._federation),
            start_new_session=True,
        )
        log.info("SuperNode for %s started", self._federation.superlink)
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        reading = asyncio.create_task(self._read(process.stdout))
        ending = asyncio.create_task(self._end_when_broken(process.stdin))
        try:
            code = await process.wait()
            await asyncio.wait([reading], timeout=OUTPUT_PATIENCE_S)
        finally:
            for task in filter(None, (reading, ending, self._looking)):
                task.cancel()
            if process.returncode is None:
                process.stdin.close()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), GRACE_S + 5)
        finding = await self._examine(refused=code != 0 and not self._connected)
        if finding.standing is Standing.ENDED:
            how = f"broke down ({self._broken})" if self._broken else f"ended by itself with exit code {code}"
            finding = Finding(Standing.ENDED, f"{finding.words}; the SuperNode {how}")
        self._journal.note(finding)
        return code

    async def _end_when_broken(self, guardian: asyncio.StreamWriter) -> None:
        """Flower's threads end one by one; where the process does not follow, its guardian is told to end it."""
        await self._broke.wait()
        await asyncio.sleep(BROKEN_PATIENCE_S)
        log.warning("the SuperNode broke down and is ended: %s", self._broken)
        guardian.close()

    async def _read(self, stream: asyncio.StreamReader) -> None:
        """Pass Flower's output on, line by line, and notice what it says of the connection."""
        rest = b""
        while chunk := await stream.read(READ_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._hear(line)
            if len(rest) > READ_BYTES:
                self._hear(rest)
                rest = b""

    def _hear(self, line: bytes) -> None:
        text = _COLOURS.sub("", line.decode("utf-8", errors="replace")).strip()
        if text:
            flower_log.info("%s", text)
        if _ADMITTED.search(text) or (self._connected and _BACK.search(text)):
            self._connected = True
            if self._key:
                self._journal.admitted(self._key)
            self._journal.note(Finding(Standing.CONNECTED, f"connected to {self._federation.superlink}"))
        elif _BROKEN.search(text) and not _MENDED.search(text):
            self._broken = self._broken or text[:200]
            self._broke.set()
        elif _RETRYING.search(text):
            now_s = asyncio.get_running_loop().time()
            if now_s >= self._next_look_s and (self._looking is None or self._looking.done()):
                self._next_look_s = now_s + LOOK_PERIOD_S
                self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        """Flower is waiting before it tries again: find out for what, unless it is over already."""
        finding = await self._examine(refused=False)
        if finding.standing is not Standing.ENDED:
            self._journal.note(finding)

    async def _examine(self, *, refused: bool) -> Finding:
        admitted = bool(self._key) and self._journal.was_admitted(self._key)
        return await asyncio.to_thread(examine, self._federation, admitted=admitted, refused=refused)


def supernode_command(settings: GatewaySettings, federation: Federation, port: int) -> list[str]:
    """The ``flower-supernode`` command line; ``port`` is its own runtime API, on loopback."""
    facts = f'store="{settings.store.resolve()}" site="{settings.site}" deadline={federation.deadline_s}'
    if federation.private_key is not None:
        facts += f' identity="{federation.private_key.resolve()}"'
    command = [
        str(Path(sys.executable).parent / "flower-supernode"),
        "--superlink",
        federation.superlink,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--node-config",
        facts,
    ]
    if federation.insecure:
        command.append("--insecure")
    if federation.root_certificates is not None:
        command += ["--root-certificates", str(federation.root_certificates)]
    if federation.private_key is not None:
        command += ["--auth-supernode-private-key", str(federation.private_key)]
    return command


def supernode_environment(settings: GatewaySettings, federation: Federation) -> dict[str, str]:
    """Our own ``FLWR_HOME`` and ClientApp, no telemetry, no update check, no installation of packages at run time."""
    home = federation.home or settings.store.resolve().parent / "flower"
    home.mkdir(parents=True, exist_ok=True)
    programs = home.resolve() / "programs"
    write_programs(programs)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("FLWR_")}
    scripts = str(Path(sys.executable).parent)
    return inherited | {
        "PATH": os.pathsep.join([str(programs), scripts, inherited.get("PATH", os.defpath)]),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "NO_COLOR": "1",
    }


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def guard(command: list[str]) -> int:
    """Run ``command`` until it ends or our standard input does; then nothing of its session is left."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def when_the_gateway_ends() -> None:
        while os.read(0, 4096):
            pass
        _end(child)

    signal.signal(signal.SIGTERM, lambda *_: _end(child))
    threading.Thread(target=when_the_gateway_ends, daemon=True).start()
    code = child.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    return code


def _end(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    timer = threading.Timer(GRACE_S, _kill, (child,))
    timer.daemon = True
    timer.start()


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(guard(sys.argv[1:]))
