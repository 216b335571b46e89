"""The options by which a campaign is described, the same for every command that takes a plan."""

from __future__ import annotations

import datetime as dt
import inspect
import typing
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from server.cli.terminal import fail


def describe(
    release: Annotated[str | None, typer.Option(help="Version, or latest.")] = None,
    site: Annotated[list[str] | None, typer.Option(help="Only this site; may be repeated.")] = None,
    board: Annotated[list[str] | None, typer.Option(help="Only this board; may be repeated.")] = None,
    backbone: Annotated[list[str] | None, typer.Option(help="Only nodes with this backbone (hex); repeatable.")] = None,
    running: Annotated[
        list[str] | None, typer.Option(help="Only nodes that run these versions: 3, 2-4, 2- or -4; may be repeated.")
    ] = None,
    healthy: Annotated[bool | None, typer.Option("--healthy/--unhealthy", help="Only these; all unless given.")] = None,
    battery: Annotated[int | None, typer.Option(min=0, help="Only nodes whose cell has at least so many mV.")] = None,
    device: Annotated[list[str] | None, typer.Option(help="Only this DevEUI; may be repeated.")] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="Size of a group: nodes, or a share of those left such as 10%; repeated, the last 100%."),
    ] = None,
    canary: Annotated[int | None, typer.Option(min=1, help="Nodes in the first group (1), where not --group.")] = None,
    growth: Annotated[
        float | None, typer.Option(min=1, help="Each group relative to the one before (3), where not --group.")
    ] = None,
    success: Annotated[float, typer.Option(min=0, max=1, help="Confirmed share that opens the next group.")] = 0.9,
    error: Annotated[float, typer.Option(min=0, max=1, help="Failed share that halts the campaign.")] = 0.2,
    halt_on_unhealthy: Annotated[
        bool,
        typer.Option(
            help="Count nodes that became unhealthy or silent once they ran the release like failed ones: a model"
            " may pass every check of its node and still do harm."
        ),
    ] = True,
    silent_days: Annotated[float, typer.Option(help="A node not heard for so long is silent.")] = 3.0,
    not_before: Annotated[str | None, typer.Option(help="Send nothing before, ISO 8601, UTC.")] = None,
    not_after: Annotated[str | None, typer.Option(help="Send nothing after, ISO 8601, UTC; then halt.")] = None,
    hours: Annotated[str | None, typer.Option(help="Send in these hours of the day only, UTC, such as 22-5.")] = None,
    automatic: Annotated[
        bool, typer.Option("--automatic", help="Start by itself at --not-before, if approved.")
    ] = False,
) -> dict[str, Any]:
    """A plan as the server takes it; what was not said is left out."""
    if release is not None and release != "latest" and not release.isdecimal():
        fail(f"{release}: a release is a number, or latest")
    said = {
        "release": None if release is None else release if release == "latest" else int(release),
        "sites": site or None,
        "boards": board or None,
        "backbones": [text.lower() for text in backbone or []] or None,
        "versions": running or None,
        "healthy": healthy,
        "minimum_battery_mv": battery,
        "devices": [text.lower() for text in device or []] or None,
        "groups": group or None,
        "canary": canary,
        "growth": growth,
        "success_threshold": success,
        "error_threshold": error,
        "halt_on_unhealthy": halt_on_unhealthy,
        "silent_days": silent_days,
        "not_before": _moment(not_before),
        "not_after": _moment(not_after),
        "hours": _hours(hours),
        "automatic": automatic or None,
    }
    return {key: value for key, value in said.items() if value is not None}


def _moment(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        fail(f"{text}: not a time as in 2026-06-01 or 2026-06-01T22:00")
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).isoformat()


def _hours(text: str | None) -> dict[str, int] | None:
    from server.campaigns.machine import CampaignError
    from server.campaigns.plan import parse_hours

    try:
        return None if text is None else parse_hours(text)
    except CampaignError as error:
        fail(str(error))


def takes_plan(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of :func:`describe` in place of its parameter ``plan``."""
    options, own = inspect.signature(describe).parameters, inspect.signature(command).parameters
    hints = {
        **typing.get_type_hints(describe, include_extras=True),
        **typing.get_type_hints(command, include_extras=True),
    }

    @wraps(command)
    def described(**values: Any) -> None:  # noqa: ANN401
        plan = describe(**{name: values.pop(name) for name in options})
        command(plan=plan, **values)

    merged = [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in {**{name: own[name] for name in own if name != "plan"}, **options}.items()
    ]
    described.__signature__ = inspect.Signature(merged)  # type: ignore[attr-defined]
    described.__annotations__ = {parameter.name: parameter.annotation for parameter in merged}
    return described
