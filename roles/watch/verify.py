#!/usr/bin/python3
"""Runs on the gateway, every night: tries what it can try by itself, and leaves what it found for others to read.

    verify SETTINGS            RESULT (a path in SETTINGS) is replaced by what was found; what is wrong goes to the log
    verify --check SETTINGS    says whether these are settings

RESULT is JSON: {"when": SECONDS, "seconds": 1.2, "checks": {ID: "" or what is wrong, …}}. The exit status is 0 where it
could do its work, whatever it found; 1 where it could not, and then there is no result of this night.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SECONDS = 30  # for one connection, or one program
AT_ONCE = 8
# MQTT 5.0 §3.1: CONNECT with a clean start, no client identifier, no login.
CONNECT = bytes.fromhex("100d00044d5154540502003c00") + b"\x00\x00"
CONNACK = 0x20
NEEDED = ("units", "firewall", "open", "broker", "integrity", "free", "result")


def said(*command: str) -> str:
    """What a program prints. Raises OSError for one that fails."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False)
    if done.returncode:
        raise OSError(f"{command[0]}: {done.stderr.strip()[:120] or f'exit status {done.returncode}'}")
    return done.stdout


def unit(name: str) -> str:
    """What is wrong with a unit that shall run and be part of the start."""
    shown = said("systemctl", "show", "-p", "ActiveState", "-p", "UnitFileState", "--", name)
    state = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    found = []
    if state.get("ActiveState") != "active":
        found.append(state.get("ActiveState") or "unknown")
    if state.get("UnitFileState") not in ("enabled", "static", "alias", "indirect", "generated"):
        found.append(state.get("UnitFileState") or "not installed")
    return ", ".join(found)


def failed_units() -> str:
    """Whatever systemd could not start or keep running."""
    listed = said("systemctl", "list-units", "--failed", "--plain", "--no-legend", "--no-pager")
    return ", ".join(line.split()[0] for line in listed.splitlines() if line.strip())


def firewall(digest: str, loaded: str) -> str:
    """Whether the kernel's rules are those that were loaded, from the file as it is on the disk."""
    now = said("sh", "-c", digest)
    return "" if now == Path(loaded).read_text() else "the kernel's rules are not those that were loaded from the disk"


def is_open(address: str, port: int) -> str:
    """Whether somebody takes connections there."""
    try:
        socket.create_connection((address, port), SECONDS).close()
    except OSError as error:
        return f"takes no connection: {error.strerror or error}"
    return ""


def tls(address: str, port: int, name: str, authority: str, version: ssl.TLSVersion | None = None) -> ssl.SSLSocket:
    """A session with the broker by its site's authority, with no certificate of our own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context.wrap_socket(socket.create_connection((address, port), SECONDS), server_hostname=name)


def broker_certificate(address: str, port: int, name: str, authority: str) -> str:
    """Whether the broker shows a certificate of its site's, with more than a fifth of its life left."""
    with tls(address, port, name, authority) as session:
        shown = session.getpeercert() or {}
    begin, end = (ssl.cert_time_to_seconds(str(shown[key])) for key in ("notBefore", "notAfter"))
    left = (end - time.time()) / (end - begin)
    return "" if left > 0.2 else f"{left * (end - begin) / 86400:.0f} days left, less than a fifth of its life"


def answers(connection: socket.socket) -> bool:
    """Whether the broker lets in who only says CONNECT."""
    try:
        connection.sendall(CONNECT)
        got = connection.recv(1)
    except OSError:
        return False
    return got[:1] == bytes([CONNACK])


def broker_refuses(address: str, port: int, name: str, authority: str) -> str:
    """Whether the broker turns away who shows no certificate, speaks no TLS, or an old one; it must answer others."""
    with tls(address, port, name, authority) as session:
        if answers(session):
            return "lets in who shows no certificate"
    with socket.create_connection((address, port), SECONDS) as plain:
        if answers(plain):
            return "speaks without encryption"
    try:
        with tls(address, port, name, authority, ssl.TLSVersion.TLSv1_2):
            return "speaks TLS 1.2"
    except (ssl.SSLError, ConnectionError):
        return ""


def superusers() -> str:
    """Who is root by another name."""
    rows = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
    return ", ".join(row[0] for row in rows if len(row) > 2 and row[2].strip("0") == "" and row[0] != "root")


def free(folder: str, percent: int) -> str:
    """Whether there is room."""
    usage = shutil.disk_usage(folder)
    left = 100 * usage.free / usage.total
    return "" if left >= percent else f"{left:.0f} % free, {percent} % are needed"


def integrity(status: str, late: int) -> str:
    """Whether files were found that are of nobody, or nobody has looked for them lately."""
    found = json.loads(Path(status).read_text())
    if (hours := (time.time() - found["when"]) / 3600) > late / 3600:
        return f"AIDE has not looked for {hours:.0f} hours"
    first = f", such as {found['findings'][0]['path']!r}" if found["findings"] else ""
    return f"{found['count']} files of nobody{first}" if found["count"] else ""


def packages() -> str:
    """Packages that an interrupted upgrade left half installed."""
    audit = said("dpkg", "--audit")
    return "packages are half installed (dpkg --audit names them)" if audit.strip() else ""


def planned(settings: dict[str, Any]) -> dict[str, Callable[[], str]]:
    """What is tried, by id."""
    checks: dict[str, Callable[[], str]] = {f"unit {name}": lambda name=name: unit(name) for name in settings["units"]}
    checks |= {"units failed": failed_units, "accounts": superusers, "packages": packages}
    if rules := settings["firewall"]:
        checks["firewall"] = lambda: firewall(**rules)
    for address, port in settings["open"]:
        checks[f"open {address} {port}"] = lambda a=address, p=port: is_open(a, p)
    if broker := settings["broker"]:
        for address in broker["addresses"]:
            where = (address, broker["port"], broker["name"], broker["authority"])
            checks[f"broker certificate {address}"] = lambda where=where: broker_certificate(*where)
            checks[f"broker refuses {address}"] = lambda where=where: broker_refuses(*where)
    if looked := settings["integrity"]:
        checks["integrity"] = lambda: integrity(**looked)
    for folder in settings["free"]["folders"]:
        if os.path.isdir(folder):
            checks[f"free {folder}"] = lambda folder=folder: free(folder, settings["free"]["percent"])
    return checks


def found(checks: dict[str, Callable[[], str]]) -> dict[str, str]:
    """What is wrong, by id; empty for what is in order. What could not be tried is not in order."""

    def tried(check: Callable[[], str]) -> str:
        try:
            return check()
        except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            return f"could not be tried: {type(error).__name__}: {error}"[:200]

    # Beside each other: where nobody answers, each connection takes all of its time.
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(checks, pool.map(tried, checks.values()), strict=True))


def leave(path: Path, document: dict[str, Any]) -> None:
    """Replaces the result in one step; everybody may read it."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(document, indent=1) + "\n")
    beside.chmod(0o644)
    beside.replace(path)


def main(arguments: list[str]) -> int:
    """Exit status: 0, 1 where it could not do its work, 2 for a wrong call."""
    only_check = arguments[:1] == ["--check"]
    if len(arguments) != 1 + only_check:
        print("usage: verify [--check] SETTINGS", file=sys.stderr)
        return 2
    try:
        settings = json.loads(Path(arguments[-1]).read_text())
        missing = [key for key in NEEDED if key not in settings]
        if missing:
            raise ValueError(f"no '{missing[0]}' in {arguments[-1]}")
        checks = planned(settings)
        if only_check:
            return 0
        started = time.monotonic()
        results = found(checks)
        document = {"when": time.time(), "seconds": round(time.monotonic() - started, 2), "checks": results}
        leave(Path(settings["result"]), document)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"gatehouse-verify: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    wrong = {name: how for name, how in results.items() if how}
    for name, how in wrong.items():
        # sd-daemon(3): a warning
        print(f"<4>gatehouse-verify: {name}: {how}")
    print(f"gatehouse-verify: {len(results) - len(wrong)} of {len(results)} in order")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
