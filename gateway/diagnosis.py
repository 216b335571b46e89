"""Why the SuperNode is not in the federation, in words.

Flower does not say: it ends with exit code 0 when its signature or its key is refused, with one and the same code
when the key is unknown and when somebody else uses it, and not at all while nobody answers. So the gateway asks
the fleet API itself, one call, over the same address, certificates and key, and reads the answer's date as well.

The call is ``activate-node`` with a heartbeat interval of zero. Flower 1.41 looks at signature and time first, then at
the key, then at the interval (``flwr/superlink/servicer/fleet/fleet_handlers.py``), so the answer tells them
apart and changes nothing: no node is ever activated with an impossible interval.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.config import Federation
from gateway.keys import KeyFileError, load

TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 65_536
AHEAD_LIMIT_S = 5
BEHIND_LIMIT_S = 305
"""Flower 1.41 (``flwr/common/constant.py``): SYSTEM_TIME_TOLERANCE, and TIMESTAMP_TOLERANCE beside it."""
INVALID_HEARTBEAT_INTERVAL = 2003
ACTIVATION_FAILED = 2004
"""Flower 1.41 (``flwr/supercore/error/base.py``)."""
_NOT_YET_VALID, _EXPIRED = 9, 10
"""OpenSSL: X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED."""


class Standing(StrEnum):
    """How the gateway stands with the federation; each but the first two is also a counter ``supernode.…``."""

    STARTING = "starting"
    CONNECTED = "connected"
    UNREACHABLE = "unreachable"
    CERTIFICATE = "certificate"
    NO_FLEET_API = "no_fleet_api"
    SUPERLINK_DOWN = "superlink_down"
    BUSY = "busy"
    CLOCK = "clock"
    SIGNATURE = "signature"
    NOT_REGISTERED = "not_registered"
    REVOKED = "revoked"
    KEY_IN_USE = "key_in_use"
    KEY_FILE = "key_file"
    ENDED = "ended"


@dataclass(frozen=True)
class Finding:
    """What was found, for people."""

    standing: Standing
    words: str


def examine(federation: Federation, *, admitted: bool, refused: bool) -> Finding:
    """Ask the fleet API how this gateway stands. Blocks for some seconds at worst; changes nothing.

    Args:
        federation: Address, certificates, key.
        admitted: Whether this key has been let in before.
        refused: Whether the SuperNode has just been turned away before it was ever connected.
    """
    if federation.insecure or federation.private_key is None:
        return _reach(federation)
    try:
        key = load(federation.private_key)
    except KeyFileError as error:
        return Finding(Standing.KEY_FILE, str(error))
    try:
        context = ssl.create_default_context(cafile=str(federation.root_certificates))
    except OSError as error:  # ssl.SSLError is one, where the file holds no certificate
        return Finding(Standing.CERTIFICATE, f"{federation.root_certificates}: {error.strerror or 'no certificate'}")
    try:
        status, date, code, asked = _ask(federation, key, context)
    except ssl.SSLCertVerificationError as error:
        return Finding(Standing.CERTIFICATE, _about_certificate(federation, error))
    except ssl.SSLError as error:
        return Finding(Standing.CERTIFICATE, f"TLS with {federation.superlink} failed: {error}")
    except (OSError, http.client.HTTPException) as error:
        return Finding(Standing.UNREACHABLE, _about_network(federation, error))
    if status == HTTPStatus.UNAUTHORIZED:
        return _about_signature(date, asked)
    if code == ACTIVATION_FAILED and admitted:
        return Finding(
            Standing.REVOKED,
            "the server no longer takes this gateway's key: revoked; for a new one: noria gateway keygen",
        )
    if code == ACTIVATION_FAILED:
        return Finding(
            Standing.NOT_REGISTERED,
            "the server does not know this gateway's key; its operator adds it with: noria server supernode add",
        )
    if code == INVALID_HEARTBEAT_INTERVAL and refused:
        return Finding(
            Standing.KEY_IN_USE,
            "another SuperNode is connected with this gateway's key, or its former one was cut off within the last"
            " minute; if this stays so, the key was copied: have it revoked and make a new one",
        )
    if code == INVALID_HEARTBEAT_INTERVAL:
        return Finding(Standing.ENDED, "the server knows this gateway's key and answers")
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        words = f"the proxy at {federation.superlink} has too many requests from this address (HTTP {status})"
        return Finding(Standing.BUSY, words)
    if status in (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT):
        words = f"the proxy at {federation.superlink} answers, the SuperLink behind it does not (HTTP {status})"
        return Finding(Standing.SUPERLINK_DOWN, words)
    words = f"{federation.superlink} answers HTTP {status}: no fleet API of Flower 1.41 there"
    return Finding(Standing.NO_FLEET_API, words)


def _reach(federation: Federation) -> Finding:
    """Without keys there is only one thing to find out."""
    try:
        socket.create_connection(_host_and_port(federation), TIMEOUT_S).close()
    except OSError as error:
        return Finding(Standing.UNREACHABLE, _about_network(federation, error))
    return Finding(Standing.ENDED, f"{federation.superlink} can be reached")


def _host_and_port(federation: Federation) -> tuple[str, int]:
    host, _, port = federation.superlink.rpartition(":")
    return host.strip("[]"), int(port)


def _ask(
    federation: Federation, key: ec.EllipticCurvePrivateKey, context: ssl.SSLContext
) -> tuple[int, datetime | None, int | None, datetime]:
    """HTTP status, the answer's date, Flower's error code, and when we asked by our own clock."""
    host, port = _host_and_port(federation)
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    link = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
    try:
        link.connect()
        asked = datetime.now(UTC)
        timestamp = asked.isoformat()
        signature = key.sign(timestamp.encode("ascii"), ec.ECDSA(hashes.SHA256()))
        link.request(
            "POST",
            "/v1/fleet/activate-node",
            body=activation(pem),
            headers={
                "Content-Type": "application/protobuf",
                "Accept": "application/protobuf",
                "flwr-public-key": base64.b64encode(pem).decode("ascii"),
                "flwr-timestamp": timestamp,
                "flwr-signature": base64.b64encode(signature).decode("ascii"),
            },
        )
        response = link.getresponse()
        return response.status, _date(response.getheader("Date")), _code(response.read(MAX_ANSWER_BYTES)), asked
    finally:
        link.close()


def activation(pem: bytes) -> bytes:
    """``ActivateNodeRequest`` with this public key (field 1, bytes) and no heartbeat interval, as protobuf."""
    length = len(pem)
    return bytes([0x0A, length & 0x7F | 0x80, length >> 7]) + pem


def _date(header: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(header or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _code(body: bytes) -> int | None:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    code = answer.get("code") if isinstance(answer, dict) else None
    return code if type(code) is int else None


def _about_signature(date: datetime | None, asked: datetime) -> Finding:
    if date is None:
        return Finding(Standing.SIGNATURE, "the server refuses this gateway's signature, and does not tell its time")
    ahead_s = round((asked - date).total_seconds())
    if -BEHIND_LIMIT_S < ahead_s < AHEAD_LIMIT_S:
        words = f"the server refuses this gateway's signature although the clocks agree to {abs(ahead_s)} s"
        return Finding(Standing.SIGNATURE, words)
    return Finding(
        Standing.CLOCK,
        f"this gateway's clock is {abs(ahead_s)} s {'ahead of' if ahead_s > 0 else 'behind'} the server's"
        f" ({date:%Y-%m-%d %H:%M:%S} UTC); Flower allows {AHEAD_LIMIT_S} s ahead and {BEHIND_LIMIT_S} s behind:"
        " set the clock (timedatectl set-ntp true)",
    )


def _about_certificate(federation: Federation, error: ssl.SSLCertVerificationError) -> str:
    words = f"the certificate of {federation.superlink} is not good: {error.verify_message}"
    if error.verify_code in (_NOT_YET_VALID, _EXPIRED):
        return f"{words} (this gateway's clock says {datetime.now(UTC):%Y-%m-%d %H:%M} UTC)"
    return f"{words} (trusted: {federation.root_certificates})"


def _about_network(federation: Federation, error: OSError | http.client.HTTPException) -> str:
    if isinstance(error, socket.gaierror):
        reason = f"the name cannot be resolved ({error.strerror})"
    elif isinstance(error, TimeoutError):
        reason = f"no answer within {TIMEOUT_S:.0f} s"
    elif isinstance(error, OSError):
        reason = error.strerror or type(error).__name__
    else:
        reason = "it ended the conversation, or does not speak HTTP"
    return f"{federation.superlink} cannot be reached: {reason}"
