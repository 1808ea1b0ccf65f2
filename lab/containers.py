"""How each kind of host is run as a container, and what tells that one must be made anew."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container

from lab import fresh, provider
from lab.images import archive
from lab.topology import INTERNET, FieldHost, GatewayHost, Topology, dump

LAB = "org.gatehouse.lab"
HOST = "org.gatehouse.host"
KIND = "org.gatehouse.kind"
RECIPE = "org.gatehouse.recipe"
STATE = "org.gatehouse.state"
TOPOLOGY = "org.gatehouse.topology"

SWITCH = "switch"

# A host's kernel settings at power-on. Docker turns IPv6 off without a network, and a new namespace inherits IPv4
# forwarding from a machine that runs Docker: a fresh gateway must not route before it is told to.
HOST_SYSCTLS = {"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.disable_ipv6": "0"}
GATEWAY_SYSCTLS = {**HOST_SYSCTLS, "net.ipv4.ip_forward": "0", "net.ipv6.conf.all.forwarding": "0"}
FIELD_SYSCTLS = {**HOST_SYSCTLS, "net.ipv4.ip_forward": "0", "net.ipv6.conf.default.accept_ra": "0"}
INTERNET_SYSCTLS = {**HOST_SYSCTLS, "net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"}
# Loaded on a machine that runs Docker, never on a gateway: it would send bridged frames through the IP firewall.
BRIDGE_SYSCTLS = {f"net.bridge.bridge-nf-call-{table}": "0" for table in ("iptables", "ip6tables", "arptables")}

# systemd as first process, network namespaces for probes, and hardened units, without --privileged. CAP_SYS_TIME is not
# among them: the clock is the operator's.
GATEWAY_CAPABILITIES = ["SYS_ADMIN", "NET_ADMIN", "NET_RAW", "SYS_PTRACE", "DAC_READ_SEARCH"]

FIELD_COMMAND = ["/usr/bin/python3", "/usr/local/sbin/lab-field"]
FIELD_FILES = {"usr/local/sbin/lab-field": (Path(__file__).with_name("field.py").read_bytes(), 0o755)}


@dataclass(frozen=True)
class Spec:
    """A container to run: its host name, kind, image, Docker's options, and files to put in before its first start."""

    host: str
    kind: str
    image: str
    options: dict[str, Any]
    files: dict[str, tuple[bytes, int]] = field(default_factory=dict)

    @property
    def recipe(self) -> str:
        """A hash that differs when the container must be made anew."""
        parts = [self.host, self.kind, self.image, json.dumps(self.options, sort_keys=True)]
        parts += [f"{path} {mode} {content.hex()}" for path, (content, mode) in sorted(self.files.items())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def container_name(lab: str, host: str) -> str:
    """`gatehouse-lab-gateway`."""
    return f"gatehouse-{lab}-{host}"


def _bridged(sysctls: dict[str, str]) -> dict[str, str]:
    loaded = Path("/proc/sys/net/bridge").is_dir()
    return {**sysctls, **BRIDGE_SYSCTLS} if loaded else sysctls


def switch_spec(topology: Topology, image: str) -> Spec:
    """The switch: a network namespace for the bridges. Its label holds the topology: another one makes it anew."""
    options = {
        "network_mode": "none",
        "sysctls": _bridged({"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1"}),
        "labels": {TOPOLOGY: dump(topology)},
        "command": ["sleep", "infinity"],
        "init": True,
    }
    return Spec(SWITCH, "switch", image, options)


def field_spec(host: FieldHost, image: str) -> Spec:
    """A field host: tools and an answering port; it may set its own addresses, so that a test can lie about them."""
    options: dict[str, Any] = {
        "command": FIELD_COMMAND,
        "network_mode": "none",
        "sysctls": FIELD_SYSCTLS,
        "cap_add": ["NET_ADMIN", "NET_RAW"],
        "dns": [str(host.resolver)] if host.resolver else [],
    }
    return Spec(host.name, "field", image, options, FIELD_FILES)


def internet_spec(topology: Topology, image: str) -> Spec:
    """The provider: on Docker's default bridge too, which is how the lab reaches Debian's packages and DNS."""
    options: dict[str, Any] = {
        "command": FIELD_COMMAND,
        "network_mode": "bridge",
        "sysctls": INTERNET_SYSCTLS,
        "cap_add": ["NET_ADMIN", "NET_RAW"],
    }
    return Spec(INTERNET, "internet", image, options, {**FIELD_FILES, **provider.files(topology)})


def gateway_spec(gateway: GatewayHost, image: str, public_key: str) -> Spec:
    """A gateway as a fresh machine: systemd, sshd, root by the lab's key, addresses on management and uplink only."""
    options = {
        "command": ["/usr/local/sbin/lab-init"],
        "stop_signal": "SIGRTMIN+3",
        "network_mode": "none",
        "cap_add": GATEWAY_CAPABILITIES,
        "security_opt": ["seccomp=unconfined", "apparmor=unconfined"],
        "tmpfs": {"/run": "", "/run/lock": ""},
        # For WireGuard, which no container's kernel needs to have: see `roles/wireguard`.
        "devices": ["/dev/net/tun"],
        "volumes": ["/sys/fs/cgroup:/sys/fs/cgroup:rw"],
        "cgroupns": "host",
        "sysctls": _bridged(GATEWAY_SYSCTLS),
    }
    return Spec(gateway.name, "gateway", image, options, _first_boot(gateway, public_key))


def _first_boot(gateway: GatewayHost, public_key: str) -> dict[str, tuple[bytes, int]]:
    """What an installer leaves on a machine, put in place by the lab's init at the first boot."""
    files = {f"lab-first-boot/{path}": file for path, file in fresh.files(gateway, public_key).items()}
    files["usr/local/sbin/lab-init"] = (Path(__file__).with_name("init.sh").read_bytes(), 0o755)
    return files


def specs(topology: Topology, images: dict[str, str], debian: str, public_key: str) -> list[Spec]:
    """Every container of a lab; `images` holds "field" and one entry a release. The switch comes first."""
    field_image = images["field"]
    return [
        switch_spec(topology, field_image),
        internet_spec(topology, field_image),
        *(gateway_spec(g, images[g.debian or debian], public_key) for g in topology.gateways),
        *(field_spec(h, field_image) for h in topology.hosts),
    ]


def of_lab(client: docker.DockerClient, lab: str) -> dict[str, Container]:
    """The containers of a lab by host name, running or not."""
    found = client.containers.list(all=True, filters={"label": f"{LAB}={lab}"}, ignore_removed=True)
    return {c.labels[HOST]: c for c in found}


def create(client: docker.DockerClient, lab: str, spec: Spec, state: str) -> Container:
    """Make and start a container."""
    name = container_name(lab, spec.host)
    own = {LAB: lab, HOST: spec.host, KIND: spec.kind, RECIPE: spec.recipe, STATE: state}
    container = client.containers.create(
        spec.image,
        name=name,
        hostname=spec.host,
        detach=True,
        **{**spec.options, "labels": {**spec.options.get("labels", {}), **own}},
    )
    if spec.files:
        container.put_archive("/", archive(spec.files))
    container.start()
    return container


def execute(container: Container, argv: list[str]) -> tuple[int, str]:
    """Run a short program in a container; returns its exit status and what it said on both streams."""
    done = container.exec_run(argv)
    said = done.output if isinstance(done.output, bytes) else b"".join(done.output)
    return done.exit_code or 0, said.decode(errors="replace")


def remove(container: Container) -> None:
    """End and remove a container, whatever state it is in."""
    with contextlib.suppress(NotFound):
        try:
            container.remove(force=True, v=True)
        except APIError as error:
            # A busy engine took longer than its client waits, and is still at it.
            if error.status_code != 409 or "already in progress" not in str(error.explanation):
                raise
            container.wait(condition="removed", timeout=120)
