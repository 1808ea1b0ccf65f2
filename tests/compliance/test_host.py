"""The gateway itself: what runs, how confined, whose the keys are, and what holds after the next start."""

from __future__ import annotations

import fnmatch
import json
import re
from collections import Counter

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from gatehouse.identity import jwt
from gatehouse.identity.authority import read_certificate
from gatehouse.identity.leaf import spki
from gatehouse.proof.plugin import cannot_prove
from roles.base import version
from roles.kernel import REFUSED, USB_STORAGE
from roles.kernel.deploy import settings
from roles.kernel.facts import Settings
from roles.kernel.operations import wanted
from roles.target import Target
from tests.compliance import system, units, web

LOG_AT_MOST = 1 << 30  # bytes: `SystemMaxUse` of the role journald
LOG_KEPT = "90day"  # `MaxRetentionSec`
# Days: that, and what a file may hold of before (`MaxFileSec`, a month), as files are deleted whole.
OLD_AT_MOST = 90 + 31
SPACE_USED = "MESSAGE_ID=ec387f577b844b8fa948f33cad9a75e6"  # systemd.journal-fields(7), SD_MESSAGE_JOURNAL_USAGE
EXPOSURE_AT_MOST = 2.0  # of `systemd-analyze security`: 0 is confined entirely, 10 not at all


def digest(public_key):
    from hashlib import sha256

    return sha256(spki(public_key)).hexdigest()


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.6-5")
@pytest.mark.check("host.runs-{service}")
def test_a_service_is_installed_runs_and_starts_by_itself(live, service, evidence):
    """The service's packages are installed, its units run, and they start with the gateway."""
    the_engine_is_deployed(live, service)
    for name in service.packages:
        package = system.packages(live).get(name)
        assert package and package.installed, f"{name} is not installed"
        evidence({"from": "gateway", "sent": f"package {name}", "got": package.version})
    for name in service.units:
        unit = units.running(live)[name]
        evidence({"from": "gateway", "sent": f"unit {name}", "got": f"{unit.active}, {unit.file}"})
        assert unit.runs, f"{name} does not run"
        assert unit.starts, f"{name} does not start with the gateway"
    if not (service.packages or service.units):
        cannot_prove("it declares neither packages nor units")


def the_engine_is_deployed(live, service):
    """An engine that Debian hasn't got may not be there yet; the kit's own files are there from its first deploy on."""
    engine = live.site.database.engine
    if not (service.from_maker or (service.engines and engine not in service.engines)):
        return
    if not any(live.exists(f"/etc/systemd/system/{unit}.d/50-gatehouse.conf") for unit in service.units):
        program = service.name if service.from_maker else engine
        cannot_prove(f"{program} is not deployed: its package could not be had")


@pytest.mark.network_facing
@pytest.mark.controls(
    "ETSI-EN-303-645-v3.1.3:5.6-7", "OWASP-ISVS-1.0+main-2026-06:3.3.1", "OWASP-ISVS-1.0+main-2026-06:3.3.3",
    "OWASP-ISVS-1.0+main-2026-06:3.3.4", "OWASP-ISVS-1.0+main-2026-06:2.2.2",
)  # fmt: skip
@pytest.mark.check("host.confines-{service}")
def test_a_service_that_strangers_talk_to_is_confined(live, service, evidence):
    """systemd rates each unit that faces a network as little exposed."""
    assert service.units, "declares no unit, so nothing can be confined"
    the_engine_is_deployed(live, service)
    for unit in service.units:
        exposure = rated(live, evidence, unit)
        if exposure is None:
            seen, _ = units.ratings(live)
            cannot_prove(f"systemd rates no {unit}: {seen.result.get('error') or seen.outcome}")
        if exposure > EXPOSURE_AT_MOST and service.unconfined:
            cannot_prove(f"{unit}: exposure {exposure}, at most {EXPOSURE_AT_MOST}: {service.unconfined}")
        assert exposure <= EXPOSURE_AT_MOST, f"{unit}: exposure {exposure}, at most {EXPOSURE_AT_MOST}"


def rated(live, evidence, unit):
    """How exposed systemd says that a unit is: 0 is confined entirely, 10 not at all; None where it says nothing."""
    seen, ratings = units.ratings(live)
    got = ratings.get(unit)
    evidence({"from": "gateway", "sent": f"systemd-analyze security {unit}", "got": got, "at": seen.result.get("at")})
    return float(got) if got else None


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.4-1", "OWASP-ISVS-1.0+main-2026-06:2.3.1", "OWASP-IoT-Top10-2018:I7")
@pytest.mark.controls("IEC-62443-3-3/4-2:FR4")
@pytest.mark.check("keys.owners")
def test_every_private_key_belongs_to_who_uses_it_and_nobody_else_reads_it(live, evidence):
    """No private key can be read by others, written by a group, or is owned by anybody but root or a service."""
    users = {"root", *(service.user for service in live.site.services_of(live.name))}
    assert live.keys, "no private key was found, not even the one of SSH"
    for key in live.keys:
        mode, place = int(key["mode"], 8), f"{key['path']} ({key['owner']}:{key['group']} {key['mode']})"
        evidence({"from": "gateway", "sent": "search for private keys", "got": f"{place}: {key['kind']}"})
        assert mode & 0o007 == 0, f"others may use {place}"
        assert mode & 0o030 == 0, f"its group may change {place}"
        assert mode & 0o040 == 0 or key["group"] in users, f"group {key['group']} may read {place}"
        assert key["owner"] in users, f"{place} is owned by none of {', '.join(sorted(users))}"


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.5-8", "OWASP-ISVS-1.0+main-2026-06:2.4.1")
@pytest.mark.check("keys.no-authority")
def test_no_key_of_an_authority_or_for_firmware_is_on_the_gateway(live, evidence):
    """The certification authorities' keys are not on the gateway, nor those that sign firmware and tokens: none of its
    keys is theirs."""
    stored = {name: live.vault.get(name) for name in live.vault.names("pki/") if name.endswith("/certificate")}
    kept = {
        digest(read_certificate(n, pem).public_key()): f"the {n.split('/')[1]} authority" for n, pem in stored.items()
    }
    for name in live.vault.names("firmware/keys/"):
        if name.endswith("/public"):
            kept[digest(load_pem_public_key(live.vault.get(name)))] = "firmware"
    kept |= {digest(load_pem_public_key(pem.encode())): "tokens" for pem in jwt.public_keys(live.vault).values()}
    readable = [key for key in live.keys if key["spki"]]
    for key in readable:
        evidence({"from": "gateway", "sent": f"public half of {key['path']}", "got": key["spki"]})
        assert key["spki"] not in kept, f"{key['path']} is the key of {kept[key['spki']]}, and stays with the operator"
    assert not [key for key in live.keys if "AGE-SECRET-KEY" in key["kind"]], (
        "a key that opens a vault is on the gateway"
    )
    if not readable:
        cannot_prove("no key could be read, so none could be compared")


def public_keys(live):
    """`{name: digest of the public key}` of the certificates that a public CA issued, as they lie on the gateway."""
    found = {}
    for page in web.pages(live):
        chain = live.host.file(f"{web.folder(page)}/chain.pem")
        if page.public and chain.exists:
            certificate = read_certificate(page.name, chain.content)
            if web.issued_for(live, page, certificate):
                found[page.name] = digest(certificate.public_key())
    return found


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.4-4", "ETSI-EN-303-645-v3.1.3:5.1-1")
@pytest.mark.asks("web")
@pytest.mark.check("keys.known")
def test_every_private_key_is_one_that_the_site_knows(live, evidence):
    """Every private key on the gateway is from the site's vault, of a server or a client of the kit, or SSH's own."""
    names = (name for kind in ("server/", "client/") for name in live.vault.names(kind))
    stored = {name: live.vault.get(name) for name in names if name.endswith("/certificate")}
    known = {digest(read_certificate(name, pem).public_key()): name for name, pem in stored.items()}
    known |= {spki: f"public name {name}" for name, spki in public_keys(live).items()}
    for key in live.keys:
        mine = known.get(key["spki"]) or (
            "SSH's own" if re.fullmatch(r"/etc/ssh/ssh_host_\w+_key", key["path"]) else None
        )
        evidence({"from": "gateway", "sent": f"key {key['path']}", "got": mine or "unknown"})
        assert mine, f"{key['path']} is a private key that the site does not know"


@pytest.mark.controls("CIS-Debian-12-v1.1.0:4.3.1-10", "CIS-Debian-12-v1.1.0:4.1.1")
@pytest.mark.controls("EU-CRA-2024/2847:Annex I Part I (2)(b)")
@pytest.mark.check("host.firewall")
def test_the_firewall_drops_by_default_and_is_loaded_before_the_network(live, evidence):
    """The kernel's table drops what no rule allows, in and through; it is loaded at start, before the network."""
    listed = live.run("nft", "-j", "list", "chains")
    chains = [entry["chain"] for entry in json.loads(listed.result["output"])["nftables"] if "chain" in entry]
    ours = {
        c["hook"]: c
        for c in chains
        if c["table"] == "gatehouse" and c["family"] == "inet" and c.get("type") == "filter"
    }
    for hook in ("input", "forward"):
        policy = ours.get(hook, {}).get("policy", "missing")
        evidence({"from": "gateway", "sent": f"nft list chains: {hook}", "got": policy, "at": listed.result["at"]})
        assert policy == "drop", f"chain {hook} of table inet gatehouse: {policy}"
    (unit,) = live.site.service("nftables").units
    order = {name: units.properties(live)[unit].get(name, "") for name in ("UnitFileState", "Before")}
    evidence({"from": "gateway", "sent": f"systemctl show {unit}", "got": order})
    assert order["UnitFileState"] == "enabled", f"{unit} is not loaded at start"
    assert "network-pre.target" in order["Before"].split(), f"{unit} is not loaded before the network is up"


def kernel(live, evidence):
    """`(differing and writable, differing and read-only)` of the settings that the site declares."""
    expected = wanted(settings(Target(live.site, live.name, lambda: live.pki)))
    fact = Settings()
    shown = live.run("sh", "-c", fact.command(list(expected)))
    current = fact.process(str(shown.result["output"]).splitlines())
    assert current, "no setting could be read"
    declared = [(path, value) for p, value in expected.items() for path in current if fnmatch.fnmatchcase(path, p)]
    differing = [(path, value, current[path]) for path, value in declared if current[path].value != value]
    evidence({"from": "gateway", "sent": f"{len(current)} settings below /proc/sys", "got": f"{len(differing)} differ"})
    for path, value, now in differing:
        evidence({"from": "gateway", "sent": path, "got": f"{now.value}, declared {value}"})
    lines = [(f"{path} is {now.value}, not {value}", now.writable) for path, value, now in differing]
    return [line for line, writable in lines if writable], [line for line, writable in lines if not writable]


@pytest.mark.controls("CIS-Debian-12-v1.1.0:3.3.2", "CIS-Debian-12-v1.1.0:3.3.3-6", "CIS-Debian-12-v1.1.0:3.3.8")
@pytest.mark.controls("CIS-Debian-12-v1.1.0:3.3.10", "CIS-Debian-12-v1.1.0:3.3.11", "CIS-Debian-12-v1.1.0:3.3.9")
@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:3.2.1")
@pytest.mark.check("host.kernel")
def test_the_running_kernel_has_the_declared_settings(live, evidence):
    """What of the kernel can be set on this gateway is set as declared, now."""
    differing, _ = kernel(live, evidence)
    assert not differing, f"{differing[0]}{f' and {len(differing) - 1} more' if len(differing) > 1 else ''}"


@pytest.mark.controls("CIS-Debian-12-v1.1.0:1.5.1", "CIS-Debian-12-v1.1.0:1.5.2")
@pytest.mark.check("host.kernel-of-the-machine")
def test_the_settings_that_belong_to_the_machine_underneath_are_as_declared(live, evidence):
    """Settings that this gateway cannot change itself are as declared all the same."""
    _, foreign = kernel(live, evidence)
    if foreign:
        where = "the machine that this container runs on" if live.is_container else "whoever made them read-only"
        cannot_prove(f"{foreign[0]} and {len(foreign) - 1} more: up to {where}")


@pytest.mark.controls("CIS-Debian-12-v1.1.0:3.2.1-4", "OWASP-ISVS-1.0+main-2026-06:3.6.2")
@pytest.mark.check("host.modules")
def test_no_protocol_that_nobody_needs_can_be_loaded_into_the_kernel(live, evidence):
    """modprobe refuses each module that the kit does without, whoever asks for it, and none of them is loaded."""
    refuses(live, evidence, REFUSED)


@pytest.mark.controls("CIS-Debian-12-v1.1.0:1.1.1.9")
@pytest.mark.check("host.usb-storage")
def test_no_disk_that_is_plugged_in_is_taken(live, evidence):
    """Where the site says so: modprobe refuses the drivers of storage on USB, and none of them is loaded."""
    if live.site.gateways[live.name].usb_storage:
        cannot_prove("the site lets this gateway take storage on USB (usb_storage=False has it refused)")
    refuses(live, evidence, USB_STORAGE)


def refuses(live, evidence, modules):
    """What modprobe does when it is asked for these, and whether one is there all the same."""
    told = re.findall(r"^install (\S+) (.+)$", str(live.run("modprobe", "--showconfig").result["output"]), re.MULTILINE)
    does = {module.replace("-", "_"): command for module, command in told}
    loaded = {line.split(" ", 1)[0] for line in str(live.run("cat", "/proc/modules").result["output"]).splitlines()}
    for module in (module.replace("-", "_") for kind in modules.values() for module in kind):
        command = does.get(module, "load it")
        evidence({"from": "gateway", "sent": f"modprobe {module}", "got": f"{command}, loaded {module in loaded}"})
        assert command == "/bin/false", f"modprobe {module} would {command}"
        # In a container the modules are those of the machine underneath.
        assert module not in loaded or live.is_container, f"{module} is loaded"


@pytest.mark.controls("CIS-Debian-12-v1.1.0:6.1.x", "EU-CRA-2024/2847:Annex I Part I (2)(l)")
@pytest.mark.controls("IEC-62443-3-3/4-2:FR6", "IEC-62443-3-3/4-2:SR/CR 6.1", "ENISA-IoT-Baseline-2017:GP-TM-55")
@pytest.mark.check("host.log")
def test_the_log_outlives_a_restart_and_cannot_fill_the_disk(live, evidence):
    """The journal that runs keeps what it is told on the disk, and at its start gave itself a limit."""
    (unit,) = live.site.service("journald").units
    pid = units.properties(live)[unit].get("MainPID", "0")
    told = live.run("journalctl", "-o", "json", "-n", "1", f"_PID={pid}", SPACE_USED, "JOURNAL_NAME=System Journal")
    if pid == "0" or not str(told.result.get("output", "")).strip():
        cannot_prove("the journal doesn't run, or no longer has what it said at its start")
    said = json.loads(told.result["output"])
    evidence({"from": "gateway", "sent": "journalctl: what the journal said at its start", "got": said["MESSAGE"]})
    assert said["JOURNAL_PATH"].startswith("/var/log/journal/"), f"it is kept in {said['JOURNAL_PATH']}"
    assert int(said["MAX_USE"]) <= LOG_AT_MOST, f"it may take {said['MAX_USE_PRETTY']}, at most {LOG_AT_MOST >> 30}G"


@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:1.4.6")
@pytest.mark.check("host.log-retention")
def test_the_log_is_kept_for_a_quarter_of_a_year_and_then_deleted(live, evidence):
    """The journal is told how long to keep what, by the last of its files that says so, and has nothing older."""
    told = str(live.run("systemd-analyze", "cat-config", "systemd/journald.conf").result.get("output", ""))
    limits = re.findall(r"^MaxRetentionSec=(\S+)$", told, re.MULTILINE)
    evidence({"from": "gateway", "sent": "systemd-analyze cat-config: MaxRetentionSec", "got": limits or "none"})
    assert limits and limits[-1] == LOG_KEPT, f"it is kept for {limits[-1] if limits else 'ever'}, not for {LOG_KEPT}"
    first = str(live.run("sh", "-c", "journalctl -q -o json --no-pager | head -n 1").result.get("output", ""))
    now = str(live.run("date", "+%s").result.get("output", "")).strip()
    if not (first.startswith("{") and now.isdecimal()):
        cannot_prove("the journal has no first entry")
    age = (int(now) - int(json.loads(first)["__REALTIME_TIMESTAMP"]) / 1e6) / 86_400
    evidence({"from": "gateway", "sent": "journalctl: its first entry", "got": f"{age:.1f} days old"})
    assert age <= OLD_AT_MOST, f"it still has what is {age:.0f} days old"


@pytest.mark.controls(
    "ETSI-EN-303-645-v3.1.3:5.3-4A", "ETSI-EN-303-645-v3.1.3:5.3-5", "CIS-Debian-12-v1.1.0:1.2.2.1",
    "OWASP-IoT-Top10-2018:I5", "OWASP-ISVS-1.0+main-2026-06:3.2.4",
)  # fmt: skip
@pytest.mark.check("host.updates")
def test_security_updates_install_themselves(live, evidence):
    """apt is told to install security updates every day, and the timers that make it do so have a next time."""
    dump = live.run("apt-config", "dump").result["output"]
    for key in ("APT::Periodic::Enable", "APT::Periodic::Update-Package-Lists", "APT::Periodic::Unattended-Upgrade"):
        found = re.search(rf'^{key} "(.*)";', dump, re.MULTILINE)
        evidence({"from": "gateway", "sent": f"apt-config: {key}", "got": found[1] if found else "missing"})
        assert found and found[1] in ("1", "always"), f"{key} is {found[1] if found else 'missing'}"
    origins = re.findall(r'^Unattended-Upgrade::Origins-Pattern:: "(.*)";', dump, re.MULTILINE)
    evidence({"from": "gateway", "sent": "apt-config: Unattended-Upgrade::Origins-Pattern", "got": origins})
    assert any("security" in origin.lower() for origin in origins), "security updates are not among those installed"
    for timer in live.site.service("upgrades").units:
        times = units.next_times(live, timer)
        evidence({"from": "gateway", "sent": timer, "got": times or "no next time"})
        assert times, f"{timer} has no next time"


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.1-1", "CIS-Debian-12-v1.1.0:7.2.x", "OWASP-IoT-Top10-2018:I1")
@pytest.mark.controls("CIS-Debian-12-v1.1.0:5.4.x", "OWASP-ISVS-1.0+main-2026-06:2.1.1")
@pytest.mark.check("host.accounts")
def test_no_account_has_an_empty_password_and_each_is_told_from_the_others(live, evidence):
    """No account can be entered without a password, no two have a name or a number in common, and none but root has
    root's."""
    shadow = live.run(
        "awk", "-F:", '{ print $1, ($2 == "" ? "empty" : ($2 ~ /^[!*]/ ? "locked" : "set")) }', "/etc/shadow"
    )
    states = dict(line.split(" ", 1) for line in shadow.result["output"].splitlines())
    rows = [
        line.split(" ")
        for line in live.run("awk", "-F:", "{ print $1, $3 }", "/etc/passwd").result["output"].splitlines()
    ]
    open_ones = [name for name, state in states.items() if state == "set"]
    evidence({"from": "gateway", "sent": "accounts", "got": f"{len(rows)}, with a password: {open_ones or 'none'}"})
    assert states and rows, "no account was found, not even root"
    assert "empty" not in states.values(), f"without a password: {[n for n, s in states.items() if s == 'empty']}"
    superusers = [name for name, number in rows if number == "0"]
    assert superusers == ["root"], f"with the number of root: {', '.join(superusers)}"
    for what, values in (("name", [name for name, _ in rows]), ("number", [number for _, number in rows])):
        shared = [value for value, times in Counter(values).items() if times > 1]
        assert not shared, f"the {what} {shared[0]} is of more than one account"


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.12-3", "NISTIR-8259A:Cybersecurity State Awareness/1")
@pytest.mark.controls("IEC-62443-3-3/4-2:SR/CR 7.4")
@pytest.mark.check("host.version")
def test_what_is_deployed_is_this_checkout(live, evidence):
    """The gateway was deployed from this very state of the kit."""
    deployed = live.host.file(version.FILE)
    assert deployed.exists, f"{version.FILE} is missing: never deployed by this kit"
    there, here = (" ".join(text.split()) for text in (deployed.content_string, version.of_checkout()))
    evidence({"from": "gateway", "sent": version.FILE, "got": there, "checkout": here})
    assert there == here, f"deployed is {there}, the checkout is {here}: deploy it"
