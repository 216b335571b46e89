"""How every role reads its configuration: one TOML file, environment overrides, secrets from files.

Order of precedence: explicit arguments, then environment (``NORIA_<ROLE>_KEY``, nested with ``__``),
then the TOML file. Unknown keys are refused with the key's name.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource


class ConfigurationError(ValueError):
    """A configuration file or environment variable that cannot be used; the text says which and why."""


class Section(BaseModel):
    """A table inside a role's TOML file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RoleSettings(BaseSettings):
    """Base of each role's configuration; subclasses set ``env_prefix`` in their ``model_config``."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over file; no dotenv."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @classmethod
    def from_toml(cls, path: Path) -> Self:
        """Read ``path`` and the environment.

        Raises:
            ConfigurationError: the file is missing, is not TOML, or holds an unknown or invalid key.
        """
        if not path.is_file():
            raise ConfigurationError(f"{path}: no such configuration file")

        class Bound(cls):  # type: ignore[valid-type, misc]
            model_config = SettingsConfigDict(**{**cls.model_config, "toml_file": path, "extra": "forbid"})

        try:
            return Bound()
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{path}: not valid TOML: {error}") from error
        except ValidationError as error:
            raise ConfigurationError(f"{path}: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """One line per problem, each with the key's dotted name."""
    problems = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"]) or "(top level)"
        text = "unknown key" if problem["type"] == "extra_forbidden" else problem["msg"]
        problems.append(f"{key}: {text}")
    return "; ".join(problems)


def read_secret(path: Path) -> SecretStr:
    """The first line of a secret's file.

    Raises:
        ConfigurationError: the file is missing, empty, or readable by others than its owner.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigurationError(f"{path}: a secret must not be readable by others: chmod 600 {path}")
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot read the secret: {error.strerror}") from error
    if not lines or not lines[0]:
        raise ConfigurationError(f"{path}: the secret is empty")
    return SecretStr(lines[0])


def create_file(path: Path, content: bytes, mode: int) -> None:
    """Write a new file, and return only when neither it nor its name can be lost with the power.

    Args:
        path: nothing may be there; its folder is.
        content: all of it.
        mode: its permissions, from the first moment on.

    Raises:
        FileExistsError: something is there; it stays as it is.
        OSError: it cannot be written.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Broker(Section):
    """An MQTT broker and how to log in."""

    host: str = "127.0.0.1"
    port: int = 1883
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None

    def password(self) -> str | None:
        """The password from its file, or None where the broker asks for none."""
        return read_secret(self.password_file).get_secret_value() if self.password_file else None
