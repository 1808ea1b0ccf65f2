"""Disks of the lab's machines: a fresh Debian server with a kernel of its own, made from packages and kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab import engine
from lab.conditions import CODENAMES, detect
from lab.errors import LabError
from lab.images import SERVER, TOOLS, bootstrap_command, build_files, need_mmdebstrap, step
from lab.state import Log, locked

KERNEL = "linux-image-cloud-amd64"
FIELD_TOOLS = f"{TOOLS} python3-scapy"
# Debian's installer leaves apt's lists, too; an emulated machine takes most of a minute to unpack them.
KEEPS = ("cleanup/apt/lists",)
SIZE = "4G"  # of the disk; the file takes what is in it

GUEST = Path(__file__).with_name("guest")


@dataclass(frozen=True)
class Image:
    """A disk to put overlays on, and what boots it; `tag` names what it was made of."""

    tag: str
    folder: Path

    @property
    def disk(self) -> Path:
        """The raw disk: an ext4 file system, no partitions."""
        return self.folder / "disk.raw"

    @property
    def kernel(self) -> Path:
        """Its kernel."""
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """Its initial RAM disk."""
        return self.folder / "initrd"


def cache() -> Path:
    """Where images are kept, for every checkout of this user: `~/.cache/gatehouse/lab`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gatehouse" / "lab"


def image(debian: str, log: Log, field: bool = False) -> Image:
    """The image of a release ("12", "13"), or of the field machine; built if it isn't there. Raises LabError.

    What it is made of is in its name: another mirror, package or step makes another image. A killed run leaves a
    folder that nobody takes for an image, and the next one removes it.
    """
    if debian not in CODENAMES:
        raise LabError(f"lab: Debian {debian!r} is none of {', '.join(CODENAMES)} (choose one)")
    conditions = detect()
    packages = [*dict.fromkeys(f"{SERVER} {KERNEL} {FIELD_TOOLS if field else ''}".split())]
    if field:
        packages.remove("systemd-timesyncd")  # Debian allows one clock daemon, and this machine serves time
    files = build_files(debian, conditions)
    files |= {name: (GUEST / name).read_bytes() for name in ("first-boot.sh", "image.sh")}
    digest = hashlib.sha256("\n".join([*packages, SIZE, *KEEPS, *conditions.apt_lines()]).encode())
    for path, content in sorted(files.items()):
        digest.update(f"\n{path} {len(content)}\n".encode() + content)
    tag = f"{'field' if field else 'server'}-{debian}-{digest.hexdigest()[:12]}"
    made = Image(tag, cache() / tag)
    if made.folder.is_dir():
        return made
    with locked(f"image-{tag}", log, patience=1800):
        if not made.folder.is_dir():
            need_mmdebstrap(log)
            what = f"disk of {'the field machine' if field else f'a fresh Debian {debian} server'}"
            with step(log, what):
                _build(made, debian, packages, files)
    return made


def _build(made: Image, debian: str, packages: list[str], files: dict[str, bytes]) -> None:
    work = made.folder.with_name(f".new-{made.tag}")
    shutil.rmtree(work, ignore_errors=True)
    root, build = work / "root", work / "build"
    for path, content in files.items():
        (build / path).parent.mkdir(parents=True, exist_ok=True)
        (build / path).write_bytes(content)
    inside = ("cd /lab-build && cp image.sh first-boot.sh /root/ && sh server-image.sh", *packages)
    hooks = (
        f"cp -R {build} $1/lab-build",
        f"chroot $1 sh -c '{' '.join(inside)}'",
        "chroot $1 sh -c 'cd /root && sh image.sh && rm image.sh first-boot.sh'",
    )
    command = bootstrap_command(debian, detect(), packages, str(root), hooks, KEEPS)
    # Its mounts end with it, however it ends: they are in a namespace of its own.
    _run(["unshare", "--mount", "--pid", "--fork", "--kill-child", *command], made)
    for kind, target in (("vmlinuz", made.kernel), ("initrd.img", made.initrd)):
        found = sorted((root / "boot").glob(f"{kind}-*"))
        if not found:
            raise LabError(f"lab: image {made.tag}: no {kind} in its /boot (does {KERNEL} still bring one?)")
        shutil.copyfile(found[-1], work / target.name)
    _run(["mke2fs", "-q", "-t", "ext4", "-d", str(root), str(work / made.disk.name), SIZE], made)
    shutil.rmtree(root)
    shutil.rmtree(build)
    work.rename(made.folder)


def _run(command: list[str], made: Image) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise LabError(f"lab: image {made.tag}: there is no {command[0]} (install its package)") from None
    if done.returncode:
        (made.folder.parent / f"{made.tag}.log").write_text(done.stdout + done.stderr)
        said = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        why = said[0] if said else engine.last_line(done.stderr)
        raise LabError(f"lab: image {made.tag}: {why} (does the mirror answer? all of it: {made.folder}.log)")
