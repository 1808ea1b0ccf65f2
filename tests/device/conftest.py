"""The C library, built once with the sanitizers, and what its tests talk to: a PKI, a signing desk, a real broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy import tools
from gatehouse.identity.pki import Pki
from gatehouse.identity.store import SecretStore
from roles.target import Target
from tests.device.bench import Bench, Binaries, built
from tests.roles.broker import Broker, free_port, running
from tests.roles.conftest import _system_programs, gateway_of, new_pki, programs

__all__ = ["_system_programs", "gateway_of", "new_pki", "programs"]


@pytest.fixture(scope="session")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Binaries:
    """Compiled with every warning as an error, with AddressSanitizer and UndefinedBehaviorSanitizer."""
    tools.ensure(print, tools.COMPILER)
    return built(tmp_path_factory.mktemp("device"))


@pytest.fixture(scope="session")
def broker(gateway_of: Callable[..., Target], programs: Callable[..., None]) -> Iterator[Broker]:
    """A real one, as the role renders it for a site that allows TLS 1.2: Debian 12's mbedTLS has no 1.3."""
    programs("mosquitto", "mosquitto")
    pki = Pki(SecretStore(), "test", "test.internal", prefixes=["127.0.0.0/8"]).ensure()
    settings = {"mosquitto": {"ports": {"mqtts": free_port()}}}
    target = gateway_of(iot={"ipv4": "127.0.0.1/8"}, settings=settings, pki=pki, broker={"tls": "1.2"})
    with running(target) as broker:
        yield broker


@pytest.fixture
def bench(binaries: Binaries, broker: Broker, tmp_path: Path) -> Iterator[Bench]:
    """A signing desk with keys of its own, an update server, and devices."""
    with Bench(binaries, broker, tmp_path) as bench:
        yield bench
