"""The lab's public CA on its internet: Debian's pebble, a real ACME server that looks for its challenges in earnest.

Whom its certificates are to be trusted by, it decides anew at each start; what a client needs for that is kept in the
lab's state: `acme-ca.pem` for the directory's own server, `acme-roots.pem` for the certificates.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from lab.errors import LabError

NAME = "acme.example"
PORT = 14000
DIRECTORY = f"https://{NAME}:{PORT}/dir"
LIFE = 90 * 86_400  # seconds
SERVER, ROOTS = "acme-ca.pem", "acme-roots.pem"
SECONDS = 20

CONFIGURATION = json.dumps(
    {
        "pebble": {
            "listenAddress": f"0.0.0.0:{PORT}",
            "managementListenAddress": "127.0.0.1:15000",
            "certificate": "/etc/lab/acme.pem",
            "privateKey": "/etc/lab/acme.key",
            "httpPort": 80,
            "tlsPort": 443,
            "ocspResponderURL": "",
            "certificateValidityPeriod": LIFE,
        }
    },
    indent=1,
)

# It ships no certificate for itself. Without its usual naps and false alarms, which are there to test clients.
START = f"""
[ -e /etc/lab/acme.pem ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \\
    -subj /CN={NAME} -addext subjectAltName=DNS:{NAME} -keyout /etc/lab/acme.key -out /etc/lab/acme.pem 2>/dev/null
resolver=$(sed -n s/^listen-address=//p /etc/lab/dnsmasq.conf | head -1)
# It would spare every other challenge of a name that it has seen answered: then a challenge that must fail does not.
pgrep -x pebble >/dev/null || PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0 PEBBLE_AUTHZREUSE=0 setsid -f pebble \\
    -config /etc/lab/acme.json -dnsserver "$resolver:53" </dev/null >/var/log/pebble.log 2>&1
"""


def anchors(execute: Callable[[list[str]], tuple[int, str]], lab: str) -> dict[str, bytes]:
    """What its clients have to trust, as file name → PEM; `execute` runs a program on the internet's host, and gives
    its status and output. Raises LabError if the CA does not answer."""
    ask = f"curl -sS --cacert /etc/lab/acme.pem --resolve {NAME}:15000:127.0.0.1 https://{NAME}:15000/roots/0"
    deadline = time.monotonic() + SECONDS
    while True:
        status, said = execute(["sh", "-c", ask])
        if status == 0 and "BEGIN CERTIFICATE" in said:
            _, own = execute(["cat", "/etc/lab/acme.pem"])
            return {SERVER: own.encode(), ROOTS: said.encode()}
        if time.monotonic() > deadline:
            raise LabError(f"lab {lab}: the public CA on its internet does not answer: {said.strip()}")
        time.sleep(0.2)
