"""Who signs, and that the server uses no signature it has not checked."""

from __future__ import annotations

import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from model_cases import improved, model

from server import signing
from server.secret_files import KeyFileError
from server.signing import CommandSigner, SigningError, SigningKey
from shared_models.codes import Board
from shared_models.container import Container, ContainerKind, Receiver, build_full, open_container, signed_bytes
from shared_models.network import ModelImage

ENTRY = build_full(improved(), 2)


def command(tmp_path: Path, body: str) -> list[str]:
    """A signing command: the key's owner, elsewhere."""
    script = tmp_path / "signer.py"
    script.write_text(f"import sys\nfrom pathlib import Path\nfrom server import signing\n{body}\n")
    return [sys.executable, str(script)]


def opens(data: bytes, public: bytes) -> bool:
    receiver = Receiver(Board.STM32L072, (public, bytes(32)), 1, model())
    opened = open_container(data, receiver)
    return isinstance(opened, ModelImage) and opened.pack() == improved().pack()


def test_a_command_signs_like_the_key_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(signing.__file__).parents[1]))
    key = signing.generate(tmp_path / "far" / "operator.key")
    near = tmp_path / "near" / "operator.key"
    near.parent.mkdir()
    signing.public_key_path(near).write_text(key.public.hex() + "\n")
    far = str(tmp_path / "far" / "operator.key")
    body = f"print(signing.answer_to(sys.stdin.read(), signing.SigningKey.load(Path({far!r}))))"
    signer = signing.load(near, command(tmp_path, body))
    assert isinstance(signer, CommandSigner)
    assert (signer.public, signer.key_id) == (key.public, key.key_id)
    assert signer.sign(ENTRY) == key.sign(ENTRY)
    assert opens(signer.sign(ENTRY), key.public)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("sys.exit('the token is locked')", "token is locked"),
        ("print('no')", "no signature"),
        ("print('00' * 64)", "no signature"),
        ("", "no signature"),
    ],
)
def test_what_a_command_answers_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, why: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(signing.__file__).parents[1]))
    key = signing.generate(tmp_path / "operator.key")
    signer = CommandSigner(tuple(command(tmp_path, body)), key.public, key.key_id)
    with pytest.raises(SigningError, match=why):
        signer.sign(ENTRY)


def test_a_command_that_is_not_there_is_told(tmp_path: Path) -> None:
    key = SigningKey.from_seed(bytes(32))
    with pytest.raises(SigningError, match="no-such-signer"):
        CommandSigner((str(tmp_path / "no-such-signer"),), key.public, key.key_id).sign(ENTRY)


def test_only_containers_for_this_very_key_are_signed() -> None:
    key, other = SigningKey.from_seed(bytes(32)), SigningKey.from_seed(bytes([1]) * 32)
    assert bytes.fromhex(signing.answer_to(signed_bytes(ENTRY, key.public).hex(), key)) == key.sign(ENTRY)[-64:]
    letters = [b"a letter to the bank", signed_bytes(ENTRY, other.public), b""]
    personal = Container(ContainerKind.PERSONAL, 0, 0, 2, 1, 1, b"1234567890" * 9)
    for message in [*letters, personal.proven_bytes(), replace(personal, payload=bytes(1024)).proven_bytes()]:
        with pytest.raises(SigningError):
            signing.answer_to(message.hex(), key)
    with pytest.raises(SigningError):
        signing.answer_to("not hex", key)


def test_key_files(tmp_path: Path) -> None:
    path = tmp_path / "operator.key"
    key = signing.generate(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert signing.load(path) == key
    assert signing.load_public(signing.public_key_path(path)) == key.public
    with pytest.raises(KeyFileError):
        signing.load_public(tmp_path / "none.pub")
    (tmp_path / "short.pub").write_text("00")
    with pytest.raises(KeyFileError):
        signing.load_public(tmp_path / "short.pub")
