"""The port audit on a live gateway: what was left open, shut, or in plain text is named, with what mends it."""

from __future__ import annotations

import json

import pytest

from tests.lab.gateways import Gateway

pytestmark = pytest.mark.timeout(600)

STRAY = "systemd-run --quiet --collect --unit=stray-web.service python3 -m http.server --bind 0.0.0.0 2323"
# The HTTPS front replaced by what speaks plain text on its port; the one for plain HTTP is shut.
PLAIN = (
    "systemctl stop nginx.service;"
    " systemd-run --quiet --collect --unit=stray-front.service python3 -m http.server --bind 10.10.20.1 443"
)
ADMIT = (
    "nft insert rule inet gatehouse input iifname br-guest ip daddr 10.10.30.1 tcp dport 2323 accept;"
    " timeout 20 sh -c 'until ss -Hltn | grep -q :2323 && ss -Hltn | grep -q :443; do sleep 0.2; done'"
)


def test_what_differs_from_the_declaration_is_named_with_what_mends_it(gateway: Gateway) -> None:
    gateway.is_hardened = False
    try:
        gateway(f"{STRAY}; {PLAIN}; {ADMIT}")
        audited = gateway.checkout.invoke("audit", "--json", timeout=300)
        assert audited.status == 1, audited.text
        said = json.loads(audited.out)
        found = {(f["position"], f["address"], f["port"]): f for f in said["findings"]}
        stray = found["guest", "10.10.30.1", "2323/tcp"]
        assert (stray["what"], stray["unit"]) == ("open, not declared", "stray-web.service")
        assert stray["got"].startswith("http")
        for position in ("management", "operator"):
            plain = found[position, "10.10.20.1", "443/tcp"]
            assert (plain["what"], plain["unit"]) == ("plaintext where TLS is declared", "stray-front.service")
            shut = found[position, "10.10.20.1", "80/tcp"]
            assert (shut["what"], shut["close"]) == ("declared, not open", "sudo systemctl restart nginx.service")
        as_declared = {(p["position"], p["port"], p["speaks"]) for p in said["open"]}
        assert {
            ("iot", "8883/tcp", "tls"),
            ("management", "22/tcp", "ssh"),
            ("operator", "22/tcp", "ssh"),
        } <= as_declared
        assert not any(f["position"] == "iot" for f in said["findings"]), said["findings"]
        gateway(stray["close"].removeprefix("sudo "))
        assert ":2323" not in gateway("ss -Hltn")
    finally:
        gateway("systemctl stop stray-web.service stray-front.service 2>/dev/null; true")
        gateway.converge()
