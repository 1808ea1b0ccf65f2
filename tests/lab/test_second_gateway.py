"""A site with two gateways, deployed in one run: each has its own addresses, and neither waits for the other."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

import lab
from commands import labs
from tests.checkout import SITE_FILE, Checkout, in_its_lab
from tests.lab.gateways import Gateway

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def pair(own_lab: Callable[[str, int], Checkout]) -> Checkout:
    """The lab's site with a second gateway, 10.16.0.0/16, which serves no device yet."""
    checkout = own_lab("pair", 14)
    text = (checkout.root / SITE_FILE).read_text()
    begin, end = text.index('        "gateway": {'), text.index("    },\n    ssh=")
    second = text[begin:end].rstrip(",\n")
    for old, new in (
        ('"gateway": {', '"gateway-2": {\n            "without": ["wireguard"],'),
        ("10.14.", "10.16."),
        ("fd10:14:", "fd10:16:"),
        ("198.51.100.2/", "198.51.100.3/"),
        ("home.example", "home-2.example"),
        ("2001:db8:51::2/", "2001:db8:51::3/"),
    ):
        assert old in second, old
        second = second.replace(old, new)
    first = text[:end].rstrip(",\n")
    (checkout.root / SITE_FILE).write_text(f"{first},\n{second},\n{text[end:]}")
    return checkout


def test_two_gateways_converge_in_one_run_and_one_that_fails_does_not_stop_the_other(pair: Checkout) -> None:
    with in_its_lab(pair):
        site = pair.site
        assert list(site.gateways) == ["gateway", "gateway-2"]
        labs.build(site)
        both = [Gateway(pair, pair.lab, name) for name in site.gateways]

        done = pair.deploy()
        assert done.status == 0, done.text
        for gateway in both:
            gateway.stays_converged()
            addresses = gateway("ip -o addr show")
            for network in site.gateways[gateway.host].networks.values():
                assert f" {network.ipv4} " in addresses
            assert gateway("ss -tlnH 'sport = :8883'").count(":8883") >= 1

        reaches_its_own_broker = "nc -z -w 3 {} 8883 && echo open"
        for host, address in (("device", "10.14.10.1"), ("device-2", "10.16.10.1")):
            assert both[0].elsewhere(host, reaches_its_own_broker.format(address)) == "open\n"
        assert both[0].elsewhere("device", "nc -z -w 3 10.16.10.1 8883 || echo closed") == "closed\n"

        pair.edit("templates/chrony/etc/chrony/chrony.conf.j2", ("{{ header }}\n", "{{ header }}\n# both\n"))
        both[1]("mv /usr/bin/sudo /root/sudo")
        partly = pair.deploy()
        assert partly.status == 1, partly.text
        assert "[gateway-2] can't act as root" in partly.err
        assert "# both" in both[0]("cat /etc/chrony/chrony.conf")
        assert "# both" not in both[1]("cat /etc/chrony/chrony.conf")
        both[1]("mv /root/sudo /usr/bin/sudo")

        lab.run(pair.lab, "gateway", ["systemctl", "stop", "ssh"])
        partly = pair.deploy()
        assert partly.status == 1, partly.text
        assert re.search(r"\[gateway\] +Could not connect", partly.err), partly.err
        assert "# both" in both[1]("cat /etc/chrony/chrony.conf")
        lab.run(pair.lab, "gateway", ["systemctl", "start", "ssh"])
        both[0].stays_converged()
