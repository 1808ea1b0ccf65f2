"""The HTTPS front and its public certificates on a live gateway: renewal under load, and what goes wrong on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gatehouse.site.pages import hosts
from tests.checkout import Checkout
from tests.lab.gateways import Gateway, wait

pytestmark = pytest.mark.timeout(600)

PROGRAM = "/usr/lib/gatehouse/certificates"
FRONT = "10.10.20.1"
# A port that answers nobody, before all else; `nft delete table inet away` opens it again.
CLOSED = (
    "nft add table inet away && nft 'add chain inet away closed {{ type filter hook input priority -5; }}'"
    " && nft add rule inet away closed {rule} reject with tcp reset"
)
# Asks again and again, over one connection as long as that is kept. An idle one may be closed at any time: then, as a
# browser does (RFC 9112 §9.3.1), it asks over a new one, which has to be answered.
ASK = """
import http.client, os, ssl, sys, time
context = ssl._create_unverified_context()
def ask(one):
    one.request("GET", "/", headers={"Host": sys.argv[1]})
    answer = one.getresponse()
    answer.read()
    assert answer.status == 200, answer.status
new = lambda: http.client.HTTPSConnection(sys.argv[1], context=context, timeout=10)
one, asked = new(), 0
while not os.path.exists("/tmp/stop"):
    try:
        ask(one)
    except (http.client.RemoteDisconnected, ConnectionError):
        one = new()
        ask(one)
    asked += 1
    time.sleep(0.05)
print(asked, flush=True)
"""


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


@contextmanager
def without_the_ca(gateway: Gateway) -> Iterator[None]:
    """With nobody at the public CA's port."""
    gateway.elsewhere("internet", CLOSED.format(rule="tcp dport 14000"))
    try:
        yield
    finally:
        gateway.elsewhere("internet", "nft delete table inet away")


def why_not(gateway: Gateway) -> str:
    """Runs what the timer runs, which must fail, and returns what it says."""
    assert gateway.ask("systemctl start certbot.service", 180).returncode != 0
    return gateway("journalctl -u certbot.service -n 20 -o cat --no-pager | grep '^certificates: ' | tail -1")


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


def test_every_request_during_a_renewal_is_answered(gateway: Gateway, name: str) -> None:
    gateway.elsewhere("station", "rm -f /tmp/stop /tmp/asked")
    gateway.elsewhere("station", f"setsid -f python3 -c '{ASK}' {name} >/tmp/asked 2>&1")
    force(gateway, name)
    gateway("systemctl start certbot.service", 180)
    gateway.elsewhere("station", "touch /tmp/stop; sleep 1")
    said = gateway.elsewhere("station", "cat /tmp/asked").strip()
    assert said.isdigit() and int(said) > 10, said
    gateway.converge()


def test_without_the_ca_or_its_challenge_the_former_certificate_goes_on(gateway: Gateway, name: str) -> None:
    before = fingerprint(gateway, name)
    force(gateway, name)
    with without_the_ca(gateway):
        said = why_not(gateway)
        assert f"{name}: the CA does not answer" in said, said
    gateway(CLOSED.format(rule="iifname br-internet tcp dport 80"))
    try:
        said = why_not(gateway)
        assert "the CA does not reach the gateway" in said, said
    finally:
        gateway("nft delete table inet away")
    assert fingerprint(gateway, name) == before
    gateway("systemctl start certbot.service", 180)
    assert fingerprint(gateway, name) != before
    gateway.converge()


def test_a_configuration_that_nginx_refuses_leaves_the_old_one_serving(gateway: Gateway, name: str) -> None:
    before = fingerprint(gateway, name)
    gateway("sed -i 's/server_tokens off/server_tokkens off/' /etc/gatehouse/web/nginx.conf")
    assert gateway.ask("systemctl reload nginx.service").returncode != 0
    assert fingerprint(gateway, name) == before
    assert gateway("systemctl is-active nginx.service").strip() == "active"
    gateway.converge()
