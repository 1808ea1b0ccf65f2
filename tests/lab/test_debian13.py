"""Debian 13 is a gateway as good as Debian 12."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import lab
from deploy import vaults
from tests.checkout import SITE_FILE, Checkout, in_its_lab
from tests.lab.gateways import Gateway

pytestmark = pytest.mark.timeout(900)


def test_a_debian_13_machine_converges_and_plans_nothing_the_second_time_nor_after_a_restart(
    own_lab: Callable[[str, int], Checkout],
) -> None:
    checkout = own_lab("trixie", 18)
    with in_its_lab(checkout):
        lab.up(lab.from_site(checkout.site, checkout.lab), debian="13")
        vaults.prepare_lab(checkout.site)
        gateway = Gateway(checkout, checkout.lab)
        assert 'VERSION_ID="13"' in gateway("cat /etc/os-release")
        keyed = checkout.deploy()
        assert keyed.status != 0 and "this mosquitto has no TLS 1.3 beside pre-shared keys" in keyed.text
        checkout.edit(SITE_FILE, ("psk=True", "psk=False"))
        gateway.converge()
        lab.restart(checkout.lab, "gateway")
        for unit in (unit for service in checkout.site.services for unit in service.units):
            gateway.until(f"systemctl is-active {unit}", 30)
        gateway.stays_converged()
        assert gateway.elsewhere("device", "nc -z -w 3 10.18.10.1 8883 && echo open") == "open\n"
