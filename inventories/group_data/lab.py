"""The lab site: containers that behave like a small site, with everything that the kit can do switched on."""

import os
from pathlib import Path

from gatehouse.site import Site, read_destinations, read_peers, read_registry
from lab import acme, packages
from lab.state import State
from roles import declared

_state = State(os.environ.get("GATEHOUSE_LAB", "lab"))
_key = _state.prepare()
# A lab has a registry of its own, which starts as a copy of this one.
_registry = _state.directory / "devices.toml"
_first = Path(__file__).parent.parent / "devices" / "lab.toml"

site = Site(
    name="lab",
    domain="lab.internal",
    lab=True,
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
            "contact": {"key": str(_state.key)},
            "resolvers": ["198.51.100.1"],
            "public_names": {"gateway": "home.example"},
            "usb_storage": False,
            "networks": {
                "iot": {"interface": "port-iot", "ipv4": "10.10.10.1/24", "ipv6": "fd10:10:10::1/64"},
                "management": {"interface": "port-mgmt", "ipv4": "10.10.20.1/24", "ipv6": "fd10:10:20::1/64"},
                "guest": {"interface": "port-guest", "ipv4": "10.10.30.1/24", "ipv6": "fd10:10:30::1/64"},
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
    ssh={"keys": [_key]},
    time={"servers": ["198.51.100.1"], "pools": False},
    database={"retention": "30d", "summaries": {"every": "1h", "retention": "26w"}},
    dashboards=packages.dashboards(_state.directory),
    # The public CA of the lab's own internet, which has to reach port 80.
    acme={
        "directory": acme.DIRECTORY,
        "staging": acme.DIRECTORY,
        "trust": _state.directory / acme.SERVER,
        "anchors": _state.directory / acme.ROOTS,
    },
    settings={"nginx": {"reachable_from": {"http": ["management", "internet"]}}},
    destinations={
        "vendor-cloud": {"addresses": ["198.51.100.80/32", "2001:db8:51::80/128"], "port": 443, "segments": ["iot"]},
        # A range with a resolver in it, which stays closed: see `foreign_resolvers`.
        "vendor-range": {"addresses": ["198.51.100.88/29", "2001:db8:51::90/124"], "port": 443, "segments": ["iot"]},
        # For the pumps alone: by name, and for one of them by address.
        "pump-updates": {"names": ["other.example"], "port": 8443, "models": ["esp32-relay"]},
        "pump-service": {
            "addresses": ["198.51.100.80/32", "2001:db8:51::80/128"],
            "port": 8443,
            "devices": ["pump-02"],
        },
        **read_destinations(_state.directory / "destinations.toml"),
    },
    foreign_resolvers=["198.51.100.90/32", "2001:db8:51::90/128"],
    programs={"homeassistant": {"reads": ["devices/+/telemetry/#", "devices/+/status"]}},
    psk=True,
    coap=True,
    api=True,
    remote={
        "tunnels": {"gateway": {"ipv4": "10.10.90.1/24", "endpoint": "198.51.100.2"}},
        "peers": {"laptop": {"number": 2}, **read_peers(_state.directory / "peers.toml")},
    },
    updates=True,
    # Its tests would not wait ten minutes.
    alerts={"mqtt": True, "window_seconds": 20, "calm_seconds": 3},
    devices=read_registry(_registry if _registry.exists() else _first),
)
