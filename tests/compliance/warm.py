"""A warm session: the checks that can see the firewall, over one connection, judged again and again.

`python -m pytest tests/compliance --site lab -p tests.compliance.warm --warm IN,OUT` reads questions from one file
descriptor and writes answers to another, one JSON object a line; lab/sabotage/mutation_bench.py is the other side.
First it asks and judges everything, and says so; then for each line

    {"groups": {NAME: [[POSITION, ID], …]}}   makes these probes again, all at the same time (null: every probe), and
                                              says of each group which checks fail, the rest being as it was first
    {"areas": [AREA, …]}                      asks these areas anew, and says which checks of theirs fail

Positions are taken by the lab's console, so that no firewall cuts the session off.
"""

from __future__ import annotations

import inspect
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from typing import Any

import pytest

import lab
from gatehouse.proof import expect
from gatehouse.proof.channel import START, Agent
from gatehouse.proof.credentials import CUT_OFF_HARDWARE
from gatehouse.proof.observation import Observation
from gatehouse.proof.plugin import identity
from gatehouse.site import INTERNET
from gatehouse.site.remote import INTERFACE
from lab import hosts
from tests.compliance import egress, isolation, refusals, remote
from tests.compliance.line import CUT_OFF, LISTED
from tests.compliance.live import Live
from tests.compliance.looks import Looks
from tests.compliance.once import once

# Seconds for what answered before, time for a SYN to be sent three times (RFC 6298 §2.1), and for what did not; where
# many are asked at the same time, they wait for each other.
FEW, MANY = (3.4, 1.5), (8.0, 2.5)
CROWD = 500  # probes
PLACING = 120.0
AREAS: dict[str, once] = {
    "egress": egress.grants,
    "resolvers": egress.resolvers,
    "routers": egress.routers,
    "floods": egress.floods,
    "forged": egress.forged,
    "isolation": isolation.isolation,
    "refusals": refusals.refusals,
    "tunnel": remote.tunnel,
}
ACCOUNTS = "accounts"  # what accounts of the gateway itself may connect to
TUNNEL = "tunnel"
_ACCOUNTS = "*.other-accounts"
DATABASE = "database"  # a service that others of the gateway reach over loopback
_DATABASE = "database.intake-writes"
# These ask hosts that have no positions here, or the gateway what it is connected with, by SSH too.
_BLIND = ("segments.hosts-agree-in-*", "gateway.sockets", "gateway.connections")
_LONG = {"scans"}

Key = tuple[str, str]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--warm", metavar="IN,OUT", help="file descriptors of a warm session")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Serves instead of running the tests; there is no report."""
    from tests.compliance.conftest import SITE

    session.config.pluginmanager.unregister(name="gatehouse-proof")
    source, sink = map(int, session.config.getoption("--warm").split(","))
    site = session.config.stash[SITE]
    with os.fdopen(source) as lines, os.fdopen(sink, "w") as out, Warm(site, next(iter(site.gateways))) as live:
        warm = Session(live, session.items)
        out.write(json.dumps(warm.begin()) + "\n")
        out.flush()
        for line in lines:
            out.write(json.dumps(warm.serve(json.loads(line))) + "\n")
            out.flush()
    return True


class _Noting(dict[Key, Observation]):
    """What was seen, and which of it was looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_up: set[Key] = set()

    def __getitem__(self, key: Key) -> Observation:
        self.looked_up.add(key)
        return super().__getitem__(key)

    def get(self, key: Key, default: Any = None) -> Any:
        self.looked_up.add(key)
        return super().get(key, default)


class Warm(Live):
    """A gateway of the lab, asked by its console; it remembers what was asked for which area."""

    asks_hosts = False

    def __init__(self, site: Any, name: str) -> None:
        super().__init__(site, name)
        self._seen: _Noting = _Noting()
        self.asked: list[tuple[str, str, Mapping[str, Any]]] = []
        self._area = threading.local()

    @property
    def noted(self) -> _Noting:
        """What was seen."""
        return self._seen

    @once
    def agent(self) -> Agent:
        """The same positions; nothing goes over the network but the probes."""
        command = hosts.entering(lab.name_of(self.site), self.name, "python3", "-I", "-c", START)
        config = {"segments": self.wanted_positions(), "patience": PLACING}
        return self._stack.enter_context(Agent(self.name, command, config, patience=PLACING + 60))

    def ask(self, work: Any, patience: float = 180) -> dict[str, list[Observation]]:
        """Notes for which area it is asked."""
        work = {position: list(probes) for position, probes in work.items()}
        area = getattr(self._area, "name", "")
        self.asked += [(area, position, probe) for position, probes in work.items() for probe in probes]
        return super().ask(work, patience)

    def look(self, area: str) -> None:
        """Has an area asked; whoever judges meets its error."""
        self._area.name = area
        try:
            AREAS[area](self)
        except Exception:  # noqa: S110  it lasts (once.py)
            pass
        finally:
            self._area.name = ""


class Session:
    """The checks that can see the firewall, and what they rest on."""

    def __init__(self, live: Warm, items: Iterable[pytest.Item]) -> None:
        self._live = live
        self._fast: dict[str, Callable[[], None]] = {}
        self._slow: dict[str, dict[str, Callable[[], None]]] = {area: {} for area in (*AREAS, ACCOUNTS, DATABASE)}
        for item in items:
            name = identity(item)
            asks = {str(area) for marker in item.iter_markers("asks") for area in marker.args}
            if fnmatch(name, _ACCOUNTS):
                self._slow[ACCOUNTS][name] = self._check(item)
            elif name == _DATABASE:
                self._slow[DATABASE][name] = self._check(item)
                self._database: once = item.function.__globals__["answers"]  # type: ignore[attr-defined]
            elif "reach" in asks and asks.isdisjoint(_LONG) and not any(fnmatch(name, each) for each in _BLIND):
                self._fast[name] = self._check(item)
            for area in asks & set(AREAS):
                self._slow[area][name] = self._check(item)
        self._rests_on: dict[str, set[Key]] = {}
        self._probes: dict[Key, dict[str, Any]] = {}
        self._heard: dict[str, list[str]] = {}
        self._stamped_until = 0.0

    def _check(self, item: pytest.Item) -> Callable[[], None]:
        function: Callable[..., None] = getattr(item, "function")  # noqa: B009  only a Function has one
        given = {**getattr(item, "callspec").params} if hasattr(item, "callspec") else {}  # noqa: B009
        live = self._live

        def judge() -> None:
            known: dict[str, Callable[[], Any]] = {
                "live": lambda: live,
                "site": lambda: live.site,
                "evidence": lambda: lambda _: None,
                "warn": lambda: lambda _: None,
                "seen": lambda: remote.tunnel(live),
            }
            wanted = inspect.signature(function).parameters
            function(**{name: given[name] if name in given else known[name]() for name in wanted})

        return judge

    # what is there

    def begin(self) -> dict[str, Any]:
        """Asks and judges everything once; the verdicts, and every probe that was made, for which area."""
        self._heard = {segment: list(lines) for segment, lines in self._live.reach.items()}
        with ThreadPoolExecutor(len(AREAS)) as pool:
            list(pool.map(self._live.look, AREAS))
        asked = list(self._live.asked)
        self._probes = {
            (position, probe["id"]): dict(probe)
            for area, position, probe in asked
            if not area and "id" in probe and (position, probe["id"]) in self._live.noted
        }
        verdicts = {}
        for name, judge in self._fast.items():
            self._live.noted.looked_up.clear()
            verdicts[name] = _verdict(judge)
            self._rests_on[name] = self._live.noted.looked_up & set(self._probes)
        for checks in self._slow.values():
            verdicts |= {name: _verdict(judge) for name, judge in checks.items()}
        needed = set().union(*self._rests_on.values())
        questions = [
            (area, position, {key: probe[key] for key in ("id", "kind", "address", "port", "source") if key in probe})
            for area, position, probe in asked
            if area or (position, probe.get("id")) in needed
        ]
        if remote.runs(self._live):
            questions += [
                (TUNNEL, TUNNEL, {"kind": "tcp", "address": address, "port": port})
                for (_, address, port), _ in remote.targets(self._live)
            ]
        return {"verdicts": verdicts, "questions": questions, "places": self._places(), **self._around()}

    def _places(self) -> dict[str, dict[str, Any]]:
        live, wanted = self._live, self._live.wanted_positions()
        found: dict[str, dict[str, Any]] = {
            position: {"bridge": wanted[position]["bridge"], "addresses": made["addresses"]}
            for position, made in live.agent.positions.items()
            if "error" not in made
        }
        found[expect.GATEWAY] = {"bridge": "", "addresses": []}
        if CUT_OFF in found:
            found[CUT_OFF]["hardware"] = CUT_OFF_HARDWARE
        if LISTED in found:
            name = egress.device_of(live)
            found[LISTED]["hardware"] = next(
                str(d.hardware_address) for d in live.site.devices_of(live.name) if d.name == name
            )
        if remote.runs(live):
            found[TUNNEL] = {"bridge": INTERFACE, "addresses": [remote.tunnel(live).address]}
        return found

    def _around(self) -> dict[str, Any]:
        live = self._live
        here = live.site.gateways[live.name]
        bridges = {segment: here.bridge(segment) for segment in here.networks}
        addresses = {bridges[s]: list(place.gateway) for s, place in live.places.items()}
        prefixes = {bridges[s]: [str(p) for p in network.prefixes] for s, network in here.networks.items()}
        return {"bridges": bridges, "addresses": addresses, "prefixes": prefixes, "uplink": bridges[INTERNET]}

    # what is asked again

    def serve(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Answers a line."""
        if "areas" in message:
            return {"failed": self._areas(message["areas"])}
        groups = {name: {(p, i) for p, i in keys} if keys is not None else set(self._probes)
                  for name, keys in message["groups"].items()}  # fmt: skip
        return {"failed": self._groups(groups)}

    def _areas(self, areas: Iterable[str]) -> dict[str, dict[str, str]]:
        wanted = [area for area in areas if area in self._slow]
        self._live.memory.forget(lambda key: isinstance(key, tuple))  # what programs on the gateway printed
        for area in wanted:
            if area in AREAS:
                AREAS[area].forget(self._live)
            elif area == DATABASE:
                self._database.forget(self._live)
        with ThreadPoolExecutor(len(AREAS)) as pool:
            list(pool.map(self._live.look, [area for area in wanted if area in AREAS]))
        return {area: _failed(self._slow[area]) for area in wanted}

    def _groups(self, groups: Mapping[str, set[Key]]) -> dict[str, dict[str, str]]:
        wanted = set().union(*groups.values())
        seen, heard = self._ask(wanted)
        return {name: self._judged(keys, seen, heard) for name, keys in groups.items()}

    def _ask(self, wanted: set[Key]) -> tuple[dict[Key, Observation], dict[str, list[str]]]:
        """Makes probes again; what was seen, and what the far sides have heard since."""
        work: dict[str, list[dict[str, Any]]] = {}
        fresh = self._fresh(wanted)
        answered, silent = MANY if len(wanted) > CROWD else FEW
        for position, name in sorted(wanted):
            probe = {**self._probes[position, name], **fresh.get((position, name), {})}
            was = self._live.noted.get((position, name))
            if probe["kind"] not in ("spoof", "datagrams"):
                probe["timeout"] = answered if was is not None and was.reached else silent
            work.setdefault(position, []).append(probe)
        before = self._all_heard()
        forging = {p: [e for e in probes if e["kind"] == "spoof"] for p, probes in work.items()}
        asking = {p: [e for e in probes if e["kind"] != "spoof"] for p, probes in work.items()}
        seen: dict[Key, Observation] = {}
        for part in (asking, forging):
            asked = {position: probes for position, probes in part.items() if probes}
            for position, results in (self._live.agent.ask(asked) if asked else {}).items():
                for probe, result in zip(asked[position], results, strict=True):
                    seen[position, probe["id"]] = Observation(position, probe, result)
        if any(forging.values()):
            time.sleep(0.3)
        after = self._all_heard()
        return seen, {segment: lines[len(before.get(segment, ())) :] for segment, lines in after.items()}

    def _all_heard(self) -> dict[str, list[str]]:
        answers = self._live.agent.ask({segment: [{"kind": "heard"}] for segment in self._live.places})
        return {segment: answer["heard"] for segment, (answer,) in answers.items()}

    def _fresh(self, wanted: set[Key]) -> dict[Key, dict[str, Any]]:
        """Attempts at the tunnel are good once: new ones, later than all before."""
        if not any(self._probes[key]["kind"] == "datagrams" for key in wanted):
            return {}
        time.sleep(max(0.0, self._stamped_until - time.time()))
        work = remote.callers(self._live)
        self._stamped_until = time.time() + remote.last_sent(work)
        return {(position, probe["id"]): probe for position, probes in work.items() for probe in probes}

    def _judged(
        self, keys: set[Key], seen: Mapping[Key, Observation], heard: Mapping[str, list[str]]
    ) -> dict[str, str]:
        """The checks that fail where these probes were answered anew, and all others as at first."""
        noted = self._live.noted
        first = {key: dict.__getitem__(noted, key) for key in keys}
        says = [says for key in keys if (says := self._probes[key].get("say"))]
        noted.update({key: seen[key] for key in keys})
        arrived = {
            segment: [*lines, *(line for line in heard.get(segment, ()) if any(map(line.startswith, says)))]
            for segment, lines in self._heard.items()
        }
        _give_reach(self._live, arrived)
        try:
            return _failed({name: judge for name, judge in self._fast.items() if self._rests_on[name] & keys})
        finally:
            noted.update(first)
            _give_reach(self._live, self._heard)


def _give_reach(live: Warm, heard: dict[str, list[str]]) -> None:
    reach: once = Looks.__dict__["reach"]
    reach.give(live, heard)


def _failed(checks: Mapping[str, Callable[[], None]]) -> dict[str, str]:
    found = {name: _verdict(judge) for name, judge in checks.items()}
    return {name: reason for name, (verdict, reason) in found.items() if verdict == "failed"}


def _verdict(judge: Callable[[], None]) -> tuple[str, str]:
    """`proven`, `failed` or `not_proven`, and why."""
    try:
        judge()
    except AssertionError as error:
        return "failed", _first_line(error)
    except pytest.skip.Exception as error:
        return "not_proven", _first_line(error)
    except Exception as error:  # as the suite has it: could not be made
        return "not_proven", _first_line(error)
    return "proven", ""


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].removeprefix("AssertionError: ")
