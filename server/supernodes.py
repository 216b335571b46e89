"""Which SuperNodes may join: one public key per site, in the store, and the SuperLink brought in line with it.

The store decides. Flower keeps a list of its own in the SuperLink's database; whatever is missing there is registered,
whatever the store does not know, or no longer accepts, is unregistered: after every change, whenever the SuperLink has
come up, and every half minute. Flower never takes a key again that was unregistered, and neither does the store.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
import sqlite3
import ssl
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from server import store
from shared_models.messages import SITE_PATTERN

MAX_KEY_CHARACTERS = 1024
MAX_ANSWER_BYTES = 64 << 20
CONTROL_TIMEOUT_S = 20.0
UNREGISTERED = "unregistered"
ACTOR = "server"


class SuperNodeError(ValueError):
    """A registration that must not be made or ended; the text says why."""


class ControlError(RuntimeError):
    """The SuperLink's control API did not do what was asked; the text says what it said."""


@dataclass(frozen=True)
class PublicKey:
    """A SuperNode's public key."""

    line: str
    """OpenSSH, without the comment."""
    pem: bytes
    """As Flower keeps it."""
    fingerprint: str
    """``SHA256:…``, as ``ssh-keygen -l`` prints it."""


def read_public_key(text: str) -> PublicKey:
    """Read what ``noria gateway keygen`` printed.

    Raises:
        SuperNodeError: it is not an EC P-384 public key in OpenSSH's format.
    """
    line = text.strip()
    if len(line) > MAX_KEY_CHARACTERS:
        raise SuperNodeError("too long for a public key")
    try:
        if "\n" in line:
            raise ValueError("more than one line")
        key = serialization.load_ssh_public_key(line.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SuperNodeError("not a public key in OpenSSH's format (ecdsa-sha2-nistp384 …)") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise SuperNodeError("not an EC P-384 key; make one with: noria gateway keygen")
    line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode("ascii")
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    digest = hashlib.sha256(base64.b64decode(line.split(" ")[1])).digest()
    return PublicKey(line, pem, "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("="))


def add(connection: sqlite3.Connection, actor: str, arguments: Mapping[str, Any], now_s: int) -> dict[str, Any]:
    """Accept a site's key from now on; inside the caller's transaction.

    Args:
        connection: The store.
        actor: Who asked.
        arguments: ``{"site", "public_key"}``.
        now_s: The present.

    Raises:
        SuperNodeError: malformed, the site has a key already, or the key was used before.
    """
    if set(arguments) != {"site", "public_key"} or not all(isinstance(value, str) for value in arguments.values()):
        raise SuperNodeError('the arguments must be {"site": <name>, "public_key": <OpenSSH line>}')
    site = _site(arguments["site"])
    key = read_public_key(arguments["public_key"])
    valid = connection.execute("SELECT * FROM supernodes WHERE site = ? AND revoked_s IS NULL", (site,)).fetchone()
    if valid is not None:
        same = valid["fingerprint"] == key.fingerprint
        raise SuperNodeError(
            f"site {site} has {'this' if same else 'another'} key already ({valid['fingerprint']})"
            + ("" if same else "; revoke it first")
        )
    known = connection.execute("SELECT * FROM supernodes WHERE fingerprint = ?", (key.fingerprint,)).fetchone()
    if known is not None:
        was = (
            f"belonged to site {known['site']} and was revoked" if known["revoked_s"] else f"is site {known['site']}'s"
        )
        raise SuperNodeError(f"key {key.fingerprint} {was}; make a new one with: noria gateway keygen")
    connection.execute(
        "INSERT INTO supernodes (fingerprint, site, public_key, added_s, added_by) VALUES (?, ?, ?, ?, ?)",
        (key.fingerprint, site, key.line, now_s, actor),
    )
    store.audit(connection, now_s, actor, "supernode.add", f"site {site}", "done", key.fingerprint)
    return {
        "site": site,
        "fingerprint": key.fingerprint,
        "message": f"site {site}: the SuperNode with key {key.fingerprint} may join",
    }


def revoke(connection: sqlite3.Connection, actor: str, arguments: Mapping[str, Any], now_s: int) -> dict[str, Any]:
    """Never accept a site's present key again; inside the caller's transaction.

    Raises:
        SuperNodeError: malformed, or the site has no valid key.
    """
    if set(arguments) != {"site"} or not isinstance(arguments["site"], str):
        raise SuperNodeError('the arguments must be {"site": <name>}')
    site = _site(arguments["site"])
    row = connection.execute("SELECT * FROM supernodes WHERE site = ? AND revoked_s IS NULL", (site,)).fetchone()
    if row is None:
        raise SuperNodeError(f"site {site} has no valid key")
    connection.execute(
        "UPDATE supernodes SET revoked_s = ?, revoked_by = ? WHERE fingerprint = ?", (now_s, actor, row["fingerprint"])
    )
    store.audit(connection, now_s, actor, "supernode.revoke", f"site {site}", "done", row["fingerprint"])
    return {
        "site": site,
        "fingerprint": row["fingerprint"],
        "message": f"site {site}: key {row['fingerprint']} is revoked for good",
    }


def _site(name: str) -> str:
    if not re.fullmatch(SITE_PATTERN, name):
        raise SuperNodeError(f"{name!r:.40} is not a site's name")
    return name


def sites_by_node(connection: sqlite3.Connection) -> dict[int, str]:
    """Whose key each of Flower's nodes joined with; what a reply says of its own site must agree."""
    rows = connection.execute("SELECT node_id, site FROM supernodes WHERE revoked_s IS NULL AND node_id IS NOT NULL")
    return {int(row["node_id"]): row["site"] for row in rows}


# The SuperLink


@dataclass(frozen=True)
class Node:
    """A SuperNode as the SuperLink knows it."""

    node_id: int
    state: str
    """Flower's: ``registered`` (never seen), ``online``, ``offline``, ``unregistered``."""


@dataclass
class Alignment:
    """What bringing the SuperLink in line has brought."""

    nodes: dict[bytes, Node] = field(default_factory=dict)
    """By public key (PEM), afterwards."""
    registered: list[bytes] = field(default_factory=list)
    unregistered: list[bytes] = field(default_factory=list)
    refused: dict[bytes, str] = field(default_factory=dict)
    """Keys the SuperLink does not take, and why."""


def wanted(connection: sqlite3.Connection) -> dict[bytes, str]:
    """The valid keys (PEM) and their sites."""
    rows = connection.execute("SELECT public_key, site FROM supernodes WHERE revoked_s IS NULL")
    return {read_public_key(row["public_key"]).pem: row["site"] for row in rows}


def align(address: str, ca: Path, keys: Mapping[bytes, str]) -> Alignment:
    """Have the SuperLink at ``address`` accept ``keys`` and no others. Blocks; safe to repeat after any failure.

    Raises:
        OSError: the SuperLink does not answer, or shows another's certificate.
        ControlError: it answers, but not as Flower 1.41 does.
    """
    from flwr.proto import control_pb2 as messages

    done = Alignment()
    with closing(_connect(address, ca)) as link:
        listed = messages.ListNodesResponse.FromString(_call(link, "list-nodes", messages.ListNodesRequest()))
        there = {bytes(info.public_key): Node(int(info.node_id), str(info.status)) for info in listed.nodes_info}
        for key, node in there.items():
            if key not in keys and node.state != UNREGISTERED:
                _call(link, "unregister-node", messages.UnregisterNodeRequest(node_id=node.node_id))
                there[key] = Node(node.node_id, UNREGISTERED)
                done.unregistered.append(key)
        for key, site in keys.items():
            if key not in there:
                answer = _call(link, "register-node", messages.RegisterNodeRequest(public_key=key, name=site))
                there[key] = Node(int(messages.RegisterNodeResponse.FromString(answer).node_id), "registered")
                done.registered.append(key)
            elif there[key].state == UNREGISTERED:
                done.refused[key] = "was unregistered at the SuperLink by hand; Flower never takes a key back"
    done.nodes = there
    return done


def _connect(address: str, ca: Path) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=str(ca))
    return http.client.HTTPSConnection(address, timeout=CONTROL_TIMEOUT_S, context=context)


def _call(link: http.client.HTTPSConnection, name: str, request: Any) -> bytes:  # noqa: ANN401  flwr is not checked
    """One call of the control API: protobuf over HTTP."""
    try:
        link.request(
            "POST",
            f"/v1/control/{name}",
            body=request.SerializeToString(),
            headers={"Content-Type": "application/protobuf", "Accept": "application/protobuf"},
        )
        response = link.getresponse()
        body = response.read(MAX_ANSWER_BYTES + 1)
    except http.client.HTTPException as error:
        raise ControlError(f"{name}: not an HTTP answer: {error!r:.200}") from error
    if response.status != HTTPStatus.OK or len(body) > MAX_ANSWER_BYTES:
        raise ControlError(f"{name}: HTTP {response.status}: {body[:200].decode(errors='replace')}")
    return body


def record(connection: sqlite3.Connection, alignment: Alignment, now_s: int) -> None:
    """Write down how the SuperLink stands, each change with a row in the audit; inside the caller's transaction."""
    rows = {
        read_public_key(row["public_key"]).pem: row
        for row in connection.execute("SELECT fingerprint, site, public_key, problem FROM supernodes")
    }
    for key, row in rows.items():
        node = alignment.nodes.get(key)
        problem = alignment.refused.get(key, "")
        connection.execute(
            "UPDATE supernodes SET node_id = ?, state = ?, problem = ?, checked_s = ? WHERE fingerprint = ?",
            (
                None if node is None else str(node.node_id),
                None if node is None else node.state,
                problem,
                now_s,
                row["fingerprint"],
            ),
        )
        if problem and problem != row["problem"]:
            subject = f"site {row['site']}"
            store.audit(connection, now_s, ACTOR, "supernode.registered", subject, "failed", problem)
    for action, keys in (("registered", alignment.registered), ("unregistered", alignment.unregistered)):
        for key in keys:
            subject = f"site {rows[key]['site']}" if key in rows else "a key the store does not know"
            detail = f"node {alignment.nodes[key].node_id}"
            store.audit(connection, now_s, ACTOR, f"supernode.{action}", subject, "done", detail)
