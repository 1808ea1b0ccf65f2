"""A fresh machine becomes a gateway in one run, the second finds nothing to do, and no secret is told on the way."""

from __future__ import annotations

import base64
import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deploy import vaults
from gatehouse.identity.store import PUBLIC_KINDS
from tests.checkout import Checkout, Run
from tests.lab.gateways import Gateway

pytestmark = pytest.mark.timeout(900)


@dataclass
class ProcessList:
    """Samples what `ps` shows to everybody; a lab's gateways are processes of this machine too."""

    seen: set[str] = field(default_factory=set)

    @contextlib.contextmanager
    def sampled(self) -> Iterator[None]:
        """Sample for as long as the block runs."""
        ended = threading.Event()
        sampler = threading.Thread(target=self._sample, args=[ended], daemon=True)
        sampler.start()
        try:
            yield
        finally:
            ended.set()
            sampler.join()

    def _sample(self, ended: threading.Event) -> None:
        while not ended.wait(0.03):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))


@dataclass
class FirstDeploy:
    """The first deploy of a fresh gateway, told as loudly as pyinfra can, and what was to be seen meanwhile."""

    run: Run
    plan: Run
    processes: str
    seconds: float


@pytest.fixture(scope="module")
def first(lab_gateway: Gateway, here: Checkout) -> FirstDeploy:
    lab_gateway.renew()
    plan = here.pyinfra("--dry", "--diff", "-vvv", "--debug-all")
    processes = ProcessList()
    started = time.monotonic()
    with processes.sampled():
        run = here.deploy("--diff", "-vvv", "--debug-all")
    return FirstDeploy(run, plan, "\n".join(processes.seen), time.monotonic() - started)


def test_a_fresh_machine_becomes_a_gateway_in_one_run(first: FirstDeploy) -> None:
    assert first.run.status == 0, first.run.text
    print(f"first deploy: {first.seconds:.0f} s")


def test_the_second_run_plans_nothing_for_any_role(first: FirstDeploy, lab_gateway: Gateway, here: Checkout) -> None:
    lab_gateway.stays_converged()
    quiet = here.pyinfra("--dry")
    assert quiet.status == 0, quiet.text
    titles = {line.split(" | ")[0].strip() for line in first.run.err.splitlines() if " | " in line}
    assert len(titles) >= len(here.site.services), titles


def test_a_restart_brings_every_service_back_by_itself(
    first: FirstDeploy, lab_gateway: Gateway, here: Checkout
) -> None:
    import lab

    units = [unit for service in here.site.services for unit in service.units]
    assert units
    lab.restart(lab_gateway.name, lab_gateway.host)
    for unit in units:
        lab_gateway.until(f"systemctl is-active {unit}", 90)
    assert lab_gateway("systemctl --failed --no-legend").strip() == ""
    lab_gateway.stays_converged()


def fragments(secret: bytes) -> Iterator[str]:
    """Texts that give a secret away: its lines, without what every PEM file has, and those of its base64.

    What is no text gives itself away in hexadecimal and base64.
    """
    try:
        lines = [line for line in secret.decode().splitlines() if len(line) >= 20]
    except UnicodeDecodeError:
        yield secret.hex()
        yield from in_base64(secret)
        return
    public = public_part(secret)
    for line in lines:
        if not line.startswith(("-----", "#")) and not is_in(public, line):
            yield line
            yield from in_base64(line.encode())


def public_part(secret: bytes) -> bytes:
    """What everybody may know of a private key: its public key, which the key's own file repeats; else nothing."""
    if b"PRIVATE KEY-----" not in secret or b"OPENSSH" in secret:
        return b""
    key = serialization.load_pem_private_key(secret, None)
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def is_in(public: bytes, line: str) -> bool:
    """Whether a line of a PEM file says nothing but what is public: certificates have the same line then."""
    try:
        return base64.b64decode(line, validate=True) in public
    except ValueError:
        return False


def in_base64(secret: bytes) -> Iterator[str]:
    """The same bytes look different in base64 with what stands before them; the ends depend on the neighbours."""
    for shift in range(3):
        yield base64.b64encode(b"x" * shift + secret)[4:-4].decode()


@pytest.fixture(scope="module")
def secrets(first: FirstDeploy, here: Checkout) -> dict[str, list[str]]:
    """Every secret of the site by name, as the fragments that would give it away."""
    site = here.site
    vault = vaults.open_vault(site)
    private = {name: vault.about(name) for name in vault.names()}
    found = {
        name: entry.value
        for name, entry in private.items()
        if entry.kind not in PUBLIC_KINDS and b"CERTIFICATE" not in entry.value
    }
    assert site.state is not None
    found["identity of the vault"] = vaults.identity_path(site).read_bytes()
    found["operator's SSH key"] = (site.state / "id_ed25519").read_bytes()
    return {name: list(fragments(value)) for name, value in found.items()}


def test_there_are_secrets_to_look_for(secrets: dict[str, list[str]]) -> None:
    assert len(secrets) >= 5, sorted(secrets)
    assert all(secrets.values()), {name for name, parts in secrets.items() if not parts}


def test_the_search_finds_a_secret_that_is_told(secrets: dict[str, list[str]], here: Checkout) -> None:
    key = vaults.identity_path(here.site).read_bytes()
    told = base64.b64encode(b"tar" + key + b"tar").decode()
    assert any(part in told for part in secrets["identity of the vault"])
    assert any(part in key.decode() for part in secrets["identity of the vault"])


def test_the_public_half_of_a_key_is_no_secret_and_the_private_half_is() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    first, second, last = pem.decode().splitlines()[1:-1]
    parts = list(fragments(pem))
    assert first in parts
    assert second in parts
    assert last not in parts


@pytest.mark.parametrize("place", ["output", "plan", "processes", "journal", "world-readable files"])
def test_no_secret_is_told_by(
    place: str, first: FirstDeploy, secrets: dict[str, list[str]], lab_gateway: Gateway
) -> None:
    told, witness = {
        "output": lambda: (first.run.text, "mosquitto-guard"),
        "plan": lambda: (first.plan.text, "Configure mosquitto"),
        "processes": lambda: (first.processes, "apt-get"),
        "journal": lambda: (lab_gateway("journalctl --no-pager --all -o verbose"), "mosquitto"),
        "world-readable files": lambda: (
            lab_gateway(
                "find /etc /run /tmp /var/tmp /var/lib/gatehouse /usr/lib/gatehouse -xdev -type f -perm -o+r"
                " -size -200k -exec cat {} + 2>/dev/null"
            ),
            "Managed by Gatehouse",
        ),
    }[place]()
    assert witness in told, f"{place}: what was collected is not the deploy's"
    assert [name for name, parts in secrets.items() if any(part in told for part in parts)] == []
