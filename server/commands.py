"""What people ask of the running server, row by row of ``commands`` (see ``server/schema.sql``)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server import campaigns, making, store, supernodes, withdrawals
from server.campaigns import Action, CampaignError, Plan
from server.campaigns.forecast import MAX_LISTED
from server.config import CampaignsSection
from server.releases import ReleaseError
from server.supernodes import SuperNodeError
from shared_models.configuration import explain

IMPROVE = "improve"
REFRESH = "refresh"
CREATE = "campaign.create"
PLAN = "campaign.plan"
RETRY = "campaign.retry"
WITHDRAW = "release.withdraw"
CAMPAIGN_ACTIONS = {f"campaign.{action.value}": action for action in campaigns.OPERATOR_ACTIONS}
SUPERNODE_ACTIONS = {"supernode.add": supernodes.add, "supernode.revoke": supernodes.revoke}
ACTIONS = (IMPROVE, REFRESH, CREATE, PLAN, RETRY, WITHDRAW, *making.ACTIONS, *CAMPAIGN_ACTIONS, *SUPERNODE_ACTIONS)
MAX_ARGUMENTS_CHARACTERS = 1_000_000
STOPPED = {"message": "the server stopped while this was being carried out"}


class CommandError(ValueError):
    """A command that must not be carried out; the text says why."""


@dataclass(frozen=True)
class Command:
    """One row, its arguments read."""

    id: int
    actor: str
    action: str
    arguments: dict[str, Any]


def submit(connection: sqlite3.Connection, actor: str, action: str, arguments: Mapping[str, Any], now_s: int) -> int:
    """Ask the running server for something; the answer appears in the row this returns the id of."""
    cursor = connection.execute(
        "INSERT INTO commands (created_s, actor, action, arguments) VALUES (?, ?, ?, ?)",
        (now_s, actor, action, store.dumps(arguments)),
    )
    assert cursor.lastrowid is not None  # noqa: S101
    return cursor.lastrowid


def pending(connection: sqlite3.Connection) -> list[sqlite3.Row]:
    """Rows nobody has begun, in the order they were written."""
    return connection.execute("SELECT * FROM commands WHERE state = 'pending' ORDER BY id").fetchall()


def read(row: sqlite3.Row) -> Command:
    """A row's arguments, checked for form.

    Raises:
        CommandError: they are not a JSON object, or the action is unknown.
    """
    if row["action"] not in ACTIONS:
        raise CommandError(f"unknown action {row['action']:.60}")
    try:
        if len(row["arguments"]) > MAX_ARGUMENTS_CHARACTERS:
            raise CommandError("the arguments are too long")
        arguments = json.loads(row["arguments"])
    except (ValueError, RecursionError) as error:
        if isinstance(error, CommandError):
            raise
        raise CommandError("the arguments are not JSON") from error
    if not isinstance(arguments, dict):
        raise CommandError("the arguments are not a JSON object")
    return Command(row["id"], row["actor"], row["action"], arguments)


def carry_out(connection: sqlite3.Connection, command: Command, now_s: int, rules: CampaignsSection) -> dict[str, Any]:
    """Carry out a command about a campaign, a release or a SuperNode.

    Raises:
        CommandError: an operator's mistake; nothing has changed.
    """
    try:
        if command.action in SUPERNODE_ACTIONS:
            return SUPERNODE_ACTIONS[command.action](connection, command.actor, command.arguments, now_s)
        if command.action == WITHDRAW:
            return withdrawals.withdraw(connection, command.actor, command.arguments, now_s)
        if command.action == PLAN:
            return _plan(connection, command)
        if command.action == CREATE:
            plan = Plan.model_validate(command.arguments)
            return _created(connection, campaigns.create(connection, command.actor, plan, now_s))
        if command.action == RETRY:
            return _retry(connection, command, now_s)
        return _act(connection, command, CAMPAIGN_ACTIONS[command.action], now_s, rules)
    except (CampaignError, ReleaseError, SuperNodeError) as error:
        raise CommandError(str(error)) from error
    except ValidationError as error:
        raise CommandError(explain(error)) from error


class Retry(BaseModel):
    """Which campaign's failed nodes, and what they shall get; the same release unless given."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    campaign: Annotated[int, Field(ge=1)]
    release: Annotated[int, Field(ge=1)] | None = None


def _retry(connection: sqlite3.Connection, command: Command, now_s: int) -> dict[str, Any]:
    wish = Retry.model_validate(command.arguments)
    return _created(connection, campaigns.retry(connection, command.actor, wish.campaign, wish.release, now_s))


def _plan(connection: sqlite3.Connection, command: Command) -> dict[str, Any]:
    expected = campaigns.forecast(connection, Plan.model_validate(command.arguments))
    return {
        "plan": expected.to_json(limit=MAX_LISTED),
        "message": f"release {expected.version} would go to {len(expected.nodes)} nodes"
        f" in {len(expected.sizes)} groups; nothing has been done",
    }


def _created(connection: sqlite3.Connection, campaign: int) -> dict[str, Any]:
    overview = campaigns.overview(connection, campaign)[0]
    held_back = campaigns.held_back(connection, campaign)
    return {
        "campaign": campaign,
        "version": overview["version"],
        "nodes": overview["nodes"],
        "groups": overview["groups"],
        "held_back": held_back,
        "message": f"campaign {campaign}: release {overview['version']} to {overview['nodes']} nodes"
        f" in {overview['groups']} groups" + (f"; held back: {', '.join(held_back)}" if held_back else ""),
    }


def _act(
    connection: sqlite3.Connection, command: Command, action: Action, now_s: int, rules: CampaignsSection
) -> dict[str, Any]:
    campaign = command.arguments.get("campaign")
    if type(campaign) is not int or set(command.arguments) != {"campaign"}:
        raise CommandError('the arguments must be {"campaign": <number>}')
    state = campaigns.act(connection, command.actor, campaign, action, now_s, second_operator=rules.second_operator)
    done = "is approved" if action is Action.APPROVE else f"is {state.value}"
    return {"campaign": campaign, "campaign_state": state.value, "message": f"campaign {campaign} {done}"}


def begin(connection: sqlite3.Connection, command: int) -> None:
    """Mark a row as being carried out."""
    connection.execute("UPDATE commands SET state = 'running' WHERE id = ?", (command,))


def finish(
    connection: sqlite3.Connection, command: int, state: store.Outcome, result: Mapping[str, Any], now_s: int
) -> None:
    """Write down what became of a command."""
    connection.execute(
        "UPDATE commands SET state = ?, finished_s = ?, result = ? WHERE id = ?",
        (state, now_s, store.dumps(result), command),
    )


def give_up_unfinished(connection: sqlite3.Connection, now_s: int) -> None:
    """What a stopped server had begun has failed, but for rounds; what it had not begun is still carried out."""
    connection.execute(
        "UPDATE commands SET state = 'failed', finished_s = ?, result = ? WHERE state = 'running' AND action <> ?",
        (now_s, store.dumps(STOPPED), IMPROVE),
    )


def conclude_round(connection: sqlite3.Connection, outcome: Mapping[str, Any] | None, now_s: int) -> None:
    """Settle the round that a stopped server had begun.

    Args:
        connection: The server's store.
        outcome: Of the round, where it was finished for it; without one it has failed.
        now_s: The server's clock.
    """
    state, result = ("failed", STOPPED) if outcome is None else ("done", outcome)
    connection.execute(
        "UPDATE commands SET state = ?, finished_s = ?, result = ? WHERE state = 'running' AND action = ?",
        (state, now_s, store.dumps(result), IMPROVE),
    )
