"""The dashboards: Grafana, on loopback alone, behind the HTTPS front; it reads the database and can do nothing else.

Nobody gets in but its administrator, with the vault's password; there is no anonymous access and no sign-up. Data
source and dashboards are files of the kit's, put in place by each deploy: what is changed in the browser is not kept.
"""

from gatehouse.site import Flow, Listener, Page, Secret, Service
from roles.nginx import USER as FRONT

FOLDER = "/etc/gatehouse/grafana"
ADDRESS = "127.0.0.1"
ADMINISTRATOR = "gatehouse-admin"
PASSWORD = "grafana.admin"  # noqa: S105  its name in the vault
SOURCE = "gatehouse"
"""The unique id of the data source."""
PAGE = "dashboards"
DASHBOARDS = ("fleet", "security")
"""The unique ids of the dashboards."""


def host_name(domain: str) -> str:
    """The name that a browser asks for."""
    return f"{PAGE}.{domain}"


service = Service(
    name="grafana",
    title="Dashboards",
    packages=("python3",),
    from_maker=True,
    units=("grafana-server.service",),
    user="grafana",
    network_facing=True,
    listeners=(
        Listener(
            name="http",
            port=3000,
            encryption="none",
            authentication="password of the administrator",
            accounts=("root", FRONT),
            data="what the devices measured, and what the gateway refused",
            compromise="all measurements are read",
        ),
    ),
    pages=(Page(name=PAGE, listener="http", logins=("/login",)),),
    flows=(
        Flow(
            source="grafana",
            destination="influxdb",
            data="queries of the dashboards",
            encryption="tls",
            authentication="a credential that may read and do nothing else",
            compromise="all measurements are read",
        ),
    ),
    secrets=(
        Secret(name=PASSWORD, kind="password", rotation_days=180, consumers=("grafana",)),
        Secret(name="grafana.secret-key", kind="key", rotation_days=3650, consumers=("grafana",)),
    ),
)
