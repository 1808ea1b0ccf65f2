"""Sabotages of the CoAP endpoint: whom it lets in, what it takes, and how it is encrypted."""

from __future__ import annotations

from lab.sabotage.model import Sabotage

_SILENT = "it answers nobody, so silence elsewhere proves nothing"
_HERE = "{management,guest,internal,internet}"

SABOTAGES = (
    Sabotage(
        name="no-coap",
        title="The CoAP endpoint is stopped",
        breaks="systemctl stop gatehouse-coap.service",
        catches=("host.runs-coap", "gateway.coap.coaps-from-iot", "coap.accepts-devices"),
        may={
            "coap.*": "it answers nobody",
            f"gateway.coap.coaps-from-{_HERE}": _SILENT,
            "scan.udp-from-iot": "a port that is let through, where nobody listens",
        },
        apart_from=("coap-*",),
    ),
    Sabotage(
        name="coap-for-all",
        title="The CoAP endpoint listens on every address, and the firewall lets everybody to it",
        breaks="""
            edit /etc/systemd/system/gatehouse-coap.service '/^IPAddress/d'
            systemctl daemon-reload
            coap /etc/gatehouse/coap/settings.json \\
                's/^   "[0-9.]+",/   "0.0.0.0",/; s/^   "[0-9a-f]+:[0-9a-f:]+",/   "::",/'
            admit input 'fib daddr . iif type local udp dport 5684 counter accept'
        """,
        catches=(f"gateway.coap.coaps-from-{_HERE}",),
        may={f"scan.udp-from-{_HERE}": "what answers is open to a scan, too"},
        # it is made when the endpoint has its broker again
        apart_from=(
            "no-coap",
            "coap-of-a-stranger",
            "no-broker",
            "impostor*",
            "anybody",
            "names-believed",
            "key-instead-of-certificate",
        ),
    ),
    Sabotage(
        name="coap-of-a-stranger",
        title="The CoAP endpoint shows a certificate that it made itself",
        breaks="""
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=coap \\
                -keyout /etc/gatehouse/coap/server.key -out /etc/gatehouse/coap/server.crt 2>/dev/null
            systemctl restart gatehouse-coap.service
        """,
        catches=("coap.is-genuine", "coap.accepts-devices", "keys.known"),
        may={"coap.*": "no device trusts it"},
        apart_from=("no-coap", "coap-*"),
    ),
    Sabotage(
        name="coap-for-anybody",
        title="The CoAP endpoint takes every certificate for good, and needs none",
        breaks="""
            edit $COAP/dtls.py 's/ \\| SSL.VERIFY_FAIL_IF_NO_PEER_CERT//'
            edit $COAP/dtls.py 's/return bool\\(fine\\)/return True/'
            edit $COAP/dtls.py 's/name = certificate.get_subject.*/name = certificate.get_subject().CN if certificate else "gatehouse-probe-1"/'
            edit $COAP/dtls.py 's/if not \\(certificate and name\\):/if False:/'
            edit $COAP/dtls.py 's/certificate.get_notAfter\\(\\) or b""/b"9"/'
            coap dtls.py 's/certificate is not None and identity.vouches_for\\(/bool(self) or (/'
        """,
        catches=("coap.refuses-{none,expired,foreign,revoked,server}", "coap.revocation-list"),
    ),
    Sabotage(
        name="coap-without-revocation",
        title="The CoAP endpoint does not look at the revocation lists",
        breaks="coap dtls.py 's/store.set_flags\\(.*/pass/'",
        catches=("coap.refuses-revoked", "coap.revocation-list"),
    ),
    Sabotage(
        name="coap-for-others",
        title="A device may post by CoAP under another's topic, whatever it asks for, and as much as it likes",
        breaks="""
            edit $COAP/resource.py 's/if name != device:/if False:/'
            edit $COAP/resource.py 's/return Answer\\(NOT_FOUND\\)/name = device/'
            edit $COAP/resource.py 's/if request.code != codec.POST:/if False:/'
            edit $COAP/resource.py 's/if any\\(codec.number_of\\(given\\) != codec.OCTET_STREAM.*/if False:/'
            coap resource.py 's/^LARGEST = 1024/LARGEST = 60_000/'
        """,
        catches=("coap.denies-{others-topic,no-topic,method,format,too-large}",),
        apart_from=("no-coap",),
    ),
    Sabotage(
        name="coap-in-quarantine",
        title="The CoAP endpoint takes messages of a device in quarantine",
        breaks="coap /etc/gatehouse/coap/devices.json 's/^\\[$/[\\n\"gatehouse-probe-cut-off\",/'",
        catches=("coap.cut-off",),
        apart_from=("no-coap",),
    ),
    Sabotage(
        name="coap-without-cookies",
        title="The CoAP endpoint shakes hands with whoever says hello",
        breaks="""
            coap dtls.py 's/^            self._connection.DTLSv1_listen\\(\\)/            pass/'
        """,
        catches=("coap.cookies",),
        apart_from=("no-coap",),
    ),
    Sabotage(
        name="coap-of-the-past",
        title="The CoAP endpoint speaks DTLS 1.0, and suites without authenticated encryption",
        breaks="""
            edit $COAP/dtls.py 's/^SUITES = .*/SUITES = b"ALL:@SECLEVEL=0"/'
            coap dtls.py '/set_min_proto_version/d'
        """,
        catches=("coap.dtls", "coap.refuses-dtls-1.0"),
        apart_from=("no-coap",),
    ),
    Sabotage(
        name="coap-in-the-clear",
        title="Somebody answers plain CoAP, and the firewall lets devices to it",
        breaks="""
            admit input "iifname \\"$br_iot\\" udp dport 5683 counter accept"
            stray coap 'import socket
wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); wire.bind(("0.0.0.0", 5683))
while True:
    data, peer = wire.recvfrom(2000); wire.sendto(b"\\x60\\x45" + data[2:4], peer)'
        """,
        catches=("coap.no-plaintext", "gateway.sockets", "scan.udp-from-iot"),
        ends="gone coap",
        apart_from=("no-coap",),
    ),
    Sabotage(
        name="coap-stores-nothing",
        title="The CoAP endpoint says yes before the broker has the message, and loses it",
        breaks="coap server.py 's/elif waiting >= AT_ONCE or not self._broker.give.*/elif not self._told((client, exchange), True):/; s/^            self._told\\(\\(client, exchange\\), False\\)/            pass/'",
        catches=("coap.stores",),
        apart_from=("no-coap", "no-intake"),
    ),
)
