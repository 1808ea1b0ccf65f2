"""Enrols devices: each gets a certificate, an HMAC key of its own, an entry in the registry, and its bundle.

They are written in this order, a batch at a time: vault, bundles, registry. A device is enrolled once the registry says
so. When the writer dies before that, the next run takes up a whole bundle as it is and makes the others anew; what it
replaces had left nowhere, and the serial number of its certificate is kept so that it can be revoked with the device.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from itertools import islice
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from gatehouse.errors import GatehouseError
from gatehouse.identity import bundle as bundles
from gatehouse.identity import psk
from gatehouse.identity.authority import PkiError, read_key
from gatehouse.identity.bundle import Broker, Bundle
from gatehouse.identity.candidates import Judge, Refusal, Request, Sorted
from gatehouse.identity.files import locked
from gatehouse.identity.leaf import spki
from gatehouse.identity.passwords import raw_key
from gatehouse.identity.pins import BROKER, broker_addresses, broker_certificate, broker_host, pins_of
from gatehouse.identity.pki import Pki
from gatehouse.identity.store import SecretStore
from gatehouse.site import Device, Site
from gatehouse.site.registry_writer import Registry, facts_of
from gatehouse.updates.keys import trusted_keys

BATCH = 2000
"""Devices enrolled in one go: what a killed run does again."""
_LARGEST_BATCH = 5000

Progress = Callable[[int, int], None]
"""Told how many devices are done, of how many."""


class EnrolmentError(GatehouseError):
    """Devices that can't be enrolled: one line each. None was."""


@dataclass
class Outcome:
    """The names of the devices that were enrolled now and before, and the requests that were refused."""

    enrolled: list[str] = field(default_factory=list)
    already: list[str] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


@dataclass(frozen=True)
class _Made:
    """A device's new or found bundle; `older` are serial numbers of certificates that it replaces."""

    bundle: Bundle
    older: tuple[str, ...] = ()
    found: bool = False


def hmac_secret(name: str, number: int) -> str:
    """The name in the vault of a device's HMAC key."""
    return f"devices/{name}/hmac/{number}"


class Enroller:
    """Enrols the devices of one site; `pki` is the one in `vault`, `directory` is the site's `out/SITE`."""

    def __init__(self, site: Site, vault: SecretStore, pki: Pki, registry: Registry, directory: Path) -> None:
        self._site = site
        self._vault = vault
        self._pki = pki
        self._registry = registry
        self._directory = directory
        self._judge = Judge(site, pki.device_dns_name("")[1:])
        self._root, self._chain = pki.trust_anchor, pki.trust_chain_for_devices()
        self._firmware_keys = trusted_keys(vault)
        # the one that issues comes first; while it is rolled over, the one before it is trusted too
        self._authorities = x509.load_pem_x509_certificates(self._chain)
        self._brokers: dict[tuple[str, str], Broker] = {}

    def check(self, requests: Iterable[Request]) -> Sorted:
        """Which requests can be met, and why the others can't; changes nothing."""
        return self._judge.sort(requests, self._registry.read())

    def enrol(
        self,
        requests: Sequence[Request],
        progress: Progress = lambda done, total: None,
        keep_going: bool = False,
        partitions: bool = False,
        unread: Iterable[Refusal] = (),
    ) -> Outcome:
        """Enrol devices, with an NVS partition each if asked for; one that was enrolled before stays as it is.

        When one is refused, none is enrolled, unless `keep_going`: then the others are. `unread` are refusals that the
        caller has itself. Raises `EnrolmentError`, and what vault, bundles and registry raise: run again, it goes on.
        """
        checked = self.check(requests)
        refused = sorted([*unread, *checked.refused], key=lambda refusal: refusal.line or 0)
        if refused and not keep_going:
            lines = [str(refusal) for refusal in refused]
            if any(refusal.line for refusal in refused):
                lines.append("nothing was enrolled (mend these lines, or add --keep-going to take the others)")
            raise EnrolmentError("\n".join(lines))
        outcome = Outcome(already=checked.already, refused=refused)
        wanted = [request for request, _ in checked.wanted]
        if not wanted:
            return outcome
        bundles.prepare(self._directory, self._root, self._chain)
        # the vault is written whole each time, so the batches grow with it
        size = max(BATCH, min(_LARGEST_BATCH, len(wanted) // 20))
        remaining = iter(wanted)
        while batch := list(islice(remaining, size)):
            try:
                with locked(self._directory):
                    again = self.check(batch)  # another process may have been at it
                    self._enrol(again.wanted, partitions)
            except OSError as error:
                raise EnrolmentError(
                    f"{self._directory}: {error.strerror}; make room, or mend its owner and mode, then run this again:"
                    " it goes on from there"
                ) from None
            outcome.enrolled += [device.name for _, device in again.wanted]
            outcome.already += again.already
            outcome.refused += again.refused
            progress(len(outcome.enrolled), len(wanted))
        return outcome

    def refresh(self, name: str) -> list[str]:
        """Bring the bundle of an enrolled device up to date, such as its pins; return the names of changed files."""
        entry = self._registry.read().get(name)
        if entry is None:
            raise EnrolmentError(f"device '{name}': is not in the registry; `invoke devices` lists them")
        device = Device.model_validate(entry)
        found = bundles.read(self._directory / name)
        if found is None:
            raise EnrolmentError(f"device '{name}': no bundle in {self._directory}, and its key is kept nowhere else")
        keyed = device.authentication == "psk"
        if (found.psk is None if keyed else found.serial not in device.serials[:1]) or device.hmac_key is None:
            raise EnrolmentError(f"device '{name}': the bundle here is of an older certificate than the registry's")
        hmac_key = bytes.fromhex(self._vault.get_text(hmac_secret(name, device.hmac_key)))
        current = self._settled(found, device)
        current = replace(current, hmac_key_number=device.hmac_key, hmac_key=hmac_key)
        if keyed:
            current = replace(current, psk=psk.key_of(self._vault, name))
        changed = bundles.rewrite(self._directory, current)
        pin = current.broker.pins.backup_spki_sha256
        if device.backup_pin != pin:
            with self._registry.transaction() as registry:
                registry.change(name, backup_pin=pin)
        return changed

    def broker(self, gateway: str, authentication: str = "certificate") -> Broker:
        """Where the devices behind a gateway find their broker, and its pins."""
        if (gateway, authentication) not in self._brokers:
            server = broker_certificate(self._pki, self._site, gateway)
            pins = pins_of(self._vault, server)
            port = self._site.listener(BROKER[0], "psk" if authentication == "psk" else BROKER[1]).port
            addresses = tuple(broker_addresses(self._site, gateway))
            self._brokers[gateway, authentication] = Broker(broker_host(self._site), port, addresses, pins)
        return self._brokers[gateway, authentication]

    def _enrol(self, wanted: Sequence[tuple[Request, Device]], partitions: bool) -> None:
        left = set(os.listdir(self._directory))
        made = [self._make(request, device, device.name in left) for request, device in wanted]
        new = {each.bundle.name: each.bundle for each in made if not each.found}
        with self._vault.transaction():
            for name in self._vault.names("devices/"):
                # of a former device of that name, or a run that was killed: neither may sign for this one
                if name.split("/")[1] in new and ("/hmac/" in name or name.endswith("/psk")):
                    self._vault.delete(name)
            for name, bundle in new.items():
                self._vault.set(hmac_secret(name, bundle.hmac_key_number), bundle.hmac_key.hex(), "hmac-key")
                if bundle.psk is not None:
                    self._vault.set(psk.secret_name(name), bundle.psk.hex(), psk.KIND)
        for each in made:
            if not each.found:
                bundles.write(self._directory, each.bundle)
            if partitions:
                bundles.write_partition(self._directory / each.bundle.name)
        bundles.settle(self._directory)
        with self._registry.transaction() as registry:
            for (_, device), each in zip(wanted, made, strict=True):
                self._register(registry, device, each)

    def _make(self, request: Request, device: Device, left: bool) -> _Made:
        older: tuple[str, ...] = ()
        if left:
            place = self._directory / device.name
            found = bundles.read(place)
            if found is not None and self._is_good(found, request, device):
                return _Made(found, found=True)
            older = self._serial_in(place / "certificate.pem")
        keyed = device.authentication == "psk"
        issued = None if keyed else self._pki.device(device.name, csr=request.csr)
        bundle = Bundle(
            site=self._site.name,
            name=device.name,
            model=device.model,
            gateway=device.gateway,
            segment=device.segment,
            broker=self.broker(device.gateway, device.authentication),
            serial=f"{issued.serial:x}" if issued else "",
            not_before=issued.not_before if issued else None,
            not_after=issued.not_after if issued else None,
            spki_sha256=issued.spki_sha256 if issued else "",
            hmac_key_number=1,
            ca_pem=b"" if keyed else self._root,
            chain_pem=b"" if keyed else self._chain,
            certificate_pem=issued.chain_pem if issued else b"",
            key_pem=issued.key_pem if issued else None,
            hmac_key=raw_key(),
            psk=psk.new_key() if keyed else None,
            firmware_keys=self._firmware_keys,
        )
        return _Made(bundle, older)

    def _is_good(self, found: Bundle, request: Request, device: Device) -> bool:
        """Whether a bundle that a killed run has left is what this run would make."""
        secret = hmac_secret(found.name, found.hmac_key_number)
        if (
            found != self._settled(found, device)
            or secret not in self._vault
            or self._vault.get_text(secret) != found.hmac_key.hex()
        ):
            return False
        if device.authentication == "psk" or found.psk is not None:
            where = psk.secret_name(found.name)
            return (
                found.psk is not None
                and device.authentication == "psk"
                and where in self._vault
                and psk.key_of(self._vault, found.name) == found.psk
            )
        try:
            certificate = x509.load_pem_x509_certificate(found.certificate_pem)
            certificate.verify_directly_issued_by(self._authorities[0])
            key = device.spki_sha256 if request.csr is not None else _spki_of(found.key_pem or b"")
        except (ValueError, TypeError, InvalidSignature, PkiError):
            return False
        certified = sha256(spki(certificate.public_key())).hexdigest()
        if certificate.serial_number in self._revoked:
            return False  # of a device of that name that is gone
        return (f"{certificate.serial_number:x}", certified, key) == (found.serial, key, found.spki_sha256)

    @cached_property
    def _revoked(self) -> Collection[int]:
        return self._pki.revoked().keys()

    def _serial_in(self, path: Path) -> tuple[str, ...]:
        """The serial number of a certificate of this site's; a lab's that was built anew may lie here too."""
        with contextlib.suppress(OSError, ValueError):
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
            for authority in self._authorities:
                with contextlib.suppress(ValueError, TypeError, InvalidSignature):
                    certificate.verify_directly_issued_by(authority)
                    return (f"{certificate.serial_number:x}",)
        return ()

    def _settled(self, found: Bundle, device: Device) -> Bundle:
        """A bundle with all that the site and the registry say today; identity and keys stay."""
        return replace(
            found,
            site=self._site.name,
            name=device.name,
            model=device.model,
            gateway=device.gateway,
            segment=device.segment,
            broker=self.broker(device.gateway, device.authentication),
            ca_pem=self._root if found.psk is None else b"",
            chain_pem=self._chain if found.psk is None else b"",
            firmware_keys=self._firmware_keys,
        )

    def _register(self, registry: Registry, device: Device, made: _Made) -> None:
        bundle = made.bundle
        enrolled = device.model_copy(
            update={
                "serials": (*([bundle.serial] if bundle.serial else []), *made.older),
                "not_before": bundle.not_before,
                "not_after": bundle.not_after,
                "spki_sha256": bundle.spki_sha256 or None,
                "hmac_key": bundle.hmac_key_number,
                "backup_pin": bundle.broker.pins.backup_spki_sha256,
            }
        )
        entry = registry.entries.get(device.name)
        if entry is None:
            registry.add([enrolled])
        else:
            facts = facts_of(enrolled)
            registry.change(device.name, **{name: facts[name] for name in facts if facts[name] != entry.get(name)})


def _spki_of(key_pem: bytes) -> str:
    return sha256(spki(read_key("key.pem", key_pem).public_key())).hexdigest()
