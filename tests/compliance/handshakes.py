"""What every server that others reach over TLS is offered by hand, and what it makes of that."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from gatehouse.identity.pins import broker_host
from gatehouse.proof import suites
from gatehouse.proof.channel import ProbeError
from gatehouse.proof.observation import Observation
from gatehouse.proof.suites import GROUPS, P256, SMALL_GROUPS, SOUND, STATIC, WEAK, X25519
from roles import mosquitto, nginx, updates
from roles.target import Target
from roles.updates import files
from tests.compliance import web
from tests.compliance.live import Live
from tests.compliance.once import once

GOOD = "sound suites"
OFFERS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    **{what: (offer, GROUPS) for what, offer in {**WEAK, **STATIC}.items()},
    "AES-GCM": ((*suites.ECDSA_GCM, *suites.RSA_GCM), GROUPS),
    "AES-GCM with RSA": (suites.RSA_GCM, GROUPS),
    # The curve of the certificate must be among those that are offered (RFC 8422 §5.1).
    "X25519": (SOUND, (X25519, P256)),
    "P-256": (SOUND, (P256,)),
    "small curves first": (SOUND, (*SMALL_GROUPS, P256)),
}


@dataclass(frozen=True)
class Server:
    """A server, from where it is reached, and how it is asked for; `older`: it is declared to speak TLS 1.2, too."""

    name: str
    position: str
    address: str
    port: int
    server_name: str
    older: bool

    def probe(self, what: str, kind: str = "hello", **more: Any) -> dict[str, Any]:
        """A question to it, by `SERVER:WHAT`."""
        where = {"address": self.address, "port": self.port, "server_name": self.server_name}
        return {"id": f"tls:{self.name}:{what}", "kind": kind, **where, **more}


def servers(live: Live) -> list[Server]:
    """The servers of the gateway that are reached over TLS from a segment. The one for devices with keys of their own
    (PSK) shows no certificate and has suites of its own: see `psk.*`."""
    found = []
    older = live.site.web.profile != "modern"
    names = {service.name for service in live.site.services_of(live.name)}
    wanted = [(f"web {page.name}", nginx.service.name, web.HTTPS, page.name, older) for page in web.pages(live)]
    if updates.service.name in names:
        name = files.name(Target(live.site, live.name, lambda: live.pki))
        wanted.append(("updates", updates.service.name, "updates", name, older))
    if mosquitto.service.name in names:
        for listener in ("mqtts", "passwords"):
            host = broker_host(live.site)
            wanted.append((f"broker {listener}", mosquitto.service.name, listener, host, live.site.broker.tls == "1.2"))
    for title, service, listener_name, server_name, speaks_older in wanted:
        listener = live.site.listener(service, listener_name)
        for position, address in live.reached_at(listener)[:1]:
            found.append(Server(title, position, address, listener.port, server_name, speaks_older))
    return found


@once
def seen(live: Live) -> dict[tuple[str, str], Observation]:
    """What came of each offer, by server and offer; the further ones only where TLS 1.2 is spoken at all."""
    asked = servers(live)
    if not asked:
        raise ProbeError(f"{live.name}: no position from which a server is reached over TLS")
    found = _ask(live, [(s, s.probe(GOOD, suites=list(SOUND), groups=list(GROUPS))) for s in asked])
    found |= _ask(live, [(s, s.probe("TLS 1.3", kind="tls", minimum="1.3")) for s in asked])
    able = [s for s in asked if not is_new_only(found[s.name, GOOD])]
    found |= _ask(live, [(s, s.probe("TLS 1.2", kind="tls", maximum="1.2")) for s in able])
    offers = [(s, what, offer, groups) for s in able for what, (offer, groups) in OFFERS.items()]
    return found | _ask(live, [(s, s.probe(w, suites=list(o), groups=list(g))) for s, w, o, g in offers])


def is_new_only(good: Observation) -> bool:
    """Whether a server turned the sound offer down because TLS 1.2 is too old for it."""
    return good.outcome == "alert" and good.result.get("alert") == suites.PROTOCOL_VERSION


def _ask(live: Live, wanted: list[tuple[Server, dict[str, Any]]]) -> dict[tuple[str, str], Observation]:
    work: dict[str, list[dict[str, Any]]] = {}
    for server, probe in wanted:
        work.setdefault(server.position, []).append(probe)
    answers = {o.probe["id"]: o for found in live.ask(work).values() for o in found}
    return {(s.name, p["id"].rpartition(":")[2]): answers[p["id"]] for s, p in wanted}


@once
def early(live: Live) -> dict[str, Observation]:
    """What tickets for later sessions allow, of the servers that ask for no certificate of their visitors."""
    found = {}
    for server in servers(live):
        if server.name.startswith("web "):
            where = f"[{server.address}]" if ":" in server.address else server.address
            command = f"sleep 1 | timeout 6 openssl s_client -tls1_3 -connect {where}:{server.port}"
            argv = ["sh", "-c", f'{command} -servername "$1" 2>&1', "sh", server.server_name]
            (found[server.name],) = live.ask({server.position: [{"kind": "run", "argv": argv}]})[server.position]
    return found


def ticket_bytes(said: str) -> list[int]:
    """How long the tickets are that `openssl s_client` shows, as a dump of 16 bytes a line."""
    dumps = re.findall(r"TLS session ticket:\n((?: +[0-9a-f]{4} - .*\n)+)", said)
    return [sum(len(re.findall(r"[0-9a-f]{2}", line[11:59])) for line in dump.splitlines()) for dump in dumps]
