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
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from gateway.config import Federation, GatewaySettings
from gateway.pinned import write_programs

log = logging.getLogger(__name__)

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 300.0
STEADY_S = 60.0
"""A SuperNode that lived so long starts the back-off again."""
GRACE_S = 10.0


async def keep_supernode(settings: GatewaySettings, federation: Federation) -> None:
    """Start the SuperNode, and again whenever it ends, until cancelled.

    Flower ends it silently with exit code 0 when it is not registered or the clocks disagree.
    """
    delay_s = FIRST_DELAY_S
    loop = asyncio.get_running_loop()
    while True:
        started_s = loop.time()
        code = await _run_once(settings, federation)
        if loop.time() - started_s > STEADY_S:
            delay_s = FIRST_DELAY_S
        log.warning("the SuperNode ended with exit code %s; again in %.0f s", code, delay_s)
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, LONGEST_DELAY_S)


async def _run_once(settings: GatewaySettings, federation: Federation) -> int | None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway.supernode",
        *supernode_command(settings, federation, free_port()),
        stdin=asyncio.subprocess.PIPE,
        env=supernode_environment(settings, federation),
        start_new_session=True,
    )
    log.info("SuperNode for %s started", federation.superlink)
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            if process.stdin is not None:
                process.stdin.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), GRACE_S + 5)


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
