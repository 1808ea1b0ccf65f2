"""The settings of the intake: `/etc/gatehouse/intake/intake.toml`, written by the kit."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from gatehouse.messages.refusal import MessageError


@dataclass(frozen=True)
class BrokerSettings:
    """Where the broker is, and what is shown to it; `client` holds certificate and key, PEM."""

    address: str
    port: int
    name: str
    ca: str
    client: str
    user: str
    largest_packet: int


@dataclass(frozen=True)
class MessageSettings:
    """What is taken: the file with the keys, whether the JSON form is allowed, ages in seconds."""

    keys: str
    json_form: bool
    max_age: int
    max_ahead: int


@dataclass(frozen=True)
class DatabaseSettings:
    """Where it is written to; which of the last four count depends on the engine."""

    engine: str
    url: str
    address: str
    ca: str
    credential: str
    database: str = ""
    user: str = ""
    org: str = ""
    bucket: str = ""


@dataclass(frozen=True)
class Settings:
    """All of it; `state` is a file that outlives the process, `metrics` one that doesn't."""

    broker: BrokerSettings
    messages: MessageSettings
    database: DatabaseSettings
    state: str
    metrics: str


def read(path: Path) -> Settings:
    """The settings. Raises `MessageError`, which names what is wrong."""
    try:
        found = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise MessageError(f"{path}: {error} (deploy the gateway again)") from None
    settings: Settings = _section(Settings, found, str(path))
    if settings.database.engine not in ("influxdb1", "influxdb2"):
        raise MessageError(f"{path}: database: there is no engine {settings.database.engine!r}")
    return settings


def _section(kind: type[Any], found: Any, where: str) -> Any:
    hints = get_type_hints(kind)
    if not isinstance(found, dict) or (unknown := sorted(set(found) - set(hints))):
        raise MessageError(f"{where}: {unknown[0] if isinstance(found, dict) else 'it'} is not known there")
    given: dict[str, Any] = {}
    for name, hint in hints.items():
        if name not in found:
            continue
        value = found[name]
        if hint in (str, int, bool):
            if type(value) is not hint:
                raise MessageError(f"{where}: {name} is no {hint.__name__}")
            given[name] = value
        else:
            given[name] = _section(hint, value, f"{where}: {name}")
    required = {field.name for field in fields(kind) if field.default != ""}
    if missing := sorted(required & set(hints) - set(given)):
        raise MessageError(f"{where}: {missing[0]} is missing")
    return kind(**given)
