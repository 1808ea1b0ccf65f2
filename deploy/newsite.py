"""Writes a new site: inventory, group data, device registry and vault, all of it or nothing."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Network, ip_network
from pathlib import Path

from deploy.inventory import ROOT
from deploy.vaults import identity_path
from gatehouse.errors import GatehouseError
from gatehouse.identity import Vault, new_identity
from gatehouse.site import load

RESERVED = {"lab", "lab-vm", "all"}


class NewSiteError(GatehouseError):
    """A site that can't be written; nothing was."""


@dataclass(frozen=True)
class Answers:
    """What `init` asks for. `lan` is empty where there is no LAN port; `ipv6` gives every segment a ULA prefix."""

    name: str
    address: str
    key: str
    domain: str = ""
    gateway: str = "gateway"
    user: str = "root"
    ssh_port: int = 22
    uplink: str = "eth0"
    uplink_address: str = "dhcp"
    router: str = ""
    trunk: str = "eth1"
    lan: str = ""
    prefix: str = "10.10.0.0/16"
    ipv6: bool = True


# option: (question, where None means that there is a default)
QUESTIONS: Mapping[str, str] = {
    "address": "Address at which the gateway answers SSH now",
    "user": "User to log in as now (needs sudo, or root)",
    "key": "File with your SSH public key",
    "uplink": "Interface to the internet",
    "uplink_address": "Its address: dhcp, or an address with prefix length",
    "trunk": "Interface that carries the VLANs 10, 20 and 30",
    "lan": "Interface of the LAN, empty for none",
}


def write(answers: Answers, root: Path = ROOT, identity: Path | None = None) -> list[Path]:
    """Writes the files of a site; returns their paths, the identity's last.

    Raises `NewSiteError`, `SiteError` or `VaultError`; then nothing is left of it.
    """
    name = answers.name
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name) or name in RESERVED:
        raise NewSiteError(
            f"init: '{name}' is no name for a site (use lower-case letters, digits and hyphens; not lab)"
        )
    inventories = root / "inventories"
    files = {
        inventories / name: _render("inventory.j2", answers),
        inventories / "group_data" / f"{name}.py": _render("group_data.py.j2", answers),
        inventories / "devices" / f"{name}.toml": _render("devices.toml.j2", answers),
    }
    vault = _vault_path(name, root)
    there = [path for path in (*files, vault) if path.exists()]
    if there:
        raise NewSiteError(
            f"init: {there[0].relative_to(root)} exists (choose another name, or remove that site's files)"
        )
    written: list[Path] = []
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            written.append(path)
            path.write_text(content)
        return [*written, *write_vault(name, root, identity)]
    except (OSError, GatehouseError) as error:
        for path in written:
            path.unlink(missing_ok=True)
        if isinstance(error, GatehouseError):
            raise
        raise NewSiteError(f"init: {error.filename}: {error.strerror} (nothing was written)") from None


def lacks_vault(name: str, root: Path = ROOT) -> bool:
    """Whether a site is all there but for its vault: written by hand, or the checkout's example."""
    site_files = (root / "inventories" / name, root / "inventories" / "group_data" / f"{name}.py")
    return name not in RESERVED and all(path.is_file() for path in site_files) and not _vault_path(name, root).exists()


def write_vault(name: str, root: Path = ROOT, identity: Path | None = None) -> list[Path]:
    """Makes a site's vault and the identity that opens it, both or none; returns their paths.

    Raises `SiteError` or `VaultError`.
    """
    key = identity or identity_path(load(name, root))
    recipient = new_identity(key)
    try:
        Vault.create(_vault_path(name, root), [recipient])
    except GatehouseError:
        key.unlink()
        raise
    return [_vault_path(name, root), key]


def _vault_path(name: str, root: Path) -> Path:
    return root / "inventories" / "vaults" / f"{name}.age"


def _render(template: str, answers: Answers) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(ROOT / "templates" / "site"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  Python and TOML, no HTML
    )
    environment.filters["literal"] = _literal
    networks = _networks(answers)
    reaches = ["internet", "iot", *(["internal"] if answers.lan else [])]
    return environment.get_template(template).render(
        **{**vars(answers), "domain": answers.domain or f"{answers.name}.internal"},
        variable=answers.name.replace("-", "_"),
        keys=[_public_key(answers.key)],
        networks=networks,
        management_reaches=reaches,
    )


def _public_key(given: str) -> str:
    """The line of a .pub file, or the line itself."""
    if given.startswith(("ssh-", "ecdsa-", "sk-")):
        return given.strip()
    path = Path(given).expanduser()
    if not path.is_file():
        raise NewSiteError(f"init: {given}: no such file (name your .pub file; `ssh-keygen -t ed25519` makes one)")
    text = path.read_text(errors="replace").strip()
    if "PRIVATE" in text:
        raise NewSiteError(f"init: {given}: that is the private key (name the .pub file beside it)")
    return text.splitlines()[0] if text else ""


def _networks(answers: Answers) -> dict[str, dict[str, str]]:
    try:
        whole = ip_network(answers.prefix)
        subnets = list(whole.subnets(new_prefix=24))
    except ValueError:
        raise NewSiteError(
            f"init: {answers.prefix} is no IPv4 prefix of at least 64 networks (such as 10.10.0.0/16)"
        ) from None
    if len(subnets) < 64:
        raise NewSiteError(f"init: {answers.prefix} is too small (a /18 or larger, such as 10.10.0.0/16)")
    # RFC 4193 §3.2.2: a random global id, so that two sites can be joined one day.
    ula = IPv6Network((bytes([0xFD]) + secrets.token_bytes(5) + bytes(10), 48))
    places = {"iot": 10, "management": 20, "guest": 30} | ({"internal": 40} if answers.lan else {})
    networks = {}
    for segment, place in places.items():
        port = {"interface": answers.lan} if segment == "internal" else {"trunk": answers.trunk}
        networks[segment] = {**port, "ipv4": f"{subnets[place][1]}/24"}
        if answers.ipv6:
            networks[segment]["ipv6"] = f"{ula.network_address + (place << 64) + 1}/64"
    return networks


def _literal(value: object) -> str:
    """A Python literal with double quotes, as the rest of the file has them; of texts, lists and dictionaries."""
    return json.dumps(value, ensure_ascii=False)
