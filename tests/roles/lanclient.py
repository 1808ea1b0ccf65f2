"""Runs inside a namespace: asks for a name or an address as a device does, and prints the answer as JSON.

lanclient.py dns SERVER NAME [A|AAAA]
lanclient.py dhcp INTERFACE MAC [HOSTNAME]      DISCOVER and, when something is offered, REQUEST
"""

import ipaddress
import json
import socket
import struct
import sys

SECONDS = 4
TYPES = {"A": 1, "AAAA": 28}


def dns(server: str, name: str, kind: str = "A") -> dict:
    """`{"status": rcode, "addresses": […]}`, status None when nothing answers (RFC 1035 §4)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = struct.pack(">6H", 1, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", TYPES[kind], 1)
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.settimeout(1)
        try:
            asking.sendto(query, (server, 53))
            answer = asking.recv(4096)
        except OSError:
            return {"status": None, "addresses": []}
    addresses, place = [], len(query)
    for _ in range(struct.unpack(">H", answer[6:8])[0]):
        # Each answer's name is a pointer of two bytes to the question's.
        found, _, _, length = struct.unpack(">2HIH", answer[place + 2 : place + 12])
        if found == TYPES[kind]:
            addresses.append(str(ipaddress.ip_address(answer[place + 12 : place + 12 + length])))
        place += 12 + length
    return {"status": answer[3] & 15, "addresses": addresses}


def dhcp(interface: str, mac: str, hostname: str = "") -> dict:
    """`{"address": …, "3": router, "6": resolver, "42": time}`, empty when nothing is offered (RFC 2131 §4.4)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        asking.bind(("0.0.0.0", 68))
        asking.settimeout(SECONDS)
        try:
            offer = _ask(asking, mac, 1, {12: hostname.encode()} if hostname else {})
            wanted = {50: ipaddress.ip_address(offer["address"]).packed, 54: offer[54]}
            offer = _ask(asking, mac, 3, {**wanted, **({12: hostname.encode()} if hostname else {})})
        except TimeoutError:
            return {}
    options = {str(o): str(ipaddress.ip_address(offer[o])) for o in (3, 6, 42) if o in offer}
    return {"address": offer["address"], **options}


def _ask(asking: socket.socket, mac: str, kind: int, options: dict) -> dict:
    hardware = bytes.fromhex(mac.replace(":", ""))
    fixed = struct.pack(">4B I 2H 4I 16s 64s 128s 4s", 1, 1, 6, 0, 7, 0, 0x8000, 0, 0, 0, 0, hardware, b"", b"",
                        bytes([99, 130, 83, 99]))  # fmt: skip
    all_options = {53: bytes([kind]), 55: bytes([1, 3, 6, 15, 42]), **options}
    body = b"".join(bytes([code, len(value)]) + value for code, value in all_options.items())
    asking.sendto(fixed + body + b"\xff", ("255.255.255.255", 67))
    while True:
        answer = asking.recv(2048)
        if answer[28:34] == hardware:
            break
    found: dict = {"address": str(ipaddress.ip_address(answer[16:20]))}
    place = 240
    while answer[place] != 255:
        code, length = answer[place], answer[place + 1]
        found[code] = answer[place + 2 : place + 2 + length]
        place += 2 + length
    return found


if __name__ == "__main__":
    print(json.dumps({"dns": dns, "dhcp": dhcp}[sys.argv[1]](*sys.argv[2:])))
