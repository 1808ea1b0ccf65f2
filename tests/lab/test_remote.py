"""Remote management with a real peer: WireGuard itself, in a network of its own on the uplink, by its file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import lab
from deploy import vaults
from tests.lab.gateways import Gateway

pytestmark = pytest.mark.timeout(600)

BRIDGE = "br-internet"
COME = f"""
set -eu
cat >/run/phone.given
ip netns add phone
ip link add pr-phone type veth peer name eth0 netns phone
ip link set pr-phone master {BRIDGE} up
ip -n phone address add 198.51.100.77/24 dev eth0
for each in lo eth0; do ip -n phone link set $each up; done
ip -n phone link add wg-phone type wireguard 2>/dev/null || ip netns exec phone wireguard-go wg-phone
# What wg-quick does with it.
grep -v ^Address /run/phone.given >/run/phone.conf
ip netns exec phone wg setconf wg-phone /run/phone.conf
ip -n phone address add $(sed -n 's/^Address = //p' /run/phone.given) dev wg-phone
ip -n phone link set wg-phone mtu 1420 up
ip -n phone route add $(sed -n 's/^AllowedIPs = //p' /run/phone.given) dev wg-phone
"""
GO = "ip -n phone link delete wg-phone; ip link delete pr-phone; ip netns delete phone; rm -f /run/phone.*; true"
TRIES_SSH = "ip netns exec phone timeout 6 bash -c 'exec 3<>/dev/tcp/10.10.20.1/22 && head -c 7 <&3'"


@pytest.fixture
def phone(gateway: Gateway, tmp_path: Path) -> Iterator[Path]:
    """A peer that was added and deployed, and is there: its file."""
    file = tmp_path / "phone.conf"
    added = gateway.checkout.invoke("wireguard.peer", "--name", "phone", "--out", str(file))
    assert added.status == 0, added.text
    assert "PrivateKey" not in added.text
    gateway.converge()
    try:
        come = lab.run(gateway.name, gateway.host, ["sh", "-c", COME], file.read_bytes())
        assert come.returncode == 0, come.stderr
        yield file
    finally:
        gateway(GO)


def test_a_peer_reaches_ssh_by_its_file_and_is_cut_at_once_when_it_is_removed(gateway: Gateway, phone: Path) -> None:
    assert phone.stat().st_mode & 0o777 == 0o600
    assert gateway(TRIES_SSH) == "SSH-2.0"
    removed = gateway.checkout.invoke("wireguard.remove", "--name", "phone")
    assert (removed.status, removed.out) == (0, "gateway: phone is cut off\n"), removed.text
    # It has its keys, and the session that it had.
    assert gateway.ask(TRIES_SSH).stdout == ""
    vault = vaults.open_vault(gateway.checkout.site)
    assert [name for name in vault.names("wireguard/") if name.endswith("/phone")] == []
    gateway.stays_converged()
    again = gateway.checkout.invoke("wireguard.remove", "--name", "phone")
    assert again.status == 1 and "no peer 'phone'" in again.text, again.text


def test_the_keys_of_the_tunnel_are_replaced_when_they_are_named_and_what_was_let_in_by_hand_is_put_out(
    gateway: Gateway,
) -> None:
    names = vaults.open_vault(gateway.checkout.site).names("wireguard/")
    assert len(names) == 5, "the gateway's, two peers', and what each shares with it"
    former = {name: vaults.open_vault(gateway.checkout.site).get(name) for name in names}
    done = gateway.checkout.invoke("rotate", "--only", "wireguard/*")
    assert done.status == 0 and done.out.count("the former one is refused") == len(names), done.text
    vault = vaults.open_vault(gateway.checkout.site)
    assert all(vault.get(name) != value and value.decode() not in done.text for name, value in former.items())
    assert vault.names("rotation/") == []
    gateway.stays_converged()
    gateway("wg set wg-management peer hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo= allowed-ips 10.10.90.77/32")
    gateway.converge()
    assert "hSDwCYkw" not in gateway("wg show wg-management peers")
