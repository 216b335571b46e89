"""``noria dashboard``: start the pages, draw their pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dashboards.config import DashboardSettings
from shared_models.configuration import ConfigurationError

app = typer.Typer(no_args_is_help=True, help="Web pages for farmers and operators.")

ENTRY = Path(__file__).with_name("app.py")
ConfigFile = Annotated[Path, typer.Option("--config", help="dashboard.toml")]


@app.command()
def run(
    config: ConfigFile,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Instead of the configured port.")] = None,
    headless: Annotated[bool, typer.Option("--headless", help="Do not open a browser.")] = False,
) -> None:
    """Serve the pages until SIGTERM or Ctrl-C."""
    settings = _settings(config)
    chosen = port or settings.port
    host = f"[{settings.address}]" if ":" in settings.address else settings.address
    typer.echo(f"Dashboard: http://{host}:{chosen}")
    serve(config, settings.address, chosen, headless=headless)


@app.command()
def check(
    config: ConfigFile,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say whether the configuration can be used, and which stores can be read."""
    from dashboards.access import StoreUnavailableError, reading

    settings = _settings(config)
    stores = {farm.site: farm.store for farm in settings.farms}
    if settings.server_store is not None:
        stores["server"] = settings.server_store
    found: dict[str, str] = {}
    for name, store in stores.items():
        try:
            with reading(store) as connection:
                connection.execute("SELECT count(*) FROM meta").fetchone()
            found[name] = "ok"
        except StoreUnavailableError as error:
            found[name] = str(error)
    if as_json:
        typer.echo(json.dumps({"stores": found}, sort_keys=True))
    else:
        for name, text in found.items():
            typer.echo(f"{name}: {text}")
    if any(text != "ok" for text in found.values()):
        raise typer.Exit(1)


def serve(config: Path, address: str, port: int, *, headless: bool) -> None:
    """Run Streamlit in this process; it stops its server and returns on SIGTERM and Ctrl-C."""
    from streamlit import config as streamlit_config
    from streamlit.web import bootstrap

    options = {
        "server_address": address,
        "server_port": port,
        "server_headless": headless,
        "browser_gatherUsageStats": False,
        "global_developmentMode": False,
    }
    # Tells Streamlit where the app's own .streamlit/config.toml lies, whatever the working directory.
    streamlit_config._main_script_path = str(ENTRY)
    bootstrap.load_config_options(flag_options=options)
    bootstrap.run(str(ENTRY), False, ["--config", str(config.absolute())], options)


def _settings(path: Path) -> DashboardSettings:
    try:
        return DashboardSettings.from_toml(path)
    except ConfigurationError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    app()
