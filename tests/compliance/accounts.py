"""What accounts of the gateway itself may connect to: root does, those that have no business there do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gatehouse.proof.plugin import cannot_prove
from gatehouse.site import Listener
from tests.compliance.live import Live

# Connects as somebody else: `python3 -I -c CONNECT PORT…`; a line for each port.
CONNECT = """
import socket, sys
for port in sys.argv[1:]:
    try:
        socket.create_connection(("127.0.0.1", int(port)), 5).close()
        print(port, "open")
    except OSError as error:
        print(port, type(error).__name__)
"""
STRANGERS = ("nobody", "mosquitto")


def are_shut_for_others(live: Live, evidence: Callable[[Any], None], *listeners: Listener) -> None:
    """Asserts that accounts which have no business with listeners on loopback are refused, where root connects."""
    asked = ("python3", "-I", "-c", CONNECT, *(str(listener.port) for listener in listeners))
    own = _by_port(live, *asked)
    others = {account: _by_port(live, "runuser", "-u", account, "--", *asked) for account in STRANGERS}
    for listener in listeners:
        got = own.get(str(listener.port), "no word")
        evidence({"from": "gateway", "sent": f"connection to {listener.label} as root", "got": got})
        if got != "open":
            cannot_prove(f"{listener.label} answers nobody: {got}")
        for account, answers in others.items():
            got = answers.get(str(listener.port), "no word")
            evidence({"from": "gateway", "sent": f"connection to {listener.label} as {account}", "got": got})
            assert got == "ConnectionRefusedError", f"{account} connects to {listener.label}: {got}"


def _by_port(live: Live, *argv: str) -> dict[str, str]:
    printed = str(live.run(*argv).result.get("output", ""))
    return dict(line.split(" ", 1) for line in printed.splitlines() if " " in line)
