"""Build a lab, repair it, look at it, take it down."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import docker
from docker.errors import APIError, DockerException
from docker.models.containers import Container

from lab import acme, engine, images, tun
from lab.containers import (
    KIND,
    RECIPE,
    STATE,
    SWITCH,
    TOPOLOGY,
    Spec,
    container_name,
    create,
    execute,
    of_lab,
    remove,
    specs,
)
from lab.errors import LabError
from lab.plumbing import plumb as plumb_hosts
from lab.plumbing import refuse_taken_prefixes
from lab.state import Log, State, locked, write
from lab.topology import GatewayHost, Topology, load
from lab.wires import Namespace, left_over

BOOT_SECONDS = 90
HOST_KEYS, WHOLE = "/etc/ssh/ssh_host_*_key.pub", "that is all"
ASKED_AGAIN = 5


@dataclass(frozen=True)
class Row:
    """One host of a lab as `status` shows it; `addresses` as the topology has them."""

    host: str
    kind: str
    status: str
    segment: str
    addresses: tuple[str, ...]


def up(topology: Topology, debian: str = "12", log: Log = print, home: Path | None = None) -> State:
    """Build the lab, or repair what is there; returns its state (SSH key, known_hosts). Idempotent.

    `home` is where the state directory is made (default `.lab/` of the checkout). Raises LabError.
    """
    name = topology.name
    with locked(name, log), _engine_errors(name):
        client = engine.connect(log)
        state = State(name, home)
        _clear_another_checkouts(client, state, log)
        refuse_taken_prefixes(topology)
        tun.ensure(log)
        public_key = state.prepare()
        releases = {gateway.debian or debian for gateway in topology.gateways}
        made = {release: images.server_image(client, release, log) for release in sorted(releases)}
        made["field"] = images.field_image(client, log)
        wanted = specs(topology, made, debian, public_key)
        _settle(client, name, wanted, state, log)
        started = time.monotonic()
        cables = plumb_hosts(topology, of_lab(client, name))
        hosts = of_lab(client, name)
        pinned = [line for gateway in topology.gateways for line in _await_ssh(hosts, gateway, name)]
        if cables:
            log(f"lab: {cables} cables, SSH answers … {time.monotonic() - started:.0f} s")
        state.pin(pinned)
        for file, content in acme.anchors(partial(execute, hosts[topology.internet.name]), name).items():
            write(state.directory / file, content, 0o644)
        return state


def down(name: str, log: Log = print, home: Path | None = None) -> None:
    """Remove the lab: containers, interfaces, keys. The images stay. Nothing to remove is no error."""
    with locked(name, log), _engine_errors(name):
        state = State(name, home)
        if engine.installed():
            # A dead engine still has the lab's containers on its disk: it is started to remove them.
            client = engine.connect(log)
            _clear_another_checkouts(client, state, log)
            _remove_all(list(of_lab(client, name).values()))
        Namespace().ip(*(f"link delete {link}" for link in left_over(name)), force=True)
        state.remove()


def status(name: str) -> list[Row]:
    """The hosts of a lab, running or not; empty if there is no lab of that name.

    Raises LabError if an engine is installed and doesn't answer: what it has can't be seen then.
    """
    if not engine.installed():
        return []
    containers = of_lab(engine.connect(start=False), name)
    topology = _topology(containers, name) if SWITCH in containers else None
    places: dict[str, tuple[str, tuple[str, ...]]] = {}
    if topology:
        for member in (*topology.hosts, topology.internet):
            places[member.name] = (member.segment, tuple(str(a) for a in member.addresses))
        for gateway in topology.gateways:
            places[gateway.name] = ("", tuple(str(a) for port in gateway.ports for a in port.addresses))
    rows = []
    for host, container in sorted(containers.items()):
        segment, addresses = places.get(host, ("", ()))
        rows.append(Row(host, container.labels[KIND], container.status, segment, addresses))
    return rows


def plumb(name: str) -> int:
    """Repair a running lab's cables, as after `docker restart`; returns how many were made anew."""
    with _engine_errors(name):
        containers = of_lab(engine.connect(start=False), name)
        return plumb_hosts(_topology(containers, name), containers)


def restart(name: str, host: str, log: Log = print) -> None:
    """Restart a host as a reboot does: its processes and cables go, its disk stays. Waits for SSH on a gateway."""
    with locked(name, log), _engine_errors(name):
        client = engine.connect(start=False)
        containers = of_lab(client, name)
        if host not in containers:
            raise LabError(f"lab {name}: has no host {host!r} (there are: {', '.join(sorted(containers)) or 'none'})")
        topology = _topology(containers, name)
        containers[host].restart(timeout=20)
        containers = of_lab(client, name)
        plumb_hosts(topology, containers)
        for gateway in topology.gateways:
            if gateway.name == host:
                _await_ssh(containers, gateway, name)


@contextlib.contextmanager
def _engine_errors(name: str) -> Iterator[None]:
    try:
        yield
    except APIError as error:
        raise LabError(f"lab {name}: Docker: {error.explanation or error} (run 'invoke lab.up' again)") from error
    except (DockerException, OSError) as error:
        raise LabError(f"lab {name}: {error} (is the Docker Engine still running? see {engine.LOG_FILE})") from error


def _clear_another_checkouts(client: docker.DockerClient, state: State, log: Log) -> None:
    """Remove what another checkout left under this lab's name; a lab that it still runs is refused instead.

    A machine that went down in the middle of a run leaves stopped containers, and nobody comes back for them.
    """
    mine, name = state.directory.resolve(), state.directory.name
    others = [
        (container, other)
        for container in of_lab(client, name).values()
        if (other := Path(container.labels.get(STATE, ""))) != mine
    ]
    for container, other in others:
        if container.status != "exited" and (other / "id_ed25519").exists():
            raise LabError(f"lab {name}: belongs to {other} (take it down there, or set GATEHOUSE_LAB to another name)")
    if others:
        log(f"lab: removing what {others[0][1]} left of a lab {name} that no longer runs")
        _remove_all([container for container, _ in others])


def _settle(client: docker.DockerClient, name: str, wanted: list[Spec], state: State, log: Log) -> None:
    """Bring the containers to what is wanted: keep those that fit, start the stopped, make the others anew."""
    there = of_lab(client, name)
    by_host = {spec.host: spec for spec in wanted}
    fits = {h for h, c in there.items() if h in by_host and c.labels.get(RECIPE) == by_host[h].recipe}
    # "created" is what a killed run left between making and starting: its files may be missing.
    whole = {h for h in fits if there[h].status in ("running", "exited", "paused")}
    _remove_all([container for host, container in there.items() if host not in whole])
    for host in whole:
        if there[host].status == "paused":
            there[host].unpause()
        elif there[host].status == "exited":
            log(f"lab: starting {host} again")
            there[host].start()
    missing = [spec for spec in wanted if spec.host not in whole]
    if missing:
        with images.step(log, f"containers {', '.join(spec.host for spec in missing)}"):
            for spec in missing:
                _make(client, name, spec, state)


def _make(client: docker.DockerClient, name: str, spec: Spec, state: State) -> None:
    try:
        create(client, name, spec, str(state.directory.resolve()))
    except APIError as error:
        if error.status_code == 409:
            raise LabError(
                f"lab {name}: a container {container_name(name, spec.host)} exists and is not the lab's "
                "(remove or rename it)"
            ) from None
        raise LabError(f"lab {name}: {spec.host} doesn't start: {error.explanation or error}") from error


def _remove_all(containers: list[Container]) -> None:
    for container in containers:
        remove(container)
        _remove_cgroups(str(container.id))


def _remove_cgroups(identity: str) -> None:
    """Take away the control groups that systemd made below a container's: on cgroup v1 the engine leaves them."""
    for root in Path("/sys/fs/cgroup").glob(f"*/docker/{identity}"):
        for folder in sorted((p for p in root.rglob("*") if p.is_dir()), key=lambda p: -len(p.parts)):
            with contextlib.suppress(OSError):
                folder.rmdir()
        with contextlib.suppress(OSError):
            root.rmdir()


def _topology(containers: dict[str, Container], name: str) -> Topology:
    if SWITCH not in containers:
        raise LabError(f"lab {name}: isn't up (run 'invoke lab.up')")
    return load(containers[SWITCH].labels.get(TOPOLOGY, ""))


def _await_ssh(containers: dict[str, Container], gateway: GatewayHost, name: str) -> list[str]:
    """Wait until sshd greets on one of its ports; returns known_hosts lines, the keys as read inside the gateway."""
    address, deadline = str(gateway.management), time.monotonic() + BOOT_SECONDS
    while not any(banner(address, port) for port in gateway.ssh_ports):
        if time.monotonic() > deadline:
            raise LabError(
                f"lab {name}: {gateway.name}: no SSH on {address} after {BOOT_SECONDS} s "
                f"(look at it with 'invoke lab.shell {gateway.name}': systemctl --failed; networkctl)"
            )
        time.sleep(0.2)
    return pinned(address, gateway.ssh_ports, lambda argv: execute(containers[gateway.name], argv)[1])


def pinned(address: str, ports: tuple[int, ...], ask: Callable[[list[str]], str]) -> list[str]:
    """The lines of known_hosts (sshd(8)) for a host that answers on these ports, from its public keys.

    `ask` is what a command says on the host; where its end was lost it is asked again. Raises LabError.
    """
    said: list[str] = []
    for _ in range(ASKED_AGAIN):
        said = [line.strip() for line in ask(["sh", "-c", f"cat {HOST_KEYS} && echo {WHOLE}"]).splitlines()]
        if len(said) > 1 and said[-1] == WHOLE:
            names = [address if port == 22 else f"[{address}]:{port}" for port in ports]
            return [f"{','.join(names)} {' '.join(line.split()[:2])}" for line in said[:-1]]
    raise LabError(
        f"lab: {address}: no host keys in {HOST_KEYS}, it says {' '.join(said)!r} (run 'invoke lab.up' again)"
    )


def banner(address: str, port: int, timeout: float = 1) -> bool:
    """Whether SSH greets there."""
    try:
        with socket.create_connection((address, port), timeout) as connection:
            return connection.recv(8).startswith(b"SSH-2.0")
    except OSError:
        return False
