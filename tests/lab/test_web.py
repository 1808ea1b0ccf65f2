"""The HTTPS front and its public certificates on a live gateway: renewal under load, and what goes wrong on the way."""

from __future__ import annotations

import pytest

from gatehouse.site.pages import hosts
from tests.checkout import Checkout
from tests.lab.gateways import Gateway, wait

pytestmark = pytest.mark.timeout(600)

PROGRAM = "/usr/lib/gatehouse/certificates"
FRONT = "10.10.20.1"


@pytest.fixture
def name(here: Checkout) -> str:
    """The public name of the lab's gateway."""
    (public,) = [page.name for page in hosts(here.site, "gateway") if page.public]
    return public


def fingerprint(gateway: Gateway, name: str) -> str:
    """Of what is served."""
    show = f"openssl s_client -connect {FRONT}:443 -servername {name} </dev/null 2>/dev/null"
    return gateway(f"{show} | openssl x509 -noout -fingerprint -sha256").strip()


def force(gateway: Gateway, name: str) -> None:
    """Makes the certificate due, as its age would: after no time at all."""
    gateway('sed -i \'s/"renew_at": [0-9.]*/"renew_at": -1/\' /etc/gatehouse/certbot/settings.json')
    assert gateway(f"{PROGRAM} due").split() == [name]


def test_a_renewal_drops_nobody_and_what_is_served_then_is_the_new_certificate(gateway: Gateway, name: str) -> None:
    gateway("head -c 8000000 /dev/zero >>/usr/share/gatehouse/web/gateway.html")
    before = fingerprint(gateway, name)
    gateway.elsewhere("station", "rm -f /tmp/stop /tmp/asked /tmp/got")
    download = f"curl -sk --limit-rate 600k -o /tmp/got https://{name}/ && echo whole >>/tmp/asked"
    gateway.elsewhere("station", f"setsid -f sh -c '{download}' >/dev/null 2>&1")
    force(gateway, name)
    gateway("systemctl start certbot.service", 180)
    after = fingerprint(gateway, name)
    assert after != before
    assert gateway(f"runuser -u www-data -- test -r /etc/gatehouse/web/certificates/{name}/key.pem; echo $?") == "0\n"
    wait(lambda: "whole" in gateway.elsewhere("station", "cat /tmp/asked 2>/dev/null; true"), "the download", 60)
    assert int(gateway.elsewhere("station", "stat -c %s /tmp/got")) > 8_000_000
    gateway.converge()


def test_a_configuration_that_nginx_refuses_leaves_the_old_one_serving(gateway: Gateway, name: str) -> None:
    before = fingerprint(gateway, name)
    gateway("sed -i 's/server_tokens off/server_tokkens off/' /etc/gatehouse/web/nginx.conf")
    assert gateway.ask("systemctl reload nginx.service").returncode != 0
    assert fingerprint(gateway, name) == before
    assert gateway("systemctl is-active nginx.service").strip() == "active"
    gateway.converge()
