"""A site from its first file to a hardened gateway: `init`, `trust`, `plan`, `harden`."""

from __future__ import annotations

import sys
from pathlib import Path

from invoke import Context, task

from commands import common, labs, proof
from commands.common import SITE, told
from deploy import run
from deploy.inventory import ROOT


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

    where = common.site(site)
    for gateway in where.gateways:
        offered = pinning.offered(where, gateway)
        print(f"{gateway}: {offered.fingerprint}")
        if fingerprint and fingerprint != offered.fingerprint:
            sys.exit(f"{gateway}: that is not {fingerprint}: nothing was pinned (is something between you and it?)")
        if not fingerprint:
            common.ask(
                "Is this what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` shows on the gateway's own console?"
            )
        pinning.pin(where, offered)


@task(help=SITE)
@told
def plan(_: Context, site: str = "lab") -> None:
    """Show what a deploy would change, and change nothing; exit status 2 if there is something."""
    found = run.plan(common.site(site))
    print(found)
    sys.exit(0 if found.empty else 2)


@task(help={**SITE, "yes": "do not ask before changing anything"})
@told
def harden(_: Context, site: str = "lab", yes: bool = False) -> None:
    """Deploy a site and prove it: shows the planned changes, asks (not for the lab), applies, verifies."""
    where = common.site(site)
    if where.lab:
        labs.build(where)
        where = labs.enrol(where)
    plan = run.plan(where)
    print(plan, flush=True)
    if not plan.empty:
        if not (where.lab or yes):
            common.ask(f"Apply this to {', '.join(where.gateways)}?")
        run.apply(where)
    if where.lab:
        labs.publish(where)
        labs.report(where)
    from deploy import reportseals

    reportseals.prepare(where)
    sys.exit(proof.prove(where))
