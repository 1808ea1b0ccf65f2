"""Runs pyinfra on a site: what it would change, and the change itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.inventory import ROOT
from gatehouse.errors import GatehouseError
from gatehouse.site import Site

PYINFRA = Path(sys.executable).with_name("pyinfra")
_WELL = re.compile(r"\[\S+\] +(Connected|Ready: \S+)$")
# Where in the code an error was raised is of no use to the operator.
_ERROR = re.compile(r"--> [a-zA-Z ]* error(?: in \S+ line \d+)?: (?P<what>.+)")


class RunError(GatehouseError):
    """A run of pyinfra that did not reach its end."""


@dataclass(frozen=True)
class Plan:
    """What a deploy would do: `{gateway: (operation, …)}`; empty where everything is as declared."""

    changes: dict[str, tuple[str, ...]]

    @property
    def empty(self) -> bool:
        """Whether nothing would change anywhere."""
        return not any(self.changes.values())

    def __str__(self) -> str:
        if self.empty:
            return "plan: nothing to change"
        total = sum(len(operations) for operations in self.changes.values())
        lines = [f"plan: {total} changes"]
        for gateway, operations in self.changes.items():
            lines += [f"  {gateway}: {operation}" for operation in operations]
        return "\n".join(lines)


def plan(site: Site) -> Plan:
    """What a deploy would change now; changes nothing. Raises `RunError`."""
    done = _pyinfra(site, "--dry", "--json", capture=True)
    start = done.stdout.find("{")
    try:
        operations = json.loads(done.stdout[start:])["plan"]
    except (ValueError, KeyError):
        raise RunError(f"{site.name}: no plan: {_last_words(done)}") from None
    changes: dict[str, list[str]] = {gateway: [] for gateway in site.gateways}
    for operation in operations:
        for gateway in [*operation["hosts_with_change"], *operation["hosts_with_conditional_change"]]:
            changes[gateway].append(operation["name"])
    return Plan({gateway: tuple(operations) for gateway, operations in changes.items()})


def apply(site: Site, quiet: bool = False) -> None:
    """Deploys the site; pyinfra shows its progress unless `quiet`. Raises `RunError` if a gateway did not get there."""
    done = _pyinfra(site, "-y", capture=quiet)
    if done.returncode != 0:
        raise RunError(
            f"{site.name}: the deploy did not get to its end (see above; running it again goes on from there)"
        )


def _pyinfra(site: Site, *options: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYINFRA_PROGRESS": "off"}
    done = subprocess.run(
        [str(PYINFRA), *options, f"inventories/{site.name}", "deploy.py"],
        cwd=ROOT,
        env=environment,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if capture else None,
        stderr=subprocess.PIPE if capture else None,
        check=False,
    )
    if capture and done.returncode != 0:
        raise RunError(f"{site.name}: {_last_words(done)}")
    return done


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    """What pyinfra said of the gateways that failed, or the last line that says something."""
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    failed = [line for line in lines if line.startswith("[") and not _WELL.match(line)]
    errors = [found["what"] for line in lines if (found := _ERROR.match(line))]
    return "; ".join(failed) or (errors or lines or ["pyinfra said nothing"])[-1]
