"""The tunnel for remote management, made by WireGuard itself in a network of its own."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.inventory import ROOT
from gatehouse.identity import Pki, SecretStore
from gatehouse.identity import wireguard as keys
from gatehouse.site import Site
from gatehouse.site.remote import PROBE
from roles import declared
from roles.target import Target
from roles.wireguard import files
from tests.unit.test_site_model import description

# A peer of the compliance suite's, on this side of the program's loopback.
SUITE = """
import base64, json, socket, sys, time
from gatehouse.proof.wireguard import Handshake, NO_SHARED_KEY
given = json.load(sys.stdin)
def answer(private, server):
    attempt = Handshake(private, server)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.settimeout(1.5)
        wire.connect(("127.0.0.1", 51820))
        wire.send(attempt.message)
        try:
            said = wire.recv(4096)
        except TimeoutError:
            return None, b""
    assert attempt.answered_by(said)
    return attempt, said
attempt, said = answer(given["own"], given["server"])
print(attempt.session(said, base64.b64decode(given["shared"])) is not None, attempt.session(said, NO_SHARED_KEY))
time.sleep(0.1)
print(answer(given["stranger"], given["server"]), answer(given["own"], given["another"]))
"""
STRANGER = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="  # RFC 7748 §6.1


@pytest.fixture
def tunnel(tmp_path: Path, programs: Callable[..., None]) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs shell where $TUNNEL is the program and $PEERS its file, in a network that ends with it."""
    programs("wg", "wireguard-tools")
    programs("wireguard-go", "wireguard-go")
    remote = {
        "tunnels": {"gw": {"ipv4": "10.10.90.1/24", "endpoint": "home.example"}},
        "peers": {"laptop": {"number": 2}},
    }
    site = Site(**{**description(), "services": declared(), "remote": remote})
    pki = Pki(SecretStore(), "home", "home.internal", prefixes=["10.0.0.0/8"])
    rendered = {file.path: file.content.decode() for file in files.configuration(Target(site, "gw", lambda: pki))}
    # An interface of its own: the socket to WireGuard is the whole machine's.
    name = f"wg-{secrets.token_hex(4)}"
    peers, program = tmp_path / "peers.conf", tmp_path / "tunnel"
    peers.write_text(rendered[files.PEERS])
    program.write_text(rendered[files.PROGRAM].replace(files.PEERS, str(peers)).replace("wg-management", name))
    program.chmod(0o755)

    shown = {
        "own": keys.peer_key(pki.vault, PROBE),
        "server": keys.public_of(keys.gateway_key(pki.vault, "gw")),
        "shared": keys.shared_key(pki.vault, "gw", PROBE),
        "stranger": keys.new_key(),
        "another": keys.public_of(keys.new_key()),
    }

    def run(script: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "TUNNEL": str(program), "PEERS": str(peers), "I": name, "PYTHONPATH": str(ROOT)}
        command = ["unshare", "--net", "sh", "-euc", f"trap '$TUNNEL down' EXIT; $TUNNEL up; {script}"]
        return subprocess.run(
            command, env=environment, input=json.dumps(shown), capture_output=True, text=True, timeout=60, check=False
        )

    return run


def test_it_is_made_of_its_file_and_told_from_one_that_somebody_has_changed(
    tunnel: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    done = tunnel(f"""
        $TUNNEL same; echo as declared
        wg show $I allowed-ips | cut -f2
        wg set $I peer {STRANGER} allowed-ips 10.10.90.77/32
        $TUNNEL same || echo another
        $TUNNEL peers; $TUNNEL same; echo as declared
        ip link set $I down; ip address flush dev $I; $TUNNEL same || echo no address
    """)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert [*said[:1], *sorted(said[1:3]), *said[3:]] == [
        "as declared", "10.10.90.2/32", "10.10.90.254/32", "another", "as declared", "no address"
    ]  # fmt: skip


def test_a_file_that_wireguard_does_not_take_changes_nothing(
    tunnel: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    done = tunnel("""
        wg show $I peers | sort >$PEERS.before
        cp $PEERS $PEERS.good; echo '[Peer]' >$PEERS; echo 'PublicKey = nonsense' >>$PEERS
        $TUNNEL peers 2>/dev/null || echo refused
        wg show $I peers | sort | cmp - $PEERS.before && echo the same
        cp $PEERS.good $PEERS; $TUNNEL same; echo as declared
    """)
    assert (done.returncode, done.stdout) == (0, "refused\nthe same\nas declared\n"), done.stderr


def test_the_suite_s_own_peer_is_taken_for_one_and_only_with_the_right_keys(
    tunnel: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    done = tunnel(f"ip link set lo up; {sys.executable} -c {shlex.quote(SUITE)}")
    assert (done.returncode, done.stdout) == (0, "True None\n(None, b'') (None, b'')\n"), done.stderr
