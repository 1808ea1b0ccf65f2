"""Runs on the gateway: `probe.py NAME SERVER…` asks each server for the IPv4 address of a name that all must know."""

import socket
import sys

name, *servers = sys.argv[1:]
labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
# RFC 1035 §4.1: identifier, recursion desired, one question; type A, class IN.
question = b"\x67\x68\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\x00\x00\x01\x00\x01"
for server in servers:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(2)
        for tries in (3, 2, 1):
            asking.sendto(question, (server, 53))
            try:
                answer = asking.recv(1500)
            except OSError as error:
                if tries > 1:
                    continue
                sys.exit(f"gatehouse: dnsmasq: {server} does not answer: {error}")
            if answer[3] & 15 or answer[6:8] == b"\x00\x00":
                sys.exit(f"gatehouse: dnsmasq: {server} does not know {name}")
            break
