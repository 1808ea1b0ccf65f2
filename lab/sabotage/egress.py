"""Sabotages of what devices may use on the internet, of their isolation, and of their limits."""

from __future__ import annotations

from lab.sabotage.model import Sabotage

_LISTS = "egress.{pump-updates,pump-service}"
_NOBODY = "those on its list don't reach it either"

SABOTAGES = (
    # The ruleset on disk edited and loaded.
    Sabotage(
        name="lists-of-everything",
        title="The rule that looks devices up in the lists accepts them all, whatever the lists hold",
        breaks=r"""firewall 's/(oifname "br-internet") ether saddr \. ip saddr vmap @own_pair/\1 accept/'""",
        catches=(
            "egress.{pump-updates,pump-service}-for-no-others",
            "segments.iot-to-internet",
            "destinations.{others,pump-service}-from-iot",
        ),
        may={"segments.hosts-agree-in-iot": "a busy host answers one of them late"},
        apart_from=("forward-*", "no-translation", "lists-*"),
    ),
    Sabotage(
        name="lists-for-neighbours",
        title="A list is for the whole segment, not for the devices on it",
        breaks=r"""firewall '/vmap @own_pair/i iifname "br-iot" oifname "br-internet" jump to_pump-updates'""",
        catches=("egress.pump-updates-for-no-others",),
        may={"destinations.others-from-iot": "the other service is asked by address, too"},
        apart_from=("forward-*", "no-translation", "lists-*"),
    ),
    Sabotage(
        name="lists-forgotten",
        title="Nobody looks devices up: those on a list don't get what it names",
        breaks="firewall '/vmap @own_/d'",
        catches=(f"{_LISTS}-for-those-on-its-list",),
        may={f"{_LISTS}-for-no-others": _NOBODY},
        apart_from=("forward-*", "no-translation", "lists-*"),
    ),
    Sabotage(
        name="lists-without-ipv6",
        title="The rule that looks devices up was written for IPv4, and its twin for IPv6 forgotten",
        breaks="firewall '/vmap @own_hardware_6/d'",
        catches=(f"{_LISTS}-for-those-on-its-list",),
        apart_from=("forward-*", "no-translation", "lists-*"),
    ),
    Sabotage(
        name="lists-without-names",
        title="The resolver no longer tells the firewall what the names of the lists stand for",
        breaks="""
            edit /etc/gatehouse/dnsmasq.conf '/^nftset=/d'
            systemctl restart dnsmasq.service
            for set in $(nft list sets | sed -n 's/^\\tset \\(name_[0-9a-f_]*\\) .*/\\1/p'); do
                nft flush set inet gatehouse $set
            done
        """,
        catches=("egress.pump-updates-for-those-on-its-list",),
        may={"egress.pump-updates-for-no-others": _NOBODY},
        apart_from=("forward-*", "no-translation", "lists-*", "no-names", "names-for-the-internet"),
    ),
    Sabotage(
        name="no-limits",
        title="A device may open as many connections as it likes",
        breaks="firewall '/goto over_limits/d'",
        catches=("limits.iot",),
        apart_from=("*forward-*",),
    ),
    Sabotage(
        name="foreign-resolvers",
        title="Devices may ask resolvers on the internet: the rules that keep them from that are gone",
        breaks="firewall '/goto foreign_resolver/d'",
        catches=("resolvers.foreign-from-iot", "destinations.others-from-iot"),
        may={"segments.hosts-agree-in-iot": "a busy host answers one of them late"},
        apart_from=("forward-*", "no-translation", "lists-of-everything"),
    ),
    Sabotage(
        name="impossible-senders",
        title="Nobody looks whether a sender on the internet can exist",
        breaks="firewall '/@bogons_[46] counter/d'",
        catches=("segments.impossible-senders-from-internet",),
        apart_from=("forged-senders",),
    ),
    Sabotage(
        name="nobody-noted",
        title="The firewall notes nobody that it refuses",
        breaks="firewall '/^\\t\\t.*update @(refused_here|refused_onwards|forged) /d'",
        catches=("segments.refusals-from-{iot,management,guest,internal}",),
        apart_from=("forged-senders", "forward-*"),
    ),
    Sabotage(
        name="no-advertisement",
        title="dnsmasq advertises no router: hosts get no IPv6",
        breaks="""
            edit /etc/gatehouse/dnsmasq.conf '/^enable-ra/d; /,ra-only,/d'
            systemctl restart dnsmasq.service
        """,
        catches=("resolvers.advertised-in-{iot,management,guest,internal}",),
        apart_from=("*names*",),
    ),
    Sabotage(
        name="handed-out-wrongly",
        title="DHCP names no clock, so devices never know whether a certificate is still good",
        breaks="""
            edit /etc/gatehouse/dnsmasq.conf '/option:ntp-server/d'
            systemctl restart dnsmasq.service
        """,
        catches=("resolvers.handed-out-in-{iot,management,guest,internal}",),
        apart_from=("*names*", "no-advertisement"),
    ),
    Sabotage(
        name="own-name-everywhere",
        title="The gateway's name is answered with its addresses in all segments",
        breaks="""
            edit /etc/gatehouse/dnsmasq.conf '/^localise-queries/d'
            systemctl restart dnsmasq.service
        """,
        catches=("resolvers.own-name-in-{iot,management,guest,internal}",),
        apart_from=("*names*", "no-advertisement", "handed-out-wrongly"),
    ),
    Sabotage(
        name="no-isolation",
        title="The ports of the devices' segment are not isolated from each other",
        breaks="ip link set port-iot type bridge_slave isolated off",
        catches=("segments.{neighbours,pretenders}-in-iot",),
    ),
)
