"""The settings of the endpoint, and the devices that it takes messages from: JSON, written by the kit."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gatehouse.errors import GatehouseError


class CoapError(GatehouseError):
    """A setting or a file of the endpoint's that can't be used."""


@dataclass(frozen=True)
class Broker:
    """Where the broker is, and what is shown to it. `window`: messages that it may owe an acknowledgement for."""

    address: str
    port: int
    name: str
    ca: str
    client: str
    user: str
    window: int


@dataclass(frozen=True)
class Settings:
    """All of it. `listen` are addresses and ports; `trust` holds authorities and revocation lists (PEM), `devices` the
    names of those that may report, `idle_seconds` is how long a session may say nothing; `seen` keeps when each device
    was last heard."""

    listen: tuple[tuple[str, int], ...]
    certificate: str
    key: str
    trust: str
    devices: str
    broker: Broker
    max_sessions: int
    idle_seconds: int
    metrics: str
    seen: str


def read(path: Path) -> Settings:
    """The settings. Raises `CoapError`, which names what is wrong."""
    try:
        found = json.loads(path.read_text())
        listen = tuple((str(address), int(port)) for address, port in found["listen"])
        broker = _only(Broker, found["broker"])
        return Settings(**{**_only(dict, found), "listen": listen, "broker": Broker(**broker)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CoapError(f"{path}: {type(error).__name__}: {error} (deploy the gateway again)") from None


def _only(kind: type[Any], found: dict[str, Any]) -> dict[str, Any]:
    wanted = {each.name: each.type for each in fields(Settings if kind is dict else kind)}
    for name, value in found.items():
        if wanted.get(name) in ("str", "int") and type(value).__name__ != wanted[name]:
            raise ValueError(f"{name} is no {wanted[name]}")
    return found


def read_devices(path: Path) -> frozenset[str]:
    """The names of the devices whose messages are taken. Raises `CoapError`."""
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise ValueError("no list of names")
        return frozenset(found)
    except (OSError, ValueError) as error:
        raise CoapError(f"{path}: {error} (deploy the gateway again)") from None
