"""Streamlit's entry: chooses the pages this reader may see and draws the one asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from dashboards import pictures
from dashboards.access import StoreUnavailableError
from dashboards.config import DashboardSettings
from dashboards.doors import Role
from dashboards.icon import ICON
from dashboards.session import allowed, settings, sign_in
from dashboards.views import audit, campaigns, field, fleet, overview, releases
from shared_models.configuration import ConfigurationError


def main() -> None:
    """Draw one page."""
    try:
        setup = settings()
    except ConfigurationError as error:
        st.set_page_config(page_title="Noria", page_icon=str(ICON))
        st.error(f"The dashboard cannot start: {error}")
        return
    st.set_page_config(page_title=setup.title, page_icon=str(ICON), layout="wide")
    st.logo(str(ICON), size="large")
    st.html(pictures.STYLE)
    page = st.navigation(_pages(setup), position="top")
    page.run()


def _pages(setup: DashboardSettings) -> dict[str, list[st.Page]]:
    field_page = st.Page(field.show, title="One field", icon=":material/psychiatry:", url_path="field")
    st.session_state["field_page"] = field_page
    pages = {
        "": [
            st.Page(
                overview.show, title="My fields", icon=":material/potted_plant:", url_path="overview", default=True
            ),
            field_page,
        ]
    }
    store = setup.server_store
    if store is None:
        return pages
    return pages | {
        "Operators": [
            _operator_page(fleet.show, store, "Fleet", ":material/cell_tower:", "fleet"),
            _operator_page(releases.show, store, "Releases", ":material/inventory_2:", "releases"),
            _operator_page(campaigns.show, store, "Campaigns", ":material/campaign:", "campaigns"),
            _operator_page(audit.show, store, "Audit log", ":material/history:", "audit"),
        ]
    }


def _operator_page(show: Callable[[Path], None], store: Path, title: str, icon: str, url_path: str) -> st.Page:
    def draw() -> None:
        if not allowed(Role.OPERATOR):
            sign_in(Role.OPERATOR)
            return
        try:
            show(store)
        except StoreUnavailableError as error:
            st.warning(str(error))

    return st.Page(draw, title=title, icon=icon, url_path=url_path)


main()
