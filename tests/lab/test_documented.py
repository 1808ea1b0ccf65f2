"""The examples of the documents that ask a gateway or a lab, run as they are written but for the lab's names."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lab.state import State
from tests.checkout import Checkout, Run
from tests.documented import example
from tests.lab.gateways import Gateway, wait

pytestmark = pytest.mark.timeout(600)

LAB = ("home", "lab")
# A package of this test's own, with a program and the digest of it.
PACKAGE = """
set -eu; cd "$(mktemp -d)"; mkdir -p p/DEBIAN p/usr/sbin
echo gift >p/usr/sbin/free-gift; chmod 0755 p/usr/sbin/free-gift
printf '%s\\n' 'Package: free-gift' 'Version: 1' 'Architecture: all' 'Maintainer: nobody <nobody@invalid>' \\
    'Description: of no archive' >p/DEBIAN/control
(cd p; md5sum usr/sbin/free-gift >DEBIAN/md5sums)
dpkg-deb --build p p.deb >/dev/null; dpkg --install p.deb; rm -rf "$PWD"
"""


def run(gateway: Gateway, command: str) -> Run:
    """`./kit TASK…`, without a terminal."""
    return gateway.checkout.invoke(*shlex.split(command)[1:])


def did(gateway: Gateway, command: str) -> str:
    """What it prints; it must succeed."""
    done = run(gateway, command)
    assert done.status == 0, done.text
    return done.out


def test_who_is_there_who_was_refused_and_what_a_gateway_is_made_of(gateway: Gateway) -> None:
    devices = gateway.checkout.site.devices
    listed = did(gateway, example("devices.md", "invoke devices --site home", LAB))
    assert {line.split()[0] for line in listed.splitlines()[1:]} == {device.name for device in devices}

    known = {device.hardware_address: device.name for device in devices if device.hardware_address}
    hardware = gateway.elsewhere("device", "cat /sys/class/net/e*/address").split()
    refused = example("network.md", "./kit refused --site home", LAB)
    before = did(gateway, refused)
    gateway.elsewhere("device", "nc -z -w 1 10.10.30.1 9 || true")
    wait(lambda: did(gateway, refused) != before, "the packet is counted", 20)
    assert any(known.get(address, address) in did(gateway, refused) for address in hardware)

    bill = json.loads(did(gateway, example("proof.md", "./kit sbom --site NAME", ("NAME", "lab"))))
    installed = gateway("dpkg-query -W -f '${Version}' mosquitto")
    assert (bill["bomFormat"], ("mosquitto", installed)) == (
        "CycloneDX",
        next((part["name"], part["version"]) for part in bill["components"] if part["name"] == "mosquitto"),
    )


def test_a_file_of_nobody_is_found_and_stays_found_until_it_is_accepted_or_gone(gateway: Gateway) -> None:
    looking = example("drift.md", "./kit integrity --site home", LAB)
    assert "nothing of nobody" in did(gateway, looking)
    gateway("install -m 0755 /usr/bin/true /usr/local/sbin/logrotated; chmod u+s /usr/bin/vmstat")
    for command in (looking, f"{looking} --last", f"{looking} --json"):
        done = run(gateway, command)
        assert done.status == 2, done.text
        assert "/usr/local/sbin/logrotated" in done.out and "/usr/bin/vmstat" in done.out
    drifted = run(gateway, "./kit drift --site lab")
    assert drifted.status == 2 and "has found files of nobody" in drifted.out, drifted.text

    accepting = example("drift.md", "./kit integrity --site home --accept", LAB)
    unasked = run(gateway, accepting)
    assert (unasked.status, unasked.err) == (1, "no terminal to ask on: nothing was changed (add --yes)\n")
    gateway("chmod u-s /usr/bin/vmstat")
    assert "lab: gateway: accepted" in did(gateway, f"{accepting} --yes")
    assert "files of nobody accepted by" in gateway("journalctl -t gatehouse -o cat -n 1")
    assert "nothing of nobody" in did(gateway, looking)
    gateway("rm /usr/local/sbin/logrotated")
    gone = run(gateway, looking)
    assert gone.status == 2 and "was of nobody, and accepted" in gone.out, gone.text
    did(gateway, f"{accepting} --yes")
    gateway.stays_converged()


def test_what_a_package_brings_and_takes_away_is_explained(gateway: Gateway) -> None:
    gateway(PACKAGE)
    assert "nothing of nobody" in did(gateway, "./kit integrity --site lab")
    assert gateway("grep -c sbin/free-gift /var/lib/gatehouse-integrity/aide.db").strip() == "1"
    gateway("printf x >>/usr/sbin/free-gift")
    changed = run(gateway, "./kit integrity --site lab")
    assert changed.status == 2 and "not as its package brought it" in changed.out, changed.text
    gateway("dpkg --purge free-gift")
    assert "nothing of nobody" in did(gateway, "./kit integrity --site lab")
    gateway.stays_converged()


def test_the_lab_is_repaired_listed_and_entered(gateway: Gateway) -> None:
    did(gateway, "./kit lab.up")
    hosts = {line.split()[0]: line.split()[2] for line in did(gateway, "./kit lab.status").splitlines()}
    assert hosts.keys() >= {"gateway", "device", "guest", "station", "server", "internet"}
    assert set(hosts.values()) == {"running"}
    entered = subprocess.run(
        [
            str(Path(sys.executable).with_name("invoke")),
            *shlex.split(example("README.md", "./kit lab.shell device"))[1:],
        ],
        cwd=gateway.checkout.root,
        input="hostname; exit 3\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (entered.returncode, entered.stdout) == (3, gateway.elsewhere("device", "hostname")), entered.stderr


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("./kit lab.shell nobody", "has no host 'nobody'"),
        ("./kit sbom --gateway nobody", "nobody"),
        ("./kit devices --site nowhere", "no inventories/nowhere"),
        ("./kit integrity --gateway nobody", "nobody"),
        ("./kit integrity --site nowhere --accept", "no inventories/nowhere"),
        ("./kit firmware.rollout --model nobody --version 1.0 --share 50%", "nobody"),
    ],
)
def test_what_can_t_work_is_said_in_a_line(lab_gateway: Gateway, command: str, said: str) -> None:
    done = run(lab_gateway, command)
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1), done.text
    assert said in done.err and "Traceback" not in done.err


def test_where_there_is_no_lab_it_is_said_and_to_remove_it_is_no_error(here: Checkout, lab_gateway: Gateway) -> None:
    none = Checkout(here.root, {"GATEHOUSE_LAB": f"{lab_gateway.name}-none"})
    missing = none.invoke("lab.status")
    assert (missing.status, missing.out) == (1, ""), missing.text
    assert missing.err == "there is no lab (`invoke lab.up` builds one)\n"
    removed = none.invoke("lab.down")
    assert removed.status == 0, removed.text
    assert not State(none.lab).directory.exists()
