"""The compliance suite: read-only, against any site. `pytest tests/compliance --site NAME`.

Each area of questions is asked once for each gateway, from all positions at the same time. The areas that a check
`asks` for are asked in the background as soon as the gateway is connected to, the others when their first check comes
up; the checks themselves only judge what was seen.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest
from _pytest.terminal import TerminalReporter

from deploy import vaults
from deploy.inventory import ROOT, reports
from gatehouse.errors import GatehouseError
from gatehouse.identity import ages
from gatehouse.proof import expect, lives, threats
from gatehouse.proof.observation import Observation
from gatehouse.proof.plugin import EVIDENCE, MARKERS, WARNINGS, Plugin
from gatehouse.site import INTERNET, Site, load
from roles.base.version import of_checkout
from tests.compliance import lanes
from tests.compliance.egress import by_list
from tests.compliance.live import Gateways, Live
from tests.compliance.once import ahead

SITE: pytest.StashKey[Site] = pytest.StashKey()
OWN_MARKERS = (
    "inside: the check is made for every segment but the internet",
    "network_facing: the check is made for the services that strangers can talk to",
    "asks(*areas): what the check wants to know, see lanes.py; it is made after all that know it sooner",
)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    for line in (*MARKERS, *OWN_MARKERS):
        config.addinivalue_line("markers", line)
    try:
        site = load(config.getoption("--site"), ROOT)
    except GatehouseError as error:
        raise pytest.UsageError(str(error)) from None
    if not site.gateways:
        raise pytest.UsageError(f"site {site.name}: no gateway, so there is nothing to prove")
    config.stash[SITE] = site
    if config.option.verbose <= 0:
        # The table at the end says what an operator needs; with -v there is all that pytest knows.
        config.option.tbstyle = "no"
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.reportchars = ""
    out, as_json = sys.stdout, config.getoption("--json")
    if as_json:
        # Standard output is for the machine then.
        old = config.pluginmanager.unregister(name="terminalreporter")
        if old is not None:
            config.pluginmanager.register(TerminalReporter(config, sys.stderr), "terminalreporter")
    version = " ".join(of_checkout().split())
    folder = Path(config.getoption("--reports") or reports(site))
    config.pluginmanager.register(
        Plugin(
            site.name,
            version,
            folder,
            out.write,
            out.isatty() and not as_json,
            as_json,
            site.waivers,
            functools.partial(_lives, site),
            functools.partial(threats.models, site),
        ),
        "gatehouse-proof",
    )


def _lives(site: Site) -> list[lives.Life]:
    """What ends one day. Raises `GatehouseError` where the vault can't be opened."""
    vault = vaults.open_vault(site)
    now = datetime.now(UTC)
    return lives.lives(site.name, vaults.open_pki(site, vault), ages.ages(site, vault), site.devices, now)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long to know is judged last."""
    items.sort(key=lambda item: max(map(lanes.delay, _asked(item)), default=0))


def _asked(item: pytest.Item) -> set[str]:
    return {str(area) for marker in item.iter_markers("asks") for area in marker.args}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every check is made for each gateway, and each of its segments, pairs of segments, listeners, destinations."""
    site = metafunc.config.stash[SITE]
    wanted = metafunc.fixturenames
    if "gateway" not in wanted:
        return
    rows: list[tuple[object, ...]] = []
    asked = ("segment", "towards", "offer", "destination", "grant", "isolated", "limited", "asks_here", "service")
    names = ["gateway", *(name for name in asked if name in wanted)]
    for gateway, description in site.gateways.items():
        here = [segment for segment in site.segments if segment in description.networks]
        if metafunc.definition.get_closest_marker("inside"):
            here.remove(INTERNET)
        extra: dict[str, list[object]] = {
            "segment": list(here),
            "towards": list(here),
            "offer": list(expect.offers(site, gateway)),
            "destination": [n for n, d in site.destinations.items() if any(a.num_addresses == 1 for a in d.addresses)],
            "grant": [name for name, destination in site.destinations.items() if by_list(destination)],
            "isolated": [segment for segment in here if site.segments[segment].isolated],
            "limited": [segment for segment in here if site.segments[segment].limits],
            "asks_here": [segment for segment in here if site.segments[segment].own_resolver],
            "service": list(site.services_of(gateway)),
        }
        if metafunc.definition.get_closest_marker("network_facing"):
            extra["service"] = [service for service in site.services_of(gateway) if service.network_facing]
        found: list[tuple[object, ...]] = [(gateway,)]
        for name in names[1:]:
            found = [(*row, value) for row in found for value in extra[name]]
        rows += [row for row in found if not ("towards" in names and row[1] == row[2])]
    metafunc.parametrize(names, rows, ids=["-".join(getattr(v, "name", str(v)) for v in row) for row in rows])


@pytest.fixture(scope="session")
def site(pytestconfig: pytest.Config) -> Site:
    return pytestconfig.stash[SITE]


def _as_long(fixture_name: str, config: pytest.Config) -> Literal["function", "session"]:
    return "function" if config.getoption("--connection-each") else "session"


@pytest.fixture(scope=_as_long)
def gateways(site: Site, request: pytest.FixtureRequest) -> Iterator[Gateways]:
    items = [request.node] if isinstance(request.node, pytest.Item) else request.session.items
    wanted = set().union(*map(_asked, items))
    with Gateways(site, lambda live: ahead(live, lanes.of(wanted))) as opened:
        yield opened


@pytest.fixture
def live(gateways: Gateways, gateway: str) -> Live:
    return gateways[gateway]


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> Callable[[Observation | dict[str, object]], None]:
    """Notes what a check rests on."""
    noted = request.node.stash.setdefault(EVIDENCE, [])

    def note(seen: Observation | dict[str, object]) -> None:
        noted.append(seen.evidence() if isinstance(seen, Observation) else seen)

    return note


@pytest.fixture
def warn(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Says what is right today and will not be for long: the check is proven all the same."""
    return request.node.stash.setdefault(WARNINGS, []).append
