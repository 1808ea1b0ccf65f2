"""The HTTPS front: the only way to the gateway's web pages.

A service shows a page by declaring it beside a listener of its own on loopback:

    listeners=(
        Listener(name="http", port=3000, encryption="none", accounts=("root", nginx.USER), …),
    ),
    pages=(Page(name="dashboards", listener="http", logins=("/login",)),),

That is `https://dashboards.DOMAIN` then, with a certificate of the site's PKI, for the segments that may reach `https`
here (management; a site's `settings` name others). A gateway's `public_names` put a name on the internet in its place,
with a certificate of the public CA that the site's `acme` says. Nobody else may connect to the loopback port
(`accounts`); with `encryption="tls"` there, the front checks a certificate of the site's PKI for `SERVICE.DOMAIN`.
"""

from gatehouse.site import Flow, Listener, Secret, Service

USER = "www-data"
# A restart where it can't go on with what is new, such as another way to listen at the same address.
RELOAD = "systemctl reload -- nginx.service || systemctl restart -- nginx.service"

service = Service(
    name="nginx",
    title="HTTPS front",
    packages=("nginx", "python3"),
    units=("nginx.service",),
    user=USER,
    network_facing=True,
    listeners=(
        Listener(
            name="https",
            port=443,
            encryption="tls",
            authentication="the server by its certificate; who asks, by the login of the page behind it",
            reachable_from=("management",),
            data="the pages of the gateway: dashboards, the list of devices",
            compromise="the front's key: pages can be imitated until its certificate ends",
        ),
        Listener(
            name="http",
            port=80,
            encryption="none",
            authentication="none: it redirects to HTTPS, and shows the challenges of the public CA",
            reachable_from=("management",),
            data="which page somebody asked for, before they are sent to HTTPS",
            compromise="somebody on the way reads that, and can lead those astray who were never here before (HSTS)",
        ),
    ),
    flows=(
        Flow(
            source="operator",
            destination="gateway",
            data="the front's keys and certificates for the site's own names",
            encryption="ssh",
            authentication="SSH key of the administrator",
            compromise="who deploys decides what the gateway's pages are",
        ),
    ),
    secrets=(
        Secret(name="server key", kind="key", rotation_days=365, consumers=("nginx",), kept="server/web-*/key"),
        Secret(
            name="server certificate",
            kind="certificate",
            rotation_days=245,
            consumers=("nginx",),
            kept="server/web-*/certificate",
            replaced_by="harden",
        ),
    ),
)
