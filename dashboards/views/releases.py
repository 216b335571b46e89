"""Releases and the evidence behind them, and the rounds that released nothing."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboards import charts, words
from dashboards.doors import Role
from dashboards.fleet_store import Evidence, Release, Round, read_clock, read_releases, read_rounds
from dashboards.session import live, now, request, show_notice, table

ORIGINS = {"refresh": "a new backbone", "farms": "farms' own heads", "keys": "a change of keys"}
ROUND_STATES = {
    "asking": "asking the farms",
    "collected": "sums collected",
    "released": "released",
    "refused": "nothing released",
    "failed": "failed",
}


def show(store: Path) -> None:
    """Draw the page and keep it fresh."""
    st.header("Releases", anchor=False)
    show_notice()
    if st.button("Ask the farms for an improvement", help="Starts one federated round"):
        _improve(store)
    live(lambda: _releases(store), "releases")
    st.header("Rounds", anchor=False)
    live(lambda: _rounds(store), "rounds")


def _improve(store: Path) -> None:
    request(store, created_s=now(read_clock(store)), role=Role.OPERATOR, action="improve", arguments={})
    st.rerun()


def _releases(store: Path) -> None:
    releases = read_releases(store)
    if not releases:
        st.info("There is no release yet; the server makes release 1 from the factory model when it starts.")
    for release in releases:
        with st.container(border=True):
            _release(release)
            if release.origin != "factory" and not release.withdrawn:
                _withdraw(store, release)


def _release(release: Release) -> None:
    # The factory model was made before this server kept time.
    when = f" · {words.moment(release.created_s, 0)} UTC"
    origin = "the factory model" if release.origin == "factory" else f"{_made(release)}{when}"
    st.markdown(f"#### Release {release.version}{' — withdrawn' if release.withdrawn else ''}")
    if release.withdrawn:
        st.warning(words.plain(f"Withdrawn {release.withdrawn}"))
    sizes = ", ".join(f"{kind} {size} B" for kind, size in release.artefacts.items()) or "none"
    st.markdown(f"{origin[0].upper()}{origin[1:]} · backbone `{release.backbone_id:08x}` · signed containers: {sizes}")
    show_evidence(release.evidence)
    st.caption(f"{release.nodes} nodes run it · BLAKE2b-256 {release.content_hash}")


def _made(release: Release) -> str:
    if release.origin == "federation":
        return f"learned in round {release.round}"
    return f"{ORIGINS.get(release.origin, release.origin)}, from release {release.base_version}"


def _withdraw(store: Path, release: Release) -> None:
    with st.expander("Withdraw"), st.form(f"withdraw-{release.version}", border=False):
        st.markdown("No further node gets it, for good. Nodes that run it keep it until they are brought a newer one.")
        reason = st.text_input("Why", max_chars=500)
        sent = st.form_submit_button(f"Withdraw release {release.version}")
    if sent:
        request(
            store,
            created_s=now(read_clock(store)),
            role=Role.OPERATOR,
            action="release.withdraw",
            arguments={"release": release.version, "reason": reason},
        )
        st.rerun()


def show_evidence(evidence: Evidence) -> None:
    """Bars per site for each target, and what the gate said."""
    if not evidence.verdicts:
        return
    if evidence.reason:
        st.markdown(f"**The gate:** {words.plain(evidence.reason)}")
    for title, listed in (("keeps what it runs", evidence.held_back), ("did not count", evidence.set_aside)):
        for site, reason in listed.items():
            st.markdown(f"- {words.plain(site)} {title}: {words.plain(reason)}")
    drawn = [
        verdict for verdict in evidence.verdicts if any(entry.target == verdict.target for entry in evidence.errors)
    ]
    columns = st.columns(2)
    for index, verdict in enumerate(drawn):
        with columns[index % 2]:
            st.markdown(f"{words.plain(verdict.target.replace('_', ' '))}: **{words.plain(verdict.decision)}**")
            st.altair_chart(
                charts.evidence(evidence.errors, verdict.target),
                alt=f"Error for {verdict.target} at each farm: physics, before, after. {verdict.reason}",
            )
            if verdict.reason:
                st.caption(words.plain(verdict.reason))


def _rounds(store: Path) -> None:
    rounds = read_rounds(store)
    if not rounds:
        st.caption("No round has been run yet.")
        return
    rows = [
        (
            entry.id,
            words.moment(entry.started_s, 0),
            ROUND_STATES.get(entry.state, entry.state),
            f"{entry.accepted} of {entry.asked}",
            entry.contributors,
            entry.windows,
            entry.reason or (f"became release {entry.version}" if entry.version else ""),
        )
        for entry in rounds
    ]
    table(rows, ("Round", "Started (UTC)", "Outcome", "Farms added", "Nodes", "Dry-down windows", "Why"))
    for entry in rounds[:10]:
        if entry.state in {"refused", "failed"} or entry.objections:
            _refused(entry)


def _refused(entry: Round) -> None:
    state = ROUND_STATES.get(entry.state, entry.state)
    with st.expander(f"Round {entry.id}: {state}. {words.plain(entry.reason)}"):
        for objection in entry.objections:
            st.markdown(f"- {words.plain(objection)}")
        if entry.silent:
            st.markdown(f"- {entry.silent} did not answer")
        show_evidence(entry.evidence)
