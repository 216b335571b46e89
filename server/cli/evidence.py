"""``noria server explain``: why a release exists."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from server.cli.terminal import (
    DEFAULT_CONFIG,
    REFUSED,
    ConfigOption,
    JsonOption,
    app,
    console,
    fail,
    load,
    print_json,
    rows,
    table,
)


@app.command()
def explain(
    release: Annotated[int, typer.Argument(min=1, help="The release's version.")],
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    plot: Annotated[Path | None, typer.Option(help="Draw the error per site before and after into this SVG.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Why a release exists: where it came from and what the gate saw."""
    found = rows(load(config), "SELECT version, origin, provenance, evidence FROM releases WHERE version = ?", release)
    if not found:
        fail(f"there is no release {release}", REFUSED)
    provenance, evidence = json.loads(found[0]["provenance"]), json.loads(found[0]["evidence"])
    if plot:
        _draw(release, evidence, plot)
    if as_json:
        print_json({"version": release, "provenance": provenance, "evidence": evidence})
        return
    console.print(f"release {release}: {found[0]['origin']}", highlight=False)
    console.print_json(data=provenance)
    if evidence and "targets" not in evidence:  # of a refresh: simulated fields, no sites
        console.print_json(data=evidence)
    elif evidence:
        console.print(_evidence_table(evidence))
        for target in evidence["targets"]:
            console.print(f"{target['target']}: {target['decision']}, {target['reason']}", highlight=False)
            for rival in ("running", "physics"):
                if seen := target.get(f"against_{rival}"):
                    console.print(f"  against the {rival}: {_compared(seen)}", highlight=False)
        if evidence.get("levels"):
            console.print(_levels_table(evidence["levels"]))
        for title, listed in (("held back", evidence.get("held_back")), ("set aside", evidence.get("set_aside"))):
            for site, reason in (listed or {}).items():
                console.print(f"{title}: {site}, {reason}", markup=False, highlight=False)
    if plot:
        console.print(f"{plot}", markup=False, highlight=False)


def _draw(release: int, evidence: Mapping[str, Any], plot: Path) -> None:
    from server.evidence_chart import evidence_chart

    if "targets" not in evidence:
        fail(f"release {release} has no evidence to draw: it was not learned from the fleet", REFUSED)
    try:
        plot.write_text(evidence_chart(evidence, f"Release {release}"), encoding="utf-8")
    except OSError as error:
        fail(f"{plot}: cannot be written: {error.strerror}")


def _compared(seen: Mapping[str, Any]) -> str:
    """A comparison for people."""
    if seen["low"] is None:
        return f"{seen['ratio']:.4f} of the squared error, {seen['sites']} sites: too few for an interval"
    return f"{seen['ratio']:.4f} of the squared error [{seen['low']:.4f}, {seen['high']:.4f}], {seen['sites']} sites"


def _levels_table(levels: list[dict[str, Any]]) -> Table:
    return table(
        "What heads are worth by level, out of sample; only the fleet's is released",
        {
            "target": [entry["target"] for entry in levels],
            "level": [
                f"{entry['level']} ({entry['groups']} of them)" if entry.get("groups") else entry["level"]
                for entry in levels
            ],
            "prior, windows": [
                "as above" if entry["strength_windows"] is None else f"{entry['strength_windows']:.0f}"
                for entry in levels
            ],
            "against the running": [_compared(entry["against_running"]) for entry in levels],
            "against the level above": [_compared(entry["against_above"]) for entry in levels],
        },
    )


def _evidence_table(evidence: Mapping[str, Any]) -> Table:
    columns: dict[str, list[str]] = {
        name: [] for name in ("target", "site", "windows", "physics", "running", "candidate")
    }
    for target in evidence["targets"]:
        figures = [*target["sites"].items(), ("all", target["total"])]
        for site, entry in figures:
            physics = entry["physics"] or 1.0
            columns["target"].append(target["target"])
            columns["site"].append(site)
            columns["windows"].append(str(entry["windows"]))
            columns["physics"].append(f"{entry['physics']:.0f}")
            columns["running"].append(f"{entry['running'] / physics:.4f}")
            columns["candidate"].append(f"{entry['candidate'] / physics:.4f}")
    return table("Squared error out of sample: physics in steps², running and candidate relative to it", columns)
