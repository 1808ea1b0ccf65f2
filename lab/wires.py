"""The lab's cables: bridges in the switch's network namespace, and veth pairs from there into each host.

Every call is repeatable: a cable that is whole is left alone, half of one is replaced. `docker restart` takes a host's
network namespace away and its cables with it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from lab.errors import LabError
from lab.topology import Address, Interface, Network

ALIAS = "gatehouse-lab"


@dataclass(frozen=True)
class Namespace:
    """A network namespace by a process in it; `pid` None is the one that this process runs in."""

    pid: int | None = None

    def command(self, *argv: str) -> list[str]:
        """The command line that runs `argv` in this namespace."""
        return list(argv) if self.pid is None else ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *argv]

    def ip(self, *batch: str, force: bool = False) -> None:
        """Run ip(8) commands in one go. Raises LabError at the first that fails, unless forced."""
        if not batch:
            return
        options = ["-force"] if force else []
        done = subprocess.run(
            self.command("ip", *options, "-batch", "-"), input="\n".join(batch), capture_output=True, text=True
        )
        if done.returncode and not force:
            lines = [line for line in done.stderr.splitlines() if not line.startswith("Command failed")]
            raise LabError(f"lab: ip {' ; '.join(batch)}: {' '.join(lines) or 'failed'}")

    def links(self) -> dict[str, dict[str, Any]]:
        """The interfaces by name, as `ip -json -details link` tells them."""
        return {link["ifname"]: link for link in self._json("-details", "link", "show")}

    def routes_within(self, prefix: Network) -> list[dict[str, Any]]:
        """The routes of the main table to this prefix or parts of it."""
        return list(self._json(f"-{prefix.version}", "route", "show", "root", str(prefix)))

    def _json(self, *argv: str) -> Any:
        done = subprocess.run(self.command("ip", "-json", *argv), capture_output=True, text=True)
        if done.returncode:
            raise LabError(f"lab: ip {' '.join(argv)}: {done.stderr.strip()}")
        return [entry for entry in json.loads(done.stdout or "[]") if entry]


def short(prefix: str, *parts: str) -> str:
    """An interface name for something with a long one: at most 15 characters (IFNAMSIZ), the same each time."""
    return f"{prefix}{hashlib.sha256('/'.join(parts).encode()).hexdigest()[: 15 - len(prefix)]}"


def hardware_address(of: str) -> str:
    """A locally administered MAC address, the same each time: ports keep theirs over a reboot, as ARP caches expect."""
    octets = hashlib.sha256(of.encode()).digest()[:5]
    return ":".join(f"{octet:02x}" for octet in (0x02, *octets))


def bridges(switch: Namespace, names: dict[str, str]) -> None:
    """Make the bridges that are missing (name → what it carries), and take away those that carry nothing any more."""
    there = {n for n, link in switch.links().items() if link.get("linkinfo", {}).get("info_kind") == "bridge"}
    batch = [f"link delete {name}" for name in sorted(there - set(names))]
    for name, carries in names.items():
        if name not in there:
            # No spanning tree, no snooping: a plain cheap switch, that forwards at once.
            batch.append(f"link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0")
            batch.append(f"link set dev {name} alias {carries} up")
    switch.ip(*batch)


def cable(switch: Namespace, bridge: str, at_switch: str, host: Namespace, at_host: str, alias: str) -> bool:
    """Plug `at_host` of a host into a bridge of the switch; False if that cable was there already."""
    near, far = switch.links(), host.links()
    here, there = near.get(at_switch), far.get(at_host)
    if here and there and here.get("link_index") == there["ifindex"] and there.get("link_index") == here["ifindex"]:
        if here.get("master") == bridge and "UP" in here["flags"]:
            return False
        switch.ip(f"link set dev {at_switch} master {bridge} up")
        return True
    if there and there.get("linkinfo", {}).get("info_kind") != "veth":
        raise LabError(f"lab: {alias}: {at_host} exists there and is no cable of the lab (remove or rename it)")
    if here:
        switch.ip(f"link delete {at_switch}", force=True)
    if there:
        host.ip(f"link delete {at_host}", force=True)
    add = f"link add {at_switch} type veth peer name {at_host} address {hardware_address(alias)} netns {host.pid}"
    # The kernel takes a dead host's namespace down behind our back: its half may hold the name for a moment.
    for attempt in range(20):
        try:
            switch.ip(add)
            break
        except LabError as error:
            if "File exists" not in str(error) or attempt == 19:
                raise
            time.sleep(0.1)
    switch.ip(f"link set dev {at_switch} alias {ALIAS}:{alias} master {bridge} up")
    return True


def configure(host: Namespace, device: str, addresses: tuple[Interface, ...], routers: tuple[Address, ...]) -> None:
    """Give a field host's interface its addresses and default routes, and bring it up."""
    batch = [f"link set dev {device} up"]
    batch += [f"address replace {a} dev {device}{' nodad' if a.version == 6 else ''}" for a in addresses]
    # A gateway that was made anew has the same addresses behind other hardware: asking again beats waiting for it.
    host.ip(*batch, f"neigh flush dev {device}")
    host.ip(*(f"route replace default via {r} dev {device}" for r in routers))


def operator(
    name: str, switch: Namespace, bridge: str, at_switch: str, addresses: tuple[Interface, ...], alias: str
) -> None:
    """Plug the operator's machine (the current namespace) into a bridge of the switch, as `name`."""
    here = Namespace()
    existing = here.links().get(name)
    if existing and existing["address"] != hardware_address(alias):
        raise LabError(
            f"lab: interface {name} exists and is not the lab's (rename it, or set GATEHOUSE_LAB to another name)"
        )
    far = switch.links().get(at_switch)
    if not (existing and far and existing.get("link_index") == far["ifindex"] and far.get("master") == bridge):
        if existing:
            here.ip(f"link delete {name}", force=True)
        if far:
            switch.ip(f"link delete {at_switch}", force=True)
        here.ip(f"link add {name} address {hardware_address(alias)} type veth peer name {at_switch} netns {switch.pid}")
        here.ip(f"link set dev {name} alias {ALIAS}:{alias}")
        switch.ip(f"link set dev {at_switch} alias {ALIAS}:{alias} master {bridge} up")
    configure(here, name, addresses, ())


def left_over(lab: str) -> list[str]:
    """The operator's interfaces of a lab, by their alias."""
    return [n for n, link in Namespace().links().items() if str(link.get("ifalias", "")).startswith(f"{ALIAS}:{lab}:")]
