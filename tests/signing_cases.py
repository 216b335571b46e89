"""A signing command that waits until it is let go, as one does that a person must confirm."""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

from server_cases import KEY

from server import signing

DEADLINE_S = 60.0

SIGNER = """
import os, sys
from pathlib import Path

from server import signing

folder = Path(sys.argv[1])
message = sys.stdin.read()
if (folder / "hold").exists():
    with (folder / "begun").open("wb") as begun, (folder / "go").open("rb", buffering=0) as go:
        begun.write(b".")
        begun.flush()
        go.read(1)
print(signing.answer_to(message, signing.SigningKey.load(folder / "far.key")))
"""


class SlowSigner:
    """The key's owner, elsewhere: while :meth:`hold` is in force, every signature waits for :meth:`let_go`.

    Both pipes stay open on either side here, so that the command waits in its one read and nowhere else.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._hold = folder / "hold"
        signing.generate(folder / "far.key", KEY.secret[:32])
        (folder / "signer.py").write_text(SIGNER, encoding="utf-8")
        self.command = [sys.executable, str(folder / "signer.py"), str(folder)]
        for name in ("begun", "go"):
            os.mkfifo(folder / name)
        self._begun, self._go = (os.open(folder / name, os.O_RDWR) for name in ("begun", "go"))

    def hold(self) -> None:
        """From now on signatures wait."""
        self._hold.touch()

    def until_asked(self) -> None:
        """Return when a signature has been asked for and waits."""
        ready, _, _ = select.select([self._begun], [], [], DEADLINE_S)
        assert ready, "nobody asked for a signature"
        os.read(self._begun, 1)

    def asked(self) -> bool:
        """Whether another signature has been asked for since."""
        return bool(select.select([self._begun], [], [], 0)[0])

    def let_go(self, waiting: int = 1) -> None:
        """Sign what waits, and from now on at once."""
        self._hold.unlink()
        os.write(self._go, b"." * waiting)

    def close(self) -> None:
        for pipe in (self._begun, self._go):
            os.close(pipe)
