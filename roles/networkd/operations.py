"""Makes the kernel's interfaces what the site says, and takes over from whoever configured them before."""

from __future__ import annotations

import re
import shlex
from collections.abc import Generator, Mapping

from pyinfra import host
from pyinfra.api import StringCommand

from roles.differences import differs
from roles.lifecycle import LOADED, STAMP, UnitState, unit_differences
from roles.networkd.facts import Links, NetworkState

REPLACED = "/var/lib/gatehouse/replaced"


def taken_over(interfaces: list[str]) -> Generator[StringCommand, None, None]:
    """Moves other network configuration of these interfaces away; it is kept in /var/lib/gatehouse/replaced."""
    state: Links = host.get_fact(NetworkState, interfaces=interfaces)
    for path in state.foreign:
        differs(host.connector_data, "file", path, "configures an interface of a segment")
        target = f"{REPLACED}/{path.strip('/').replace('/', '_')}"
        yield StringCommand(f"mkdir -p -m 0700 {REPLACED}; mv -f -- {shlex.quote(path)} {shlex.quote(target)}")
        if path == "/etc/network/interfaces":
            yield StringCommand(
                "printf 'auto lo\\niface lo inet loopback\\n' > /etc/network/interfaces;"
                " systemctl stop networking.service 2>/dev/null || true"
            )


def configured(
    unit: str,
    loads: list[str],
    addresses: Mapping[str, frozenset[str]],
    masters: Mapping[str, str],
    isolated: frozenset[str],
    undo: str,
) -> Generator[StringCommand, None, None]:
    """Makes networkd load what is on disk, and repairs interfaces that differ from it.

    `addresses` are the fixed ones that each bridge must have (others may be there besides), `masters` the bridge of
    each port, `isolated` the ports that are kept from others of theirs. A port that is not plugged in is no difference:
    networkd takes it when it comes. What a former declaration left behind goes: files, bridges, VLANs, ports. Where
    networkd does not start, or addresses don't come up, `undo` is run: shell that brings back what worked.
    """
    unit_state = host.get_fact(UnitState, unit=unit, loads=loads)
    links: Links = host.get_fact(NetworkState, interfaces=list(masters))
    restart = f"systemctl restart -- {unit}"
    left, stray = _left_behind(links, loads, addresses, masters)
    # networkd takes nothing away by itself. The operator's own way in may go: not before the new one is there.
    release = _release(left, stray)
    for how in unit_differences(unit_state):
        differs(host.connector_data, "unit", unit, how)
    for path in left:
        differs(host.connector_data, "file", path, "is of no segment that is declared")
    for port in stray:
        differs(host.connector_data, "interface", port, f"in {links.masters[port]}, and no port of it as declared")
    if unit_state.get("UnitFileState") != "enabled":
        yield StringCommand(f"systemctl enable -- {unit}")
    elif unit_state.get("NeedDaemonReload") == "yes":
        yield StringCommand("systemctl daemon-reload")
    if unit_state.get("ActiveState") != "active":
        act = f"systemctl reset-failed -- {unit} 2>/dev/null; {_removed(left)}{restart}"
        yield _until_settled(unit, act, addresses, undo, release)
    elif unit_state.get("Loaded") != "yes" or left:
        act = f"{STAMP} {unit} {shlex.join(loads)}; {_removed(left)}networkctl reload"
        yield _until_settled(unit, act, addresses, undo, release)
    else:
        if stray:
            yield _until_settled(unit, release, {}, undo)
        wrong = {
            bridge for bridge, wanted in addresses.items() if not wanted <= links.addresses.get(bridge, frozenset())
        }
        loose = {
            port
            for port, bridge in masters.items()
            if port in links.addresses
            and (links.masters.get(port) != bridge or (port in isolated) != (port in links.isolated))
        }
        for bridge in sorted(wrong):
            lost = sorted(addresses[bridge] - links.addresses.get(bridge, frozenset()))
            differs(host.connector_data, "interface", bridge, f"without {', '.join(lost)}")
        for port in sorted(loose):
            differs(host.connector_data, "interface", port, f"no port of {masters[port]} as declared")
        if missing := {bridge for bridge in wrong if bridge not in links.addresses}:
            yield _until_settled(unit, restart, {bridge: addresses[bridge] for bridge in missing}, undo)
        if repair := sorted((wrong - missing) | loose):
            yield _until_settled(unit, f"networkctl reconfigure {shlex.join(repair)}", addresses, undo)


def _left_behind(
    links: Links, loads: list[str], addresses: Mapping[str, frozenset[str]], masters: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """The kit's files that nothing declares any more, and ports in its bridges that are of none."""
    stray = [port for port, bridge in links.masters.items() if bridge in addresses and port not in masters]
    return sorted(links.own - set(loads)), sorted(stray)


def _removed(left: list[str]) -> str:
    return f"rm -f -- {shlex.join(left)}; " if left else ""


def _release(left: list[str], stray: list[str]) -> str:
    """Shell that takes away the bridges and VLANs of these files, and these ports out of their bridges."""
    made = [name for path in left if (name := _netdev(path))]
    acts = [f"ip link set dev {shlex.quote(port)} nomaster" for port in stray if port not in made]
    for name in map(shlex.quote, made):
        acts.append(f"{{ ! ip link show dev {name} >/dev/null 2>&1 || ip link delete dev {name}; }}")
    return " && ".join(acts) or "true"


def _netdev(path: str) -> str:
    """The interface that a file of the kit makes; empty where it makes none."""
    made = re.search(r"/2[02]-gatehouse-(.+)\.netdev$", path)
    return made[1] if made else ""


def _until_settled(
    unit: str, act: str, addresses: Mapping[str, frozenset[str]], undo: str, then: str = "true"
) -> StringCommand:
    """What networkd is told, the wait until it is done, and `then`; its own words and the way back where it isn't."""
    return StringCommand(
        f"{{ {act}; }} && ( {_settled(addresses)} ) && {{ {then}; }} || {{ rm -f {LOADED}/{unit};"
        f" journalctl -u {unit} -n 15 --no-pager -o cat >&2; {undo} &&"
        f" echo 'gatehouse: {unit} did not take what is new: segments and addresses are as before' >&2; exit 1; }}"
    )


def _settled(addresses: Mapping[str, frozenset[str]]) -> str:
    """Shell that waits, 20 s at most, until every fixed address is there."""
    wanted = " ".join(address for group in addresses.values() for address in sorted(group))
    return (
        f"for i in $(seq 100); do A=$(ip -o addr show); M=; for a in {wanted};"
        ' do case "$A" in *" $a "*) ;; *) M="$M $a";; esac; done; [ -n "$M" ] || exit 0; sleep 0.2; done;'
        ' echo "gatehouse: addresses did not come up:$M" >&2; exit 1'
    )
