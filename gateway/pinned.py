"""The program that Flower starts for each message on this farm, running this farm's own ClientApp whatever was sent.

A Flower server ships the code of an app to its SuperNodes and chooses what kind of app it is: whoever holds the server
could read the whole store. :func:`write_programs` puts programs of Flower's names first on the SuperNode's path. The
one for ClientApps fetches the message as Flower's does and answers it with :mod:`gateway.federation`; what was shipped
is neither unpacked nor imported. Those for all other kinds refuse.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

CLIENT_APP = "flwr-clientapp"
REFUSED = ("flwr-agentapp", "flwr-connector", "flwr-model", "flwr-serverapp", "flwr-simulation")
"""All other programs that Flower's SuperExec may start."""


def write_programs(folder: Path) -> None:
    """Write the programs; each runs this module with its own name and whatever Flower gives it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (CLIENT_APP, *REFUSED):
        program = folder / name
        fresh = folder / f".{name}"
        fresh.write_text(
            f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m gateway.pinned {name} "$@"\n', encoding="utf-8"
        )
        fresh.chmod(0o700)
        fresh.replace(program)


def main() -> None:
    """Do what the program of the name given first should."""
    name = sys.argv.pop(1)
    if name != CLIENT_APP:
        sys.exit(f"{name}: this farm runs its own ClientApp and nothing else")
    from flwr.supernode.cli.flwr_clientapp import flwr_clientapp
    from flwr.supernode.runtime import run_clientapp

    from gateway.federation import app

    for replaced, by in (
        ("install_from_fab", lambda *_, **__: None),
        ("get_load_client_app_fn", lambda **_: lambda *_: app),
    ):
        if not hasattr(run_clientapp, replaced):
            sys.exit(f"Flower's {replaced} is gone: this farm cannot tell whose code would run")
        setattr(run_clientapp, replaced, by)
    flwr_clientapp()


if __name__ == "__main__":
    main()
