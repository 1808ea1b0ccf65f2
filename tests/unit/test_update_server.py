"""Whom the update server knows: by the certificates of active devices, as the registry has them when it is told."""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy import devices, renewals, vaults
from gatehouse.site import Device, Site
from gatehouse.site.registry_writer import Registry
from roles.mosquitto import files as mosquitto
from roles.target import Target
from roles.updates import files, service
from tests.unit.enrolling import House, a_house, a_site


@dataclass
class Gateway:
    """What it was sent: scripts, and files by path."""

    scripts: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)

    def run(self, script: str, stdin: str = "") -> str:
        """As `Remote.run`."""
        self.scripts.append(script)
        if script == mosquitto.EXCHANGE:
            return "{}"
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(stdin))) as archive:
            for member in archive.getmembers():
                sent = archive.extractfile(member)
                self.files[f"/{member.name}"] = sent.read() if sent else b""
        return ""


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = a_house(tmp_path)
    made.enrol("one", "two")
    return made


def site_of(house: House, **changes: Device) -> Site:
    known = {**house.devices(), **changes}
    return a_site(2, services=(*house.site.services, service), updates=True, devices=tuple(known.values()))


def known(house: House, site: Site) -> str:
    return files.models(Target(site, "gw1", house.pki)).content.decode()


def test_only_active_devices_with_a_model_that_can_have_firmware_are_known(house: House) -> None:
    one, two = house.devices().values()
    assert known(house, site_of(house)).count('"esp32";') == 2
    for change in ({"status": "revoked"}, {"status": "quarantined"}, {"model": 'x" "esp32'}, {"serials": ()}):
        text = known(house, site_of(house, one=one.model_copy(update=change)))
        assert '"CN=one ' not in text and '"CN=two ' in text, change
    assert '"CN=two ' not in known(house, site_of(house, two=two.model_copy(update={"gateway": "gw2"})))


def test_a_serial_number_is_written_as_nginx_shows_it_and_a_revoked_one_is_not_written(house: House) -> None:
    one = house.devices()["one"].model_copy(update={"serials": ("abc", "1f")})
    text = known(house, site_of(house, one=one))
    assert '"CN=one 0ABC" "esp32";' in text and '"CN=one 1F" "esp32";' in text
    house.pki().revoke(0xABC)
    assert "0ABC" not in known(house, site_of(house, one=one))


def test_the_server_hears_of_it_and_reads_it_anew_and_a_gateway_without_one_is_left_alone(house: House) -> None:
    gateway = Gateway()
    site = site_of(house)
    devices.update_updates(gateway, Target(site, "gw1", house.pki))  # type: ignore[arg-type]
    assert list(gateway.files) == [files.MODELS]
    assert gateway.scripts[-1].endswith(files.RELOAD)
    none = a_site(devices=site.devices)
    devices.update_updates(gateway, Target(none, "gw1", house.pki))  # type: ignore[arg-type]
    assert len(gateway.scripts) == 1


def test_a_renewal_tells_the_server_of_certificates_that_the_site_was_loaded_without(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, site = Gateway(), site_of(house)

    @contextmanager
    def connected(_: Site, __: str) -> Iterator[Gateway]:
        yield gateway

    monkeypatch.setattr(renewals, "connected", connected)
    monkeypatch.setattr(vaults, "open_pki", lambda _: house.pki())
    monkeypatch.setattr(vaults, "registry_path", lambda _: house.registry)
    with Registry(house.registry).transaction() as registry:
        registry.change("one", serials=["abcd", *site.devices[0].serials])
    renewals.renew(site, [])
    text = gateway.files[files.MODELS].decode()
    assert '"CN=one ABCD" "esp32";' in text
    assert text.count('"CN=one ') == 2
    assert '"CN=two ' in text
