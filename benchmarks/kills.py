"""Invariant I4 under fire: a hundred random kills of real processes, and the sums and releases stay what they are.

Nodes' statistics arrive in epochs. In each, gateways are killed while uplinks come in, and while a round is being
held a gateway, a ClientApp, the SuperLink, the ServerApp or the server is killed at a random moment; rounds are
asked for until one has decided with every site. The same epochs without a kill must leave the same sums in every
round that decided, and every container of every release the same to the byte.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from benchmarks.fleet import Fleet, until

SITES = ("champion", "tunis")
KILLS = 100
EPOCHS = 10
SEED = 20_261
FED_SHARE = 0.5
"""Of an epoch's kills: those that hit a gateway while uplinks come in; the others hit a round."""
TARGETS = ("ServerApp", "SuperLink", "ClientApp", "gateway", "server")
WEIGHTS = (4, 3, 1, 2, 2)
"""A killed ClientApp blocks its SuperNode until Flower notices, more than a minute later: fewer of them."""
STAGES = ("asked", "flwr-serverapp", "flwr-clientapp", "collected")
"""Of a round: it was asked for; these processes were seen; its sums are in the store."""
LONGEST_DELAY_S = 3.0
"""From the stage to the kill."""
ATTEMPTS = 60
REPLY_TIMEOUT_S = 75.0

Facts = list[tuple[dict[str, tuple[bytes, ...]], list[tuple[int, str, int, bytes]]]]


class Killer:
    """Kills by seed and keeps count."""

    def __init__(self, fleet: Fleet, kills: int, seed: int) -> None:
        self.fleet, self.left = fleet, kills
        self.dice = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.rounds: Counter[str] = Counter()

    def gateway(self) -> None:
        """Kill one and start it again."""
        gateway = self.fleet.gateways[self.dice.choice(self.fleet.sites)]
        gateway.kill()
        gateway.start()

    def one(self, target: str) -> None:
        """Kill a process of this kind if there is one now; a server and a gateway are started again at once."""
        if target == "gateway":
            self.gateway()
        elif target == "server":
            self.fleet.server.kill()
            self.fleet.server.start()
        else:
            name = {"ServerApp": "flwr-serverapp", "ClientApp": "flwr-clientapp", "SuperLink": "flower-superlink"}[
                target
            ]
            found = self.fleet.processes(name)
            if not found:
                return
            with contextlib.suppress(psutil.NoSuchProcess):
                self.dice.choice(found).kill()
        self.left -= 1
        self.done[target] += 1

    def while_feeding(self, kills: int) -> Callable[[], None]:
        """Something to call before each node's uplinks: kills a gateway now and then."""
        budget = [min(kills, self.left)]

        def disturb() -> None:
            if budget[0] and self.dice.random() < 0.7:
                budget[0] -= 1
                self.left -= 1
                self.done["gateway, fed"] += 1
                self.gateway()

        return disturb


def reached(fleet: Fleet, stage: str) -> None:
    """Wait until a round is at this stage, or over."""
    if stage == "asked":
        return

    def there() -> bool:
        if not fleet.query("SELECT 1 FROM commands WHERE state IN ('pending', 'running')"):
            return True
        return fleet.round_state() == "collected" if stage == "collected" else bool(fleet.processes(stage))

    until(there, f"a round at the stage: {stage}")


def hold_round(fleet: Fleet, killer: Killer | None) -> bool:
    """Ask for one round, perhaps kill something in it, and see it end; whether it decided with every site."""
    fleet.until_up()
    before = len(fleet.query("SELECT id FROM rounds"))
    fleet.ask()
    if killer is not None:
        target = killer.dice.choices(TARGETS, WEIGHTS)[0]
        first = {"ServerApp": 1, "ClientApp": 2}.get(target, 0)
        reached(fleet, killer.dice.choice(STAGES[first : 3 if target == "ClientApp" else 4]))
        if target != "ClientApp":
            time.sleep(killer.dice.uniform(0, LONGEST_DELAY_S))
        killer.one(target)
    until(
        lambda: not fleet.query("SELECT 1 FROM commands WHERE state IN ('pending', 'running')"), "the round has ended"
    )
    until(lambda: not fleet.query("SELECT 1 FROM rounds WHERE finished_s IS NULL"), "no round is open")
    rounds = fleet.query("SELECT state, accepted FROM rounds ORDER BY id")[before:]
    for row in rounds:
        if killer is not None:
            killer.rounds[row["state"]] += 1
    return any(row["state"] in ("released", "refused") and row["accepted"] == len(fleet.sites) for row in rounds)


def hold_epoch(fleet: Fleet, epoch: int, killer: Killer | None, kills: int) -> None:
    """Statistics come in, and rounds are held until one has decided."""
    fed = round(FED_SHARE * kills)
    fleet.feed(epoch, 60 + 20 * epoch, killer.while_feeding(fed) if killer else lambda: None)
    left = min(kills - fed, killer.left) if killer else 0
    for _ in range(ATTEMPTS):
        if hold_round(fleet, killer if left > 0 else None):
            return
        left -= 1
    raise RuntimeError(f"epoch {epoch}: no round decided in {ATTEMPTS} attempts")


def play(folder: Path, epochs: int, kills: int, seed: int) -> tuple[Facts, Killer, float]:
    """Every epoch, and more until the kills are spent; what was decided and released in each."""
    fleet = Fleet(folder, SITES, reply_timeout_s=REPLY_TIMEOUT_S)
    killer, facts, started = Killer(fleet, kills, seed), [], time.monotonic()
    with fleet.running():
        while len(facts) < epochs or killer.left > 0:
            share = -(-killer.left // max(1, epochs - len(facts)))
            hold_epoch(fleet, len(facts), killer if kills else None, share)
            facts.append((fleet.sums_of_newest_round(), fleet.released()))
            print(f"epoch {len(facts)}: {dict(killer.done)}, {time.monotonic() - started:.0f} s", flush=True)
    return facts, killer, time.monotonic() - started


def measure() -> dict[str, Any]:
    """Both ways through, and whether they agree."""
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        folder = Path(name)
        for part in ("disturbed", "undisturbed"):
            (folder / part).mkdir()
        disturbed, killer, spent_s = play(folder / "disturbed", EPOCHS, KILLS, SEED)
        undisturbed, _, quiet_s = play(folder / "undisturbed", len(disturbed), 0, SEED)
    return {
        "seed": SEED,
        "epochs": len(disturbed),
        "kills": sum(killer.done.values()),
        "killed": dict(sorted(killer.done.items())),
        "rounds_while_killing": dict(sorted(killer.rounds.items())),
        "releases": len({version for version, *_ in disturbed[-1][1]}),
        "sums_identical": [one[0] for one in disturbed] == [other[0] for other in undisturbed],
        "releases_identical": [one[1] for one in disturbed] == [other[1] for other in undisturbed],
        "minutes_disturbed": round(spent_s / 60, 1),
        "minutes_undisturbed": round(quiet_s / 60, 1),
    }
