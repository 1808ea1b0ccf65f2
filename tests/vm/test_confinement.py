"""AppArmor on a kernel that has it: what faces a network is held to its profile, and the proof knows when it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from roles.apparmor import CONFINED, FOLDER, profile
from roles.auditd import LOGS
from tests.vm.machines import GATEWAY, Machines

pytestmark = pytest.mark.timeout(3600)

CHECK = "host.apparmor", "confinement"
BROKER = CONFINED["mosquitto"]
PROFILE = f"{FOLDER}/{profile('mosquitto')}"


def test_what_faces_a_network_is_held_to_its_profile_and_does_its_work(hardened: Machines, tmp_path: Path) -> None:
    assert hardened.verdict(tmp_path, *CHECK) == ("proven", "")
    # Where auditd runs, it is told; before that the kernel's own log is.
    denied = hardened(GATEWAY, f"{{ dmesg; cat {LOGS}/audit.log*; }} | grep 'apparmor=\"DENIED\"' || true")
    assert 'profile="gatehouse-' not in denied


def test_a_profile_that_only_complains_is_seen(hardened: Machines, tmp_path: Path) -> None:
    hardened(GATEWAY, f"apparmor_parser --replace --Complain {PROFILE}")
    try:
        assert hardened.verdict(tmp_path, *CHECK) == ("failed", f"{profile('mosquitto')} is not enforced")
    finally:
        hardened(GATEWAY, f"apparmor_parser --replace {PROFILE}")
    assert hardened.verdict(tmp_path, *CHECK)[0] == "proven"


def test_a_profile_of_debian_s_that_only_complains_is_seen_if_something_runs_by_it(
    hardened: Machines, tmp_path: Path
) -> None:
    clock = "/etc/apparmor.d/usr.sbin.chronyd"
    hardened(GATEWAY, f"apparmor_parser --replace --Complain {clock}")
    try:
        assert hardened.verdict(tmp_path, *CHECK) == ("failed", "/usr/sbin/chronyd is not enforced")
    finally:
        hardened(GATEWAY, f"apparmor_parser --replace {clock}")
    idle = "profile nobodys /usr/bin/nobodys flags=(complain) { }"
    hardened(GATEWAY, "apparmor_parser --replace --skip-cache", stdin=idle)
    try:
        assert hardened.verdict(tmp_path, *CHECK)[0] == "proven"
    finally:
        hardened(GATEWAY, "apparmor_parser --remove", stdin=idle)


def test_a_broker_that_runs_without_its_profile_is_seen(hardened: Machines, tmp_path: Path) -> None:
    drop_in = f"/run/systemd/system/{BROKER}.d/99-loose.conf"
    loose = f"mkdir -p $(dirname {drop_in}) && printf '[Service]\\nAppArmorProfile=unconfined\\n' >{drop_in}"
    restart = f"systemctl daemon-reload && systemctl restart {BROKER}"
    hardened(GATEWAY, f"{loose} && {restart}")
    try:
        verdict, reason = hardened.verdict(tmp_path, *CHECK)
    finally:
        hardened(GATEWAY, f"rm -f {drop_in}; {restart}")
    assert (verdict, reason) == ("failed", f"{BROKER}: unconfined, not {profile('mosquitto')} (enforce)")
    assert hardened.verdict(tmp_path, *CHECK)[0] == "proven"


def test_the_kernel_refuses_a_program_what_its_profile_does_not_name(hardened: Machines) -> None:
    command = "/usr/sbin/mosquitto -c /etc/gatehouse/dnsmasq.conf 2>&1 || true"
    # root reads that file, and the broker finds that it is none of its own; held to its profile it can't open it.
    assert "Unknown configuration variable" in hardened(GATEWAY, command)
    held = hardened(GATEWAY, f"aa-exec -p {profile('mosquitto')} -- {command}")
    assert "Unable to open config file" in held
