"""What is asked of the HTTPS front, from a segment that may reach it, and on the gateway about its certificates."""

from __future__ import annotations

import ssl
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gatehouse.proof import expect, plays
from gatehouse.proof.channel import ProbeError
from gatehouse.proof.credentials import foreign_anchor
from gatehouse.proof.observation import Observation
from gatehouse.site.pages import Host, hosts
from roles.certbot.deploy import PROGRAM
from roles.nginx import files, service
from tests.compliance.live import Live
from tests.compliance.once import once

UNKNOWN = "unknown.invalid"
GUESSES, LOGIN = 20, '{"user": "gatehouse-nobody", "password": "gatehouse-nobody"}'
HTTPS, HTTP = "https", "http"


def pages(live: Live) -> tuple[Host, ...]:
    """The names that are served on this gateway."""
    return hosts(live.site, live.name)


def anchor(live: Live, page: Host) -> str:
    """What a client trusts that comes to a name (PEM): the site's root, or the public ones."""
    if not page.public:
        return live.pki.trust_anchor.decode()
    acme = live.site.acme
    if acme and acme.anchors:
        return acme.anchors.read_text()
    context = ssl.create_default_context()
    return "".join(map(ssl.DER_cert_to_PEM_cert, context.get_ca_certs(binary_form=True)))


def issued_for(live: Live, page: Host, certificate: x509.Certificate) -> bool:
    """Whether a certificate is the one that is shown for a name."""
    shown = seen(live).get(f"{page.name}:{HTTPS}")
    der = certificate.public_bytes(Encoding.DER)
    return bool(shown) and ssl.PEM_cert_to_DER_cert(shown.result.get("certificate", "") or _NOTHING) == der


_NOTHING = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"


@once
def seen(live: Live) -> dict[str, Observation]:
    """Handshakes and requests for each name, at each address; `NAME:what`, with `@ADDRESS` at the further addresses."""
    listener = live.site.listener(service.name, HTTPS)
    places = live.reached_at(listener)
    if not places:
        raise ProbeError(f"{live.name}: no position from which the HTTPS front is reached")
    (segment, address), *others = places
    probes: list[dict[str, Any]] = []
    elsewhere: dict[str, list[dict[str, Any]]] = {}
    foreign = foreign_anchor(live.site.name, live.site.domain)
    for page in pages(live):
        server = {"address": address, "port": listener.port, "ca": anchor(live, page), "server_name": page.name}
        for probe in plays.handshakes(server, live.credentials, foreign):
            what = str(probe["id"]).partition(":")[2]
            shows = {k: v for k, v in probe.items() if k not in ("chain", "key") or probe["kind"] == "tls-capable"}
            probes.append({**shows, "id": f"{page.name}:{'able ' * (probe['kind'] != 'tls')}{what}"})
        probes.append({"id": f"{page.name}:{HTTPS}", "kind": "tls", **server})
        asks = {"path": "/", "headers": {"Host": page.name, "Accept-Encoding": "gzip"}}
        probes.append({"id": f"{page.name}:page", "kind": "https", **server, **asks})
        plain = {"address": address, "port": live.site.listener(service.name, HTTP).port}
        probes.append(
            {"id": f"{page.name}:{HTTP}", "kind": "http", **plain, "path": "/x?y=z", "headers": asks["headers"]}
        )
        for where, other in others:
            again = {"id": f"{page.name}:{HTTPS}@{other}", "kind": "tls", **server, "address": other}
            elsewhere.setdefault(where, []).append(again)
    nameless = {"kind": "tls", "address": address, "port": listener.port}
    probes += [{"id": "no name", **nameless}, {"id": "unknown name", **nameless, "server_name": UNKNOWN}]
    work = {segment: probes}
    for where, more in elsewhere.items():
        work[where] = [*work.get(where, []), *more]
    return {str(o.probe["id"]): o for found in live.ask(work).values() for o in found}


@once
def guessed(live: Live) -> dict[str, list[Observation]]:
    """More logins in a row than anybody types, of nobody, at each page that has a login, and then the page itself."""
    listener = live.site.listener(service.name, HTTPS)
    (segment, address), *_ = live.reached_at(listener)
    found = {}
    for page in pages(live):
        logins = [login for place in page.places for login in place.logins]
        server = {"address": address, "port": listener.port, "ca": anchor(live, page), "server_name": page.name}
        for login in logins[:1]:
            shown = {"kind": "https", **server, "path": login, "headers": {"Host": page.name}}
            headers = {"Host": page.name, "Content-Type": "application/json"}
            asks = {**shown, "method": "POST", "headers": headers, "body": LOGIN}
            tried = live.ask({segment: [{**asks, "id": f"login {number}"} for number in range(GUESSES)]})[segment]
            found[page.name] = tried + live.ask({segment: [{**shown, "id": "page"}]})[segment]
    return found


@once
def rehearsed(live: Live) -> Observation:
    """A renewal of every public name, without consequences."""
    probe = {"kind": "run", "argv": [PROGRAM, "rehearse"], "timeout": 150}
    return live.ask({expect.GATEWAY: [probe]})[expect.GATEWAY][0]


def folder(page: Host) -> str:
    """Where the certificate of a name lies on the gateway."""
    return files.folder(page)
