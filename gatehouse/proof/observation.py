"""What was seen: a probe, from where, and what came back; how to read it, and how it stands in the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REACHED = frozenset({"open", "answered", "accepted", "agreed"})
DENIED = frozenset({"silent", "prohibited"})


@dataclass(frozen=True)
class Observation:
    """One probe's result. `position` is a segment, `gateway`, or a host of the lab."""

    position: str
    probe: Mapping[str, Any]
    result: Mapping[str, Any]

    @property
    def outcome(self) -> str:
        """The word for what happened."""
        return str(self.result.get("outcome"))

    @property
    def reached(self) -> bool:
        """Whether somebody answered."""
        return self.outcome in REACHED

    @property
    def let_in(self) -> bool:
        """Whether the way is open: somebody answered, or took the connection and then ended it."""
        return self.reached or self.outcome == "cut"

    @property
    def denied(self) -> bool:
        """Whether the way is shut. `refused` is not: a RST says that the packet got through to where nobody listens."""
        return self.outcome in DENIED

    @property
    def target(self) -> str:
        """`10.10.40.254:22`, `[fd10::1]:22`."""
        address, port = self.probe.get("address"), self.probe.get("port")
        if address is None:
            return "255.255.255.255" if self.probe["kind"] == "dhcp" else "itself"
        shown = f"[{address}]" if ":" in str(address) else str(address)
        return f"{shown}:{port}" if port is not None else shown

    def __str__(self) -> str:
        source = self.result.get("source")
        sender = f"{self.position} ({source})" if source else self.position
        return f"{sender}: {_SENT.get(self.probe['kind'], self.probe['kind'])} to {self.target}: {self._got}"

    @property
    def _got(self) -> str:
        details = [self.outcome]
        for key in ("reason", "error", "code", "version", "cipher", "answer"):
            if key in self.result:
                details.append(f"{key} {self.result[key]!r}" if key == "answer" else f"{key} {self.result[key]}")
        return ", ".join(details)

    def evidence(self) -> dict[str, Any]:
        """As it stands in the report: from, sent, to, got, at. Keys and certificates are never part of it."""
        entry = {
            "from": self.position,
            "sent": _SENT.get(self.probe["kind"], self.probe["kind"]),
            "to": self.target,
            "got": self._got,
            "at": self.result.get("at"),
        }
        for key in ("source", "command", "open", "closed", "others", "addresses", "server", "stratum"):
            if key in self.result:
                entry[key] = self.result[key]
        if self.probe["kind"] == "spoof":
            entry["sent"] += f" {self.probe['source']}"
        return entry


_SENT = {
    "tcp": "TCP connection",
    "udp": "UDP datagram",
    "datagrams": "UDP datagrams",
    "dns": "DNS query",
    "ntp": "NTP request",
    "dhcp": "DHCPINFORM",
    "ping": "ICMP echo request",
    "spoof": "UDP datagram from the forged address",
    "tls": "TLS handshake",
    "mqtt": "MQTT 5 session",
    "dtls": "DTLS hello without a cookie",
    "coap": "CoAP over DTLS",
    "ssh": "SSH version and KEXINIT",
    "nmap": "port scan",
}
