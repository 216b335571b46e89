"""What every page shares: the settings, the clock, who is signed in, and how an error is told."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import streamlit as st

from dashboards import words
from dashboards.access import StoreUnavailableError, ask, command_status
from dashboards.config import DashboardSettings
from dashboards.doors import Door, Role, TooManyAttemptsError
from dashboards.pictures import DARK, LIGHT, Palette
from shared_models.configuration import ConfigurationError

SCROLLS_FROM_ROWS = 12
_WAIT_S = {Role.FARMER: 1.5, Role.OPERATOR: 6.0}
"""How long a page waits for an answer: a node answers in hours, a server at once."""
_POLL_S = 0.2


def settings() -> DashboardSettings:
    """The configuration named on the command line, read once per process."""
    loaded: DashboardSettings = st.cache_resource(_load, show_spinner=False)(_config_path())
    return loaded


def _config_path() -> str:
    if len(sys.argv) == 3 and sys.argv[1] == "--config":
        return sys.argv[2]
    raise ConfigurationError("start with: noria dashboard run --config FILE")


def _load(path: str) -> DashboardSettings:
    return DashboardSettings.from_toml(Path(path))


def door() -> Door:
    """The process's one door."""
    made: Door = st.cache_resource(_make_door, show_spinner=False)(_config_path())
    return made


def _make_door(path: str) -> Door:
    return Door(_load(path))


def now(clock_s: int | None) -> int:
    """Seconds UTC; a simulated season's clock is the one in its store."""
    if settings().clock == "simulated" and clock_s is not None:
        return clock_s
    return int(time.time())


def palette() -> Palette:
    """The colours of the theme this reader looks at."""
    return DARK if st.context.theme.type == "dark" else LIGHT


def allowed(role: Role) -> bool:
    """Whether this browser session may act as ``role``; an operator may do what a farmer may."""
    return door().stands_open(role) or role in _roles()


def _roles() -> set[Role]:
    signed_in: set[Role] = st.session_state.setdefault("roles", set())
    return signed_in


def actor(role: Role) -> str:
    """Who is recorded as having asked."""
    name = str(st.session_state.get("actor", "")).strip()
    return f"{role.value} {name}" if name else role.value


def sign_in(role: Role) -> None:
    """A form that lets ``role`` in; shown where :func:`allowed` says no."""
    with st.form(f"sign-in-{role.value}", border=True, width=420):
        st.markdown(f"**For {'operators' if role is Role.OPERATOR else 'the farm'} only**")
        name = st.text_input("Your name", max_chars=40)
        password = st.text_input("Password", type="password", max_chars=200)
        if not st.form_submit_button("Sign in", type="primary"):
            return
    try:
        admitted = door().admits(role, password)
    except TooManyAttemptsError:
        st.error("Too many wrong passwords. Please wait a minute.")
        return
    except ConfigurationError as error:
        st.error(str(error))
        return
    if not admitted:
        st.error("That is not the password.")
        return
    _roles().update({role, Role.FARMER} if role is Role.OPERATOR else {role})
    st.session_state["actor"] = name
    st.rerun()


def live(body: Callable[[], None], key: str) -> None:
    """Draw ``body`` now and again every few seconds, telling in words when a store cannot be read."""

    def guarded() -> None:
        try:
            body()
        except StoreUnavailableError as error:
            st.warning(str(error))

    guarded.__qualname__ = f"live_{key}"
    st.fragment(guarded, run_every=settings().refresh_s)()


def request(store: Path, *, created_s: int, role: Role, action: str, arguments: dict[str, object]) -> int | None:
    """Ask the service behind ``store`` for something and tell what came of it so far.

    Returns:
        The command's number where it has been carried out.
    """
    if not allowed(role):
        st.error("Please sign in first.")
        return None
    try:
        command = ask(store, created_s=created_s, actor=actor(role), action=action, arguments=arguments)
        status = command_status(store, command)
        deadline = time.monotonic() + _WAIT_S[role]
        while not status.finished and status.state in {"new", "pending", "running"} and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            status = command_status(store, command)
    except StoreUnavailableError as error:
        st.session_state["notice"] = ("error", str(error))
        return None
    if status.state in {"refused", "failed"}:
        st.session_state["notice"] = ("error", f"Refused: {words.plain(status.message) or 'no reason given'}")
    elif status.state == "done":
        st.session_state["notice"] = ("success", words.plain(status.message) or "Done.")
        return command
    elif role is Role.FARMER:
        st.session_state["notice"] = ("info", "Noted. The node learns of it the next time it calls in.")
    else:
        st.session_state["notice"] = ("info", "Asked. The server will carry it out when it comes to it.")
    return None


def table(rows: Sequence[tuple[object, ...]], columns: Sequence[str], config: dict[str, object] | None = None) -> None:
    """A table as tall as its rows, or scrolling where they are many."""
    st.dataframe(
        pd.DataFrame(rows, columns=list(columns)),
        hide_index=True,
        height="content" if len(rows) <= SCROLLS_FROM_ROWS else 470,
        column_config=config,
    )


def show_notice() -> None:
    """What came of the last request, shown once."""
    kind, text = st.session_state.pop("notice", (None, ""))
    if kind == "error":
        st.error(text)
    elif kind == "success":
        st.success(text)
    elif kind == "info":
        st.info(text)
