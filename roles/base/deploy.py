"""Installs what every role needs on the gateway."""

from __future__ import annotations

from pyinfra.api import deploy

from roles import lifecycle
from roles.base import service
from roles.target import Target


@deploy("Base")
def apply(target: Target) -> None:
    """Install, configure; there is nothing to activate."""
    install(target)
    configure()


def install(target: Target) -> None:
    """The packages of every role in one transaction: one run of apt instead of one a role."""
    wanted = sorted({package for role in target.site.services_of(target.name) for package in role.packages})
    lifecycle.packages(name="Install Debian packages", *{*service.packages, *wanted})  # noqa: B026


def configure() -> None:
    """The kit's tools, and where it keeps what it must remember."""
    lifecycle.files(
        lifecycle.Directory("/usr/lib/gatehouse"),
        lifecycle.Directory("/var/lib/gatehouse", mode=0o700),
        lifecycle.template("base", lifecycle.STAMP, mode=0o755, loaded=lifecycle.LOADED),
        name="Install the kit's tools",
    )
