"""What is refused before a deploy changes anything, as far as it can be seen without a gateway."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from deploy import session
from gatehouse.identity import Pki
from gatehouse.identity.store import SecretStore
from gatehouse.site import Site
from roles.target import Target
from tests.unit.test_site_model import changed, description


def target(site: Site) -> Target:
    return Target(site, "gw", lambda: Pki(SecretStore(), "home", "home.arpa", ["10.0.0.0/8"]))


def test_a_fresh_gateway_is_not_deployed_to_where_it_would_answer_no_more() -> None:
    here = target(Site(**description()))
    for way in ("10.10.20.7 40000 10.10.20.1 22", ""):  # nothing is known where SSH says nothing
        session._refuse_a_way_that_ends(here, way)
    for address in ("192.168.1.7", "10.10.10.1", "2001:db8::7"):
        with pytest.raises(session.Unsuitable, match=rf"come to {address}, .*give it 10\.10\.20\.1 first"):
            session._refuse_a_way_that_ends(here, f"192.168.1.2 40000 {address} 22")


def test_it_is_where_the_site_lets_more_segments_administer() -> None:
    wide = target(Site(**changed("settings", {"ssh": {"reachable_from": {"ssh": ["management", "iot"]}}})))
    session._refuse_a_way_that_ends(wide, "10.10.10.7 40000 10.10.10.1 22")
    with pytest.raises(session.Unsuitable):
        session._refuse_a_way_that_ends(wide, "192.168.1.2 40000 192.168.1.7 22")


def test_a_port_that_is_not_there_is_named_with_those_that_are() -> None:
    site = Site(**changed("gateways/gw/networks/iot/trunk", "nowhere9"))
    asked = session._absent_ports(site.gateways["gw"])
    done = subprocess.run(["sh", "-c", f"{asked} echo went on"], capture_output=True, text=True)
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert done.returncode == 75 and "nowhere9" in said["absent"].split() and "went" not in said, done.stderr
    with pytest.raises(session.Unsuitable, match=r"has no interface .*nowhere9.*there are: eth7; correct the name"):
        session._refuse_unsuitable({"system": "debian 12", "absent": said["absent"], "interfaces": "eth7"})
    there = re.sub(r"for p in [^;]*;", "for p in lo;", asked)
    assert subprocess.run(["sh", "-c", f"{there} echo went on"], capture_output=True, text=True).stdout == "went on\n"


@pytest.mark.parametrize("transport", ["usb", "sata"])
def test_usb_storage_is_not_refused_under_a_file_system_that_is_on_it(tmp_path: Path, transport: str) -> None:
    mounted, disks = "/dev/sdb1 /srv\n/dev/mapper/root /\ntmpfs /run\n", f"root \nsda2 \nsda {transport}\n"
    for name, said in (("findmnt", mounted), ("lsblk", disks)):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n[ \"$3\" = /dev/sdb1 ] || cat <<'END'\n{said}END\n")
        program.chmod(0o755)
    site = Site(**changed("gateways/gw/usb_storage", False))
    asked = f"PATH={tmp_path}:$PATH;{session._disks_in_the_way(site.gateways['gw'])} echo went on"
    done = subprocess.run(["sh", "-c", asked], capture_output=True, text=True)
    if transport != "usb":
        assert done.stdout == "went on\n", done
        return
    assert (done.returncode, done.stdout) == (75, "usb / sda\n"), done
    with pytest.raises(
        session.Unsuitable, match=r"usb_storage=False.*/ is on the USB disk sda \(leave usb_storage out"
    ):
        session._refuse_unsuitable({"system": "debian 12", "usb": "/ sda"})


def test_a_gateway_that_takes_usb_storage_is_not_asked_where_its_disks_are() -> None:
    assert session._disks_in_the_way(Site(**description()).gateways["gw"]) == ""
