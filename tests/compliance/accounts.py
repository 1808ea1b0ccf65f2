"""What accounts of the gateway itself may connect to: root does, those that have no business there do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gatehouse.proof.plugin import cannot_prove
from gatehouse.site import Listener
from tests.compliance.live import Live

# Connects as somebody else: `python3 -I -c CONNECT PORT`.
CONNECT = """
import socket, sys
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5).close()
    print("open")
except OSError as error:
    print(type(error).__name__)
"""
STRANGERS = ("nobody", "mosquitto")


def is_shut_for_others(live: Live, evidence: Callable[[Any], None], listener: Listener) -> None:
    """Asserts that accounts which have no business with a listener on loopback are refused, where root connects."""
    asked = ("python3", "-I", "-c", CONNECT, str(listener.port))
    own = str(live.run(*asked).result.get("output")).strip()
    evidence({"from": "gateway", "sent": f"connection to {listener.label} as root", "got": own})
    if own != "open":
        cannot_prove(f"{listener.label} answers nobody: {own}")
    for account in STRANGERS:
        got = str(live.run("runuser", "-u", account, "--", *asked).result.get("output")).strip()
        evidence({"from": "gateway", "sent": f"connection to {listener.label} as {account}", "got": got})
        assert got == "ConnectionRefusedError", f"{account} connects to {listener.label}: {got or 'no word'}"
