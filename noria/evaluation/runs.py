"""One field-year under one controller at one setting, many of them at once, each done only once."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from threading import Thread
from typing import Any, Protocol

from nodes.field.fields import FieldYear
from nodes.field.trial import TrialResult, run_daily, run_node
from noria.evaluation import ledger
from noria.evaluation.controllers import RULES
from shared_models.moments import Snapshot
from shared_models.network import ModelImage


class EvaluationError(RuntimeError):
    """An evaluation that cannot go on; the text says which run failed and why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    water_mm: float
    yield_t_ha: float
    """Dry matter; in the training worlds the relative yield itself."""
    doses: int
    drained_mm: float


@dataclass(frozen=True, slots=True)
class Done:
    """A finished run, with what the node carries over to its next year."""

    outcomes: tuple[Outcome, ...]
    """One per season: a run under the judge is one season, in the training worlds many are stepped together."""
    state: bytes | None = None
    sent: bytes | None = None
    """The node's snapshot as it goes on the air."""

    @property
    def snapshot(self) -> Snapshot | None:
        """The statistics as the gateway has them: sums are known to the rounding of the frames that bring them."""
        return None if self.sent is None else Snapshot.decode(self.sent)


class Run(Protocol):
    """Something to be done once; picklable and hashable."""

    @property
    def title(self) -> str:
        """For error messages."""
        ...

    def determinants(self) -> dict[str, Any]:
        """Everything its result depends on."""
        ...

    def perform(self) -> Done:
        """Do it, in whatever process."""
        ...


@dataclass(frozen=True, slots=True)
class DailyRun:
    """A field-year under a rule that is asked once a day."""

    field: FieldYear
    rule: str
    setting: float

    @property
    def title(self) -> str:
        """For error messages."""
        return f"{_of(self.field)} under {self.rule} at {self.setting:g}"

    def determinants(self) -> dict[str, Any]:
        """Judge, rules, field-year."""
        return {
            "judge": ledger.judge(),
            "rules": ledger.sources("noria/evaluation/controllers.py", "shared_models/agronomy.py"),
            "field": asdict(self.field),
            "rule": self.rule,
            "setting": self.setting,
        }

    def perform(self) -> Done:
        """Live through the season."""
        result = run_daily(self.field, RULES[self.rule].make(self.setting))
        return Done((_outcome(result),))


@dataclass(frozen=True, slots=True)
class NodeRun:
    """A field-year under the node's core in C."""

    field: FieldYear
    threshold_permille: int
    image: bytes | None = None
    """The model it carries."""
    state: bytes | None = None
    """The record that it carries over from the year before."""

    @property
    def title(self) -> str:
        """For error messages."""
        return f"{_of(self.field)} under the node at {self.threshold_permille} ‰"

    def determinants(self) -> dict[str, Any]:
        """Judge, core, model, record, field-year."""
        return {
            "judge": ledger.judge(),
            "core": ledger.core(),
            "field": asdict(self.field),
            "threshold_permille": self.threshold_permille,
            "image": _hash(self.image),
            "state": _hash(self.state),
        }

    def perform(self) -> Done:
        """Live through the season, a wake every quarter of an hour."""
        image = None if self.image is None else ModelImage.unpack(self.image)
        changes = {"threshold_permille": self.threshold_permille}
        trial = run_node(self.field, image, changes=changes, state=self.state)
        return Done((_outcome(trial.result),), trial.state, trial.snapshot.encode())


def do_all(
    runs: Iterable[Run], connection: sqlite3.Connection, processes: int, on_done: Callable[[int], None]
) -> dict[Run, Done]:
    """Results of all runs: looked up where they are known, done and written down where they are not.

    Every result is committed as it arrives; an interrupt loses the runs under way and nothing else.

    Args:
        runs: what to do; what is asked for twice is done once.
        connection: the ledger.
        processes: how many runs at a time.
        on_done: called with how many runs have just become known.

    Raises:
        EvaluationError: a run failed or its process died.
    """
    found: dict[Run, Done] = {}
    waiting: dict[str, list[Run]] = {}
    described: dict[str, str] = {}
    for run in dict.fromkeys(runs):
        key, described_run = ledger.key_of(run.determinants())
        known = _look_up(connection, key)
        if known is None:
            waiting.setdefault(key, []).append(run)
            described[key] = described_run
        else:
            found[run] = known
    on_done(len(found))
    for key, done in _each({key: same[0] for key, same in waiting.items()}, processes):
        _write_down(connection, key, described[key], done)
        found |= dict.fromkeys(waiting[key], done)
        on_done(len(waiting[key]))
    return found


def _each(runs: dict[str, Run], processes: int) -> Iterator[tuple[str, Done]]:
    """Runs as they are done, here or in processes of their own."""
    if processes <= 1:
        for key, run in runs.items():
            try:
                done = run.perform()
            except Exception as error:
                raise _failure(run, error) from error
            yield key, done
        return
    with _pool(min(processes, len(runs) or 1)) as pool:
        futures: dict[Future[Done], str] = {pool.submit(_perform, run, key): key for key, run in runs.items()}
        for future in as_completed(futures):
            key = futures.pop(future)
            try:
                done = future.result()
            except EvaluationError:
                raise
            except BrokenProcessPool as error:
                raise EvaluationError(
                    "a process died, perhaps for want of memory; what is finished is kept, try --processes 1"
                ) from error
            except Exception as error:
                raise _failure(runs[key], error) from error
            yield key, done


@contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that leave an interrupt to this one and are gone when it has ended, however it ends."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_follow_parent)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _follow_parent() -> None:
    """Leave an interrupt to the parent, and do not outlive it: a pool's process waits for ever for a killed one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
    os._exit(1)


def _perform(run: Run, key: str) -> Done:
    """In a process of the pool, which has read the sources later than the one that made the key."""
    if ledger.key_of(run.determinants())[0] != key:
        raise EvaluationError("sources have changed while the evaluation ran; run it again")
    return run.perform()


def _failure(run: Run, error: Exception) -> EvaluationError:
    return EvaluationError(f"{run.title} failed: {type(error).__name__}: {error}")


def _look_up(connection: sqlite3.Connection, key: str) -> Done | None:
    row = connection.execute("SELECT result, state, snapshot FROM runs WHERE key = ?", (key,)).fetchone()
    if row is None:
        return None
    result, state, snapshot = row
    outcomes = tuple(Outcome(**outcome) for outcome in json.loads(result))
    return Done(outcomes, state, snapshot)


def _write_down(connection: sqlite3.Connection, key: str, described: str, done: Done) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?)",
        (key, described, json.dumps([asdict(outcome) for outcome in done.outcomes]), done.state, done.sent),
    )


def _outcome(result: TrialResult) -> Outcome:
    return Outcome(result.water_mm, result.yield_t_ha, result.doses, result.drained_mm)


def _of(field: FieldYear) -> str:
    return f"{field.name} of seed {field.seed} in {field.year}"


def _hash(data: bytes | None) -> str | None:
    return None if data is None else hashlib.blake2b(data, digest_size=16).hexdigest()
