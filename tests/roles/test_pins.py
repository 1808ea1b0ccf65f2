"""A real broker and the bundles of its devices: they connect with their own files, and know it by their pins."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from gatehouse.identity import bundle as bundles
from gatehouse.identity.bundle import Bundle
from gatehouse.identity.enrolment import Enroller, Request
from gatehouse.identity.pins import move_to_backup_key
from gatehouse.identity.pki import Pki
from gatehouse.identity.store import SecretStore
from gatehouse.site.registry_writer import Registry
from roles.target import Target
from tests.roles.broker import Broker, free_port, running


@pytest.fixture
def store() -> SecretStore:
    return SecretStore()


@pytest.fixture
def target(store: SecretStore, gateway_of: Callable[..., Target], programs: Callable[..., None]) -> Target:
    programs("mosquitto", "mosquitto")
    pki = Pki(store, "test", "test.internal", prefixes=["127.0.0.0/8"]).ensure()
    settings = {"mosquitto": {"ports": {"mqtts": free_port()}}}
    return gateway_of(iot={"ipv4": "127.0.0.1/8"}, settings=settings, pki=pki)


def enrolled(target: Target, store: SecretStore, directory: Path, name: str) -> Bundle:
    enroller = Enroller(
        target.site, store, target.pki, Registry(directory / "devices.toml"), directory / "out" / "test"
    )
    enroller.enrol([Request(name, "esp32")])
    found = bundles.read(directory / "out" / "test" / name)
    assert found is not None
    return found


def connects(broker: Broker, place: Path) -> bool:
    """Whether a client gets in that has the files of a bundle and nothing else."""
    context = ssl.create_default_context(cafile=str(place / "ca.pem"))
    context.load_cert_chain(place / "certificate.pem", place / "key.pem")
    return broker.lets_in(None, context)


def served(broker: Broker) -> x509.Certificate:
    with (
        socket.create_connection(("127.0.0.1", broker.port), 5) as plain,
        broker.context().wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")


def test_a_device_connects_with_its_bundle_and_no_other_does_with_half_of_it(target, store, tmp_path) -> None:
    bundle = enrolled(target, store, tmp_path, "kitchen-01")
    other = enrolled(target, store, tmp_path, "pump-02")
    place = tmp_path / "out" / "test" / "kitchen-01"
    with running(target) as broker:
        assert (bundle.broker.port, bundle.broker.addresses) == (broker.port, ("127.0.0.1",))
        assert connects(broker, place)
        assert connects(broker, place.parent / "pump-02")
        assert not broker.lets_in(None, ssl.create_default_context(cafile=str(place / "ca.pem")))
    assert bundle.broker == other.broker


def test_pinned_devices_follow_the_broker_to_a_new_certificate_and_to_its_backup_key(target, store, tmp_path) -> None:
    pins = enrolled(target, store, tmp_path, "kitchen-01").broker.pins
    place = tmp_path / "out" / "test" / "kitchen-01"
    with running(target) as broker:
        assert pins.fits(served(broker)) == "certificate"
    store.delete(f"server/mosquitto-{target.name}/certificate")
    with running(target) as renewed:
        assert pins.fits(served(renewed)) == "key"
        assert connects(renewed, place)
    move_to_backup_key(store, f"mosquitto-{target.name}")
    with running(target) as moved:
        assert pins.fits(served(moved)) == "backup key"
        assert connects(moved, place)
    store.delete(f"server/mosquitto-{target.name}/key")
    with running(target) as foreign:
        assert pins.fits(served(foreign)) is None, "a new key under the same CA is what a pin tells apart"
        assert connects(foreign, place), "a device that trusts the CA alone is content with it"
