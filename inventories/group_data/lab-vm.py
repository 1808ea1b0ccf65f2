"""The lab of virtual machines: VLANs 10, 20 and 30 on one trunk, the LAN and the uplink untagged, as on a small PC.

The operator reaches the gateway through the field machine, which leads these two ports of loopback into management.
"""

import os
from pathlib import Path

from gatehouse.site import Site, read_registry
from lab.state import State
from roles import declared

_state = State(f"{os.environ.get('GATEHOUSE_LAB') or 'lab'}-vm")
_key = _state.prepare()
# A lab has a registry of its own, which starts as a copy of this one.
_registry = _state.directory / "devices.toml"
_first = Path(__file__).parent.parent / "devices" / "lab-vm.toml"

site = Site(
    name="lab-vm",
    domain="lab.internal",
    lab="machines",
    state=_state.directory,
    services=declared(),
    segments={
        "iot": {"vlan": 10, "description": "devices", "isolated": True, "own_resolver": True, "limits": {}},
        "management": {"vlan": 20, "reaches": ["internet", "internal", "iot"], "description": "administration"},
        "guest": {"vlan": 30, "reaches": ["internet"], "description": "guests"},
        "internal": {"reaches": ["internet"], "description": "the LAN"},
        "internet": {"description": "the uplink"},
    },
    gateways={
        "gateway": {
            "contact": {"address": "127.0.0.1", "port": 2221, "key": str(_state.key)},
            "resolvers": ["198.51.100.1"],
            "usb_storage": False,
            "networks": {
                "iot": {"trunk": "trunk", "ipv4": "10.10.10.1/24", "ipv6": "fd10:10:10::1/64"},
                "management": {"trunk": "trunk", "ipv4": "10.10.20.1/24", "ipv6": "fd10:10:20::1/64"},
                "guest": {"trunk": "trunk", "ipv4": "10.10.30.1/24", "ipv6": "fd10:10:30::1/64"},
                "internal": {"interface": "port-lan", "ipv4": "10.10.40.1/24", "ipv6": "fd10:10:40::1/64"},
                "internet": {
                    "interface": "uplink",
                    "ipv4": "198.51.100.2/24",
                    "ipv6": "2001:db8:51::2/64",
                    "router4": "198.51.100.1",
                    "router6": "2001:db8:51::1",
                    # Where the packages come from is up to the machine that the lab runs on.
                    "upstream": "private",
                },
            },
        }
    },
    ssh={"port": 2222, "former_ports": [], "keys": [_key]},
    time={"servers": ["198.51.100.1"], "pools": False},
    database={"retention": "30d", "summaries": {"every": "1h", "retention": "26w"}},
    destinations={
        "vendor-cloud": {"addresses": ["198.51.100.80/32", "2001:db8:51::80/128"], "port": 443, "segments": ["iot"]},
        # For the pumps alone: by name, and for one of them by address.
        "pump-updates": {"names": ["other.example"], "port": 8443, "models": ["esp32-relay"]},
        "pump-service": {
            "addresses": ["198.51.100.80/32", "2001:db8:51::80/128"],
            "port": 8443,
            "devices": ["pump-02"],
        },
    },
    foreign_resolvers=["198.51.100.90/32", "2001:db8:51::90/128"],
    programs={"homeassistant": {"reads": ["devices/+/telemetry/#", "devices/+/status"]}},
    psk=True,
    remote={
        "tunnels": {"gateway": {"ipv4": "10.10.90.1/24", "endpoint": "198.51.100.2"}},
        "peers": {"laptop": {"number": 2}},
    },
    devices=read_registry(_registry if _registry.exists() else _first),
)
