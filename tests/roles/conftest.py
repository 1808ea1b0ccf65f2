"""What every test of a role needs: the real programs, and a gateway of a small site to render for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gatehouse.identity.pki import Pki
from gatehouse.identity.store import SecretStore
from gatehouse.site import Site
from roles import declared
from roles.target import Target
from tests.roles import debian


@pytest.fixture(scope="session")
def programs() -> Callable[..., None]:
    """`programs("nft", "nftables")`: makes sure that a program is here, from that Debian package; starts no service."""

    def ensure(program: str, package: str) -> None:
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        if shutil.which(program, path=path):
            return
        failed = debian.install(package)
        assert shutil.which(program, path=path), failed or f"{package}: there is no {program} in it"

    return ensure


@pytest.fixture(autouse=True, scope="session")
def _system_programs() -> Iterator[None]:
    """Debian's daemons are in /usr/sbin, which an ordinary user's PATH lacks."""
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{before}:/usr/sbin:/sbin"
    yield
    os.environ["PATH"] = before


@pytest.fixture(scope="session")
def new_pki() -> Callable[[], Pki]:
    """Makes a PKI in memory, for addresses of this machine and of the small site."""
    return lambda: Pki(
        SecretStore(), "test", "test.internal", prefixes=["10.0.0.0/8", "fd10::/16", "127.0.0.0/8", "::1/128"]
    ).ensure()


@pytest.fixture(scope="session")
def gateway_of(new_pki: Callable[[], Pki]) -> Callable[..., Target]:
    """`gateway_of(iot={"ipv4": …}, broker={…}, …)`: the target `gw` of a small site with every declared service.

    `iot` replaces the addresses of that segment, `pki` the PKI; other arguments are the site's.
    """
    shared = new_pki()

    def make(iot: dict[str, str] | None = None, pki: Pki | None = None, **changes: Any) -> Target:
        addresses = iot or {"ipv4": "10.10.10.1/24", "ipv6": "fd10:10:10::1/64"}
        site = {
            "name": "test",
            "domain": "test.internal",
            "services": declared(),
            "ssh": {"keys": ["ssh-ed25519 " + "A" * 68]},
            "segments": {
                "iot": {"vlan": 10},
                "management": {"vlan": 20, "reaches": ["internet"]},
                "guest": {"vlan": 30, "reaches": ["internet"]},
                "internal": {},
                "internet": {},
            },
            "gateways": {
                "gw": {
                    "resolvers": ["192.0.2.53"],
                    "networks": {
                        "iot": {"interface": "eth1", **addresses},
                        "management": {"interface": "eth2", "ipv4": "10.10.20.1/24"},
                        "guest": {"interface": "eth3", "ipv4": "10.10.30.1/24", "ipv6": "fd10:10:30::1/64"},
                        "internet": {"interface": "eth0", "ipv4": "dhcp"},
                    },
                }
            },
            **changes,
        }
        return Target(Site(**site), "gw", lambda: pki or shared)

    return make
