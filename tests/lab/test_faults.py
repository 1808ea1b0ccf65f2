"""What goes wrong on the way: each ends in one line that says where, what and the mend, and the next run converges."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import labs
from gatehouse.identity import new_identity
from lab.state import State
from tests.checkout import ROLE_FILE, SITE_FILE, Checkout, Run
from tests.lab.gateways import Gateway, wait

pytestmark = pytest.mark.timeout(900)

KILLS = 10
# Another number kills at other moments.
SEED = int(os.environ.get("GATEHOUSE_SEED", "20240229"))
# What pyinfra prints that is neither an error nor a gateway's answer.
PROGRESS = re.compile(r"^(-->.*\.\.\.|-->.*No hosts remaining!|Loading: .*|\[\S+\] +(Connected|Ready: \S+))$")


def says(run: Run, *words: str) -> None:
    """The run failed, and in one line of its errors says all the words."""
    assert run.status == 1, run.text
    assert "Traceback" not in run.text
    lines = [line.strip() for line in run.err.splitlines()]
    telling = [line for line in lines if line and not PROGRESS.match(line)]
    assert [line for line in telling if all(word in line for word in words)], (words, telling)


def is_refused(checkout: Checkout, *words: str) -> None:
    """A deploy and a plan are refused, both in one line with all the words."""
    says(checkout.deploy(), *words)
    plan = checkout.invoke("plan")
    says(plan, *words, "lab: ")
    assert len(plan.err.splitlines()) == 1, plan.err
    assert plan.out == ""


@contextlib.contextmanager
def moved(gateway: Gateway, path: str) -> Iterator[None]:
    """Without a file of the gateway."""
    gateway(f"mv {path} /root/moved")
    try:
        yield
    finally:
        gateway(f"mv /root/moved {path}")


@contextlib.contextmanager
def small(gateway: Gateway, path: str, kilobytes: int) -> Iterator[None]:
    """With a folder of the gateway on a file system of its own with no more room than that."""
    gateway(f"cp -a {path} /root/small; mount -t tmpfs -o size=1g small {path}; cp -a /root/small/. {path}/")
    used = int(gateway(f"df --output=used -k {path} | tail -1"))
    gateway(f"mount -o remount,size={used + kilobytes}k {path}")
    try:
        yield
    finally:
        gateway(f"umount {path}; rm -rf /root/small")


def test_a_gateway_that_is_off_is_named_with_its_address(gateway: Gateway, changed: Checkout) -> None:
    changed.edit(SITE_FILE, ('"10.10.20.1/24"', '"10.10.20.77/24"'))
    is_refused(changed, "[gateway]", "Could not connect", "10.10.20.77", "is it on")
    gateway.stays_converged()


def test_a_key_that_the_gateway_does_not_know_is_refused(gateway: Gateway, changed: Checkout, tmp_path: Path) -> None:
    stranger = State("stranger", tmp_path)
    stranger.prepare()
    changed.edit(SITE_FILE, ('"contact": {"key": str(_state.key)}', f'"contact": {{"key": "{stranger.key}"}}'))
    is_refused(changed, "[gateway]", "Authentication error", str(stranger.key), "use a key that")
    gateway.stays_converged()


def test_a_changed_host_key_is_refused_until_it_is_pinned(gateway: Gateway, here: Checkout) -> None:
    key = "/etc/ssh/ssh_host_ed25519_key"
    gateway(f"rm {key} {key}.pub; ssh-keygen -q -t ed25519 -N '' -C '' -f {key}; systemctl restart ssh")
    is_refused(here, "[gateway]", "SSH host key error", "remove its line from", "known_hosts", "lab.up")
    labs.build(here.site)
    gateway.stays_converged()


def test_a_gateway_without_sudo_is_refused(gateway: Gateway, here: Checkout) -> None:
    with moved(gateway, "/usr/bin/sudo"):
        is_refused(here, "[gateway]", "can't act as root", "sudo: command not found", "log in as root")
    gateway.stays_converged()


def test_an_administrator_who_may_not_use_sudo_is_refused(gateway: Gateway, here: Checkout) -> None:
    with moved(gateway, "/etc/sudoers.d/50-gatehouse"):
        is_refused(here, "[gateway]", "can't act as root", "a password is required", "sudo NOPASSWD")
    gateway.stays_converged()


@pytest.fixture
def hardened(gateway: Gateway, here: Checkout) -> Gateway:
    """The gateway after `invoke harden`, which gives the lab's own devices an identity before it asks the gateway."""
    labs.enrol(here.site)
    gateway.converge()
    return gateway


def test_a_machine_that_is_not_debian_is_refused(hardened: Gateway, here: Checkout) -> None:
    release = "/usr/lib/os-release"
    hardened(
        f"cp -a {release} /root/release; sed -i 's/^ID=.*/ID=ubuntu/; s/^VERSION_ID=.*/VERSION_ID=24.04/' {release}"
    )
    try:
        is_refused(here, "[gateway]", "runs 'ubuntu 24.04', not Debian 12 or Debian 13", "install one of them")
        says(here.invoke("harden"), "[gateway]", "runs 'ubuntu 24.04'")
    finally:
        hardened(f"mv /root/release {release}")
    hardened.stays_converged()


def test_a_port_or_trunk_that_is_not_there_is_refused_and_the_others_are_named(
    gateway: Gateway, changed: Checkout
) -> None:
    changed.edit(SITE_FILE, ('"guest": {"interface": "port-guest"', '"guest": {"trunk": "eth9"'))
    is_refused(changed, "[gateway]", "has no interface eth9,", "port-iot", "correct the name, or plug it in")
    gateway.stays_converged()


def test_a_gateway_with_too_little_room_is_refused_before_anything_is_changed(gateway: Gateway, here: Checkout) -> None:
    with small(gateway, "/var/cache/apt", 20_000):
        is_refused(here, "[gateway]", "MB free on /var/cache/apt, 100 are needed", "free some space")
    gateway.stays_converged()


def test_a_disk_that_fills_up_leaves_the_file_as_it_was(gateway: Gateway, changed: Checkout) -> None:
    ruleset = "/etc/gatehouse/firewall.nft"
    before = gateway(f"cat {ruleset}")
    changed.edit(f"templates/nftables{ruleset}.j2", ("\tchain icmp_in {", f"\t#{' full' * 2000}\n\tchain icmp_in {{"))
    with small(gateway, "/etc/gatehouse", 4):
        says(changed.deploy(), "[gateway] gatehouse:", f"{ruleset} not written: it is as it was", "is there room?")
        assert gateway(f"cat {ruleset}") == before
        assert "gatehouse-new" not in gateway("ls -A /etc/gatehouse")
    gateway.converge()


@pytest.mark.parametrize("missing", ["vault.age", "identity.age"])
def test_a_missing_file_of_the_vault_is_named(gateway: Gateway, here: Checkout, missing: str) -> None:
    assert here.site.state is not None
    path = here.site.state / missing
    path.rename(path.with_name("moved"))
    try:
        is_refused(here, str(path), {"vault.age": "no vault (", "identity.age": "no such identity file"}[missing])
    finally:
        path.with_name("moved").rename(path)
    gateway.stays_converged()


def test_an_identity_that_does_not_open_the_vault_is_refused(
    gateway: Gateway, changed: Checkout, tmp_path: Path
) -> None:
    recipient = new_identity(tmp_path / "stranger.age")
    changed.environment["GATEHOUSE_IDENTITY"] = str(tmp_path / "stranger.age")
    is_refused(changed, "vault.age: this identity is not among its recipients", recipient, "use the identity")
    gateway.stays_converged()


@pytest.mark.parametrize(
    ("slip", "words"), [("{{ nothing.there }}", "'nothing' is undefined"), ("{% if %}", "Expected an expression")]
)
def test_a_slip_in_a_template_is_named_with_its_line(
    gateway: Gateway, changed: Checkout, slip: str, words: str
) -> None:
    changed.edit("templates/chrony/etc/chrony/chrony.conf.j2", ("{{ header }}\n", f"{{{{ header }}}}\n{slip}\n"))
    is_refused(changed, "templates/chrony/etc/chrony/chrony.conf.j2: line 2: ", words, "mend the template")
    gateway.stays_converged()


def test_a_file_that_its_service_refuses_never_goes_live(gateway: Gateway, changed: Checkout) -> None:
    before = gateway("cat /etc/chrony/chrony.conf")
    changed.edit("templates/chrony/etc/chrony/chrony.conf.j2", ("{{ header }}\n", "{{ header }}\nnonsense\n"))
    says(changed.deploy(), "[gateway] gatehouse: the new files were not accepted, nothing is replaced")
    assert gateway("cat /etc/chrony/chrony.conf") == before
    gateway.converge()


def test_an_error_in_a_roles_code_fails_the_run_and_changes_nothing(gateway: Gateway, changed: Checkout) -> None:
    changed.edit(
        ROLE_FILE, ("def install() -> None:\n", "def install() -> None:\n    raise ValueError('broken role')\n")
    )
    done = changed.deploy()
    assert done.status == 1
    assert "broken role" in done.err
    gateway.stays_converged()


def test_of_two_deploys_at_once_the_second_says_who_holds_the_lock(hardened: Gateway, here: Checkout) -> None:
    with deploy_that_stands_still(hardened, here) as first:
        is_refused(here, "[gateway]", "another deploy is running: ", " since ", "wait for it to end")
        says(here.invoke("harden"), "another deploy is running: ")
    assert first.wait(120) == 0
    hardened.stays_converged()


@contextlib.contextmanager
def deploy_that_stands_still(gateway: Gateway, checkout: Checkout) -> Iterator:
    """A deploy that has its lock and does nothing for the length of the block."""
    first = checkout.start("pyinfra", "-y", "inventories/lab", "deploy.py")
    try:
        gateway.until("! flock -n /run/gatehouse-deploy.lock true", 60)
        first.send_signal(signal.SIGSTOP)
        assert first.poll() is None, "the deploy ended before it could be stopped"
        yield first
    finally:
        first.send_signal(signal.SIGCONT)


def refuses_a_way_that_ends(gateway: Gateway, checkout: Checkout) -> None:
    """Come to by another address than the one at which it is administered later, the gateway is not deployed to."""
    other, known = "10.10.20.99", checkout.site.state / "known_hosts"
    checkout.edit(SITE_FILE, ('"contact": {', f'"contact": {{"address": "{other}", '))
    pinned = known.read_text()
    known.write_text(pinned + pinned.replace("10.10.20.1 ", f"{other} "))
    gateway(f"ip address add {other}/24 dev port-mgmt")
    try:
        is_refused(checkout, "[gateway]", f"you have come to {other}, where no SSH answers once it is hardened")
    finally:
        known.write_text(pinned)
        gateway(f"ip address del {other}/24 dev port-mgmt")


def test_a_mirror_that_is_down_is_named_and_the_next_run_converges(
    fresh_gateway: Gateway, here: Checkout, changed: Checkout
) -> None:
    refuses_a_way_that_ends(fresh_gateway, changed)
    down = "table inet down { chain f { type filter hook forward priority -10; tcp dport 1-65535 reject; }; }"
    fresh_gateway.elsewhere("internet", f"nft '{down}'")
    try:
        says(here.deploy(), "[gateway] gatehouse: no packages installed", "does the mirror in /etc/apt answer")
    finally:
        fresh_gateway.elsewhere("internet", "nft delete table inet down")
    assert fresh_gateway.half_written() == ""
    fresh_gateway.converge()


def test_a_deploy_killed_at_ten_random_moments_goes_on_from_there(
    fresh_gateway: Gateway, here: Checkout, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    moments = sorted(chance.uniform(0, 1) for _ in range(KILLS))
    print(f"seed {SEED}")
    total = len(re.findall(r"^    \S.* \| ", here.pyinfra("--dry").err, re.MULTILINE))
    killed = 0
    for number, moment in enumerate(moments, start=1):
        # The first is killed while it installs, which takes longest; the others wherever chance has it.
        place = int(moment * (total - 4)) if number > 1 else 0
        delay = chance.uniform(0, 1 if place else 12)
        print(f"kill {number}: {kill_one(here, tmp_path / str(number), place, delay)}")
        killed += 1
        # The gateway may notice only by its own question (ClientAliveInterval) that the other side is gone.
        fresh_gateway.until("flock -n /run/gatehouse-deploy.lock true", 60)
    assert killed == KILLS
    fresh_gateway.converge()


def kill_one(checkout: Checkout, log: Path, place: int, delay: float) -> str:
    """Kill a deploy `delay` seconds after its operation number `place` began, or sooner if it is about to end."""
    begins = re.compile(r"Starting operation: (.*)")
    with log.open("wb") as output:
        process = checkout.start("pyinfra", "-y", "inventories/lab", "deploy.py", output=output)

        def begun() -> list[str]:
            return begins.findall(log.read_text(errors="replace"))

        wait(lambda: len(begun()) > place or process.poll() is not None, f"operation {place}", 120)
        with contextlib.suppress(AssertionError):
            wait(lambda: len(begun()) > place + 1 or process.poll() is not None, "the next operation", delay)
        assert process.poll() is None, f"it ended before it could be killed: {log.read_text()[-2000:]}"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"operation {place}, {begun()[-1].strip()}, {delay:.2f} s"


def test_a_site_that_is_no_lab_is_asked_about_before_anything_is_changed(gateway: Gateway, changed: Checkout) -> None:
    changed.edit(SITE_FILE, ("    lab=True,\n", ""))
    changed.edit("templates/chrony/etc/chrony/chrony.conf.j2", ("{{ header }}\n", "{{ header }}\n# new\n"))
    asked = changed.invoke("harden")
    assert asked.status == 1, asked.text
    assert "gateway: Time | Configure chrony" in asked.out
    assert asked.err == "no terminal to ask on: nothing was changed (add --yes)\n"
    gateway.stays_converged()
