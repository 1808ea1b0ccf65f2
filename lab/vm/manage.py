"""Build a lab of virtual machines, look at it, save and load its state, take it down."""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import engine, fresh
from lab.errors import LabError
from lab.hosts import Completed
from lab.images import step
from lab.manage import Row, banner, pinned
from lab.state import Log, State, locked, write
from lab.topology import GatewayHost, Topology, dump, load
from lab.vm import console, field
from lab.vm.accelerator import QEMU, acceleration
from lab.vm.field import CONTROL, CONTROL_ADDRESS, FIELD, OUTSIDE
from lab.vm.images import GUEST, Image, image
from lab.vm.machine import WIRE, Machine, Plan, Wire
from lab.wires import hardware_address

LOOPBACK = "127.0.0.1"
# Emulated, and on a busy machine, what takes a second elsewhere takes ten.
BOOT_SECONDS = 420
PACKAGES = {QEMU: "qemu-system-x86", "qemu-img": "qemu-utils", "mke2fs": "e2fsprogs", "unshare": "util-linux"}
_MEMORY = 1024  # MiB


def folder(name: str, home: Path | None = None) -> Path:
    """Where a lab of virtual machines has its disks and sockets; it exists only while there is one."""
    return State(name, home).directory / "machines"


def up(topology: Topology, debian: str = "12", log: Log = print, home: Path | None = None) -> State:
    """Build the lab, or start what is stopped, or repair what is there. Idempotent. Raises LabError."""
    name = topology.name
    _refuse_what_machines_cannot_be(topology)
    (gateway,) = topology.gateways
    with locked(name, log, patience=1800):
        _ensure_programs(log)
        state = State(name, home)
        public_key = state.prepare()
        made = {"server": image(gateway.debian or debian, log), FIELD: image("12", log, field=True)}
        where = folder(name, home)
        where.mkdir(mode=0o700, exist_ok=True)
        write(where / "topology.json", dump(topology).encode(), 0o600)
        plans = [field_plan(topology, made[FIELD]), gateway_plan(topology, gateway, made["server"], public_key)]
        outside, inside = machines = [Machine(where, plan.name) for plan in plans]
        started = time.monotonic()
        accelerator = ""
        for plan, machine in zip(plans, machines, strict=True):
            if not machine.fits(plan):
                machine.stop()
                machine.make(plan)
            if machine.pid is None:
                accelerator = accelerator or acceleration()
                if machine is outside:
                    refuse_taken_ports(gateway)
                    inside.stop()  # its wires are plugged in when it starts
                machine.start(plan, accelerator)
        with ThreadPoolExecutor() as pool:
            list(pool.map(_await_console, machines))
        plumbed = field.plumb(topology, outside, gateway.ssh_ports[0])
        keys = _await_ssh(gateway, inside, name)
        if accelerator or plumbed:
            log(f"lab: {' and '.join(m.name for m in machines)} answer ({accelerator or 'running'})"
                f" … {time.monotonic() - started:.0f} s")  # fmt: skip
        state.pin(keys)
        return state


def down(name: str, log: Log = print, home: Path | None = None) -> None:
    """Remove the lab: machines, their disks, keys. The images stay. Nothing to remove is no error."""
    with locked(name, log):
        for machine in _machines(name, home):
            machine.stop()
        State(name, home).remove()


def status(name: str) -> list[Row]:
    """The hosts of a lab: the field's are as its machine is."""
    if not folder(name).is_dir():
        return []
    topology, rows = _topology(name), []
    said = {machine.name: "running" if machine.pid else "stopped" for machine in _machines(name)}
    for gateway in topology.gateways:
        addresses = tuple(str(a) for port in gateway.ports for a in port.addresses)
        rows.append(Row(gateway.name, "gateway", said.get(gateway.name, "missing"), "", addresses))
    for member in (topology.internet, *topology.hosts):
        kind = "internet" if member is topology.internet else FIELD
        addresses = tuple(str(a) for a in member.addresses)
        rows.append(Row(member.name, kind, said.get(FIELD, "missing"), member.segment, addresses))
    return rows


def run(
    name: str,
    host: str,
    argv: list[str] | tuple[str, ...],
    stdin: str | bytes | None = None,
    timeout: float | None = 60,
) -> Completed:
    """Run a program as root on a host, or on the `field` machine itself, by the console: no network takes part in it.

    Raises LabError if there is no such host, TimeoutError after `timeout` seconds (the program is killed then).
    """
    machine, command = _at(name, host, list(argv))
    return console.run(machine, command, stdin, timeout)


def shell(name: str, host: str) -> int:
    """A login shell on a host, on this terminal."""
    machine, command = _at(name, host, ["bash", "--login"])
    return console.shell(machine, command)


def restart(name: str, host: str, log: Log = print) -> None:
    """Reboot the gateway, and wait until SSH answers again."""
    with locked(name, log):
        topology = _topology(name)
        gateway = _gateway_of(topology, host)
        machine = Machine(folder(name), host)
        boot = _boot(machine)
        console.run(machine, ["systemctl", "reboot", "--no-block"])
        deadline = time.monotonic() + BOOT_SECONDS
        while _boot(machine) in ("", boot):
            if time.monotonic() > deadline:
                raise LabError(f"lab {name}: {host} doesn't come back (see {machine.console_log})")
            time.sleep(1)
        _await_ssh(gateway, machine, name)


def save(name: str, tag: str, log: Log = print) -> None:
    """Keep the state of the running lab under a name, for `restore`: for development, never for a verdict."""
    with locked(name, log), step(log, f"state '{tag}' saved"):
        _all(name, f"savevm {tag}")


def restore(name: str, tag: str, log: Log = print) -> None:
    """Go back to a saved state; the guests' clocks are set to now."""
    with locked(name, log), step(log, f"state '{tag}' loaded"):
        _all(name, f"loadvm {tag}")
        for machine in _machines(name):
            # It still lives in the moment when it was saved, and no certificate of today is valid there.
            console.run(machine, ["date", "--utc", "-s", f"@{time.time():.3f}"])


def cut_power(name: str, host: str) -> None:
    """Let a machine lose power, now: `up` starts it again."""
    Machine(folder(name), host).stop()


def _all(name: str, command: str) -> None:
    """The same moment for both: they are stopped while each is told."""
    _topology(name)
    machines = _machines(name)
    for machine in machines:
        machine.monitor({"execute": "stop"})
    try:
        for machine in machines:
            machine.human(command)
    finally:
        for machine in machines:
            machine.monitor({"execute": "cont"})


def gateway_plan(topology: Topology, gateway: GatewayHost, image: Image, public_key: str) -> Plan:
    """The gateway as a fresh machine, with nothing but its wires to the field machine."""
    wires = [_wire(topology, gateway.name, interface) for interface in _interfaces(gateway)]
    files = {**fresh.files(gateway, public_key), **_common(wires)}
    return Plan(gateway.name, image, tuple(wires), _MEMORY, files)


def field_plan(topology: Topology, image: Image) -> Plan:
    """The field machine: the other ends of the gateway's wires, the operator's way in, and one to the internet."""
    (gateway,) = topology.gateways
    leads = "".join(
        f",hostfwd=tcp:{LOOPBACK}:{port}-{CONTROL_ADDRESS.ip}:{port}"
        for port in field.forwards(gateway, gateway.ssh_ports[0])
    )
    cards = {CONTROL: f"user,net={CONTROL_ADDRESS.network},restrict=on,ipv6=off{leads}", OUTSIDE: "user,ipv6=off"}
    wires = [Wire(card, hardware_address(f"{topology.name}:{FIELD}/{card}"), netdev) for card, netdev in cards.items()]
    wires += [_wire(topology, FIELD, interface) for interface in _interfaces(gateway)]
    return Plan(FIELD, image, tuple(wires), _MEMORY, {**field.files(topology), **_common(wires)})


def _interfaces(gateway: GatewayHost) -> list[str]:
    """The gateway's network cards: a trunk is one for all of its segments."""
    return list(dict.fromkeys(port.interface for port in gateway.ports))


def _wire(topology: Topology, host: str, interface: str) -> Wire:
    """One of the wires between the machines. The field's ends are there first, and wait for the gateway's.

    They are streams: where one side is slow, the other waits. With datagrams QEMU asks again and again until there is
    room, which takes a whole processor.
    """
    end = f"stream,server={'on' if host == FIELD else 'off'},addr.type=unix,addr.path={interface}.{WIRE}"
    return Wire(interface, hardware_address(f"{topology.name}:{host}/{interface}"), end)


def _common(wires: list[Wire]) -> dict[str, tuple[bytes, int]]:
    files = {"usr/local/sbin/lab-console": ((GUEST / "console.py").read_bytes(), 0o755)}
    for wire in wires:
        text = f"[Match]\nMACAddress={wire.hardware_address}\nType=ether\n\n[Link]\nName={wire.name}\n"
        files[f"etc/systemd/network/10-lab-{wire.name}.link"] = (text.encode(), 0o644)
    return files


def _await_console(machine: Machine) -> None:
    deadline = time.monotonic() + BOOT_SECONDS
    while not console.answers(machine, 10):
        if machine.pid is None:
            raise LabError(f"lab: {machine.name}: QEMU ended (see {machine.folder / 'qemu.log'})")
        if time.monotonic() > deadline:
            raise LabError(f"lab: {machine.name}: no console after {BOOT_SECONDS} s (see {machine.console_log})")
        time.sleep(0.5)


def _await_ssh(gateway: GatewayHost, machine: Machine, name: str) -> list[str]:
    """Wait until sshd greets over the operator's way in; returns known_hosts lines, as read inside the gateway."""
    deadline = time.monotonic() + BOOT_SECONDS
    while not any(banner(LOOPBACK, port, 5) for port in gateway.ssh_ports):
        if time.monotonic() > deadline:
            raise LabError(
                f"lab {name}: {gateway.name}: no SSH after {BOOT_SECONDS} s "
                f"(look at it with 'invoke lab.shell {gateway.name} --vm': systemctl --failed; networkctl)"
            )
        time.sleep(0.5)
    return pinned(LOOPBACK, gateway.ssh_ports, lambda argv: console.run(machine, argv).stdout)


def _boot(machine: Machine) -> str:
    """The boot id of a running machine; empty while it gives none."""
    with contextlib.suppress(LabError, TimeoutError):
        return console.run(machine, ["cat", "/proc/sys/kernel/random/boot_id"], timeout=10).stdout.strip()
    return ""


def _at(name: str, host: str, argv: list[str]) -> tuple[Machine, list[str]]:
    topology = _topology(name)
    inside = [member.name for member in (*topology.hosts, topology.internet)] + [field.OPERATORS_NAMESPACE]
    own = [*(gateway.name for gateway in topology.gateways), FIELD]
    if host not in (*inside, *own):
        raise LabError(f"lab {name}: has no host {host!r} (there are: {', '.join([*own, *inside])})")
    machine = Machine(folder(name), host if host in own else FIELD)
    return machine, argv if host in own else field.command(host, argv)


def _gateway_of(topology: Topology, host: str) -> GatewayHost:
    for gateway in topology.gateways:
        if gateway.name == host:
            return gateway
    raise LabError(f"lab {topology.name}: {host} is no gateway (only a gateway is restarted)")


def _machines(name: str, home: Path | None = None) -> list[Machine]:
    where = folder(name, home)
    return [Machine(where, path.name) for path in sorted(where.glob("*")) if path.is_dir()]


def _topology(name: str) -> Topology:
    try:
        return load((folder(name) / "topology.json").read_text())
    except FileNotFoundError:
        raise LabError(f"lab {name}: isn't up (run 'invoke lab.up --vm')") from None


def _refuse_what_machines_cannot_be(topology: Topology) -> None:
    if len(topology.gateways) != 1:
        raise LabError(f"lab {topology.name}: has {len(topology.gateways)} gateways (virtual machines play one)")


def _ensure_programs(log: Log) -> None:
    missing = sorted({package for program, package in PACKAGES.items() if shutil.which(program) is None})
    if missing:
        log(f"lab: installing {', '.join(missing)}")
        engine.install(*missing)


def refuse_taken_ports(gateway: GatewayHost) -> None:
    """Raise LabError if something else has one of the operator's ports on loopback."""
    for port in gateway.ssh_ports:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((LOOPBACK, port))
            except OSError as error:
                raise LabError(
                    f"lab: port {port} of {LOOPBACK} is taken: {error.strerror} "
                    "(end what has it, or give the site another contact.port and ssh.port)"
                ) from None
