"""Sabotages of the firewall and the segments."""

from __future__ import annotations

from lab.sabotage.model import Sabotage

_SEEN_BY_SCANS = "what answers is open to a scan, too"
_NO_CONTROL = "its success beside the refusal is gone"

# A service that nobody declared: says a word to whoever comes, over TCP or UDP, in both families.
_TCP = (
    "import http.server as h, socket as s, sys; "
    "c = type('Six', (h.ThreadingHTTPServer,), {'address_family': s.AF_INET6}); "
    "c(('::', int(sys.argv[1])), h.SimpleHTTPRequestHandler).serve_forever()"
)
ANSWERS_DATAGRAMS = (
    "import socket as s, sys; u = s.socket(s.AF_INET6, s.SOCK_DGRAM); u.bind(('::', int(sys.argv[1])))\n"
    "while True: u.sendto(b'here', u.recvfrom(2048)[1])"
)
_CALLS = (
    "import socket as s, sys, time; u = s.socket(s.AF_INET, s.SOCK_DGRAM); "
    "u.connect((sys.argv[1], int(sys.argv[2]))); time.sleep(3600)"
)

SABOTAGES = (
    # The ruleset on disk edited and loaded: first those that load all of it.
    Sabotage(
        name="forward-all",
        title="The rules that drop are gone from the forward chain, and its policy is accept",
        breaks=r"""
            firewall '/(hook forward|chain .*onwards)/,/^\t\}/{ /(invalid|quarantined|policy)/b; / drop|limit rate/d }'
            firewall '/hook forward/s/policy drop/policy accept/'
        """,
        catches=(
            "segments.{iot-to-management,iot-to-guest,iot-to-internal,iot-to-internet}",
            "segments.{guest-to-iot,guest-to-management,guest-to-internal,management-to-guest}",
            "segments.{internal-to-iot,internal-to-management,internal-to-guest}",
            "segments.{internet-to-iot,internet-to-management,internet-to-guest,internet-to-internal}",
            "destinations.others-from-iot",
            "egress.{pump-updates,pump-service}-for-no-others",
            "host.firewall",
        ),
        may={
            "destinations.pump-service-from-iot": "all of the internet is open to devices",
            "remote.reaches-nothing-else": "who comes through the tunnel gets everywhere, too",
            "segments.refusals-from-*": "nobody is refused onwards",
        },
        apart_from=("forward-*", "no-translation"),
    ),
    Sabotage(
        name="forward-nothing",
        title="The rules that accept are gone from the forward chain: nobody reaches what they may",
        breaks=r"""firewall '/chain .*onwards/,/^\t\}/{ /(accept comment|jump to_|vmap)/d }'""",
        catches=(
            "segments.{management-to-iot,management-to-internal,management-to-internet}",
            "segments.{guest-to-internet,internal-to-internet}",
            "destinations.vendor-cloud-from-{iot,management,guest,internal}",
            "destinations.others-from-{iot,management,guest,internal}",
            "destinations.pump-service-from-{management,guest,internal}",
            "egress.{pump-updates,pump-service}-for-those-on-its-list",
        ),
        may={
            "destinations.pump-service-from-iot": "nobody reaches anything out there",
            "egress.*-for-no-others": "those on the list don't reach it either",
            "segments.forged-senders-from-*": "the honest sender is not heard either",
            "quarantine.isolated": "a free device reaches nobody either",
            "remote.*": "who comes through the tunnel reaches nobody either",
        },
        apart_from=("forward-*", "no-translation"),
    ),
    Sabotage(
        name="forward-without-ipv6",
        title="A rule was written for IPv4 and its twin for IPv6 forgotten",
        breaks=r"""firewall 's/(oifname "br-iot") counter accept/\1 meta nfproto ipv4 counter accept/'""",
        catches=("segments.management-to-iot",),
        may={"segments.forged-senders-from-*": "the honest sender is not heard either"},
        apart_from=("forward-*", "no-translation"),
    ),
    Sabotage(
        name="no-translation",
        title="IPv4 leaves with the senders' private addresses: the masquerade rule is gone",
        breaks="firewall '/masquerade/d'",
        catches=(
            "destinations.{vendor-cloud,others}-from-{iot,management,guest,internal}",
            "egress.{pump-updates,pump-service}-for-those-on-its-list",
        ),
        may={
            "destinations.pump-service-from-*": "no answer finds its way back",
            "egress.*-for-no-others": "the same",
        },
        apart_from=("forward-*", "no-translation"),
    ),
    Sabotage(
        name="forged-senders",
        title="A rule goes by the sender's address, and nobody looks whether that belongs to the segment",
        breaks="""
            firewall '/jump log_spoofed/d'
            admit forward "ip6 saddr @from_management_6 oifname { $br_iot, $br_internal, $br_internet } counter accept"
        """,
        catches=(
            "segments.forged-senders-from-{iot,management,guest,internal,internet}",
            "segments.impossible-senders-from-internet",
        ),
        may={"segments.refusals-from-*": "nobody is refused for a forged sender"},
    ),
    Sabotage(
        name="any-address",
        title="Input rules name no destination address, so every address of the gateway answers in every segment",
        breaks=r"""
            firewall '/chain (in_|tunnel_in)/,/^\t\}/{ /(accept|let_in_[a-z0-9]+) comment/s/ip6? daddr [^ ]+ // }'
            admit input "iifname \"$br_internet\" fib daddr . iif type != local tcp dport 22 counter accept"
        """,
        catches=(
            "gateway.other-addresses-from-{iot,management,guest,internal,internet}",
            "scan.other-addresses-from-{iot,management,guest,internal,internet}",
        ),
        may={"remote.*": "they answer in the tunnel, too"},
        # where names are what is let in, and nobody answers for them
        apart_from=("no-names",),
    ),
    Sabotage(
        name="pings-everywhere",
        title="Every address of the gateway answers pings in every segment",
        breaks=r"""firewall 's/fib daddr \. iif type local (icmp(v6)? type echo-request)/\1/'""",
        catches=("gateway.pings-from-{iot,management,guest,internal,internet}",),
    ),
    Sabotage(
        name="stray-service",
        title="A program that nobody declared listens on every address, and the firewall lets everybody to it",
        breaks=f"""
            stray service "{_TCP}" 2323
            admit input 'fib daddr . iif type local tcp dport 2323 counter accept'
        """,
        catches=("scan.tcp-from-{iot,management,guest,internal,internet}", "gateway.sockets"),
        ends="gone service",
    ),
    Sabotage(
        name="stray-datagrams",
        title="A program that nobody declared answers datagrams (SSDP), and the firewall lets everybody to it",
        breaks=f"""
            stray datagrams "{ANSWERS_DATAGRAMS}" 1900
            admit input 'fib daddr . iif type local udp dport 1900 counter accept'
        """,
        catches=("scan.udp-from-{iot,management,guest,internal,internet}", "gateway.sockets"),
        ends="gone datagrams",
    ),
    Sabotage(
        name="stray-socket",
        title="A program that nobody declared listens behind the firewall",
        breaks=f'stray socket "{_TCP}" 9090',
        catches=("gateway.sockets",),
        ends="gone socket",
    ),
    Sabotage(
        name="stray-caller",
        title="A program that nobody declared calls somebody on the internet",
        breaks=f'stray caller "{_CALLS}" 198.51.100.7 53',
        catches=("gateway.connections",),
        ends="gone caller",
    ),
    Sabotage(
        name="ssh-for-all",
        title="The firewall lets every segment to SSH",
        breaks="admit input 'fib daddr . iif type local tcp dport 22 counter accept'",
        catches=("gateway.ssh.ssh-from-{iot,guest,internal,internet}",),
        may={"scan.tcp-from-{iot,guest,internal,internet}": _SEEN_BY_SCANS},
    ),
    Sabotage(
        name="ssh-for-one",
        title="The firewall lets one address of the management segment to SSH, and no other",
        breaks=r"""firewall "/chain in_management/,/^\t\}/s/(ip daddr [^ ]+ tcp dport 22 )/ip saddr $operator4 \1/" """,
        catches=("gateway.ssh.ssh-from-management",),
        may={
            "scan.tcp-from-management": "SSH is closed to the scanner",
            "ssh.algorithms": "they are asked for from the management segment",
            "segments.hosts-agree-in-management": "neither reaches it, or one does",
        },
        apart_from=("ssh-for-all", "any-address"),
    ),
    Sabotage(
        name="friends",
        title="One host of each segment is let through, past all rules",
        breaks="""
            admit input "ip saddr { $host4_iot, $host4_management, $host4_guest, $host4_internal, $host4_internet } \
tcp dport 22 counter accept"
        """,
        catches=("segments.hosts-agree-in-{iot,management,guest,internal,internet}",),
        apart_from=("ssh-for-*", "ssh-from-*", "any-address"),
    ),
    Sabotage(
        name="networks-forgotten",
        title="systemd-networkd is not part of the start: the segments are gone after the next one",
        breaks="systemctl disable --quiet systemd-networkd.service",
        catches=("host.runs-networkd",),
    ),
    Sabotage(
        name="firewall-forgotten",
        title="The firewall is not loaded at the next start",
        breaks="systemctl disable --quiet gatehouse-firewall.service",
        catches=("host.runs-nftables", "host.firewall"),
    ),
    # The kernel's table changed, while the ruleset on disk stays as it is: always after the former.
    Sabotage(
        name="iot-to-internal",
        title="A rule in front of the others lets devices into the internal segment",
        breaks='nft insert rule inet gatehouse forward iifname "$br_iot" oifname "$br_internal" accept',
        catches=("segments.iot-to-internal",),
        may={"quarantine.isolated": "devices in quarantine, too"},
    ),
    Sabotage(
        name="guest-to-iot",
        title="A rule in front of the others lets guests to the devices",
        breaks='nft insert rule inet gatehouse forward iifname "$br_guest" oifname "$br_iot" accept',
        catches=("segments.guest-to-iot",),
    ),
    Sabotage(
        name="ssh-from-internet",
        title="A rule in front of the others lets the internet to SSH",
        breaks='nft insert rule inet gatehouse input iifname "$br_internet" ip daddr $gw4_internet tcp dport 22 accept',
        catches=("gateway.ssh.ssh-from-internet",),
        may={"scan.tcp-from-internet": _SEEN_BY_SCANS},
    ),
    Sabotage(
        name="stray-port",
        title="A port that nobody declared is in the guests' bridge",
        breaks="ip link add stray-port type veth peer name stray-peer; ip link set stray-port master br-guest up",
        catches=("segments.ports",),
        ends="ip link delete stray-port",
    ),
    Sabotage(
        name="helper",
        title="A connection tracking helper reads along and lets in what a device names",
        breaks="""
            nft 'add ct helper inet gatehouse reads-along { type "ftp" protocol tcp; }'
            nft 'insert rule inet gatehouse forward tcp dport 21 ct helper set "reads-along"'
        """,
        catches=("segments.no-helpers",),
    ),
    Sabotage(
        name="no-firewall",
        title="The kit's table is deleted: everything is let in and through",
        breaks="nft delete table inet gatehouse",
        catches=(
            "host.firewall",
            "segments.{iot-to-internal,guest-to-iot,internet-to-iot}",
            "segments.forged-senders-from-{iot,guest,internal}",
            "gateway.ssh.ssh-from-{iot,guest,internal,internet}",
            "gateway.other-addresses-from-{iot,guest}",
            "scan.other-addresses-from-{iot,guest}",
        ),
        may={
            "segments.*": "nothing keeps the segments apart",
            "destinations.*": "nothing keeps devices in, and nothing translates addresses",
            "gateway.*": "every listener and every closed port answers everywhere",
            "database.other-accounts": "the firewall keeps the other accounts away",
            "dashboards.other-accounts": "the same",
            "api.other-accounts": "the same",
            "egress.*": "the lists are gone, too",
            "limits.*": "and the limits",
            "resolvers.foreign-*": "nothing keeps anybody from the internet",
            "scan.*": "the same for scans, or they take too long: every port answers",
            "quarantine.{isolated,sets-of-*}": "nothing keeps those in quarantine from anything",
            "remote.*": "nothing keeps those who come through the tunnel in management",
        },
        apart_from=("*",),
    ),
)
