"""Whether this machine runs virtual machines by hardware: tried, because /dev/kvm may be there and useless."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from lab.errors import LabError

QEMU = "qemu-system-x86_64"
DEVICE = Path("/dev/kvm")
# A boot sector that tells QEMU to end, with status 3: `cli; mov dx,0xf4; mov al,1; out dx,al; hlt; jmp $-1`.
_SECTOR = bytes.fromhex("fabaf400b001eef4ebfd").ljust(510, b"\0") + b"\x55\xaa"
_ENDED = 3
# It takes a fraction of a second where KVM is what it should be. Under another hypervisor that plays it badly it takes
# longer than emulation does, or for ever.
_SECONDS = 4.0
# How a lab's machines are run with each: tried with just that, since what a plainer one gets through, `host` may not.
OPTIONS = {
    "kvm": ("-M", "q35", "-accel", "kvm", "-cpu", "host", "-smp", "2"),
    "tcg": ("-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"),
}


def acceleration() -> str:
    """`kvm` where a processor really runs under it, `tcg` (emulation) elsewhere; `GATEHOUSE_ACCEL` overrides it."""
    chosen = os.environ.get("GATEHOUSE_ACCEL")
    if chosen in OPTIONS:
        return chosen
    if chosen:
        raise LabError(f"lab: GATEHOUSE_ACCEL={chosen} is none of {', '.join(OPTIONS)} (unset it, or choose one)")
    return "kvm" if os.access(DEVICE, os.R_OK | os.W_OK) and runs("kvm") else "tcg"


def runs(accelerator: str, seconds: float = _SECONDS) -> bool:
    """Whether a machine with this accelerator starts its boot sector, and ends, in so many seconds."""
    with tempfile.NamedTemporaryFile() as disk:
        disk.truncate(1 << 20)  # a smaller disk is none to the firmware
        disk.write(_SECTOR)
        disk.flush()
        command = [QEMU, *OPTIONS[accelerator], "-nodefaults", "-display", "none"]
        command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
        command += ["-drive", f"file={disk.name},format=raw,if=ide,readonly=off"]
        try:
            done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=seconds)
        except (OSError, subprocess.TimeoutExpired):
            return False
    return done.returncode == _ENDED
