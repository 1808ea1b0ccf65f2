"""What a gateway is made of, as a bill of materials in CycloneDX 1.6 (ECMA-424), out of what dpkg says."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from gatehouse.errors import GatehouseError

MAKERS: Mapping[str, str] = {"grafana": "grafana", "grafana-enterprise": "grafana", "influxdb2": "influxdata"}
"""Packages that are not Debian's, where a site has them, and whose they are."""

QUESTION = r"""set -e
. /etc/os-release
printf 'os\t%s\t%s\t%s\n' "$ID" "$VERSION_ID" "$(cat /etc/debian_version)"
printf 'kernel\t%s\n' "$(uname -r)"
[ ! -r /usr/lib/gatehouse/VERSION ] || sed -n 's/^\(version\|commit\) /kit\t\1\t/p' /usr/lib/gatehouse/VERSION
fields='${db:Status-Status}\t${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}'
dpkg-query -W -f "package\t$fields\n"
"""
"""Shell that answers with lines of fields between tabs; it changes nothing."""


class SbomError(GatehouseError):
    """An answer that is no list of packages."""


@dataclass(frozen=True)
class Package:
    """An installed package, and the source package that vulnerabilities are filed under."""

    name: str
    version: str
    architecture: str
    source: str
    source_version: str

    def purl(self, distribution: str, release: str) -> str:
        """Its package URL (the purl specification, type `deb`): `pkg:deb/debian/adduser@3.134?arch=all&distro=…`."""
        vendor = MAKERS.get(self.name, distribution)
        return (
            f"pkg:deb/{_part(vendor)}/{_part(self.name)}@{_part(self.version)}"
            f"?arch={_part(self.architecture)}&distro={_part(distribution)}-{_part(release)}"
        )


@dataclass(frozen=True)
class Answer:
    """What a gateway says of itself. `commit` is the kit's that it was deployed from, empty if it never was."""

    distribution: str
    release: str
    point_release: str
    kernel: str
    kit: str
    commit: str
    packages: tuple[Package, ...]


def _part(text: str) -> str:
    return quote(text, safe="")


def answer(text: str) -> Answer:
    """Reads what `QUESTION` printed. Raises `SbomError`."""
    system, kernel, kit, packages = ("", "", ""), "", {}, []
    for line in text.splitlines():
        match line.split("\t"):
            case ["os", name, release, point]:
                system = name, release, point
            case ["kernel", release]:
                kernel = release
            case ["kit", key, value]:
                kit[key] = value
            case ["package", status, name, version, architecture, source, source_version]:
                if status == "installed":
                    packages.append(Package(name, version, architecture, source, source_version))
            case _:
                raise SbomError(f"{line[:60]!r} is nothing that dpkg-query says (is this Debian?)")
    if not packages or not system[0]:
        raise SbomError("no installed package was named (is this Debian?)")
    packages.sort(key=lambda package: (package.name, package.architecture))
    return Answer(*system, kernel, kit.get("version", ""), kit.get("commit", ""), tuple(packages))


def cyclonedx(site: str, gateway: str, found: Answer, now: datetime) -> dict[str, Any]:
    """The bill of materials of a gateway; `now` is UTC."""
    root, components = f"{site}/{gateway}", _components(found)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": now.isoformat(timespec="seconds"),
            "component": {"type": "device", "bom-ref": root, "name": gateway, "group": site},
        },
        "components": components,
        "dependencies": [{"ref": root, "dependsOn": [component["bom-ref"] for component in components]}],
    }


def _components(found: Answer) -> list[dict[str, Any]]:
    components: list[dict[str, Any]] = [
        {
            "type": "operating-system",
            "bom-ref": "os",
            "name": found.distribution,
            "version": found.point_release or found.release,
            "properties": [{"name": "gatehouse:kernel", "value": found.kernel}],
        }
    ]
    if found.kit:
        components.append(
            {
                "type": "application",
                "bom-ref": "gatehouse",
                "name": "gatehouse",
                "version": found.kit,
                "properties": [{"name": "gatehouse:commit", "value": found.commit}],
            }
        )
    for package in found.packages:
        purl = package.purl(found.distribution, found.release)
        components.append(
            {
                "type": "library",
                "bom-ref": purl,
                "name": package.name,
                "version": package.version,
                "purl": purl,
                "properties": [
                    {"name": "gatehouse:source", "value": package.source},
                    {"name": "gatehouse:source-version", "value": package.source_version},
                ],
            }
        )
    return components
