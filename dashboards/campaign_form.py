"""What an operator fills in for a campaign, as the server's plan."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from dashboards.fleet_store import Fleet, Release
from shared_models.codes import Board


@dataclass(frozen=True)
class Sent:
    """Which button was pressed, and what for."""

    plan: dict[str, object]
    preview: bool
    begin: bool
    """Approve and start at once."""


def form(fleet: Fleet, releases: Sequence[Release]) -> Sent | None:
    """Draw the form; None until a button was pressed."""
    with st.form("new-campaign", border=False):
        left, right = st.columns(2)
        offered = [release.version for release in releases if not release.withdrawn]
        said: dict[str, Any] = {
            "release": left.selectbox("Release", offered),
            "sites": right.multiselect("Farms", sorted({node.site for node in fleet.nodes}), placeholder="All farms"),
            "groups": left.text_input(
                "Groups", "1, 100%", help="Nodes, or a share of the nodes left, one after the other: 1, 10%, 100%"
            ),
            "error": right.slider("Halt when more than this share fails, %", 0, 99, 20),
        }
        with st.expander("Which nodes"):
            left, right = st.columns(2)
            said |= {
                "boards": left.multiselect("Boards", [board.name for board in Board], placeholder="All boards"),
                "backbones": right.multiselect(
                    "Backbones",
                    sorted({f"{node.backbone_id:08x}" for node in fleet.nodes}),
                    placeholder="All backbones",
                ),
                "versions": left.text_input("Versions they run", help="3, 2-4, 2- or -4; several with commas"),
                "healthy": right.checkbox("Healthy nodes only"),
                "battery": left.number_input("Battery at least, mV", min_value=0, max_value=6000, value=0, step=50),
            }
        with st.expander("When, and when to stop"):
            left, right = st.columns(2)
            said |= {
                "not_before": left.text_input("Not before (UTC)", placeholder="2026-06-01T22:00"),
                "not_after": right.text_input("Not after (UTC)", placeholder="2026-07-01"),
                "hours": left.text_input("Hours of the day (UTC)", placeholder="22-5"),
                "automatic": right.checkbox("Start by itself at its first time, once approved"),
                "success": left.slider("Share of a group that must confirm, %", 1, 100, 90),
                "halt_on_unhealthy": right.checkbox(
                    "Count nodes that fall ill after the switch as failed",
                    value=True,
                    help="A model can pass every check of its node and still do harm that shows later",
                ),
            }
        begin = st.checkbox("Approve and start at once", value=True)
        with st.container(horizontal=True):
            preview = st.form_submit_button("Preview")
            create = st.form_submit_button("Create and start campaign", type="primary")
    return Sent(plan_of(said), preview, begin) if preview or create else None


def plan_of(said: Mapping[str, Any]) -> dict[str, object]:
    """The server's plan; what was left empty is left out."""
    hours = re.fullmatch(r"\s*([0-9]{1,2})\s*-\s*([0-9]{1,2})\s*", said["hours"])
    plan = {
        "release": said["release"],
        "sites": list(said["sites"]) or None,
        "groups": _listed(said["groups"]),
        "error_threshold": said["error"] / 100,
        "success_threshold": said["success"] / 100,
        "boards": list(said["boards"]) or None,
        "backbones": list(said["backbones"]) or None,
        "versions": _listed(said["versions"]),
        "healthy": True if said["healthy"] else None,
        "minimum_battery_mv": int(said["battery"]) or None,
        "not_before": _moment(said["not_before"]),
        "not_after": _moment(said["not_after"]),
        # What cannot be read goes to the server as it is, which says why it refuses it.
        "hours": {"start": int(hours[1]), "end": int(hours[2])} if hours else said["hours"].strip() or None,
        "automatic": True if said["automatic"] else None,
        "halt_on_unhealthy": bool(said["halt_on_unhealthy"]),
    }
    return {key: value for key, value in plan.items() if value is not None}


def _listed(text: str) -> list[str] | None:
    return [part.strip() for part in text.split(",") if part.strip()] or None


def _moment(text: str) -> str | None:
    """A time as the server reads it: with its zone, which is UTC where none was given."""
    text = text.strip()
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return f"{text}T00:00:00Z"
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?", text):
        return f"{text.replace(' ', 'T')}Z"
    return text or None
