"""`sabotage`: the controls of a lab's gateway are broken, to see that the checks notice."""

from __future__ import annotations

import functools
import sys
from typing import NoReturn

from invoke import Context, task

from commands import common
from commands.common import SITE, told
from deploy.inventory import reports
from gatehouse.site import Site


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
        _mutate(common.site(site), only, one_by_one, json)
    from lab.sabotage import report, run

    say = functools.partial(print, file=sys.stderr, flush=True)
    where = common.site(site)
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
