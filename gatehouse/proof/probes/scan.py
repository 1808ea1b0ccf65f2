"""nmap, and what its XML says."""

from __future__ import annotations

import shutil
import subprocess
import xml.etree.ElementTree as ET  # noqa: S405  written by the nmap that this position runs
from collections.abc import Iterable

from gatehouse.proof.probes.reach import Probe, Result

# A firewall that drops gives nmap nothing to learn a pace from: no patience, and no second try for each of the silent
# many.
_HASTE = ["-n", "-Pn", "--disable-arp-ping", "-T5", "--min-rtt-timeout", "50ms", "--max-rtt-timeout", "150ms"]


def nmap(probe: Probe) -> Result:
    """Scans `address` for `ports` of `transport` ("tcp" or "udp"; "all", or a list): the `open` and the `closed` ones.

    `open|filtered` of UDP is no answer at all and counts as neither. A `rate` (packets a second) sets the pace. What is
    `expected` (`"8883/tcp"`) to be open and was not seen is asked once more: at that pace a packet may be lost.
    """
    every = probe["ports"] == "all"
    result = _run(probe, "-" if every else _joined(probe["ports"]), retries=0 if every else 1)
    missing = sorted(set(probe.get("expected", ())) - set(result.get("open", ())))
    if result["outcome"] == "scanned" and missing:
        again = _run(probe, _joined(int(label.partition("/")[0]) for label in missing), retries=3)
        for state in ("open", "closed"):
            result[state] = sorted({*result[state], *again.get(state, ())})
    return result


def _joined(ports: Iterable[int]) -> str:
    return ",".join(map(str, sorted(ports)))


def _run(probe: Probe, ports: str, retries: int) -> Result:
    family = ["-6"] if ":" in probe["address"] else []
    technique = "-sS" if probe["transport"] == "tcp" else "-sU"
    pace = ["--min-rate", str(probe["rate"])] if probe.get("rate") else []
    haste = [*_HASTE, "--max-retries", str(retries), *pace]
    # Whoever is asked something else meanwhile comes first: a full scan takes all that it gets.
    command = ["nice", "nmap", *family, technique, *haste, f"-p{ports}", "-oX", "-", probe["address"]]
    shown = " ".join(command)
    if shutil.which("nmap") is None:
        return {"outcome": "incapable", "reason": "no nmap at this position"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=probe.get("timeout", 150), check=False)
    except subprocess.TimeoutExpired:
        return {"outcome": "incapable", "reason": "nmap took too long", "command": shown}
    if done.returncode != 0:
        return {
            "outcome": "incapable",
            "reason": (done.stderr.strip() or "nmap failed").splitlines()[-1],
            "command": shown,
        }
    return {"outcome": "scanned", "command": shown, **states(done.stdout)}


def states(report: str) -> Result:
    """`{"open": ["8883/tcp"], "closed": […], "others": 65534}` of nmap's XML; closed ones at most 50."""
    found: dict[str, list[str]] = {"open": [], "closed": []}
    others = 0
    for ports in ET.fromstring(report).iter("ports"):  # noqa: S314
        for port in ports.iter("port"):
            state = port.find("state")
            kind = state.get("state", "") if state is not None else ""
            if kind in found:
                found[kind].append(f"{port.get('portid')}/{port.get('protocol')}")
            else:
                others += 1
        for extra in ports.iter("extraports"):
            if extra.get("state") in ("closed", "unfiltered"):
                found["closed"].append(f"{extra.get('count')} more")
            elif extra.get("state") == "open":
                found["open"].append(f"{extra.get('count')} more")
            else:
                others += int(extra.get("count", 0))
    return {"open": found["open"], "closed": found["closed"][:50], "others": others}
