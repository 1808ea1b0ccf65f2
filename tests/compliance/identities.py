"""What the checks of identities look at: bundles and secret files on this side, lists and sessions on the gateway."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deploy import enrolment, vaults
from gatehouse.identity import bundle
from gatehouse.identity.authority import read_certificate
from gatehouse.identity.leaf import LONGEST_LIFE, spki
from gatehouse.identity.lifetimes import WARN_BELOW, Lifetime
from gatehouse.identity.pins import Pins
from gatehouse.identity.pki import Standing
from gatehouse.proof import expect, plays
from gatehouse.proof.channel import ProbeError
from gatehouse.site import Site
from roles.mosquitto.deploy import CREDENTIALS, UNIT
from tests.compliance.live import Live
from tests.compliance.once import once

LOADED = f"/run/gatehouse/loaded/{UNIT}"
LIST = f"{CREDENTIALS}/crl.pem"
PRESENT = 5.0  # seconds that the suite's own session is open while the sessions are looked at


def key_digest(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate's public key, as the registry has it."""
    return sha256(spki(certificate.public_key())).hexdigest()


class Bundles:
    """The devices' bundles that are still on this machine: what was flashed has often been deleted."""

    def __init__(self, site: Site) -> None:
        self._directory = enrolment.bundles_path(site)

    def shown(self, name: str = "") -> str:
        """A bundle's directory as the operator types it."""
        return enrolment.shown(self._directory / name)

    def _places(self) -> list[Path]:
        try:
            return sorted(place for place in self._directory.iterdir() if place.is_dir())
        except FileNotFoundError:
            return []

    @cache  # noqa: B019  one a run
    def certificates(self) -> list[tuple[str, x509.Certificate]]:
        """The certificate of each, with the name of its directory."""
        paths = [(place.name, place / "certificate.pem") for place in self._places()]
        return [(name, read_certificate(str(path), path.read_bytes())) for name, path in paths if path.exists()]

    def pins(self, gateway: str) -> Iterator[tuple[str, Pins]]:
        """What the bundles of a gateway's devices pin."""
        for place in self._places():
            found = bundle.read(place)
            if found is not None and found.gateway == gateway:
                yield self.shown(place.name), found.broker.pins

    def files(self) -> Iterator[Path]:
        """Every file and directory of them."""
        if self._directory.is_dir():
            yield self._directory
            yield from sorted(self._directory.rglob("*"))


def vault_files(site: Site) -> list[Path]:
    """The vault and its former generation: encrypted and often committed, so that others may read them."""
    vault = vaults.vault_path(site)
    return [path for path in (vault, vault.with_name(f"{vault.name}.previous")) if path.exists()]


def secret_files(site: Site) -> list[Path]:
    """The key that opens the vault, and in a lab the key of its SSH and where all this is."""
    named = [vaults.identity_path(site), *([site.state, site.state / "id_ed25519"] if site.state else [])]
    return [path for path in named if path.exists()]


def exposure(path: Path, forbidden: int = 0o077) -> str:
    """Why others could use what is at a path, or replace it; empty if they can't. `forbidden` are bits of a mode."""
    state = path.lstat()
    if stat.S_ISLNK(state.st_mode):
        return "is a link: what it leads to is not looked after"
    if state.st_uid != os.getuid():
        return f"belongs to user {state.st_uid}, and not to who runs this (chown it)"
    mode = stat.S_IMODE(state.st_mode)
    return f"mode {mode:04o}: others may use it (take that from them by chmod)" if mode & forbidden else ""


def misuse(name: str, certificate: x509.Certificate, dns_name: str) -> str:
    """What a device's certificate says that it must not; empty if it is as it should be (RFC 5280)."""
    extensions = certificate.extensions
    try:
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return "is a CA's"
        uses = list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        alternative = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        return f"has no {error.oid._name}"
    if uses != [ExtendedKeyUsageOID.CLIENT_AUTH]:
        return f"is for {', '.join(use._name for use in uses)}"
    if list(alternative) != [x509.DNSName(dns_name)]:
        return f"is for the names {', '.join(str(entry.value) for entry in alternative)}"
    names = [attribute.value for attribute in certificate.subject]
    if names != [name] or certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME) == []:
        return f"is {certificate.subject.rfc4514_string()}'s"
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return f"lives {life.days} days" if life > LONGEST_LIFE else ""


@dataclass(frozen=True)
class LoadedList:
    """The revocation list on the gateway; `is_what_runs` where the broker noted that it read just this file."""

    path: str
    number: str
    life: Lifetime
    is_what_runs: bool


def loaded_list(live: Live) -> LoadedList:
    """Reads it there. Raises `ProbeError`."""
    asked = live.run("openssl", "crl", "-noout", "-crlnumber", "-lastupdate", "-nextupdate", "-in", LIST)
    facts = dict(line.split("=", 1) for line in str(asked.result.get("output", "")).splitlines() if "=" in line)
    if not {"lastUpdate", "nextUpdate"} <= facts.keys():
        raise ProbeError(f"{live.name}: {LIST}: {asked.result.get('error') or 'no list'}")
    begin, end = (
        datetime.strptime(facts[key], "%b %d %H:%M:%S %Y %Z").replace(tzinfo=UTC)
        for key in ("lastUpdate", "nextUpdate")
    )
    digests = str(live.run("sha256sum", LIST).result.get("output", "")).split()
    noted = str(live.run("grep", "-F", LIST, LOADED).result.get("output", "")).split()
    return LoadedList(LIST, facts.get("crlNumber", "?"), Lifetime("list", begin, end), digests[:1] == noted[:1] != [])


def care_of_list(loaded: LoadedList, now: datetime) -> str:
    """Why a revocation list needs care soon, empty where it does not. Fails where no device can connect by it."""
    life = loaded.life
    assert loaded.is_what_runs, f"{loaded.path} is not what the broker has read: deploy, or restart it"
    assert life.begin <= now < life.end, f"its list is good from {life.begin} to {life.end}: no device can connect"
    if life.left(now) >= WARN_BELOW:
        return ""
    return f"the list of revoked devices has {life.days_left(now)} days left: harden this gateway"


def care_of_authority(standing: Standing, now: datetime) -> str:
    """Why an authority needs care soon, empty where it does not. Fails where its life is over, or has not begun."""
    life, name = standing.life, f"{standing.life.name} ({standing.state})"
    assert life.begin <= now < life.end, f"{name}: good from {life.begin:%Y-%m-%d} to {life.end:%Y-%m-%d}"
    if standing.state != "issuing" or not life.needs_care(now):
        return ""
    return f"{name}: less than a third of its life is left, {life.days_left(now)} days: roll it over"


# Whose session each of the broker's connections is: what it logs when a client connects names both ends of it.
_SESSIONS = r"""
look() {{ ss -Htn state established 'sport = :{port}' | awk '{{ print "OPEN", $4 }}' | tr -d '[]'; }}
sleep {pause}
first=$(look)
sleep 1
{{ {{ echo "$first"; look; }} | sort | uniq -d
   journalctl -q -b -o cat -u {unit} --no-pager -g 'New client connected from'
}} | awk '$1 == "OPEN" {{ open[$2] = "-"; next }}
   $1 == "New" && ($5 in open) {{ open[$5] = $7 }}
   END {{ for (peer in open) print peer, open[peer] }}'
"""


@once
def sessions(live: Live) -> dict[str, str | None]:
    """The broker's open sessions, by the other end's address and port: whose each is, None where the log is younger.

    One of the suite's own is open meanwhile. Looked at twice: who connects just now has not said a name yet.
    """
    segment, address = live.broker_at[0]
    port = live.mqtts.listener.port
    server = live.broker_server(address)
    script = _SESSIONS.format(pause=PRESENT / 2, port=port, unit=UNIT)
    answers = live.ask(
        {
            segment: [plays.presence(server, live.credentials, PRESENT)],
            expect.GATEWAY: [{"kind": "run", "argv": ["sh", "-c", script]}],
        }
    )
    (told,) = answers[expect.GATEWAY]
    if told.result.get("status") != 0:
        raise ProbeError(f"{live.name}: sessions: {told.result.get('error') or told.outcome}")
    lines = [line.split() for line in str(told.result["output"]).splitlines()]
    return {peer: None if name == "-" else name for peer, name in lines}
