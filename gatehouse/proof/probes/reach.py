"""Probes that ask whether something answers: TCP, UDP, DNS, NTP, DHCP, pings. Outcomes, the same words for all of them:

open, answered      it was reached, and said so
refused             it was reached, nothing listens there (RST, or ICMP port unreachable)
prohibited          a router said no (ICMP)
silent              nothing came back within `timeout` seconds
unsent              this position has no route or address for it
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import secrets
import socket
import struct
import time
from typing import Any

Probe = dict[str, Any]
Result = dict[str, Any]

DEFAULT_TIMEOUT = 2.5  # seconds: time for one lost SYN to be sent again (after 1 s, RFC 6298 §2.1)
ANSWER_TIMEOUT = 10.0  # seconds: who has connected is let in already, and only waits for a busy host's turn
_USUAL_SECONDS = 0.03  # of processor time for the loop of `measured_pace`, on a small computer of today
_SLOWEST = 4.0
_pace = 1.0

_OUTCOME = {
    errno.ECONNREFUSED: "refused",
    errno.EHOSTUNREACH: "prohibited",
    errno.EACCES: "prohibited",
    errno.EPERM: "prohibited",
    errno.ENOPROTOOPT: "prohibited",
    errno.ETIMEDOUT: "silent",
    errno.ENETUNREACH: "unsent",
    errno.EADDRNOTAVAIL: "unsent",
    errno.EAFNOSUPPORT: "unsent",
}


def measured_pace() -> float:
    """How many times as long as elsewhere things take here: 1 to 4. A slow gateway is not taken for a silent one.

    Processor time counts, so that other work on the machine has no say in it.
    """
    began, sum_ = time.thread_time(), 0
    for number in range(200_000):
        sum_ += number * number & 7
    return min(_SLOWEST, max(1.0, (time.thread_time() - began) / _USUAL_SECONDS))


def set_pace(pace: float) -> None:
    """Lets each wait of this process, and of those that it makes from now on, be so many times as long."""
    global _pace
    _pace = pace


def patience(probe: Probe, usual: float = DEFAULT_TIMEOUT) -> float:
    """Seconds to wait for an answer: the probe's `timeout`, or the usual, at this machine's pace."""
    return float(probe.get("timeout", usual)) * _pace


def patient(seconds: float) -> float:
    """So many seconds at this machine's pace."""
    return seconds * _pace


def family_of(address: str) -> socket.AddressFamily:
    """The address family of a numeric address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def outcome_of(error: OSError) -> Result:
    """What an error of the socket layer says about the other side."""
    if isinstance(error, TimeoutError):
        return {"outcome": "silent"}
    known = _OUTCOME.get(error.errno or 0)
    return {"outcome": known} if known else {"outcome": "error", "error": str(error)}


async def tcp(probe: Probe) -> Result:
    """Connects to `address`:`port`; with `say` (text) it sends that and notes the `answer`, up to 200 characters.

    A coroutine: hundreds of them wait at the same time.
    """
    timeout = patience(probe)
    loop = asyncio.get_running_loop()
    with socket.socket(family_of(probe["address"]), socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        try:
            await asyncio.wait_for(loop.sock_connect(connection, (probe["address"], probe["port"])), timeout)
        except OSError as error:
            return outcome_of(error)
        result: Result = {"outcome": "open", "source": connection.getsockname()[0]}
        if "say" in probe:
            try:
                # Who answers before being asked may have closed by now: what was said first is still to be read.
                with contextlib.suppress(OSError):
                    await loop.sock_sendall(connection, probe["say"].encode() + b"\n")
                    connection.shutdown(socket.SHUT_WR)
                answer = await asyncio.wait_for(loop.sock_recv(connection, 200), patient(ANSWER_TIMEOUT))
                result["answer"] = answer.decode("utf-8", "replace").strip()
            except OSError as error:
                result |= {"outcome": "cut", "error": str(error)}
        return result


def exchange(address: str, port: int, message: bytes, timeout: float) -> tuple[bytes | None, Result]:
    """Sends a datagram, once more at half time, and waits for an answer: `(answer or None, what happened)`."""
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as connection:
        try:
            connection.connect((address, port))
            end = time.monotonic() + timeout
            for part in (timeout / 2, timeout / 2):
                connection.send(message)
                connection.settimeout(max(0.05, min(part, end - time.monotonic())))
                try:
                    answer = connection.recv(4096)
                except TimeoutError:
                    continue
                return answer, {"outcome": "answered", "source": connection.getsockname()[0]}
        except OSError as error:
            return None, outcome_of(error)
    return None, {"outcome": "silent"}


def udp(probe: Probe) -> Result:
    """Sends `say` (text) to `address`:`port` and waits for an answer."""
    said = probe.get("say", "")
    answer, result = exchange(probe["address"], probe["port"], said.encode(), patience(probe))
    if answer is not None:
        result["answer"] = answer[:200].decode("utf-8", "replace").strip()
    return result


def datagrams(probe: Probe) -> Result:
    """Sends `payloads` (hex), one each `pause` seconds, from one port; the `answers` (hex) within `timeout` after that.

    It ends sooner once there are `enough` of them. `at` is when it begins (this machine's monotonic clock), if not now;
    then each is sent at its own time, and what is so late that it is the next one's turn is left out. That several
    positions send in order is the agent's matter, which makes `at` of `after`.
    """
    due = probe.get("at")
    time.sleep(max(0.0, (due or 0.0) - time.monotonic()))
    answers: list[str] = []
    enough, pause = probe.get("enough", 1), probe.get("pause", 0.0)
    payloads = [bytes.fromhex(payload) for payload in probe["payloads"]]
    try:
        with socket.socket(family_of(probe["address"]), socket.SOCK_DGRAM) as wire:
            wire.connect((probe["address"], probe["port"]))
            for number, payload in enumerate(payloads, start=1):
                is_last = number == len(payloads)
                if due is not None and not is_last and due + number * pause <= time.monotonic():
                    continue
                wire.send(payload)
                end = time.monotonic() + (patience(probe) if is_last else pause)
                if due is not None and not is_last:
                    end = due + number * pause
                while len(answers) < enough and (left := end - time.monotonic()) > 0:
                    wire.settimeout(left)
                    try:
                        answers.append(wire.recv(4096).hex())
                    except TimeoutError:
                        break
                if len(answers) >= enough:
                    break
    except OSError as error:
        return {**outcome_of(error), "answers": answers}
    return {"outcome": "answered" if answers else "silent", "answers": answers}


def dns(probe: Probe) -> Result:
    """Asks `address` for the A (or AAAA: `type`) records of `name`, RFC 1035 §4.1; reads code and addresses."""
    number = secrets.token_bytes(2)
    labels = b"".join(bytes([len(label)]) + label for label in probe["name"].rstrip(".").encode().split(b"."))
    kind = {"A": 1, "AAAA": 28}[probe.get("type", "A")]
    question = labels + b"\0" + struct.pack(">HH", kind, 1)
    message = number + struct.pack(">HHHHH", 0x0100, 1, 0, 0, 0) + question
    timeout = patience(probe)
    answer, result = exchange(probe["address"], probe.get("port", 53), message, timeout)
    if answer is None:
        return result
    if len(answer) < 12 or answer[:2] != number or not answer[2] & 0x80:
        return {**result, "outcome": "error", "error": "no answer to this question"}
    code, count = answer[3] & 15, int.from_bytes(answer[6:8], "big")
    names = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
    return {**result, "code": names.get(code, str(code)), "addresses": _addresses(answer, 12 + len(question), count)}


def _addresses(message: bytes, at: int, count: int) -> list[str]:
    """The A and AAAA records among the first `count` that start at offset `at`."""
    found = []
    for _ in range(count):
        while at < len(message) and message[at] and message[at] < 0xC0:
            at += message[at] + 1
        at += 2 if at < len(message) and message[at] >= 0xC0 else 1
        if at + 10 > len(message):
            break
        kind, _, _, length = struct.unpack(">HHIH", message[at : at + 10])
        data = message[at + 10 : at + 10 + length]
        if (kind, length) in ((1, 4), (28, 16)):
            found.append(socket.inet_ntop(socket.AF_INET if kind == 1 else socket.AF_INET6, data))
        at += 10 + length
    return found


def ntp(probe: Probe) -> Result:
    """Asks `address` for the time (RFC 5905 §7.3); notes stratum, offset (s), and whether it is synchronised."""
    message = bytes([0x23]) + bytes(47)
    timeout = patience(probe)
    answer, result = exchange(probe["address"], probe.get("port", 123), message, timeout)
    if answer is None:
        return result
    if len(answer) < 48 or answer[0] & 7 != 4:
        return {**result, "outcome": "error", "error": "no NTP server's answer"}
    seconds = int.from_bytes(answer[40:44], "big") - 2_208_988_800  # between 1900 and 1970, RFC 868
    offset = round(seconds - time.time(), 1) if seconds > 0 else None
    return {
        **result,
        "stratum": answer[1],
        "synchronised": answer[0] >> 6 != 3 and 0 < answer[1] < 16,
        "offset": offset,
    }


def dhcp(probe: Probe) -> Result:
    """Broadcasts a DHCPINFORM from `interface` (RFC 2131 §3.4): for everything but an address, so none is given away.

    Notes who answers, and what it says about routers, resolvers and time servers.
    """
    timeout = patience(probe)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        try:
            own, hardware = _interface(connection, probe["interface"])
            number = secrets.token_bytes(4)
            start = struct.pack(">BBBB4sHH", 1, 1, 6, 0, number, 0, 0x8000) + own + bytes(12)
            message = start + hardware.ljust(16, b"\0") + bytes(192) + b"\x63\x82\x53\x63"
            message += bytes([53, 1, 8, 55, 4, 1, 3, 6, 42, 255])
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, probe["interface"].encode())
            connection.bind(("0.0.0.0", 68))  # noqa: S104  the port that servers answer to
            for _ in range(2):
                connection.sendto(message, ("255.255.255.255", probe.get("port", 67)))
                end = time.monotonic() + timeout / 2
                while (left := end - time.monotonic()) > 0:
                    connection.settimeout(left)
                    try:
                        answer, (server, _port) = connection.recvfrom(4096)
                    except TimeoutError:
                        break
                    if answer[4:8] == number and answer[:1] == b"\2":
                        return {"outcome": "answered", "server": server, **_options(answer)}
        except OSError as error:
            return outcome_of(error)
    return {"outcome": "silent"}


def _interface(connection: socket.socket, name: str) -> tuple[bytes, bytes]:
    """The IPv4 and the hardware address of an interface (netdevice(7): SIOCGIFADDR, SIOCGIFHWADDR)."""
    asked = name.encode().ljust(256, b"\0")
    address = fcntl.ioctl(connection.fileno(), 0x8915, asked)[20:24]
    return address, fcntl.ioctl(connection.fileno(), 0x8927, asked)[18:24]


def _options(answer: bytes) -> Result:
    """The addresses in the options of routers, resolvers and time servers (RFC 2132)."""
    found: Result = {}
    at = 240
    while at + 1 < len(answer) and answer[at] != 255:
        option, length = answer[at], answer[at + 1] if answer[at] else -1
        data = answer[at + 2 : at + 2 + max(length, 0)]
        if option in (3, 6, 42):
            key = {3: "routers", 6: "resolvers", 42: "time_servers"}[option]
            found[key] = [socket.inet_ntoa(data[i : i + 4]) for i in range(0, len(data) - 3, 4)]
        at += 2 + length
    return found


def ping(probe: Probe) -> Result:
    """Asks `address` for an echo (RFC 792, RFC 4443 §4.1), once more at half time."""
    timeout = patience(probe)
    six = ":" in probe["address"]
    protocol, request, reply = (socket.IPPROTO_ICMPV6, 128, 129) if six else (socket.IPPROTO_ICMP, 8, 0)
    told = secrets.token_bytes(12)  # identifier, number and data: nobody else's
    total = 0 if six else checksum(bytes([request, 0, 0, 0]) + told)  # the kernel fills in ICMPv6's
    message = struct.pack(">BBH", request, 0, total) + told
    try:
        with socket.socket(family_of(probe["address"]), socket.SOCK_RAW, protocol) as wire:
            wire.connect((probe["address"], 0))
            for _ in range(2):
                wire.send(message)
                end = time.monotonic() + timeout / 2
                while (left := end - time.monotonic()) > 0:
                    wire.settimeout(left)
                    try:
                        answer = wire.recv(1024)
                    except TimeoutError:
                        break
                    said = answer if six else answer[4 * (answer[0] & 15) :]
                    if said[:1] == bytes([reply]) and said[4:16] == told:
                        return {"outcome": "answered"}
    except OSError as error:
        return outcome_of(error)
    return {"outcome": "silent"}


def spoof(probe: Probe) -> Result:
    """Sends a UDP datagram with the forged sender `source` to `address`:`port`; the listener tells whether it came."""
    payload = probe["say"].encode()
    source, target = (socket.inet_pton(family_of(probe[key]), probe[key]) for key in ("source", "address"))
    length = 8 + len(payload)
    header = struct.pack(">HHHH", 40_000, probe["port"], length, 0)
    if len(target) == 4:
        total = checksum(source + target + struct.pack(">BBH", 0, 17, length) + header + payload)
        start = struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, 17, 0) + source + target
        packet, raw = start, socket.IPPROTO_RAW
    else:
        total = checksum(source + target + struct.pack(">IxxxB", length, 17) + header + payload)
        packet, raw = struct.pack(">IHBB", 6 << 28, length, 17, 64) + source + target, socket.IPPROTO_RAW
    packet += header[:6] + struct.pack(">H", total or 0xFFFF) + payload
    try:
        with socket.socket(family_of(probe["address"]), socket.SOCK_RAW, raw) as connection:
            for _ in range(2):
                connection.sendto(packet, (probe["address"], 0))
    except OSError as error:
        return outcome_of(error)
    return {"outcome": "sent"}


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total
