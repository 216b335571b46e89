"""Who may do what: passwords from secret files, compared in constant time, with a brake on guessing."""

from __future__ import annotations

import hmac
import threading
import time
from collections import deque
from enum import StrEnum
from pathlib import Path

from dashboards.config import DashboardSettings
from shared_models.configuration import read_secret

ATTEMPTS = 5
WITHIN_S = 60.0


class Role(StrEnum):
    """Whom a password stands for."""

    FARMER = "farmer"
    OPERATOR = "operator"


class Door:
    """Lets a role in. One per process, so that guesses from many browsers count together."""

    def __init__(self, settings: DashboardSettings) -> None:
        self._files: dict[Role, Path | None] = {
            Role.FARMER: settings.farmer_password_file,
            Role.OPERATOR: settings.operator_password_file,
        }
        self._failures: deque[float] = deque(maxlen=ATTEMPTS)
        self._lock = threading.Lock()

    def stands_open(self, role: Role) -> bool:
        """Whether ``role`` needs no password: none is configured, which is allowed on loopback only."""
        return self._files[role] is None

    def admits(self, role: Role, password: str, now_s: float | None = None) -> bool:
        """Whether ``password`` is the role's.

        Raises:
            TooManyAttemptsError: ask again later; the password was not looked at.
            ConfigurationError: the secret's file cannot be used.
        """
        moment_s = time.monotonic() if now_s is None else now_s
        with self._lock:
            if len(self._failures) == ATTEMPTS and moment_s - self._failures[0] < WITHIN_S:
                raise TooManyAttemptsError
            file = self._files[role]
            if file is None:
                return True
            secret = read_secret(file).get_secret_value()
            admitted = hmac.compare_digest(password.encode(), secret.encode())
            if not admitted:
                self._failures.append(moment_s)
            return admitted


class TooManyAttemptsError(Exception):
    """Too many wrong passwords within a minute."""
