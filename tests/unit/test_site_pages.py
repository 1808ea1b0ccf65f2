"""The names that the HTTPS front serves: derived from declarations, and checked as part of the site."""

# ruff: noqa: E501  (the table of problems reads better with one a line)

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gatehouse.site import Listener, Page, Service, Site, SiteError
from gatehouse.site.pages import hosts
from gatehouse.site.web import LETS_ENCRYPT_STAGING
from tests.unit.test_site_model import description

ABOUT = {"encryption": "none", "authentication": "login", "data": "d", "compromise": "c"}


def listener(name: str, port: int, reach: tuple[str, ...] = (), only_with: str = "") -> Listener:
    return Listener(name=name, port=port, reachable_from=reach, only_with=only_with, **ABOUT)  # type: ignore[arg-type]


FRONT = Service(
    name="nginx",
    title="Front",
    listeners=(listener("https", 443, ("management",)), listener("http", 80, ("management",))),
)
CHARTS = Service(
    name="charts",
    title="Charts",
    listeners=(listener("http", 3000),),
    pages=(Page(name="dashboards", listener="http", logins=("/login",)),),
)
LIST = Service(
    name="list",
    title="List",
    listeners=(listener("http", 8110, only_with="programs"),),
    pages=(Page(path="/api/", listener="http"),),
)
RENEWAL = Service(name="renewal", title="Renewal", only_with="acme")
OPEN = {"nginx": {"reachable_from": {"http": ["management", "internet"]}}}


def web(public: dict[str, str] | None = None, **changes: Any) -> Site:
    data = description()
    data["services"] = (*data["services"], FRONT, CHARTS, LIST, RENEWAL)
    data["gateways"]["gw"]["public_names"] = public or {}
    return Site(**{**data, **changes})


def test_each_page_has_a_name_below_the_sites_domain_and_the_gateway_has_its_own() -> None:
    own, dashboards = hosts(web(), "gw")
    assert (own.name, own.public, own.places) == ("gateway.home.internal", False, ())
    assert (dashboards.name, dashboards.public) == ("dashboards.home.internal", False)
    (place,) = dashboards.places
    assert (place.path, place.service, place.listener.port, place.logins) == ("/", "charts", 3000, ("/login",))


def test_a_page_of_a_listener_that_is_off_is_not_served_and_one_that_is_on_is() -> None:
    assert not hosts(web(), "gw")[0].places
    (place,) = hosts(web(programs={"homeassistant": {}}), "gw")[0].places
    assert place.path == "/api/"


def test_a_public_name_takes_the_place_of_the_sites_own() -> None:
    site = web({"dashboards": "home.example.org"}, acme={}, settings=OPEN)
    own, dashboards = hosts(site, "gw")
    assert (own.name, own.public) == ("gateway.home.internal", False)
    assert (dashboards.name, dashboards.public) == ("home.example.org", True)


def test_a_gateway_without_the_front_serves_no_names() -> None:
    data = description()["gateways"]["gw"]
    assert hosts(web(gateways={"gw": {**data, "without": ["nginx"]}}), "gw") == ()


def test_what_a_site_has_no_use_for_is_no_service_of_it() -> None:
    assert "renewal" not in {service.name for service in web().services}
    assert "renewal" in {service.name for service in web(acme={}).services}


def test_lets_encrypt_is_asked_on_trial_first_and_another_ca_only_where_it_can_be() -> None:
    assert web(acme={}).acme.staging == LETS_ENCRYPT_STAGING  # type: ignore[union-attr]
    assert web(acme={"directory": "https://acme.example.org/directory"}).acme.staging is None  # type: ignore[union-attr]


PROBLEMS = [
    (
        {"dashboard": "home.example.org"},
        {"acme": {}, "settings": OPEN},
        "no page 'dashboard' (use one of dashboards, gateway)",
    ),
    (
        {"dashboards": "x.home.internal"},
        {"acme": {}, "settings": OPEN},
        "x.home.internal is below the site's own domain",
    ),
    ({"dashboards": "home.example.org"}, {}, "and no CA vouches for them (add acme={}"),
    ({"dashboards": "home.example.org"}, {"acme": {}}, "port 80, which the internet does not reach (add settings="),
    (
        {"dashboards": "a.example.org", "gateway": "a.example.org"},
        {"acme": {}, "settings": OPEN},
        "a.example.org is that of 'dashboards' of gw too",
    ),
    ({"dashboards": "example"}, {"acme": {}, "settings": OPEN}, "gateway 'gw' public_names dashboards"),
    ({}, {"acme": {"directory": "http://acme.example.org/"}}, "acme directory"),
    ({}, {"acme": {"trust": Path("/nowhere/ca.pem")}}, "acme trust: no file /nowhere/ca.pem"),
    ({}, {"acme": {"renew_at": 1.5}}, "acme renew_at"),
    ({}, {"web": {"profile": "old"}}, "web profile"),
    ({}, {"web": {"gzip": True}}, "web gzip: unknown key"),
]


@pytest.mark.parametrize(("public", "changes", "said"), PROBLEMS)
def test_what_is_wrong_with_the_web_of_a_site_is_said(
    public: dict[str, str], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(SiteError) as refused:
        web(public, **changes)
    assert said in str(refused.value)


def test_with_dns_challenges_the_internet_need_not_reach_the_gateway() -> None:
    updates = {"server": "192.0.2.53", "key": "gatehouse"}
    site = web({"dashboards": "home.example.org"}, acme={"dns": updates})
    assert "internet" not in site.listener("nginx", "http").reachable_from
