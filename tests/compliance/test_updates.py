"""The update server: to each device the firmware of its own model, to others nothing, and nothing that was changed."""

from __future__ import annotations

import time

import pytest

from deploy import publishing
from gatehouse.proof.plugin import cannot_prove
from gatehouse.updates.manifest import ManifestError, read
from roles.updates import service
from tests.compliance import updates
from tests.compliance.updates import FOLDERS, MISSING, PROOF

MUTUAL = pytest.mark.controls(
    "OWASP-ISVS-1.0+main-2026-06:3.4.10",
    "OWASP-ISVS-1.0+main-2026-06:3.4.12",
    "EU-CRA-2024/2847:Annex I Part II (7)",
    "OWASP-IoT-Top10-2018:I4",
)
CONFINED = pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:3.4.10", "OWASP-IoT-Top10-2018:I3")
SIGNED = pytest.mark.controls(
    "ETSI-EN-303-645-v3.1.3:5.3-2",
    "ETSI-EN-303-645-v3.1.3:5.3-7",
    "NISTIR-8259A:Software Update/4",
    "EU-CRA-2024/2847:Annex I Part II (7)",
    "OWASP-IoT-Top10-2018:I4",
)


@pytest.fixture(autouse=True)
def serves_it(live):
    if not any(each.name == service.name for each in live.site.services_of(live.name)):
        cannot_prove("the site has no update server (updates=True)")


def answered(live, evidence, who, path):
    """The status of an answer; no certificate is part of the evidence."""
    seen = updates.seen(live)[f"{who} {path}"]
    status = seen.result.get("status")
    evidence({**seen.evidence(), "sent": f"GET {path}, certificate: {who}", "status": status})
    if status == 429:
        cannot_prove(f"{who}: asked too often, and is told to wait")
    return status if seen.outcome == "answered" else seen.outcome


def is_served(live, evidence):
    """The control: a certificate that is known gets what is for it, over the same path."""
    got = answered(live, evidence, "known", PROOF)
    if got != 200:
        cannot_prove(f"not even a certificate that is known gets anything: {got}")


@MUTUAL
@pytest.mark.asks("updates")
@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:2.1.3")
@pytest.mark.check("updates.mutual-tls")
def test_nobody_is_answered_without_a_certificate_of_the_site(live, evidence):
    """The server shows a certificate for its name; none at all, an expired one, a service's, another CA's with a name
    and number that are known: refused as such, where a known one is served."""
    got = answered(live, evidence, "known", PROOF)
    assert got != "distrusted", f"no device trusts it: {updates.seen(live)[f'known {PROOF}']}"
    is_served(live, evidence)
    for who in updates.UNPROVEN:
        got = answered(live, evidence, who, PROOF)
        assert got in ("alert", "cut", 400), f"certificate: {who}: {got}, and no refusal of the certificate"


@CONFINED
@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:2.1.11")
@pytest.mark.asks("updates")
@pytest.mark.check("updates.unknown")
def test_a_certificate_that_is_revoked_or_that_the_registry_does_not_know_gets_nothing(live, evidence):
    """Revoked, among them those that were last, and in order but unknown: nothing, where a known one is served."""
    is_served(live, evidence)
    asked = [(who, PROOF) for who in (*updates.UNKNOWN, *live.last_revoked)]
    for who, path in [*asked, ("good", f"/{updates.others(live)[0]}/manifest")]:
        got = answered(live, evidence, who, path)
        assert got in ("alert", "cut", 400, 403), f"certificate: {who}: {path}: {got}"


@CONFINED
@pytest.mark.asks("updates")
@pytest.mark.check("updates.own-model")
def test_a_device_is_refused_the_firmware_of_another_model(live, evidence):
    """What is for its own model it is given; of its own what is missing is called so; of another model: refused."""
    is_served(live, evidence)
    assert answered(live, evidence, "known", MISSING) == 404, "what is missing is answered like what is refused"
    for model in updates.others(live):
        got = answered(live, evidence, "known", f"/{model}/manifest")
        assert got == 403, f"firmware of {model} for a device of another model: {got}"


@pytest.mark.controls("OWASP-IoT-Top10-2018:I3", "OWASP-IoT-Top10-2018:I9", "ETSI-EN-303-645-v3.1.3:5.6-1")
@pytest.mark.asks("updates")
@pytest.mark.check("updates.no-listing")
def test_nothing_is_listed(live, evidence):
    """Neither the models nor the files of its own model, with the certificate that is given one of them by name."""
    is_served(live, evidence)
    for path in FOLDERS:
        got = answered(live, evidence, "known", path)
        assert got in (403, 404), f"{path}: {got}"


@CONFINED
@pytest.mark.controls("IEC-62443-3-3/4-2:SR/CR 1.9", "ETSI-EN-303-645-v3.1.3:5.5-8")
@pytest.mark.check("updates.devices")
def test_those_are_known_that_the_registry_has_and_with_their_models(live, evidence, warn):
    """Each certificate that is known is one of an active device and not revoked, and for that device's own model; what
    lies on the disk is what the server has read."""
    found = updates.devices(live)
    evidence({"from": "gateway", "sent": "certificates that are known", "got": f"{len(found.there)} of devices"})
    surplus = sorted(found.there - found.declared)
    assert not surplus, f"known, but not so in the registry: {' '.join(surplus[0])} (harden brings what is)"
    assert found.is_what_runs, "the list of devices is not what the server has read: harden, or reload nginx"
    if not found.there:
        cannot_prove("no certificate is known at all")
    if missing := sorted(found.declared - found.there):
        warn(f"{missing[0][0]}: gets no firmware before the next harden, and {len(missing) - 1} others")


@pytest.fixture
def offers(live):
    """What is published on the gateway."""
    found = updates.offers(live)
    if not found:
        cannot_prove("nothing is published, so no manifest and no image could be looked at (`./kit firmware.publish`)")
    return found


@SIGNED
@pytest.mark.check("updates.manifests")
def test_each_manifest_is_one_that_devices_take(live, offers, evidence):
    """By a key that devices trust, for the model that it lies with, not expired."""
    now = int(time.time())
    for offer in offers:
        assert offer.entries, f"{offer.model}: its manifest is none: publish it again"
        for data, keys in zip(offer.entries, publishing.keys_of(live.vault, offer), strict=True):
            try:
                found, wrong = read(data), publishing.faults(offer.model, data, keys, now)
            except ManifestError as error:
                pytest.fail(f"{offer.model}: its manifest is none ({error}): publish it again")
            what = f"{offer.model} {found.version}, counter {found.counter}"
            evidence({"from": "gateway", "sent": what, "got": ", ".join(wrong) or "signed, not expired"})
            assert not wrong, f"{what}: {', '.join(wrong)}: no device takes it"


@SIGNED
@pytest.mark.check("updates.images")
def test_each_image_is_what_was_signed(live, offers, evidence):
    """The SHA-256 of each image is the one in its manifest."""
    found = [(offer, manifest) for offer in offers for manifest in updates.readable(offer)]
    if not found:
        cannot_prove("no manifest says what an image must be")
    for offer, manifest in found:
        what = f"{offer.model} {manifest.version}"
        fits = publishing.has_image(offer, manifest)
        evidence({"from": "gateway", "sent": f"SHA-256 of {what}", "got": "as signed" if fits else "another one"})
        assert fits, f"{what}: its image is missing, or is not what was signed: publish it again"
