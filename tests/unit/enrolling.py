"""A site with a vault, a registry and a place for bundles, all in a temporary directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gatehouse.identity import Pki, Vault, new_identity
from gatehouse.identity.enrolment import Enroller, Request
from gatehouse.site import Device, Listener, Service, Site, read_registry
from gatehouse.site.registry_writer import Registry

PREFIXES = ["10.10.10.0/24", "10.10.20.0/24", "10.20.10.0/24", "10.20.20.0/24"]


def broker() -> Service:
    listener = Listener(
        name="mqtts", port=8883, encryption="tls", authentication="certificate", reachable_from=("iot",), data="d",
        compromise="c",
    )  # fmt: skip
    return Service(name="mosquitto", title="Broker", listeners=(listener,))


def gateway(octet: int) -> dict[str, Any]:
    return {
        "networks": {
            "iot": {"interface": "eth1", "ipv4": f"10.{octet}.10.1/24"},
            "management": {"interface": "eth2", "ipv4": f"10.{octet}.20.1/24"},
            "internet": {"interface": "eth0", "ipv4": "dhcp"},
        }
    }


def a_site(gateways: int = 1, **changes: Any) -> Site:
    description: dict[str, Any] = {
        "name": "home",
        "domain": "home.arpa",
        "services": (broker(),),
        "segments": {"iot": {}, "management": {}, "internet": {}},
        "gateways": {f"gw{number}": gateway(10 * number) for number in range(1, gateways + 1)},
        "ssh": {"keys": [f"ssh-ed25519 {'A' * 68}"]},
    }
    return Site(**{**description, **changes})


@dataclass
class House:
    """Where everything of a site is."""

    root: Path
    site: Site

    @property
    def registry(self) -> Path:
        return self.root / "home.toml"

    @property
    def out(self) -> Path:
        return self.root / "out" / "home"

    def vault(self) -> Vault:
        return Vault.open(self.root / "home.age", [self.root / "identity"])

    def pki(self, vault: Vault | None = None) -> Pki:
        return Pki(vault or self.vault(), "home", "home.arpa", PREFIXES, reserved=["mosquitto"]).ensure()

    def enroller(self) -> Enroller:
        vault = self.vault()
        return Enroller(self.site, vault, self.pki(vault), Registry(self.registry), self.out)

    def devices(self) -> dict[str, Device]:
        return {entry["name"]: Device.model_validate(entry) for entry in read_registry(self.registry)}

    def enrol(self, *names: str, **options: Any) -> None:
        self.enroller().enrol([Request(name, "esp32") for name in names], **options)


def a_house(root: Path, **changes: Any) -> House:
    recipient = new_identity(root / "identity")
    Vault.create(root / "home.age", [recipient])
    house = House(root, a_site(**changes))
    house.pki()
    return house


def a_request(name: str, key: Any = None) -> bytes:
    """A certificate request as the device makes it, PEM."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signed = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(
        key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()
    )  # fmt: skip
    return signed.public_bytes(serialization.Encoding.PEM)
