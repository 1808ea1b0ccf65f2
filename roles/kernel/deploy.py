"""Configures the kernel as a router's."""

from __future__ import annotations

from pyinfra.api import deploy

from roles import lifecycle
from roles.kernel import REFUSED, USB_STORAGE, radios, service
from roles.kernel.operations import settled
from roles.target import Target

SETTINGS = "/etc/sysctl.d/99-zz-gatehouse.conf"
MODULES = "/etc/modprobe.d/gatehouse.conf"


@deploy("Kernel")
def apply(target: Target) -> None:
    """Install, configure, activate."""
    install()
    configure(target)
    activate(target)


def install() -> None:
    """sysctl and modprobe."""
    lifecycle.packages(*service.packages, name="Install the kernel's tools")


def configure(target: Target) -> None:
    """What holds from the next start on."""
    lifecycle.files(
        settings(target),
        modules(target),
        name="Configure the kernel",
        check='modprobe -c -C "$STAGED"/etc/modprobe.d >/dev/null',
    )


def activate(target: Target) -> None:
    """The same, now; compared with the kernel itself, so that what others changed meanwhile is set again."""
    settled(settings(target), name="Set what the running kernel has otherwise")
    ports = [network.interface or network.trunk or "" for network in target.gateway.networks.values()]
    lifecycle.stopped(*radios(ports), name="Keep radios off that no segment has")


def settings(target: Target) -> lifecycle.File:
    """The kernel settings of a gateway; it routes IPv6 only where a network of it has any."""
    ipv6 = any(network.ipv6 is not None for network in target.gateway.networks.values())
    return lifecycle.template("kernel", SETTINGS, ipv6=ipv6)


def modules(target: Target) -> lifecycle.File:
    """What modprobe refuses to load."""
    refused = REFUSED if target.gateway.usb_storage else {**REFUSED, **USB_STORAGE}
    return lifecycle.template("kernel", MODULES, refused=refused)
