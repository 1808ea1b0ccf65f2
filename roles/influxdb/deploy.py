"""Installs, configures and activates the database."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable
from functools import partial
from pathlib import Path

from pyinfra import host, logger
from pyinfra.api import StringCommand, deploy, operation
from pyinfra.api.command import PyinfraCommand

from gatehouse.identity import rotation
from gatehouse.identity.passwords import password
from gatehouse.site import Site, seconds
from roles import lifecycle, nftables, packages
from roles.differences import differs
from roles.influxdb import (
    ACCOUNTS,
    ADMIN,
    CA,
    CONSUMERS,
    FOLDER,
    NAME,
    NUMBERS,
    RUNS_AS,
    host_name,
    login,
    secret_name,
    service,
)
from roles.influxdb.facts import Differences
from roles.target import Target

UNIT = service.units[0]
STEWARD = "/usr/lib/gatehouse/database"
STATE = "/var/lib/influxdb"
SANDBOX = f"/etc/systemd/system/{UNIT}.d/50-gatehouse.conf"
PACKAGE = {"influxdb1": "influxdb", "influxdb2": "influxdb2"}
CONFIGURATION = {"influxdb1": f"{FOLDER}/influxdb.conf", "influxdb2": f"{FOLDER}/config.toml"}
COMMAND = {"influxdb1": f"/usr/bin/influxd -config {FOLDER}/influxdb.conf", "influxdb2": "/usr/bin/influxd"}
CHECK = {"influxdb1": f'influxd config -config "$STAGED"{FOLDER}/influxdb.conf >/dev/null', "influxdb2": "true"}
DAY = 86_400
Step = Callable[[], Iterable[PyinfraCommand]]


@deploy("Database")
def apply(target: Target) -> None:
    """Install, configure, activate; where there is no package for the engine, nothing of it."""
    packages.checked(target.site, target.site.database.package)
    engine = target.site.database.engine
    loads = (CONFIGURATION[engine], SANDBOX, f"{FOLDER}/server.crt", f"{FOLDER}/server.key")
    if engine not in service.engines:
        loads += (f"{packages.NOTES}/{PACKAGE[engine]}",)
    deployed(
        target.site,
        partial(lifecycle.files._inner, *configuration(target, loads), check=CHECK[engine]),
        partial(lifecycle.running._inner, UNIT, loads=loads),
        settled,
        name="Run the database, with accounts and retention as declared",
    )


@operation()
def deployed(site: Site, *steps: Step) -> Generator[PyinfraCommand, None, None]:
    """Installs the engine's package where that is the operator's own, then runs the steps; says so where it can't."""
    engine = site.database.engine
    # Debian's is installed with all the others, by `base`.
    if engine not in service.engines:
        why = yield from packages.installed(PACKAGE[engine], "database", site, site.database.package)
        if why:
            logger.warning(f"{host.print_prefix}{engine} is not deployed: {why}")
            return
    for step in steps:
        yield from step()


def settled() -> Generator[StringCommand, None, None]:
    """Accounts, retention and summaries: one look, and the steward's hand where something differs."""
    found = host.get_fact(Differences, steward=STEWARD)
    for line in found:
        differs(host.connector_data, "database", service.name, line)
    if found:
        yield StringCommand(f"python3 -B {STEWARD} settle")


def configuration(target: Target, loads: Iterable[str]) -> list[lifecycle.File | lifecycle.Directory]:
    """All files of the database and of its steward."""
    engine = target.site.database.engine
    path = CONFIGURATION[engine]
    ports = {listener.name: listener.port for listener in target.service(service.name).listeners}
    port = ports["https"]
    steward = sorted((Path(__file__).parent / "gateway").glob("*.py"))
    return [
        lifecycle.Directory(FOLDER),
        lifecycle.Directory(STEWARD),
        *(lifecycle.File(f"{STEWARD}/{module.name}", module.read_bytes()) for module in steward),
        lifecycle.template("influxdb", path, folder=FOLDER, state=STATE, ports=ports),
        lifecycle.template(
            "influxdb",
            SANDBOX,
            firewall=nftables.service.units[0],
            steward=STEWARD,
            stamp=" ".join([lifecycle.STAMP, UNIT, *loads]),
            command=COMMAND[engine],
            configuration=path if engine == "influxdb2" else "",
        ),
        settings(target, port),
        *certificate(target),
    ]


def settings(target: Target, port: int) -> lifecycle.File:
    """What the steward keeps as declared; it holds the passwords, and root alone reads it."""
    database = target.site.database
    summaries = database.summaries
    administrator, admins_password = login(ADMIN, secret(target, ADMIN))
    content = {
        "engine": database.engine,
        "port": port,
        "server_name": host_name(target.site.domain),
        "database": NAME,
        "numbers": NUMBERS,
        "administrator": administrator,
        "password": admins_password,
        "passwords": {consumer: secret(target, consumer) for consumer in CONSUMERS},
        "others": {account: others for account in ACCOUNTS if (others := beside(target, account))},
        "accounts": RUNS_AS,
        "retention": seconds(database.retention),
        "shard": shard(seconds(database.retention)),
        "summaries": summaries
        and {
            "every": summaries.every,
            "retention": seconds(summaries.retention),
            "shard": shard(seconds(summaries.retention)),
        },
    }
    return lifecycle.File(f"{FOLDER}/settings.json", json.dumps(content, indent=1).encode(), mode=0o600)


def secret(target: Target, account: str) -> str:
    """The login of an account that is in use, as `login` reads it; of a consumer of 2.x a token follows it."""
    return target.pki.vault.obtain(secret_name(account), password, "password").decode()


def beside(target: Target, account: str) -> list[str]:
    """The logins that are taken beside the one in use, while it is replaced: `USER:PASSWORD`."""
    _, *others = rotation.accepted(target.pki.vault, secret_name(account))
    return [":".join(login(account, value.decode())) for value in others]


def shard(retention: int) -> int:
    """Seconds of data that are deleted at a time: nothing outlives its retention by more than that."""
    return 3600 if retention <= 2 * DAY else DAY if retention <= 180 * DAY else 7 * DAY


def certificate(target: Target) -> list[lifecycle.File]:
    """The database's own identity, and the anchor by which its clients know it."""
    server = target.pki.server(f"{service.name}-{target.name}", [host_name(target.site.domain)])
    return [
        lifecycle.File(CA, target.pki.trust_anchor),
        lifecycle.File(f"{FOLDER}/server.crt", server.chain_pem),
        lifecycle.File(f"{FOLDER}/server.key", server.private_key_pem or b"", group=service.user, mode=0o640),
    ]
