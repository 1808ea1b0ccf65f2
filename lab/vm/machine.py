"""One virtual machine: how it is started, whether it runs, how it is told to stop, save and load its state."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.images import archive
from lab.vm.accelerator import OPTIONS, QEMU
from lab.vm.images import Image

CONSOLES = 6  # programs that can be run at once
SHELL = "shell"
QMP = "qmp"
WIRE = "wire"  # the suffix of a socket between two machines, in the lab's folder
_STOP_SECONDS = 15


@dataclass(frozen=True)
class Wire:
    """A network card: its name in the guest, its hardware address, and QEMU's `-netdev` for what it is plugged into."""

    name: str
    hardware_address: str
    netdev: str


@dataclass(frozen=True)
class Plan:
    """A machine to run. `files`: path → (content, mode), put in at its first boot."""

    name: str
    image: Image
    wires: tuple[Wire, ...]
    memory: int  # MiB
    files: dict[str, tuple[bytes, int]]

    @property
    def recipe(self) -> str:
        """A hash that differs when the machine must be made anew."""
        parts = [self.image.tag, str(self.memory), *(f"{w.name} {w.hardware_address} {w.netdev}" for w in self.wires)]
        parts += [f"{path} {mode} {content.hex()}" for path, (content, mode) in sorted(self.files.items())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


class Machine:
    """The files of one machine in a lab's folder, and the QEMU process that uses them."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.lab = name, folder
        self.folder = folder / name
        self.overlay = self.folder / "disk.qcow2"
        self.console_log = self.folder / "boot.log"
        self._recipe = self.folder / "recipe"
        self._pid = self.folder / "pid"

    def fits(self, plan: Plan) -> bool:
        """Whether what is there, running or not, was made by this plan."""
        return self.overlay.exists() and self._recipe.exists() and self._recipe.read_text() == plan.recipe

    def make(self, plan: Plan) -> None:
        """Make its disk, as an empty overlay, and the archive that the first boot reads."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in (self._recipe, self.overlay):
            leftover.unlink(missing_ok=True)
        (self.folder / "first-boot.tar").write_bytes(archive(plan.files))
        overlay = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(plan.image.disk), "-F", "raw"]
        done = subprocess.run([*overlay, str(self.overlay)], capture_output=True, text=True)
        if done.returncode:
            raise LabError(f"lab: {self.name}: no disk: {done.stderr.strip()} (is there room in {self.folder}?)")
        self._recipe.write_text(plan.recipe)

    def start(self, plan: Plan, accelerator: str, load: str | None = None) -> None:
        """Start QEMU in the background, from power-on or, with `load`, from a saved state. Raises LabError."""
        for stale in [*self.folder.glob("console*"), self.folder / QMP]:
            stale.unlink(missing_ok=True)
        with (self.folder / "qemu.log").open("wb") as said:
            # The wires' names are relative to where it runs: an address of a Unix socket has 108 bytes at most.
            process = subprocess.Popen(
                self.command(plan, accelerator, load), cwd=self.lab, stdin=subprocess.DEVNULL,
                stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip
        self._pid.write_text(str(process.pid))
        deadline = time.monotonic() + 30
        while not (self.folder / QMP).exists():
            if process.poll() is not None or time.monotonic() > deadline:
                said_text = (self.folder / "qemu.log").read_text(errors="replace").strip().splitlines()
                raise LabError(f"lab: {self.name}: QEMU doesn't start: {said_text[-1:] or 'it said nothing'}")
            time.sleep(0.1)

    def command(self, plan: Plan, accelerator: str, load: str | None = None) -> list[str]:
        """QEMU's command line, to be run in the lab's folder."""
        here = self.name
        argv = [QEMU, "-name", f"gatehouse-{self.lab.parent.name}-{here}", *OPTIONS[accelerator], "-nodefaults"]
        argv += ["-m", str(plan.memory)]
        argv += ["-display", "none", "-serial", f"file:{here}/boot.log", "-device", "virtio-rng-pci"]
        argv += ["-kernel", str(plan.image.kernel), "-initrd", str(plan.image.initrd), "-append"]
        argv += ["root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off quiet"]
        # The operator's disk is not what is tried here: flushing to it would only cost time.
        argv += ["-drive", f"file={here}/disk.qcow2,if=virtio,format=qcow2,cache=unsafe"]
        argv += ["-drive", f"file={here}/first-boot.tar,if=virtio,format=raw,readonly=on"]
        argv += ["-qmp", f"unix:{here}/{QMP},server=on,wait=off", "-device", "virtio-serial-pci"]
        for port in [*map(str, range(CONSOLES)), SHELL]:
            argv += ["-chardev", f"socket,id=console{port},path={here}/console.{port},server=on,wait=off"]
            argv += ["-device", f"virtserialport,chardev=console{port},name=gatehouse.{port}"]
        for number, wire in enumerate(plan.wires):
            argv += ["-netdev", wire.netdev.replace(",", f",id=net{number},", 1)]
            # ctrl_vlan: a card that filters VLANs itself forgets them when a state is loaded, and drops every tagged
            # frame from then on without a word.
            card = f"virtio-net-pci,netdev=net{number},mac={wire.hardware_address},romfile=,ctrl_vlan=off"
            argv += ["-device", card]
        return [*argv, *(["-loadvm", load] if load else [])]

    @property
    def pid(self) -> int | None:
        """The living QEMU process, or None."""
        try:
            number = int(self._pid.read_text())
            argv = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
            where = Path(f"/proc/{number}/cwd").resolve()
        except (OSError, ValueError):
            return None
        ours = f"file:{self.name}/boot.log".encode() in argv and where == self.lab.resolve()
        return number if ours and _state(number) != "Z" else None

    def stop(self) -> None:
        """Cut its power; returns when the process is gone. A machine that doesn't run is no error."""
        number = self.pid
        if number is None:
            return
        with contextlib.suppress(OSError, LabError):
            # By its own hand, so that its disk's file is whole: the guest only sees that the power has gone.
            self.monitor({"execute": "quit"})
        deadline = time.monotonic() + _STOP_SECONDS
        while self.pid == number:
            if time.monotonic() > deadline:
                os.kill(number, signal.SIGKILL)
                deadline = float("inf")
            with contextlib.suppress(ChildProcessError):
                os.waitpid(number, os.WNOHANG)
            time.sleep(0.05)

    def monitor(self, *commands: dict[str, Any]) -> list[Any]:
        """Give QEMU commands (QMP) and return what each returned. Raises LabError."""
        with self.connect(QMP, 60) as connection, connection.makefile("rwb") as stream:
            stream.readline()  # its greeting
            found: list[Any] = []
            for command in ({"execute": "qmp_capabilities"}, *commands):
                stream.write(json.dumps(command).encode() + b"\n")
                stream.flush()
                answer: dict[str, Any] = {"event": ""}
                while "event" in answer:
                    line = stream.readline()
                    if not line:
                        raise LabError(f"lab: {self.name}: QEMU ended while it was told {command['execute']}")
                    answer = json.loads(line)
                if "error" in answer:
                    raise LabError(f"lab: {self.name}: QEMU: {answer['error'].get('desc')}")
                found.append(answer.get("return"))
            return found[1:]

    def human(self, command: str) -> str:
        """The same in the monitor's own words (`savevm NAME`). Raises LabError with what it says."""
        (said,) = self.monitor({"execute": "human-monitor-command", "arguments": {"command-line": command}})
        if "Error" in said:
            raise LabError(f"lab: {self.name}: {command}: {said.strip()}")
        return str(said)

    def connect(self, name: str, timeout: float | None) -> socket.socket:
        """A connection to one of the machine's sockets, however long the path to it is."""
        folder = os.open(self.folder, os.O_PATH)
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(timeout)
            connection.connect(f"/proc/self/fd/{folder}/{name}")
        except OSError as error:
            connection.close()
            raise LabError(f"lab: {self.name}: isn't running: {error.strerror} (run 'invoke lab.up --vm')") from None
        finally:
            os.close(folder)
        return connection


def _state(pid: int) -> str:
    """`Z` for a process that has ended and that nobody has asked about yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
