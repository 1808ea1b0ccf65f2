"""An authority's key in a token: SoftHSM2, which speaks PKCS #11 as the hardware does, judged by openssl."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pkcs11
import pytest

from deploy import vaults
from gatehouse.identity.pki import Pki, PkiError
from gatehouse.identity.store import SecretStore
from gatehouse.identity.token import Token
from gatehouse.site import Site, SiteError
from gatehouse.updates.keys import FirmwareKeys
from gatehouse.updates.manifest import is_signed_by
from gatehouse.updates.signing import Wish, sign

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "70717273"
DEVICES = ["pki/devices/certificate", "pki/devices/crl", "pki/devices/token"]


@dataclass
class Hsm:
    """A token, and how often its PIN was asked for."""

    label: str
    pin: str = PIN
    asked: int = 0

    def token(self, **other: str) -> Token:
        return Token(**{"module": MODULE, "label": self.label, "pin": self.tell, **other})

    def tell(self) -> str:
        self.asked += 1
        return self.pin

    def keys(self) -> list[str]:
        """The labels of the private keys in it."""
        session = Token(MODULE, self.label, lambda: PIN)._open()
        return sorted(
            str(key.label) for key in session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY})
        )


@pytest.fixture(scope="module")
def softhsm(programs: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Hsm]]:
    """Makes tokens, each with a PIN and no key; nothing outside a folder of this test is touched."""
    programs("softhsm2-util", "softhsm2")
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    configuration = folder / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
    made = 0

    def make() -> Hsm:
        nonlocal made
        made += 1
        label = f"gatehouse-{made}"
        subprocess.run(
            ["softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "12345678", "--pin", PIN],
            check=True, capture_output=True,
        )  # fmt: skip
        pkcs11.lib(MODULE).reinitialize()  # so that it sees the new token
        return Hsm(label)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(configuration))
        yield make


@pytest.fixture
def hsm(softhsm: Callable[[], Hsm]) -> Hsm:
    from gatehouse.identity import token

    token._sessions.clear()
    return softhsm()


def new_pki(store: SecretStore, hsm: Hsm, *roles: str) -> Pki:
    return Pki(store, "home", "home.arpa", ["127.0.0.0/8"], tokens={role: hsm.token() for role in roles})


def openssl_accepts(folder: Path, pki: Pki, leaf: bytes, purpose: str) -> str:
    """What `openssl verify`, as strictly as it can, finds wrong with a leaf and the revocation list."""
    certificates = pki.authority_certificates()
    (folder / "root.pem").write_bytes(certificates["root"])
    (folder / "issuers.pem").write_bytes(certificates["services"] + certificates["devices"])
    (folder / "leaf.pem").write_bytes(leaf)
    (folder / "crl.pem").write_bytes(pki.crl())
    done = subprocess.run(
        [
            *("openssl", "verify", "-x509_strict", "-check_ss_sig", "-purpose", purpose),
            *("-CAfile", folder / "root.pem", "-untrusted", folder / "issuers.pem"),
            *(("-crl_check", "-CRLfile", folder / "crl.pem") if purpose == "sslclient" else ()),
            folder / "leaf.pem",
        ],
        capture_output=True,
        text=True,
    )
    return "" if done.returncode == 0 else done.stderr


def test_the_key_of_the_devices_authority_is_made_in_the_token_and_openssl_takes_what_it_signs(hsm, tmp_path):
    store = SecretStore()
    pki = new_pki(store, hsm, "devices").ensure()
    kept, lost = pki.device("kept-01"), pki.device("lost-01")
    pki.revoke(lost.serial, "keyCompromise")
    assert openssl_accepts(tmp_path, pki, kept.certificate_pem, "sslclient") == ""
    assert "certificate revoked" in openssl_accepts(tmp_path, pki, lost.certificate_pem, "sslclient")
    assert openssl_accepts(tmp_path, pki, pki.server("broker").certificate_pem, "sslserver") == ""
    assert store.names("pki/devices/") == [*DEVICES[:2], "pki/devices/revoked", DEVICES[2]]
    record = json.loads(store.get("pki/devices/token"))
    assert (record["token"], [record["label"]]) == (hsm.label, hsm.keys())
    assert hsm.asked == 1


def test_all_three_authorities_may_be_in_tokens(hsm, softhsm, tmp_path):
    store, other = SecretStore(), softhsm()
    places = {"root": other.token(), "services": hsm.token(), "devices": hsm.token()}
    pki = Pki(store, "home", "home.arpa", tokens=places).ensure()
    assert openssl_accepts(tmp_path, pki, pki.server("broker").certificate_pem, "sslserver") == ""
    assert openssl_accepts(tmp_path, pki, pki.device("a1").certificate_pem, "sslclient") == ""
    assert (len(hsm.keys()), len(other.keys()), hsm.asked, other.asked) == (2, 1, 1, 1)
    assert [row.key for row in pki.standings() if " CA" in row.life.name and "list" not in row.life.name] == [
        f"token {other.label}", f"token {hsm.label}", f"token {hsm.label}"
    ]  # fmt: skip


def test_the_private_key_can_not_be_read_out_of_the_token(hsm):
    new_pki(SecretStore(), hsm, "devices").ensure()
    (label,) = hsm.keys()
    key = hsm.token()._open().get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, label=label)
    assert (key[pkcs11.Attribute.SENSITIVE], key[pkcs11.Attribute.EXTRACTABLE]) == (True, False)
    with pytest.raises(pkcs11.AttributeSensitive):
        key[pkcs11.Attribute.VALUE]


def test_without_the_token_all_but_signing_works(hsm):
    store = SecretStore()
    pki = new_pki(store, hsm, "devices").ensure()
    crl, chain = pki.crl(), pki.trust_chain_for_devices()
    absent = Pki(store, "home", "home.arpa", ["127.0.0.0/8"]).ensure()
    assert (absent.crl(), absent.trust_chain_for_devices()) == (crl, chain)
    assert absent.server("broker").name == "broker"
    with pytest.raises(PkiError, match=f"its key is in the token '{hsm.label}'; name that under `authority`"):
        absent.device("a1")
    wrong = hsm.token(label="unplugged")
    with pytest.raises(PkiError, match=f"its key is in the token '{hsm.label}'"):
        Pki(store, "home", "home.arpa", tokens={"devices": wrong}).device("a1")


def test_a_second_run_makes_no_second_key_and_one_that_died_takes_up_its_own(hsm):
    store = SecretStore()
    new_pki(store, hsm, "devices").ensure()
    before = hsm.keys()
    new_pki(store, hsm, "devices").ensure()
    assert hsm.keys() == before
    # as if it had died after the token made the key, before the vault had the certificate
    record = store.get("pki/devices/token")
    store.delete("pki/devices/certificate")
    again = new_pki(store, hsm, "devices").ensure()
    assert (hsm.keys(), store.get("pki/devices/token")) == (before, record)
    assert again.device("a1").name == "a1"


def test_which_key_it_will_be_is_saved_before_the_token_makes_it(hsm, monkeypatch):
    store = SecretStore()
    seen = []
    real = Token.obtain_key
    monkeypatch.setattr(
        Token, "obtain_key", lambda self, label: (seen.append("pki/devices/token" in store), real(self, label))[1]
    )
    new_pki(store, hsm, "devices").ensure()
    assert seen == [True]


def test_a_vaults_authority_moves_into_a_token_by_a_roll_over_and_its_key_dies_with_it(hsm, tmp_path):
    store = SecretStore()
    Pki(store, "home", "home.arpa", ["127.0.0.0/8"]).ensure()
    pki = new_pki(store, hsm, "devices").ensure()
    assert (hsm.keys(), "pki/devices/key" in store) == ([], True)
    rollover = pki.rollover("devices")
    rollover.prepare()
    rollover.switch()
    assert openssl_accepts(tmp_path, pki, pki.device("a1").certificate_pem, "sslclient") == ""
    rollover.drop()
    assert ("pki/devices/key" in store, len(hsm.keys())) == (False, 1)
    rollover.prepare()
    rollover.switch()
    assert len(hsm.keys()) == 2
    rollover.drop()
    assert len(hsm.keys()) == 1  # the one that issues; a forgotten authority's is destroyed
    assert openssl_accepts(tmp_path, pki, pki.device("a1").certificate_pem, "sslclient") == ""


def test_a_token_that_signs_with_another_key_is_caught(hsm, softhsm):
    store, other = SecretStore(), softhsm()
    pki = new_pki(store, hsm, "devices").ensure()
    record = json.loads(store.get("pki/devices/token"))
    other.token().obtain_key(record["label"])
    store.set("pki/devices/token", json.dumps({**record, "token": other.label}), "record")
    with pytest.raises(PkiError, match="signs with another key than the authority's; restore it"):
        Pki(store, "home", "home.arpa", tokens={"devices": other.token()}).device("a1")
    other.token().destroy_key(record["label"])
    with pytest.raises(PkiError, match="has not the key any more"):
        Pki(store, "home", "home.arpa", tokens={"devices": other.token()}).device("a1")
    store.set("pki/devices/token", json.dumps(record), "record")
    assert pki.device("a1").name == "a1"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"label": "unplugged"}, "token 'unplugged': .* shows no token of that label; plug it in"),
        ({"module": "/nowhere/libpkcs11.so"}, r"token 'gatehouse-\d+' .*cannot open shared object"),
        ({"pin": lambda: "0000"}, "the PIN is wrong; it locks itself"),
    ],
)
def test_what_is_wrong_with_a_token_is_said_in_one_line_without_the_pin(hsm, change, why):
    with pytest.raises(PkiError, match=why) as caught:
        Pki(SecretStore(), "home", "home.arpa", tokens={"devices": hsm.token(**change)}).ensure()
    assert "\n" not in str(caught.value)
    assert PIN not in f"{caught.value!r} {hsm.token()!r}"
    assert new_pki(SecretStore(), hsm, "devices").ensure().device("a1").name == "a1"


@pytest.mark.parametrize("record", [b"", b"{}", b"[]", b"\xff", b'{"token": "x"}'])
def test_a_damaged_record_of_a_tokens_key_is_named(hsm, record):
    store = SecretStore()
    pki = new_pki(store, hsm, "devices").ensure()
    good = store.get("pki/devices/token")
    store.set("pki/devices/token", record, "record")
    with pytest.raises(PkiError, match="pki/devices/token: names no key in a token"):
        new_pki(store, hsm, "devices").device("a1")
    store.set("pki/devices/token", good, "record")
    assert pki.device("a1").name == "a1"


# the site's side


def site(**authority: object) -> Site:
    network = {"interface": "eth1", "ipv4": "10.10.20.1/24"}
    return Site(
        name="home",
        domain="home.arpa",
        services=(),
        ssh={"keys": ["ssh-ed25519 " + "A" * 68]},
        segments={"management": {"vlan": 20}, "internet": {}},
        gateways={"gw": {"networks": {"management": network, "internet": {"interface": "eth0", "ipv4": "dhcp"}}}},
        authority=authority,
    )


def test_a_site_names_its_token_and_the_pin_comes_from_the_environment(hsm, monkeypatch):
    monkeypatch.setenv("GATEHOUSE_PKCS11_PIN", PIN)
    vaults._pin.cache_clear()
    place = {"pkcs11": {"module": MODULE, "token": hsm.label, "label": "ca"}}
    Pki(SecretStore(), "home", "home.arpa", tokens=vaults.tokens(site(devices=place))).ensure()
    assert hsm.keys()[0].startswith("ca-")
    assert vaults.tokens(site()) == {}


def test_firmware_is_signed_by_a_key_that_stays_in_the_token(hsm):
    vault = SecretStore()
    keys = FirmwareKeys(vault, "home", {"firmware": hsm.token()})
    first, second = keys.ensure()
    assert len(hsm.keys()) == 2 and (first.place, second.place) == (f"token {hsm.label}",) * 2
    wish = Wish(model="relay", version="1.0", url="https://updates.home.arpa/relay/1.0.bin")
    assert is_signed_by(sign(vault, keys, b"image", wish, 1_790_000_000).data, first.key)
    keys.replace("current")
    assert len(hsm.keys()) == 2
    changed = sign(vault, keys, b"image", wish, 1_790_000_000)
    assert is_signed_by(changed.data, second.key) and changed.manifest.keys[0] == second.key
    without = FirmwareKeys(vault, "home")
    assert without.pair() == keys.pair()
    with pytest.raises(PkiError, match="name that under `authority`"):
        sign(vault, without, b"image", wish, 1_790_000_000)


def test_without_a_pin_and_without_a_terminal_it_says_where_the_pin_comes_from(hsm, monkeypatch):
    monkeypatch.delenv("GATEHOUSE_PKCS11_PIN", raising=False)
    vaults._pin.cache_clear()
    place = {"pkcs11": {"module": MODULE, "token": hsm.label}}
    with pytest.raises(PkiError, match="no PIN .set GATEHOUSE_PKCS11_PIN, or run this in a terminal"):
        Pki(SecretStore(), "home", "home.arpa", tokens=vaults.tokens(site(devices=place))).ensure()


@pytest.mark.parametrize(
    ("authority", "what"),
    [
        ({"broker": {"pkcs11": {"module": MODULE, "token": "x"}}}, "authority"),
        ({"devices": {"pkcs11": {"module": MODULE}}}, "authority devices pkcs11 token: missing"),
        (
            {"devices": {"pkcs11": {"module": MODULE, "token": "x", "pin": PIN}}},
            "authority devices pkcs11 pin: unknown",
        ),
        ({"devices": {"pkcs11": {"module": "libsofthsm2.so", "token": "x"}}}, "authority devices pkcs11 module"),
    ],
)
def test_a_site_with_a_slip_in_its_token_is_refused(authority, what):
    with pytest.raises(SiteError, match=what):
        site(**authority)


def test_the_library_for_tokens_is_loaded_only_where_one_is_used():
    code = "import sys, gatehouse.identity, deploy.vaults; sys.exit('pkcs11' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
