"""The device behind which WireGuard's program in the lab's gateway makes its interface."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

from lab.errors import LabError
from lab.state import Log

DEVICE = Path("/dev/net/tun")
MISC = Path("/proc/misc")
NUMBERS = os.makedev(10, 200)  # Documentation/networking/tuntap.rst of the kernel


def ensure(log: Log = print) -> None:
    """Makes sure that it is there: the kernel's module loaded, and the node made. Raises `LabError`."""
    if DEVICE.exists():
        return
    if not _in_the_kernel() and shutil.which("modprobe"):
        subprocess.run(["modprobe", "tun"], capture_output=True, check=False)
    if not _in_the_kernel():
        raise LabError(f"lab: this kernel has no {DEVICE}, which the lab's gateway needs for WireGuard (modprobe tun)")
    log(f"lab: making {DEVICE}")
    DEVICE.parent.mkdir(mode=0o755, exist_ok=True)
    if not DEVICE.exists():
        os.mknod(DEVICE, stat.S_IFCHR | 0o600, NUMBERS)


def _in_the_kernel() -> bool:
    """Whether the kernel has it, as /proc/misc lists: `200 tun`."""
    return any(line.split()[1:] == ["tun"] for line in MISC.read_text().splitlines())
