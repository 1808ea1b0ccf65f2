"""Installs, configures and activates the dashboards."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from functools import partial

from pyinfra import host, logger
from pyinfra.api import StringCommand, deploy, operation
from pyinfra.api.command import PyinfraCommand

from roles import lifecycle, packages
from roles.differences import differs
from roles.grafana import files
from roles.grafana.facts import Differences
from roles.target import Target


@deploy("Dashboards")
def apply(target: Target) -> None:
    """Install, configure, activate; where there is no package, nothing of it."""
    packages.checked(target.site, target.site.dashboards.package)
    deployed(
        target,
        partial(lifecycle.files._inner, *files.configuration(target)),
        partial(lifecycle.running._inner, files.UNIT, loads=files.LOADS, prove=files.AWAKE),
        settled,
        name="Run the dashboards, with the vault's password and no other",
    )


@operation()
def deployed(target: Target, *steps: partial[Iterable[PyinfraCommand]]) -> Generator[PyinfraCommand, None, None]:
    """Installs the package, then runs the steps; says so where there is none, and the deploy goes on."""
    wanted = target.site.dashboards
    why = yield from packages.installed(files.PACKAGE, "dashboards", target.site, wanted.package, wanted.repository)
    if why:
        logger.warning(f"{host.print_prefix}grafana is not deployed: {why}")
        return
    for step in steps:
        yield from step()


def settled() -> Generator[StringCommand, None, None]:
    """The administrator's password: one login, and the steward's hand where it is refused."""
    found = host.get_fact(Differences, steward=files.STEWARD)
    for line in found:
        differs(host.connector_data, "dashboards", files.UNIT, line)
    if found:
        yield StringCommand(f"python3 -I {files.STEWARD} settle")
