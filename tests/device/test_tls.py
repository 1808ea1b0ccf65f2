"""How a device knows its broker: by its CA, or by the CA and a pinned key, with a real broker whose key changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gatehouse.identity.pins import broker_certificate, move_to_backup_key, pins_of
from gatehouse.identity.pki import Pki
from gatehouse.identity.store import SecretStore
from roles.target import Target
from tests.device.bench import Bench, Binaries
from tests.roles.broker import Broker, free_port, running


@pytest.fixture
def target(gateway_of: Callable[..., Target], programs: Callable[..., None]) -> Target:
    programs("mosquitto", "mosquitto")
    pki = Pki(SecretStore(), "test", "test.internal", prefixes=["127.0.0.0/8"]).ensure()
    settings = {"mosquitto": {"ports": {"mqtts": free_port()}}}
    return gateway_of(iot={"ipv4": "127.0.0.1/8"}, settings=settings, pki=pki, broker={"tls": "1.2"})


def reaches(bench: Bench, broker: Broker, **how: str) -> str:
    device = bench.device(f"pump-{len(list(bench.place.iterdir()))}")
    device.configure(broker_port=broker.port, **how)
    return device.start().broker


def test_a_renewed_certificate_is_known_by_its_key_and_a_key_changed_under_the_same_ca_by_the_backup_pin(
    binaries: Binaries, target: Target, tmp_path: Path
) -> None:
    store = target.pki.vault
    server = broker_certificate(target.pki, target.site, "gw")
    pins = pins_of(store, server)
    ways = {
        "the CA alone": {},
        "the key": {"pins": pins.spki_sha256},
        "the key and the backup key": {"pins": pins.spki_sha256 + pins.backup_spki_sha256},
        "another key": {"pins": "00" * 32},
        "the certificate": {"certificate_pin": pins.certificate_sha256},
        "another certificate": {"certificate_pin": "00" * 32},
    }

    def known(when: str) -> dict[str, str]:
        (tmp_path / when).mkdir()
        with running(target) as broker, Bench(binaries, broker, tmp_path / when) as bench:
            return {way: reaches(bench, broker, **how) for way, how in ways.items()}

    first = known("before")
    assert first == {way: "not-trusted" if way.startswith("another") else "ok" for way in ways}
    with store.transaction():
        store.delete(f"server/{server.name}/certificate")  # the next one is for the same key
    assert known("renewed") == {**first, "the certificate": "not-trusted"}
    move_to_backup_key(store, server.name)
    assert known("moved") == {**first, "the certificate": "not-trusted", "the key": "not-trusted"}


def test_the_ca_counts_even_for_a_pinned_key_and_so_does_the_name(bench: Bench) -> None:
    broker = bench.broker
    pins = pins_of(broker.target.pki.vault, broker_certificate(broker.target.pki, broker.target.site, "gw"))
    device = bench.device()
    device.configure(pins=pins.spki_sha256)
    assert device.start().broker == "ok"
    other = Pki(SecretStore(), "test", "test.internal", prefixes=["127.0.0.0/8"]).ensure()
    (device.place / "ca.pem").write_bytes(other.trust_anchor)
    assert device.start().broker == "not-trusted"
    (device.place / "ca.pem").write_bytes(broker.target.pki.trust_anchor)
    device.configure(broker="another.test.internal")
    assert device.start().broker == "not-trusted"


def test_an_identity_that_can_t_be_read_is_said_to_be_so(bench: Bench) -> None:
    device = bench.device()
    (device.place / "key.pem").write_text("no key")
    assert device.start().broker == "bad-identity"
