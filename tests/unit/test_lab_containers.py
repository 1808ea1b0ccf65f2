"""A host of the lab is made anew exactly when what it is made of has changed, and starts as a fresh machine."""

from __future__ import annotations

import io
import subprocess
import tarfile
from dataclasses import replace

import pytest

from lab import conditions, provider
from lab.conditions import Conditions
from lab.containers import GATEWAY_CAPABILITIES, field_spec, gateway_spec, internet_spec, specs, switch_spec
from lab.images import archive
from lab.topology import standard

KEY = "ssh-ed25519 AAAA lab"
LAB = standard()
(GATEWAY,) = LAB.gateways


def test_the_same_lab_has_the_same_recipes_and_each_host_its_own() -> None:
    images = {"12": "server", "field": "field"}
    recipes = [spec.recipe for spec in specs(LAB, images, "12", KEY)]
    assert recipes == [spec.recipe for spec in specs(standard(), images, "12", KEY)]
    assert len(set(recipes)) == len(recipes) == 7


def test_a_gateway_is_made_anew_for_another_image_key_or_address_only() -> None:
    recipe = gateway_spec(GATEWAY, "server", KEY).recipe
    renumbered = standard(first=20).gateways[0]
    changed = [
        gateway_spec(GATEWAY, "another", KEY),
        gateway_spec(GATEWAY, "server", KEY + "2"),
        gateway_spec(renumbered, "server", KEY),
    ]
    assert recipe not in {spec.recipe for spec in changed}
    # Which ports SSH is tried on is nothing that the machine knows of.
    assert gateway_spec(replace(GATEWAY, ssh_ports=(2222,)), "server", KEY).recipe == recipe


def test_a_second_gateway_renews_the_switch_and_the_provider_and_no_host() -> None:
    two = standard(gateways=2)
    assert switch_spec(two, "field").recipe != switch_spec(LAB, "field").recipe
    assert internet_spec(two, "field").recipe != internet_spec(LAB, "field").recipe
    assert gateway_spec(two.gateways[0], "server", KEY).recipe == gateway_spec(GATEWAY, "server", KEY).recipe
    assert field_spec(two.hosts[0], "field").recipe == field_spec(LAB.hosts[0], "field").recipe


def test_a_gateway_may_run_another_release_than_its_lab() -> None:
    mixed = replace(LAB, gateways=(replace(GATEWAY, debian="13"),))
    images = {"12": "bookworm", "13": "trixie", "field": "field"}
    assert {s.image for s in specs(mixed, images, "12", KEY) if s.kind == "gateway"} == {"trixie"}
    assert {s.image for s in specs(LAB, images, "12", KEY) if s.kind == "gateway"} == {"bookworm"}


def test_a_gateway_starts_as_a_fresh_machine_that_does_not_route() -> None:
    spec = gateway_spec(GATEWAY, "server", KEY)
    assert spec.options["sysctls"]["net.ipv4.ip_forward"] == "0"
    assert spec.options["network_mode"] == "none"
    assert "privileged" not in spec.options
    # The clock and the kernel's modules are those of the operator's machine.
    assert not {"SYS_TIME", "SYS_MODULE", "ALL"} & set(GATEWAY_CAPABILITIES)
    assert spec.files["lab-first-boot/root/.ssh/authorized_keys"] == (b"ssh-ed25519 AAAA lab\n", 0o600)
    networks = {path.rpartition("/")[2] for path in spec.files if "systemd/network" in path}
    assert networks == {"10-lab-fresh-port-mgmt.network", "10-lab-fresh-uplink.network"}


def test_only_the_uplink_has_a_default_router() -> None:
    files = gateway_spec(GATEWAY, "server", KEY).files
    uplink = files["lab-first-boot/etc/systemd/network/10-lab-fresh-uplink.network"][0].decode()
    management = files["lab-first-boot/etc/systemd/network/10-lab-fresh-port-mgmt.network"][0].decode()
    assert "Gateway=198.51.100.1\nGateway=2001:db8:51::1\n" in uplink
    assert "Address=10.10.20.1/24" in management
    assert "Gateway=" not in management


def test_an_archive_keeps_the_ssh_directory_private_and_the_others_open() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive(gateway_spec(GATEWAY, "server", KEY).files))) as tar:
        modes = {member.name: member.mode for member in tar}
    assert modes["lab-first-boot/root/.ssh"] == 0o700
    assert modes["lab-first-boot/etc"] == 0o755
    assert modes["usr/local/sbin/lab-init"] == 0o755


@pytest.mark.parametrize("topology", [LAB, standard(gateways=2)], ids=["one gateway", "two gateways"])
def test_nft_accepts_the_providers_rules(topology: object) -> None:
    rules = provider.files(topology)["etc/lab/provider.nft"][0]  # type: ignore[arg-type]
    done = subprocess.run(["unshare", "--net", "nft", "-c", "-f", "-"], input=rules, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    broken = subprocess.run(["unshare", "--net", "nft", "-c", "-f", "-"], input=rules + b"drop", capture_output=True)
    assert broken.returncode != 0


def test_a_lab_without_ipv6_has_a_provider_without_it() -> None:
    v4 = replace(
        LAB,
        services=tuple(s for s in LAB.services if s.version == 4),
        internet=replace(LAB.internet, addresses=LAB.internet.addresses[:1]),
        gateways=(
            replace(GATEWAY, ports=tuple(replace(port, addresses=port.addresses[:1]) for port in GATEWAY.ports)),
        ),
    )
    rules = provider.files(v4)["etc/lab/provider.nft"][0]
    assert b"ip6" not in rules
    assert b"ip saddr { 198.51.100.0/24 }" in rules


def test_a_release_has_its_updates_and_its_security_updates() -> None:
    found = Conditions("http://mirror/debian", "http://mirror/security", (("Acquire::Check-Date", "false"),), ())
    assert found.sources("13") == [
        "deb http://mirror/debian trixie main",
        "deb http://mirror/debian trixie-updates main",
        "deb http://mirror/security trixie-security main",
    ]
    assert found.apt_lines() == ['Acquire::Check-Date "false";']


def test_a_proxy_on_this_machines_loopback_is_none_for_a_lab_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def apt(*command: str) -> str:
        if command[0] == "apt-config":
            return (
                'Acquire::http::Proxy "http://127.0.0.1:3142";\nAcquire::https::Proxy "http://10.0.0.5:31";\nAPT "";\n'
            )
        return (
            "http://mirror/debian/ bookworm main\nhttp://other/apt stable main\nhttp://sec/d bookworm-security main\n"
        )

    monkeypatch.setattr(conditions, "_apt", apt)
    found = conditions.detect()
    assert found.options == (("Acquire::https::Proxy", "http://10.0.0.5:31"),)
    assert (found.mirror, found.security_mirror) == ("http://mirror/debian", "http://sec/d")


def test_a_machine_whose_apt_says_nothing_gets_debians_own_mirrors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "_apt", lambda *_: "")
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.delenv("https_proxy", raising=False)
    found = conditions.detect()
    assert (found.mirror, found.security_mirror) == (conditions.MIRROR, conditions.SECURITY_MIRROR)
    assert found.options == ()
