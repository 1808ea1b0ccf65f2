"""Kernel settings and modules as rendered, and how they are compared with what runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from roles import lifecycle
from roles.differences import HEARD
from roles.kernel import REFUSED, operations
from roles.kernel import deploy as kernel
from roles.kernel.facts import Setting, Settings
from roles.target import Target
from tests.roles.judge import Judge, judging
from tests.roles.test_foundation_time import WITHOUT_IPV6


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    """A container with Debian's systemd and kmod."""
    with judging() as judge:
        yield judge


def test_a_gateway_routes(gateway_of: Callable[..., Target]) -> None:
    settings = operations.wanted(kernel.settings(gateway_of()))
    assert settings["net/ipv4/ip_forward"] == "1"
    assert settings["net/ipv6/conf/all/forwarding"] == "1"


def test_a_gateway_without_ipv6_does_not_route_it(gateway_of: Callable[..., Target]) -> None:
    settings = operations.wanted(kernel.settings(gateway_of(gateways=WITHOUT_IPV6)))
    assert settings["net/ipv4/ip_forward"] == "1"
    assert settings["net/ipv6/conf/all/forwarding"] == "0"


def test_forwarding_comes_before_what_it_resets(gateway_of: Callable[..., Target]) -> None:
    keys = list(operations.wanted(kernel.settings(gateway_of())))
    assert keys.index("net/ipv4/ip_forward") < keys.index("net/ipv4/conf/*/accept_redirects")


def test_systemd_reads_what_the_deploy_compares(judge: Judge, gateway_of: Callable[..., Target]) -> None:
    file = kernel.settings(gateway_of())
    judge.install(file)
    # Most of /proc/sys can't be written here: what systemd-sysctl says that it tried is what counts.
    said = judge.run(f"SYSTEMD_LOG_LEVEL=debug /lib/systemd/systemd-sysctl {file.path}").output
    for key, value in operations.wanted(file).items():
        if "*" not in key and judge.run(f"[ -e /proc/sys/{key} ]"):
            assert f"Setting '/proc/sys/{key}' to '{value}'" in said, key


def test_the_fact_reads_what_the_kernel_has(judge: Judge) -> None:
    patterns = ["net/ipv4/ip_forward", "net/ipv4/conf/*/rp_filter", "net/ipv4/no_such_setting", "kernel/pid_max"]
    command = Settings().command(patterns)
    verdict = judge.run(command)
    found = Settings().process(verdict.output.splitlines())
    assert {"net/ipv4/ip_forward", "net/ipv4/conf/all/rp_filter", "net/ipv4/conf/lo/rp_filter"} <= found.keys()
    assert "net/ipv4/no_such_setting" not in found
    assert found["net/ipv4/ip_forward"] == Setting(judge.run("cat /proc/sys/net/ipv4/ip_forward").output.strip(), False)
    # All of a number, and not its first digit.
    assert found["kernel/pid_max"].value == judge.run("cat /proc/sys/kernel/pid_max").output.strip()
    assert len(found["kernel/pid_max"].value) > 1


def changes(
    monkeypatch: pytest.MonkeyPatch, file: lifecycle.File, current: dict[str, Setting], told: dict[str, Any]
) -> list[str]:
    """The commands of the operation on a host with these settings; what it tells of differences goes into `told`."""

    class Host:
        connector_data = told

        def get_fact(self, *_: Any, **__: Any) -> dict[str, Setting]:
            return current

    monkeypatch.setattr(operations, "host", Host())
    return [str(command) for command in operations.settled._inner(file)]


def test_only_what_differs_and_can_be_set_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    file = lifecycle.File("/etc/sysctl.d/x.conf", b"# why\nnet.ipv4.conf.*.rp_filter = 1\n-kernel.sysrq = 0\n")
    as_wanted = {"net/ipv4/conf/br-iot/rp_filter": Setting("1", True)}
    told: dict[str, Any] = {HEARD: []}
    assert changes(monkeypatch, file, as_wanted, told) == []
    read_only = {"kernel/sysrq": Setting("1", False)}
    assert changes(monkeypatch, file, as_wanted | read_only, told) == []
    assert told[HEARD] == []
    other = {"net/ipv4/conf/trunk.10/rp_filter": Setting("0", True), "kernel/sysrq": Setting("1", True)}
    (command,) = changes(monkeypatch, file, as_wanted | other, told)
    assert "echo 1 >/proc/sys/net/ipv4/conf/trunk.10/rp_filter" in command
    assert "echo 0 >/proc/sys/kernel/sysrq" in command
    assert "br-iot" not in command
    assert sorted(told[HEARD]) == [
        ("kernel", "kernel/sysrq", "1, not 0"),
        ("kernel", "net/ipv4/conf/trunk.10/rp_filter", "0, not 1"),
    ]


@pytest.mark.parametrize("usb_storage", [True, False])
def test_modprobe_refuses_the_modules_and_keeps_what_machines_start_from(
    judge: Judge, gateway_of: Callable[..., Target], usb_storage: bool
) -> None:
    target = gateway_of(iot={"ipv4": "10.10.10.1/24"})
    gateway = target.gateway.model_copy(update={"usb_storage": usb_storage})
    site = target.site.model_copy(update={"gateways": {target.name: gateway}})
    judge.install(kernel.modules(Target(site, target.name, lambda: target.pki)))
    verdict = judge.run("modprobe -c")
    assert verdict
    refused = {line.split()[1] for line in verdict.output.splitlines() if line.endswith(" /bin/false")}
    named = {module.replace("-", "_") for modules in REFUSED.values() for module in modules}
    assert refused == (named if usb_storage else named | {"uas", "usb_storage"})
    refused -= set() if usb_storage else {"uas", "usb_storage"}
    assert not refused & {"vfat", "squashfs", "overlay", "usb_storage", "uas", "can", "bluetooth", "8021q", "bridge"}
