"""nmap, and what its XML says."""

from __future__ import annotations

import subprocess
import xml.etree.ElementTree as ET  # noqa: S405  written by the nmap that this position runs

from gatehouse.proof.probes.reach import Probe, Result

# nmap waits for answers that a firewall never sends: no retry but one, no patience, many packets at once.
_HASTE = ["-n", "-Pn", "--disable-arp-ping", "-T5", "--max-retries", "1", "--min-rtt-timeout", "100ms", "--max-rtt-timeout", "200ms"]


def nmap(probe: Probe) -> Result:
    """Scans `address` for `ports` of `transport` ("tcp" or "udp"; "all", or a list): the `open` and the `closed` ones.

    `open|filtered` of UDP is no answer at all and counts as neither. A `rate` (packets a second) sets the pace.
    """
    address, transport = probe["address"], probe["transport"]
    ports = "-" if probe["ports"] == "all" else ",".join(map(str, sorted(probe["ports"])))
    family = ["-6"] if ":" in address else []
    technique = "-sS" if transport == "tcp" else "-sU"
    pace = ["--min-rate", str(probe["rate"])] if probe.get("rate") else []
    command = ["nmap", *family, technique, *_HASTE, *pace, f"-p{ports}", "-oX", "-", address]
    shown = " ".join(command) if len(ports) < 100 else " ".join(command).replace(ports, f"({len(probe['ports'])} ports)")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=probe.get("timeout", 90), check=False)
    except FileNotFoundError:
        return {"outcome": "incapable", "reason": "no nmap at this position"}
    except subprocess.TimeoutExpired:
        return {"outcome": "incapable", "reason": "nmap took too long", "command": shown}
    if done.returncode != 0:
        return {"outcome": "incapable", "reason": (done.stderr.strip() or "nmap failed").splitlines()[-1], "command": shown}
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
