"""How the keys of the tunnels for remote management are replaced (`deploy.movers`).

Of each there is one at a time, and its other end gets the new one by hand: the suite's own peer excepted.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator

from deploy import wireguard
from deploy.gateways import Gateways, probed
from deploy.movers import Mover
from deploy.remote import Remote
from gatehouse.identity import wireguard as keys
from gatehouse.identity.passwords import raw_key
from gatehouse.identity.rotation import Phase
from gatehouse.proof.expect import LOOPBACK
from gatehouse.proof.wireguard import Handshake
from gatehouse.site.remote import INTERFACE, PROBE, SERVICE, Peer
from roles.target import Target
from roles.wireguard import files

TRIES, PAUSE = 3, 0.7


class TunnelKey(Mover):
    """What the three have in common: the gateway reads its peers again, and who has not the new one is cut."""

    kind = keys.KIND
    first: Phase = "retire"

    def make(self, used: bytes) -> bytes:
        """An X25519 key."""
        return keys.new_key().encode()

    def bring(self, remote: Remote, target: Target) -> None:
        """Its peers' file, which it then reads."""
        wireguard.bring(self.gateways, target.name)

    def answered(self, remote: Remote, private: str, server: str) -> tuple[Handshake, bytes] | None:
        """An attempt at the gateway, made on it, and its answer; None where there is none."""
        now = time.time_ns()
        made = [Handshake(private, server, now + number) for number in range(TRIES)]
        port = self.gateways.site.listener(SERVICE, "tunnel").port
        payloads = [each.message.hex() for each in made]
        probe = {"kind": "datagrams", "address": LOOPBACK, "port": port, "payloads": payloads, "pause": PAUSE}
        for answer in probed(remote, probe).get("answers", ()):
            for each in made:
                if each.answered_by(raw := bytes.fromhex(answer)):
                    return each, raw
        return None


class GatewayKey(TunnelKey):
    """A gateway's: every peer has to be told its public one."""

    def __init__(self, gateway: str, gateways: Gateways) -> None:
        super().__init__(keys.gateway_name(gateway), gateways, [gateway])
        self.handover = "every peer needs a new file: `./kit wireguard.peer --name NAME`"

    def takes(self, remote: Remote, target: Target, value: bytes) -> bool:
        """As the gateway answers to the suite's peer, which speaks to that key."""
        return self.answered(remote, keys.peer_key(self.vault, PROBE), keys.public_of(value.decode())) is not None


class PeerKey(TunnelKey):
    """A peer's, of those that the kit makes."""

    def __init__(self, peer: str, gateways: Gateways) -> None:
        super().__init__(keys.peer_name(peer), gateways, gateways.running(SERVICE))
        self.handover = "" if peer == PROBE else f"{peer} needs a new file: `./kit wireguard.peer --name {peer}`"

    @property
    def asked_for(self) -> bool:
        """Only the suite's own needs nobody."""
        return bool(self.handover)

    def takes(self, remote: Remote, target: Target, value: bytes) -> bool:
        """As the gateway answers to who has it."""
        server = keys.public_of(keys.gateway_key(self.vault, target.name))
        return self.answered(remote, value.decode(), server) is not None


class SharedKey(TunnelKey):
    """What a gateway and a peer share besides."""

    def __init__(self, gateway: str, name: str, peer: Peer, gateways: Gateways) -> None:
        super().__init__(keys.shared_name(gateway, name), gateways, [gateway])
        self.handover = "" if name == PROBE else f"{name} needs a new file: `./kit wireguard.peer --name {name}`"
        self._who, self._peer = name, peer

    @property
    def asked_for(self) -> bool:
        """The same."""
        return bool(self.handover)

    def make(self, used: bytes) -> bytes:
        """32 bytes, which are no X25519 key."""
        return base64.b64encode(raw_key())

    def takes(self, remote: Remote, target: Target, value: bytes) -> bool:
        """Whether a session can be made with it; of a peer whose own key is not here, whether the tunnel has it."""
        if self._peer.public_key:
            script = (
                f"read -r given; [ \"$(wg show {INTERFACE} preshared-keys | grep -F '{self._peer.public_key}' |"
                ' cut -f2)" = "$given" ] && echo taken || echo refused'
            )
            return remote.run(script, value.decode() + "\n").strip() == "taken"
        server = keys.public_of(keys.gateway_key(self.vault, target.name))
        found = self.answered(remote, keys.peer_key(self.vault, self._who), server)
        return found is not None and found[0].session(found[1], base64.b64decode(value)) is not None


def movers(gateways: Gateways) -> Iterator[Mover]:
    """The keys of all tunnels, the suite's own peer's first."""
    for gateway in gateways.running(SERVICE):
        everyone = files.everyone(gateways.target(gateway))
        yield GatewayKey(gateway, gateways)
        yield from (SharedKey(gateway, name, peer, gateways) for name, peer in everyone.items())
    if where := gateways.running(SERVICE):
        everyone = files.everyone(gateways.target(where[0]))
        yield from (PeerKey(name, gateways) for name, peer in everyone.items() if not peer.public_key)
