"""Where the broker's files are, and what its configuration says of them."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

UNIT = "mosquitto.service"
USER = "mosquitto"
CONFIGURATION = Path("/etc/mosquitto/conf.d/gatehouse.conf")
STAMP = Path("/run/gatehouse/loaded") / UNIT
KEPT = Path("/run/gatehouse/kept") / UNIT
# Files that SIGHUP makes the broker read again; any other needs a start.
REREAD = ("crlfile", "certfile", "keyfile", "acl_file", "password_file", "psk_file")
FILES = (*REREAD, "cafile")
# What is there only where a listener asks for it.
NEEDED_BY = {"password_file": "password", "psk_file": "key"}
PATIENCE = 10.0  # seconds: for a broker to answer
POLL = 0.02  # seconds: between two looks


class Refused(Exception):
    """The broker, or its files, are not as they must be."""


Settings = list[tuple[str, str]]


def read(path: Path) -> Settings:
    """The (name, value) pairs of a mosquitto.conf(5), in order."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in lines if line and line[0] != "#"]


def noted() -> dict[str, str]:
    """`{path: SHA-256}` of the files that the broker runs on, as it noted them when it read them; empty for no note."""
    lines = STAMP.read_text().splitlines() if STAMP.exists() else []
    return {path: digest for digest, _, path in (line.partition("  ") for line in lines)}


def digest(file: Path) -> str:
    """The SHA-256 of a file; empty where there is none."""
    return sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def listeners(settings: Settings) -> dict[tuple[str, int], str]:
    """The (address, port) of each listener, and by what clients say there who they are: certificate, password, key."""
    found: dict[tuple[str, int], str] = {}
    for name, value in settings:
        if name == "listener":
            place = (value.split()[1], int(value.split()[0]))
            found[place] = "password"
        elif name == "psk_hint":
            found[place] = "key"
        elif name == "use_identity_as_username" and value == "true" and found[place] == "password":
            found[place] = "certificate"
    return found
