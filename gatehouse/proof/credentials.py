"""The identities that probes show to the broker: good ones, and one of each kind that must be refused.

All live for minutes and are kept nowhere, but one: a certificate that is revoked from the day it is made. It has to
be on the list that the broker has loaded, so it is made with the vault, and a deploy brings the list to the gateway.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gatehouse.identity import Credential, Pki, SecretStore
from gatehouse.identity.authority import read_certificate
from gatehouse.identity.leaf import credential

# Devices that only the suite plays, and the one who may see and command them; all begin with names.KIT_PREFIX.
PROBE = "gatehouse-probe-1"
OTHER_PROBE = "gatehouse-probe-2"
OBSERVER = "gatehouse-proof"
REVOKED = "gatehouse-probe-revoked"
# What the update server knows, beside devices: a certificate that is kept, of a model that has a proof for firmware.
KNOWN = "gatehouse-probe-known"
KNOWN_MODEL = "gatehouse-probe"
# In quarantine on every gateway, always: by its name at the broker, by its hardware address in the firewall.
CUT_OFF = "gatehouse-probe-cut-off"
CUT_OFF_HARDWARE = "02:67:61:74:65:01"

# An older list lacks what was revoked last; several, since some may have been revoked in the same second.
NEWEST = 5

_CERTIFICATE, _KEY = "probe/revoked/certificate", "probe/revoked/key"
_LIFE = timedelta(days=364)


@dataclass(frozen=True)
class Shown:
    """A credential as a probe gets it: PEM texts, on standard input only."""

    chain: str
    key: str

    @classmethod
    def of(cls, given: Credential) -> Shown:
        """The chain and the key of a credential."""
        return cls(given.chain_pem.decode(), given.private_key_pem.decode())


def keep_revoked(vault: SecretStore, pki: Pki, now: datetime | None = None) -> Credential:
    """The revoked certificate, made and revoked where the vault has none or its life is nearly over.

    To be called wherever a deploy takes the CRL from: the CRL then names it, and the next run changes nothing.
    """
    moment = now or datetime.now(UTC)
    stored = _stored(vault, pki, moment)
    if stored is not None:
        return stored
    with vault.transaction():
        stored = _stored(vault, pki, moment)
        if stored is not None:
            return stored
        made = pki.ephemeral_client(REVOKED, not_before=moment - timedelta(minutes=5), not_after=moment + _LIFE)
        pki.revoke(made.serial, "superseded", when=moment)
        vault.set(_CERTIFICATE, made.certificate_pem, "certificate")
        vault.set(_KEY, made.private_key_pem, "private-key")
        return made


def _stored(vault: SecretStore, pki: Pki, now: datetime) -> Credential | None:
    if _CERTIFICATE not in vault or _KEY not in vault:
        return None
    certificate = read_certificate(_CERTIFICATE, vault.get(_CERTIFICATE))
    found = credential(REVOKED, certificate, vault.get(_KEY))
    # one of an authority that was dropped would be refused for that, and prove nothing about the list
    return None if found.due(now) or not pki.is_of_a_device(certificate) else found


def shown(vault: SecretStore, pki: Pki, site_name: str, domain: str) -> dict[str, Shown]:
    """What probes show, by name; each has a name of its own, since two with one name would end each other's sessions.

    In order: `good`, `other`, `observer`, `victim` and `thief`, `liar`, `excess`, and `stranger`, whose name has no
    rights. To be refused: `expired`; `revoked`; `foreign`, from another CA that calls itself like this site's;
    `server`, which this site issues for a service; `last-1` and on, with the serial numbers that were revoked last.
    `cut-off` is always in quarantine. `loopback` is a server's that probes try their own TLS with.
    """
    now = datetime.now(UTC)
    foreign = Pki(SecretStore(), site_name, domain).ensure()
    begun, over = now - timedelta(days=2), now - timedelta(days=1)
    made = {
        "good": pki.ephemeral_client(PROBE),
        "other": pki.ephemeral_client(OTHER_PROBE),
        "observer": pki.ephemeral_client(OBSERVER),
        "stranger": pki.ephemeral_client("admin"),
        "expired": pki.ephemeral_client(f"{PROBE}-expired", not_before=begun, not_after=over),
        "revoked": keep_revoked(vault, pki),
        "foreign": foreign.ephemeral_client(f"{PROBE}-foreign"),
        "server": pki.ephemeral_server(f"{PROBE}-server"),
        "loopback": pki.ephemeral_server("loopback"),
        "cut-off": pki.ephemeral_client(CUT_OFF),
    }
    for number, serial in enumerate(newest_revoked(pki), start=1):
        made[f"last-{number}"] = pki.twin(f"{PROBE}-last-{number}", serial)
    made |= {name: pki.ephemeral_client(f"{PROBE}-{name}") for name in ("liar", "excess")}
    made |= {f"takeover-{name}": pki.ephemeral_client(f"{PROBE}-{name}") for name in ("victim", "thief")}
    return {name: Shown.of(given) for name, given in made.items()}


def newest_revoked(pki: Pki) -> list[int]:
    """The serial numbers that were revoked last, up to `NEWEST`, the newest first."""
    found = sorted(pki.revoked().values(), key=lambda revocation: (revocation.when, revocation.serial), reverse=True)
    return [revocation.serial for revocation in found[:NEWEST]]


def foreign_anchor(site_name: str, domain: str) -> str:
    """The root certificate of another CA that calls itself like this site's, PEM."""
    return Pki(SecretStore(), site_name, domain).ensure().trust_anchor.decode()
