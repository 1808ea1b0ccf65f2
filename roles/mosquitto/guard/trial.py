"""A trial in private, before anything is replaced: a broker of the guard's own on the staged files."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from base64 import b64encode
from datetime import UTC, datetime
from hashlib import pbkdf2_hmac
from pathlib import Path

from . import layout
from .asking import TRIAL, ask, ask_with_key, connect_as, is_closed, lets_in, prove_keyed, prove_listener
from .layout import FILES, NEEDED_BY, PATIENCE, POLL, USER, Refused, Settings, listeners, read
from .running import keep

_PASSWORDS = re.compile(r"([a-z0-9._-]+:\$7\$[1-9][0-9]*\$[A-Za-z0-9+/]{16}\$[A-Za-z0-9+/]{86}==\n)*")
_KEYS = re.compile(r"([a-z0-9-]+:[0-9a-f]{64}\n)+")
_UNTIL = ("-nextupdate", "-dateopt", "iso_8601")  # 2026-11-30 15:49:19Z
_LIST = re.compile(r"-----BEGIN X509 CRL-----\n[A-Za-z0-9+/=\n]+-----END X509 CRL-----\n")


def check(root: Path) -> None:
    """Refuses the files below `root` unless a broker starts on them and lets nobody in who must stay out."""
    settings = read(root / layout.CONFIGURATION.relative_to("/"))
    used = {name: root / value.lstrip("/") for name, value in settings if name in FILES}
    kinds = set(listeners(settings).values())
    wanted = [name for name in FILES if name in used or name not in NEEDED_BY or NEEDED_BY[name] in kinds]
    if lacking := [name for name in wanted if name not in used or not used[name].is_file()]:
        raise Refused(f"the broker's configuration names no {lacking[0]}, or the file is not there")
    _still_good(used)
    _names_are_proven(settings)
    if not _only_the_list_differs(root, settings):
        _try_all(settings, used)
    keep(root)


def _only_the_list_differs(root: Path, settings: Settings) -> bool:
    """Whether all else that the broker would read below `root` is what it runs on, and was tried before.

    Of the revocation list openssl has just said all that a broker of our own could; to revoke can't wait for one.
    """
    others = {path: digest for path, digest in layout.noted().items() if path != dict(settings)["crlfile"]}
    needed = {str(layout.CONFIGURATION), *(value for name, value in settings if name in FILES and name != "crlfile")}
    return needed <= others.keys() and all(
        layout.digest(root / path.lstrip("/")) == digest for path, digest in others.items()
    )


def _try_all(settings: Settings, used: dict[str, Path]) -> None:
    with tempfile.TemporaryDirectory(prefix="gatehouse-mosquitto-", dir="/run") as folder:
        scratch = Path(folder)
        shutil.chown(scratch, "root", USER)
        scratch.chmod(0o750)
        for name, path in used.items():
            shutil.copy(path, scratch / name)
            shutil.chown(scratch / name, "root", USER)
            (scratch / name).chmod(0o640)
        _try(scratch, settings, allow_older=dict(settings).get("tls_version") != "tlsv1.3")


def _still_good(used: dict[str, Path]) -> None:
    """The broker loads a certificate or a CRL whose time is over without a word, and then lets nobody in."""
    if _openssl("x509", "-noout", "-checkend", "0", "-in", str(used["certfile"])).returncode:
        raise Refused("the server certificate is broken, or its time is over")
    text = used["crlfile"].read_text(errors="replace")
    lists = _LIST.findall(text)
    if not lists:
        raise Refused("the revocation list holds none")
    if "".join(lists) != text:
        raise Refused("the revocation list is broken: not all of it is one")
    # Of a line that it can't read the broker says little, and lets that user in with no password, or not at all.
    if "password_file" in used and not _PASSWORDS.fullmatch(used["password_file"].read_text(errors="replace")):
        raise Refused("the file of passwords is broken: not every line is a name and a hash")
    for pem in lists:
        done = _openssl("crl", "-noout", *_UNTIL, "-CAfile", str(used["cafile"]), input=pem)
        if done.returncode or "verify OK" not in done.stderr:
            raise Refused("the revocation list is broken, or not signed by an authority of the devices")
        until = done.stdout.strip().partition("=")[2]
        if datetime.fromisoformat(until) <= datetime.now(UTC):
            raise Refused(f"the revocation list was good until {until}: no device could connect")

    if "psk_file" in used:
        text = used["psk_file"].read_text(errors="replace")
        names = [line.partition(":")[0] for line in text.splitlines()]
        if not _KEYS.fullmatch(text) or len(set(names)) < len(names):
            raise Refused("the file of keys is broken: not every line is another name and a key of 256 bits")


def _names_are_proven(settings: Settings) -> None:
    """Where a key is asked for, the name must be that of the key."""
    place, blocks = "", dict[str, dict[str, str]]()
    for name, value in settings:
        place = value if name == "listener" else place
        blocks.setdefault(place, {})[name] = value
    for place, block in blocks.items():
        if "psk_hint" not in block:
            continue
        if any(block.get(name) != "true" for name in ("use_identity_as_username", "use_username_as_clientid")):
            raise Refused(f"listener {place} does not take the name that goes with the key")


def _openssl(*arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:  # noqa: A002
    return subprocess.run(["openssl", *arguments], input=input, capture_output=True, text=True)


def _try(scratch: Path, settings: Settings, allow_older: bool) -> None:
    """Starts a broker on loopback with the staged settings, and a plain listener more, to ask the ACL itself.

    It knows one user more, of a name without rights, whose password and key live as long as this trial.
    """
    kinds = list(listeners(settings).values())
    *places, plain = [("127.0.0.1", port) for port in _free_ports(len(kinds) + 1)]
    secured, trial = dict(zip(places, kinds, strict=True)), os.urandom(16).hex()
    ports = iter(secured)
    lines = []
    for name, value in settings:
        if name in FILES:
            lines.append(f"{name} {scratch / name}")
        elif name == "listener":
            address, port = next(ports)
            lines.append(f"listener {port} {address}")
        elif name not in ("persistence", "persistence_location", "log_dest", "pid_file"):
            lines.append(f"{name} {value}")
    passwords = scratch / "password_file"
    known = passwords.read_text() if passwords.exists() else ""
    passwords.write_text(f"{known}{TRIAL}:{_hashed(trial)}\n")
    shutil.chown(passwords, "root", USER)
    passwords.chmod(0o640)
    key = os.urandom(32).hex()
    if (keys := scratch / "psk_file").exists():
        with keys.open("a") as file:
            file.write(f"{TRIAL}:{key}\n")
    lines = [f"password_file {passwords}", *(line for line in lines if not line.startswith("password_file "))]
    lines += [f"listener {plain[1]} {plain[0]}", "log_dest stderr", ""]
    configuration = scratch / "trial.conf"
    configuration.write_text("\n".join(lines))
    configuration.chmod(0o644)
    said = scratch / "said"
    with said.open("wb") as output:
        broker = subprocess.Popen(
            ["/usr/sbin/mosquitto", "-c", str(configuration)],
            user=USER, group=USER, extra_groups=[], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        for place in (plain, *secured):
            _wait_for(place, broker, said)
        for place, kind in secured.items():
            if kind == "key":
                prove_keyed(place, keys, allow_older)
                if not lets_in(ask_with_key(place, TRIAL, key)[0]):
                    raise Refused("the broker takes no key, not even the right one")
                continue
            prove_listener(place, kind == "certificate", scratch / "certfile", scratch / "cafile", allow_older)
            if kind == "password" and not lets_in(ask(place, scratch / "cafile", say=connect_as(TRIAL, trial))[1]):
                raise Refused("the broker takes no password, not even the right one")
        is_closed(plain, trial)
    except ssl.SSLError as error:
        if keys.exists() and "PROTOCOL_VERSION" in str(error):
            # 2.0.21 turns TLS 1.3 off on every listener as soon as there is a psk_file.
            raise Refused("this mosquitto has no TLS 1.3 beside pre-shared keys (turn the site's `psk` off)") from None
        raise
    finally:
        broker.kill()
        broker.wait()


def _free_ports(number: int) -> list[int]:
    """All of them are held at once: one that is let go may be given again."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _wait_for(place: tuple[str, int], broker: subprocess.Popen[bytes], said: Path) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        if broker.poll() is not None or time.monotonic() > until:
            errors = [line for line in said.read_text(errors="replace").splitlines() if "rror" in line]
            raise Refused(f"the broker does not start on the new files: {'; '.join(errors) or 'it says nothing'}")
        with contextlib.suppress(OSError), socket.create_connection(place, 1):
            return
        time.sleep(POLL)


def _hashed(password: str) -> str:
    """A password as mosquitto_passwd(1) writes it: PBKDF2 with SHA-512, salt and result in base64."""
    salt = os.urandom(12)
    made = pbkdf2_hmac("sha512", password.encode(), salt, 101)
    return f"$7$101${b64encode(salt).decode()}${b64encode(made).decode()}"
