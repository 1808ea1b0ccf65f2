"""Audit and drift on a live gateway: what somebody left open, shut or changed is named, with what mends it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

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


# What else somebody may have done to it, by hand.
TAMPER = (
    "chmod 0666 /etc/gatehouse/dnsmasq.conf; echo '# mine' >>/etc/mosquitto/conf.d/gatehouse.conf;"
    " chown nobody /etc/chrony/chrony.conf; systemctl disable --now -q gatehouse-collector.timer;"
    " handle=$(nft -a list chain inet gatehouse input | awk '/ct state .*invalid/ {print $NF; exit}');"
    " nft delete rule inet gatehouse input handle $handle;"
    " useradd --no-create-home --non-unique --uid 0 toor"
)


@pytest.fixture(scope="module")
def tampered(lab_gateway: Gateway) -> Iterator[Gateway]:
    """The gateway, after somebody has been at it."""
    lab_gateway.harden()
    lab_gateway.is_hardened = False
    try:
        lab_gateway(f"{STRAY}; {PLAIN}; {ADMIT}; {TAMPER}")
        yield lab_gateway
    finally:
        lab_gateway("systemctl stop stray-web.service stray-front.service 2>/dev/null; userdel -f toor; true")
        lab_gateway.converge()
        clean = lab_gateway.checkout.invoke("drift")
        assert (clean.status, clean.out) == (0, "lab: as declared (gateway)\n"), clean.text


def test_a_hardened_gateway_has_not_drifted(gateway: Gateway, tell: Callable[[str], None]) -> None:
    done = gateway.checkout.invoke("drift", "--json")
    assert done.status == 0, done.text
    looked = json.loads(done.out)["gateways"]["gateway"]
    assert looked["differences"] == []
    assert looked["round_trips"] <= 3
    tell(f"drift: {looked['seconds']:.1f} s, {looked['round_trips']} round trips")


def test_each_difference_is_named_with_what_mends_it_and_nothing_is_changed(tampered: Gateway) -> None:
    state = (
        "sha256sum /etc/mosquitto/conf.d/gatehouse.conf; stat -c %a /etc/gatehouse/dnsmasq.conf; nft -s -t list ruleset"
    )
    before = tampered(state)
    done = tampered.checkout.invoke("drift", "--json")
    assert done.status == 2, done.text
    said = json.loads(done.out)["gateways"]["gateway"]["differences"]
    found = {(d["kind"], d["name"], d["how"]) for d in said}
    for expected in (
        ("file", "/etc/gatehouse/dnsmasq.conf", "mode 666, not 644"),
        ("file", "/etc/mosquitto/conf.d/gatehouse.conf", "content"),
        ("unit", "mosquitto.service", "runs on other files than those on the disk"),
        ("file", "/etc/chrony/chrony.conf", "owner nobody:root, not root:root"),
        ("unit", "gatehouse-collector.timer", "disabled, not enabled"),
        ("unit", "nginx.service", "inactive, not running"),
        ("account", "toor", "is root by another name"),
    ):
        assert expected in found, (expected, found)
    rules = {how for kind, place, how in found if (kind, place) == ("firewall", "chain input")}
    assert any(how.startswith("declared, not running: ct state") for how in rules), rules
    assert any(how.startswith("running, not declared: iifname") and "2323" in how for how in rules), rules
    assert len(rules) == 2, rules
    mends = {d["mend"] for d in said if d["kind"] != "account"}
    assert mends == {"./kit harden --site lab"}
    assert tampered(state) == before


def test_what_differs_from_the_declaration_is_named_with_what_mends_it(tampered: Gateway) -> None:
    audited = tampered.checkout.invoke("audit", "--json", timeout=300)
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
    # The front that is stopped serves updates, too; nothing else is different for the devices.
    of_devices = {(f["port"], f["what"]) for f in said["findings"] if f["position"] == "iot"}
    assert of_devices == {("8444/tcp", "declared, not open")}, said["findings"]
    tampered(stray["close"].removeprefix("sudo "))
    assert ":2323" not in tampered("ss -Hltn")
