"""Sabotages of the dashboards: who gets in, what they show, what they ask of others; of the gateway's own numbers,
and of the alerts that are made of them."""

from __future__ import annotations

from lab.sabotage.model import Sabotage

_EVERYWHERE = "{iot,management,guest,internal,internet}"
_IN_SESSION = (
    "dashboards.{asks-for-a-login,as-declared,live-data,numbers,tells-nobody,cookie,no-sign-up,refuses-default}"
)
_NO_SESSION = {_IN_SESSION: "without a session nothing can be asked"}
# Without a session, or without Grafana, none of the others is made as it should.
_ALL_OF_THEM = ("dashboards-*", "no-dashboards", "no-numbers")

SABOTAGES = (
    Sabotage(
        name="no-dashboards",
        title="The dashboards are stopped",
        breaks="systemctl stop grafana-server.service",
        catches=("host.runs-grafana", "dashboards.login"),
        may={
            "dashboards.*": "they answer nobody",
            f"gateway.grafana.http-from-{_EVERYWHERE}": "they answer nobody, so silence elsewhere proves nothing",
        },
        apart_from=_ALL_OF_THEM,
    ),
    Sabotage(
        name="dashboards-for-all-to-see",
        title="The dashboards are shown to whoever comes, without a login",
        breaks="grafana '/^\\[auth.anonymous\\]/,/^enabled/s/^enabled = false/enabled = true/'",
        catches=("dashboards.asks-for-a-login",),
    ),
    Sabotage(
        name="dashboards-default-password",
        title="The dashboards' administrator has the password that everybody tries first",
        breaks="""
            printf 'admin\\n' | runuser -u grafana -- /usr/share/grafana/bin/grafana cli --homepath /usr/share/grafana \\
                --config $DASHBOARDS/grafana.ini admin reset-admin-password --password-from-stdin >/dev/null
        """,
        catches=("dashboards.login",),
        may=_NO_SESSION,
        apart_from=_ALL_OF_THEM,
    ),
    Sabotage(
        name="dashboards-default-account",
        title="The dashboards have an account whose password is its name",
        breaks="grafana_account grafana grafana",
        catches=("dashboards.refuses-default",),
        ends="systemctl stop grafana-server; rm -f /var/lib/grafana/grafana.db; systemctl start grafana-server",
    ),
    Sabotage(
        name="dashboards-sign-up",
        title="Strangers may make themselves an account of the dashboards",
        breaks="grafana 's/^allow_sign_up = false/allow_sign_up = true/'",
        catches=("dashboards.no-sign-up",),
    ),
    Sabotage(
        name="dashboards-loose-cookie",
        title="The dashboards' session travels over plain HTTP, too",
        breaks="grafana 's/^cookie_secure = true/cookie_secure = false/'",
        catches=("dashboards.cookie",),
    ),
    Sabotage(
        name="dashboards-on-every-address",
        title="The dashboards listen on every address, and the firewall lets everybody to them",
        breaks="""
            edit /etc/systemd/system/grafana-server.service.d/50-gatehouse.conf '/^IPAddress/d'
            systemctl daemon-reload
            grafana 's/^http_addr = .*/http_addr = 0.0.0.0/'
            admit input 'fib daddr . iif type local tcp dport 3000 counter accept'
        """,
        catches=(f"gateway.grafana.http-from-{_EVERYWHERE}",),
        may={
            "scan.{tcp,other-addresses}-from-*": "what answers is open to a scan, too",
            "gateway.other-addresses-from-*": "the rule names no destination address",
            "dashboards.tells-nobody": "the unit itself had to be let out",
        },
        apart_from=("no-confinement",),
    ),
    Sabotage(
        name="dashboards-for-every-account",
        title="Every account of the gateway may connect to the dashboards' plain port",
        breaks="firewall '/comment \"grafana http\"/d'",
        catches=("dashboards.other-accounts",),
        apart_from=("no-dashboards",),
    ),
    Sabotage(
        name="dashboards-changed",
        title="A dashboard shows something else than the kit ships",
        breaks="""
            edit $DASHBOARDS/dashboards/fleet.json 's/now\\(\\) - 7d/now() - 1d/'
            systemctl restart grafana-server.service
            timeout 50 python3 -I /usr/lib/gatehouse/dashboards awake
        """,
        catches=("dashboards.as-declared",),
    ),
    Sabotage(
        name="dashboards-without-their-credential",
        title="The dashboards ask the database with a wrong name",
        breaks="grafana_source 's/basicAuthUser: .*/basicAuthUser: nobody/'",
        catches=("dashboards.live-data", "dashboards.numbers"),
        apart_from=("database-without-login",),
    ),
    Sabotage(
        name="dashboards-that-tell",
        title="The dashboards fetch pictures of people, and plugins",
        breaks="grafana 's/^(plugin_admin_enabled) = false/\\1 = true/; s/^(disable_gravatar) = true/\\1 = false/'",
        catches=("dashboards.tells-nobody",),
    ),
    Sabotage(
        name="dashboards-files-for-all",
        title="Everybody on the gateway can read the dashboards' password and database",
        breaks="chmod 0755 /var/lib/grafana; chmod 0644 $DASHBOARDS/admin_password",
        catches=("dashboards.files",),
        apart_from=("dashboards-default-account",),
    ),
    Sabotage(
        name="no-numbers",
        title="The gateway counts nothing any more",
        breaks="""
            systemctl stop gatehouse-collector.timer
            for of in firewall broker messages certificate devices; do influxql_numbers "DROP MEASUREMENT \\"$of\\""; done
        """,
        catches=("host.runs-collector", "dashboards.numbers"),
        apart_from=("no-database", "database-with-own-certificate", "dashboards-without-their-credential"),
    ),
    Sabotage(
        name="no-alerts",
        title="Nobody judges the gateway's numbers any more",
        breaks="""
            systemctl stop gatehouse-alerts.timer
            edit $ALERTS/status.json 's/"when": [0-9.]+/"when": 1000000000/'
        """,
        catches=("host.runs-alerts", "alerts.evaluates"),
    ),
    Sabotage(
        name="alerts-that-nobody-hears",
        title="Alerts are published where no broker is",
        breaks="""edit /etc/gatehouse/alerts/alerts.json 's/"port": [0-9]+/"port": 8882/'""",
        catches=("alerts.delivers",),
    ),
)
