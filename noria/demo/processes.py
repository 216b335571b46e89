"""Child processes of the demo: started together, watched, and all gone when the demo ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


class ProcessError(RuntimeError):
    """A child process did not start, or ended while it was needed; the text holds its last log lines."""


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def accepts_connections(port: int) -> bool:
    """Whether somebody listens on this loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Child:
    """A started process and what is needed to start it again."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log_path: Path
    process: subprocess.Popen[bytes]

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def last_lines(self, count: int = 12) -> str:
        """The end of the process's log."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-count:])
        return ""


@dataclass
class Processes:
    """Starts children in sessions of their own and stops every one of them, whatever happens.

    Args:
        log_directory: each child's output goes to ``<name>.log`` there.
    """

    log_directory: Path
    children: dict[str, Child] = field(default_factory=dict)

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Child:
        """Start (or start again) a child under ``name``."""
        log_path = self.log_directory / f"{name}.log"
        merged = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})}
        with log_path.open("ab") as log:
            # setpriv: the kernel ends the child if the demo itself is killed without a chance to clean up.
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=merged,
                start_new_session=True,
            )
        child = Child(name, command, environment or {}, log_path, process)
        self.children[name] = child
        return child

    def restart(self, name: str) -> Child:
        """Start a child that ended (or was killed) with the same command."""
        old = self.children[name]
        return self.start(name, old.command, old.environment)

    def kill(self, name: str) -> None:
        """``kill -9`` a child and everything in its session's process group."""
        child = self.children[name]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGKILL)
        child.process.wait()

    def wait_until(self, ready: Callable[[], bool], name: str, what: str, timeout_s: float = 60.0) -> None:
        """Poll ``ready`` until it holds.

        Raises:
            ProcessError: the child ended first, or the time was up.
        """
        child = self.children[name]
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not child.alive:
                raise ProcessError(f"{name} ended (exit code {child.process.returncode}):\n{child.last_lines()}")
            if time.monotonic() > deadline:
                raise ProcessError(f"{name}: {what} not within {timeout_s:.0f} s:\n{child.last_lines()}")
            time.sleep(0.05)

    def check(self) -> None:
        """Raises :class:`ProcessError` if a child has ended."""
        for child in self.children.values():
            if not child.alive:
                raise ProcessError(f"{child.name} ended (exit code {child.process.returncode}):\n{child.last_lines()}")

    def stop(self, grace_s: float = 15.0) -> None:
        """Ask the children to end, newest first, then insist."""
        for child in reversed(self.children.values()):
            if child.alive:
                child.process.terminate()
        deadline = time.monotonic() + grace_s
        for child in reversed(self.children.values()):
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.1, deadline - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.process.pid, signal.SIGKILL)
            child.process.wait()
        self.children.clear()
