"""Alerts: the gateway's own numbers are judged once a minute, and what is wrong is told.

Only where the site has `alerts`.
"""

from gatehouse.site import Flow, Secret, Service
from gatehouse.site.alerts import SERVICE

EMAIL_PASSWORD = "alerts/email/password"  # noqa: S105  its name in the vault
WEBHOOK_SECRET = "alerts/webhook/secret"  # noqa: S105  its name in the vault

service = Service(
    name=SERVICE,
    title="Alerts",
    packages=("ca-certificates", "python3"),
    units=("gatehouse-alerts.timer",),
    user="gatehouse-alerts",
    only_with="alerts",
    flows=(
        Flow(
            source="alerts",
            destination="mosquitto",
            data="what is wrong on the gateway, with devices' names",
            encryption="tls",
            authentication="client certificate of the site's PKI",
            compromise="false alerts, or none; nothing else is open to it at the broker",
            only_with="alerts.mqtt",
        ),
        Flow(
            source="alerts",
            destination="webhook",
            data="what is wrong on the gateway, with devices' names",
            encryption="tls",
            authentication="the server by its certificate, each message by an HMAC with a secret of the vault's",
            compromise="who has the secret can send false alerts; who has the server reads them",
            only_with="alerts.webhook",
        ),
        Flow(
            source="alerts",
            destination="mail server",
            data="what is wrong on the gateway, with devices' names",
            encryption="tls",
            authentication="the server by its certificate, the gateway by a password",
            compromise="who has the password sends mail as the gateway; who has the server, or a mailbox, reads alerts",
            only_with="alerts.email",
        ),
    ),
    secrets=(
        Secret(
            name="alerts' client key",
            kind="key",
            rotation_days=365,
            consumers=("alerts", "mosquitto"),
            kept="client/gatehouse-alerts/key",
        ),
        Secret(
            name="alerts' client certificate",
            kind="certificate",
            rotation_days=245,
            consumers=("alerts", "mosquitto"),
            kept="client/gatehouse-alerts/certificate",
            replaced_by="harden",
        ),
        Secret(
            name="webhook's secret",
            kind="key",
            rotation_days=365,
            consumers=("alerts", "whoever takes its messages"),
            kept=WEBHOOK_SECRET,
        ),
    ),
)
