"""Campaigns: bring a release to the nodes, group by group, and stop when it goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from dashboards import pictures, words
from dashboards.access import command_result
from dashboards.campaign_form import form
from dashboards.doors import Role
from dashboards.fleet_store import Campaign, Group, read_campaigns, read_clock, read_fleet, read_releases
from dashboards.session import live, now, request, show_notice, table
from shared_models.codes import CampaignState

OPEN_STATES = {CampaignState.DRAFT, CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.HALTED}
RETRIED_STATES = {CampaignState.HALTED, CampaignState.ABORTED, CampaignState.DONE}


def show(store: Path) -> None:
    """Draw the page: the form on top, then campaigns, kept fresh."""
    st.header("Campaigns", anchor=False)
    show_notice()
    _create(store)
    live(lambda: _campaigns(store), "campaigns")


def actions_for(campaign: Campaign) -> list[tuple[str, str]]:
    """What may be asked of a campaign in its state: action and label."""
    actions = []
    if campaign.state == CampaignState.DRAFT:
        actions.append(("campaign.start", "Start") if campaign.approved else ("campaign.approve", "Approve"))
    if campaign.state == CampaignState.RUNNING:
        actions.append(("campaign.pause", "Pause"))
    if campaign.state == CampaignState.PAUSED:
        actions.append(("campaign.resume", "Resume"))
    if campaign.state in OPEN_STATES:
        actions.append(("campaign.abort", "Abort"))
    if campaign.state in RETRIED_STATES and campaign.lost:
        actions.append(("campaign.retry", "Try the failed again"))
    return actions


def _create(store: Path) -> None:
    fleet, releases = read_fleet(store), read_releases(store)
    if not releases:
        st.info("There is nothing to bring out yet.")
        return
    with st.container(border=True):
        st.markdown("##### Bring a release to the nodes")
        sent = form(fleet, releases)
        if sent is not None and sent.preview:
            _preview(store, sent.plan)
    if sent is not None and not sent.preview:
        _start(store, sent.plan, begin=sent.begin)


def _preview(store: Path, plan: dict[str, object]) -> None:
    created_s = now(read_clock(store))
    command = request(store, created_s=created_s, role=Role.OPERATOR, action="campaign.plan", arguments=plan)
    show_notice()
    expected = command_result(store, command).get("plan") if command is not None else None
    if isinstance(expected, dict):
        show_forecast(expected)


def show_forecast(expected: Mapping[str, Any]) -> None:
    """A dry run: groups with what they cost, and what each node would get."""
    st.markdown(f"Release {expected['version']}, as if no frame were lost:")
    parts = [*expected["groups"], {"nodes": expected["nodes"], **expected["total"]}]
    names = [*(_group_name(number) for number in range(len(expected["groups"]))), "All"]
    table(
        [
            (
                name,
                part["nodes"],
                part["downlinks"],
                f"{part['downlink_airtime_s']:.1f} s",
                f"{part['uplink_airtime_s']:.1f} s",
                f"{part['charge_uah']:.0f} µAh",
            )
            for name, part in zip(names, parts, strict=True)
        ],
        ("Group", "Nodes", "Downlinks", "Gateways' airtime", "Nodes' airtime", "Charge"),
    )
    table(
        [
            (
                node["dev_eui"],
                node["site"],
                _group_name(node["group"]),
                node["running"],
                node["artefact"] or "nothing that it can apply",
                node["size_bytes"],
                node["cost"]["downlinks"],
            )
            for node in expected["devices"]
        ],
        ("Node", "Farm", "Group", "Runs", "Gets", "Bytes", "Downlinks"),
    )
    if expected["held_back"]:
        st.caption(words.plain(f"Held back: {', '.join(expected['held_back'])}; their nodes keep what they run."))
    if expected["data_rates_unknown"]:
        st.caption(f"{expected['data_rates_unknown']} nodes' data rates are not known; the slowest was taken.")


def _start(store: Path, arguments: dict[str, object], *, begin: bool) -> None:
    created_s = now(read_clock(store))
    command = request(store, created_s=created_s, role=Role.OPERATOR, action="campaign.create", arguments=arguments)
    campaign = command_result(store, command).get("campaign") if command is not None else None
    if begin and campaign is not None:
        for action in ("campaign.approve", "campaign.start"):
            done = request(
                store, created_s=created_s, role=Role.OPERATOR, action=action, arguments={"campaign": campaign}
            )
            if done is None:
                break
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
    approved = f"approved by {campaign.approved_by}" if campaign.approved else "not approved"
    st.markdown(f"#### Campaign {campaign.id}: release {campaign.version} — {state}")
    created = f"Created by {campaign.created_by}, {words.moment(campaign.created_s, 0)} UTC, {approved}."
    if campaign.retry_of is not None:
        created += f" For the nodes that failed in campaign {campaign.retry_of}."
    st.caption(words.plain(f"{created} {schedule(campaign.asked)} {campaign.reason}"))
    st.html("".join(_group(group) for group in campaign.groups))
    if campaign.expected_end_s is not None:
        st.caption(f"At the pace so far it ends {words.moment(campaign.expected_end_s, 0)} UTC.")
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
                node.ailment or node.detail,
                node.downlinks,
                "" if node.updated_s is None else words.ago(now_s - node.updated_s),
            )
            for node in campaign.nodes
        ]
        table(rows, ("Node", "Farm", "Group", "State", "Remark", "Downlinks", "Changed"))


def _group_name(index: int) -> str:
    return "Canary" if index == 0 else f"Group {index + 1}"


def _group(group: Group) -> str:
    note = "" if group.opened else "waits for the group before it"
    if group.ailing:
        note = f"{group.ailing} unhealthy or silent since the switch"
    return pictures.group_bar(
        _group_name(group.index),
        group.nodes,
        group.confirmed,
        group.lost,
        note,
        trial=group.activated,
        sending=group.sending,
    )


def schedule(asked: Mapping[str, object]) -> str:
    """When a campaign may send, in words; empty where it always may."""
    parts = [f"{name.replace('_', ' ')} {asked[name]}" for name in ("not_before", "not_after") if asked.get(name)]
    hours = asked.get("hours")
    if isinstance(hours, dict):
        parts.append(f"from {hours.get('start')} to {hours.get('end')} h UTC")
    return f"Sends {', '.join(parts)}." if parts else ""
