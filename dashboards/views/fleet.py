"""Operators' first page: every node and gateway, and what was refused."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboards import words
from dashboards.fleet_store import Fleet, read_fleet
from dashboards.session import live, now, settings, table


def show(store: Path) -> None:
    """Draw the page and keep it fresh."""
    st.header("Fleet", anchor=False)
    live(lambda: _fleet(store), "fleet")


def _fleet(store: Path) -> None:
    fleet = read_fleet(store)
    now_s = now(fleet.clock_s)
    silent_s = settings().silent_after_h * 3600
    silent = sum(now_s - node.last_seen_s > silent_s for node in fleet.nodes)
    sick = sum(not node.healthy for node in fleet.nodes)
    low = sum(node.battery_mv < words.BATTERY_LOW_MV for node in fleet.nodes)
    tiles = st.columns(5)
    tiles[0].metric("Nodes", len(fleet.nodes), border=True)
    tiles[1].metric("Gateways", len(fleet.sites), border=True)
    tiles[2].metric("Not heard lately", silent, border=True)
    tiles[3].metric("Need a look", sick, border=True, help="Nodes whose gateway reports a fault")
    tiles[4].metric("Low battery", low, border=True)
    st.caption(f"Server's clock: {words.moment(now_s, 0)} UTC · Federation link: {words.plain(fleet.superlink)}")
    _nodes(fleet, now_s)
    left, right = st.columns(2)
    with left:
        _versions(fleet)
    with right:
        _gateways(fleet, now_s)
    _counters(fleet)


def _nodes(fleet: Fleet, now_s: int) -> None:
    rows = [
        (
            node.dev_eui,
            node.site,
            "✓ good" if node.healthy else "⚠ look",
            node.model_version,
            words.ago(now_s - node.last_seen_s),
            node.battery_mv / 1000,
            words.board(node.board),
            f"{node.backbone_id:08x}",
        )
        for node in fleet.nodes
    ]
    table(
        rows,
        ("Node", "Farm", "Health", "Version", "Last heard", "Battery", "Board", "Backbone"),
        {"Battery": st.column_config.NumberColumn(format="%.2f V")},
    )


def _versions(fleet: Fleet) -> None:
    st.markdown("##### Model versions in the field")
    counts: dict[int, int] = {}
    for node in fleet.nodes:
        counts[node.model_version] = counts.get(node.model_version, 0) + 1
    for version, count in sorted(counts.items(), reverse=True):
        st.progress(count / len(fleet.nodes), text=f"Model {version}: {count} of {len(fleet.nodes)} nodes")


def _gateways(fleet: Fleet, now_s: int) -> None:
    st.markdown("##### Gateways")
    for site in fleet.sites:
        st.markdown(f"**{words.plain(site.site)}** — last status {words.ago(now_s - site.last_status_s)}")
    if not fleet.sites:
        st.caption("None has reported yet.")


def _counters(fleet: Fleet) -> None:
    st.markdown("##### Refused and counted")
    rows = [("server", name, value) for name, value in fleet.counters.items()]
    rows += [(site.site, name, value) for site in fleet.sites for name, value in site.counters.items()]
    rows.sort(key=lambda row: ("refused" not in row[1] and "rejected" not in row[1], row[0], row[1]))
    if not rows:
        st.caption("Nothing has been counted yet.")
        return
    table(
        [(where, name.replace("_", " ").replace(".", ": "), value) for where, name, value in rows],
        ("Where", "What", "Count"),
    )
