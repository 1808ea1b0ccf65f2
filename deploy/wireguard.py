"""Peers of the tunnels for remote management: written into the site's data, handed over, cut off."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import tomlkit

from deploy import vaults
from deploy.data import one_gateway
from deploy.gateways import Gateways
from deploy.inventory import ROOT
from gatehouse.errors import GatehouseError
from gatehouse.identity import Vault, wireguard
from gatehouse.identity.files import locked, write_private
from gatehouse.site import MANAGEMENT, Site, destinations, load, read_peers
from gatehouse.site.remote import FIRST_NUMBER, PEER_NAME, SERVICE, Remote, is_key
from roles import rendering
from roles.wireguard import files

KEEPALIVE_SECONDS = 25  # shorter than what home routers remember of UDP


class PeerError(GatehouseError):
    """A peer that can't be added, handed over or removed: one line that says where, what, and the mend."""


def path_of(site: Site) -> Path:
    """Where the peers of a site are written down."""
    return (site.state / "peers.toml") if site.state else ROOT / "inventories" / "peers" / f"{site.name}.toml"


def ensured(site: Site, name: str, public_key: str = "") -> Site:
    """The site with that peer; one it hasn't got is added. Raises `PeerError`, `SiteError`."""
    remote = _remote(site)
    if not re.fullmatch(PEER_NAME, name):
        raise PeerError(f"--name {name[:40]!r}: is no name of a peer (use a-z, 0-9 and -, 32 at most)")
    if public_key and not is_key(public_key):
        # Not quoted: whoever pastes the wrong one pastes the secret one.
        raise PeerError("--public-key: is no WireGuard public key (give what `wg pubkey` prints: 44 characters)")
    if name in remote.peers:
        if public_key and public_key != remote.peers[name].public_key:
            raise PeerError(f"{name}: is a peer with another key (remove it first: wireguard.remove --name {name})")
        return site
    taken = {peer.number for peer in remote.peers.values()}
    taken |= {int(t.ipv4.ip) - int(t.ipv4.network.network_address) for t in remote.tunnels.values()}
    number = next(n for n in range(FIRST_NUMBER, FIRST_NUMBER + len(taken) + 1) if n not in taken)
    entry = {"number": number} | ({"public_key": public_key} if public_key else {})

    def add(peers: tomlkit.TOMLDocument) -> None:
        peers[name] = entry

    return _changed(site, add)


def configuration(site: Site, vault: Vault, name: str, gateway: str = "") -> str:
    """What the peer's own WireGuard reads: wg-quick(8). A secret. Raises `PeerError`, `DataError`, `VaultError`."""
    remote, gateway = _remote(site), one_gateway(site, gateway)
    if name not in remote.peers or gateway not in remote.tunnels:
        raise PeerError(f"{site.name}: no peer '{name[:40]}' at {gateway} (wireguard.peer --name adds one)")
    peer, tunnel = remote.peers[name], remote.tunnels[gateway]
    inside = [str(p) for p in site.gateways[gateway].networks[MANAGEMENT].prefixes if p.version == 4]
    own = "# PrivateKey = the one that you made" if peer.public_key else (
        f"PrivateKey = {wireguard.peer_key(vault, name)}"
    )  # fmt: skip
    return "\n".join(
        [
            "[Interface]",
            own,
            f"Address = {tunnel.address(peer.number)}/32",
            "",
            "[Peer]",
            f"PublicKey = {wireguard.public_of(wireguard.gateway_key(vault, gateway))}",
            f"PresharedKey = {wireguard.shared_key(vault, gateway, name)}",
            f"Endpoint = {tunnel.endpoint}:{site.listener(SERVICE, 'tunnel').port}",
            f"AllowedIPs = {', '.join(inside)}",
            f"PersistentKeepalive = {KEEPALIVE_SECONDS}",
            "",
        ]
    )


def hand_over(site: Site, name: str, public_key: str = "", gateway: str = "", out: str = "") -> Path:
    """Adds the peer if it is new, and writes its configuration, 0600; returns the file. Raises what they raise."""
    path = Path(out or f"{name}.conf")
    if path.exists():
        raise PeerError(f"{path}: there is a file already (move it away, or name another: --out FILE)")
    site = ensured(site, name, public_key)
    text = configuration(site, vaults.open_vault(site), name, gateway)
    try:
        write_private(path, text.encode())
    except OSError as error:
        raise PeerError(f"{path}: not written ({error.strerror}; name a place you can write to: --out FILE)") from None
    return path


def code(site: Site, name: str, gateway: str = "") -> list[str]:
    """The configuration as a QR code for a terminal, a line each. A secret, as readable as the text."""
    import io

    import segno

    site = ensured(site, name)
    drawn = io.StringIO()
    segno.make(configuration(site, vaults.open_vault(site), name, gateway), error="l").terminal(drawn, compact=True)
    return drawn.getvalue().splitlines()


def remove(site: Site, name: str, say: Callable[[str], None]) -> None:
    """Takes the peer from the site, and cuts it off at every gateway now; its keys are forgotten when all have.

    Raises `PeerError`, also where a gateway was away: run it again, it goes on.
    """
    known = name in _remote(site).peers
    vault = vaults.open_vault(site)
    if not (known or wireguard.names_of(vault, name)):
        raise PeerError(f"{site.name}: no peer '{name[:40]}' ({', '.join(_remote(site).peers) or 'there is none'})")
    if known:
        if name not in read_peers(path_of(site)):
            raise PeerError(f"{name}: stands in inventories/group_data/{site.name}.py (remove it there, then harden)")

        def drop(peers: tomlkit.TOMLDocument) -> None:
            peers.pop(name, None)

        where = site.gateways_with(SERVICE)
        site = _changed(site, drop)
    else:
        where = list(_remote(site).tunnels)
    away = []
    with Gateways(site, vaults.open_pki(site, vault)) as gateways:
        for gateway in where:
            try:
                if _remote(site).peers:
                    bring(gateways, gateway)
                else:  # that was the last one
                    gateways.remote(gateway).run(files.WITHDRAW)
                say(f"{gateway}: {name} is cut off")
            except GatehouseError as error:
                away.append(str(error))
    if away:
        raise PeerError(f"{name}: NOT cut off everywhere: {'; '.join(away)} (run this again)")
    wireguard.forget(vault, name)


def bring(gateways: Gateways, gateway: str) -> None:
    """Gives a gateway the peers and keys that the vault says; those that stay don't notice. Raises `RemoteError`."""
    peers = files.peers(gateways.target(gateway))
    script, stdin = rendering.swap([peers], [peers])
    gateways.remote(gateway).run(f"{script}; {files.FOLLOW}", stdin)


def _remote(site: Site) -> Remote:
    if site.remote is None:
        raise PeerError(f"{site.name}: has no remote management (give the site remote={{…}}: docs/remote.md)")
    return site.remote


def _changed(site: Site, change: Callable[[tomlkit.TOMLDocument], None]) -> Site:
    """Changes the peers' file, where that makes a valid site; returns it. Raises `SiteError`, `PeerError`."""
    path = path_of(site)
    read_peers(path)  # says what is wrong with it
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            peers = tomlkit.parse(path.read_text() if path.exists() else "# Who may come through the tunnel.\n")
            change(peers)
            raw = tomlkit.dumps(peers).encode()
            with destinations.tried(path, raw):
                made = load(site.name, ROOT)
            if set(peers) - set(_remote(made).peers):
                raise PeerError(_unread(site))
            write_private(path, raw, 0o644)
    except OSError as error:
        raise PeerError(
            f"{path}: not written ({error.strerror}), it is as it was (mend its mode, or make room)"
        ) from None
    return made


def _unread(site: Site) -> str:
    return (
        f"inventories/group_data/{site.name}.py: does not read {path_of(site).name} (give remote the peers"
        f' read_peers(Path(__file__).parent.parent / "peers" / "{site.name}.toml"))'
    )
