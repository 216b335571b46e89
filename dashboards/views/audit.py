"""Who did what, and what came of it."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboards import words
from dashboards.fleet_store import read_audit
from dashboards.session import live, table


def show(store: Path) -> None:
    """Draw the page and keep it fresh."""
    st.header("Audit log", anchor=False)
    live(lambda: _audit(store), "audit")


def _audit(store: Path) -> None:
    entries = read_audit(store)
    if not entries:
        st.caption("Nothing has been recorded yet.")
        return
    st.caption(
        f"Row {entries[0].id} ends the log; its hash begins with `{entries[0].hash[:16]}`."
        " `noria server audit --verify` checks that no row was changed or removed."
    )
    subjects = sorted({entry.subject for entry in entries})
    chosen = st.selectbox("Only about", subjects, index=None, placeholder="Everything")
    entries = [entry for entry in entries if chosen in (None, entry.subject)]
    rows = [
        (entry.id, words.moment(entry.time_s, 0), entry.actor, entry.action, entry.subject, entry.outcome, entry.detail)
        for entry in entries
    ]
    table(rows, ("Row", "When (UTC)", "Who", "Action", "On what", "Outcome", "Detail"))
