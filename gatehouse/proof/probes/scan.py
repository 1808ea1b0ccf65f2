"""nmap, and what its XML says."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import xml.etree.ElementTree as ET  # noqa: S405  written by the nmap that this position runs
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from gatehouse.proof.probes.reach import Probe, Result, patience, patient

# A firewall that drops gives nmap nothing to learn a pace from: no patience, and no second try for each of the silent
# many.
TOO_SLOW = 3.0  # times as long as elsewhere: what takes ten seconds there takes ten minutes
_HASTE = ["-n", "-Pn", "--disable-arp-ping", "-T5", "--min-rtt-timeout", "50ms", "--max-rtt-timeout", "150ms"]


def nmap(probe: Probe) -> Result:
    """Scans `address` for `ports` of `transport` ("tcp" or "udp"; "all", or a list): the `open` and the `closed` ones.

    `open|filtered` of UDP is no answer at all and counts as neither. A `rate` (packets a second) sets the pace, and is
    less on a slow machine. What is `expected` (`"8883/tcp"`) to be open and was not seen is asked once more: at that
    pace a packet may be lost.
    """
    every = probe["ports"] == "all"
    if every and patient(1) > TOO_SLOW:
        return {
            "outcome": "incapable",
            "reason": "this machine is too slow to be asked for all of its ports from within",
        }
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
    pace = ["--min-rate", str(round(probe["rate"] / patient(1)))] if probe.get("rate") else []
    haste = [*_HASTE, "--max-retries", str(retries), *pace]
    # Whoever is asked something else meanwhile comes first: a full scan takes all that it gets.
    command = ["nice", "nmap", *family, technique, *haste, f"-p{ports}", "-oX", "-", probe["address"]]
    shown = " ".join(command)
    if shutil.which("nmap") is None:
        return {"outcome": "incapable", "reason": "no nmap at this position"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience(probe, 150), check=False)
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


def speaks(probe: Probe) -> Result:
    """What answers over TCP at each of `ports` of `address`: `answers` has, by `"8883/tcp"`, `speaks` and `version`.

    The one is tls, ssh, http, mqtt or empty, the other nmap's word. A server that refuses the hello of TLS in TLS's own
    words speaks it.
    """
    address = probe["address"]
    with ThreadPoolExecutor(8) as pool:
        versions = pool.submit(_versions, address, probe["ports"])
        said = list(pool.map(lambda port: _speaks(address, port), probe["ports"]))
        known = versions.result()
    answers = {
        f"{port}/tcp": {"speaks": spoken, "version": known.get(port, "")}
        for port, spoken in zip(probe["ports"], said, strict=True)
    }
    return {"outcome": "answered", "answers": answers}


def _speaks(address: str, port: int) -> str:
    with contextlib.suppress(OSError):
        if _said(address, port, b"").startswith(b"SSH-"):
            return "ssh"
        hello = _said(address, port, _client_hello())
        if hello[:1] in (b"\x15", b"\x16") and hello[1:2] == b"\x03":
            return "tls"
        if _said(address, port, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/"):
            return "http"
        if _said(address, port, _MQTT_CONNECT)[:1] == b"\x20":
            return "mqtt"
    return ""


# MQTT 3.1.1 §3.1: CONNECT, clean session, no name. A CONNACK begins with 0x20.
_MQTT_CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x0a\x00\x00"


def _client_hello() -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(came, goes).do_handshake()
    return goes.read()


def _said(address: str, port: int, message: bytes) -> bytes:
    """What comes first when that is said; nothing after a while, or at the end."""
    with socket.create_connection((address, port), patient(4.0)) as connection:
        connection.settimeout(patient(2.0 if message else 0.7))
        try:
            if message:
                connection.sendall(message)
            return connection.recv(200)
        except OSError:
            return b""


def _versions(address: str, ports: list[int]) -> dict[int, str]:
    """nmap's names for services and their versions, of those that it knows."""
    if shutil.which("nmap") is None:
        return {}
    family = ["-6"] if ":" in address else []
    command = ["nice", "nmap", *family, "-n", "-Pn", "-sT", "-sV", "--version-intensity", "0", f"-p{_joined(ports)}"]
    try:
        done = subprocess.run(
            [*command, "-oX", "-", address], capture_output=True, text=True, timeout=patient(60), check=False
        )
        found = ET.fromstring(done.stdout).iter("port")  # noqa: S314
    except (subprocess.TimeoutExpired, ET.ParseError):
        return {}
    known = {}
    for port in found:
        service = port.find("service")
        if service is not None:
            words = (service.get("name"), service.get("product"), service.get("version"))
            known[int(port.get("portid", 0))] = " ".join(filter(None, words))
    return known
