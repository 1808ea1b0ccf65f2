"""Remote management: who may come, where the tunnel leads, and what a peer is given."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from invoke import Context

from commands import network
from deploy import vaults, wireguard
from gatehouse.errors import GatehouseError
from gatehouse.identity import Pki, SecretStore
from gatehouse.identity import wireguard as keys
from gatehouse.proof import expect
from gatehouse.proof import wireguard as peer
from gatehouse.proof.probes import reach
from gatehouse.site import Site, SiteError, derive, read_peers
from roles import declared
from roles.nftables import ruleset
from roles.target import Target
from roles.wireguard import files
from tests.compliance import remote as asking
from tests.unit.firewall import chains
from tests.unit.test_site_model import description

# RFC 7748 §6.1: Alice's key pair.
PRIVATE = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo="
PUBLIC = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
TUNNELS = {"gw": {"ipv4": "10.10.90.1/24", "endpoint": "home.example"}}


def remote(**changes: Any) -> dict[str, Any]:
    return {"tunnels": TUNNELS, "peers": {"laptop": {"number": 2}}, **changes}


def site(given: dict[str, Any] | None, **changes: Any) -> Site:
    return Site(**{**description(), "services": declared(), "remote": given, **changes})


def target(given: dict[str, Any] | None) -> Target:
    pki = Pki(SecretStore(), "home", "home.internal", prefixes=["10.0.0.0/8"])
    return Target(site(given), "gw", lambda: pki)


def test_a_public_key_is_that_of_rfc_7748() -> None:
    assert keys.public_of(PRIVATE) == PUBLIC
    assert keys.new_key() != keys.new_key()


def test_the_port_is_open_on_the_uplink_only_where_the_site_has_remote_management() -> None:
    assert derive(site(remote()), "gw").admits("internet", 51820, "udp", at="internet")
    assert not derive(site(remote()), "gw").admits("guest", 51820, "udp", at="guest")
    assert not derive(site(None), "gw").admits("internet", 51820, "udp", at="internet")
    assert not derive(site(remote(peers={})), "gw").admits("internet", 51820, "udp", at="internet"), "nobody may come"
    assert derive(site(remote(peers={})), "gw").tunnel is None


def test_a_tunnel_reaches_what_management_reaches_encrypted_and_nothing_else() -> None:
    policy = derive(site(remote()), "gw")
    assert {r.listener.port for r in policy.remote} == {22, 443}
    assert {str(a) for r in policy.remote for a in r.addresses} == {"10.10.20.1"}
    assert derive(site(None), "gw").remote == ()


def test_the_firewall_lets_the_tunnel_into_management_only() -> None:
    made = ruleset.ruleset(target(remote()))
    rules = chains(made)
    here, onwards = ([r for r in rules[f"tunnel_{way}"] if "accept" in r] for way in ("in", "onwards"))
    assert onwards == ['oifname "br-management" counter accept comment "tunnel to management"']
    assert len(here) == 2 and all(rule.startswith("ip daddr 10.10.20.1 tcp dport") for rule in here)
    led = {chain: rule for chain, several in rules.items() for rule in several if "wg-management" in rule}
    assert led.keys() == {"input", "forward"}
    assert '"wg-management" : goto tunnel_in }' in led["input"]
    assert '"wg-management" : goto tunnel_onwards }' in led["forward"]
    assert b"10.10.90.0/24" in made.content
    assert "wg-management" not in ruleset.ruleset(target(None)).content.decode()


def test_the_peers_file_is_root_s_alone_and_holds_the_key_of_each_peer() -> None:
    here = target(remote(peers={"laptop": {"number": 2}, "phone": {"number": 3, "public_key": PUBLIC}}))
    file = files.peers(here)
    text, vault = file.content.decode(), here.pki.vault
    assert (file.owner, file.mode) == ("root", 0o600)
    assert f"PrivateKey = {keys.gateway_key(vault, 'gw')}" in text
    assert f"PublicKey = {PUBLIC}" in text
    assert text.count("PresharedKey = ") == 3, "both, and the compliance suite's own"
    assert "AllowedIPs = 10.10.90.254/32" in text
    assert text.count(keys.public_of(keys.peer_key(vault, "laptop"))) == 1
    assert keys.peer_key(vault, "laptop") not in text
    assert keys.peer_name("phone") not in vault
    assert "AllowedIPs = 10.10.90.3/32" in text


def test_a_peer_that_is_gone_is_in_the_file_no_more_and_the_others_stay_as_they_were() -> None:
    pki = Pki(SecretStore(), "home", "home.internal", prefixes=["10.0.0.0/8"])
    both = remote(peers={"laptop": {"number": 2}, "phone": {"number": 3}})
    before = files.peers(Target(site(both), "gw", lambda: pki)).content.decode()
    after = files.peers(Target(site(remote()), "gw", lambda: pki)).content.decode()
    assert before.startswith(after.rstrip())
    assert "phone" in before
    assert "phone" not in after
    keys.forget(pki.vault, "phone")
    assert not [n for n in pki.vault.names("wireguard/") if n.endswith("phone")]
    assert keys.peer_name("laptop") in pki.vault


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (remote(tunnels={"gw": {"ipv4": "10.10.20.9/24", "endpoint": "a.example"}}), "overlaps 10.10.20.0/24"),
        (remote(tunnels={"gw": {"ipv4": "10.10.90.1/32", "endpoint": "a.example"}}), "no room for peers"),
        (remote(tunnels={"gw": {"ipv4": "10.10.90.0/24", "endpoint": "a.example"}}), "no host's address"),
        (remote(tunnels={"gw": {"ipv4": "10.10.90.1/24", "endpoint": "a.example:51820"}}), "without a port"),
        (remote(tunnels={**TUNNELS, "other": TUNNELS["gw"]}), "no such gateway"),
        (remote(tunnels={}), "is empty"),
        (remote(peers={"a": {"number": 2}, "b": {"number": 2}}), "its number is that of 'a' too"),
        (remote(peers={"a": {"number": 2, "public_key": PUBLIC}, "b": {"number": 3, "public_key": PUBLIC}}),
         "its public key is that of 'a' too"),
        (remote(peers={"a": {"number": 300}}), "is outside 10.10.90.0/24"),
        (remote(peers={"a": {"number": 254}}), "is that of the compliance suite"),
        (remote(peers={"gatehouse-a": {"number": 2}}), "is the kit's own"),
        (remote(peers={"a": {"number": 2, "public_key": PRIVATE[:-2]}}), "no WireGuard public key"),
        (remote(peers={"A B": {"number": 2}}), "characters"),
        (remote(peers={"a": {"number": 2, "key": "x"}}), "unknown key"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_it_is_said(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SiteError, match=said):
        site(given)


def test_a_key_that_is_pasted_wrongly_is_not_repeated() -> None:
    with pytest.raises(SiteError) as caught:
        site(remote(peers={"a": {"number": 2, "public_key": PRIVATE[:-2]}}))
    assert PRIVATE[:8] not in str(caught.value)


def test_a_number_that_is_the_gateway_s_own_is_refused() -> None:
    with pytest.raises(SiteError, match="is the gateway's own"):
        site(remote(tunnels={"gw": {"ipv4": "10.10.90.2/24", "endpoint": "a.example"}}))


# The commands


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Site]:
    """Makes the site anew with what the peers' file says, as loading it does."""
    file = tmp_path / "state" / "peers.toml"
    vault = SecretStore()

    def make(reads: bool = True, has: bool = True, **peers: Any) -> Site:
        def again(*_: Any) -> Site:
            found = {**peers, **(read_peers(file) if reads else {})}
            return site({"tunnels": TUNNELS, "peers": found} if has else None, state=file.parent)

        monkeypatch.setattr(wireguard, "load", again)
        return again()

    monkeypatch.setattr(vaults, "open_vault", lambda site: vault)
    monkeypatch.chdir(tmp_path)
    return make


def test_a_peer_is_added_and_gets_a_file_that_only_its_owner_reads(house: Callable[..., Site]) -> None:
    path = wireguard.hand_over(house(), "laptop")
    text = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "Endpoint = home.example:51820" in text
    assert "AllowedIPs = 10.10.20.0/24" in text
    here = house()
    assert here.remote is not None
    assert here.remote.peers["laptop"].number == 2
    private = next(line for line in text.splitlines() if line.startswith("PrivateKey")).removeprefix("PrivateKey = ")
    shown = files.peers(Target(here, "gw", lambda: Pki(vaults.open_vault(here), "home", "home.internal")))
    assert f"PublicKey = {keys.public_of(private)}" in shown.content.decode()
    assert "PrivateKey" not in wireguard.path_of(here).read_text()


def test_the_next_peer_gets_the_next_number_and_comments_stay(house: Callable[..., Site]) -> None:
    wireguard.ensured(house(), "laptop")
    path = wireguard.path_of(house())
    path.write_text("# mine\n" + path.read_text())
    made = wireguard.ensured(house(), "phone", PUBLIC)
    assert made.remote is not None
    assert (made.remote.peers["phone"].number, made.remote.peers["phone"].public_key) == (3, PUBLIC)
    assert path.read_text().startswith("# mine\n")


def test_who_has_an_own_key_gets_none(house: Callable[..., Site]) -> None:
    text = wireguard.hand_over(house(), "laptop", PUBLIC).read_text()
    assert "# PrivateKey = the one that you made" in text
    assert not [line for line in text.splitlines() if line.startswith("PrivateKey")]


def test_a_qr_code_is_drawn_of_the_same(house: Callable[..., Site]) -> None:
    assert len(wireguard.code(house(), "phone")) > 20


@pytest.mark.parametrize(
    ("name", "key", "said"),
    [
        ("../x", "", "no name of a peer"),
        ("a]\nb", "", "no name of a peer"),
        ("laptop", "short", "no WireGuard public key"),
        ("old", PUBLIC, "with another key"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    house: Callable[..., Site], tmp_path: Path, name: str, key: str, said: str
) -> None:
    with pytest.raises(GatehouseError, match=said) as caught:
        wireguard.hand_over(house(old={"number": 9}), name, key)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.conf"))
    assert not wireguard.path_of(house()).exists()


def test_a_file_that_is_there_is_not_replaced(house: Callable[..., Site], tmp_path: Path) -> None:
    (tmp_path / "laptop.conf").write_text("mine")
    with pytest.raises(GatehouseError, match="there is a file already"):
        wireguard.hand_over(house(), "laptop")
    assert (tmp_path / "laptop.conf").read_text() == "mine"
    assert not wireguard.path_of(house()).exists()


def test_a_site_that_has_none_or_does_not_read_the_file_is_told_so(house: Callable[..., Site]) -> None:
    with pytest.raises(GatehouseError, match="has no remote management"):
        wireguard.ensured(house(has=False), "laptop")
    with pytest.raises(GatehouseError, match="does not read peers.toml"):
        wireguard.ensured(house(reads=False), "laptop")
    assert not wireguard.path_of(house()).exists()


def test_whom_nobody_knows_can_not_be_removed(house: Callable[..., Site]) -> None:
    with pytest.raises(GatehouseError, match="no peer 'laptop'"):
        wireguard.remove(house(), "laptop", print)
    with pytest.raises(GatehouseError, match="remove it there"):
        wireguard.remove(house(laptop={"number": 2}), "laptop", print)


def test_a_qr_code_is_for_a_terminal_and_for_keys_that_the_kit_makes() -> None:
    for given, said in (({}, "on a terminal only"), ({"out": "x"}, "leave --public-key and --out away")):
        with pytest.raises(SystemExit, match=said):
            network.wireguard_peer(Context(), "phone", qr=True, **given)


# Through the tunnel


def test_a_packet_is_one_that_asks_for_a_connection_and_its_answer_is_told() -> None:
    asked = peer.syn("10.10.90.254", "10.10.20.1", 22, 40_000)
    assert (asked[0], len(asked), asked[33]) == (0x45, 40, 0x02)
    assert reach.checksum(asked[:20]) == 0
    assert peer.said(asked) is None, "a question is no answer"
    answer = asked[:12] + asked[16:20] + asked[12:16] + asked[22:24] + asked[20:22] + asked[24:]
    for flags, word in ((0x12, "open"), (0x14, "refused")):
        assert peer.said(answer[:33] + bytes([flags]) + answer[34:]) == ("10.10.20.1", 22, word)
    assert peer.said(b"") is None


def test_what_was_not_sent_with_the_session_s_keys_is_not_read() -> None:
    mine, theirs = peer.Session(1, bytes(32), bytes([1]) * 32), peer.Session(1, bytes([1]) * 32, bytes(32))
    assert theirs.unpacked(mine.packed(b"packet")) == b"packet".ljust(16, b"\0")
    assert mine.packed(b"packet") != mine.packed(b"packet")
    assert mine.unpacked(mine.packed(b"packet")) is None
    assert mine.unpacked(b"\4") is None


# the suite's attempts to come in


def callers(pace: float) -> dict[str, list[dict[str, Any]]]:
    """The attempts from the segments of a site with a tunnel, on a gateway of that pace."""
    here = site(remote())
    own = expect.Place("iot", ("10.10.10.99", "fd00::99"), ("10.10.10.1", "fd00::1"))
    only = expect.Place("internet", ("192.0.2.9",), ("192.0.2.2",))
    live: Any = SimpleNamespace(
        site=here, name="gw", vault=SecretStore(), places={"iot": own, "internet": only},
        agent=SimpleNamespace(pace=pace),
    )  # fmt: skip
    return asking.callers(live)


def sent(work: dict[str, list[dict[str, Any]]]) -> list[tuple[float, str, str]]:
    """When each attempt is sent, who is asked, and the attempt."""
    return sorted(
        (probe["after"] + turn * probe["pause"], probe["address"], payload)
        for probes in work.values()
        for probe in probes
        for turn, payload in enumerate(probe["payloads"])
    )


@pytest.mark.parametrize(("pace", "slower"), [(0.8, 1.0), (2.0, 2.0), (9.0, 3.0)])
def test_attempts_from_several_segments_keep_their_distance(pace: float, slower: float) -> None:
    work = callers(pace)
    assert {segment: len(probes) for segment, probes in work.items()} == {"iot": 3, "internet": 2}
    moments = [moment for moment, _, _ in sent(work)]
    apart = [round(later - sooner, 6) for sooner, later in zip(moments, moments[1:], strict=False)]
    assert min(apart) == pytest.approx(asking.OTHER_APART * slower)
    assert asking.last_sent(work) == moments[-1]
    tries = {probe["address"]: len(probe["payloads"]) for probe in work["iot"]}
    own, other = asking.OWN_TRIES, asking.OTHER_TRIES
    assert tries == {"10.10.10.1": own, "fd00::1": own, "192.0.2.2": other}


def test_an_attempt_is_as_late_as_its_stamp_says(monkeypatch: pytest.MonkeyPatch) -> None:
    stamps: dict[str, int] = {}

    class Noted(peer.Handshake):
        def __init__(self, private: str, server: str, when: int | None = None) -> None:
            super().__init__(private, server, when)
            stamps[self.message.hex()] = when or 0

    monkeypatch.setattr(asking, "Handshake", Noted)
    in_order = [stamps[payload] for _, _, payload in sent(callers(1.0))]
    assert in_order == sorted(in_order)
    assert len(set(in_order)) == len(in_order)


def test_where_nobody_calls_nothing_is_sent() -> None:
    assert asking.last_sent({}) == 0
