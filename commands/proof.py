"""What a site's gateways are, against what is declared: `verify`, `drift`, `audit`, and what an auditor asks for."""

from __future__ import annotations

import sys
from json import dumps

from invoke import Context, task

from commands import common
from commands.common import GATEWAY, SITE, told
from gatehouse.site import Site


@task(help={**SITE, "json": "print results.json instead of the table"})
@told
def verify(_: Context, site: str = "lab", json: bool = False) -> None:
    """Prove that a deployed site behaves as declared, from inside every segment; exit status 1 if not."""
    sys.exit(prove(common.site(site), json))


def prove(site: Site, as_json: bool = False) -> int:
    """Runs the checks, and signs their report where the site has a key; returns their exit status."""
    from deploy import reportseals

    # What belongs to other tests only makes the suite late.
    options = ["-q", "-p", "no:hypothesispytest", *(["--json"] if as_json else [])]
    status = common.pytest("tests/compliance", "--site", site.name, *options)
    for line in reportseals.sign_at_once(site):
        print(line, file=sys.stderr if as_json else sys.stdout, flush=True)
    return status


@task(help={**SITE, "json": "print JSON instead of the table"})
@told
def drift(_: Context, site: str = "lab", json: bool = False) -> None:
    """Compare the gateways with what is declared, and change nothing; exit status 2 if they differ."""
    from deploy import drift as comparing
    from gatehouse.proof import drift as proof

    where = common.site(site)
    looked = comparing.compare(where)
    found = proof.document(where.name, looked)
    print(dumps(found, indent=1) if json else "\n".join(proof.table(where.name, looked)), flush=True)
    sys.exit(2 if found["drift"] else 0)


@task(
    help={
        **SITE,
        "gateway": "this one alone (default: all of the site)",
        "last": "show what was found last, and do not look now",
        "accept": "take what is shown for what shall be there, after a question",
        "yes": "accept without a question",
        "json": "print JSON instead of the table",
    }
)
@told
def integrity(
    _: Context,
    site: str = "lab",
    gateway: str = "",
    last: bool = False,
    accept: bool = False,
    yes: bool = False,
    json: bool = False,
) -> None:
    """Look on the gateways for files that nobody declared or shipped; exit status 2 if there are any."""
    from deploy import integrity as looking
    from gatehouse.proof import integrity as proof

    where = common.site(site)
    looked = looking.look(where, gateway, anew=accept or not last)
    shown = dumps(proof.document(where.name, looked), indent=1) if json else "\n".join(proof.table(where.name, looked))
    print(shown, flush=True)
    found = [each for each in looked if each.count]
    if accept and found:
        if not yes:
            common.ask(f"Take this for what shall be on {', '.join(each.gateway for each in found)}?")
        for each in found:
            looking.accept(where, each)
            print(f"{where.name}: {each.gateway}: accepted", file=sys.stderr if json else sys.stdout, flush=True)
        found = []
    sys.exit(2 if found else 0)


@task(help={**SITE, "json": "print JSON instead of the table"})
@told
def audit(_: Context, site: str = "lab", json: bool = False) -> None:
    """Scan a site's gateways from every segment, and from here, against what is declared; status 1 if they differ."""
    from deploy import audit as auditing
    from gatehouse.proof import audit as proof

    where = common.site(site)
    findings, found = auditing.run(where)
    shown = dumps(proof.document(where, findings, found), indent=1) if json else "\n".join(proof.table(findings, found))
    print(shown, flush=True)
    sys.exit(1 if findings else 0)


@task(help={**SITE, "json": "print JSON instead of the table"})
@told
def refused(_: Context, site: str = "lab", json: bool = False) -> None:
    """List whom the firewall refused within the last day, by device: packets, and why."""
    from deploy import drops

    rows = drops.rows(common.site(site))
    print(dumps(rows, indent=1) if json else "\n".join(drops.table(rows)))


@task(help={**SITE, "format": "markdown (the default), html (with a picture), json, or pytm (OWASP's)"})
@told
def threat_model(_: Context, site: str = "lab", format: str = "markdown") -> None:  # noqa: A002  the option's name
    """Print what can be done to a site's flows, services and devices, what stands against it, and what proves that."""
    from deploy import threats

    print(threats.threat_model(common.site(site), format))


@task(help=GATEWAY)
@told
def sbom(_: Context, site: str = "lab", gateway: str = "") -> None:
    """Print what a gateway is made of: its packages, Debian and the kit, in CycloneDX (JSON). Changes nothing there."""
    from deploy import materials

    print(materials.bill(common.site(site), gateway))


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

    where = common.site(site)
    sides = asking.look(where, gateway, debian_source, python_source, lambda line: print(line, file=sys.stderr))
    print(dumps(found.document(site, sides), indent=1) if json else found.table(sides), flush=True)
    sys.exit(found.status(sides))
