"""A private instance of the database, in a network of its own: what must be done before anybody may come in.

Both engines begin without an administrator, and whoever asks first becomes it. So the first to ask is this, where
nobody else can be: the instance runs in a network namespace that holds nothing but a loopback of its own.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import two
from common import FOLDER, Settings, Trouble
from engines import engine

UNIT = "influxdb.service"
USER = "influxdb"
STATE = Path("/var/lib/influxdb")
# Where the names of accounts are, in either engine's own format.
ACCOUNTS = {"influxdb1": STATE / "meta" / "meta.db", "influxdb2": STATE / "influxd.bolt"}
OPTIONS = {
    "influxdb1": {"INFLUXDB_HTTP_AUTH_ENABLED": "false", "INFLUXDB_HTTP_HTTPS_ENABLED": "false"},
    "influxdb2": {"INFLUXD_CONFIG_PATH": str(FOLDER / "config.toml")},
}
COMMANDS = {
    "influxdb1": ["/usr/bin/influxd", "-config", str(FOLDER / "influxdb.conf")],
    # An empty variable of the environment would leave what the configuration says.
    "influxdb2": ["/usr/bin/influxd", "--tls-cert=", "--tls-key="],
}


def exposed() -> Iterator[str]:
    """Whether others can get at the database's files."""
    if STATE.exists() and STATE.stat().st_mode & 0o077:
        yield "others can reach the database's files"


def enclose() -> None:
    """Shuts them out."""
    STATE.chmod(0o700)


def first(settings: Settings) -> None:
    """Before the unit listens: makes the administrator, unless the database knows one already."""
    if not _known(settings):
        _apart()


def _known(settings: Settings) -> bool:
    try:
        return settings.administrator.encode() in ACCOUNTS[settings.engine].read_bytes()
    except FileNotFoundError:
        return False


def renew_administrator(settings: Settings) -> None:
    """Gives the administrator the password of the settings; the unit is away for that moment."""
    subprocess.run(["systemctl", "stop", UNIT], check=True)
    try:
        _apart()
    finally:
        subprocess.run(["systemctl", "start", UNIT], check=True)


def _apart() -> None:
    """Runs `alone` in a network namespace of its own."""
    done = subprocess.run(["unshare", "--net", sys.executable, "-B", str(Path(__file__).parent), "alone"], check=False)
    if done.returncode:
        raise Trouble("no administrator could be made")


def alone(settings: Settings) -> None:
    """What `_apart` runs; refuses to where others could see it."""
    if os.stat("/proc/self/ns/net").st_ino == os.stat("/proc/1/ns/net").st_ino:
        raise Trouble("a private instance needs a network of its own")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    operator = _operator(settings) if settings.engine == "influxdb2" and _known(settings) else ""
    with _instance(settings):
        database = engine(settings, private=True)
        database.awake()
        if isinstance(database, two.Engine) and operator:
            database.readmit(operator)
        else:
            database.administrate()


def _operator(settings: Settings) -> str:
    """A token of 2.x that may do everything, made on the disk while nothing runs there; it is in no argument."""
    command = ["/usr/bin/influxd", "recovery", "auth", "create-operator", "--bolt-path", str(ACCOUNTS["influxdb2"])]
    made = subprocess.run(
        [*command, "--username", settings.administrator, "--org", settings.database],
        env={"PATH": "/usr/bin:/bin", "HOME": str(STATE)}, user=USER, group=USER, extra_groups=[], umask=0o077, cwd="/",
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    rows = [
        line.split("\t") for line in made.stdout.splitlines() if f"{settings.administrator}{two.RECOVERY}\t" in line
    ]
    if made.returncode or not rows:
        raise Trouble("influxd makes no token to let the administrator in again (look at `journalctl -u influxdb`)")
    # Columns are as wide as what is in them: empty ones are only more tabs. The last row is the newest.
    return [word for word in rows[-1] if word][4]


@contextlib.contextmanager
def _instance(settings: Settings) -> Iterator[None]:
    STATE.mkdir(mode=0o700, exist_ok=True)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(STATE), **OPTIONS[settings.engine]}
    instance = subprocess.Popen(
        COMMANDS[settings.engine], env=environment, user=USER, group=USER, extra_groups=[], umask=0o077, cwd="/",
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        instance.terminate()
        try:
            instance.wait(60)
        except subprocess.TimeoutExpired:
            instance.kill()
            instance.wait()
