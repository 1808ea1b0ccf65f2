"""An incident: the device is put in quarantine, and what is known of it is kept, before it is gone.

What ends with the quarantine is looked at first: open sessions, connections, neighbours, counters. Then the device is
cut off, then come the logs, which stay. All of it is collected in memory and written at once, encrypted, or not at
all.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from deploy import devices, drift, vaults
from deploy.inventory import ROOT
from deploy.remote import Remote, RemoteError, connected
from deploy.whoami import whoami
from gatehouse.errors import GatehouseError
from gatehouse.identity import read_identities
from gatehouse.identity.files import write_private
from gatehouse.proof import drift as comparison
from gatehouse.proof.incident import TIMELINE, IncidentError, Opened, Piece, next_steps, opened, sealed, timeline
from gatehouse.site import Device, Site
from roles.auditd import LOGS

Log = Callable[[str], None]

DAYS = 7
"""Of the journal."""
LARGEST = 16 * 2**20
"""Bytes of one piece of evidence; of the journal the newest."""
SECONDS = 20
"""For one command on the gateway."""

# What is gone soon: before the device is cut off.
FLEETING = {
    "moment.txt": "date --iso-8601=ns; uptime",
    "sessions.txt": "ss -H -a -n -p -t -u -i",
    "neighbours.txt": "ip neigh show; bridge fdb show",
    "flows.txt": "cat /proc/net/nf_conntrack 2>/dev/null || echo 'the kernel does not list connections'",
    "firewall.txt": "nft list ruleset",
}
# What stays for a while.
LASTING = {
    "journal.txt": f"journalctl -q --no-pager --utc -o short-iso-precise --since '{DAYS} days ago'",
    # What people did there as root, and what they changed; the oldest first.
    "audit.txt": f"ls -rt {LOGS}/audit.log* 2>/dev/null | xargs -r cat || true",
    "leases.txt": "cat /var/lib/dnsmasq/leases",
    "addresses.txt": "ip addr show; ip route show table all",
    "processes.txt": "ps -e -o pid,ppid,user,lstart,unit,args --sort pid",
    "units.txt": "systemctl list-units --all --no-pager --no-legend --plain",
    "logins.txt": "who -a; last -F -w -n 200 2>/dev/null; true",
    "packages.txt": "dpkg-query -W -f='${db:Status-Abbrev} ${Package} ${Version}\\n'",
    "hashes.txt": (
        "find /etc /usr/lib/gatehouse /usr/local /root /home -xdev -type f -size -20M -print0 2>/dev/null"
        " | sort -z | xargs -0 -r sha256sum 2>/dev/null; true"
    ),
}


def folder(site: Site) -> Path:
    """Where the archives of a site are kept: with the operator, never in the repository."""
    return (site.state or ROOT) / "incidents" / site.name


def start(site: Site, name: str, log: Log, only_evidence: bool = False) -> Path:
    """Cuts a device off and keeps the evidence; returns the archive. Raises `GatehouseError`, with nothing written.

    A device that is revoked already is cut off by more than quarantine.
    """
    (device,) = devices.named(site, [name])
    vault = vaults.open_vault(site)
    now = _now()
    own = [(now, f"this incident is opened by {whoami()}")]
    with connected(site, device.gateway) as remote:
        pieces = _collected(remote, FLEETING)
        if not only_evidence and device.status == "active":
            try:
                site = devices.quarantine(site, [name], log)
            except RemoteError as error:
                # It is written down; the evidence is worth having all the same.
                log(f"{error}; ./kit quarantine --site {site.name} --name {name} tries again")
            own.append((_now(), f"{name} is put in quarantine"))
        log(f"{device.gateway}: collecting evidence")
        pieces += _collected(remote, LASTING)
    (device,) = devices.named(site, [name])
    pieces += [_registry(device), _drift(site)]
    marks = [name, device.hardware_address, str(device.address or ""), *device.serials]
    logs = next(p.content for p in pieces if p.name == "journal.txt").decode(errors="replace").splitlines()
    lines = timeline(logs, [mark for mark in marks if mark], own)
    pieces.append(Piece(TIMELINE, ("\n".join(lines) + "\n").encode(), "from journal.txt, and this command", _now()))
    about = {"site": site.name, "gateway": device.gateway, "device": name, "by": own[0][1]}
    path = folder(site) / f"{now:%Y-%m-%dT%H%M%SZ}-{name}.age"
    raw = sealed(path.stem, about, pieces, now, vault.recipients)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, raw)
    except OSError as error:
        raise IncidentError(
            f"{path}: not written ({error.strerror}); free some space or mend its owner and mode, then run this again"
        ) from None
    log(f"{len(pieces)} pieces of evidence, {len(lines)} lines of timeline: {path}")
    log(f"SHA-256 {hashlib.sha256(raw).hexdigest()} (note it elsewhere)")
    return path


def steps(site: Site, name: str) -> list[str]:
    """What the playbook says next."""
    return next_steps((ROOT / "docs" / "playbooks.md").read_text(), site.name, name)


def unpack(site: Site, file: Path, to: Path) -> Opened:
    """Decrypts an archive into a new folder, and compares it with its manifest. Raises `GatehouseError`.

    Nothing is written where the folder is there already or the archive can't be opened.
    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise IncidentError(f"{file}: can't be read ({error.strerror}); name an archive of `incident`") from None
    found = opened(str(file), raw, read_identities([vaults.identity_path(site)]))
    if any(Path(name).name != name for name in found.files):
        raise IncidentError(f"{file}: holds files with paths (not written by `incident`; nothing was unpacked)")
    try:
        to.mkdir(mode=0o700)
        for name, content in found.files.items():
            write_private(to / name, content)
    except OSError as error:
        raise IncidentError(f"{to}: not written ({error.strerror}); name a folder that is not there yet") from None
    return found


def _collected(remote: Remote, commands: Mapping[str, str]) -> list[Piece]:
    """The output of each command, all asked in one go; one that fails or lasts says so in its place."""
    parts = [
        f"timeout {SECONDS} sh -c {shlex.quote(command)} >$D/o 2>$D/e </dev/null; r=$?;"
        f" [ $r = 0 ] || {{ printf '\\n[exit status %s] ' $r; head -c 2000 $D/e; }} >>$D/o;"
        f" tail -c {LARGEST} $D/o | base64 -w0; echo"
        for command in commands.values()
    ]
    script = f"umask 077; D=$(mktemp -d /run/gatehouse-incident.XXXXXX); trap 'rm -rf $D' EXIT; {'; '.join(parts)}"
    said = remote.run(script).splitlines()
    if len(said) != len(commands):
        raise RemoteError(f"{remote.gateway}: broke off while it was asked for evidence (run this again)")
    when = _now()
    return [
        Piece(name, base64.b64decode(line), f"{remote.gateway}: {command}", when)
        for (name, command), line in zip(commands.items(), said, strict=True)
    ]


def _registry(device: Device) -> Piece:
    facts = device.model_dump(mode="json", exclude_none=True)
    return Piece("device.json", (json.dumps(facts, indent=1) + "\n").encode(), "the site's device registry", _now())


def _drift(site: Site) -> Piece:
    """What of the gateways is not as declared: whether somebody was there, too."""
    try:
        said = json.dumps(comparison.document(site.name, drift.compare(site)), indent=1)
    except GatehouseError as error:
        said = json.dumps({"error": str(error)})
    return Piece("drift.json", f"{said}\n".encode(), f"./kit drift --site {site.name} --json", _now())


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
