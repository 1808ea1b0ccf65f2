#!/usr/bin/python3
"""Runs on the gateway: never hands the broker a file that it has not accepted, and never believes a reload.

    mosquitto-guard check ROOT   starts a broker of its own on the files below ROOT and tries it; keeps the running set
    mosquitto-guard reload       makes the broker read its files again, and restarts it where a reload is not enough
    mosquitto-guard prove        shows on every listener who is let in and who is not; what was kept is then dropped
    mosquitto-guard restore      brings back the set that `check` kept, and proves it

Exit status 0 for done, 1 for refused with one line that says why. Mosquitto 2.0 fails open on a broken CRL or ACL at
SIGHUP: the unit stays active, a revoked device connects, every topic is open to everyone.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from datetime import UTC, datetime
from hashlib import pbkdf2_hmac, sha256
from pathlib import Path
from typing import BinaryIO

UNIT = "mosquitto.service"
USER = "mosquitto"
CONFIGURATION = Path("/etc/mosquitto/conf.d/gatehouse.conf")
STAMP = Path("/run/gatehouse/loaded") / UNIT
KEPT = Path("/run/gatehouse/kept") / UNIT
# Files that SIGHUP makes the broker read again; any other needs a start.
REREAD = ("crlfile", "certfile", "keyfile", "acl_file", "password_file", "psk_file")
FILES = (*REREAD, "cafile")
# What is there only where a listener asks for it.
NEEDED_BY = {"password_file": "password", "psk_file": "key"}
TRIAL = "gatehouse-trial"  # a user name that nobody has
PATIENCE = 10.0  # seconds: for a broker to answer
POLL = 0.02  # seconds: between two looks
ATTEMPTS = 3  # of a connection that is reset before anything is served

# MQTT 5: CONNECT with clean start, no identifier (§3.1); PUBLISH of nothing at QoS 1 to `gatehouse` as packet 1 (§3.3).
CONNECT = bytes([0x10, 13, 0, 4, *b"MQTT", 5, 2, 0, 30, 0, 0, 0])
PUBLISH = bytes([0x32, 14, 0, 9, *b"gatehouse", 0, 1, 0])
PUBACK, NOT_AUTHORISED = 0x40, 0x87


class Refused(Exception):
    """The broker, or its files, are not as they must be."""


Settings = list[tuple[str, str]]
_PASSWORDS = re.compile(r"([a-z0-9._-]+:\$7\$[1-9][0-9]*\$[A-Za-z0-9+/]{16}\$[A-Za-z0-9+/]{86}==\n)*")
_KEYS = re.compile(r"([a-z0-9-]+:[0-9a-f]{64}\n)+")
_UNTIL = ("-nextupdate", "-dateopt", "iso_8601")  # 2026-11-30 15:49:19Z
_LIST = re.compile(r"-----BEGIN X509 CRL-----\n[A-Za-z0-9+/=\n]+-----END X509 CRL-----\n")


def read(path: Path) -> Settings:
    """The (name, value) pairs of a mosquitto.conf(5), in order."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in lines if line and line[0] != "#"]


def listeners(settings: Settings) -> dict[tuple[str, int], str]:
    """The (address, port) of each listener, and by what clients say there who they are: certificate, password, key."""
    found: dict[tuple[str, int], str] = {}
    for name, value in settings:
        if name == "listener":
            place = (value.split()[1], int(value.split()[0]))
            found[place] = "password"
        elif name == "psk_hint":
            found[place] = "key"
        elif name == "use_identity_as_username" and value == "true" and found[place] == "password":
            found[place] = "certificate"
    return found


# A trial in private, before anything is replaced


def check(root: Path) -> None:
    """Refuses the files below `root` unless a broker starts on them and lets nobody in who must stay out."""
    settings = read(root / CONFIGURATION.relative_to("/"))
    used = {name: root / value.lstrip("/") for name, value in settings if name in FILES}
    kinds = set(listeners(settings).values())
    wanted = [name for name in FILES if name in used or name not in NEEDED_BY or NEEDED_BY[name] in kinds]
    if lacking := [name for name in wanted if name not in used or not used[name].is_file()]:
        raise Refused(f"the broker's configuration names no {lacking[0]}, or the file is not there")
    _still_good(used)
    _names_are_proven(settings)
    if not _only_the_list_differs(root, settings):
        _try_all(settings, used)
    _keep()


def _only_the_list_differs(root: Path, settings: Settings) -> bool:
    """Whether all else that the broker would read below `root` is what it runs on, and was tried before.

    Of the revocation list openssl has just said all that a broker of our own could; to revoke can't wait for one.
    """
    noted = [line.partition("  ") for line in (STAMP.read_text().splitlines() if STAMP.exists() else [])]
    others = {path: digest for digest, _, path in noted if path != dict(settings)["crlfile"]}
    needed = {str(CONFIGURATION), *(value for name, value in settings if name in FILES and name != "crlfile")}
    staged = {path: root / path.lstrip("/") for path in others}
    return needed <= others.keys() and all(
        file.is_file() and sha256(file.read_bytes()).hexdigest() == others[path] for path, file in staged.items()
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
                _prove_key(place, keys, allow_older)
                if not _lets_in(_ask_with_key(place, TRIAL, key)[0]):
                    raise Refused("the broker takes no key, not even the right one")
                continue
            _prove(place, kind == "certificate", scratch / "certfile", scratch / "cafile", allow_older)
            if kind == "password" and not _lets_in(_ask(place, scratch / "cafile", say=_connect(TRIAL, trial))[1]):
                raise Refused("the broker takes no password, not even the right one")
        _is_closed(plain, trial)
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


def _connect(name: str, password: str) -> bytes:
    """CONNECT with a user name and a password (MQTT 5 §3.1.3)."""
    fields = b"".join(len(part).to_bytes(2, "big") + part for part in (name.encode(), password.encode()))
    body = bytes([0, 4, *b"MQTT", 5, 0xC2, 0, 30, 0, 0, 0]) + fields
    return bytes([0x10, len(body)]) + body


def _lets_in(answer: bytes) -> bool:
    """Whether this is a CONNACK with reason code 0."""
    return answer[:1] == b"\x20" and answer[3:4] == b"\0"


def _is_closed(place: tuple[str, int], trial: str) -> None:
    """A client without rights must not be allowed to publish: with a lost ACL everybody may do everything."""
    with socket.create_connection(place, PATIENCE) as connection:
        answers = connection.makefile("rb")
        connection.sendall(_connect(TRIAL, trial))
        _packet(answers)
        connection.sendall(PUBLISH)
        kind, body = _packet(answers)
    if kind != PUBACK or body[2:3] != bytes([NOT_AUTHORISED]):
        raise Refused("the ACL is not in force: a client without rights may publish")


def _packet(answers: BinaryIO) -> tuple[int, bytes]:
    """Type with flags, and body, of the next packet, none longer than 127 bytes; (0, b"") when there is none."""
    head = answers.read(2)
    return (head[0], answers.read(head[1])) if len(head) == 2 else (0, b"")


# The broker that runs


def reload() -> None:
    """Makes the broker read its files again; where it says that it could not, or a reload can't do it, restarts it."""
    if _only_reread_differ():
        mark = _journal("-n", "0", "--show-cursor").strip().rpartition("-- cursor: ")[2]
        try:
            subprocess.run(["systemctl", "reload", UNIT], check=True)
            _was_reread(mark)
            return
        except (Refused, OSError, subprocess.SubprocessError) as refused:
            print(f"gatehouse: {refused}: restarting it", file=sys.stderr)
    subprocess.run(["systemctl", "restart", UNIT], check=True)


def _only_reread_differ() -> bool:
    reread = {value for name, value in read(CONFIGURATION) if name in REREAD}
    noted = STAMP.read_text().splitlines() if STAMP.exists() else []
    others = [line for line in noted if line.partition("  ")[2] not in reread]
    return len(others) < len(noted) and _unchanged(others)


def _unchanged(noted: list[str]) -> bool:
    lines = "".join(f"{line}\n" for line in noted)
    return not subprocess.run(["sha256sum", "--check", "--status"], input=lines, text=True).returncode


def _was_reread(mark: str) -> None:
    """Refuses unless the broker says that it has read its files again, and of no error: the signal only asks it to."""
    until = time.monotonic() + PATIENCE
    while "Reloading config." not in (since := _journal("--after-cursor", mark)):
        if time.monotonic() > until:
            raise Refused("the broker did not read its files again")
        time.sleep(POLL)
    # It serves nobody while it reads: once it has answered, whatever it had to say is said.
    settings = read(CONFIGURATION)
    place = next(place for place, kind in listeners(settings).items() if kind == "certificate")
    _ask(place, Path(dict(settings)["cafile"]))
    until = time.monotonic() + PATIENCE
    while "onnection from" not in since.partition("Reloading config.")[2] and time.monotonic() < until:
        time.sleep(POLL)
        since = _journal("--after-cursor", mark)
    if errors := [line for line in since.splitlines() if line.startswith("Error")]:
        raise Refused(f"the broker could not read its files again: {errors[0]}")


def _journal(*arguments: str) -> str:
    command = ["journalctl", "-q", "-o", "cat", "-u", UNIT, "--no-pager", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def prove() -> None:
    """Refuses the running broker unless every listener has the new certificate and turns strangers away."""
    settings = read(CONFIGURATION)
    files = dict(settings)
    older = files.get("tls_version") != "tlsv1.3"
    failed: list[Exception] = []

    def one(place: tuple[str, int], kind: str) -> None:
        try:
            if kind == "key":
                _prove_key(place, Path(files["psk_file"]), older)
            else:
                _prove(place, kind == "certificate", Path(files["certfile"]), Path(files["cafile"]), older)
        except (Refused, OSError, subprocess.SubprocessError) as error:
            failed.append(error)

    # All at once: each waits for the broker, and for openssl, most of its time.
    asking = [threading.Thread(target=one, args=each) for each in listeners(settings).items()]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    if failed:
        raise failed[0]
    shutil.rmtree(KEPT, ignore_errors=True)


def _prove(
    place: tuple[str, int], by_certificate: bool, certificate: Path, authorities: Path, allow_older: bool
) -> None:
    """One connection that must come as far as the request for a certificate, and must fail there without one.

    Where passwords are asked for: as far as CONNECT, and fail there without a name, and with a wrong password.
    """
    where = f"{place[0]} port {place[1]}"
    served, answer = _ask(place, authorities)
    if served != ssl.PEM_cert_to_DER_cert(certificate.read_text().partition("-----END CERTIFICATE-----")[0] + _END):
        raise Refused(f"{where} does not serve the certificate that is in the file")
    if by_certificate and answer:
        raise Refused(f"{where} answers a client that has no certificate")
    if not by_certificate:
        guess = _ask(place, authorities, say=_connect(TRIAL, os.urandom(16).hex()))[1]
        if _lets_in(answer) or _lets_in(guess) or not answer[:1] == guess[:1] == b"\x20":
            raise Refused(f"{where} does not turn away who has no password")
    if not allow_older:
        try:
            _ask(place, authorities, newest=ssl.TLSVersion.TLSv1_2)
        except (ssl.SSLError, Refused):
            return
        raise Refused(f"{where} speaks TLS 1.2")


def _prove_key(place: tuple[str, int], keys: Path, allow_older: bool) -> None:
    """A client must be turned away, and told so, with no key, with one that nobody has, and with another's name."""
    where = f"{place[0]} port {place[1]}"
    name = keys.read_text().partition(":")[0]
    random = os.urandom(32).hex()
    for who, what in ((name, "a wrong key"), ("gatehouse-nobody", "a name that nobody has"), ("", "no key")):
        answer, said = _ask_with_key(place, who, random)
        if answer:
            raise Refused(f"{where} answers a client with {what}")
        if "alert" not in said:
            raise Refused(f"{where} does not say no to a client with {what}: {said.strip()[-100:] or 'silence'}")
    if not allow_older and "protocol version" not in _ask_with_key(place, name, random, "-tls1_2")[1]:
        raise Refused(f"{where} speaks TLS 1.2")


def _ask_with_key(place: tuple[str, int], name: str, key: str, *options: str) -> tuple[bytes, str]:
    """What is answered to a CONNECT of a client with a name and a key, or with neither; and what openssl says of it.

    Python's own TLS can show no keys, and an argument is no secret: only keys of nobody's come here, and the trial's.
    """
    host = f"[{place[0]}]" if ":" in place[0] else place[0]
    shown = ["-psk_identity", name, "-psk", key] if name else []
    command = ["openssl", "s_client", "-quiet", "-connect", f"{host}:{place[1]}", *shown, *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        assert client.stdin and client.stdout and client.stderr  # noqa: S101  pipes
        stop = threading.Timer(PATIENCE, client.kill)
        stop.start()
        # Past the buffer: what is left there when openssl has ended already would raise once more at the end.
        with contextlib.suppress(BrokenPipeError):
            os.write(client.stdin.fileno(), CONNECT)
        answer = client.stdout.read(4)
        client.kill()
        stop.cancel()
        return answer, client.stderr.read().decode(errors="replace").lower()


_END = "-----END CERTIFICATE-----\n"


def _ask(
    place: tuple[str, int],
    authorities: Path,
    newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
    say: bytes = CONNECT,
) -> tuple[bytes, bytes]:
    """The certificate that is served (DER), and what is answered to a CONNECT without one of the client's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authorities)
    context.check_hostname = False  # The address is known; it is the certificate itself that is compared.
    context.maximum_version = newest
    for left in reversed(range(ATTEMPTS)):
        try:
            with socket.create_connection(place, PATIENCE) as plain, context.wrap_socket(plain) as connection:
                served = connection.getpeercert(binary_form=True) or b""
                try:
                    connection.sendall(say)
                    return served, connection.recv(4)
                except (ssl.SSLError, ConnectionError):
                    return served, b""
        except ssl.SSLError:
            raise
        except OSError as error:
            # Before anything was served, a busy broker's reset is no answer.
            if not (left and isinstance(error, ConnectionResetError)):
                raise Refused(f"{place[0]} port {place[1]}: {error}") from None
        time.sleep(POLL)
    raise AssertionError("the last attempt returns or raises")


# The way back


def _keep() -> None:
    """Copies the set that runs, if it is what is on disk: proven once, it is what `restore` brings back."""
    noted = STAMP.read_text().splitlines() if STAMP.exists() else []
    if KEPT.exists() or not noted or not _unchanged(noted):
        return
    paths = [Path(line.partition("  ")[2]) for line in noted]
    beside = KEPT.with_name(f".{KEPT.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    KEPT.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside.mkdir(mode=0o700)
    for path in paths:
        copy = beside / path.relative_to("/")
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _copy(path, copy)
    beside.rename(KEPT)


def _copy(source: Path, target: Path) -> None:
    """Beside, with owner and mode as the source's, then renamed."""
    beside = target.with_name(f".{target.name}.gatehouse-new")
    beside.unlink(missing_ok=True)
    state = source.stat()
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(source.read_bytes())
        os.fchown(file.fileno(), state.st_uid, state.st_gid)
        os.fchmod(file.fileno(), state.st_mode & 0o7777)
        os.fsync(file.fileno())
    beside.rename(target)


def restore() -> None:
    """Brings back what was kept and restarts the broker on it. Refuses if nothing was, or it doesn't work either."""
    if not KEPT.exists():
        raise Refused("there is no former set of files to go back to")
    for copy in KEPT.rglob("*"):
        if copy.is_file():
            _copy(copy, Path("/") / copy.relative_to(KEPT))
    for command in ("daemon-reload",), ("restart", UNIT):
        subprocess.run(["systemctl", *command], check=True)
    prove()
    print("gatehouse: the broker runs on its former files again", file=sys.stderr)


def main(arguments: list[str]) -> int:
    """Exit status."""
    commands = {"reload": reload, "prove": prove, "restore": restore}
    try:
        if arguments[:1] == ["check"] and len(arguments) == 2:
            check(Path(arguments[1]))
        elif arguments and commands.keys() >= set(arguments):
            for command in arguments:
                commands[command]()
        else:
            raise Refused("usage: mosquitto-guard check ROOT | {reload | prove | restore} …")
    except (Refused, OSError, subprocess.SubprocessError) as error:
        print(f"gatehouse: mosquitto: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
