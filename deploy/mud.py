"""Imports a manufacturer's usage description (MUD, RFC 8520) into the destinations of a site."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from deploy.inventory import ROOT
from gatehouse.identity.files import locked, write_private
from gatehouse.site import Site, destinations, load
from gatehouse.site.mud import LARGEST, Description, Flow, MudError, parse

LARGEST_SIGNATURE = 65_536  # bytes
SECONDS = 30  # for openssl


def path_of(site: Site) -> Path:
    """Where the destinations of a site are written down that are data."""
    return (
        (site.state / "destinations.toml")
        if site.state
        else ROOT / "inventories" / "destinations" / f"{site.name}.toml"
    )


@dataclass(frozen=True)
class Plan:
    """What an import would write: shown first, then `apply`."""

    site: Site
    model: str
    description: Description
    signer: str
    digest: str
    entries: dict[str, dict[str, Any]]
    gone: tuple[Flow, ...]
    new: tuple[Flow, ...]

    def table(self) -> list[str]:
        """The lines that an operator decides by."""
        said = self.description
        lines = [
            f"{said.about or 'no description'} ({said.url or 'no URL'}, of {said.updated or 'no date'})",
            f"for devices of model {self.model}: {self._devices()}; signature: {self.signer or 'none'}",
            "",
            f"{'':2}{'to':44}{'port':>6}  transport",
        ]
        for flow in sorted({*said.flows, *self.gone}):
            mark = "+" if flow in self.new else "-" if flow in self.gone else " "
            lines.append(f"{mark} {flow.name or flow.network:44}{flow.port:>6}  {flow.transport}")
        lines += [f"  left out: {entry.entry}: {entry.why}" for entry in said.left_out]
        return lines

    def _devices(self) -> str:
        count = sum(device.model == self.model for device in self.site.devices)
        return f"{count} in the registry" if count else "none in the registry yet"

    @property
    def empty(self) -> bool:
        """Whether everything is there already."""
        return not (self.new or self.gone)


def plan(site: Site, file: str, model: str = "", authority: str = "", signature: str = "") -> Plan:
    """What importing a file would write. Raises `MudError`, or `SiteError` where that makes no valid site."""
    raw = _read(Path(file), LARGEST)
    signer = _signer(site, Path(file), raw, authority, signature)
    description = parse(raw, file)
    model = model or description.model
    if not model or not model.isprintable():
        raise MudError(f"{file}: says no model-name (name the registry's: --model MODEL)")
    if not description.flows:
        raise MudError(
            f"{file}: the device needs nothing on the internet (nothing to import: without a list it gets nothing)"
        )
    entries = _entries(description, model)
    before = _before(site, model)
    kept = {flow for entry in before.values() for flow in _flows(entry)}
    wanted = set(description.flows)
    made = Plan(
        site, model, description, signer, hashlib.sha256(raw).hexdigest(), entries,
        gone=tuple(sorted(kept - wanted)), new=tuple(sorted(wanted - kept)),
    )  # fmt: skip
    _try(made)
    return made


def apply(made: Plan) -> Path:
    """Writes the destinations, in one step; returns the file."""
    path = path_of(made.site)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            write_private(path, _text(made).encode(), 0o644)
    except OSError as error:
        raise MudError(
            f"{path}: not written ({error.strerror}), it is as it was (make room, or mend its mode)"
        ) from None
    return path


def _read(path: Path, largest: int) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(largest + 1)
    except OSError as error:
        raise MudError(f"{path}: can't be read: {error.strerror} (name a file)") from None
    if len(raw) > largest:
        raise MudError(
            f"{path}: has more than {largest} bytes (that is no device's description, and no signature of one)"
        )
    return raw


def _signer(site: Site, file: Path, raw: bytes, authority: str, signature: str) -> str:
    """Who has signed it; empty where nobody has and nobody must. Raises `MudError`."""
    beside = Path(signature) if signature else file.with_name(f"{file.name}.p7s")
    if not signature and not beside.exists():
        beside = file.with_suffix(".p7s")
    if not beside.exists():
        if signature:
            raise MudError(f"{beside}: can't be read: no such file (name the .p7s that came with the MUD file)")
        if site.mud.signed:
            raise MudError(f"{file}: has no signature, and the site takes none without (put its .p7s beside it)")
        return ""
    given = authority or (str(site.mud.authority) if site.mud.authority else "")
    if not given:
        raise MudError(f"{beside}: nobody says whose signature is good (name the manufacturer's CA: --ca FILE)")
    return verified(raw, file, beside, Path(given))


def verified(raw: bytes, file: Path, signature: Path, authority: Path) -> str:
    """The name of who signed `raw` (detached CMS, RFC 5652), checked against a CA. Raises `MudError`."""
    if shutil.which("openssl") is None:
        raise MudError(f"{signature}: can't be checked: no openssl here (apt-get install openssl)")
    _read(authority, LARGEST)
    form = "PEM" if _read(signature, LARGEST_SIGNATURE).lstrip().startswith(b"-----BEGIN") else "DER"
    command = ["openssl", "cms", "-verify", "-binary", "-inform", form, "-in", str(signature)]
    command += ["-content", "/dev/stdin", "-CAfile", str(authority), "-no-CApath", "-no-CAstore"]
    # RFC 8520 §13.2 asks for no certain use of the certificate.
    command += ["-purpose", "any", "-out", "/dev/null", "-signer", "/dev/stdout"]
    try:
        done = subprocess.run(command, input=raw, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise MudError(f"{signature}: can't be checked: openssl has no end after {SECONDS} s") from None
    if done.returncode:
        said = [line for line in done.stderr.decode(errors="replace").splitlines() if "error" in line.lower()]
        why = said[-1].rpartition(":")[2].strip() or said[-1] if said else "refused"
        raise MudError(f"{file}: its signature is not good: {why[:100]} (download both once more; is it the right CA?)")
    found = re.search(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", done.stdout, re.DOTALL)
    return x509.load_pem_x509_certificate(found[0]).subject.rfc4514_string() if found else "a certificate of that CA"


def _entries(description: Description, model: str) -> dict[str, dict[str, Any]]:
    """Destinations for the flows: those with the same port share one."""
    grouped: dict[tuple[str, int], list[Flow]] = {}
    for flow in description.flows:
        grouped.setdefault((flow.transport, flow.port), []).append(flow)
    entries: dict[str, dict[str, Any]] = {}
    for number, ((transport, port), flows) in enumerate(grouped.items(), start=1):
        entry: dict[str, Any] = {}
        if addresses := [flow.network for flow in flows if flow.network]:
            entry["addresses"] = addresses
        if names := [flow.name for flow in flows if flow.name]:
            entry["names"] = names
        entries[f"{_slug(model)}-{number}"] = {**entry, "port": port, "transport": transport, "models": [model]}
    return entries


def _slug(model: str) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")[:40] or "model"
    # Two models may look alike without what a name can't hold.
    return f"mud-{plain}-{hashlib.sha256(model.encode()).hexdigest()[:6]}"


def _flows(entry: Mapping[str, Any]) -> list[Flow]:
    transport, port = entry.get("transport", "tcp"), entry.get("port", 0)
    found = [Flow(transport, port, name=name) for name in entry.get("names", ())]
    return found + [Flow(transport, port, network=network) for network in entry.get("addresses", ())]


def _before(site: Site, model: str) -> dict[str, Any]:
    """What an earlier import for the model has left."""
    return {n: e for n, e in destinations.read(path_of(site)).items() if re.fullmatch(rf"{_slug(model)}-\d+", n)}


def _text(made: Plan) -> str:
    """The file with this model's part replaced; what else is in it stays as it is."""
    path, slug = path_of(made.site), _slug(made.model)
    old = (
        path.read_text()
        if path.exists()
        else "# What devices may use on the internet, beside what stands in the site's file.\n"
    )
    begin, end = f"# {slug}: imported, and replaced by the next import", f"# {slug}: end"
    kept = re.sub(rf"\n*^{re.escape(begin)}\n.*?^{re.escape(end)}\n", "\n", old, flags=re.MULTILINE | re.DOTALL)
    said = made.description
    source = f"# from {said.url or 'no URL'}, of {said.updated or 'no date'}, SHA-256 {made.digest}"
    signed = f"# signed by {made.signer}" if made.signer else "# not signed"
    part = f"{begin}\n{source}\n{signed}\n{destinations.tables(made.entries)}{end}\n"
    return f"{kept.rstrip()}\n\n{part}"


def _try(made: Plan) -> None:
    """Loads the site as it would be. Raises `SiteError`, or `MudError` where the site would not take notice."""
    path = path_of(made.site)
    with destinations.tried(path, _text(made).encode()):
        there = load(made.site.name, ROOT).destinations
    if not made.entries.keys() <= there.keys():
        shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        raise MudError(
            f"inventories/group_data/{made.site.name}.py: does not read {shown}"
            f' (add **read_destinations(Path(__file__).parent.parent / "destinations" / "{made.site.name}.toml") to its'
            " destinations)"
        )
