"""A gateway's bill of materials: what dpkg says is in it, and what it does not say is not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from deploy import materials
from deploy.data import DataError
from deploy.inventory import ROOT
from gatehouse.proof import sbom
from gatehouse.site import load

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
SAID = """os\tdebian\t12\t12.11
kernel\t6.1.0-37-amd64
kit\tversion\t0.1
kit\tcommit\tabc
package\tinstalled\tlibstdc++6\t12.2.0-14+deb12u1\tamd64\tgcc-12\t12.2.0-14+deb12u1
package\tinstalled\tadduser\t1:3.134~rc\tall\tadduser\t3.134
package\tconfig-files\tgone\t1.0\tamd64\tgone\t1.0
package\tinstalled\tgrafana\t11.0.0\tamd64\tgrafana\t11.0.0
"""


def bill(text: str) -> dict[str, Any]:
    return sbom.cyclonedx("home", "gw", sbom.answer(text), NOW)


def test_every_installed_package_is_in_it_once_and_no_removed_one() -> None:
    made = bill(SAID)
    assert [(c["name"], c["version"]) for c in made["components"]] == [
        ("debian", "12.11"),
        ("gatehouse", "0.1"),
        ("adduser", "1:3.134~rc"),
        ("grafana", "11.0.0"),
        ("libstdc++6", "12.2.0-14+deb12u1"),
    ]
    assert made["dependencies"][0]["dependsOn"] == [c["bom-ref"] for c in made["components"]]
    assert (made["bomFormat"], made["specVersion"]) == ("CycloneDX", "1.6")


def test_package_urls_are_as_the_specification_writes_them_and_say_whose_a_package_is() -> None:
    urls = {c["name"]: c.get("purl") for c in bill(SAID)["components"]}
    assert urls["libstdc++6"] == "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12"
    assert urls["adduser"] == "pkg:deb/debian/adduser@1%3A3.134~rc?arch=all&distro=debian-12"
    assert urls["grafana"] == "pkg:deb/grafana/grafana@11.0.0?arch=amd64&distro=debian-12"


def test_the_source_package_is_named_since_vulnerabilities_are_filed_under_it() -> None:
    library = bill(SAID)["components"][-1]
    assert {"name": "gatehouse:source", "value": "gcc-12"} in library["properties"]


@pytest.mark.parametrize("said", ["", "sh: dpkg-query: not found", "os\tdebian\t12\t12.1\nkernel\t6\n", "package\tx"])
def test_what_is_no_list_of_packages_is_refused_in_one_line(said: str) -> None:
    with pytest.raises(sbom.SbomError, match=r"is this Debian\?") as refused:
        sbom.answer(said)
    assert "\n" not in str(refused.value)


def asked_here(monkeypatch: pytest.MonkeyPatch, script: str = "") -> None:
    """This machine in the place of the gateway: its own shell and its own dpkg."""

    @contextmanager
    def connected(*_: Any) -> Iterator[Any]:
        def run(asked: str) -> str:
            return subprocess.run(["sh", "-c", script or asked], capture_output=True, text=True, check=True).stdout

        yield SimpleNamespace(run=run)

    monkeypatch.setattr(materials, "connected", connected)


def test_a_real_dpkg_is_asked_and_all_that_it_has_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_here(monkeypatch)
    made = json.loads(materials.bill(load("lab", ROOT), "gateway"))
    listed = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\n"], capture_output=True, text=True, check=True
    ).stdout
    wanted = {line.split()[1] for line in listed.splitlines() if line.startswith("installed ")}
    assert {c["name"] for c in made["components"] if c["type"] == "library"} == wanted
    assert made["components"][0]["name"] == "debian" and made["metadata"]["component"]["name"] == "gateway"


def test_the_gateway_that_says_nonsense_and_one_that_does_not_exist_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_here(monkeypatch, "echo nonsense")
    with pytest.raises(sbom.SbomError, match=r"^gateway: 'nonsense' is nothing that dpkg-query says"):
        materials.bill(load("lab", ROOT), "")
    with pytest.raises(DataError, match="no gateway 'attic'"):
        materials.bill(load("lab", ROOT), "attic")
