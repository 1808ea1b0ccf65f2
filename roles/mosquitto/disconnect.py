#!/usr/bin/python3
"""Runs on the gateway: ends the session of one client of the broker, and of no other.

    mosquitto-disconnect <REQUEST

REQUEST is JSON: {"chain": PEM, "key": PEM, "listeners": [["10.10.10.1", 8883], …]}, a short-lived certificate in the
client's name. The broker lets a name have one session: who comes with the same name ends the former one and, by
starting clean with no expiry, drops what was queued for it (MQTT 5 §3.1.4-3, §3.1.2.4).
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


def main() -> int:
    """Exit status 0 once a listener has accepted the name; 1 with one line otherwise."""
    request = json.load(sys.stdin)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The broker is this machine's own; what is proven here is the client's name to it, not the other way round.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    credential = os.memfd_create("credential")
    os.write(credential, (request["chain"] + request["key"]).encode())
    context.load_cert_chain(f"/proc/self/fd/{credential}")
    os.close(credential)
    reason = "no listener"
    for address, port in request["listeners"]:
        try:
            with socket.create_connection((address, port), timeout=5) as wire, context.wrap_socket(wire) as tls:
                tls.sendall(CONNECT)
                answer = tls.recv(64)
                if len(answer) > 3 and answer[0] == CONNACK and answer[3] == 0:
                    tls.sendall(DISCONNECT)
                    return 0
                reason = f"the broker answered {answer[:8].hex() or 'nothing'}"
        except OSError as error:
            reason = str(error)
    print(f"mosquitto-disconnect: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
