"""A new issuing authority beside the old one: devices move when they can, and none is shut out before it has moved."""

from __future__ import annotations

import datetime
import functools
import os
import signal
import socket
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from gatehouse.identity import files
from gatehouse.identity.leaf import Credential
from gatehouse.identity.pki import Pki, PkiError
from gatehouse.identity.store import SecretStore, VaultError
from gatehouse.identity.vault import Vault, new_identity
from gatehouse.proof.credentials import keep_revoked

NOW = datetime.datetime(2025, 6, 1, 12, 0, 0, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
PREFIXES = ["127.0.0.0/8"]


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime.datetime:
        return self.now


@dataclass
class Device:
    """What the registry says of a device."""

    name: str
    serials: tuple[str, ...] = ("1",)
    status: str = "active"
    not_before: datetime.datetime | None = None
    not_after: datetime.datetime | None = None

    @classmethod
    def of(cls, *credentials: Credential) -> Device:
        newest = credentials[0]
        serials = tuple(f"{credential.serial:x}" for credential in credentials)
        return cls(newest.name, serials, "active", newest.not_before, newest.not_after)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> SecretStore:
    return SecretStore()


@pytest.fixture
def pki(store: SecretStore, clock: Clock) -> Pki:
    return Pki(store, "home", "home.arpa", PREFIXES, clock=clock).ensure()


def certificates(pem: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem)


def issuer_of(credential: Credential) -> str:
    return x509.load_pem_x509_certificate(credential.certificate_pem).issuer.rfc4514_string()


def crls(pem: bytes) -> list[x509.CertificateRevocationList]:
    mark = b"-----BEGIN X509 CRL-----"
    return [x509.load_pem_x509_crl(mark + part) for part in pem.split(mark)[1:]]


# the steps


def test_the_next_authority_is_trusted_before_it_issues_anything(pki):
    rollover = pki.rollover("devices")
    old = rollover.issuing
    new = rollover.prepare()
    assert (rollover.issuing, rollover.coming, rollover.former) == (old, new, [])
    assert old in issuer_of(pki.device("a1"))
    names = [certificate.subject.rfc4514_string() for certificate in certificates(pki.trust_chain_for_devices())]
    assert [old in names[0], new in names[1], "root CA" in names[2], len(names)] == [True, True, True, 3]
    assert [crl.issuer.rfc4514_string() for crl in crls(pki.crl())] == names[:2]


def test_after_the_switch_it_issues_and_the_old_one_is_still_trusted(pki):
    rollover = pki.rollover("devices")
    old, new = rollover.issuing, rollover.prepare()
    assert rollover.switch()
    assert (rollover.issuing, rollover.coming, rollover.former) == (new, None, [old])
    assert new in issuer_of(pki.device("a1"))
    assert len(certificates(pki.trust_chain_for_devices())) == 3
    assert len(crls(pki.crl())) == 2


def test_after_the_drop_nothing_of_the_old_one_is_left(pki, store):
    rollover = pki.rollover("devices")
    old = rollover.issuing
    before = store.names()
    rollover.prepare()
    rollover.switch()
    pki.crl()
    assert rollover.drop() == [old]
    assert store.names() == [
        *before[: before.index("pki/devices/key")],
        "pki/devices/crl",
        *before[before.index("pki/devices/key") :],
    ]
    assert len(certificates(pki.trust_chain_for_devices())) == 2
    assert len(crls(pki.crl())) == 1
    assert old.encode() not in pki.trust_chain_for_devices()


def test_each_step_done_again_changes_nothing(pki, store):
    rollover = pki.rollover("devices")

    def twice(step):
        first = step()
        before = {name: store.about(name) for name in store.names()}
        second = step()
        assert {name: store.about(name) for name in store.names()} == before
        return first, second

    first, second = twice(rollover.prepare)
    assert first == second
    assert twice(rollover.switch) == (True, False)
    first, second = twice(rollover.drop)
    assert (len(first), second) == (1, [])


def test_a_switch_without_preparation_changes_nothing(pki):
    rollover = pki.rollover("devices")
    issuing = rollover.issuing
    assert not rollover.switch()
    assert (rollover.issuing, rollover.former) == (issuing, [])


def test_there_is_no_roll_over_of_the_root_or_of_nothing(pki):
    with pytest.raises(PkiError, match="a new root is a new identity for every device"):
        pki.rollover("root")
    with pytest.raises(PkiError, match="use services or devices"):
        pki.rollover("device")


def test_two_roll_overs_at_once_keep_all_three_trusted(pki, clock):
    rollover, identifiers = pki.rollover("devices"), []
    for _ in range(2):
        identifiers.append(rollover.issuing)
        rollover.prepare()
        rollover.switch()
        clock.now += DAY
    assert rollover.former == identifiers[::-1]
    assert len(certificates(pki.trust_chain_for_devices())) == 4
    assert len(crls(pki.crl())) == 3


def test_no_step_shows_an_authoritys_key(pki, store):
    rollover = pki.rollover("devices")
    rollover.prepare()
    rollover.switch()
    rollover.prepare()
    places = [name for name in store.names("pki/") if name.endswith("/key")]
    assert {f"pki/devices/former/{rollover.former[0]}/key", "pki/devices/coming/key"} < set(places)
    for name in places:
        with pytest.raises(VaultError, match="authority's private key"):
            store.get(name)


# revocation during the overlap


def test_a_revoked_certificate_of_either_authority_is_on_every_list(pki):
    old = pki.device("a1")
    rollover = pki.rollover("devices")
    rollover.prepare()
    rollover.switch()
    new = pki.device("a2")
    pki.revoke_all([old.serial, new.serial])
    for crl in crls(pki.crl()):
        assert {entry.serial_number for entry in crl} == {old.serial, new.serial}


def test_lists_are_signed_again_only_when_they_must_be(pki, clock):
    pki.crl()
    clock.now += 30 * DAY
    rollover = pki.rollover("devices")
    rollover.prepare()
    rollover.switch()
    first = pki.crl()
    assert pki.crl() == first
    numbers = [crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for crl in crls(first)]
    clock.now += 31 * DAY  # a third of the old one's is over, not of the new one's
    second = pki.crl()
    again = [crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for crl in crls(second)]
    assert (numbers, again) == ([1, 1], [1, 2])


# who needs the old one


def test_the_old_one_is_not_dropped_while_a_device_needs_it(pki, clock):
    late, moved = pki.device("late-01"), pki.device("moved-01")
    rollover = pki.rollover("devices")
    rollover.prepare()
    clock.now += DAY
    rollover.switch()
    clock.now += DAY
    renewed = pki.device("moved-01")
    devices = [Device.of(late), Device.of(renewed, moved), Device("none", ())]
    old = rollover.former[0]
    assert rollover.dependents(devices) == {old: ["late-01", "moved-01"]}
    with pytest.raises(PkiError, match=f"devices CA {old}: 2 need it still .late-01, moved-01.; renew them, or force"):
        rollover.drop(devices)
    assert rollover.former == [old]
    devices = [Device.of(pki.device("late-01")), Device.of(renewed), Device("gone", status="revoked")]
    assert rollover.dependents(devices) == {old: []}
    assert rollover.drop(devices) == [old]


def test_a_device_whose_certificate_has_ended_needs_nothing_and_one_of_unknown_age_does(pki, clock):
    short = pki.device("short", days=5)
    rollover = pki.rollover("devices")
    rollover.prepare()
    rollover.switch()
    old = rollover.former[0]
    devices = [Device.of(short), Device("unknown")]
    assert rollover.dependents(devices) == {old: ["short", "unknown"]}
    clock.now += 5 * DAY
    assert rollover.dependents(devices) == {old: ["unknown"]}
    clock.now += 365 * DAY  # no certificate lives longer
    assert rollover.dependents(devices) == {old: []}


def test_it_can_be_dropped_by_force(pki):
    device = pki.device("late-01")
    rollover = pki.rollover("devices")
    rollover.prepare()
    rollover.switch()
    devices = [Device.of(device), *(Device(f"d{number}") for number in range(9))]
    with pytest.raises(PkiError, match=r"10 need it still \(late-01, d0, d1, d2, d3, …\)"):
        rollover.drop(devices)
    assert len(rollover.drop(devices, force=True)) == 1


def test_a_services_authority_is_dropped_once_every_server_has_a_certificate_of_the_new_one(pki):
    before = pki.server("broker", addresses=["127.0.0.1"])
    rollover = pki.rollover("services")
    rollover.prepare()
    assert pki.server("broker", addresses=["127.0.0.1"]) == before
    rollover.switch()
    with pytest.raises(PkiError, match="1 need it still .broker.; harden their gateways"):
        rollover.drop()
    after = pki.server("broker", addresses=["127.0.0.1"])
    assert after.serial != before.serial
    assert after.spki_sha256 == before.spki_sha256  # whoever pinned the key notices nothing
    assert len(rollover.drop()) == 1


def test_new_prefixes_during_a_roll_over_reach_the_authority_that_issues(store, clock):
    pki = Pki(store, "home", "home.arpa", PREFIXES, clock=clock).ensure()
    pki.rollover("services").prepare()
    wider = Pki(store, "home", "home.arpa", [*PREFIXES, "10.10.40.0/24"], clock=clock).ensure()
    wider.rollover("services").switch()
    wider.ensure()
    assert wider.server("other", addresses=["10.10.40.1"]).name == "other"


def test_the_certificate_that_is_always_revoked_is_made_anew_once_its_authority_is_dropped(pki, store):
    first = keep_revoked(store, pki, NOW)
    rollover = pki.rollover("devices")
    rollover.prepare()
    rollover.switch()
    assert keep_revoked(store, pki, NOW) == first
    rollover.drop()
    second = keep_revoked(store, pki, NOW)
    assert second.serial != first.serial
    assert second.serial in pki.revoked()


# real handshakes


class Server:
    """A TLS server that trusts what a gateway is given: the chain for devices and the revocation lists."""

    def __init__(self, pki: Pki, folder: Path) -> None:
        self._pki, self._folder = pki, folder
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_CRL_CHECK_LEAF
        self.context.load_cert_chain(self._file("server", pki.server("broker", addresses=["127.0.0.1"])))
        self.context.load_verify_locations(cadata=pki.trust_chain_for_devices().decode())
        lists = folder / "crl.pem"
        lists.write_bytes(pki.crl())
        self.context.load_verify_locations(cafile=lists)

    def _file(self, name: str, credential: Credential, more: bytes = b"") -> Path:
        file = self._folder / f"{name}.pem"
        file.write_bytes(credential.chain_pem + more + credential.private_key_pem)
        return file

    def lets_in(self, credential: Credential, more: bytes = b"") -> str:
        """Return the name by which the server knows a client, or why it does not; `more` follows its certificate."""
        verdict = []

        def serve() -> None:
            try:
                connection, _ = listener.accept()
                with connection, self.context.wrap_socket(connection, server_side=True) as tls:
                    subject = dict(pair for (pair,) in tls.getpeercert()["subject"])
                    tls.sendall(b"!")
                    verdict.append(subject["commonName"])
            except ssl.SSLError as error:
                verdict.append(getattr(error, "verify_message", str(error)))

        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=serve)
            thread.start()
            context = ssl.create_default_context(cadata=self._pki.trust_anchor.decode())
            context.load_cert_chain(self._file("client", credential, more))
            try:
                with (
                    socket.create_connection(listener.getsockname(), timeout=20) as plain,
                    context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
                ):
                    tls.recv(1)
            except OSError:
                pass  # the server knows why
            thread.join()
        return verdict[0]


def test_a_device_that_moves_late_is_let_in_until_the_old_authority_is_dropped(tmp_path):
    pki = Pki(SecretStore(), "home", "home.arpa", PREFIXES).ensure()
    rollover = pki.rollover("devices")
    old_authority = pki.authority_certificates()["devices"]
    late = pki.device("late-01")
    assert Server(pki, tmp_path).lets_in(late) == "late-01"

    rollover.prepare()
    hardened_before_the_switch = Server(pki, tmp_path)
    assert hardened_before_the_switch.lets_in(late) == "late-01"
    rollover.switch()
    new, stolen = pki.device("new-01"), pki.device("stolen-01")
    # the gateway has not been hardened since, and knows the new authority all the same
    assert hardened_before_the_switch.lets_in(new) == "new-01"
    assert hardened_before_the_switch.lets_in(late) == "late-01"

    pki.revoke(stolen.serial)
    overlap = Server(pki, tmp_path)
    assert (overlap.lets_in(late), overlap.lets_in(new)) == ("late-01", "new-01")
    assert overlap.lets_in(stolen) == "certificate revoked"

    rollover.drop(force=True)
    after = Server(pki, tmp_path)
    assert after.lets_in(new) == "new-01"
    assert "unable to get local issuer" in after.lets_in(late)
    # one that brings the old authority's certificate along, which the root has signed, has no list to be judged by
    assert "unable to get certificate CRL" in after.lets_in(late, old_authority)
    assert after.lets_in(pki.device("late-01")) == "late-01"


# a writer that is killed

STEPS = ("open", "write", "fchmod", "fsync", "replace")


def killed_at_step(path: Path, identity: Path, work: str, step: int) -> bool:
    """Do one step of a roll-over in a child that is killed before its step-th system call; False when it had fewer."""
    child = os.fork()
    if child == 0:
        try:
            rollover = Pki(Vault.open(path, [identity]), "home", "home.arpa").rollover("devices")
            count = 0
            real = {name: getattr(os, name) for name in STEPS}

            def counted(name, *args, **named):
                nonlocal count
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real[name](*args, **named)

            for name in STEPS:
                setattr(files.os, name, functools.partial(counted, name))
            getattr(rollover, work)()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_at_any_moment_a_roll_over_is_where_it_was_or_one_step_on_and_goes_on(tmp_path):
    recipient, identity, path = new_identity(tmp_path / "key"), tmp_path / "key", tmp_path / "home.age"
    Vault.create(path, [recipient])
    Pki(Vault.open(path, [identity]), "home", "home.arpa").ensure()
    state_after = {"prepare": (True, 0), "switch": (False, 1), "drop": (False, 0)}
    state = (False, 0)
    for work in ("prepare", "switch", "drop"):
        steps = 0
        while killed_at_step(path, identity, work, steps + 1):
            steps += 1
            pki = Pki(Vault.open(path, [identity]), "home", "home.arpa")
            rollover = pki.rollover("devices")
            now = (rollover.coming is not None, len(rollover.former))
            assert now in (state, state_after[work])
            assert pki.device("a1").name == "a1"
            assert len(crls(pki.crl())) == len(certificates(pki.trust_chain_for_devices())) - 1
        assert steps > 8
        pki = Pki(Vault.open(path, [identity]), "home", "home.arpa")
        getattr(pki.rollover("devices"), work)()
        state = state_after[work]
        rollover = Pki(Vault.open(path, [identity]), "home", "home.arpa").rollover("devices")
        assert (rollover.coming is not None, len(rollover.former)) == state
