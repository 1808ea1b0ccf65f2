"""A machine that GRUB starts: Debian's own programs of it, shown folders of a test's, and a disk that QEMU starts from.

What asks the machine that runs the tests about itself is played; its own files are not touched.
"""

from __future__ import annotations

import os
import select
import shutil
import struct
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Self

from roles.bootloader import MENU

KERNEL = "vmlinuz-6.1.0-1-amd64"
SERIAL = 'GRUB_TERMINAL=serial\nGRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"\nGRUB_GFXPAYLOAD_LINUX=text\n'
SETTINGS = f"GRUB_DEFAULT=0\nGRUB_TIMEOUT=2\nGRUB_DISTRIBUTOR=Debian\nGRUB_CMDLINE_LINUX_DEFAULT=quiet\n{SERIAL}"
PROBE = """#!/bin/sh
case $* in
    *--target=device*) echo /dev/vda1 ;;
    *--target=fs) echo tar ;;
    *) exit 1 ;;
esac
"""
FIRST_SECTOR = Path("/usr/lib/grub/i386-pc/boot.img")
NO_CONTAINER = "#!/bin/sh\necho none\nexit 1\n"
# Built into GRUB, which has nothing but a memory disk to read.
MODULES = "memdisk tar normal linux password_pbkdf2 serial terminal echo test minicmd gzio"


class Machine:
    """Its `/boot`, `/etc/grub.d` and `/etc/default` are in a folder."""

    def __init__(self, folder: Path, settings: str = SETTINGS) -> None:
        self.boot, self.scripts, self.defaults = (folder / name for name in ("boot", "grub.d", "default"))
        shutil.copytree("/etc/grub.d", self.scripts)
        (self.defaults / "grub.d").mkdir(parents=True)
        (self.defaults / "grub").write_text(settings)
        (self.boot / "grub").mkdir(parents=True)
        (self.boot / KERNEL).write_bytes(kernel())
        self._played = {folder / "grub-probe": PROBE, folder / "systemd-detect-virt": NO_CONTAINER}
        for path, script in self._played.items():
            path.write_text(script)
            path.chmod(0o755)

    @property
    def menu(self) -> Path:
        """GRUB's, as it lies there."""
        return self.boot / Path(MENU).relative_to("/boot")

    def run(self, shell: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Runs shell as root of that machine."""
        binds = {self.boot: "/boot", self.scripts: "/etc/grub.d", self.defaults: "/etc/default"}
        binds |= {path: place for path in self._played if (place := shutil.which(path.name))}
        mounts = "; ".join(f"mount --bind {folder} {place}" for folder, place in binds.items())
        command = ["unshare", "--mount", "sh", "-c", f'set -e; {mounts}; exec sh -c "$1"', "sh", shell]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)

    def installed(self) -> None:
        """As Debian's installer leaves it."""
        done = self.run(f"grub-mkconfig -o {MENU}; chmod 0444 {MENU}")
        assert done.returncode == 0, done.stderr

    def disk(self, folder: Path) -> Path:
        """A disk of it for QEMU; what GRUB reads is in a memory disk there."""
        image, core, memory = (folder / name for name in ("disk", "core", "memory"))
        with tarfile.open(memory, "w", format=tarfile.USTAR_FORMAT) as archive:
            archive.add(self.menu, "boot/grub/grub.cfg")
            archive.add(self.boot / KERNEL, str(self.boot / KERNEL))
        options = ["-O", "i386-pc", "-p", "(memdisk)/boot/grub", "-m", str(memory), "-o", str(core)]
        subprocess.run(["grub-mkimage", *options, *MODULES.split()], check=True, capture_output=True)
        image.write_bytes(
            (Path("/usr/lib/grub/i386-pc/boot.img").read_bytes() + core.read_bytes()).ljust(1 << 22, b"\0")
        )
        return image


def kernel() -> bytes:
    """What GRUB takes for Linux (boot protocol 2.03): it says its command line on the serial port, and ends QEMU."""
    header = bytearray(5 * 512)  # boot sector and four of setup
    struct.pack_into("<BxxxxxxH", header, 0x1F1, 4, 0)
    struct.pack_into("<H", header, 0x1FE, 0xAA55)
    struct.pack_into("<2s4sH", header, 0x200, b"\xeb\x66", b"HdrS", 0x0203)
    struct.pack_into("<BB", header, 0x210, 0, 1)  # loaded high
    struct.pack_into("<I", header, 0x214, 0x100000)
    struct.pack_into("<I", header, 0x22C, 0x37FFFFFF)
    code = bytes.fromhex(
        "fc 8bb628020000"  # cld; esi = the command line's address, of the boot parameters that esi points to
        "ac 84c0 7414 88c3"  # next: al = a character; none: end
        "66bafd03 ec a820 74fb"  # wait until the port takes one
        "88d8 66baf803 ee ebe7"  # say it; next
        "b00a ee 30c0 66baf400 ee f4"  # end: a line end, then isa-debug-exit
    )
    return bytes(header) + code.ljust(512, b"\0")


class Console:
    """The serial console of a machine in QEMU that starts from a disk; ends it with the context."""

    PATIENCE = 60.0  # seconds

    def __init__(self, disk: Path) -> None:
        serial = ["-display", "none", "-monitor", "none", "-serial", "stdio", "-net", "none"]
        ends = ["-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
        drive = ["-M", "pc", "-accel", "tcg", "-m", "64", "-drive", f"file={disk},format=raw,if=ide"]
        self._qemu = subprocess.Popen(
            ["qemu-system-x86_64", *drive, *serial, *ends], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._said = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._qemu.kill()
        self._qemu.communicate()

    def types(self, keys: str) -> None:
        """Types keys."""
        assert self._qemu.stdin
        self._qemu.stdin.write(keys.encode())
        self._qemu.stdin.flush()

    def says(self, *any_of: str) -> str:
        """Which of these it says next; what it said until then counts no more."""
        assert self._qemu.stdout
        end = time.monotonic() + self.PATIENCE
        while True:
            found = [(self._said.find(each.encode()), each) for each in any_of]
            if first := min(((place, each) for place, each in found if place >= 0), default=None):
                self._said = self._said[first[0] + len(first[1]) :]
                return first[1]
            ready, _, _ = select.select([self._qemu.stdout], [], [], max(0.0, end - time.monotonic()))
            more = os.read(self._qemu.stdout.fileno(), 65536) if ready else b""
            assert more, f"{any_of}: not said, but {self._said[-800:]!r}"
            self._said += more
