"""Makes the kernel's interfaces what the site says, and takes over from whoever configured them before."""

from __future__ import annotations

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
    networkd takes it when it comes. Where networkd does not start, or addresses don't come up, `undo` is run: shell
    that brings back what worked.
    """
    unit_state = host.get_fact(UnitState, unit=unit, loads=loads)
    links: Links = host.get_fact(NetworkState, interfaces=list(masters))
    restart = f"systemctl restart -- {unit}"
    for how in unit_differences(unit_state):
        differs(host.connector_data, "unit", unit, how)
    if unit_state.get("UnitFileState") != "enabled":
        yield StringCommand(f"systemctl enable -- {unit}")
    elif unit_state.get("NeedDaemonReload") == "yes":
        yield StringCommand("systemctl daemon-reload")
    if unit_state.get("ActiveState") != "active":
        yield _until_settled(unit, f"systemctl reset-failed -- {unit} 2>/dev/null; {restart}", addresses, undo)
    elif unit_state.get("Loaded") != "yes":
        yield _until_settled(unit, f"{STAMP} {unit} {shlex.join(loads)}; networkctl reload", addresses, undo)
    else:
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


def _until_settled(unit: str, act: str, addresses: Mapping[str, frozenset[str]], undo: str) -> StringCommand:
    """What networkd is told, and the wait until it has done it; its own words and the way back where it hasn't."""
    return StringCommand(
        f"{{ {act}; }} && ( {_settled(addresses)} ) || {{ rm -f {LOADED}/{unit};"
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
