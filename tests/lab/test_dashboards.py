"""The dashboards on a live gateway: their queries, a wrong package or none, a database that is locked."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from gatehouse.proof import dashboards, results
from roles import grafana
from roles.grafana.files import SANDBOX, SHIPPED, STEWARD
from tests.checkout import SITE_FILE, Checkout
from tests.lab.gateways import Gateway

pytestmark = pytest.mark.timeout(900)

DECLARED = "dashboards=packages.dashboards(_state.directory)"
# Asks the database as the dashboards do, without them: `python3 -c ASK`, queries as JSON on standard input.
ASK = """
import base64, http.client, json, socket, ssl, sys
from urllib.parse import urlencode
secret = open("/etc/gatehouse/database/dashboards.credential").read().strip()
login = secret if ":" in secret else f"dashboards:{secret}"
tls = ssl.create_default_context(cafile="/etc/gatehouse/database/ca.crt")
for query in json.load(sys.stdin):
    connection = http.client.HTTPSConnection("influxdb.lab.internal", 8086)
    connection.sock = tls.wrap_socket(socket.create_connection(("127.0.0.1", 8086)), server_hostname=connection.host)
    headers = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}
    connection.request("GET", "/query?" + urlencode({"db": "gatehouse", "q": query}), headers=headers)
    print(json.dumps(json.loads(connection.getresponse().read())["results"][0]))
"""
LOCK = """
import sqlite3, sys, time
held = sqlite3.connect("/var/lib/grafana/grafana.db", timeout=30, isolation_level=None)
held.execute("begin exclusive")
time.sleep(600)
"""
CLI = "/usr/share/grafana/bin/grafana cli --homepath /usr/share/grafana --config /etc/gatehouse/grafana/grafana.ini"
RESET = f"runuser -u grafana -- {CLI} admin reset-admin-password --password-from-stdin"


def checks_of(here: Checkout, words: str) -> dict[str, results.Check]:
    """What the compliance suite says of the gateway, as far as a check's test has one of the words in its name."""
    folder = here.site.state
    assert folder is not None
    done = here.run(
        "pytest", "tests/compliance", "--site", "lab", "-q", "-k", words, "--reports", str(folder / "some"), timeout=240
    )
    path = folder / "some" / "lab" / results.LATEST / results.RESULTS
    assert path.exists(), done.text
    return {check.id: check for check in results.read(path).checks}


def test_every_panel_s_query_is_answered_by_the_database(gateway: Gateway) -> None:
    texts = dashboards.texts(
        [json.loads((SHIPPED / "influxdb1" / f"{n}.json").read_text()) for n in grafana.DASHBOARDS]
    )
    queries = {
        panel: text.replace("$timeFilter", "time > now() - 1h").replace("$__interval", "1m")
        for panel, text in texts.items()
    }
    assert not [panel for panel, text in queries.items() if re.search(r"\$\w", text)]
    asked = shlex.quote(json.dumps(list(queries.values())))
    # The gateway's own numbers come once a minute, and the first time perhaps before the deploy was done.
    gateway("systemctl start gatehouse-collector.service")
    answers = map(json.loads, gateway(f"printf %s {asked} | python3 -c {shlex.quote(ASK)}").splitlines())
    for panel, answer in zip(queries, answers, strict=True):
        assert "error" not in answer, f"{panel}: {answer['error']}"
        if panel.startswith("security") and "difference" not in queries[panel]:
            assert answer.get("series"), f"{panel}: no data"


def test_a_package_that_is_not_the_pinned_one_is_refused_and_nothing_is_changed(
    gateway: Gateway, changed: Checkout
) -> None:
    pinned = gateway.checkout.site.dashboards.package
    assert pinned is not None
    wrong = f'dashboards={{"package": {{"file": "{pinned.file}", "sha256": "{"0" * 64}"}}}}'
    changed.edit(SITE_FILE, (DECLARED, wrong))
    before = gateway("dpkg-query -W -f='${Version}' grafana; stat -c %Y /var/lib/dpkg/status")
    refused = changed.deploy()
    assert refused.status != 0 and "not installed" in refused.text, refused.text
    assert "Traceback" not in refused.text
    assert gateway("dpkg-query -W -f='${Version}' grafana; stat -c %Y /var/lib/dpkg/status") == before
    gateway.stays_converged()


def test_without_a_package_the_deploy_goes_on_and_nothing_is_called_proven(
    gateway: Gateway, changed: Checkout, here: Checkout
) -> None:
    gateway.is_hardened = False
    gateway(f"DEBIAN_FRONTEND=noninteractive apt-get -q -y purge grafana; rm -rf $(dirname {SANDBOX})", timeout=120)
    gateway("systemctl daemon-reload")
    changed.edit(SITE_FILE, (f"    {DECLARED},\n", ""))
    deployed = changed.deploy()
    assert deployed.status == 0, deployed.text
    assert "grafana is not deployed: dashboards: the site names no package" in deployed.text
    found = checks_of(here, "dashboards or (installed and grafana)")
    assert "dashboards.login" in found
    mine = [check for name, check in found.items() if name.startswith(("dashboards.", "host.runs-grafana"))]
    assert {check.verdict for check in mine} == {"not_proven"}
    assert all("not deployed" in str(check.reason) for check in mine)
    gateway.converge()


def test_a_password_that_was_changed_is_put_right_unless_the_database_is_locked(gateway: Gateway) -> None:
    gateway.is_hardened = False
    gateway(f"echo not-the-vaults | {RESET}", timeout=90)
    assert gateway(f"python3 -I {STEWARD} check") == "the administrator's login is refused\n"
    gateway(f"systemd-run --quiet --collect --unit=lock python3 -c {shlex.quote(LOCK)}")
    try:
        gateway.until("systemctl is-active lock && ! timeout 20 python3 -I " + STEWARD + " check | grep -qx refused")
        refused = gateway.checkout.deploy()
        assert refused.status != 0 and "locked" in refused.text, refused.text
        assert "Traceback" not in refused.text
    finally:
        gateway("systemctl stop lock")
    gateway.converge()
    assert gateway(f"python3 -I {STEWARD} check") == "as declared\n"
