"""Campaigns: bring a release to the nodes, group by group, and stop when it goes wrong."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboards import pictures, words
from dashboards.doors import Role
from dashboards.fleet_store import Campaign, Group, read_campaigns, read_clock, read_fleet, read_releases
from dashboards.session import live, now, request, show_notice, table
from shared_models.codes import CampaignState

OPEN_STATES = {CampaignState.DRAFT, CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.HALTED}


def show(store: Path) -> None:
    """Draw the page: the form on top, then campaigns, kept fresh."""
    st.header("Campaigns", anchor=False)
    show_notice()
    _create(store)
    live(lambda: _campaigns(store), "campaigns")


def actions_for(campaign: Campaign) -> list[tuple[str, str]]:
    """What may be asked of a campaign in its state: action and label."""
    if campaign.state not in OPEN_STATES:
        return []
    actions = []
    if not campaign.approved:
        actions.append(("campaign.approve", "Approve"))
    elif campaign.state == CampaignState.DRAFT:
        actions.append(("campaign.start", "Start"))
    if campaign.state == CampaignState.RUNNING:
        actions.append(("campaign.pause", "Pause"))
    if campaign.state in {CampaignState.PAUSED, CampaignState.HALTED}:
        actions.append(("campaign.resume", "Resume"))
    return [*actions, ("campaign.abort", "Abort")]


def _create(store: Path) -> None:
    fleet, releases = read_fleet(store), read_releases(store)
    if not releases:
        st.info("There is nothing to bring out yet.")
        return
    sites = sorted({node.site for node in fleet.nodes})
    with st.expander("Bring a release to the nodes", expanded=True), st.form("new-campaign", border=False):
        left, right = st.columns(2)
        version = left.selectbox("Release", [release.version for release in releases])
        chosen = right.multiselect("Farms", sites, placeholder="All farms")
        canary = left.number_input("Nodes in the first group", min_value=1, max_value=100, value=1, step=1)
        growth = right.number_input("Growth of the groups", min_value=1.0, max_value=10.0, value=3.0, step=0.5)
        failures = left.slider("Halt when more than this share fails, %", 0, 100, 20)
        begin = right.checkbox("Approve and start at once", value=True)
        sent = st.form_submit_button("Create and start campaign", type="primary")
    if sent:
        arguments: dict[str, object] = {
            "release": version,
            "sites": chosen or None,
            "canary": int(canary),
            "growth": float(growth),
            "error_threshold": failures / 100,
        }
        _start(store, arguments, begin=begin)


def _start(store: Path, arguments: dict[str, object], *, begin: bool) -> None:
    before = {campaign.id for campaign in read_campaigns(store)}
    created_s = now(read_clock(store))
    request(store, created_s=created_s, role=Role.OPERATOR, action="campaign.create", arguments=arguments)
    made = sorted({campaign.id for campaign in read_campaigns(store)} - before)
    if begin and len(made) == 1:
        for action in ("campaign.approve", "campaign.start"):
            request(store, created_s=created_s, role=Role.OPERATOR, action=action, arguments={"campaign": made[0]})
    st.rerun()


def _campaigns(store: Path) -> None:
    campaigns = read_campaigns(store)
    now_s = now(read_clock(store))
    if not campaigns:
        st.caption("No campaign yet.")
    for position, campaign in enumerate(campaigns):
        with st.container(border=True):
            _campaign(store, campaign, now_s, expanded=position == 0)


def _campaign(store: Path, campaign: Campaign, now_s: int, *, expanded: bool) -> None:
    state = words.campaign_state(campaign.state)
    approved = "approved" if campaign.approved else "not approved"
    st.markdown(f"#### Campaign {campaign.id}: release {campaign.version} — {state}")
    created = f"Created by {campaign.created_by}, {words.moment(campaign.created_s, 0)} UTC, {approved}."
    st.caption(words.plain(f"{created} {campaign.reason}"))
    st.html("".join(_group(group) for group in campaign.groups))
    with st.container(horizontal=True):
        for action, label in actions_for(campaign):
            if st.button(
                label, key=f"{action}-{campaign.id}", type="primary" if label in {"Approve", "Start"} else "secondary"
            ):
                request(store, created_s=now_s, role=Role.OPERATOR, action=action, arguments={"campaign": campaign.id})
                st.rerun()
    with st.expander("Nodes", expanded=expanded):
        rows = [
            (
                node.dev_eui,
                node.site,
                _group_name(node.group),
                words.update_state(node.state),
                node.detail,
                node.downlinks,
                "" if node.updated_s is None else words.ago(now_s - node.updated_s),
            )
            for node in campaign.nodes
        ]
        table(rows, ("Node", "Farm", "Group", "State", "Remark", "Downlinks", "Changed"))


def _group_name(index: int) -> str:
    return "Canary" if index == 0 else f"Group {index}"


def _group(group: Group) -> str:
    note = "" if group.opened else "waits for the group before it"
    return pictures.group_bar(_group_name(group.index), group.nodes, group.confirmed, group.lost, note)
