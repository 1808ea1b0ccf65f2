"""Sabotages of time, addresses and names, and of what keeps the machine in order."""

from __future__ import annotations

from lab.sabotage.model import Sabotage

_NO_CONTROL = "it answers nobody, so silence elsewhere proves nothing"
_INSIDE = "{iot,management,guest,internal}"

SABOTAGES = (
    Sabotage(
        name="no-time",
        title="chrony is stopped",
        breaks="systemctl stop chrony.service",
        catches=("host.runs-chrony", f"gateway.chrony.ntp-from-{_INSIDE}", "time.served", "time.synchronised"),
        may={"gateway.chrony.ntp-from-internet": _NO_CONTROL},
    ),
    Sabotage(
        name="time-for-itself",
        title="chrony keeps the time for the gateway alone",
        breaks="edit /etc/chrony/chrony.conf '/^allow/d'; systemctl restart chrony.service",
        catches=(f"gateway.chrony.ntp-from-{_INSIDE}", "time.served"),
        may={"gateway.chrony.ntp-from-internet": _NO_CONTROL},
    ),
    Sabotage(
        name="time-of-nobody",
        title="chrony has no sources and serves time that it does not know",
        breaks="edit /etc/chrony/chrony.conf '/^(server|local)/d'; systemctl restart chrony.service",
        catches=("time.served", "time.synchronised"),
        may={f"gateway.chrony.ntp-from-{_INSIDE}": "some implementations do not answer then"},
    ),
    Sabotage(
        name="time-for-the-internet",
        title="chrony serves the internet too, and the firewall lets it",
        breaks="""
            edit /etc/chrony/chrony.conf '$a allow all'
            systemctl restart chrony.service
            admit input "iifname \\"$br_internet\\" fib daddr . iif type local udp dport 123 counter accept"
        """,
        catches=("gateway.chrony.ntp-from-internet",),
        may={"scan.udp-from-internet": "what answers is open to a scan, too"},
    ),
    Sabotage(
        name="no-names",
        title="dnsmasq is stopped: no addresses, no names",
        breaks="systemctl stop dnsmasq.service",
        catches=("host.runs-dnsmasq", f"gateway.dnsmasq.{{dns,dns-tcp,dhcp}}-from-{_INSIDE}"),
        may={
            "gateway.dnsmasq.*-from-internet": _NO_CONTROL,
            f"scan.{{tcp,udp}}-from-{_INSIDE}": "a declared port is closed",
            f"resolvers.{{advertised,handed-out,own-name}}-in-{_INSIDE}": "nobody advertises, hands out or answers",
            "egress.pump-updates-*": "nobody resolves its names",
            "limits.iot": "its listener may be the resolver's",
        },
        apart_from=("*names*", "no-advertisement"),
    ),
    Sabotage(
        name="names-for-the-internet",
        title="dnsmasq serves the uplink too, and the firewall lets it",
        breaks="""
            net=${gw4_internet%.*}
            edit /etc/gatehouse/dnsmasq.conf "\\$a interface=$br_internet\\ndhcp-range=$net.100,$net.120,12h"
            systemctl restart dnsmasq.service
            admit input "iifname \\"$br_internet\\" udp dport { 53, 67 } counter accept"
            admit input "iifname \\"$br_internet\\" tcp dport 53 counter accept"
        """,
        catches=("gateway.dnsmasq.{dns,dns-tcp,dhcp}-from-internet",),
        may={
            "scan.{tcp,udp,other-addresses}-from-internet": "what answers is open to a scan, too",
            "gateway.other-addresses-from-internet": "the rules name no destination address",
        },
        apart_from=("*names*",),
    ),
    Sabotage(
        name="no-log",
        title="The journal is stopped",
        breaks="systemctl stop systemd-journald.socket systemd-journald-dev-log.socket systemd-journald.service",
        catches=("host.runs-journald",),
        may={
            "host.log": "it has no start to ask about",
            "host.{log-entries,log-protected,sudo}": "nothing is noted any more",
            "broker.sessions": "without a log nobody knows whose sessions these are",
        },
    ),
    Sabotage(
        name="endless-log",
        title="The journal has no limits, and is not kept over a restart",
        breaks="""
            rm -f /etc/systemd/journald.conf.d/50-gatehouse.conf
            systemctl restart systemd-journald.service
            journalctl --flush
        """,
        catches=("host.log", "host.log-retention"),
        may={"broker.sessions": "what the log has lost, nobody knows"},
    ),
    Sabotage(
        name="no-updates",
        title="Unattended upgrades are switched off",
        breaks="""edit /etc/apt/apt.conf.d/90gatehouse-upgrades 's/(Unattended-Upgrade|Enable) "1"/\\1 "0"/'""",
        catches=("host.updates",),
    ),
    Sabotage(
        name="no-update-timers",
        title="The timers of automatic updates are disarmed",
        breaks="systemctl disable --quiet --now apt-daily.timer apt-daily-upgrade.timer",
        catches=("host.runs-upgrades", "host.updates"),
    ),
    Sabotage(
        name="half-an-upgrade",
        title="An upgrade was interrupted: packages are unpacked and not set up",
        breaks="""
            for package in sudo procps python3-minimal apparmor auditd nmap nginx; do
                edit /var/lib/dpkg/status "/^Package: $package\\$/,/^\\$/s/ok installed/ok half-configured/"
            done
        """,
        catches=("host.runs-{apparmor,auditd,base,bootloader,kernel,probe,updates}",),
        may={"host.runs-{ssh,nginx}": "it needs one of these packages, too"},
    ),
    Sabotage(
        name="no-nights",
        title="The timer of the nightly verification is disarmed",
        breaks="systemctl disable --quiet --now gatehouse-verify.timer",
        catches=("host.runs-watch",),
    ),
    Sabotage(
        name="nights-without-eyes",
        title="The nightly verification is told to overlook the broker and the front",
        breaks="""edit /etc/gatehouse/verify.json '/"(mosquitto|nginx)\\.service",/d'""",
        catches=("watch.nightly",),
    ),
    Sabotage(
        name="kernel-trusts-routes",
        title="The kernel takes redirects and source routes, and checks no sender",
        breaks="""
            for setting in accept_redirects accept_source_route send_redirects; do
                sysctl -q -w net.ipv4.conf.all.$setting=1
            done
            sysctl -q -w net.ipv4.conf.all.rp_filter=0
        """,
        catches=("host.kernel",),
    ),
    Sabotage(
        name="another-version",
        title="The gateway was deployed from another version of the kit",
        breaks="edit /usr/lib/gatehouse/VERSION 's/^commit .*/commit 0000000000000000000000000000000000000000/'",
        catches=("host.version",),
    ),
)
