"""The dashboards in a real browser, as the operator opens them: by name, over HTTPS, with the site's root trusted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy import tools, vaults
from roles import grafana
from tests.lab.browser import Browser
from tests.lab.gateways import Gateway
from tests.lab.needed import BROWSER
from tests.lab.test_database import write

pytestmark = pytest.mark.timeout(900)

# Where the picture that the documentation shows is put, for whoever makes it anew.
PICTURE = "GATEHOUSE_PICTURE"
PNG = b"\x89PNG\r\n\x1a\n"


def test_the_operator_logs_in_and_sees_what_devices_report(gateway: Gateway, tmp_path: Path) -> None:
    tools.ensure(print, BROWSER)
    site = gateway.checkout.site
    name, gateway_site = grafana.host_name(site.domain), site.gateways["gateway"]
    names = {name: str(gateway_site.networks["management"].addresses[0])}
    pki = vaults.open_pki(site)
    with Browser(tmp_path / "stranger", names) as browser:
        assert browser.open(f"https://{name}/") == "net::ERR_CERT_AUTHORITY_INVALID"
    write(gateway, "kitchen-01", "pump-02")
    with Browser(tmp_path / "operator", names, pki.trust_anchor) as browser:
        assert browser.open(f"https://{name}/") == ""
        browser.until("location.pathname == '/login'")
        assert "kitchen-01" not in browser.text()
        browser.type("input[name=user]", grafana.ADMINISTRATOR)
        browser.type("input[name=password]", "not-the-vaults")
        browser.enter()
        browser.until("/invalid username or password/i.test(document.body.innerText)")
        browser.open(f"https://{name}/login")
        browser.type("input[name=user]", grafana.ADMINISTRATOR)
        browser.type("input[name=password]", pki.vault.get_text(grafana.PASSWORD))
        browser.enter()
        browser.until("location.pathname != '/login' && document.body.innerText.includes('Last seen')")
        browser.until("document.body.innerText.includes('kitchen-01')")
        picture = browser.picture()
    assert picture.startswith(PNG) and len(picture) > 10_000
    (Path(os.environ.get(PICTURE) or tmp_path / "dashboards.png")).write_bytes(picture)
