"""Alerts leave a live gateway: by HTTPS to a server in the LAN, and by e-mail to one that asks for TLS and a login."""

from __future__ import annotations

import datetime
import ipaddress
import json
from collections.abc import Iterator
from email import message_from_string
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

import lab
from deploy import mailpassword, vaults
from gatehouse.alerts.ways import signature
from gatehouse.identity.authority import key_to_pem, new_key
from lab.topology import FIELD, neighbour
from roles.alerts import EMAIL_PASSWORD, WEBHOOK_SECRET, files
from tests.checkout import SITE_FILE, Checkout
from tests.lab.gateways import Gateway, wait

pytestmark = pytest.mark.timeout(300)

HOST = "server"
HTTPS, SUBMISSION = 8443, 587
RUN = "/run/receiving"
FAILED = "gatehouse-caused.service"
# On the host in the LAN: Debian's aiosmtpd, and Python's own HTTPS server; what comes is written down.
RECEIVE = f"""
import asyncio, json, ssl, sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
given = json.load(sys.stdin)
tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
tls.load_cert_chain("{RUN}/shown")
out = open("{RUN}/came", "a", buffering=1)

def came(**what):
    print(json.dumps(what), file=out)

class Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        came(by="webhook", path=self.path, signed=self.headers["X-Gatehouse-Signature"], body=body)
        self.send_response(204)
        self.end_headers()

class Mail:
    async def handle_DATA(self, server, session, envelope):
        came(by="email", to=envelope.rcpt_tos, tls=session.ssl is not None, body=envelope.content.decode())
        return "250 taken"

def login(server, session, envelope, mechanism, data):
    right = isinstance(data, LoginPassword) and [data.login.decode(), data.password.decode()] == given["login"]
    return AuthResult(success=right)

def talk():
    return SMTP(Mail(), require_starttls=True, tls_context=tls, auth_required=True, authenticator=login)

web = HTTPServer(("0.0.0.0", {HTTPS}), Hook)
web.socket = tls.wrap_socket(web.socket, server_side=True, do_handshake_on_connect=False)
threading.Thread(target=web.serve_forever, daemon=True).start()

async def main():
    server = await asyncio.get_running_loop().create_server(talk, "0.0.0.0", {SUBMISSION})
    print("null", file=out)
    await server.serve_forever()

asyncio.run(main())
"""
STOP = f"[ ! -e {RUN}/pid ] || kill $(cat {RUN}/pid) 2>/dev/null; rm -rf {RUN}"
START = f"""{STOP}; umask 077; mkdir {RUN}; cd {RUN}
cat >given; python3 -c 'import json; print(json.load(open("given"))["shown"])' >shown
setsid python3 -I -c "$1" <given >log 2>&1 &
echo $! >pid
for try in $(seq 100); do [ -s came ] && exit; sleep 0.1; done; cat log >&2; exit 1
"""


def certificate(address: str) -> tuple[bytes, str]:
    """A certificate for an address that vouches for itself, and it with its key: PEM."""
    key = new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    return pem, (pem + key_to_pem(key)).decode()


class Receiver:
    """The servers on a host of the lab; the gateway's operator has named the certificate that they show."""

    def __init__(self, gateway: Gateway) -> None:
        self._lab = gateway.name
        own = gateway.checkout.site.gateways[gateway.host].networks["internal"].ipv4
        assert isinstance(own, ipaddress.IPv4Interface)
        self.address = str(neighbour(own, FIELD).ip)
        self.trusted, self._right = certificate(self.address)
        _, self._wrong = certificate(self.address)

    def start(self, right: bool) -> None:
        given = {"shown": self._right if right else self._wrong, "login": ["gateway", "a password"]}
        done = lab.run(self._lab, HOST, ["sh", "-c", START, "sh", RECEIVE], stdin=json.dumps(given))
        assert done.returncode == 0, done.stderr

    def stop(self) -> None:
        lab.run(self._lab, HOST, ["sh", "-c", STOP])

    def came(self) -> list[dict[str, str]]:
        done = lab.run(self._lab, HOST, ["cat", f"{RUN}/came"])
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()[1:]]


@pytest.fixture
def told(gateway: Gateway, changed: Checkout, tmp_path: Path) -> Iterator[tuple[Checkout, Receiver]]:
    """The gateway, whose site names both servers; the site's vault has the password."""
    receiver = Receiver(gateway)
    trust = tmp_path / "receiver.pem"
    trust.write_bytes(receiver.trusted)
    url = f"https://{receiver.address}:{HTTPS}/gateway"
    email = {"server": receiver.address, "user": "gateway", "sender": "gateway@example.org", "to": ["anna@example.org"]}
    ways = {"webhook": {"url": url, "trust": str(trust)}, "email": {**email, "trust": str(trust)}}
    changed.edit(SITE_FILE, ('alerts={"mqtt": True', f'alerts={{**{ways}, "mqtt": True'))
    gateway.is_hardened = False
    mailpassword.keep(changed.site, "a password\n")
    try:
        deployed = changed.deploy()
        assert deployed.status == 0, deployed.text
        yield changed, receiver
    finally:
        receiver.stop()
        with vaults.open_vault(gateway.checkout.site).transaction() as vault:
            vault.delete(EMAIL_PASSWORD)
    gateway.converge()


def test_an_alert_leaves_by_webhook_and_email_once_their_certificates_are_those_that_are_trusted(
    gateway: Gateway, told: tuple[Checkout, Receiver]
) -> None:
    checkout, receiver = told
    receiver.start(right=False)
    gateway.ask(f"systemd-run --quiet --unit={FAILED} false; sleep 0.5; systemctl is-failed {FAILED}")
    try:
        # Whatever fails is a unit that the nightly verification finds; its end is an alert of the gateway's own.
        gateway("systemctl start gatehouse-verify.service; systemctl start gatehouse-collector.service")
        assert gateway.ask(f"systemctl start {files.UNIT}").returncode != 0
        listed = checkout.invoke("alerts")
        assert listed.status == 0 and listed.text.count("certificate verify failed") == 2, listed.text
        assert receiver.came() == [], "nothing is told to who can't show the certificate"
        receiver.start(right=True)
        gateway.until(f"systemctl start {files.UNIT}", 20)
        wait(lambda: len(receiver.came()) >= 2, "both have come", 20, lambda: str(receiver.came()))
    finally:
        gateway(f"systemctl reset-failed {FAILED} 2>/dev/null; systemctl start gatehouse-verify.service")
    secret = vaults.open_vault(gateway.checkout.site).get(WEBHOOK_SECRET)
    hooks = [each for each in receiver.came() if each["by"] == "webhook"]
    mails = [each for each in receiver.came() if each["by"] == "email"]
    for each in hooks:
        assert each["path"] == "/gateway" and each["signed"] == signature(secret, each["body"].encode())
    bodies = [json.loads(each["body"]) for each in hooks]
    assert [each for each in bodies if (each["alert"], each["state"]) == ("verification", "raised")], bodies
    assert all(each["tls"] and each["to"] == ["anna@example.org"] for each in mails)
    subjects = [message_from_string(each["body"])["Subject"] for each in mails]
    assert any(each.startswith("[gateway] raised: the nightly verification found 1 wrong") for each in subjects), (
        subjects
    )
    assert json.loads(gateway(f"cat {files.STATUS}"))["failing"] == 0
