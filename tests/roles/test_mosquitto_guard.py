"""Nothing goes live that the broker has not accepted, and no reload is believed. Broker and files are real."""

from __future__ import annotations

import shutil
import socket
import ssl
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gatehouse.identity.pki import Pki
from roles.mosquitto import files as rendered
from roles.mosquitto.guard import asking, layout, running, trial
from roles.target import Target
from tests.roles.broker import folder, free_port

LOOPBACK = {"ipv4": "127.0.0.1/8", "ipv6": "::1/64"}


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, programs: Callable[..., None]) -> None:
    """What the guard remembers stays in the test's folder."""
    programs("mosquitto", "mosquitto")
    monkeypatch.setattr(layout, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(layout, "KEPT", tmp_path / "kept")


@pytest.fixture
def staged(gateway_of: Callable[..., Target], tmp_path: Path) -> Staged:
    return Staged(gateway_of(iot=LOOPBACK), tmp_path / "staged")


class Staged:
    """The role's files below `root`, as `lifecycle.files` stages them."""

    def __init__(self, target: Target, root: Path) -> None:
        self.target, self.root = target, root
        for file in (*rendered.configuration(target), *rendered.credentials(target)):
            path = self.root / file.path.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content)
            path.chmod(file.mode)

    def replace(self, name: str, content: bytes) -> None:
        (self.root / rendered.CREDENTIALS.lstrip("/") / name).write_bytes(content)

    def edit(self, old: str, new: str) -> None:
        path = self.root / rendered.CONFIGURATION.lstrip("/")
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


def test_what_the_role_renders_is_accepted(staged: Staged) -> None:
    trial.check(staged.root)


def test_a_trial_leaves_nothing_behind(staged: Staged) -> None:
    before = set(Path("/run").glob("gatehouse-mosquitto-*"))
    trial.check(staged.root)
    assert set(Path("/run").glob("gatehouse-mosquitto-*")) == before


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("crl.pem", b"junk\n", "holds none"),
        ("crl.pem", b"-----BEGIN X509 CRL-----\nTUlJ\n-----END X509 CRL-----\n", "broken"),
        ("acl", b"pattern bogus devices/%u\n", "does not start.*acl"),
        ("acl", b"pattern readwrite #\n", "ACL is not in force"),
        ("ca.crt", b"", "broken, or not signed"),
        ("server.crt", b"junk\n", "server certificate is broken"),
    ],
)
def test_a_broken_file_is_refused(staged: Staged, name: str, content: bytes, why: str) -> None:
    staged.replace(name, content)
    with pytest.raises(layout.Refused, match=why):
        trial.check(staged.root)


def test_a_key_that_is_not_the_certificates_is_refused(staged: Staged) -> None:
    staged.replace("server.key", staged.target.pki.device("kitchen-01").private_key_pem)
    with pytest.raises(layout.Refused, match=r"does not start.*server key|does not start.*mismatch"):
        trial.check(staged.root)


def test_a_revocation_list_that_has_run_out_is_refused(staged: Staged, new_pki: Callable[[], Pki]) -> None:
    pki = new_pki()
    staged.replace("ca.crt", pki.trust_chain_for_devices())
    staged.replace("crl.pem", pki.crl(now=datetime.now(UTC) - timedelta(days=400)))
    with pytest.raises(layout.Refused, match="was good until"):
        trial.check(staged.root)


def test_a_revocation_list_of_another_site_is_refused(staged: Staged, new_pki: Callable[[], Pki]) -> None:
    staged.replace("crl.pem", new_pki().crl())
    with pytest.raises(layout.Refused, match="not signed by an authority of the devices"):
        trial.check(staged.root)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("require_certificate true", "require_certificate false", "answers a client that has no certificate"),
        ("max_packet_size", "max_paket_size", "does not start"),
        ("certfile ", "# certfile ", "names no certfile"),
        ("crlfile ", "# crlfile ", "names no crlfile"),
    ],
)
def test_a_configuration_that_would_let_strangers_in_is_refused(staged: Staged, old: str, new: str, why: str) -> None:
    staged.edit(old, new)
    with pytest.raises(layout.Refused, match=why):
        trial.check(staged.root)


def test_the_command_says_in_one_line_why_it_refuses(staged: Staged) -> None:
    staged.replace("crl.pem", b"junk\n")
    command = [f"{staged.root}{rendered.GUARD}", "check", str(staged.root)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "gatehouse: mosquitto: the revocation list holds none\n"


@pytest.fixture
def with_programs(gateway_of: Callable[..., Target], tmp_path: Path) -> Staged:
    settings = {"mosquitto": {"reachable_from": {"passwords": ["iot"]}}}
    target = gateway_of(iot=LOOPBACK, programs={"homeassistant": {"reads": ["devices/#"]}}, settings=settings)
    return Staged(target, tmp_path / "programs")


def test_a_listener_for_passwords_is_accepted(with_programs: Staged) -> None:
    trial.check(with_programs.root)


@pytest.mark.parametrize(
    "content",
    [b"junk\n", b"program.homeassistant:\n", b"program.homeassistant:secret\n", b"program.x:$7$101$AAAA$AAAA\n"],
)
def test_a_broken_file_of_passwords_is_refused(with_programs: Staged, content: bytes) -> None:
    with_programs.replace("passwords", content)
    with pytest.raises(layout.Refused, match="file of passwords is broken"):
        trial.check(with_programs.root)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("password_file ", "# password_file ", "names no password_file"),
        ("use_identity_as_username true", "use_identity_as_username false", "does not turn away who has no password"),
    ],
)
def test_a_listener_where_a_name_is_enough_is_refused(with_programs: Staged, old: str, new: str, why: str) -> None:
    with_programs.edit(old, new)
    with pytest.raises(layout.Refused, match=why):
        trial.check(with_programs.root)


@pytest.fixture
def tried(staged: Staged, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The brokers that are tried in private; what is staged is what the broker runs on, until a test changes it."""
    noted = [path for path in rendered.LOADS if path != rendered.SANDBOX]
    lines = [f"{sha256((staged.root / path.lstrip('/')).read_bytes()).hexdigest()}  {path}\n" for path in noted]
    layout.STAMP.write_text("".join(lines))
    tries: list[str] = []
    monkeypatch.setattr(trial, "_try", lambda *_, **__: tries.append("tried"))
    return tries


def test_a_new_revocation_list_alone_needs_no_trial(staged: Staged, tried: list[str]) -> None:
    pki = staged.target.pki
    pki.revoke(pki.device("pump-02").serial)
    staged.replace("crl.pem", pki.crl())
    trial.check(staged.root)
    assert tried == []


@pytest.mark.parametrize("name", ["acl", "server.crt", "ca.crt"])
def test_any_other_new_file_beside_it_is_tried(staged: Staged, tried: list[str], name: str) -> None:
    path = staged.root / rendered.CREDENTIALS.lstrip("/") / name
    staged.replace(name, path.read_bytes() + b"\n")
    trial.check(staged.root)
    assert tried == ["tried"]


def test_all_is_tried_where_nobody_knows_what_runs(staged: Staged, tried: list[str]) -> None:
    layout.STAMP.unlink()
    trial.check(staged.root)
    assert tried == ["tried"]


@pytest.mark.parametrize(
    "spoil",
    [lambda pem: pem[:-30], lambda pem: pem + b"junk\n", lambda pem: pem + pem[: len(pem) // 2], lambda pem: b""],
    ids=["cut short", "junk behind", "half a second one", "empty"],
)
def test_a_broken_list_is_refused_without_a_trial_too(
    staged: Staged, tried: list[str], spoil: Callable[[bytes], bytes]
) -> None:
    good = staged.target.pki.crl()
    trial.check(staged.root)
    staged.replace("crl.pem", spoil(good))
    with pytest.raises(layout.Refused, match="revocation list"):
        trial.check(staged.root)
    assert tried == []


# The broker that runs


SYSTEMCTL = """#!/bin/sh
echo "$*" >>{home}/asked
case $1 in
reload) sha256sum {files} >{home}/stamp; kill -HUP $(cat {home}/pid) ;;
restart)
    if [ -e {home}/pid ]; then
        kill $(cat {home}/pid) 2>/dev/null; while kill -0 $(cat {home}/pid) 2>/dev/null; do sleep 0.05; done
    fi
    sha256sum {files} >{home}/stamp
    setpriv --reuid mosquitto --regid mosquitto --clear-groups \\
        mosquitto -c {home}/gatehouse.conf </dev/null >>{home}/log 2>&1 &
    echo $! >{home}/pid; sleep 0.5; kill -0 $(cat {home}/pid) ;;
esac
"""
JOURNALCTL = """#!/bin/sh
case "$*" in
*--show-cursor*) echo "-- cursor: $(wc -l <{home}/log)" ;;
*) eval from=\\${{$#}}; tail -n +$((from + 1)) {home}/log ;;
esac
"""


class Machine:
    """The role's files in a folder, and a broker that a played `systemctl` starts, reloads and restarts."""

    def __init__(self, target: Target, home: Path) -> None:
        self.home = home
        moves = {rendered.CREDENTIALS: home, "/var/lib/mosquitto": home / "data", "log_dest syslog": "log_dest stderr"}
        (home / "data").mkdir()
        shutil.chown(home / "data", "mosquitto")
        files = [
            f for f in (*rendered.configuration(target), *rendered.credentials(target)) if f.path != rendered.SANDBOX
        ]
        for file in files:
            text = file.content.decode()
            for old, new in moves.items():
                text = text.replace(old, str(new))
            path = home / Path(file.path).name
            path.write_text(text)
            shutil.chown(path, "root", "mosquitto")
            path.chmod(file.mode)
        (home / "log").touch()
        names = " ".join(str(home / Path(file.path).name) for file in files)
        for name, script in (("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)):
            (home / "bin").mkdir(exist_ok=True)
            (home / "bin" / name).write_text(script.format(home=home, files=names))
            (home / "bin" / name).chmod(0o755)

    def stage(self, name: str, content: bytes) -> Path:
        """The root of a tree in which all files are as they were, and one has another content."""
        root = self.home / "staged"
        for path in (path for path in self.home.iterdir() if path.suffix in (".conf", ".crt", ".key", ".pem", "")):
            if path.is_file():
                staged = root / path.relative_to("/")
                staged.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, staged)
                shutil.chown(staged, "root", "mosquitto")
        (root / (self.home / name).relative_to("/")).write_bytes(content)
        return root

    @property
    def asked(self) -> list[str]:
        """What was asked of systemctl since the last look."""
        lines = (self.home / "asked").read_text().splitlines() if (self.home / "asked").exists() else []
        (self.home / "asked").unlink(missing_ok=True)
        return [line.split()[0] for line in lines]


@pytest.fixture
def machine(gateway_of: Callable[..., Target], monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    settings = {"mosquitto": {"ports": {"mqtts": free_port()}}}
    home = folder()
    made = Machine(gateway_of(iot=LOOPBACK, settings=settings), home)
    monkeypatch.setenv("PATH", f"{home}/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    monkeypatch.setattr(layout, "CONFIGURATION", home / "gatehouse.conf")
    monkeypatch.setattr(layout, "STAMP", home / "stamp")
    monkeypatch.setattr(layout, "KEPT", home / "kept")
    running.reload()
    running.prove()
    assert made.asked == ["restart"]
    yield made
    subprocess.run(["sh", "-c", f"kill $(cat {home}/pid)"], check=False, stderr=subprocess.DEVNULL)
    time.sleep(0.1)
    shutil.rmtree(home)


def test_a_new_acl_is_reloaded_and_the_sessions_stay(machine: Machine) -> None:
    with (machine.home / "acl").open("a") as acl:
        acl.write("topic read news\n")
    running.reload()
    running.prove()
    assert machine.asked == ["reload"]


def test_new_authorities_need_a_restart(machine: Machine) -> None:
    with (machine.home / "ca.crt").open("a") as authorities:
        authorities.write("\n")
    running.reload()
    running.prove()
    assert machine.asked == ["restart"]


@pytest.mark.parametrize("name", ["crl.pem", "acl"])
def test_a_reload_that_the_broker_could_not_do_is_noticed_and_the_former_files_come_back(
    machine: Machine, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = machine.home / name
    good, mode = path.read_bytes(), stat.S_IMODE(path.stat().st_mode)
    running.keep(machine.stage(name, b"pattern bogus x\n"))
    path.write_text("pattern bogus x\n")
    with pytest.raises(subprocess.CalledProcessError):
        running.reload()
    assert machine.asked == ["reload", "restart"]
    assert "could not read its files again" in capsys.readouterr().err
    running.restore()
    assert path.read_bytes() == good
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.group() == "mosquitto"
    assert not layout.KEPT.exists()
    running.prove()


def test_only_a_set_that_runs_is_kept_to_come_back_to(machine: Machine) -> None:
    (machine.home / "acl").write_text("pattern bogus x\n")
    running.keep(machine.stage("acl", b"pattern read news\n"))
    assert not layout.KEPT.exists()
    with pytest.raises(layout.Refused, match="no former set"):
        running.restore()


def test_nothing_is_kept_where_the_broker_goes_on_running_on_what_it_has(machine: Machine) -> None:
    key = machine.home / "server.key"
    root = machine.stage("server.key", key.read_bytes())
    key.chmod(0o644)
    running.keep(root)
    assert not layout.KEPT.exists()


def test_a_right_that_somebody_has_loosened_does_not_come_back(machine: Machine) -> None:
    key = machine.home / "server.key"
    mode = stat.S_IMODE(key.stat().st_mode)
    assert mode & 0o007 == 0
    root = machine.stage("acl", b"pattern read news\n")
    key.chmod(0o644)
    running.keep(root)
    kept = layout.KEPT / key.relative_to("/")
    assert stat.S_IMODE(kept.stat().st_mode) == mode
    running.restore()
    assert (stat.S_IMODE(key.stat().st_mode), key.group()) == (mode, "mosquitto")


def test_a_broker_with_another_certificate_than_the_files_is_noticed(
    machine: Machine, gateway_of: Callable[..., Target]
) -> None:
    running.prove()
    other = gateway_of().pki.server("other", dns_names=["other.test.internal"])
    (machine.home / "server.crt").write_bytes(other.chain_pem)
    with pytest.raises(layout.Refused, match="does not serve the certificate"):
        running.prove()


def test_a_broker_that_does_not_run_is_noticed(machine: Machine) -> None:
    subprocess.run(["sh", "-c", f"kill -9 $(cat {machine.home}/pid)"], check=True)
    time.sleep(0.1)
    with pytest.raises(layout.Refused, match="refused"):
        running.prove()


@pytest.fixture
def with_keys(gateway_of: Callable[..., Target], tmp_path: Path) -> Staged:
    return Staged(gateway_of(iot=LOOPBACK, psk=True), tmp_path / "keys")


def test_a_listener_for_keys_is_accepted(with_keys: Staged) -> None:
    trial.check(with_keys.root)


LINE = b"sensor-01:" + b"5a" * 32 + b"\n"


@pytest.mark.parametrize(
    "content",
    [b"", b"junk\n", b"sensor-01:\n", b"sensor-01:5a\n", LINE.strip(), LINE + LINE, LINE + LINE.upper()],
)
def test_a_broken_file_of_keys_is_refused(with_keys: Staged, content: bytes) -> None:
    with_keys.replace("psk", content)
    with pytest.raises(layout.Refused, match="file of keys is broken"):
        trial.check(with_keys.root)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("psk_file ", "# psk_file ", "names no psk_file"),
        ("psk_hint gatehouse", "psk_hint gatehouse\ncertfile /x", "does not start.*certificate and psk"),
        ("psk_hint gatehouse\ntls_version tlsv1.3", "psk_hint gatehouse", "speaks TLS 1.2"),
    ],
)
def test_a_listener_where_a_key_is_not_all_is_refused(with_keys: Staged, old: str, new: str, why: str) -> None:
    with_keys.edit(old, new)
    with pytest.raises(layout.Refused, match=why):
        trial.check(with_keys.root)


@pytest.mark.parametrize("setting", ["use_identity_as_username", "use_username_as_clientid"])
def test_a_listener_where_the_name_is_not_the_keys_is_refused(with_keys: Staged, setting: str) -> None:
    with_keys.edit(
        "TLS_AES_128_GCM_SHA256\nuse_identity_as_username true\nuse_username_as_clientid true",
        f"TLS_AES_128_GCM_SHA256\nuse_identity_as_username true\nuse_username_as_clientid true\n{setting} false",
    )
    with pytest.raises(layout.Refused, match="does not take the name"):
        trial.check(with_keys.root)


def test_a_connection_that_is_reset_is_asked_again_and_one_that_always_is_refused(tmp_path: Path) -> None:
    authorities = Path(ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt")
    with socket.create_server(("127.0.0.1", 0)) as server:
        resets = []

        def reset_each() -> None:
            for _ in range(asking.ATTEMPTS):
                connection, _ = server.accept()
                connection.recv(1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()  # with nothing to linger for: a reset
                resets.append(connection)

        resetting = threading.Thread(target=reset_each)
        resetting.start()
        with pytest.raises(layout.Refused):
            asking.ask(server.getsockname(), authorities)
        resetting.join(10)
    assert len(resets) == asking.ATTEMPTS


def test_an_openssl_that_ends_before_it_is_spoken_to_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = tmp_path / "openssl"
    deaf.write_text("#!/bin/sh\nexec <&-\necho alert >&2\nsleep 0.1\n")
    deaf.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    spawn = subprocess.Popen

    def spawned_and_deaf(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = spawn(*arguments, **options)
        time.sleep(0.05)
        return process

    monkeypatch.setattr(asking.subprocess, "Popen", spawned_and_deaf)
    assert asking.ask_with_key(("127.0.0.1", 1), "name", "00") == (b"", "alert\n")
