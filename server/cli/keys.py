"""``noria server key``, ``sign``, ``update-keys`` and ``farm-heads``: who nodes believe, and what is for one alone."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from server.cli.terminal import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    answer,
    app,
    ask,
    console,
    fail,
    load,
    print_json,
)

key_app = typer.Typer(no_args_is_help=True, help="Which keys nodes trust.")
app.add_typer(key_app, name="key")

PlaceArgument = Annotated[Literal["release", "recovery"], typer.Argument(help="Which of the two keys a node trusts.")]
NewKeyOption = Annotated[Path | None, typer.Option("--new-key", help="Public key file (.pub) of its successor.")]
NO_KEY_HEX = "00" * 32


def new_key_of(new_key: Path | None, *, none: bool) -> str:
    """The successor in hex, or none."""
    from server.secret_files import KeyFileError
    from server.signing import load_public

    if (new_key is None) != none:
        fail("give --new-key FILE.pub, or --none to trust no key there, not both or neither")
    if new_key is None:
        return NO_KEY_HEX
    try:
        return load_public(new_key).hex()
    except KeyFileError as error:
        fail(str(error))


@key_app.command("change")
def change(
    place: PlaceArgument = "release",
    new_key: NewKeyOption = None,
    signed: Annotated[
        Path | None, typer.Option(help="A change from: noria server key sign. Instead of --new-key.")
    ] = None,
    signed_by: Annotated[
        Path | None, typer.Option(help="With --signed: public key file of the key that signed.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    none: Annotated[bool, typer.Option("--none", help="Trust no key there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a release that changes one of the keys nodes trust; noria ota brings it to them.

    Signed by the server's key, the release key can be handed over. A stolen one is shut out by a change that the
    recovery key signs where it is kept: noria server key sign.
    """
    from server.secret_files import KeyFileError
    from server.signing import load_public

    settings = load(config)
    if signed is None:
        arguments = {"place": place, "new_key": new_key_of(new_key, none=none)}
    else:
        if signed_by is None or new_key is not None or none:
            fail("--signed needs --signed-by FILE.pub and no other key")
        try:
            arguments = {"container": signed.read_bytes().hex(), "signed_by": load_public(signed_by).hex()}
        except (KeyFileError, OSError) as error:
            fail(str(error))
    answer(ask(settings, "release.keys", arguments), as_json=as_json)


@key_app.command("sign")
def sign_change(
    place: PlaceArgument,
    version: Annotated[int, typer.Option(min=2, help="The next version: noria server release list shows the newest.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the signed change goes.")],
    sign_with: Annotated[Path, typer.Option(help="Private key file, of the release or the recovery key.")],
    new_key: NewKeyOption = None,
    *,
    none: Annotated[bool, typer.Option("--none", help="Trust no key there.")] = False,
) -> None:
    """Sign a change of keys where the key is kept; needs no server and no network."""
    from server.key_changes import KeyChangeError, signed_change
    from server.secret_files import KeyFileError
    from server.signing import SigningKey

    try:
        signer = SigningKey.load(sign_with)
        output.write_bytes(signed_change(signer, place, bytes.fromhex(new_key_of(new_key, none=none)), version))
    except (KeyChangeError, KeyFileError, OSError) as error:
        fail(str(error))
    console.print(
        f"{output}: the {place} key, as version {version}; next: noria server key change --signed {output.name}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


@app.command("sign")
def sign(key_file: Annotated[Path, typer.Option(help="The private key.")]) -> None:
    """Sign one container: hex on standard input, the signature in hex on standard output.

    To be named in signing_command, by way of ssh, on a machine that holds the key and does nothing else.
    """
    from server.secret_files import KeyFileError
    from server.signing import SigningError, SigningKey, answer_to

    try:
        sys.stdout.write(answer_to(sys.stdin.read(8192), SigningKey.load(key_file)) + "\n")
    except (KeyFileError, SigningError) as error:
        fail(str(error))


@app.command("update-keys")
def update_keys(
    devices: Annotated[list[str] | None, typer.Argument(help="DevEUIs.")] = None,
    table: Annotated[Path | None, typer.Option(help="CSV with a column dev_eui, as for noria node provision.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here, readable by you only.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: JsonOption = False,
) -> None:
    """The update keys of nodes to be provisioned: noria node provision --update-keys."""
    import os

    from server.secret_files import KeyFileError
    from server.update_keys import UpdateKeys, write_table

    wanted = [device.lower() for device in devices or ()] + (_devices_of(table) if table else [])
    if wrong := [device for device in wanted if len(device) != 16 or set(device) - set("0123456789abcdef")]:
        fail(f"{wrong[0]}: not a DevEUI of 16 hex digits")
    if not wanted:
        fail("name DevEUIs, or a --table that has them")
    try:
        keys = UpdateKeys.load(load(config).update_keys_path)
        if output is not None:
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                write_table(keys, wanted, file)
    except (KeyFileError, OSError) as error:
        fail(str(error))
    if as_json:
        print_json({device: keys.of(device).hex() for device in wanted} if output is None else {"file": str(output)})
    elif output is None:
        write_table(keys, wanted, sys.stdout)
    else:
        console.print(f"{output}: {len(wanted)} nodes", markup=False, highlight=False)


def _devices_of(table: Path) -> list[str]:
    try:
        with table.open(encoding="utf-8", newline="") as file:
            return [row["dev_eui"].lower() for row in csv.DictReader(file, skipinitialspace=True)]
    except (OSError, KeyError, AttributeError, UnicodeDecodeError) as error:
        fail(f"{table}: no table with a column dev_eui: {error}")


@app.command("farm-heads")
def farm_heads(config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """Release farms' own heads where they have shown to help; noria ota brings each to its farm's nodes."""
    answer(ask(load(config), "release.farm_heads", {}), as_json=as_json)
