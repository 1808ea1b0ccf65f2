"""Addresses and names for the segments: DHCP with a reservation for each device, and a resolver that knows the site.

The gateway itself doesn't use it: its own resolver stays as it is.
"""

from gatehouse.site import Flow, Listener, Service

_SERVED = ("iot", "management", "guest", "internal")
_FORGED = "a forged answer leads clients elsewhere; what is worth protecting asks for a certificate there"

service = Service(
    name="dnsmasq",
    title="Addresses and names (DHCP, DNS)",
    # Not Debian's `dnsmasq`: that makes itself the gateway's own resolver.
    packages=("dnsmasq-base",),
    units=("dnsmasq.service",),
    user="dnsmasq",
    network_facing=True,
    listeners=(
        Listener(
            name="dns",
            port=53,
            transport="udp",
            encryption="none",
            authentication="none",
            reachable_from=_SERVED,
            data="names",
            compromise=_FORGED,
        ),
        Listener(
            name="dns-tcp",
            port=53,
            encryption="none",
            authentication="none",
            reachable_from=_SERVED,
            data="names",
            compromise=_FORGED,
        ),
        Listener(
            name="dhcp",
            port=67,
            transport="udp",
            encryption="none",
            authentication="none",
            reachable_from=_SERVED,
            broadcast=True,
            data="addresses",
            compromise="a client of the segment can take addresses from the others; no segment reaches another by it",
        ),
    ),
    flows=(
        Flow(
            source="gateway",
            destination="internet",
            data="names that are not the site's own",
            encryption="none",
            authentication="none",
            compromise="the provider sees and can forge answers, but none that point into the site's own networks",
        ),
    ),
)
