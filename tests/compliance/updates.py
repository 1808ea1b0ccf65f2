"""What is asked of the update server, from a segment of its devices, and what lies on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from deploy import publishing
from gatehouse.identity import Pki
from gatehouse.identity.store import SecretStore
from gatehouse.proof.channel import ProbeError
from gatehouse.proof.credentials import KNOWN, KNOWN_MODEL, Shown
from gatehouse.proof.observation import Observation
from gatehouse.updates.manifest import Manifest, ManifestError, is_model, read
from roles.nginx.files import UNIT
from roles.target import Target
from roles.updates import files, service
from tests.compliance.live import Live
from tests.compliance.once import once

LOADED = f"/run/gatehouse/loaded/{UNIT}"
PROOF = files.PROOF.removeprefix(files.SERVED)
MISSING = f"/{KNOWN_MODEL}/missing"
FOLDERS = ("/", f"/{KNOWN_MODEL}", f"/{KNOWN_MODEL}/")
# Who is not let in at all, and who is and gets nothing.
UNPROVEN = ("none", "expired", "foreign", "server")
UNKNOWN = ("good", "revoked")
MOST = 5  # other models that are asked for: a device that asks too often has to wait
_LINE = re.compile(r'"CN=(\S+) ([0-9A-F]+)" "(\S+)";')


def target(live: Live) -> Target:
    """The gateway as its role sees it."""
    return Target(live.site, live.name, lambda: live.pki)


def others(live: Live) -> list[str]:
    """Models that the suite's certificate is not of: those with firmware here first, then those of devices."""
    found = [offer.model for offer in offers(live)]
    found += sorted({device.model for device in live.site.devices_of(live.name) if is_model(device.model)})
    return [model for model in dict.fromkeys(found) if model != KNOWN_MODEL][:MOST] or ["another-model"]


@once
def offers(live: Live) -> list[publishing.Offer]:
    """What is published, as it lies there."""
    return [publishing.offers(line) for line in _output(live, "sh", "-c", publishing.listing()).splitlines()]


def readable(offer: publishing.Offer) -> Iterator[Manifest]:
    """Its manifests, those that are one."""
    for data in offer.entries:
        with suppress(ManifestError):
            yield read(data)


@once
def seen(live: Live) -> dict[str, Observation]:
    """What becomes of each who asks, by `WHO PATH`. One after the other: a device has few connections at a time."""
    listener = live.site.listener(service.name, "updates")
    places = live.reached_at(listener)
    if not places:
        raise ProbeError(f"{live.name}: no position from which the update server is reached")
    (segment, address), *_ = places
    server = live.server(files.name(target(live)), address, listener.port)
    known = live.pki.client(KNOWN)
    # By another CA that calls itself the same, the very name and serial number that are known.
    stranger = Pki(SecretStore(), live.site.name, live.site.domain).ensure()
    stranger.revoke(known.serial)
    who = {**live.credentials, "known": Shown.of(known), "foreign": Shown.of(stranger.twin(KNOWN, known.serial))}
    asked = [("known", PROOF), *((case, PROOF) for case in (*UNPROVEN, *UNKNOWN, *live.last_revoked))]
    asked += [("known", path) for path in (MISSING, *FOLDERS)]
    asked += [("known", f"/{model}/manifest") for model in others(live)]
    asked += [("good", f"/{model}/manifest") for model in others(live)[:1]]
    found = {}
    for case, path in asked:
        shows: dict[str, Any] = {} if case == "none" else asdict(who[case])
        probe = {"id": f"updates:{case} {path}", "kind": "https", **server, **shows, "path": path}
        (found[f"{case} {path}"],) = live.ask({segment: [probe]})[segment]
    return found


Known = set[tuple[str, str, str]]


@dataclass(frozen=True)
class Devices:
    """Whose certificate is known for which model: (name, serial number, model), here and there.

    `is_what_runs` where nginx noted that it read just this file.
    """

    declared: Known
    there: Known
    is_what_runs: bool


def devices(live: Live) -> Devices:
    """Reads them. Raises `ProbeError`."""
    declared = files.models(target(live)).content.decode()
    there = _output(live, "cat", files.MODELS)
    digest = _output(live, "sha256sum", files.MODELS).split()[:1]
    noted = _output(live, "grep", "-F", files.MODELS, LOADED).split()[:1]
    return Devices(_known(declared), _known(there), digest == noted)


def _known(text: str) -> Known:
    """A line that is of another form counts as it stands: nobody who reads it knows whom it lets in."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return {found.groups() if (found := _LINE.fullmatch(line)) else (line, "", "") for line in lines}  # type: ignore[misc]


def _output(live: Live, *argv: str) -> str:
    told = live.run(*argv)
    if told.result.get("status") not in (0, 1):
        raise ProbeError(f"{live.name}: {argv[0]}: {told.result.get('error') or told.outcome}")
    return str(told.result.get("output", ""))
