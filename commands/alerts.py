"""`alerts.*`: what is wrong on the gateways now."""

from __future__ import annotations

import getpass
import sys
from json import dumps

from invoke import Context, task

from commands import common
from commands.common import SITE, told


@task(default=True, help={**SITE, "json": "print JSON instead of the table"})
@told
def show(_: Context, site: str = "lab", json: bool = False) -> None:
    """List what is wrong on a site's gateways now, and since when; and what of it could not be told yet."""
    from deploy import raised

    rows, notes = raised.look(common.site(site))
    print(dumps(rows, indent=1) if json else "\n".join(raised.table(rows)), flush=True)
    print(*notes, sep="\n", end="\n" * bool(notes), file=sys.stderr)


@task(help=SITE)
@told
def password(_: Context, site: str = "lab") -> None:
    """Keep the password that alerts are mailed with, from standard input; it is not shown."""
    from deploy import mailpassword

    if sys.stdin.isatty():
        print(mailpassword.keep(common.site(site), getpass.getpass("Password for the mail server: ")))
    else:
        print(mailpassword.keep(common.site(site), sys.stdin.read(4096)))
