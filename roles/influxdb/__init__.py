"""The time-series database: verified messages go in, dashboards read them; nobody else gets at it.

It listens on loopback alone, with a certificate of the site's PKI, and every request needs a login:

    gatehouse-admin   the kit's own, from root's files; keeps accounts, retention and summaries as declared
    intake            writes what devices report to the database `gatehouse`, and can do nothing else
    collector         writes what the gateway counts to the database `gateway`, and can do nothing else
    dashboards        reads both, and can do nothing else

While a password is replaced, each has a second user beside it (`intake-2`), and then that one alone.

A consumer reaches it at `https://influxdb.DOMAIN:8086`, which is 127.0.0.1, trusts `CA`, and has its password (1.x) or
token (2.x) in `credential(NAME)`, a file that its own account alone can read.
"""

from gatehouse.site import ClosedPort, Flow, Listener, Secret, Service

FOLDER = "/etc/gatehouse/database"
CA = f"{FOLDER}/ca.crt"
ADDRESS = "127.0.0.1"
NAME = "gatehouse"
"""The database of 1.x; the organisation and the bucket of 2.x."""
NUMBERS = "gateway"
"""The database of 1.x, the bucket of 2.x, with what the gateway counts itself."""
ADMIN, INTAKE, COLLECTOR, DASHBOARDS = "admin", "intake", "collector", "dashboards"
CONSUMERS = (INTAKE, COLLECTOR, DASHBOARDS)
ACCOUNTS = (ADMIN, *CONSUMERS)
_USERS = {ADMIN: "gatehouse-admin", **{consumer: consumer for consumer in CONSUMERS}}
RUNS_AS = {INTAKE: "gatehouse-intake", COLLECTOR: "gatehouse-collector", DASHBOARDS: "grafana"}
"""Which account of the gateway each consumer is."""


def credential(consumer: str) -> str:
    """The file with a consumer's password, `USER:PASSWORD` once it was replaced (1.x), or token (2.x)."""
    return f"{FOLDER}/{consumer}.credential"


def secret_name(account: str) -> str:
    """The name in the vault of an account's login."""
    return f"influxdb.{account}"


def login(account: str, value: str) -> tuple[str, str]:
    """User and password, from what vault and credential file hold: `USER:PASSWORD`, or the first user's password.

    Each account has two users, of which one is in use: while a password is replaced both let in, and nobody is out.
    """
    user, _, password = value.rpartition(":")
    return user or _USERS[account], password


def other_user(account: str, value: str) -> str:
    """The user that is not in use."""
    first = _USERS[account]
    return first if login(account, value)[0] != first else f"{first}-2"


def host_name(domain: str) -> str:
    """The name in the database's certificate."""
    return f"influxdb.{domain}"


service = Service(
    name="influxdb",
    title="Time-series database",
    packages=("python3",),
    engines={"influxdb1": ("influxdb",)},
    units=("influxdb.service",),
    user="influxdb",
    network_facing=True,
    listeners=(
        Listener(
            name="https",
            port=8086,
            encryption="tls",
            authentication="password (1.x) or token (2.x), one a consumer",
            accounts=("root", *RUNS_AS.values()),
            data="what the devices measured and reported",
            compromise="the intake's credential: false measurements; the dashboards': all measurements are read",
        ),
        Listener(
            name="rpc",
            engine="influxdb1",
            port=8088,
            encryption="none",
            authentication="none: the firewall lets root alone connect",
            accounts=("root",),
            data="copies of the whole database; it can't be switched off",
            compromise="all measurements are read",
        ),
    ),
    flows=(
        Flow(
            source="operator",
            destination="gateway",
            data="the database's key and certificate, the administrator's and the consumers' passwords",
            encryption="ssh",
            authentication="SSH key of the administrator",
            compromise="who deploys reads and changes all measurements",
        ),
    ),
    secrets=(
        Secret(
            name="server key",
            kind="key",
            rotation_days=365,
            consumers=("influxdb",),
            kept="server/influxdb-*/key",
        ),
        Secret(
            name="server certificate",
            kind="certificate",
            rotation_days=245,
            consumers=("influxdb",),
            kept="server/influxdb-*/certificate",
            replaced_by="harden",
        ),
        Secret(name="influxdb.admin", kind="password", rotation_days=365, consumers=("influxdb",)),
        Secret(name="influxdb.intake", kind="password", rotation_days=180, consumers=("influxdb", "intake")),
        Secret(name="influxdb.collector", kind="password", rotation_days=180, consumers=("influxdb", "collector")),
        Secret(name="influxdb.dashboards", kind="password", rotation_days=180, consumers=("influxdb", "grafana")),
    ),
    closed=(
        ClosedPort(port=2003, reason="Graphite in the clear, without login"),
        ClosedPort(port=4242, reason="OpenTSDB in the clear, without login"),
        ClosedPort(port=8083, reason="the database's old administration page"),
        ClosedPort(port=25826, transport="udp", reason="collectd in the clear, without login"),
    ),
)
