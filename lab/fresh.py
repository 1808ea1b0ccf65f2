"""What an installer leaves on a fresh gateway: a name, root's key, addresses on management and uplink only."""

from __future__ import annotations

from lab.topology import INTERNET, MANAGEMENT, Address, GatewayHost, Port

_HEADER = "# A fresh machine's network, as its installer left it."


def files(gateway: GatewayHost, public_key: str) -> dict[str, tuple[bytes, int]]:
    """Its files as path → (content, mode)."""
    texts = {
        "etc/hostname": f"{gateway.name}\n",
        "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {gateway.name}\n::1 localhost ip6-localhost ip6-loopback\n",
        "etc/resolv.conf": f"nameserver {gateway.resolver}\n",
    }
    for segment, routers in ((MANAGEMENT, ()), (INTERNET, gateway.routers)):
        units = _units(gateway.port(segment), routers)
        texts |= {f"etc/systemd/network/10-lab-fresh-{name}": text for name, text in units.items()}
    made = {path: (text.encode(), 0o644) for path, text in texts.items()}
    made["root/.ssh/authorized_keys"] = (f"{public_key}\n".encode(), 0o600)
    return made


def _units(port: Port, routers: tuple[Address, ...]) -> dict[str, str]:
    """The .network of a port, and of a tagged one the VLAN and its trunk."""
    lines = ["LinkLocalAddressing=ipv6", "IPv6AcceptRA=no", *(f"Address={address}" for address in port.addresses)]
    lines += [f"Gateway={router}" for router in routers]
    units = {f"{port.link}.network": _unit("[Match]", f"Name={port.link}", "", "[Network]", *lines)}
    if port.vlan is not None:
        vlan = ("[NetDev]", f"Name={port.link}", "Kind=vlan", "", "[VLAN]", f"Id={port.vlan}")
        trunk = ("[Match]", f"Name={port.interface}", "", "[Network]", "LinkLocalAddressing=no", f"VLAN={port.link}")
        units |= {f"{port.link}.netdev": _unit(*vlan), f"{port.interface}.network": _unit(*trunk)}
    return units


def _unit(*lines: str) -> str:
    return "\n".join([_HEADER, *lines]) + "\n"
