#!/usr/bin/python3 -I
"""Tells whether the HTTPS front shows, for each name, the certificate that is on the disk, and turns away other names.

`web-prove [NAME…]`: only these; exit status 1 and a line for each that is not so. A reload takes a moment: it is asked
again for ten seconds.
"""

import json
import os
import socket
import ssl
import sys
import time

SERVED = "/etc/gatehouse/web/served.json"
PATIENCE = 10.0
UNKNOWN = "unknown.invalid"


def shown(address: str, port: int, name: str) -> bytes:
    """The certificate, DER, that is shown for a name. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((address, port), 5) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        return connection.getpeercert(binary_form=True) or b""


def on_disk(path: str) -> bytes:
    """The first certificate of a chain, DER."""
    with open(path, encoding="ascii") as file:
        text = file.read()
    end = "-----END CERTIFICATE-----"
    return ssl.PEM_cert_to_DER_cert(text[: text.index(end) + len(end)] + "\n")


def problem(served: dict, name: str, chain: str) -> str:
    """What is wrong with a name, or nothing."""
    try:
        if shown(served["address"], served["port"], name) == on_disk(chain):
            return ""
        return f"{name}: another certificate than {chain} is shown"
    except (OSError, ValueError) as error:
        return f"{name}: {error}"


def unknown_is_served(served: dict) -> str:
    """What is wrong with how a name that nobody has is turned away, or nothing."""
    try:
        shown(served["address"], served["port"], UNKNOWN)
    except ssl.SSLError:
        return ""
    except OSError as error:
        return f"{UNKNOWN}: {error}"
    return f"{UNKNOWN}: is served, too"


def main(names: list[str]) -> int:
    """Asks until all is well, or patience is over."""
    with open(SERVED, encoding="utf-8") as file:
        served = json.load(file)
    there = {
        name: entry["chain"]
        for name, entry in served["names"].items()
        if not entry["public"] or os.path.exists(f"{served['enabled']}/{name}.conf")
    }
    wanted = {name: there.get(name, "") for name in names} if names else there
    until = time.monotonic() + PATIENCE
    while True:
        found = [text for name, chain in wanted.items() if (text := problem(served, name, chain))]
        found += [text for text in [unknown_is_served(served)] if text]
        if not found or time.monotonic() > until:
            break
        time.sleep(0.2)
    for text in found:
        print(f"https: {text}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
