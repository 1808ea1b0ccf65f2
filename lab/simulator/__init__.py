"""Devices of the lab that report to its gateway, from the lab's own host in the devices' segment.

`play` has devices report for a while, as told; `start` keeps the lab's devices reporting in the background.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lab
from gatehouse.identity import Pki
from gatehouse.identity.enrolment import hmac_secret
from gatehouse.identity.pins import BROKER, broker_host
from gatehouse.proof.channel import START
from gatehouse.site import Site
from lab.errors import LabError

ROOT = Path(__file__).resolve().parents[2]
INTERVAL = 10.0  # seconds between two messages of a device in the background
_MODULES = {
    "gatehouse": None,
    "gatehouse.errors": ROOT / "gatehouse/errors.py",
    "gatehouse.messages": None,
    "gatehouse.messages.refusal": ROOT / "gatehouse/messages/refusal.py",
    "gatehouse.messages.topics": ROOT / "gatehouse/messages/topics.py",
    "gatehouse.messages.forms": ROOT / "gatehouse/messages/forms.py",
    "gatehouse.messages.rekey": ROOT / "gatehouse/messages/rekey.py",
    "simulator": Path(__file__).with_name("device.py"),
}
_RUN = "/run/simulator"
# Starts it anew unless the same plan is being played.
_KEEP = f"""set -eu; umask 077; mkdir -p {_RUN}; cat >{_RUN}/new; version=$1
if [ "$(cat {_RUN}/version 2>/dev/null)" = "$version" ] &&
    grep -qs python3 "/proc/$(cat {_RUN}/pid)/cmdline"; then
    rm -f {_RUN}/new; echo running; exit
fi
[ ! -e {_RUN}/pid ] || kill "$(cat {_RUN}/pid)" 2>/dev/null || true
mv {_RUN}/new {_RUN}/plan
setsid python3 -I -c "$2" <{_RUN}/plan >{_RUN}/log 2>&1 &
echo $! >{_RUN}/pid; echo "$version" >{_RUN}/version; echo started
"""

_STOP = f"""rm -f {_RUN}/version; pid=$(cat {_RUN}/pid 2>/dev/null) || exit 0
! grep -qs python3 "/proc/$pid/cmdline" || kill "$pid"; rm -f {_RUN}/pid"""

Behaviours = Mapping[str, str]


def play(
    site: Site,
    pki: Pki,
    behaviours: Behaviours,
    *,
    interval: float = 0.0,
    messages: int | None = None,
    seconds: float | None = None,
    patience: float = 30,
) -> dict[str, dict[str, Any]]:
    """Has enrolled devices report: `behaviours` says how each does, by name (`device.BEHAVIOURS`).

    Returns for each what it `sent`, and `acknowledged`: ranges of the sequence numbers that the broker has taken.
    `patience` are the seconds that the broker has for that at the end. Those that report in the background are stopped
    first: two that call themselves the same would end each other's sessions. Raises `LabError`.
    """
    ends = {key: value for key, value in (("messages", messages), ("seconds", seconds)) if value is not None}
    if not ends:
        raise LabError("simulator: no end (give messages or seconds)")
    stop(site)
    made = {**plan(site, pki, behaviours), **ends, "interval": interval, "patience": patience}
    name, wait = lab.name_of(site), 120 + (seconds or 0) + patience + (messages or 0) * (interval + 0.02)
    done = lab.run(name, _host(site), ["python3", "-I", "-c", START], _opening(made), wait)
    if done.returncode:
        raise LabError(f"simulator: {(done.stderr.strip().splitlines() or ['it ended without a word'])[-1]}")
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def few(site: Site) -> list[str]:
    """The devices that keep reporting: the first two of the first gateway that are active."""
    first = next(iter(site.gateways))
    return [device.name for device in site.devices_of(first) if device.status == "active"][:2]


def start(site: Site, pki: Pki, names: Iterable[str], interval: float = INTERVAL) -> bool:
    """Keeps devices reporting in the background; returns whether they did not yet. The host's restart ends it."""
    names = sorted(names)
    secrets = pki.vault
    keys = [hmac_secret(name, _key_number(site, name)) for name in names]
    about = [site.name, str(interval), *names, *(secrets.about(key).created for key in keys)]
    sources = [path.read_text() for path in _MODULES.values() if path]
    anchor = pki.trust_anchor.decode()
    version = hashlib.sha256("\n".join([*about, anchor, *sources]).encode()).hexdigest()
    made = {**plan(site, pki, dict.fromkeys(names, "good"), days=30), "interval": interval}
    done = lab.run(lab.name_of(site), _host(site), ["sh", "-c", _KEEP, "sh", version, START], _opening(made), 30)
    if done.returncode:
        raise LabError(f"simulator: {done.stderr.strip()[-200:]}")
    return done.stdout.strip() == "started"


def stop(site: Site) -> None:
    """Ends what `start` began; nothing to end is no error."""
    lab.run(lab.name_of(site), _host(site), ["sh", "-c", _STOP])


def plan(site: Site, pki: Pki, behaviours: Behaviours, days: int = 1) -> dict[str, Any]:
    """What the devices are told: broker, certificates of their own, keys. Raises `LabError`."""
    devices = []
    for name, behaviour in behaviours.items():
        number = _key_number(site, name)
        # A certificate of its own, beside the one in its bundle: nobody has to keep the bundle here.
        own = pki.device(name, days=days)
        devices.append(
            {
                "name": name,
                "behaviour": behaviour,
                "chain": own.chain_pem.decode(),
                "key": own.private_key_pem.decode(),
                "hmac": pki.vault.get_text(hmac_secret(name, number)),
                "number": number,
            }
        )
    broker = {"host": broker_host(site), "port": site.listener(*BROKER).port, "ca": pki.trust_anchor.decode()}
    return {"broker": broker, "devices": devices}


def _key_number(site: Site, name: str) -> int:
    """Which of its HMAC keys a device signs with. Raises `LabError` for one that has none."""
    number = next((device.hmac_key for device in site.devices if device.name == name), None)
    if number is None:
        raise LabError(f"simulator: {name}: is not enrolled (`./kit enroll --name {name}`)")
    return number


def _host(site: Site) -> str:
    """The lab's host in the segment of the devices."""
    first = next(iter(site.gateways))
    topology = lab.from_site(site, lab.name_of(site))
    return next(host.name for host in topology.hosts if host.segment == "iot" and host.gateway == first)


def _opening(made: dict[str, Any]) -> str:
    """The line that brings the program and its plan, for `python3 -c START`: neither is a file of the host's."""
    modules = [[name, path.read_text() if path else ""] for name, path in _MODULES.items()]
    return json.dumps({"modules": modules, "entry": "simulator", "config": made}) + "\n"
