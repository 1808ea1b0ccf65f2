#!/usr/bin/python3
"""Runs on the gateway: shows that certificates are refused, and ends the session of one client and of no other.

    mosquitto-disconnect <REQUEST

REQUEST is JSON: {"chain": PEM, "key": PEM, "listeners": [["10.10.10.1", 8883], …], "refused": [{"chain": PEM, …}, …]}:
a short-lived certificate in the client's name, and those that no listener may take. The broker lets a name have one
session: who comes with the same name ends the former one and, by starting clean with no expiry, drops what was queued
for it (MQTT 5 §3.1.4-3, §3.1.2.4). That one connection is let in also shows that the others are not refused for
another reason.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys

# CONNECT: MQTT 5, clean start, keep-alive 10 s, session expiry 0, no identifier: the certificate names it.
CONNECT = bytes([0x10, 13, 0, 4, *b"MQTT", 5, 2, 0, 10, 0, 0, 0])
DISCONNECT = bytes([0xE0, 0])
CONNACK = 0x20


class Failed(Exception):
    """The broker does not do what it must."""


def main() -> int:
    """Exit status 0 once a listener has accepted the name, and none the others; 1 with one line otherwise."""
    request = json.load(sys.stdin)
    try:
        for refused in request.get("refused", []):
            for listener in request["listeners"]:
                try:
                    answer = ask(listener, refused)
                except OSError:
                    continue
                if accepts(answer):
                    raise Failed(f"{listener[0]} port {listener[1]} still takes the revoked certificate")
        reason = "no listener"
        for listener in request["listeners"]:
            try:
                if accepts(answer := ask(listener, request)):
                    return 0
                reason = f"the broker answered {answer[:8].hex() or 'nothing'}"
            except OSError as error:
                reason = str(error)
        raise Failed(reason)
    except Failed as error:
        print(f"mosquitto-disconnect: {error}", file=sys.stderr)
        return 1


def ask(listener: list, given: dict[str, str]) -> bytes:
    """What a listener answers to a CONNECT with this certificate. Raises OSError when it ends the connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The broker is this machine's own; what is proven here is the client's name to it, not the other way round.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    credential = os.memfd_create("credential")
    try:
        os.write(credential, (given["chain"] + given["key"]).encode())
        context.load_cert_chain(f"/proc/self/fd/{credential}")
    finally:
        os.close(credential)
    with socket.create_connection(tuple(listener), timeout=5) as wire, context.wrap_socket(wire) as tls:
        tls.sendall(CONNECT)
        answer = tls.recv(64)
        if accepts(answer):
            tls.sendall(DISCONNECT)
        return answer


def accepts(answer: bytes) -> bool:
    """Whether this is a CONNACK that says yes."""
    return len(answer) > 3 and answer[0] == CONNACK and answer[3] == 0


if __name__ == "__main__":
    sys.exit(main())
