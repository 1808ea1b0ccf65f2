"""What the dashboards' role puts on a gateway; `deploy` activates it, `invoke rotate` brings the data source."""

from __future__ import annotations

import shlex
from pathlib import Path

from gatehouse.identity.passwords import password
from roles import influxdb, nftables, packages, rendering
from roles.facts import LOADED
from roles.grafana import ADDRESS, ADMINISTRATOR, DASHBOARDS, FOLDER, PASSWORD, SOURCE, host_name, service
from roles.influxdb.deploy import secret as database_secret
from roles.target import Target

PACKAGE = "grafana"
UNIT = service.units[0]
STEWARD = "/usr/lib/gatehouse/dashboards"
STATE = "/var/lib/grafana"
SETTINGS = f"{FOLDER}/grafana.ini"
SECRETS = {PASSWORD: f"{FOLDER}/admin_password", "grafana.secret-key": f"{FOLDER}/secret_key"}
SOURCES, PROVIDERS = (f"{FOLDER}/provisioning/{kind}/gatehouse.yaml" for kind in ("datasources", "dashboards"))
# Of 1.x; a token of 2.x is in its own file.
LOGIN = f"{FOLDER}/database_password"
SANDBOX = f"/etc/systemd/system/{UNIT}.d/50-gatehouse.conf"
FOLDERS = ("provisioning", "provisioning/datasources", "provisioning/dashboards", "dashboards")
SHIPPED = Path(__file__).parent / "dashboards"
AWAKE = f"python3 -I {STEWARD} awake"
# What it reads at its start and never again; of the dashboards it notices changes itself.
LOADS = (
    f"{packages.NOTES}/{PACKAGE}",
    SETTINGS,
    SECRETS["grafana.secret-key"],
    SOURCES,
    LOGIN,
    PROVIDERS,
    SANDBOX,
    influxdb.credential(influxdb.DASHBOARDS),
    influxdb.CA,
)
_MINE = {"owner": "root", "group": service.user, "mode": 0o640}


def configuration(target: Target) -> list[rendering.File | rendering.Directory]:
    """All files of the dashboards, and of their steward."""
    site = target.site
    port = site.listener(service.name, "http").port
    shown = SHIPPED / site.database.engine
    common = {"folder": FOLDER, "state": STATE, "secrets": SECRETS, "administrator": ADMINISTRATOR}
    return [
        rendering.Directory(FOLDER, group=service.user, mode=0o750),
        *(rendering.Directory(f"{FOLDER}/{name}", group=service.user, mode=0o750) for name in FOLDERS),
        rendering.Directory(STATE, service.user, service.user, 0o700),
        rendering.File(STEWARD, (Path(__file__).parent / "steward.py").read_bytes(), mode=0o755),
        rendering.template(
            "grafana", SETTINGS, **_MINE, **common, address=ADDRESS, port=port, name=host_name(site.domain)
        ),
        *source(target),
        rendering.template("grafana", PROVIDERS, **_MINE, folder=FOLDER),
        *(
            rendering.File(f"{FOLDER}/dashboards/{name}.json", (shown / f"{name}.json").read_bytes(), **_MINE)
            for name in DASHBOARDS
        ),
        *(secret_file(target, name) for name in SECRETS),
        rendering.template(
            "grafana",
            SANDBOX,
            firewall=nftables.service.units[0],
            stamp=" ".join([rendering.STAMP, UNIT, *LOADS]),
            settings=SETTINGS,
        ),
    ]


def source(target: Target) -> list[rendering.File]:
    """What Grafana knows of the database: where it is, and with which login it is read."""
    site = target.site
    user, login = influxdb.login(influxdb.DASHBOARDS, database_secret(target, influxdb.DASHBOARDS))
    return [
        rendering.template(
            "grafana",
            SOURCES,
            **_MINE,
            source=SOURCE,
            database=influxdb,
            engine=site.database.engine,
            port=site.listener(influxdb.service.name, "https").port,
            server_name=influxdb.host_name(site.domain),
            user=user,
            login=LOGIN,
        ),
        rendering.File(LOGIN, f"{login}\n".encode(), **_MINE),
    ]


def follow(target: Target) -> tuple[str, str]:
    """Shell that has Grafana read the database with the login of now, and its standard input.

    It changes nothing a second time, nor where there is no Grafana.
    """
    files = source(target)
    script, archive = rendering.swap(files, files)
    runs = f"systemctl is-active --quiet {UNIT} && sha256sum --check --status {LOADED}/{UNIT}"
    restart = f"{{ {runs} || systemctl restart {UNIT}; }} && {AWAKE}"
    return f"[ -e {shlex.quote(SANDBOX)} ] || exit 0; {script}; {restart}", archive


def secret_file(target: Target, name: str) -> rendering.File:
    """The administrator's password, or the key that Grafana's own database is encrypted with."""
    return rendering.File(SECRETS[name], target.pki.vault.obtain(name, password, "password") + b"\n", **_MINE)
