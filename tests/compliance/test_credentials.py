"""The site's secrets: none is older than its service declares, and no replacement was left half-way."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from deploy import vaults
from gatehouse.identity import ages, strength
from gatehouse.proof.plugin import cannot_prove


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.1-4", "ETSI-EN-303-645-v3.1.3:5.5-8")
@pytest.mark.check("credentials.fresh")
def test_no_secret_is_overdue_and_none_is_replaced_half_way(site, evidence, warn):
    """By the vault: each declared secret was replaced in time, and what was begun was ended within two weeks."""
    now = datetime.now(UTC)
    found = ages.ages(site, vaults.open_vault(site))
    if not found:
        cannot_prove("the vault has none of the secrets that services declare")
    oldest = min(found, key=lambda age: age.due)
    evidence({"from": "vault", "sent": f"ages of {len(found)} secrets", "got": f"next: {oldest.name}, {oldest.due:%F}"})
    wrong = {name: [age for age in found if age.state(now) == name] for name in ("overdue", "unfinished", "due")}
    for age in wrong["overdue"]:
        pytest.fail(f"{age.name}: was to be replaced by {age.due:%Y-%m-%d} (`./kit {age.secret.replaced_by}`)")
    for age in wrong["unfinished"]:
        pytest.fail(f"{age.name}: its replacement was begun on {age.begun:%Y-%m-%d} and not ended (`./kit rotate`)")
    if wrong["due"]:
        first = min(wrong["due"], key=lambda age: age.due)
        warn(f"{len(wrong['due'])} secrets are due, '{first.name}' since {first.due:%Y-%m-%d}: replace them")


@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:2.1.7", "ETSI-EN-303-645-v3.1.3:5.1-1")
@pytest.mark.check("credentials.strong")
def test_no_secret_that_a_device_or_a_program_shows_can_be_guessed(site, evidence):
    """By the vault: each declared password and key is so long, of so many kinds of characters, that nobody tries it."""
    vault = vaults.open_vault(site)
    found = [age for age in ages.ages(site, vault) if age.secret.kind in ("password", "key")]
    if not found:
        cannot_prove("the vault has no passwords and keys that services declare")
    weakest = ("none", float("inf"))
    for age in found:
        for name in [age.name] if age.name in vault else vault.names(f"{age.name}/"):
            bits = strength.bits(vault.about(name).value)
            weakest = min(weakest, (name, bits), key=lambda each: each[1])
            assert bits >= strength.LEAST, f"{name}: as hard to guess as {bits:.0f} bits, at least {strength.LEAST}"
    got = f"the weakest: {weakest[0]}, {weakest[1]:.0f} bits"
    evidence({"from": "vault", "sent": f"strength of {len(found)} passwords and keys", "got": got})
