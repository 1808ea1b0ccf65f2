"""Renewal over the device's own channel: late, twice, with power cuts; and nobody else can ask in a device's place."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from gatehouse.identity import renewal
from gatehouse.identity.leaf import Credential
from gatehouse.identity.names import NameRefused
from gatehouse.identity.pki import Pki, PkiError
from gatehouse.identity.renewal import RenewalError
from gatehouse.identity.store import SecretStore
from gatehouse.site import Device

NOW = datetime.datetime(2025, 6, 1, 12, 0, 0, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
NAME = "pump-02"


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime.datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pki(clock: Clock) -> Pki:
    return Pki(SecretStore(), "home", "home.arpa", clock=clock).ensure()


Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def csr_of(key: Key, name: str = NAME) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def sign(key: Key, data: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_of(credential: Credential) -> Key:
    key = serialization.load_pem_private_key(credential.private_key_pem, None)
    assert isinstance(key, Key)
    return key


def asked(current: Credential, key: Key, name: str = NAME, endorse: Key | None = None) -> bytes:
    csr = csr_of(key, name)
    return renewal.compose(csr, current.certificate_pem, sign(endorse or key_of(current), renewal.endorsed(csr)))


def entry(*credentials: Credential, status: str = "active") -> Device:
    facts = renewal.facts_of(credentials[0], tuple(f"{older.serial:x}" for older in credentials[1:]))
    return Device.model_validate({"name": NAME, "model": "m", "gateway": "gw", "status": status, **facts})


def entered(device: Device, facts: dict[str, object]) -> Device:
    return Device.model_validate({**device.model_dump(), **facts})


TOPIC = renewal.request_topic(NAME)


# the messages


def test_topics_are_the_devices_own_and_name_it():
    assert renewal.request_topic(NAME) == "devices/pump-02/identity/request"
    assert renewal.serial_topic(NAME) == "devices/pump-02/identity/serial"
    assert renewal.certificate_topic(NAME) == "devices/pump-02/commands/identity/certificate"
    assert renewal.publisher(renewal.request_topic(NAME)) == renewal.publisher(renewal.serial_topic(NAME)) == NAME


@pytest.mark.parametrize(
    "topic",
    [
        "", "devices", "devices/#", "devices/a/identity", "devices/a/identity/request/x", "devices/a/b/identity/serial",
        "x/a/identity/request", "devices/a/commands/identity/certificate", "devices/+/identity/request",
        "devices//identity/request",
    ],
)  # fmt: skip
def test_another_topic_is_no_request(topic):
    with pytest.raises(RenewalError, match="none where a device asks or reports"):
        renewal.publisher(topic)


def test_a_topic_with_an_impossible_name_is_refused():
    for name in ("A", "a b", "é", "x" * 64, "$sys", "a\n"):
        with pytest.raises((NameRefused, RenewalError)):
            renewal.publisher(f"devices/{name}/identity/request")


def test_a_request_names_the_device_its_key_and_the_certificate_in_use(pki):
    current, key = pki.device(NAME), new_key()
    request = renewal.read_request(TOPIC, asked(current, key), pki, NOW)
    assert (request.name, request.current) == (NAME, current.serial)
    assert request.key == key.public_key()


def test_the_same_key_needs_no_endorsement_and_a_new_one_does(pki):
    current = pki.device(NAME)
    same = renewal.compose(csr_of(key_of(current)), current.certificate_pem)
    assert renewal.read_request(TOPIC, same, pki, NOW).current == current.serial
    bare = renewal.compose(csr_of(new_key()), current.certificate_pem)
    with pytest.raises(RenewalError, match="does not vouch for the new one"):
        renewal.read_request(TOPIC, bare, pki, NOW)


def test_a_device_with_an_rsa_key_renews_too(pki):
    key = rsa.generate_private_key(65537, 2048)
    current = pki.device(NAME, public_key=key.public_key())
    request = renewal.read_request(TOPIC, asked(current, new_key(), endorse=key), pki, NOW)
    assert request.current == current.serial


def test_a_gateway_that_was_broken_into_gets_no_certificate_for_a_key_of_its_own(pki):
    current, theirs = pki.device(NAME), new_key()
    for payload in (
        renewal.compose(csr_of(theirs), current.certificate_pem),
        asked(current, theirs, endorse=theirs),
        # an endorsement that the device gave to another request
        renewal.compose(
            csr_of(theirs), current.certificate_pem, sign(key_of(current), renewal.endorsed(csr_of(new_key())))
        ),
        # a signature over the request without the words that say what it is for
        renewal.compose(csr := csr_of(theirs), current.certificate_pem, sign(key_of(current), csr)),
    ):
        with pytest.raises(RenewalError, match="does not vouch"):
            renewal.read_request(TOPIC, payload, pki, NOW)


def test_a_request_for_another_name_than_the_publishers_is_refused(pki):
    current, other = pki.device(NAME), pki.device("pump-03")
    with pytest.raises(PkiError, match="the request is for 'CN=pump-03'"):
        renewal.read_request(TOPIC, asked(current, new_key(), "pump-03"), pki, NOW)
    with pytest.raises(RenewalError, match="no device's of this site, or another's"):
        renewal.read_request(TOPIC, asked(other, new_key()), pki, NOW)
    with pytest.raises(RenewalError, match="no device's of this site, or another's"):
        renewal.read_request(renewal.request_topic("pump-03"), asked(current, new_key(), "pump-03"), pki, NOW)


def test_a_certificate_of_another_authority_with_the_same_serial_number_vouches_for_nothing(pki, monkeypatch):
    current = pki.device(NAME)
    monkeypatch.setattr("gatehouse.identity.leaf.new_serial", lambda: current.serial)
    foreign = Pki(SecretStore(), "home", "home.arpa", clock=lambda: NOW).ensure().device(NAME)
    assert foreign.serial == current.serial
    with pytest.raises(RenewalError, match="no device's of this site"):
        renewal.read_request(TOPIC, asked(foreign, new_key()), pki, NOW)
    server = pki.server("broker")
    with pytest.raises(RenewalError, match="no device's of this site"):
        renewal.read_request(TOPIC, asked(server, new_key()), pki, NOW)


def test_a_revoked_or_expired_certificate_asks_for_nothing(pki, clock):
    current = pki.device(NAME)
    payload = asked(current, new_key())
    clock.now = current.not_after - datetime.timedelta(seconds=1)
    assert renewal.read_request(TOPIC, payload, pki, clock.now).name == NAME
    clock.now = current.not_after
    with pytest.raises(
        RenewalError, match="ended on 2026-06-01, so it can't connect to fetch a new one; enrol it again"
    ):
        renewal.read_request(TOPIC, payload, pki, clock.now)
    clock.now = NOW
    request = renewal.read_request(TOPIC, payload, pki, NOW)
    assert renewal.answer(pki, request, entry(current)) is not None
    pki.revoke(current.serial)
    with pytest.raises(RenewalError, match="asks with a revoked certificate"):
        renewal.answer(pki, request, entry(current))


def test_a_request_that_asks_for_more_is_refused_as_at_enrolment(pki):
    current, key = pki.device(NAME), rsa.generate_private_key(65537, 1024)  # noqa: S505 - what must be refused
    with pytest.raises(PkiError, match="RSA key of 1024 bits"):
        renewal.read_request(TOPIC, asked(current, key), pki, NOW)


@pytest.fixture(scope="module")
def good() -> tuple[Pki, bytes]:
    pki = Pki(SecretStore(), "home", "home.arpa", clock=lambda: NOW).ensure()
    return pki, asked(pki.device(NAME), new_key())


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_a_request_damaged_anywhere_gives_one_clear_error_or_means_the_same(good, data):
    pki, payload = good
    at = data.draw(st.integers(0, len(payload) - 1))
    bad = data.draw(
        st.sampled_from([payload[:at], payload + payload, payload[at:], b"", b"x" * 20_000])
        | st.integers(1, 255).map(lambda change: payload[:at] + bytes([payload[at] ^ change]) + payload[at + 1 :])
        | st.binary(max_size=200)
    )
    try:
        request = renewal.read_request(TOPIC, bad, pki, NOW)
    except (RenewalError, PkiError) as error:
        assert str(error).startswith(f"{NAME}: ") and str(error).isprintable()
    else:
        assert request == renewal.read_request(TOPIC, payload, pki, NOW)


@pytest.mark.parametrize("payload", [b"", b"0", b"0ab", b"AB", b"ab\n", b"g", b"a" * 41, b"\xff", b"1 ", b"-1"])
def test_a_report_that_is_no_serial_number_is_refused(payload):
    with pytest.raises(RenewalError, match="reports .*no serial number"):
        renewal.read_serial(renewal.serial_topic(NAME), payload)
    assert renewal.read_serial(renewal.serial_topic(NAME), b"ab12") == (NAME, 0xAB12)


# answers


def test_an_answer_leaves_old_and_new_good_until_the_device_has_moved(pki):
    old, key = pki.device(NAME), new_key()
    device = entry(old)
    answer = renewal.answer(pki, renewal.read_request(TOPIC, asked(old, key), pki, NOW), device)
    assert answer is not None and answer.facts is not None
    certificate = x509.load_pem_x509_certificate(answer.chain_pem)
    assert certificate.public_key() == key.public_key()
    device = entered(device, dict(answer.facts))
    new = certificate.serial_number
    assert device.serials == (f"{new:x}", f"{old.serial:x}")
    assert (device.not_after, pki.revoked()) == (certificate.not_valid_after_utc, {})

    retirement = renewal.moved(device, old.serial)  # it connects with the old one still
    assert (retirement.revoke, retirement.serials) == ((), device.serials)
    retirement = renewal.moved(device, new)
    assert (retirement.revoke, retirement.serials) == ((old.serial,), (f"{new:x}",))


def test_a_request_that_comes_twice_costs_one_certificate(pki):
    old, key = pki.device(NAME), new_key()
    request = renewal.read_request(TOPIC, asked(old, key), pki, NOW)
    device = entry(old)
    first = renewal.answer(pki, request, device)
    assert first is not None and first.facts is not None
    device = entered(device, dict(first.facts))
    again = renewal.answer(pki, request, device, first.chain_pem)
    assert again == renewal.Answer(NAME, first.chain_pem, None)
    # once more, after the device has moved and had no time to take its request back
    device = entered(device, {"serials": device.serials[:1]})
    assert renewal.answer(pki, request, device, first.chain_pem) is None
    assert renewal.answer(pki, request, device) is None


def test_what_waits_for_the_device_is_given_again_only_when_it_fits(pki):
    old, key = pki.device(NAME), new_key()
    request = renewal.read_request(TOPIC, asked(old, key), pki, NOW)
    first = renewal.answer(pki, request, entry(old))
    assert first is not None and first.facts is not None
    device = entered(entry(old), dict(first.facts))
    foreign = Pki(SecretStore(), "home", "home.arpa").ensure().device(NAME, public_key=key.public_key())
    for waiting in (b"", b"junk", foreign.chain_pem, old.chain_pem, pki.device(NAME).chain_pem):
        other = renewal.answer(pki, request, device, waiting)
        assert other is not None and other.chain_pem not in (waiting, first.chain_pem)
    assert renewal.answer(pki, request, device, first.chain_pem) == renewal.Answer(NAME, first.chain_pem)


def test_a_device_that_asks_and_never_moves_is_stopped(pki):
    old = pki.device(NAME)
    device = entry(old)
    for _ in range(renewal.MOST_AT_ONCE - 1):
        answer = renewal.answer(pki, renewal.read_request(TOPIC, asked(old, new_key()), pki, NOW), device)
        assert answer is not None and answer.facts is not None
        device = entered(device, dict(answer.facts))
    request = renewal.read_request(TOPIC, asked(old, new_key()), pki, NOW)
    with pytest.raises(RenewalError, match=f"has {renewal.MOST_AT_ONCE} certificates and moves to none of them"):
        renewal.answer(pki, request, device)
    retirement = renewal.moved(device, int(device.serials[0], 16))
    assert len(retirement.revoke) == renewal.MOST_AT_ONCE - 1


@pytest.mark.parametrize("status", ["quarantined", "revoked"])
def test_a_device_that_is_not_active_gets_no_certificate(pki, status):
    old = pki.device(NAME)
    request = renewal.read_request(TOPIC, asked(old, new_key()), pki, NOW)
    with pytest.raises(RenewalError, match=f"is {status}"):
        renewal.answer(pki, request, entry(old, status=status))
    assert renewal.answer(pki, request, entry(old)) is not None


def test_a_certificate_that_the_registry_does_not_know_neither_asks_nor_reports(pki):
    unknown, known = pki.device(NAME), pki.device(NAME)
    request = renewal.read_request(TOPIC, asked(unknown, new_key()), pki, NOW)
    with pytest.raises(RenewalError, match="the registry does not know"):
        renewal.answer(pki, request, entry(known))
    with pytest.raises(RenewalError, match="the registry does not know"):
        renewal.moved(entry(known), unknown.serial)


def test_a_device_of_the_former_authority_moves_to_the_new_one(pki, clock):
    old, key = pki.device(NAME), new_key()
    rollover = pki.rollover("devices")
    rollover.prepare()
    clock.now += DAY
    rollover.switch()
    clock.now += DAY
    request = renewal.read_request(TOPIC, asked(old, key), pki, clock.now)
    device = entry(old)
    answer = renewal.answer(pki, request, device)
    assert answer is not None and answer.facts is not None
    device = entered(device, dict(answer.facts))
    assert rollover.dependents([device]) == {rollover.former[0]: [NAME]}
    device = entered(device, {"serials": renewal.moved(device, int(device.serials[0], 16)).serials})
    assert rollover.dependents([device]) == {rollover.former[0]: []}
    rollover.drop([device])
    with pytest.raises(RenewalError, match="no device's of this site"):
        renewal.read_request(TOPIC, asked(old, key), pki, clock.now)


# a whole renewal, with power cuts on either side


class PowerCut(Exception):
    """The power goes before a write or a message."""


@dataclass
class World:
    """A broker's retained messages, a device's flash, the operator's registry; and when the power goes."""

    pki: Pki
    clock: Clock
    registry: Device
    current: Credential | None = None
    key: Key | None = None
    flash: dict[str, object] = field(default_factory=dict)
    retained: dict[str, bytes] = field(default_factory=dict)
    steps_left: int | None = None

    def step(self) -> None:
        """What comes next is one write, or one message: done or not done."""
        if self.steps_left is not None:
            if self.steps_left == 0:
                self.steps_left = None
                raise PowerCut
            self.steps_left -= 1

    def publish(self, topic: str, payload: bytes) -> None:
        self.step()
        self.retained[topic] = payload

    def good(self, certificate_pem: bytes) -> bool:
        """Whether the broker lets a device in with a certificate."""
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        return (
            self.pki.is_of_a_device(certificate)
            and certificate.serial_number not in self.pki.revoked()
            and certificate.not_valid_before_utc <= self.clock.now < certificate.not_valid_after_utc
        )

    # the device, from its start: flash holds `own` (key, certificate), and while it moves `next` (key, certificate)

    def device(self, wants_new: bool, same_key: bool = False) -> None:
        own_key, own_pem = self.flash["own"]  # type: ignore[misc]
        if "next" in self.flash:
            next_key, next_pem = self.flash["next"]  # type: ignore[misc]
            if next_pem is None:
                waiting = self.retained.get(renewal.certificate_topic(NAME), b"")
                if waiting and x509.load_pem_x509_certificate(waiting).public_key() == next_key.public_key():
                    serial = x509.load_pem_x509_certificate(waiting).serial_number
                    if serial != x509.load_pem_x509_certificate(own_pem).serial_number:
                        self.step()
                        self.flash["next"] = (next_key, waiting)
                        next_pem = waiting
            if next_pem is not None and self.good(next_pem):
                self.step()
                self.flash = {"own": (next_key, next_pem)}
                own_key, own_pem = next_key, next_pem
        assert self.good(own_pem), "the device is shut out"
        serial = x509.load_pem_x509_certificate(own_pem).serial_number
        self.publish(renewal.serial_topic(NAME), f"{serial:x}".encode())
        if "next" in self.flash:
            csr = csr_of(self.flash["next"][0])  # type: ignore[index]
            endorsement = sign(own_key, renewal.endorsed(csr))
            self.publish(renewal.request_topic(NAME), renewal.compose(csr, own_pem, endorsement))
        elif self.retained.get(renewal.request_topic(NAME)):
            self.publish(renewal.request_topic(NAME), b"")
        elif wants_new:
            self.step()
            self.flash["next"] = (own_key if same_key else new_key(), None)

    # the operator's side, each time from the beginning

    def operator(self) -> None:
        if report := self.retained.get(renewal.serial_topic(NAME)):
            _, serial = renewal.read_serial(renewal.serial_topic(NAME), report)
            retirement = renewal.moved(self.registry, serial)
            if retirement.revoke:
                self.step()
                self.pki.revoke_all(retirement.revoke, "superseded")
                self.step()
                self.registry = entered(self.registry, {"serials": retirement.serials})
        if payload := self.retained.get(renewal.request_topic(NAME)):
            request = renewal.read_request(TOPIC, payload, self.pki, self.clock.now)
            waiting = self.retained.get(renewal.certificate_topic(NAME), b"")
            answer = renewal.answer(self.pki, request, self.registry, waiting)
            if answer is not None and answer.facts is not None:
                self.step()
                self.registry = entered(self.registry, dict(answer.facts))
            if answer is not None and answer.chain_pem != waiting:
                self.publish(renewal.certificate_topic(NAME), answer.chain_pem)

    def settled(self) -> bool:
        return "next" not in self.flash and len(self.registry.serials) == 1


def new_world() -> World:
    clock = Clock()
    pki = Pki(SecretStore(), "home", "home.arpa", clock=clock).ensure()
    first = pki.device(NAME)
    world = World(pki, clock, entry(first))
    world.flash = {"own": (key_of(first), first.certificate_pem)}
    return world


def run(world: World, who: str, cut: int | None = None, same_key: bool = False, wants_new: bool = True) -> bool:
    """Let one side act, its power cut after so many steps; tell whether it came to the end."""
    world.steps_left = cut
    try:
        world.device(wants_new, same_key) if who == "device" else world.operator()
    except PowerCut:
        return False
    finally:
        world.steps_left = None
    return True


@pytest.mark.parametrize("same_key", [False, True])
def test_a_device_renews_itself_from_end_to_end(same_key):
    world = new_world()
    before = world.registry.serials
    for _ in range(5):
        run(world, "device", same_key=same_key, wants_new=world.registry.serials == before)
        run(world, "operator")
    assert world.settled()
    assert world.registry.serials != before
    assert set(world.pki.revoked()) == {int(before[0], 16)}
    assert world.pki.revoked()[int(before[0], 16)].reason == "superseded"
    assert not world.retained[renewal.request_topic(NAME)]


def test_a_device_that_comes_back_late_fetches_what_waits_for_it():
    world = new_world()
    run(world, "device")
    run(world, "device")
    run(world, "operator")
    world.clock.now += 300 * DAY
    run(world, "operator")
    before = world.registry.serials
    for _ in range(3):
        run(world, "device", wants_new=False)
        run(world, "operator")
    assert world.settled()
    assert world.registry.serials == before[:1]


@settings(max_examples=150, deadline=None)
@given(
    acts=st.lists(
        st.tuples(st.sampled_from(["device", "operator"]), st.none() | st.integers(0, 4), st.booleans()), max_size=25
    )
)
def test_whoever_loses_power_and_whenever_the_device_is_never_shut_out_and_all_ends_settled(acts):
    world = new_world()
    for who, cut, same_key in acts:
        run(world, who, cut, same_key)
        own = world.flash["own"][1]  # type: ignore[index]
        assert world.good(own)
        assert f"{x509.load_pem_x509_certificate(own).serial_number:x}" in world.registry.serials
        assert len(world.registry.serials) <= renewal.MOST_AT_ONCE
    for _ in range(6):
        run(world, "device", wants_new=False)
        run(world, "operator")
    assert world.settled()
    own = x509.load_pem_x509_certificate(world.flash["own"][1])  # type: ignore[index]
    assert world.registry.serials == (f"{own.serial_number:x}",)
    assert not world.retained.get(renewal.request_topic(NAME))
