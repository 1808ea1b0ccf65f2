"""The tasks of `./kit`: each a few lines over the rooms of the house."""

from __future__ import annotations

import datetime
import functools
import gc
import getpass
import subprocess
import sys
from collections.abc import Callable
from json import dumps
from pathlib import Path
from typing import Any, NoReturn

from invoke import Collection, Context, task

from deploy import run
from deploy.inventory import ROOT, reports
from gatehouse.errors import GatehouseError
from gatehouse.site import Site, load

# Ten thousand devices are many objects that all stay: to look for garbage among them again and again takes a tenth of
# a command's time.
gc.set_threshold(100_000, 20, 100)

SITE = {"site": "the site, as its inventory is named (default: lab)"}


def told(body: Callable[..., Any]) -> Callable[..., Any]:
    """Turns an error for the operator into its lines on standard error, and exit status 1.

    `TASK --help` explains the task also where invoke takes that for the name or the file that the task wants.
    """

    @functools.wraps(body)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        for asked in {"-h", "--help"} & {value for value in kwargs.values() if isinstance(value, str)}:
            task = sys.argv[sys.argv.index(asked) - 1]
            sys.exit(subprocess.run([sys.executable, "-m", "invoke", "--help", task], cwd=ROOT, check=False).returncode)
        try:
            return body(*args, **kwargs)
        except GatehouseError as error:
            sys.exit(str(error))

    return wrapper


def _site(name: str) -> Site:
    return load(name, ROOT)


def _pytest(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=ROOT, check=False).returncode


@task(help={**SITE, "yes": "do not ask before changing anything"})
@told
def harden(_: Context, site: str = "lab", yes: bool = False) -> None:
    """Deploy a site and prove it: shows the planned changes, asks (not for the lab), applies, verifies."""
    where = _site(site)
    if where.lab:
        build_lab(where)
        where = enrol_lab(where)
    plan = run.plan(where)
    print(plan, flush=True)
    if not plan.empty:
        if not (where.lab or yes):
            _ask(f"Apply this to {', '.join(where.gateways)}?")
        run.apply(where)
    if where.lab:
        publish_in_lab(where)
        report_in_lab(where)
    from deploy import reportseals

    reportseals.prepare(where)
    sys.exit(_verify(where))


@task(
    positional=["name"],
    help={
        "name": "the new site's name",
        "address": "where the gateway answers SSH now",
        "user": "who to log in as now (root, or a user with sudo)",
        "key": "your SSH public key: a .pub file",
        "uplink": "interface to the internet",
        "uplink-address": "dhcp, or its address with prefix length",
        "router": "default router, where the address is fixed",
        "trunk": "interface that carries VLAN 10, 20 and 30",
        "lan": "interface of the LAN, if there is one",
        "domain": "internal domain name (default: NAME.internal)",
        "gateway": "the gateway's name",
        "prefix": "IPv4 prefix that the segments are cut from",
        "no-ipv6": "give the segments IPv4 only",
    },
)
@told
def init(
    _: Context,
    name: str,
    address: str = "",
    user: str = "root",
    key: str = "~/.ssh/id_ed25519.pub",
    uplink: str = "eth0",
    uplink_address: str = "dhcp",
    router: str = "",
    trunk: str = "eth1",
    lan: str = "",
    domain: str = "",
    gateway: str = "gateway",
    prefix: str = "10.10.0.0/16",
    no_ipv6: bool = False,
) -> None:
    """Write a new site: inventory, group data, device registry, vault; asks for what is not given on a terminal."""
    from deploy import newsite

    if newsite.lacks_vault(name):
        _tell_written(name, newsite.write_vault(name))
        return
    given = {"address": address, "user": user, "key": key, "uplink": uplink}
    given |= {"uplink_address": uplink_address, "trunk": trunk, "lan": lan}
    if not address:
        if not sys.stdin.isatty():
            sys.exit("init: --address is missing (where does the gateway answer SSH now?)")
        for field, question in newsite.QUESTIONS.items():
            given[field] = input(f"{question} [{given[field]}]: ").strip() or given[field]
    answers = newsite.Answers(
        name, domain=domain, gateway=gateway, router=router, prefix=prefix, ipv6=not no_ipv6, **given
    )
    _tell_written(name, newsite.write(answers))


def _tell_written(name: str, paths: list[Path]) -> None:
    for path in paths:
        print(f"wrote {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}")
    print(f"Keep a copy of the last one somewhere safe: it opens the vault. Next: ./kit trust --site {name}")


@task(help={**SITE, "fingerprint": "accept exactly this SHA256:… without asking"})
@told
def trust(_: Context, site: str, fingerprint: str = "") -> None:
    """Pin the SSH host keys of a site's gateways, after you have compared their fingerprints."""
    from deploy import trust as pinning

    where = _site(site)
    for gateway in where.gateways:
        offered = pinning.offered(where, gateway)
        print(f"{gateway}: {offered.fingerprint}")
        if fingerprint and fingerprint != offered.fingerprint:
            sys.exit(f"{gateway}: that is not {fingerprint}: nothing was pinned (is something between you and it?)")
        if not fingerprint:
            _ask("Is this what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` shows on the gateway's own console?")
        pinning.pin(where, offered)


@task(help=SITE)
@told
def plan(_: Context, site: str = "lab") -> None:
    """Show what a deploy would change, and change nothing; exit status 2 if there is something."""
    found = run.plan(_site(site))
    print(found)
    sys.exit(0 if found.empty else 2)


@task(help={**SITE, "json": "print JSON instead of the table"})
@told
def drift(_: Context, site: str = "lab", json: bool = False) -> None:
    """Compare the gateways with what is declared, and change nothing; exit status 2 if they differ."""
    from deploy import drift as comparing
    from gatehouse.proof import drift as proof

    where = _site(site)
    looked = comparing.compare(where)
    found = proof.document(where.name, looked)
    print(dumps(found, indent=1) if json else "\n".join(proof.table(where.name, looked)), flush=True)
    sys.exit(2 if found["drift"] else 0)


@task(help={**SITE, "json": "print results.json instead of the table"})
@told
def verify(_: Context, site: str = "lab", json: bool = False) -> None:
    """Prove that a deployed site behaves as declared, from inside every segment; exit status 1 if not."""
    sys.exit(_verify(_site(site), json))


def _verify(site: Site, as_json: bool = False) -> int:
    from deploy import reportseals

    status = _pytest("tests/compliance", "--site", site.name, "-q", *(["--json"] if as_json else []))
    for line in reportseals.sign_at_once(site):
        print(line, file=sys.stderr if as_json else sys.stdout, flush=True)
    return status


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        sys.exit("no terminal to ask on: nothing was changed (add --yes)")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        sys.exit("nothing was changed")


@task(
    iterable=["only"],
    help={
        **SITE,
        "only": "only this one; more than once for several",
        "one-by-one": "each in a round of its own, instead of several that the checks can tell apart",
        "mutate": "remove or widen each single rule of the firewall instead; --only takes patterns of names then",
        "json": "print sabotage.json (mutants.json) instead of the table",
    },
)
@told
def sabotage(
    _: Context, only: list[str], site: str = "lab", one_by_one: bool = False, mutate: bool = False, json: bool = False
) -> None:
    """Break the controls of a hardened lab, see that the checks notice, and repair them; exit status 1 if not."""
    if mutate:
        _mutate(_site(site), only, one_by_one, json)
    from lab.sabotage import report, run

    say = functools.partial(print, file=sys.stderr, flush=True)
    where = _site(site)
    found = run.sabotage(where, only, one_by_one, say)
    path = report.write(found, reports(where) / site)
    print(path.read_text() if json else f"{report.table(found)}\nreport: {path}")
    sys.exit(0 if found.succeeded else 1)


def _mutate(site: Site, only: list[str], one_by_one: bool, as_json: bool) -> NoReturn:
    from lab.sabotage import mutation, mutation_report

    reviewed = tuple(mutation_report.reviews())
    made = mutation.mutate(site, only, one_by_one, functools.partial(print, file=sys.stderr, flush=True))
    found = mutation_report.Report(made, reviewed)
    path = mutation_report.write(found, reports(site) / site.name)
    print(path.read_text() if as_json else f"{mutation_report.table(found)}\nreport: {path}")
    sys.exit(0 if found.succeeded else 1)


def build_lab(site: Site) -> None:
    """Builds or repairs the lab of a site, with a vault of its own."""
    import lab
    from deploy import vaults

    lab.up(lab.from_site(site, lab.name_of(site)))
    vaults.prepare_lab(site)


def enrol_lab(site: Site) -> Site:
    """Gives an identity to the devices that the lab plays; returns the site with them."""
    from deploy import enrolment
    from lab import simulator

    known = {device.name: device for device in site.devices}
    for name in simulator.few(site):
        if known[name].hmac_key is None:
            enrolment.enrol_one(site, enrolment.Request(name, known[name].model), "", False)
    return _site(site.name)


def publish_in_lab(site: Site) -> None:
    """Puts firmware on the lab's update server, so that the checks have something to look at."""
    from lab import firmware

    firmware.offer(site, lambda line: print(f"lab: {line}", flush=True))


def report_in_lab(site: Site) -> None:
    """Has these devices report in the background, if they don't yet."""
    from deploy import vaults
    from lab import simulator

    names = simulator.few(site)
    if simulator.start(site, vaults.open_pki(site), names):
        print(f"lab: {', '.join(names)} report every {simulator.INTERVAL:.0f} s", flush=True)


NAMED = {**SITE, "name": "the device; more than once for several"}


@task(iterable=["name"], help=NAMED)
@told
def revoke(_: Context, name: list[str], site: str = "lab") -> None:
    """Lost or stolen: refuse a device and end its session, now and for good."""
    from deploy import devices

    devices.revoke(_site(site), name, print)


@task(iterable=["name"], help=NAMED)
@told
def quarantine(_: Context, name: list[str], site: str = "lab") -> None:
    """Suspected: cut a device from everything but what diagnosis needs, until it is released."""
    from deploy import devices

    devices.quarantine(_site(site), name, print)


@task(
    name="start",
    default=True,
    help={
        **SITE,
        "device": "the device that behaves oddly",
        "only-evidence": "collect, and leave the device as it is",
    },
)
@told
def incident_start(_: Context, device: str, site: str = "lab", only_evidence: bool = False) -> None:
    """Suspected: cut a device off, keep the evidence in one encrypted archive, and say what comes next."""
    from deploy import incidents

    where = _site(site)
    incidents.start(where, device, functools.partial(print, flush=True), only_evidence)
    print("", "Next (docs/playbooks.md, a rogue device):", *incidents.steps(where, device), sep="\n")


@task(
    name="open",
    positional=["file"],
    help={**SITE, "file": "what `incident` has written", "to": "a folder that is not there yet"},
)
@told
def incident_open(_: Context, file: str, to: str, site: str = "lab") -> None:
    """Decrypt an incident's evidence into a new folder; exit status 1 if it is not what its manifest says."""
    from deploy import incidents

    found = incidents.unpack(_site(site), Path(file), Path(to))
    print(f"{found.name}: {len(found.files)} files in {to}")
    sys.exit("\n".join(found.problems) if found.problems else 0)


@task(iterable=["name"], help=NAMED)
@told
def release(_: Context, name: list[str], site: str = "lab") -> None:
    """Take a device out of quarantine."""
    from deploy import devices

    devices.release(_site(site), name, print)


@task(
    iterable=["only"],
    help={
        **SITE,
        "only": "only this secret, as `credentials` lists it, or a pattern such as influxdb.*; also more than once",
        "dry": "say what would be replaced, and change nothing",
    },
)
@told
def rotate(_: Context, only: list[str], site: str = "lab", dry: bool = False) -> None:
    """Replace secrets: new beside old, consumers moved, the old one refused; killed anywhere, run it again."""
    from deploy import rotating

    outcome = rotating.rotate(_site(site), only, functools.partial(print, flush=True), dry=dry)
    for name in outcome.waiting:
        print(f"{name}: has not taken up its new key yet; until then both are good (run this again)")
    sys.exit("\n".join(outcome.failed) if outcome.failed else 0)


@task(help={**SITE, "json": "print JSON instead of the table"})
@told
def credentials(_: Context, site: str = "lab", json: bool = False) -> None:
    """List a site's secrets, none of their values: age, when each is to be replaced and by what, who uses it."""
    from deploy import vaults
    from gatehouse.identity import ages

    where = _site(site)
    rows = ages.rows(ages.ages(where, vaults.open_vault(where)), datetime.datetime.now(datetime.UTC))
    print(dumps(rows, indent=1) if json else "\n".join(ages.table(rows)))


@task(
    iterable=["name"],
    help={
        **SITE,
        "name": "only this device, due or not; more than once for several",
        "json": "print JSON instead of the summary",
    },
)
@told
def renew(_: Context, name: list[str], site: str = "lab", json: bool = False) -> None:
    """Sign what devices past two thirds of their certificate's life ask for, and retire what they have left."""
    from deploy import renewals

    outcome = renewals.renew(_site(site), name)
    print(dumps(vars(outcome), indent=1) if json else "\n".join(outcome.table()))
    sys.exit(0 if outcome.succeeded else 1)


@task(
    help={
        **SITE,
        "name": "the new device's name: a to z, 0 to 9 and '-'",
        "model": "what it is, such as esp32-sht31",
        "gateway": "the gateway that it is behind (not needed where there is one)",
        "segment": "its segment (default: iot)",
        "hardware-address": "its MAC address",
        "address": "its fixed IPv4 address",
        "csr": "its certificate request (PEM or DER), when its key never leaves it",
        "psk": "it can't do X.509: give it a pre-shared key, and no certificate",
        "from": "a CSV file with many devices: name,model,gateway,segment,hardware_address,address,csr,authentication",
        "keep-going": "enrol the good lines of the list and report the others",
        "nvs": "also make the ESP-IDF partition nvs.bin",
    }
)
@told
def enroll(
    _: Context,
    site: str = "lab",
    name: str = "",
    model: str = "",
    gateway: str = "",
    segment: str = "",
    hardware_address: str = "",
    address: str = "",
    csr: str = "",
    psk: bool = False,
    from_: str = "",
    keep_going: bool = False,
    nvs: bool = False,
) -> None:
    """Give a device, or each of a list, its identity: certificate, HMAC key, registry entry, bundle in out/SITE/."""
    from deploy import enrolment

    where = _site(site)
    if bool(name) == bool(from_):
        sys.exit("enroll: name one device (--name NAME --model MODEL) or a list of them (--from FILE)")
    if from_:
        if psk:
            sys.exit("enroll: --psk is for one device; in a list the column `authentication` says psk")
        outcome = enrolment.enrol_list(where, Path(from_), keep_going, nvs)
    else:
        facts = [name, model, gateway, segment, hardware_address, address]
        kind = "psk" if psk else None
        request = enrolment.Request(*(fact or None for fact in facts), authentication=kind)
        outcome = enrolment.enrol_one(where, request, csr, nvs)
    for refusal in outcome.refused:
        print(refusal, file=sys.stderr)
    place = enrolment.shown(enrolment.bundles_path(where) / name)
    print(
        f"{len(outcome.enrolled)} enrolled, {len(outcome.already)} were before, {len(outcome.refused)} refused: {place}"
    )
    sys.exit(1 if outcome.refused else 0)


@task(iterable=["name"], help={**NAMED, "nvs": "also make the ESP-IDF partition nvs.bin"})
@told
def bundle(_: Context, name: list[str], site: str = "lab", nvs: bool = False) -> None:
    """Bring a device's bundle up to date, such as the pins of the broker."""
    from deploy import enrolment

    print(*enrolment.refresh(_site(site), name, nvs), sep="\n")


@task(help={**SITE, "json": "print JSON instead of the table"})
@told
def devices(_: Context, site: str = "lab", json: bool = False) -> None:
    """List a site's devices: status, age of the certificate and days left, when they were last seen."""
    from deploy.lastseen import last_seen
    from gatehouse.identity import roster

    where = _site(site)
    moments, notes = last_seen(where)
    rows = roster.rows(where.devices, datetime.datetime.now(datetime.UTC), moments)
    print(dumps(rows, indent=1) if json else "\n".join(roster.table(rows)), flush=True)
    print(*notes, sep="\n", end="\n" * bool(notes), file=sys.stderr)


@task(help={**SITE, "json": "print JSON instead of the table"})
@told
def audit(_: Context, site: str = "lab", json: bool = False) -> None:
    """Scan a site's gateways from every segment, and from here, against what is declared; status 1 if they differ."""
    from deploy import audit as auditing
    from gatehouse.proof import audit as proof

    where = _site(site)
    findings, found = auditing.run(where)
    shown = dumps(proof.document(where, findings, found), indent=1) if json else "\n".join(proof.table(findings, found))
    print(shown, flush=True)
    sys.exit(1 if findings else 0)


@task(name="show", default=True, help={**SITE, "json": "print JSON instead of the table"})
@told
def alerts_show(_: Context, site: str = "lab", json: bool = False) -> None:
    """List what is wrong on a site's gateways now, and since when; and what of it could not be told yet."""
    from deploy import raised

    rows, notes = raised.look(_site(site))
    print(dumps(rows, indent=1) if json else "\n".join(raised.table(rows)), flush=True)
    print(*notes, sep="\n", end="\n" * bool(notes), file=sys.stderr)


@task(name="password", help=SITE)
@told
def alerts_password(_: Context, site: str = "lab") -> None:
    """Keep the password that alerts are mailed with, from standard input; it is not shown."""
    from deploy import mailpassword

    if sys.stdin.isatty():
        print(mailpassword.keep(_site(site), getpass.getpass("Password for the mail server: ")))
    else:
        print(mailpassword.keep(_site(site), sys.stdin.read(4096)))


@task(help={**SITE, "json": "print JSON instead of the table"})
@told
def refused(_: Context, site: str = "lab", json: bool = False) -> None:
    """List whom the firewall refused within the last day, by device: packets, and why."""
    from deploy import drops

    rows = drops.rows(_site(site))
    print(dumps(rows, indent=1) if json else "\n".join(drops.table(rows)))


@task(
    name="import",
    positional=["file"],
    help={
        **SITE,
        "file": "the manufacturer's MUD file (RFC 8520); its signature is FILE.p7s",
        "model": "the registry's name for such devices (default: the file's model-name)",
        "ca": "the CA that signs the manufacturer's files (default: the site's)",
        "signature": "where its signature is, if not in FILE.p7s",
        "yes": "do not ask",
    },
)
@told
def mud_import(
    _: Context, file: str, site: str = "lab", model: str = "", ca: str = "", signature: str = "", yes: bool = False
) -> None:
    """Let devices of a model reach what their manufacturer lists: shows it, asks, writes it into the site's data."""
    from deploy import mud

    made = mud.plan(_site(site), file, model, ca, signature)
    print("\n".join(made.table()), flush=True)
    if made.empty:
        print("nothing to change")
        return
    if not yes:
        _ask(f"Allow this to devices of model {made.model}?")
    print(f"wrote {mud.apply(made)}; next: ./kit harden --site {site}")


PEER = {"name": "the peer: a laptop, a phone"}
THERE = {"gateway": "at which gateway (not needed where there is one)"}


@task(
    name="peer",
    help={
        **SITE,
        **PEER,
        **THERE,
        "public-key": "its own public key (without, the kit makes its key)",
        "out": "the file to write, 0600 (default: NAME.conf)",
        "qr": "draw it on the terminal instead, for a phone",
    },
)
@told
def wireguard_peer(
    _: Context, name: str, site: str = "lab", gateway: str = "", public_key: str = "", out: str = "", qr: bool = False
) -> None:
    """Add a peer to the tunnel for remote management, and hand its configuration over: a file, or a QR code."""
    from deploy import wireguard

    if not qr:
        written = wireguard.hand_over(_site(site), name, public_key, gateway, out)
        print(f"wrote {written}: move it to {name}, and delete it here; next: ./kit harden --site {site}")
    elif public_key or out:
        sys.exit("wireguard.peer: --qr hands over a key of the kit's (leave --public-key and --out away)")
    elif not sys.stdout.isatty():
        sys.exit("wireguard.peer: --qr draws secrets, on a terminal only (without it, it is a file)")
    else:
        print("\n".join(wireguard.code(_site(site), name, gateway)))


@task(name="remove", help={**SITE, **PEER})
@told
def wireguard_remove(_: Context, name: str, site: str = "lab") -> None:
    """Remove a peer of the tunnel: it is cut off at once, at every gateway, and its keys are forgotten."""
    from deploy import wireguard

    wireguard.remove(_site(site), name, print)


# The tiers, and what pytest is told for each. Units share nothing: every core has a part of them. The sabotages take
# long, and so do virtual machines where they are emulated: both are made where they are asked for.
SABOTAGE = "tests/lab/test_sabotage.py"
TIERS = {
    "unit": ("tests/unit", "-n", "auto", "--dist", "loadfile"),
    # From here on real programs run: a test that fails is made once more, and both results are told.
    "roles": ("tests/roles", "--reruns", "1"),
    "device": ("tests/device", "--reruns", "1"),
    # Two labs at a time (tests/lab/conftest.py).
    "lab": ("tests/lab", "-n", "2", "--dist", "loadfile", "--reruns", "1"),
    "sabotage": (SABOTAGE,),
    "vm": ("tests/vm",),
}
# The sabotages are a part of the lab's tests.
ON_REQUEST = ("sabotage", "vm")


@task(help={"tier": f"only this tier: style, {', '.join(TIERS)}", "k": "only tests whose names match (pytest -k)"})
@told
def test(_: Context, tier: str = "", k: str = "") -> None:
    """Run every test: style, units, files judged by the real programs, devices, the lab with every sabotage."""
    from deploy import tools

    if tier and tier not in ("style", *TIERS):
        sys.exit(f"test: no tier '{tier}' (use style, {', '.join(TIERS)})")
    tools.ensure(lambda line: print(line, flush=True))
    failed = []
    if tier in ("", "style"):
        checks = {
            "ruff check": ["ruff", "check", "."],
            "ruff format": ["ruff", "format", "--check", "."],
            "mypy": ["mypy"],
        }
        for name, command in checks.items():
            print(f"test: {name}", flush=True)
            if subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False).returncode:
                failed.append(name)
    for each, options in TIERS.items():
        if tier == each or (not tier and each not in ON_REQUEST):
            print(f"test: {each}", flush=True)
            if _pytest(*options, "-q", "--durations=10", *(["-k", k] if k else [])):
                failed.append(each)
    if failed:
        sys.exit(f"test: failed: {', '.join(failed)}")


VM = {"vm": "the lab of virtual machines, which plays the site lab-vm"}


def _lab(vm: bool) -> tuple[Any, str]:
    """What manages the usual lab, or that of virtual machines, and its name."""
    import lab
    from lab.vm import manage

    return (manage if vm else lab), lab.name_of(_site("lab-vm" if vm else "lab"))


@task(name="up", help=VM)
@told
def lab_up(_: Context, vm: bool = False) -> None:
    """Build the lab, or repair what is left of it."""
    build_lab(_site("lab-vm" if vm else "lab"))


@task(name="down", help=VM)
@told
def lab_down(_: Context, vm: bool = False) -> None:
    """Remove the lab: its hosts, interfaces, keys. The images stay."""
    kind, name = _lab(vm)
    kind.down(name)


@task(name="status", help=VM)
@told
def lab_status(_: Context, vm: bool = False) -> None:
    """List the lab's hosts; exit status 1 if there is no lab."""
    kind, name = _lab(vm)
    rows = kind.status(name)
    for row in rows:
        print(f"{row.host:12} {row.kind:9} {row.status:9} {row.segment:11} {' '.join(row.addresses)}")
    if not rows:
        sys.exit(f"there is no lab (`invoke lab.up{' --vm' * vm}` builds one)")


@task(
    name="shell",
    positional=["host"],
    help={**VM, "host": "the lab's host, for example: gateway, device, guest; with --vm also: operator, field"},
)
@told
def lab_shell(_: Context, host: str, vm: bool = False) -> None:
    """Open a shell on a host of the lab."""
    kind, name = _lab(vm)
    sys.exit(kind.shell(name, host))


STATE = {"name": "what the state is called (default: kept)"}


@task(name="save", help=STATE)
@told
def lab_save(_: Context, name: str = "kept") -> None:
    """Keep the state of the running lab of virtual machines, to go back to: for trying things, never for a verdict."""
    kind, where = _lab(True)
    kind.save(where, name)


@task(name="restore", help=STATE)
@told
def lab_restore(_: Context, name: str = "kept") -> None:
    """Go back to a kept state of the lab of virtual machines, within seconds."""
    kind, where = _lab(True)
    kind.restore(where, name)


@task(name="show", help={**SITE, "name": "print this one secret, and nothing else"})
@told
def vault_show(_: Context, site: str = "lab", name: str = "") -> None:
    """List a vault's entries, their kinds and ages, and who can open it; print a secret only when asked by name."""
    from deploy import vaultreport, vaults

    vault = vaults.open_vault(_site(site))
    if name:
        sys.stdout.buffer.write(vaultreport.secret(vault, name, sys.stdout.isatty()))
    else:
        print(*vaultreport.table(vault), sep="\n")


@task(
    name="add-recipient",
    positional=["recipient"],
    help={
        **SITE,
        "recipient": "the age public key, age1…, that their identity file starts with",
        "name": "whose it is",
    },
)
@told
def vault_add_recipient(_: Context, recipient: str, site: str = "lab", name: str = "") -> None:
    """Let one more person open a vault."""
    from deploy import vaults

    vault = vaults.open_vault(_site(site))
    vault.add_recipient(recipient, name)
    print(f"{vault.where}: {vault.people.shown(recipient)} can open it now (commit the file)")


@task(name="remove-recipient", positional=["recipient"], help={**SITE, "recipient": "age1…, or the name it goes by"})
@told
def vault_remove_recipient(_: Context, recipient: str, site: str = "lab") -> None:
    """Shut a person out of a vault, and list what has to be replaced because of what they know."""
    from deploy import vaultreport, vaults

    vault = vaults.open_vault(_site(site))
    vault.remove_recipient(recipient)
    print(
        f"{vault.where}: encrypted anew, to {len(vault.recipients)} recipients; {recipient} can't open it (commit it)"
    )
    print(*vaultreport.to_replace(vault), sep="\n")


@task(name="rekey", help=SITE)
@told
def vault_rekey(_: Context, site: str = "lab") -> None:
    """Encrypt a vault anew to its present recipients, and list what someone who left still knows."""
    from deploy import vaultreport, vaults

    vault = vaults.open_vault(_site(site))
    vault.rekey()
    print(f"{vault.where}: encrypted anew, to {len(vault.recipients)} recipients (commit the file)")
    print(*vaultreport.to_replace(vault), sep="\n")


@task(name="backup", positional=["file"], help={**SITE, "file": "where to; an earlier backup of the site is replaced"})
@told
def vault_backup(_: Context, file: str, site: str = "lab") -> None:
    """Write a site's vault, inventory and registry into one encrypted file, and read it back."""
    from deploy import backups

    made = backups.make(_site(site), Path(file))
    print(f"{file}: {', '.join(made.files)}; opens with an identity that opens the vault: keep one elsewhere")


@task(
    name="restore",
    positional=["file"],
    help={**SITE, "file": "the backup", "yes": "replace a vault that is there; it is kept beside as .previous"},
)
@told
def vault_restore(_: Context, file: str, site: str, yes: bool = False) -> None:
    """Put a site back from its backup, on any machine that has an identity for it."""
    from deploy import backups

    for line in backups.restore(site, Path(file), replace=yes):
        print(line)


GATEWAY = {**SITE, "gateway": "the gateway (not needed where there is one)"}


@task(name="backup", positional=["file"], help={**GATEWAY, "file": "where to; an earlier backup is replaced"})
@told
def data_backup(_: Context, file: str, site: str = "lab", gateway: str = "") -> None:
    """Write a gateway's database into one file, encrypted to those who can open the vault."""
    from deploy import data

    where = _site(site)
    print(data.backup(where, data.one_gateway(where, gateway), Path(file)))


@task(
    name="restore",
    positional=["file"],
    help={**GATEWAY, "file": "the backup", "yes": "replace what the gateway's database holds now"},
)
@told
def data_restore(_: Context, file: str, site: str, gateway: str = "", yes: bool = False) -> None:
    """Put a database back, on the gateway it came from or on a fresh one."""
    from deploy import data

    where = _site(site)
    print(data.restore(where, data.one_gateway(where, gateway), Path(file), replace=yes))


@task(name="erase", help={**SITE, "device": "whose data", "yes": "do not ask"})
@told
def data_erase(_: Context, device: str, site: str, yes: bool = False) -> None:
    """Delete everything that a device reported, and show that nothing of it is found any more."""
    from deploy import data

    where = _site(site)
    if not (where.lab or yes):
        _ask(f"Delete all data of {device} from {', '.join(where.gateways)}? It can't be undone.")
    for line in data.erase(where, device):
        print(line)


ROLE = {**SITE, "role": "devices or services"}


@task(name="status", help={**SITE, "json": "print JSON instead of the table"})
@told
def ca_status(_: Context, site: str = "lab", json: bool = False) -> None:
    """List authorities, revocation lists and server certificates: state, end, days and part of their life left."""
    from deploy import authorities

    print(authorities.as_json(_site(site)) if json else "\n".join(authorities.table(_site(site))))


@task(name="rollover", help={**ROLE, "issue": "second step: the new one issues from now on"})
@told
def ca_rollover(_: Context, role: str, site: str = "lab", issue: bool = False) -> None:
    """Replace an issuing authority: make the new one, beside the old; with --issue, let it issue."""
    from deploy import authorities

    print(authorities.issue(_site(site), role) if issue else authorities.prepare(_site(site), role))


@task(name="drop", help={**ROLE, "force": "even if devices need it: they must be enrolled again by hand"})
@told
def ca_drop(_: Context, role: str, site: str = "lab", force: bool = False) -> None:
    """Forget the former authorities once nothing depends on them, and destroy their keys."""
    from deploy import authorities

    print(authorities.drop(_site(site), role, force))


@task(
    name="move-to-backup-key",
    help={
        **SITE,
        "gateway": "whose broker (not needed where there is one)",
        "force": "even if devices may not know the backup key: one that pins keys is stranded then",
    },
)
@told
def ca_move_to_backup_key(_: Context, site: str = "lab", gateway: str = "", force: bool = False) -> None:
    """Replace the broker's key by the one that devices have pinned in advance; refused where one has not."""
    from deploy import brokerkeys

    print(brokerkeys.move(_site(site), gateway, force))


MESSAGE = {
    **SITE,
    "topic": "devices/NAME/telemetry/KIND",
    "file": "where the content or the message is (default: standard input)",
    "key-file": "a file with the key, such as a bundle's hmac.key (default: the vault)",
    "number": "the key's number (default: the one in the registry, 1 with --key-file)",
}


def _input(file: str) -> bytes:
    try:
        return Path(file).read_bytes() if file else sys.stdin.buffer.read()
    except OSError as error:
        sys.exit(f"{file}: can't be read ({error.strerror})")


@task(name="sign", help={**MESSAGE, "sequence": "its sequence number (default: the time)"})
@told
def message_sign(
    _: Context, topic: str, site: str = "lab", file: str = "", key_file: str = "", number: int = 0, sequence: int = -1
) -> None:
    """Sign what a device reports; the message goes to standard output, in hexadecimal on a terminal."""
    from deploy import messages

    made = messages.signed(_site(site), topic, _input(file), key_file, number, sequence)
    sys.stdout.buffer.write(made.hex().encode() + b"\n" if sys.stdout.isatty() else made)


@task(name="verify", help={**MESSAGE, "hex": "the message is given in hexadecimal"})
@told
def message_verify(
    _: Context, topic: str, site: str = "lab", file: str = "", key_file: str = "", number: int = 0, hex: bool = False
) -> None:
    """Verify a message of a device and show what it says; exit status 1 and the reason if it would be refused."""
    from deploy import messages

    given = _input(file)
    if hex:
        try:
            given = bytes.fromhex(given.decode("ascii"))
        except ValueError:
            sys.exit("message.verify: that is no hexadecimal")
    print(*messages.verified(_site(site), topic, given, key_file, number), sep="\n")


@task(
    name="keys",
    help={
        **SITE,
        "replace": "current or backup: make a new backup key for it; every model then needs a release",
        "force": "even if devices of a model that had no release since the last time are lost by it",
    },
)
@told
def firmware_keys(_: Context, site: str = "lab", replace: str = "", force: bool = False) -> None:
    """Make the two keys that firmware is signed with, once, and print what goes into devices."""
    from deploy import firmware

    for line in firmware.make_keys(_site(site), replace, force):
        print(line)


@task(
    name="sign",
    positional=["image"],
    help={
        **SITE,
        "image": "the file to be signed",
        "model": "the devices' model, as in the registry",
        "version": "its version; an ESP-IDF application that names another one is refused",
        "expires": "how long devices take it: hours, days or weeks (default: 90d)",
        "min-counter": "the counter of the release that devices must have before this one",
        "rollout": "the share of the devices that get it (default: 100%)",
        "device": "for this one device only",
        "downgrade": "the version goes back on purpose",
    },
)
@told
def firmware_sign(
    _: Context,
    image: str,
    model: str,
    version: str,
    site: str = "lab",
    expires: str = "90d",
    min_counter: int = 0,
    rollout: str = "100%",
    device: str = "",
    downgrade: bool = False,
) -> None:
    """Sign an image for the devices of a model; sign it again to change its expiry or its share."""
    from deploy import firmware

    where = _site(site)
    for line in firmware.sign_image(
        where, Path(image), model, version, expires, min_counter, rollout, device, downgrade
    ):
        print(line)


HARDENING = {
    "profile": "release (for devices that leave the desk) or development, which burns nothing (default: release)",
    "bluetooth": "the device needs Bluetooth",
}


@task(
    name="harden",
    help={
        **HARDENING,
        "model": "the devices' model",
        "chip": "ESP-IDF's target: esp32, esp32s3, esp32c3, … (default: esp32)",
        "output": "the file to be written (default: sdkconfig.defaults)",
        "yes": "replace a file that is there",
    },
)
@told
def firmware_harden(
    _: Context,
    model: str,
    chip: str = "esp32",
    profile: str = "release",
    bluetooth: bool = False,
    output: str = "sdkconfig.defaults",
    yes: bool = False,
) -> None:
    """Write sdkconfig.defaults for an ESP32 that others can lay hands on; each line says why, and what it costs."""
    from deploy import esp32

    print(esp32.write_defaults(Path(output), model, profile, chip, bluetooth, yes))


@task(name="check-config", positional=["sdkconfig"], help={**HARDENING, "sdkconfig": "what `idf.py build` has written"})
@told
def firmware_check_config(_: Context, sdkconfig: str, profile: str = "release", bluetooth: bool = False) -> None:
    """Compare an sdkconfig with the profile: each deviation is a line, and exit status 1."""
    from deploy import esp32

    found = esp32.check(Path(sdkconfig), profile, bluetooth)
    print(*found or [f"{sdkconfig}: as the {profile} profile has it"], sep="\n")
    sys.exit(1 if found else 0)


@task(
    name="fuses",
    help={
        "chip": "esp32s3 or esp32c3",
        "profile": HARDENING["profile"],
        "rehearse": "burn simulated fuses, to see that the plan works",
        "key": "secure boot's signing key for the rehearsal, PEM (default: a throw-away one)",
        "backup": "its backup key, likewise",
    },
)
@told
def firmware_fuses(
    _: Context,
    chip: str = "esp32s3",
    profile: str = "release",
    rehearse: bool = False,
    key: str = "",
    backup: str = "",
) -> None:
    """Show which fuses of an ESP32 are burnt, in which order; or rehearse it. Burns nothing real."""
    from deploy import fuses

    if rehearse:
        print(fuses.rehearse(chip, profile, key, backup, lambda line: print(line, flush=True)))
    else:
        print(fuses.plan(chip, profile))


@task(
    name="show", positional=["manifest"], help={**SITE, "manifest": "the file", "image": "compare it with this image"}
)
@told
def firmware_show(_: Context, manifest: str, site: str = "lab", image: str = "") -> None:
    """Verify a manifest's signature with the site's keys, and print what it says."""
    from deploy import firmware

    for line in firmware.show(_site(site), Path(manifest), image):
        print(line)


MODEL = {"model": "the devices' model, as in the registry"}


@task(
    name="publish",
    help={
        **SITE,
        **MODEL,
        "version": "what `firmware.sign` was given",
        "rollout": "sign it again first, for this share of the devices",
    },
)
@told
def firmware_publish(_: Context, model: str, version: str, site: str = "lab", rollout: str = "") -> None:
    """Bring signed firmware to the update servers of the site's gateways."""
    from deploy import publishing

    publishing.publish(_site(site), model, version, print, rollout)


@task(
    name="rollout",
    help={**SITE, **MODEL, "version": "the published release", "share": "of the devices, such as 50%"},
)
@told
def firmware_rollout(_: Context, model: str, version: str, share: str, site: str = "lab") -> None:
    """Let more of a model's devices have a release, or fewer: signs its manifest again and publishes it."""
    from deploy import publishing

    publishing.publish(_site(site), model, version, print, share)


@task(name="withdraw", help={**SITE, **MODEL})
@told
def firmware_withdraw(_: Context, model: str, site: str = "lab") -> None:
    """Take a model's firmware off the update servers; devices that have it keep it."""
    from deploy import publishing

    publishing.withdraw(_site(site), model, print)


@task(name="published", help=SITE)
@told
def firmware_published(_: Context, site: str = "lab") -> None:
    """Show what the update servers offer, and what of it devices would refuse."""
    from deploy import publishing

    for line in publishing.published(_site(site)):
        print(line)


@task(
    name="status",
    help={
        **SITE,
        "halt": "halt a roll-out of which too many fail (--no-halt: only look)",
        "json": "print JSON instead of the table",
    },
)
@told
def firmware_status(_: Context, site: str = "lab", halt: bool = True, json: bool = False) -> None:
    """Show who runs which firmware, who failed and who is silent; halt what too many fail of. Status 2: have a look."""
    from deploy import firmwarestatus

    seen = firmwarestatus.look(_site(site), halt)
    shown = dumps(firmwarestatus.document(seen), indent=1) if json else "\n".join(firmwarestatus.table(seen))
    print(shown, flush=True)
    print(*seen.notes, sep="\n", end="\n" * bool(seen.notes), file=sys.stderr)
    sys.exit(seen.status)


@task(
    name="issue",
    help={
        **SITE,
        "subject": "who it is for, as the API's log shall name them",
        "gateway": "whose API (not needed where there is one)",
        "hours": "how long it is good, up to 24",
    },
)
@told
def token_issue(_: Context, subject: str, site: str = "lab", gateway: str = "", hours: str = "1") -> None:
    """Print a short-lived token for a gateway's read-only device API; what there is to say of it, on standard error."""
    from deploy import tokens

    issued = tokens.issue(_site(site), subject, gateway, hours)
    print(issued.token, flush=True)
    print(issued.about, file=sys.stderr)


@task(help=GATEWAY)
@told
def sbom(_: Context, site: str = "lab", gateway: str = "") -> None:
    """Print what a gateway is made of: its packages, Debian and the kit, in CycloneDX (JSON). Changes nothing there."""
    from deploy import materials

    print(materials.bill(_site(site), gateway))


@task(
    help={
        **SITE,
        "gateway": "this one alone (default: all of the site)",
        "debian-source": "instead of Debian's security tracker: a mirror's https address, or a downloaded feed",
        "python-source": "instead of PyPI: an https address that answers as OSV does, or OSV's all.zip of PyPI",
        "json": "print JSON instead of the table",
    }
)
@told
def vulnerabilities(
    _: Context,
    site: str = "lab",
    gateway: str = "",
    debian_source: str = "",
    python_source: str = "",
    json: bool = False,
) -> None:
    """Show known vulnerabilities of the gateways and of the kit: status 1: upgrade; 2: a side could not be asked."""
    from deploy import vulnerabilities as asking
    from gatehouse.proof import vulnerabilities as found

    where = _site(site)
    sides = asking.look(where, gateway, debian_source, python_source, lambda line: print(line, file=sys.stderr))
    print(dumps(found.document(site, sides), indent=1) if json else found.table(sides), flush=True)
    sys.exit(found.status(sides))


@task(help={**SITE, "format": "markdown (the default), html (with a picture), or json"})
@told
def threat_model(_: Context, site: str = "lab", format: str = "markdown") -> None:  # noqa: A002  the option's name
    """Print what can be done to a site's flows, services and devices, what stands against it, and what proves that."""
    from deploy import threats

    print(threats.threat_model(_site(site), format))


@task(name="key", help=SITE)
@told
def acme_key(_: Context, site: str = "lab") -> None:
    """Keep the key that signs DNS updates for a public CA's challenges: base64, from standard input."""
    from deploy import acmekey

    print(acmekey.keep(_site(site), sys.stdin.read(4096)))


@task(name="rotate", help={**SITE, "at-once": "tokens of the former key end now, not when their time is over"})
@told
def token_rotate(_: Context, site: str = "lab", at_once: bool = False) -> None:
    """Replace the key that signs tokens for the device API."""
    from deploy import tokens

    print(tokens.rotate(_site(site), at_once))


@task(name="sign", help=SITE)
@told
def report_sign(_: Context, site: str = "lab") -> None:
    """Sign the reports of a site's runs that are not signed yet, each bound to the one before it."""
    from deploy import reportseals

    for line in reportseals.sign(_site(site)):
        print(line)


@task(
    name="verify",
    help={
        **SITE,
        "key": "the public key, as `report.key` prints it, in a file (default: the vault's)",
        "head": "a digest that `report.sign` printed: fail if this line of the chain is gone",
    },
)
@told
def report_verify(_: Context, site: str = "lab", key: str = "", head: str = "") -> None:
    """Find what was changed, added or taken away of a site's signed reports; exit status 1 if something was."""
    from deploy import reportseals

    found = reportseals.verify(_site(site), key, head)
    for problem in found.problems:
        print(problem, file=sys.stderr)
    old = f" ({found.forgotten} older ones are no longer kept)" if found.forgotten else ""
    word = "FAILED" if found.problems else "unchanged"
    print(f"{site}: {word}: signed runs here: {found.present}{old}; the chain ends with {found.head or 'nothing'}")
    sys.exit(1 if found.problems else 0)


@task(name="key", help=SITE)
@told
def report_key(_: Context, site: str = "lab") -> None:
    """Print the public key that others verify a site's signed reports with."""
    from deploy import reportseals

    print(reportseals.public_key(_site(site)), end="")


namespace = Collection(
    audit,
    bundle,
    credentials,
    devices,
    drift,
    enroll,
    harden,
    init,
    plan,
    quarantine,
    refused,
    release,
    renew,
    revoke,
    rotate,
    sabotage,
    sbom,
    test,
    threat_model,
    trust,
    verify,
    vulnerabilities,
    Collection("acme", acme_key),
    Collection("alerts", alerts_show, alerts_password),
    Collection("ca", ca_drop, ca_move_to_backup_key, ca_rollover, ca_status),
    Collection("data", data_backup, data_erase, data_restore),
    Collection(
        "firmware",
        firmware_keys,
        firmware_sign,
        firmware_show,
        firmware_publish,
        firmware_rollout,
        firmware_withdraw,
        firmware_published,
        firmware_status,
        firmware_harden,
        firmware_check_config,
        firmware_fuses,
    ),
    Collection("incident", incident_start, incident_open),
    Collection("message", message_sign, message_verify),
    Collection("lab", lab_up, lab_down, lab_status, lab_shell, lab_save, lab_restore),
    Collection("mud", mud_import),
    Collection("report", report_key, report_sign, report_verify),
    Collection("token", token_issue, token_rotate),
    Collection("wireguard", wireguard_peer, wireguard_remove),
    Collection(
        "vault", vault_show, vault_add_recipient, vault_remove_recipient, vault_rekey, vault_backup, vault_restore
    ),
)
