"""What the gateway's interfaces are like now."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pyinfra.api import FactBase

from gatehouse.proof.probes.segment import OUTER


@dataclass(frozen=True)
class Links:
    """`addresses`: {interface: {"10.10.10.1/24", …}}, `masters`: {interface: bridge}, `foreign`: others' files.

    `isolated` are the interfaces that are kept from others of their bridge, `own` the kit's files, declared now or
    before. Of `masters` the suite's own ports, which are there while it asks, are left out.
    """

    addresses: dict[str, frozenset[str]]
    masters: dict[str, str]
    foreign: tuple[str, ...]
    isolated: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()


class NetworkState(FactBase[Links]):
    """Addresses and bridge members as the kernel has them, and network configuration files that are not the kit's."""

    @staticmethod
    def default() -> Links:
        """No interface."""
        return Links({}, {}, ())

    def command(self, interfaces: list[str]) -> str:
        """One `ip addr`, and a search for other configuration of the named interfaces."""
        names = "|".join(interfaces)
        return (
            "ip -j -d addr show; echo;"
            " find /etc/systemd/network -maxdepth 1 -type f \\( -name '*.network' -o -name '*.netdev' \\) 2>/dev/null;"
            f" grep -lsE '^[[:space:]]*(iface|auto|allow-hotplug)[[:space:]]+({names})\\b'"
            " /etc/network/interfaces /etc/network/interfaces.d/* 2>/dev/null; true"
        )

    def process(self, output: list[str]) -> Links:
        """Link-local addresses are left out: the kernel makes them."""
        interfaces = json.loads(output[0]) if output and output[0].startswith("[") else []
        return Links(
            addresses={
                link["ifname"]: frozenset(
                    f"{a['local']}/{a['prefixlen']}" for a in link.get("addr_info", ()) if a.get("scope") == "global"
                )
                for link in interfaces
            },
            masters={
                link["ifname"]: link["master"]
                for link in interfaces
                if "master" in link and not link["ifname"].startswith(OUTER)
            },
            foreign=tuple(line for line in output[1:] if line.startswith("/") and "-gatehouse-" not in line),
            own=frozenset(line for line in output[1:] if line.startswith("/") and "-gatehouse-" in line),
            isolated=frozenset(
                link["ifname"]
                for link in interfaces
                if link.get("linkinfo", {}).get("info_slave_data", {}).get("isolated")
            ),
        )
