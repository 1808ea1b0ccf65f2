"""The identities of devices: their certificates and keys, the list of those that are revoked, who is connected."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from hashlib import sha256

import pytest

from deploy import vaults
from gatehouse.identity.authority import read_certificate
from gatehouse.identity.leaf import LONGEST_LIFE
from gatehouse.identity.lifetimes import Lifetime
from gatehouse.identity.names import KIT_PREFIX
from gatehouse.identity.pins import broker_certificate, pins_of
from gatehouse.proof.plugin import cannot_prove
from tests.compliance import identities
from tests.compliance.identities import Bundles, key_digest

UNIQUE = pytest.mark.controls(
    "ETSI-EN-303-645-v3.1.3:5.4-4",
    "OWASP-ISVS-1.0+main-2026-06:2.1.10",
    "OWASP-ISVS-1.0+main-2026-06:2.4.1",
    "NISTIR-8259A:Device Identification/1",
)
REVOCATION = pytest.mark.controls(
    "OWASP-ISVS-1.0+main-2026-06:2.1.11", "IEC-62443-3-3/4-2:SR/CR 1.9", "ETSI-EN-303-645-v3.1.3:5.5-8"
)
PKI = pytest.mark.controls("IEC-62443-3-3/4-2:SR/CR 1.8")


@pytest.fixture(scope="session")
def vault(site):
    return vaults.open_vault(site)


@pytest.fixture(scope="session")
def pki(site, vault):
    return vaults.open_pki(site, vault)


@pytest.fixture(scope="session")
def bundles(site):
    return Bundles(site)


@pytest.fixture(scope="session")
def enrolled(site):
    """The devices with a certificate."""
    return [device for device in site.devices if device.serials]


# the registry, and what was issued


@PKI
@pytest.mark.check("identities.valid")
def test_every_devices_certificate_is_valid_and_lives_for_a_year_at_most(enrolled, pki, evidence, warn):
    """In the registry: each certificate's life has begun, is not over, is a year at most; only revoked ones are listed
    as such."""
    if not enrolled:
        cannot_prove("no device has been enrolled")
    now, revoked, old = datetime.now(UTC), pki.revoked(), []
    for device in enrolled:
        listed = [serial for serial in device.serials if int(serial, 16) in revoked]
        if device.status == "revoked":
            assert len(listed) == len(device.serials), f"{device.name}: revoked, and a certificate of it is not"
            continue
        assert device.serials[0] not in listed, f"{device.name}: {device.status}, and its certificate is revoked"
        assert device.not_before and device.not_after, f"{device.name}: the registry has no dates of its certificate"
        life = Lifetime(device.name, device.not_before, device.not_after)
        assert life.end - life.begin <= LONGEST_LIFE, f"{device.name}: its certificate lives {life.end - life.begin}"
        assert life.begin <= now, f"{device.name}: its certificate is not valid before {life.begin:%Y-%m-%d}"
        assert now < life.end, f"{device.name}: its certificate was valid until {life.end:%Y-%m-%d}"
        old += [life] if life.needs_care(now) else []
    evidence({"from": "registry", "sent": "certificates", "got": f"{len(enrolled)} devices, {len(old)} to be renewed"})
    if old:
        first = min(old, key=lambda life: life.end)
        warn(f"{len(old)} certificates have less than a third of their life left, '{first.name}' {first.days_left(now)}"
             " days: renew them")  # fmt: skip


@PKI
@pytest.mark.check("identities.usage")
def test_every_certificate_that_lies_here_is_a_devices_and_nothing_else(bundles, enrolled, pki, evidence):
    """Each bundle's certificate is what the registry says, of a device, for being a client only, for a year at most."""
    known = {device.name: device for device in enrolled}
    looked_at = 0
    for name, certificate in bundles.certificates():
        if name not in known or f"{certificate.serial_number:x}" not in known[name].serials:
            continue
        looked_at += 1
        wrong = identities.misuse(name, certificate, pki.device_dns_name(name))
        assert not wrong, f"{bundles.shown(name)}: its certificate {wrong}"
        assert pki.is_of_a_device(certificate), f"{bundles.shown(name)}: no devices CA of this site has signed it"
        if f"{certificate.serial_number:x}" == known[name].serials[0]:
            noted = known[name].spki_sha256
            assert key_digest(certificate) == noted, f"{bundles.shown(name)}: another key than the registry says"
    evidence({"from": bundles.shown(), "sent": "certificates", "got": f"{looked_at} of {len(enrolled)} devices"})
    if not looked_at:
        cannot_prove("no bundle is left here, so no certificate can be looked at")


@UNIQUE
@pytest.mark.controls("ENISA-IoT-Baseline-2017:GP-TM-49", "OWASP-ISVS-1.0+main-2026-06:2.1.1")
@pytest.mark.check("identities.unique")
def test_no_two_devices_share_a_key(enrolled, vault, bundles, evidence):
    """No key is two devices': not in the registry, not in the bundles, not those that sign messages."""
    if not enrolled:
        cannot_prove("no device has been enrolled")
    holders = defaultdict(set)
    for device in enrolled:
        if device.spki_sha256:
            holders[f"key {device.spki_sha256[:16]}…"].add(device.name)
        for serial in device.serials:
            holders[f"serial number {serial}"].add(device.name)
    for name, certificate in bundles.certificates():
        holders[f"key {key_digest(certificate)[:16]}…"].add(name)
    hmac = [name for name in vault.names("devices/") if "/hmac/" in name]
    for name in hmac:
        digest = sha256(vault.get(name)).hexdigest()
        holders[f"HMAC key with digest {digest[:8]}…"].add(name.split("/")[1])
    evidence(
        {"from": "registry", "sent": "keys", "got": f"{len(enrolled)} devices, {len(hmac)} HMAC keys in the vault"}
    )
    shared = {what: sorted(names) for what, names in holders.items() if len(names) > 1}
    assert not shared, f"{', '.join(next(iter(shared.values())))} share {next(iter(shared))}"


@PKI
@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.5-8")
@pytest.mark.check("identities.authorities")
def test_every_authority_is_good_and_will_be_for_some_time(pki, evidence, warn):
    """No certification authority's life is over, or has not begun."""
    now = datetime.now(UTC)
    for standing in pki.standings():
        if " CA" not in standing.life.name or standing.life.name.startswith("revocation"):
            continue
        life, name = standing.life, f"{standing.life.name} ({standing.state})"
        evidence({"from": "vault", "sent": name, "got": f"until {life.end:%Y-%m-%d}, {life.left(now):.0%} left"})
        if care := identities.care_of_authority(standing, now):
            warn(care)


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.4-1", "ETSI-EN-303-645-v3.1.3:5.5-8")
@pytest.mark.check("identities.files")
def test_nobody_else_on_this_machine_can_read_the_sites_keys(site, bundles, evidence):
    """On the operator's side: the vault, its key, and devices' bundles are their owner's alone, and that is who runs
    this."""
    looked_at = 0
    secret = [(path, 0o077) for path in (*identities.secret_files(site), *bundles.files())]
    for path, forbidden in [*secret, *((path, 0o022) for path in identities.vault_files(site))]:
        looked_at += 1
        wrong = identities.exposure(path, forbidden)
        assert not wrong, f"{path}: {wrong}"
    evidence({"from": "operator", "sent": "modes and owners", "got": f"{looked_at} files and directories"})
    assert looked_at, "no file with a key was found, not even the vault"


# what the gateway makes of it


@pytest.fixture
def admits(live):
    """The broker's good session: nothing that is refused proves anything without it."""
    if live.exposed is None:
        cannot_prove("this gateway goes without a broker for devices")
    _, address = live.broker_at[0]
    good = live.broker[f"broker:good@{address}"]
    step = good.result["steps"][0]
    if step["outcome"] != "accepted":
        cannot_prove(f"not even a good certificate is taken: {step['outcome']}")
    return good


@REVOCATION
@pytest.mark.asks("broker")
@pytest.mark.check("broker.revocation-list")
def test_the_list_that_the_broker_has_loaded_names_everything_and_lasts(live, admits, evidence, warn):
    """What was revoked last of all is refused: the list that the broker has loaded is the current one, and it lasts."""
    assert live.last_revoked, "nothing is revoked, not even the certificate that is made for that"
    for name in live.last_revoked:
        seen = live.broker[f"broker:{name}"]
        step = seen.result["steps"][0]
        outcome = f"{step['outcome']} {step.get('reason', '')}".strip()
        sent = f"a certificate with a serial number revoked lately ({name})"
        evidence({"from": seen.position, "to": seen.target, "sent": sent, "got": outcome})
        assert step["outcome"] != "accepted", "what was revoked last is let in: an older list is loaded"
    loaded = identities.loaded_list(live)
    life, now = loaded.life, datetime.now(UTC)
    got = f"number {loaded.number}, until {life.end:%Y-%m-%d}, {life.left(now):.0%} left"
    evidence({"from": "gateway", "sent": f"openssl crl {loaded.path}", "got": got})
    if care := identities.care_of_list(loaded, now):
        warn(care)


@REVOCATION
@pytest.mark.asks("broker", "sessions")
@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:1.5.3")
@pytest.mark.check("broker.sessions")
def test_nobody_is_connected_who_is_revoked_or_whom_the_registry_does_not_know(live, admits, site, evidence):
    """Each session that is open now is of a device that may have one: none of a revoked one was left, none is of a
    stranger."""
    status = {device.name: device.status for device in site.devices}
    found = identities.sessions(live)
    ours = [name for name in found.values() if name is not None and name.startswith(KIT_PREFIX)]
    evidence({"from": "gateway", "sent": "ss, and the broker's log", "got": f"{len(found)} sessions"})
    unknown = 0
    for peer, name in found.items():
        if name is None:
            unknown += 1
        elif not name.startswith(KIT_PREFIX):
            assert name in status, f"'{name}' is connected from {peer}, and no device of the registry"
            assert status[name] != "revoked", f"'{name}' is revoked, and connected from {peer}"
    if not ours:
        cannot_prove("not even the suite's own session was found")
    if unknown:
        cannot_prove(f"{unknown} of {len(found)} sessions are older than the log, so whose they are is not known")


@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:4.1.3", "ETSI-EN-303-645-v3.1.3:5.4-4")
@pytest.mark.asks("broker")
@pytest.mark.check("broker.pinned")
def test_the_certificate_that_is_served_is_one_that_devices_have_pinned(live, admits, vault, bundles, evidence):
    """The served certificate lives for a year at most, and fits the pins of every bundle: no device is locked out."""
    served = live.broker["broker:tls 1.3"]
    if "certificate" not in served.result:
        cannot_prove(f"no certificate was served: {served}")
    certificate = read_certificate("served", served.result["certificate"].encode())
    evidence({"from": served.position, "to": served.target, "got": f"key {key_digest(certificate)}"})
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert life <= LONGEST_LIFE, f"the served certificate lives {life.days} days"
    current = pins_of(vault, broker_certificate(live.pki, live.site, live.name))
    assert current.fits(certificate), "the served key is neither the broker's in the vault nor its backup key"
    fitting = 0
    for name, pins in bundles.pins(live.name):
        assert pins.fits(certificate), f"{name}: its bundle pins other keys, it would refuse the broker"
        fitting += 1
    evidence({"from": bundles.shown(), "sent": "pins", "got": f"{fitting} bundles fit"})
