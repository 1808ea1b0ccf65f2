"""The beginning of a deploy on one gateway: a fast connection, the lock, and what the roles are given."""

from __future__ import annotations

import importlib
import inspect
import shlex
import socket
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from gevent import GreenletExit
from pyinfra import host, logger, state
from pyinfra.api import util
from pyinfra.api.exceptions import PyinfraError
from pyinfra.context import ctx_host

from deploy.foresight import Foresight
from deploy.inventory import MARK, remember_hardened
from deploy.shell import Shell
from deploy.whoami import whoami
from gatehouse.errors import GatehouseError
from gatehouse.site import Gateway, Site
from roles.lifecycle import POLICY, STAGED
from roles.target import Target
from roles.undo import PENDING

if TYPE_CHECKING:
    from gatehouse.identity import Pki

SSH = "ssh"  # service and listener
LOCK = "/run/gatehouse-deploy.lock"
SYSTEMS = ("debian 12", "debian 13")
FREE_MEGABYTES = 100
# Where a deploy writes: each may be a file system of its own.
WRITTEN = ("/", "/etc", "/usr", "/var", "/var/lib", "/var/cache/apt")
PATIENCE = 180  # seconds: what a killed run may still be installing


class DeployError(PyinfraError):
    """A site that can't be deployed; pyinfra prints it as one line."""


class Unsuitable(Exception):
    """A gateway that can't be deployed to now."""


def begin() -> Target:
    """Prepares the connection to the current host, takes its deploy lock, and returns what the roles are given."""
    site: Site = host.data.site
    _prepare_connection()
    without_source_lines()
    target = Target(site, host.name, lambda: _open_pki(site))
    try:
        unconfirmed = _take_lock()
        if host.data.ssh_user != site.ssh.user:
            _refuse_a_way_that_ends(target, host.connector_data["gatehouse_way"])
    except Unsuitable as error:
        _leave_out(str(error))
    if host.data.ssh_user == site.ssh.user and "ssh" not in unconfirmed:
        remember_hardened(site, host.name)
    state.add_callback_handler(Foresight(ctx_host.get(), Shell(host.connector_data["gatehouse_lock"])))
    return target


def _leave_out(why: str) -> NoReturn:
    """Goes on without this gateway; its failure is in the exit status. The run ends here if it was the last."""
    logger.error(f"{host.print_prefix}{why}")
    state.fail_hosts({host})
    raise GreenletExit


def _open_pki(site: Site) -> Pki:
    from deploy import vaults

    try:
        return vaults.open_pki(site)
    except GatehouseError as error:
        raise DeployError(str(error)) from None


def _prepare_connection() -> None:
    """Nagle's algorithm and delayed acknowledgements together cost 40 ms a command.

    The connection that holds the lock is kept busy: a firewall that comes up meanwhile learns of it, and doesn't keep
    its end from the gateway when this run is killed.
    """
    transport = host.connector.client.get_transport()
    transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport.set_keepalive(2)


def without_source_lines() -> None:
    """Takes 5 ms off each operation: pyinfra looks where it was called, and `inspect` reads all files on the way there.

    Of what `inspect` would find out, pyinfra uses the names of the files and the numbers of the lines.
    """

    def stack() -> list[tuple[FrameType]]:
        frames, frame = [], inspect.currentframe()
        while frame := frame and frame.f_back:
            frames.append((frame,))
        return frames

    def place(frame: FrameType) -> inspect.Traceback:
        return inspect.Traceback(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, None, None)

    util.stack, util.getframeinfo = stack, place


def _take_lock() -> set[str]:
    """Holds a lock on the gateway for as long as this connection lives: killed runs leave none behind.

    The same round trip says whether the kit can work there at all, waits for what a killed run still does there, and
    tidies up after it. Returns the changes that nobody has confirmed yet. Raises `Unsuitable`.
    """
    holder = f"{whoami()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    script = (
        '. /etc/os-release; echo "system $ID $VERSION_ID";'
        f" df --output=avail,target -m {shlex.join(WRITTEN)} 2>/dev/null | sed 1d | sort -n | sed -n '1s/^ */free /p';"
        f"{_absent_ports(host.data.site.gateways[host.name])}"
        f"{_disks_in_the_way(host.data.site.gateways[host.name])}"
        f' exec 9>>{LOCK}; flock -n 9 || {{ echo "holder $(cat {LOCK})"; exit 75; }};'
        f" printf '%s\n' {shlex.quote(holder)} >{LOCK};"
        # grep's exit status says nothing: processes end while it looks.
        f" for i in $(seq {PATIENCE}); do busy=$(grep -lsz '^{MARK}=' /proc/[0-9]*/environ); [ -n \"$busy\" ] || break;"
        ' sleep 1; done; [ -z "$busy" ] || { echo busy $busy; exit 75; };'
        f" rm -rf {STAGED}.*; ! grep -qs Gatehouse {POLICY} || rm -f {POLICY};"
        f" echo unconfirmed $(ls {PENDING} 2>/dev/null); echo taken; exec sh"
    )
    sudo = "sudo -n " if host.data.get("_sudo") else ""
    channel = host.connector.client.get_transport().open_session()
    # sudo takes it out of the environment.
    channel.exec_command(f"echo way $SSH_CONNECTION; {sudo}sh -c {shlex.quote(script)}")
    # The answer takes as long as this, and the layers are about to need it.
    for service in host.data.site.services_of(host.name):
        importlib.import_module(f"roles.{service.name}.deploy")
    said: dict[str, str] = {}
    for line in channel.makefile("r"):
        word, _, rest = line.strip().partition(" ")
        said[word] = rest
        if word == "taken":
            host.connector_data["gatehouse_lock"] = channel
            break
    host.connector_data["gatehouse_way"] = said.get("way", "")
    _refuse_unsuitable(said)
    if "taken" not in said:
        wrong = channel.makefile_stderr("r").read().decode().strip().splitlines() or ["it said nothing"]
        raise Unsuitable(f"can't act as root: {wrong[-1]} (log in as root, or as a user with sudo NOPASSWD)")
    return {name.removesuffix(".sh") for name in said["unconfirmed"].split() if name.endswith(".sh")}


def _refuse_a_way_that_ends(target: Target, way: str) -> None:
    """`way` is SSH_CONNECTION: a new connection to the same address must work when the firewall is up. `Unsuitable`."""
    reach = target.site.listener(SSH, SSH).reachable_from
    networks = [target.gateway.networks[segment] for segment in reach if segment in target.gateway.networks]
    stay = [str(address) for network in networks for address in network.addresses]
    address = (way.split() or [""])[-2:][0]
    if address and stay and address not in stay and not any(isinstance(network.ipv4, str) for network in networks):
        raise Unsuitable(
            f"you have come to {address}, where no SSH answers once it is hardened (give it {stay[0]} first and name"
            " that as the contact's address: docs/first-gateway.md says how)"
        )


def _absent_ports(gateway: Gateway) -> str:
    """Shell that names ports and trunks which are not there and never were: a slip of the pen cuts a segment off.

    One that an earlier deploy has configured may be unplugged: networkd takes it when it comes back.
    """
    ports = sorted({network.interface or network.trunk or "" for network in gateway.networks.values()})
    return (
        f" absent=; for p in {shlex.join(ports)}; do [ -e /sys/class/net/$p ] ||"
        ' ls /etc/systemd/network/*-gatehouse-$p.network >/dev/null 2>&1 || absent="$absent $p"; done;'
        ' [ -z "$absent" ] || { cd /sys/class/net; echo "interfaces" $(ls -d * | grep -Ev "^(lo|br-.*|.*[.].*)$");'
        ' echo "absent$absent"; exit 75; };'
    )


def _disks_in_the_way(gateway: Gateway) -> str:
    """Shell that names a file system on a USB disk, where the gateway shall take none: it would not start again."""
    if gateway.usb_storage:
        return ""
    return (
        " findmnt -rnvo SOURCE,TARGET | while read -r disk place; do case $disk in /dev/*)"
        ' lsblk -srno NAME,TRAN "$disk" 2>/dev/null | sed -n "s|^\\([^ ]*\\) usb$|usb $place \\1|p";;'
        " esac; done | sort | head -1 | grep . && exit 75;"
    )


def _refuse_unsuitable(said: dict[str, str]) -> None:
    if "system" in said and said["system"] not in SYSTEMS:
        wanted = " or ".join(s.replace("debian", "Debian") for s in SYSTEMS)
        raise Unsuitable(f"runs '{said['system']}', not {wanted} (install one of them, or name another host)")
    if "absent" in said:
        raise Unsuitable(
            f"has no interface {' and no '.join(said['absent'].split())}, which the site names as a port or trunk"
            f" (there are: {said.get('interfaces', '').strip() or 'none'}; correct the name, or plug it in)"
        )
    if "usb" in said:
        place, _, disk = said["usb"].partition(" ")
        raise Unsuitable(
            f"shall take no storage on USB (usb_storage=False), and {place} is on the USB disk {disk}"
            " (leave usb_storage out for this gateway, or unmount it for good)"
        )
    if "holder" in said:
        raise Unsuitable(f"another deploy is running: {said['holder']} (wait for it to end, or end it there)")
    if "busy" in said:
        pids = " ".join(path.split("/")[2] for path in said["busy"].split())
        raise Unsuitable(f"a killed deploy is still at work there: process {pids} (wait for it, or end it there)")
    megabytes, _, place = said.get("free", "").strip().partition(" ")
    if megabytes.isdigit() and int(megabytes) < FREE_MEGABYTES:
        raise Unsuitable(f"{megabytes} MB free on {place.strip()}, {FREE_MEGABYTES} are needed (free some space)")
