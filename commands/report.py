"""`report.*`: reports that show whether somebody has changed them."""

from __future__ import annotations

import sys

from invoke import Context, task

from commands import common
from commands.common import SITE, told


@task(help=SITE)
@told
def key(_: Context, site: str = "lab") -> None:
    """Print the public key that others verify a site's signed reports with."""
    from deploy import reportseals

    print(reportseals.public_key(common.site(site)), end="")


@task(help=SITE)
@told
def sign(_: Context, site: str = "lab") -> None:
    """Sign the reports of a site's runs that are not signed yet, each bound to the one before it."""
    from deploy import reportseals

    for line in reportseals.sign(common.site(site)):
        print(line)


@task(
    help={
        **SITE,
        "key": "the public key, as `report.key` prints it, in a file (default: the vault's)",
        "head": "a digest that `report.sign` printed: fail if this line of the chain is gone",
    },
)
@told
def verify(_: Context, site: str = "lab", key: str = "", head: str = "") -> None:
    """Find what was changed, added or taken away of a site's signed reports; exit status 1 if something was."""
    from deploy import reportseals

    found = reportseals.verify(common.site(site), key, head)
    for problem in found.problems:
        print(problem, file=sys.stderr)
    old = f" ({found.forgotten} older ones are no longer kept)" if found.forgotten else ""
    word = "FAILED" if found.problems else "unchanged"
    print(f"{site}: {word}: signed runs here: {found.present}{old}; the chain ends with {found.head or 'nothing'}")
    sys.exit(1 if found.problems else 0)
