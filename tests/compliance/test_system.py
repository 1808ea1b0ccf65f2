"""What runs on the gateway and where it came from: programs, packages, memory, limits, radios, and who becomes root."""

from __future__ import annotations

import json
import re
import time

import pytest

from gatehouse.proof import expect
from gatehouse.proof.plugin import cannot_prove
from roles.kernel import radios
from roles.packages import NOTES
from tests.compliance import units
from tests.compliance.accounts import STRANGERS
from tests.compliance.system import archived, installed, programs, verified

ISVS = "OWASP-ISVS-1.0+main-2026-06"
# What a user of apt may have switched off, and what has no signature then.
UNSIGNED = re.compile(
    r'^(APT::Get::AllowUnauthenticated|Acquire::Allow(?:Insecure|Weak)Repositories) "(?:true|1|yes)"', re.MULTILINE
)
TRUSTED = (
    "grep -rsiE '^[^#]*(trusted|allow-insecure|allow-weak) *[=:] *(yes|true|1)' /etc/apt/sources.list"
    " /etc/apt/sources.list.d || true"
)
# Written by hand, so that it can be told from data: it runs a page that may only be read and written, where it can.
JUMP = """
import ctypes, faulthandler, mmap, os, platform, signal
code = {"x86_64": b"\\xc3", "aarch64": bytes.fromhex("c0035fd6")}.get(platform.machine())
if code is None:
    raise SystemExit("unknown")
child = os.fork()
if not child:
    # With a handler of its own the kernel logs no crash.
    faulthandler.enable(open(os.devnull, "w"))
    page = mmap.mmap(-1, mmap.PAGESIZE)
    page.write(code)
    ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
    os._exit(0)
_, status = os.waitpid(child, 0)
print("ran" if not status else signal.Signals(os.WTERMSIG(status)).name)
"""
# personality(2): ADDR_NO_RANDOMIZE and READ_IMPLIES_EXEC.
UNPROTECTED = (
    "for each in /proc/[0-9]*; do read -r value <$each/personality || continue;"
    ' [ $((0x$value & 0x0440000)) -eq 0 ] || echo "$(cat $each/comm) $value"; done 2>/dev/null'
)
MOST_TASKS = 2048
WIRELESS = "for each in /sys/class/net/*/phy80211; do [ ! -e $each ] || basename ${each%/phy80211}; done"


@pytest.mark.controls("IEC-62443-3-3/4-2:SR/CR 7.8", "IEC-62443-3-3/4-2:FR7", f"{ISVS}:1.1.2", f"{ISVS}:1.2.1")
@pytest.mark.check("host.inventory")
def test_every_program_that_runs_is_of_a_package_that_the_gateway_lists(live, evidence):
    """Whatever runs belongs to an installed package, which has a version: the bill of materials leaves out nothing."""
    found = programs(live)
    if not found:
        cannot_prove("not one program was seen to run")
    versions = installed(live)
    for path, package in found.items():
        version = versions.get(package, "")
        evidence({"from": "gateway", "sent": f"who has {path}", "got": f"{package} {version}".strip() or "nobody"})
    strays = [path for path, package in found.items() if not versions.get(package)]
    assert not strays, f"of no package: {', '.join(strays)}"


@pytest.mark.controls("IEC-62443-3-3/4-2:SR/CR 3.4")
@pytest.mark.asks("packages")
@pytest.mark.check("host.packages")
def test_what_runs_is_as_its_packages_brought_it(live, evidence):
    """dpkg compares each file of the packages that run, or that roles declare, with the digest that it came with:
    settings may differ, nothing else."""
    seen = verified(live)
    output = str(seen.result.get("output", ""))
    packages = seen.probe["argv"][2:]
    if len(packages) < 2 or "status" not in seen.result or (seen.result["status"] and not output):
        cannot_prove(f"dpkg compares nothing: {seen.result.get('error') or seen.outcome}")
    lines = [line.split() for line in output.splitlines()]
    # Three columns: a file of settings (`c`). Machines are set up without documents and translations.
    changed = [row[-1] for row in lines if len(row) == 2 and not row[-1].startswith("/usr/share/")]
    sent = f"dpkg --verify, {len(packages)} packages"
    evidence({"from": "gateway", "sent": sent, "got": changed or "nothing differs", "at": seen.result["at"]})
    assert not changed, f"changed or missing: {changed[0]}{f' and {len(changed) - 1} more' if changed[1:] else ''}"


@pytest.mark.controls(f"{ISVS}:1.3.4", "IEC-62443-3-3/4-2:SR/CR 3.4")
@pytest.mark.asks("archives")
@pytest.mark.check("host.sources")
def test_packages_come_from_signed_archives_and_from_nowhere_else(live, evidence, warn):
    """apt takes nothing that is not signed; each package is one of its archives, or one that the site pins."""
    dump = str(live.run("apt-config", "dump").result.get("output", ""))
    loose = UNSIGNED.findall(dump)
    evidence({"from": "gateway", "sent": "apt-config: what need not be signed", "got": loose or "nothing"})
    assert not loose, f"{loose[0]}: packages without a signature are installed"
    trusted = str(live.run("sh", "-c", TRUSTED).result.get("output", "")).split("\n")[:-1]
    assert not trusted, f"a source is trusted without a signature: {trusted[0]}"
    rows = archived(live)
    if not rows or all("local" in state for _, state in rows):
        cannot_prove("apt knows no archive: its lists are not there")
    pinned = from_pinned_files(live)
    local = [name for name, state in rows if "local" in state and name not in pinned]
    # Debian takes old kernels out of its archive while machines still have them.
    kernels = [name for name in local if name.startswith("linux-")]
    strays = sorted(set(local) - set(kernels))
    evidence(
        {"from": "gateway", "sent": "apt list --installed", "got": f"{len(rows)}, of no archive: {local or 'none'}"}
    )
    if kernels:
        warn(f"{kernels[0]} is in no archive any more: start the gateway again, and apt removes it")
    assert not strays, f"of no archive: {', '.join(strays)}"


def from_pinned_files(live):
    """The packages that the kit installed from a file whose SHA-256 stands in the site."""
    files = [given.package for given in (live.site.dashboards, live.site.database) if given and given.package]
    noted = str(live.run("sh", "-c", f"cd {NOTES} && grep -H . *").result.get("output", "")).splitlines()
    return {name for name, _, digest in (line.partition(":") for line in noted) if digest in {f.sha256 for f in files}}


@pytest.mark.controls(f"{ISVS}:3.2.7")
@pytest.mark.check("host.memory")
def test_memory_is_laid_out_at_random_and_data_is_not_run(live, evidence):
    """Each start of a program has addresses of its own, a page of data can't be run, and nothing here is exempt."""
    places = live.run("sh", "-c", "for i in 1 2 3; do grep -m1 stack /proc/self/maps; done")
    starts = [line.partition("-")[0] for line in str(places.result.get("output", "")).splitlines()]
    evidence({"from": "gateway", "sent": "the stack of the same program, three times", "got": starts})
    if len(starts) < 3:
        cannot_prove(f"no stack was seen: {places.result.get('error') or places.outcome}")
    assert len(set(starts)) > 1, f"each time at {starts[0]}"
    ran = str(live.run("python3", "-I", "-c", JUMP).result.get("output", "")).strip()
    evidence({"from": "gateway", "sent": "a jump into a page of data", "got": ran})
    assert ran != "ran", "what is written into a page of data can be run"
    if ran not in ("SIGSEGV", "SIGBUS"):
        cannot_prove(f"no page of data could be tried: {ran or 'no word'}")
    exempt = str(live.run("sh", "-c", UNPROTECTED).result.get("output", "")).splitlines()
    evidence({"from": "gateway", "sent": "programs that are exempt (personality)", "got": exempt or "none"})
    assert not exempt, f"runs without this: {exempt[0]}"


# Where the kernel says how much memory a group of processes may have: the first that is there.
HELD = (
    "/sys/fs/cgroup{}/memory.max",
    "/sys/fs/cgroup/memory{}/memory.limit_in_bytes",
    "/sys/fs/cgroup/unified{}/memory.max",
)


@pytest.mark.controls(f"{ISVS}:3.3.2", "IEC-62443-3-3/4-2:SR/CR 7.1", "IEC-62443-3-3/4-2:FR7")
@pytest.mark.check("host.limits")
def test_a_service_that_strangers_talk_to_can_take_no_more_than_its_share(live, evidence):
    """Each program that faces a network has an end to its memory and its processes, and the kernel holds it to that."""
    memory = int(str(live.run("grep", "MemTotal", "/proc/meminfo").result["output"]).split()[1]) << 10
    # Of sshd a person's session would be held to it, too.
    facing = [each for each in live.site.services_of(live.name) if each.network_facing and not each.unconfined]
    states = {unit: units.properties(live)[unit] for service in facing for unit in service.units}
    # A tunnel is the kernel's; what does not run is another check's matter.
    states = {unit: state for unit, state in states.items() if state.get("MainPID", "0") != "0"}
    if not states:
        cannot_prove("no program faces a network here")
    limits = held(live, [state["ControlGroup"] for state in states.values()])
    for unit, state in states.items():
        most_held = limits.get(state["ControlGroup"], "")
        got = f"{state['MemoryMax']} bytes (the kernel: {most_held or 'no word'}), {state['TasksMax']} tasks"
        evidence({"from": "gateway", "sent": f"limits of {unit}", "got": got})
        for name, most in (("MemoryMax", memory - 1), ("TasksMax", MOST_TASKS)):
            value = state[name]
            assert value.isdecimal() and int(value) <= most, f"{unit}: {name} is {value}, at most {most}"
        assert not most_held or most_held == state["MemoryMax"], f"{unit}: the kernel lets it have {most_held} bytes"
        if not most_held:
            cannot_prove("this kernel has no limits of memory by group (cgroup)")


def held(live, groups):
    """`{group: the bytes of memory that the kernel lets it have}`, without those of which it says nothing."""
    places = {place.format(group): group for group in groups for place in HELD}
    found = str(live.run("grep", "-s", "-H", "-m", "1", "", *places).result.get("output", ""))
    said = dict(line.rsplit(":", 1) for line in found.splitlines())
    return {places[place]: said[place] for place in reversed(places) if place in said}


@pytest.mark.controls("CIS-Debian-12-v1.1.0:3.1.2", "CIS-Debian-12-v1.1.0:3.1.3", f"{ISVS}:4.4.1")
@pytest.mark.check("host.radios")
def test_no_radio_is_on_that_the_site_does_not_name(live, evidence):
    """No service of Wi-Fi or Bluetooth runs or starts, and no wireless interface is there, but those the site names."""
    ports = {n.interface or n.trunk or "" for n in live.site.gateways[live.name].networks.values()}
    there = set(str(live.run("sh", "-c", WIRELESS).result.get("output", "")).split())
    evidence({"from": "gateway", "sent": WIRELESS, "got": sorted(there) or "none", "named": sorted(there & ports)})
    up = [name for name in sorted(there - ports) if "UP" in interface_flags(live, name)]
    assert not up, f"{up[0]} is wireless, up, and in no segment"
    for unit in radios(ports):
        state = units.properties(live)[unit]
        active, file = state["ActiveState"], state["UnitFileState"]
        evidence({"from": "gateway", "sent": unit, "got": f"{active} {file}".strip()})
        assert active != "active", f"{unit} runs"
        assert file != "enabled", f"{unit} starts with the gateway"


def interface_flags(live, name):
    """What the kernel says of an interface: `UP`, `LOWER_UP`, …."""
    listed = json.loads(live.run("ip", "-j", "link", "show", "dev", name).result["output"])
    return listed[0]["flags"]


@pytest.mark.controls("CIS-Debian-12-v1.1.0:5.2.1-7", f"{ISVS}:2.2.2")
@pytest.mark.check("host.sudo")
def test_the_administrator_alone_becomes_root_in_a_terminal_of_its_own_and_it_is_noted(live, evidence):
    """sudo takes the administrator, in a terminal of its own, and logs what was run; others are refused, as by su."""
    mark = f"gatehouse-{time.time_ns()}"
    done = live.login(*live.same_connection, run=f"sudo -n echo {mark}; sudo -n -l")
    rules = " ".join(done.stdout.split())
    evidence({"from": "operator", "to": live.name, "sent": "sudo -n -l", "got": rules[:200] or done.stderr[-100:]})
    if live.administrator == "root" or mark not in done.stdout:
        cannot_prove("nobody but root administers this gateway: deploy first")
    assert re.search(r"Matching Defaults entries.*\buse_pty\b", rules), "what sudo runs can write into the terminal"
    noted = str(
        live.run("journalctl", "-q", "-t", "sudo", "-n", "20", "-o", "cat", "--no-pager").result.get("output", "")
    )
    lines = [line for line in noted.splitlines() if mark in line]
    evidence({"from": "gateway", "sent": "journalctl -t sudo", "got": lines or "nothing of it"})
    assert lines and live.administrator in lines[0], "what was run as root is in no log"
    # At the same time: su has whom it refuses wait.
    ways = [(account, way) for account in STRANGERS for way in (("sudo", "-n", "id", "-u"), ("su", "-c", "id -u"))]
    tries = [{"kind": "run", "argv": ["runuser", "-u", account, "--", *way]} for account, way in ways]
    for (account, (program, *_)), tried in zip(ways, live.ask({expect.GATEWAY: tries})[expect.GATEWAY], strict=True):
        got, status = str(tried.result.get("output", "")).strip(), tried.result["status"]
        evidence({"from": "gateway", "sent": f"{program} as {account}", "got": got or f"status {status}"})
        assert got != "0" and status != 0, f"{account} becomes root by {program}"
