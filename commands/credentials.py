"""A site's secrets and what is made of them: `credentials`, `rotate`, `acme.*`, `token.*`."""

from __future__ import annotations

import datetime
import functools
import sys
from json import dumps

from invoke import Context, task

from commands import common
from commands.common import SITE, told


@task(help={**SITE, "json": "print JSON instead of the table"})
@told
def credentials(_: Context, site: str = "lab", json: bool = False) -> None:
    """List a site's secrets, none of their values: age, when each is to be replaced and by what, who uses it."""
    from deploy import vaults
    from gatehouse.identity import ages

    where = common.site(site)
    rows = ages.rows(ages.ages(where, vaults.open_vault(where)), datetime.datetime.now(datetime.UTC))
    print(dumps(rows, indent=1) if json else "\n".join(ages.table(rows)))


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

    outcome = rotating.rotate(common.site(site), only, functools.partial(print, flush=True), dry=dry)
    for name in outcome.waiting:
        print(f"{name}: has not taken up its new key yet; until then both are good (run this again)")
    sys.exit("\n".join(outcome.failed) if outcome.failed else 0)


@task(name="key", help=SITE)
@told
def acme_key(_: Context, site: str = "lab") -> None:
    """Keep the key that signs DNS updates for a public CA's challenges: base64, from standard input."""
    from deploy import acmekey

    print(acmekey.keep(common.site(site), sys.stdin.read(4096)))


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

    issued = tokens.issue(common.site(site), subject, gateway, hours)
    print(issued.token, flush=True)
    print(issued.about, file=sys.stderr)


@task(name="rotate", help={**SITE, "at-once": "tokens of the former key end now, not when their time is over"})
@told
def token_rotate(_: Context, site: str = "lab", at_once: bool = False) -> None:
    """Replace the key that signs tokens for the device API."""
    from deploy import tokens

    print(tokens.rotate(common.site(site), at_once))
