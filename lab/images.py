"""The lab's two images: a fresh minimal Debian server, and the same with the tools that the field hosts use."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
from docker.errors import APIError, BuildError, DockerException, ImageNotFound

from lab import engine
from lab.conditions import CODENAMES, KEYRING, Conditions, detect
from lab.errors import LabError
from lab.state import Log

REPOSITORY = "gatehouse-lab"
FIELD_DEBIAN = "12"
REGISTRY_SECONDS = 5

# What Debian's own installer or cloud image has and mmdebstrap's minbase lacks. Nothing that the kit installs.
SERVER = (
    "systemd systemd-sysv systemd-timesyncd dbus udev libpam-systemd openssh-server iproute2 iputils-ping netbase "
    "procps kmod python3 ca-certificates sudo less tzdata"
)
TOOLS = (
    "nmap mosquitto-clients python3-paho-mqtt libcoap3-bin openssl curl bind9-dnsutils tcpdump iputils-ping python3 "
    "nftables dnsmasq-base chrony netcat-openbsd openssh-client pebble"
)
# What plays the mail server that a gateway's alerts go to.
MAIL_SERVER = "python3-aiosmtpd"

_SERVER_STEPS = Path(__file__).with_name("server-image.sh")

_registry_said_no = False


@contextmanager
def step(log: Log, what: str) -> Iterator[None]:
    """Time a long step and say so in one line."""
    started = time.monotonic()
    yield
    log(f"lab: {what} … {time.monotonic() - started:.0f} s")


def server_image(client: docker.DockerClient, debian: str, log: Log) -> str:
    """The tag of the fresh server's image for a release ("12", "13"), built if it isn't there. Raises LabError."""
    if debian not in CODENAMES:
        raise LabError(f"lab: Debian {debian!r} is none of {', '.join(CODENAMES)} (choose one)")
    conditions = detect()
    files = build_files(debian, conditions)
    recipe = f"COPY . /lab-build/\nRUN sh /lab-build/server-image.sh {SERVER}\nENV container=docker\n"
    tag = _tag(f"server-{debian}", recipe, files)
    if not _exists(client, tag):
        with step(log, f"image of a fresh Debian {debian} server"):
            source = _from_registry(client, debian) or _bootstrap(client, debian, conditions, log)
            _build(client, tag, f"FROM {source}\n{recipe}", files)
    return tag


def build_files(debian: str, conditions: Conditions) -> dict[str, bytes]:
    """What `server-image.sh` finds beside itself: the mirrors, apt's options, and certificates."""
    return {
        "server-image.sh": _SERVER_STEPS.read_bytes(),
        "99lab-host.conf": "".join(f"{line}\n" for line in conditions.apt_lines()).encode(),
        "sources.list": "".join(f"{line}\n" for line in conditions.sources(debian)).encode(),
        "certificates/README": b"What the machine that runs the lab trusts beyond Debian's own set.\n",
        **{f"certificates/lab-host-{n}.crt": c.encode() for n, c in enumerate(conditions.certificates)},
    }


def field_image(client: docker.DockerClient, log: Log) -> str:
    """The tag of the field hosts' image, built if it isn't there. Raises LabError."""
    server = server_image(client, FIELD_DEBIAN, log)
    recipe = (
        f"FROM {server}\n"
        "RUN apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes "
        f"--no-install-recommends {TOOLS} {MAIL_SERVER} && apt-get clean && rm -rf /var/lib/apt/lists/*\n"
    )
    tag = _tag("field", recipe, {})
    if not _exists(client, tag):
        with step(log, "image of the field hosts"):
            _build(client, tag, recipe, {})
    return tag


def _tag(name: str, recipe: str, files: dict[str, bytes]) -> str:
    """A tag that a changed recipe, or anything that goes into the image, changes too."""
    digest = hashlib.sha256(recipe.encode())
    for path, content in sorted(files.items()):
        digest.update(f"\n{path} {len(content)}\n".encode() + content)
    return f"{REPOSITORY}:{name}-{digest.hexdigest()[:12]}"


def _exists(client: docker.DockerClient, tag: str) -> bool:
    try:
        client.images.get(tag)
        return True
    except ImageNotFound:
        return False


def _from_registry(client: docker.DockerClient, debian: str) -> str | None:
    """Pull Debian's own image if a registry answers within seconds; a no is remembered for this run."""
    global _registry_said_no
    if _registry_said_no:
        return None
    name = f"debian:{debian}-slim"
    try:
        asked = docker.APIClient(base_url=f"unix://{engine.SOCKET}", timeout=REGISTRY_SECONDS)
        asked.inspect_distribution(name)  # type: ignore[no-untyped-call]
        client.images.pull("debian", f"{debian}-slim")
        return name
    except (DockerException, OSError):
        _registry_said_no = True
        return None


def _bootstrap(client: docker.DockerClient, debian: str, conditions: Conditions, log: Log) -> str:
    """Make the root file system from packages and import it, unless it is there; returns the image's tag."""
    sources, options = conditions.sources(debian), conditions.apt_lines()
    tag = _tag(f"bootstrap-{debian}", "\n".join([SERVER, *sources, *options]), {})
    if _exists(client, tag):
        return tag
    need_mmdebstrap(log)
    command = bootstrap_command(debian, conditions, SERVER.split(), "-")
    repository, _, version = tag.partition(":")
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said) as process:
            answer = client.api.import_image_from_stream(process.stdout, repository=repository, tag=version)
        if process.returncode == 0 and "error" not in str(answer):
            return tag
        said.seek(0)
        why = engine.last_line(said.read().decode(errors="replace") + str(answer) * (not process.returncode))
    if _exists(client, tag):  # Made of half an archive.
        client.images.remove(tag, force=True)
    raise LabError(f"lab: mmdebstrap {CODENAMES[debian]}: {why} (does {conditions.mirror} answer?)")


def need_mmdebstrap(log: Log) -> None:
    """Install what makes root file systems from packages, when it is missing. Raises LabError."""
    if shutil.which("mmdebstrap") is None:
        log("lab: installing mmdebstrap to make the base image from packages")
        engine.install("mmdebstrap")
    if not KEYRING.exists():
        log("lab: installing debian-archive-keyring")
        engine.install("debian-archive-keyring")


def bootstrap_command(
    debian: str,
    conditions: Conditions,
    packages: list[str],
    target: str,
    hooks: tuple[str, ...] = (),
    keeps: tuple[str, ...] = (),
) -> list[str]:
    """The command line that makes a root file system of packages, as an archive (`-`) or in a folder.

    `keeps` are cleaning steps of mmdebstrap(1) that are left out.
    """
    return [
        "mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}", f"--keyring={KEYRING}",
        *(f"--aptopt={line}" for line in conditions.apt_lines()), *(f"--customize-hook={hook}" for hook in hooks),
        *(f"--skip={step}" for step in keeps), CODENAMES[debian], target, *conditions.sources(debian),
    ]  # fmt: skip


def _build(client: docker.DockerClient, tag: str, recipe: str, files: dict[str, bytes]) -> None:
    context = archive({"Dockerfile": (recipe.encode(), 0o644), **{p: (c, 0o755) for p, c in files.items()}})
    try:
        client.images.build(fileobj=io.BytesIO(context), custom_context=True, tag=tag, rm=True, forcerm=True)
    except (BuildError, APIError) as error:
        said = "".join(entry.get("stream", "") for entry in getattr(error, "build_log", []))
        what = engine.last_line(said) if said else error
        raise LabError(f"lab: image {tag}: {what} (does the package mirror answer?)") from error


def archive(files: dict[str, tuple[bytes, int]]) -> bytes:
    """A tar archive of path → (content, mode), owned by root, with its directories 0755 (0700 for `root/.ssh`)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        made: set[str] = set()
        for path, (content, mode) in files.items():
            for parent in reversed(Path(path).parents):
                if str(parent) != "." and str(parent) not in made:
                    made.add(str(parent))
                    folder = tarfile.TarInfo(str(parent))
                    folder.mtime = int(time.time())
                    folder.type, folder.mode = tarfile.DIRTYPE, 0o700 if "root" in parent.parts else 0o755
                    tar.addfile(folder)
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.mtime = len(content), mode, int(time.time())
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
