"""The site prod: what a wrong value damages most stands first. `./kit plan --site prod` checks it and changes nothing.

This is an example of a site with its VLANs on one trunk: put in your own keys, addresses and interfaces, or let
`./kit init NAME` write a site of your own.
"""

from pathlib import Path

from gatehouse.site import Site, read_destinations, read_registry
from roles import declared

site = Site(
    name="prod",
    domain="prod.internal",
    # Who may administer: without the private half of one of these keys nobody gets in. One line of a .pub file each.
    ssh={"port": 22, "user": "gatekeeper", "keys": []},
    # How each gateway is reached before it is hardened, and how its ports and addresses are laid out.
    gateways={
        "gateway": {
            "contact": {"user": "root"},
            "networks": {
                "internet": {"interface": "eth0", "ipv4": "dhcp"},
                "iot": {"trunk": "eth1", "ipv4": "10.20.10.1/24"},
                "management": {"trunk": "eth1", "ipv4": "10.20.20.1/24"},
                "guest": {"trunk": "eth1", "ipv4": "10.20.30.1/24"},
                "internal": {"interface": "eth2", "ipv4": "10.20.40.1/24"},
            },
        },
    },
    # The networks, and which others each may open connections to. What is not listed is dropped.
    segments={
        "iot": {"vlan": 10, "isolated": True, "own_resolver": True, "limits": {}, "description": "devices"},
        "management": {"vlan": 20, "reaches": ["internet", "internal", "iot"], "description": "administration"},
        "guest": {"vlan": 30, "reaches": ["internet"], "description": "guests"},
        "internal": {"reaches": ["internet"], "description": "the LAN"},
        "internet": {"description": "the uplink"},
    },
    # The internet services that devices may use, and no others:
    # "name": {"names": ["updates.example.com"], "port": 443, "models": ["esp32-relay"]}
    destinations={
        # What `./kit mud.import` writes.
        **read_destinations(Path(__file__).parent.parent / "destinations" / "prod.toml"),
    },
    # Whom the gateway tells what is wrong with it (docs/alerts.md): alerts={"mqtt": True},
    services=declared(),
    devices=read_registry(Path(__file__).parent.parent / "devices" / "prod.toml"),
)
