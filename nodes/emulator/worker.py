"""A farm in a process of its own, so that farms use as many cores as there are.

The worker is spawned, not forked, and holds one end of a pipe. It ends when told to, and when the pipe closes: a parent
that dies, however it dies, takes its workers with it.
"""

from __future__ import annotations

import signal
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self, TypeVar

from nodes.emulator.air import QueuedDownlink
from nodes.emulator.farm import Advance, FarmReport, FarmSetup, FarmSimulation

STOP_TIMEOUT_S = 5.0

Answer = TypeVar("Answer")


class WorkerError(RuntimeError):
    """The simulation failed in its process; the text holds the traceback from there."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """The farm is set up."""


@dataclass(frozen=True, slots=True)
class _AdvanceRequest:
    until_s: float
    downlinks: tuple[QueuedDownlink, ...]


@dataclass(frozen=True, slots=True)
class _FinishRequest:
    """Bring in the harvest."""


@dataclass(frozen=True, slots=True)
class _Failure:
    remote_traceback: str


class FarmWorker:
    """A :class:`FarmSimulation` elsewhere; calls block, so an event loop makes them in a thread."""

    def __init__(self, setup: FarmSetup) -> None:
        """Args: what to simulate. Returns at once; the first call waits until the farm is set up."""
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._site = setup.site
        self._process = context.Process(target=_serve, args=(theirs, setup), name=f"farm-{setup.site}", daemon=True)
        self._process.start()
        # Only the worker may hold its end, or neither side would ever see the other's death.
        theirs.close()
        self._ready = False

    def wait_ready(self) -> None:
        """Wait until the nodes have been set up.

        Raises:
            WorkerError: they could not be.
        """
        if not self._ready:
            self._receive(_Ready)
            self._ready = True

    def advance(self, until_s: float, downlinks: Sequence[QueuedDownlink] = ()) -> Advance:
        """See :meth:`FarmSimulation.advance`.

        Raises:
            WorkerError: the simulation failed or its process is gone.
        """
        return self._ask(_AdvanceRequest(until_s, tuple(downlinks)), Advance)

    def finish(self) -> FarmReport:
        """See :meth:`FarmSimulation.finish`.

        Raises:
            WorkerError: the simulation failed or its process is gone.
        """
        return self._ask(_FinishRequest(), FarmReport)

    def close(self) -> None:
        """End the process; harmless when it has ended."""
        self._pipe.close()
        self._process.join(STOP_TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Of the worker's process."""
        return self._process.pid

    def _ask(self, request: object, kind: type[Answer]) -> Answer:
        self.wait_ready()
        try:
            self._pipe.send(request)
        except OSError as error:
            raise self._gone() from error
        return self._receive(kind)

    def _receive(self, kind: type[Answer]) -> Answer:
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._gone() from error
        if isinstance(answer, _Failure):
            raise WorkerError(f"farm {self._site}:\n{answer.remote_traceback}")
        if not isinstance(answer, kind):
            raise WorkerError(f"farm {self._site} answered with {type(answer).__name__}")
        return answer

    def _gone(self) -> WorkerError:
        self._process.join(STOP_TIMEOUT_S)
        return WorkerError(f"farm {self._site}: its process has ended with exit code {self._process.exitcode}")


def _serve(pipe: Connection, setup: FarmSetup) -> None:
    """The worker's life: set up, answer requests, end when the pipe does."""
    # Ctrl-C reaches the whole process group; the parent decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        simulation = FarmSimulation(setup)
        pipe.send(_Ready())
        while True:
            request = pipe.recv()
            if isinstance(request, _AdvanceRequest):
                pipe.send(simulation.advance(request.until_s, request.downlinks))
            else:
                pipe.send(simulation.finish())
    except (EOFError, OSError) as error:
        if not isinstance(error, EOFError | BrokenPipeError | ConnectionResetError):
            _report(pipe)
    except Exception:  # noqa: BLE001 (whatever it was, the parent must hear of it)
        _report(pipe)


def _report(pipe: Connection) -> None:
    """Send the traceback home, if home still listens."""
    with suppress(OSError):
        pipe.send(_Failure(traceback.format_exc()))
