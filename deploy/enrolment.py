"""Enrols a site's devices from this checkout: its vault, its registry, and the bundles in `out/SITE/`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from deploy import vaults
from deploy.inventory import ROOT
from gatehouse.identity import bundle
from gatehouse.identity.devicelist import read_list
from gatehouse.identity.enrolment import Enroller, EnrolmentError, Outcome, Request
from gatehouse.site import Site
from gatehouse.site.registry_writer import Registry


def bundles_path(site: Site) -> Path:
    """Where the bundles of a site's devices are: never committed. A lab's are called as the lab is."""
    return ROOT / "out" / (site.state.name if site.state else site.name)


def enrol_one(site: Site, request: Request, csr: str, partition: bool) -> Outcome:
    """Enrols a device; `csr` names the file of its certificate request, empty when it is to get a key."""
    if csr:
        try:
            request = Request(**{**vars(request), "csr": Path(csr).read_bytes()})
        except OSError as error:
            raise EnrolmentError(f"{csr}: can't be read ({error.strerror}); name the device's request") from None
    return _enroller(site).enrol([request], partitions=partition)


def enrol_list(site: Site, path: Path, keep_going: bool, partitions: bool) -> Outcome:
    """Enrols the devices of a CSV file, showing how far it is."""
    requests, unread = read_list(path)
    return _enroller(site).enrol(requests, _progress, keep_going, partitions, unread)


def refresh(site: Site, names: Sequence[str], partition: bool) -> list[str]:
    """Brings devices' bundles up to date, with a new NVS partition if asked for; returns a line for each."""
    if not names:
        raise EnrolmentError("no device named (add --name NAME)")
    enroller = _enroller(site)
    lines = []
    for name in names:
        changed = enroller.refresh(name)
        place = bundles_path(site) / name
        if partition:
            changed.append(bundle.write_partition(place).name)
        lines.append(f"{shown(place)}: {', '.join(changed) or 'up to date'}")
    return lines


def shown(path: Path) -> str:
    """A path as the operator types it."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def _enroller(site: Site) -> Enroller:
    vault = vaults.open_vault(site)
    pki = vaults.open_pki(site, vault)
    return Enroller(site, vault, pki, Registry(vaults.registry_path(site)), bundles_path(site))


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done:,} of {total:,} devices", end="\n" if done == total else "", file=sys.stderr, flush=True)
    else:
        print(f"{done} of {total} devices", file=sys.stderr, flush=True)
